//! What becomes of webhooks.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::metrics::registry::Registry;

/// The figures of webhooks. No label is anything that clients or receivers choose.
#[derive(Debug)]
pub struct WebhookMetrics {
    /// Deliveries that wait or are under way.
    pub deliveries: IntGauge,
    /// What they and the events that will travel with others take, in bytes.
    pub bytes: IntGauge,
    /// Requests, by what they came to: `delivered`, `3xx`, `4xx`, `5xx`, `timeout`, `connection`, `address`,
    /// `request`, `other`.
    pub attempts: IntCounterVec,
    /// How long requests took, in seconds.
    pub attempt_seconds: Histogram,
    /// Deliveries that were given up and became dead letters.
    pub given_up: IntCounter,
    /// Dead letters that are kept.
    pub dead_letters: IntGauge,
    /// Receivers that are only probed, since they have failed again and again.
    pub receivers_down: IntGauge,
    dropped: IntCounterVec,
}

/// Why an event reaches no receiver and no dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dropped {
    /// More happened than could be turned into deliveries.
    Overload,
    /// Too much waited already.
    QueueFull,
    /// Its app was deleted, or no longer has that receiver.
    ReceiverGone,
    /// The server stopped.
    Stopped,
}

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Overload, Self::QueueFull, Self::ReceiverGone, Self::Stopped];

    /// What the metrics call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::QueueFull => "queue_full",
            Self::ReceiverGone => "receiver_gone",
            Self::Stopped => "stopped",
        }
    }
}

/// What a request can come to.
const OUTCOMES: [&str; 9] =
    ["delivered", "3xx", "4xx", "5xx", "timeout", "connection", "address", "request", "other"];

const ATTEMPT_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl WebhookMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let dropped = registry.counters(
            "fanfare_webhook_events_dropped_total",
            &["reason"],
            "Events dropped without a request, by reason.",
        );
        for reason in Dropped::ALL {
            dropped.with_label_values(&[reason.as_str()]); // present from the start, for alerts
        }
        let attempts = registry.counters(
            "fanfare_webhook_attempts_total",
            &["outcome"],
            "Webhook requests, by outcome.",
        );
        OUTCOMES.iter().for_each(|outcome| drop(attempts.with_label_values(&[outcome])));
        let mut gauge = |name, help| registry.gauge(name, help);
        Self {
            deliveries: gauge("fanfare_webhook_deliveries", "Webhook requests that wait or are under way."),
            bytes: gauge("fanfare_webhook_queue_bytes", "Bytes of webhooks that wait."),
            dead_letters: gauge(
                "fanfare_webhook_dead_letters",
                "Undelivered webhook requests that are kept.",
            ),
            receivers_down: gauge(
                "fanfare_webhook_receivers_down",
                "Receivers that fail again and again and are only probed.",
            ),
            attempts,
            attempt_seconds: registry.histogram(
                "fanfare_webhook_attempt_seconds",
                &ATTEMPT_SECONDS,
                "Time of a webhook request, in seconds.",
            ),
            given_up: registry.counter(
                "fanfare_webhook_given_up_total",
                "Webhook requests given up; they are kept as dead letters.",
            ),
            dropped,
        }
    }

    /// Counts events that are dropped.
    pub fn dropped(&self, reason: Dropped, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(events);
    }

    /// How many events were dropped for this reason.
    pub fn dropped_so_far(&self, reason: Dropped) -> u64 {
        self.dropped.with_label_values(&[reason.as_str()]).get()
    }
}
