//! Every figure of this node, named once.
//!
//! Counters are kept here and only grow. What can be counted from state (connections, channels, subscriptions) is
//! counted when the page is asked for, so it cannot drift.
//!
//! No label is a text that a client chooses. Apps have labels of their own up to a limit, the rest is [`OTHER_APPS`].
//! What each metric means to an operator is in `docs/metrics.md`, which a test compares with the definitions here.

mod api;
mod auth;
mod cluster;
mod doors;
mod limits;
mod process;
mod registry;
mod soketi;
mod state;
mod store;
mod webhooks;
mod workers;

use std::time::SystemTime;

use prometheus::{Encoder, IntCounter, IntCounterVec, TextEncoder};

pub use crate::metrics::api::{Api, Endpoint};
pub use crate::metrics::auth::{Auth, Door, Fault};
pub use crate::metrics::cluster::{ClusterMetrics, Echo, Failure, OfCluster, Restated, StepItem};
pub use crate::metrics::doors::{DoorMetrics, TooSlow};
pub use crate::metrics::limits::{Limit, Limits};
pub use crate::metrics::process::Process;
pub use crate::metrics::registry::{Definition, Kind, Registry};
pub use crate::metrics::state::{OTHER_APPS, OfApp, State, Tally};
pub use crate::metrics::store::StoreMetrics;
pub use crate::metrics::webhooks::{Dropped, WebhookMetrics};
pub use crate::metrics::workers::{Message, Share, Workers};

/// The figures, as one registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: SystemTime,
    /// Connections let in.
    pub opened: IntCounter,
    /// Connections that ended after they were let in, by close code; `none` if the client just went.
    pub closed: IntCounterVec,
    /// Those of them whose client read too slowly.
    pub slow: IntCounter,
    /// Messages from clients that were refused with `pusher:error`.
    pub message_errors: IntCounter,
    /// Events accepted from backends, one for each channel.
    pub events_of_api: IntCounter,
    /// Events accepted from clients.
    pub events_of_clients: IntCounter,
    /// Events and subscriptions refused because workers had too much to deliver.
    pub overloads: IntCounter,
    /// What workers count.
    pub workers: Workers,
    /// Calls of the API.
    pub api: Api,
    /// Who was not believed.
    pub auth: Auth,
    /// Who comes, and who is let in.
    pub doors: DoorMetrics,
    /// What was too much.
    pub limits: Limits,
    /// Apps in a database.
    pub store: StoreMetrics,
    /// What becomes of webhooks.
    pub webhooks: WebhookMetrics,
    /// How the node gets on with the others.
    pub cluster: ClusterMetrics,
    /// Answers of the admin API, by status; 401 is a wrong token.
    pub admin: IntCounterVec,
}

/// How connections end that were let in.
const CLOSED: [&str; 12] =
    ["client", "none", "1002", "1003", "1007", "1009", "4001", "4003", "4009", "4100", "4200", "4201"];

const BUILD: Definition = Definition {
    name: "fanfare_build_info",
    kind: Kind::Gauge,
    labels: &["version", "features"],
    help: "Always 1; the labels say which build this is.",
};

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let closed = registry.counters(
            "fanfare_connections_closed_total",
            &["code"],
            "WebSocket connections ended, by close code; client: it said goodbye; none: it just went.",
        );
        let events = registry.counters(
            "fanfare_events_accepted_total",
            &["source"],
            "Events accepted, one for each channel, by where they came from.",
        );
        let admin = registry.counters(
            "fanfare_admin_responses_total",
            &["status"],
            "Answers of the admin API, by HTTP status; 401: no or a wrong token.",
        );
        // Counted from zero: an alert sees the first one too.
        ["200", "401"].iter().for_each(|status| drop(admin.with_label_values(&[status])));
        CLOSED.iter().for_each(|code| drop(closed.with_label_values(&[code])));
        Self {
            started: SystemTime::now(),
            opened: registry.counter("fanfare_connections_opened_total", "WebSocket connections let in."),
            closed,
            slow: registry.counter(
                "fanfare_slow_clients_closed_total",
                "WebSocket connections closed because the client did not read what waited for it.",
            ),
            message_errors: registry
                .counter("fanfare_message_errors_total", "Messages from clients refused with pusher:error."),
            events_of_api: events.with_label_values(&["api"]),
            events_of_clients: events.with_label_values(&["client"]),
            overloads: registry.counter(
                "fanfare_events_overload_total",
                "Events and subscriptions refused because workers were too far behind.",
            ),
            workers: Workers::new(&mut registry),
            api: Api::new(&mut registry),
            auth: Auth::new(&mut registry),
            doors: DoorMetrics::new(&mut registry),
            limits: Limits::new(&mut registry),
            store: StoreMetrics::new(&mut registry),
            webhooks: WebhookMetrics::new(&mut registry),
            cluster: ClusterMetrics::new(&mut registry),
            admin,
            registry,
        }
    }

    /// The page, in Prometheus' text format. `soketi_port` adds soketi's names with that port.
    pub fn page(&self, state: &State, soketi_port: Option<u16>) -> Vec<u8> {
        let process = Process::read();
        let mut families = self.registry.gather();
        families.extend(state.families());
        families.extend(self.cluster.families(&state.cluster));
        families.extend(process.families(self.started));
        families.push(BUILD.family([(vec![env!("CARGO_PKG_VERSION").to_owned(), features()], 1.0)]));
        if let Some(port) = soketi_port {
            families.extend(soketi::families(state, &process, self.started, port));
        }
        // The encoder takes no metric without figures.
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let mut page = Vec::new();
        // Writing into memory cannot fail.
        let _ = TextEncoder::new().encode(&families, &mut page);
        page
    }

    /// Every metric there is, soketi's names included, in the order of their names.
    pub fn definitions(&self) -> Vec<Definition> {
        let mut all = self.registry.definitions().to_vec();
        all.extend(state::DEFINITIONS);
        all.extend(cluster::DEFINITIONS);
        all.extend(process::DEFINITIONS);
        all.push(BUILD);
        all.extend(soketi::definitions());
        all.sort_by_key(|definition| definition.name);
        all
    }
}

/// What was compiled in besides the usual.
fn features() -> String {
    let all = [("jemalloc", cfg!(feature = "jemalloc"))];
    all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_types_and_connections() {
        let mut state = State::default();
        state.apps.entry("1".to_owned()).or_default().connections = 3;
        let page = String::from_utf8(Metrics::new().page(&state, None)).expect("text");
        assert!(
            page.contains("# TYPE fanfare_connections gauge\nfanfare_connections{app=\"1\"} 3\n"),
            "{page}"
        );
        assert!(!page.contains("soketi_"));
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let definitions = Metrics::new().definitions();
        for definition in &definitions {
            let Definition { name, kind, help, .. } = definition;
            assert!(help.ends_with('.'), "{name}");
            if !name.starts_with("soketi_") {
                assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
                assert!(name.ends_with("_seconds") || *kind != Kind::Histogram, "{name}");
            }
        }
        let mut names: Vec<_> = definitions.iter().map(|definition| definition.name).collect();
        names.dedup();
        assert_eq!(names.len(), definitions.len(), "two have one name");
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut state = State::default();
        state.apps.entry("\"} 1\nevil 2 \\".to_owned()).or_default().connections = 3;
        let page = String::from_utf8(Metrics::new().page(&state, None)).expect("text");
        assert!(page.contains("fanfare_connections{app=\"\\\"} 1\\nevil 2 \\\\\"} 3\n"), "{page}");
        assert!(!page.lines().any(|line| line.starts_with("evil")), "{page}");
    }
}
