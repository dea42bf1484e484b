//! How the node gets on with the others, and with Redis between them.
//!
//! The engine counts into [`ClusterMetrics`]; what can be told from state ([`OfCluster`]) is told when the page is asked
//! for. A node of its own has all of it at 0.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::metrics::registry::{Definition, Kind, Registry};

/// What is counted of the cluster.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// Messages that came over the bus.
    pub bus_messages: IntCounter,
    /// Their bytes.
    pub bus_bytes: IntCounter,
    /// How long a message of this node takes over the bus and back: see [`Echo`].
    pub bus_lag: Histogram,
    /// Messages that were missed on the bus and delivered later.
    pub healed: IntCounter,
    /// Messages that were missed and that nobody had any more.
    pub lost: IntCounter,
    /// Messages of nodes that speak another version.
    pub unknown_version: IntCounter,
    /// Messages that are none.
    pub malformed: IntCounter,
    /// Calls that were answered, after a while, that Redis is away.
    pub given_up: IntCounter,
    /// Steps that were done.
    pub steps: IntCounter,
    /// Facts for webhooks that wait in Redis, in all partitions.
    pub facts: IntGauge,
    /// Facts that were dropped since this node is there, in all partitions.
    pub facts_lost: IntCounter,
    /// Calls that the engine has taken and not finished.
    pub calls_taken: IntGauge,
    /// Their bytes.
    pub calls_taken_bytes: IntGauge,
    outages: IntCounter,
    /// Of outages that are over.
    away_ms: AtomicU64,
    // Looked up for each publish, so without labels.
    scripts: [Histogram; SCRIPTS.len()],
    failures: IntCounterVec,
    items: [IntCounter; StepItem::ALL.len()],
    restated: IntCounterVec,
}

/// How the cluster is, seen from this node, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfCluster {
    /// For how long Redis has been away now; none if it is not.
    pub away: Option<Duration>,
    /// Since when the lease was not renewed that has waited longest.
    pub lease_age: Option<Duration>,
    /// Nodes that hold a lease.
    pub nodes: usize,
    /// Calls that the engine has not taken yet.
    pub calls: usize,
    /// Their bytes.
    pub calls_bytes: usize,
    /// Topics that the node listens to.
    pub topics: usize,
    /// Subscriptions, sign-ins and watches that wait for the cluster.
    pub tickets: usize,
}

/// Why a script has not done what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It did not run: no connection, or a server that cannot now.
    NotRun,
    /// Its answer is lost.
    Unknown,
    /// Redis refuses: password, rights, version.
    Refused,
    /// An error of the script.
    Script,
    /// The partition does not know this node any more.
    Fenced,
    /// The partition has lost the latest steps of this node.
    Behind,
    /// Another version of Fanfare has laid the partition out.
    Layout,
    /// It makes no sense.
    Nonsense,
}

/// A part of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "each is the part of its name")]
pub enum StepItem {
    Hold,
    Publish,
    Miss,
    Census,
    Look,
    Settle,
    Claim,
    Bury,
}

/// Why this node has told a partition anew what it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restated {
    /// Its lease had been taken away.
    Fenced,
    /// The partition was some steps behind: a replica took over, or Redis started again.
    Behind,
    /// The partition had lost everything.
    Lost,
}

impl Failure {
    const ALL: [Self; 8] = [
        Self::NotRun,
        Self::Unknown,
        Self::Refused,
        Self::Script,
        Self::Fenced,
        Self::Behind,
        Self::Layout,
        Self::Nonsense,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::NotRun => "not_run",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Script => "script",
            Self::Fenced => "fenced",
            Self::Behind => "behind",
            Self::Layout => "layout",
            Self::Nonsense => "nonsense",
        }
    }
}

impl StepItem {
    const ALL: [Self; 8] = [
        Self::Hold,
        Self::Publish,
        Self::Miss,
        Self::Census,
        Self::Look,
        Self::Settle,
        Self::Claim,
        Self::Bury,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Publish => "publish",
            Self::Miss => "miss",
            Self::Census => "census",
            Self::Look => "look",
            Self::Settle => "settle",
            Self::Claim => "claim",
            Self::Bury => "bury",
        }
    }
}

impl Restated {
    const ALL: [Self; 3] = [Self::Fenced, Self::Behind, Self::Lost];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Behind => "behind",
            Self::Lost => "lost",
        }
    }
}

/// The names of the scripts.
const SCRIPTS: [&str; 7] = ["open", "beat", "step", "list", "take", "done", "leave"];

/// Upper bounds, in seconds: over a local network a script takes less than a millisecond.
const SECONDS: [f64; 9] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

impl ClusterMetrics {
    /// All at zero.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let gaps = registry.counters(
            "fanfare_cluster_gap_messages_total",
            &["outcome"],
            "Messages missed on the bus, by whether they were delivered later.",
        );
        let unreadable = registry.counters(
            "fanfare_cluster_bus_unreadable_total",
            &["reason"],
            "Messages on the bus that this node cannot read, by reason.",
        );
        let scripts = registry.histograms(
            "fanfare_cluster_script_seconds",
            &["script"],
            &SECONDS,
            "Time from sending a script to Redis until its answer.",
        );
        let failures = registry.counters(
            "fanfare_cluster_script_failures_total",
            &["reason"],
            "Scripts that have not done what was asked, by reason.",
        );
        let items = registry.counters(
            "fanfare_cluster_step_items_total",
            &["kind"],
            "What steps consisted of: what was done to topics, by kind.",
        );
        let restated = registry.counters(
            "fanfare_cluster_restated_total",
            &["reason"],
            "Partitions that were told anew what this node holds, by reason.",
        );
        // Counted from zero: an alert sees the first one too.
        Failure::ALL.iter().for_each(|failure| drop(failures.with_label_values(&[failure.as_str()])));
        Restated::ALL.iter().for_each(|reason| drop(restated.with_label_values(&[reason.as_str()])));
        // Not of the page: what the engine has taken is shown together with what it has not.
        let inner = |name| IntGauge::new(name, "What the engine has taken.").expect("a good name");
        Self {
            bus_messages: registry
                .counter("fanfare_cluster_bus_messages_total", "Messages that came over the bus."),
            bus_bytes: registry
                .counter("fanfare_cluster_bus_bytes_total", "Bytes of messages that came over the bus."),
            bus_lag: registry.histogram(
                "fanfare_cluster_bus_lag_seconds",
                &SECONDS,
                "Time from sending an event to Redis until it is back over the bus.",
            ),
            healed: gaps.with_label_values(&["healed"]),
            lost: gaps.with_label_values(&["lost"]),
            unknown_version: unreadable.with_label_values(&["version"]),
            malformed: unreadable.with_label_values(&["malformed"]),
            given_up: registry.counter(
                "fanfare_cluster_calls_given_up_total",
                "Publishes and questions that were answered that Redis is away.",
            ),
            steps: registry
                .counter("fanfare_cluster_steps_total", "Steps: changes of partitions, as one script."),
            facts: registry.gauge(
                "fanfare_cluster_facts",
                "Events for webhooks that wait in Redis, of the whole cluster.",
            ),
            facts_lost: registry.counter(
                "fanfare_cluster_facts_lost_total",
                "Events for webhooks dropped in Redis since too many waited, of the whole cluster.",
            ),
            calls_taken: inner("calls_taken"),
            calls_taken_bytes: inner("calls_taken_bytes"),
            outages: registry
                .counter("fanfare_cluster_outages_total", "How often Redis could not be reached any more."),
            away_ms: AtomicU64::new(0),
            scripts: SCRIPTS.map(|script| scripts.with_label_values(&[script])),
            failures,
            items: StepItem::ALL.map(|item| items.with_label_values(&[item.as_str()])),
            restated,
        }
    }

    /// A script was answered, or has failed, after this time.
    pub fn ran(&self, script: &str, elapsed: Duration) {
        if let Some(at) = SCRIPTS.iter().position(|known| *known == script) {
            self.scripts[at].observe(elapsed.as_secs_f64());
        }
    }

    /// A script has not done what was asked.
    pub fn failed(&self, failure: Failure) {
        self.failures.with_label_values(&[failure.as_str()]).inc();
    }

    /// A step that was done had so many parts of a kind.
    pub fn stepped(&self, item: StepItem, count: u64) {
        self.items[item as usize].inc_by(count);
    }

    /// A partition was told anew what this node holds.
    pub fn restated(&self, reason: Restated) {
        self.restated.with_label_values(&[reason.as_str()]).inc();
    }

    /// Redis is away from now on.
    pub fn went_away(&self) {
        self.outages.inc();
    }

    /// Redis is back after this time.
    pub fn came_back(&self, away: Duration) {
        let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        self.away_ms.fetch_add(away_ms, Ordering::Relaxed);
    }

    /// What is told from state.
    pub(super) fn families(&self, state: &OfCluster) -> Vec<MetricFamily> {
        let taken = |gauge: &IntGauge| gauge.get() as f64;
        let away_before = Duration::from_millis(self.away_ms.load(Ordering::Relaxed));
        let away_s = (away_before + state.away.unwrap_or_default()).as_secs_f64();
        vec![
            AWAY.single(f64::from(u8::from(state.away.is_some()))),
            AWAY_SECONDS.single(away_s),
            LEASE_AGE.single(state.lease_age.unwrap_or_default().as_secs_f64()),
            NODES.single(state.nodes as f64),
            CALLS.single(state.calls as f64 + taken(&self.calls_taken)),
            CALLS_BYTES.single(state.calls_bytes as f64 + taken(&self.calls_taken_bytes)),
            TOPICS.single(state.topics as f64),
            TICKETS.single(state.tickets as f64),
        ]
    }
}

const fn figure(name: &'static str, kind: Kind, help: &'static str) -> Definition {
    Definition { name, kind, labels: &[], help }
}

const AWAY: Definition =
    figure("fanfare_cluster_away", Kind::Gauge, "1 while Redis cannot be reached; 0 without a cluster.");
const AWAY_SECONDS: Definition = figure(
    "fanfare_cluster_away_seconds_total",
    Kind::Counter,
    "Seconds for which Redis could not be reached, until now.",
);
const LEASE_AGE: Definition = figure(
    "fanfare_cluster_lease_age_seconds",
    Kind::Gauge,
    "Time since the lease was renewed that has waited longest.",
);
const NODES: Definition =
    figure("fanfare_cluster_nodes", Kind::Gauge, "Nodes that hold a lease, this one included.");
const CALLS: Definition = figure("fanfare_cluster_calls", Kind::Gauge, "What waits to be done in Redis.");
const CALLS_BYTES: Definition =
    figure("fanfare_cluster_calls_bytes", Kind::Gauge, "Bytes of what waits to be done in Redis.");
const TOPICS: Definition =
    figure("fanfare_cluster_topics", Kind::Gauge, "Channels and users that this node listens to on the bus.");
const TICKETS: Definition = figure(
    "fanfare_cluster_tickets",
    Kind::Gauge,
    "Subscriptions, sign-ins and watches that wait for the cluster.",
);

/// Everything that is told from state.
pub(super) const DEFINITIONS: [Definition; 8] =
    [AWAY, AWAY_SECONDS, LEASE_AGE, NODES, CALLS, CALLS_BYTES, TOPICS, TICKETS];

/// Times one message at a time, from when it is sent until it is heard: how late the bus is.
///
/// A message has no time on it, since clocks of two nodes differ; but what this node has sent itself comes back to it if
/// it has listeners of that topic. Watching one of them costs one comparison for each message.
#[derive(Debug)]
pub struct Echo<T> {
    watched: Option<(T, Instant)>,
}

/// What has not come back by then will not: it was refused, or nobody listens any more.
const ECHO_MAX: Duration = Duration::from_secs(10);

impl<T> Default for Echo<T> {
    fn default() -> Self {
        Self { watched: None }
    }
}

impl<T> Echo<T> {
    /// Whether nothing is watched.
    pub fn is_free(&self, now: Instant) -> bool {
        self.watched.as_ref().is_none_or(|(_, at)| now.saturating_duration_since(*at) > ECHO_MAX)
    }

    /// Something is sent that is to come back. It is watched if nothing else is.
    pub fn sent(&mut self, what: impl FnOnce() -> T, now: Instant) {
        if self.is_free(now) {
            self.watched = Some((what(), now));
        }
    }

    /// Something has come. If it is what was sent: how long it took.
    pub fn heard(&mut self, is_it: impl FnOnce(&T) -> bool, now: Instant) -> Option<Duration> {
        let (_, at) = self.watched.take_if(|(what, _)| is_it(what))?;
        Some(now.saturating_duration_since(at))
    }

    /// The bus was deaf: what was sent may have passed unheard.
    pub fn forget(&mut self) {
        self.watched = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_timed_once_and_only_one_at_a_time() {
        let now = Instant::now();
        let after = |millis| now + Duration::from_millis(millis);
        let mut echo = Echo::default();
        echo.sent(|| "a", now);
        echo.sent(|| "b", after(1));
        assert_eq!(echo.heard(|what| *what == "b", after(2)), None);
        assert_eq!(echo.heard(|what| *what == "a", after(3)), Some(Duration::from_millis(3)));
        assert_eq!(echo.heard(|what| *what == "a", after(4)), None);
    }

    #[test]
    fn what_does_not_come_back_makes_room_for_another() {
        let now = Instant::now();
        let mut echo = Echo::default();
        echo.sent(|| "lost", now);
        let later = now + ECHO_MAX + Duration::from_millis(1);
        echo.sent(|| "next", later);
        assert_eq!(echo.heard(|what| *what == "next", later), Some(Duration::ZERO));
        echo.sent(|| "deaf", later);
        echo.forget();
        assert_eq!(echo.heard(|_| true, later), None);
    }

    #[test]
    fn an_outage_counts_while_it_lasts_and_after_it() {
        let metrics = ClusterMetrics::new(&mut Registry::default());
        let away_seconds = |away: Option<u64>| {
            let state = OfCluster { away: away.map(Duration::from_secs), ..OfCluster::default() };
            let families = metrics.families(&state);
            let family = families.iter().find(|family| family.name() == AWAY_SECONDS.name).expect("listed");
            family.get_metric().first().expect("a figure").get_counter().get_value()
        };
        assert_eq!(away_seconds(None), 0.0);
        assert_eq!(away_seconds(Some(3)), 3.0);
        metrics.came_back(Duration::from_millis(3500));
        assert_eq!(away_seconds(None), 3.5);
        assert_eq!(away_seconds(Some(1)), 4.5);
    }
}
