//! Every figure of this node, named once.
//!
//! Counters are kept here and only grow. What can be counted from state (connections, channels,
//! subscriptions) is counted when the page is asked for, so it cannot drift.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// The figures, as one registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open WebSocket connections, by app. Set when scraped.
    pub connections: IntGaugeVec,
    /// Channels with subscribers, by app. Set when scraped.
    pub channels: IntGaugeVec,
    /// Subscriptions, by app. Set when scraped.
    pub subscriptions: IntGaugeVec,
    /// Connections let in.
    pub opened: IntCounter,
    /// Connections that ended after they were let in, by close code; `none` if the client just went.
    pub closed: IntCounterVec,
    /// Connections refused, by close code.
    pub refused: IntCounterVec,
    /// Messages from clients.
    pub messages: IntCounter,
    /// Messages from clients that were refused with `pusher:error`.
    pub message_errors: IntCounter,
    /// Events accepted from publishers and clients, one for each channel.
    pub events: IntCounter,
    /// Events and subscriptions refused because workers had too much to deliver.
    pub overloads: IntCounter,
    /// Events handed to connections.
    pub deliveries: IntCounter,
    /// API answers, by status.
    pub api: IntCounterVec,
}

/// A name that is registered twice is a mistake in this file.
const ONCE: &str = "every metric is named once";

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("fanfare_{name}"), help).expect(ONCE);
            registry.register(Box::new(counter.clone())).expect(ONCE);
            counter
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters =
                IntCounterVec::new(Opts::new(format!("fanfare_{name}"), help), &[label]).expect(ONCE);
            registry.register(Box::new(counters.clone())).expect(ONCE);
            counters
        };
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(format!("fanfare_{name}"), help), &["app"]).expect(ONCE);
            registry.register(Box::new(gauges.clone())).expect(ONCE);
            gauges
        };
        Self {
            connections: gauges("connections", "Open WebSocket connections."),
            channels: gauges("channels", "Channels with subscribers."),
            subscriptions: gauges("subscriptions", "Subscriptions of all channels."),
            opened: counter("connections_opened_total", "WebSocket connections let in."),
            closed: counters(
                "connections_closed_total",
                "WebSocket connections ended, by close code.",
                "code",
            ),
            refused: counters(
                "connections_refused_total",
                "WebSocket connections refused, by close code.",
                "code",
            ),
            messages: counter("messages_received_total", "Messages from clients."),
            message_errors: counter(
                "message_errors_total",
                "Messages from clients refused with pusher:error.",
            ),
            events: counter("events_accepted_total", "Events accepted, one for each channel."),
            overloads: counter(
                "events_overload_total",
                "Events and subscriptions refused because workers were too far behind.",
            ),
            deliveries: counter("deliveries_total", "Events handed to connections."),
            api: counters("api_responses_total", "API answers, by HTTP status.", "status"),
            registry,
        }
    }

    /// The page, in Prometheus' text format.
    pub fn page(&self) -> Vec<u8> {
        let mut page = Vec::new();
        // Writing into memory cannot fail, and the names are valid since `new` registered them.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        page
    }
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
        let metrics = Metrics::new();
        metrics.connections.with_label_values(&["1"]).set(3);
        let page = String::from_utf8(metrics.page()).expect("text");
        assert!(
            page.contains("# TYPE fanfare_connections gauge\nfanfare_connections{app=\"1\"} 3\n"),
            "{page}"
        );
    }
}
