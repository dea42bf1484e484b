//! What is counted of API calls.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::metrics::Registry;

/// API calls, by where they lead.
#[derive(Debug)]
pub struct Api {
    responses: IntCounterVec,
    /// Those with 200, which are almost all, ready to be counted.
    ok: [IntCounter; Endpoint::ALL.len()],
    durations: [Histogram; Endpoint::ALL.len()],
}

/// Where an API call leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "each is the endpoint of its name")]
pub enum Endpoint {
    Events,
    BatchEvents,
    Channels,
    Channel,
    Users,
    Terminate,
    /// One of the two that Pusher has given up.
    Deprecated,
    /// Nowhere.
    None,
}

impl Endpoint {
    const ALL: [Self; 8] = [
        Self::Events,
        Self::BatchEvents,
        Self::Channels,
        Self::Channel,
        Self::Users,
        Self::Terminate,
        Self::Deprecated,
        Self::None,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::BatchEvents => "batch_events",
            Self::Channels => "channels",
            Self::Channel => "channel",
            Self::Users => "users",
            Self::Terminate => "terminate",
            Self::Deprecated => "deprecated",
            Self::None => "none",
        }
    }
}

/// Upper bounds, in seconds.
const DURATION_S: [f64; 11] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

impl Api {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let responses = registry.counters(
            "fanfare_api_responses_total",
            &["endpoint", "status"],
            "Answers of the API, by endpoint and HTTP status.",
        );
        let durations = registry.histograms(
            "fanfare_api_duration_seconds",
            &["endpoint"],
            &DURATION_S,
            "Time from the head of an API request to its answer, waiting for the body included.",
        );
        Self {
            ok: Endpoint::ALL.map(|endpoint| responses.with_label_values(&[endpoint.as_str(), "200"])),
            durations: Endpoint::ALL.map(|endpoint| durations.with_label_values(&[endpoint.as_str()])),
            responses,
        }
    }

    /// A call has been answered.
    pub fn answered(&self, endpoint: Endpoint, status: &str, elapsed: Duration) {
        let at = endpoint as usize;
        match self.ok.get(at).filter(|_| status == "200") {
            Some(ok) => ok.inc(),
            None => self.responses.with_label_values(&[endpoint.as_str(), status]).inc(),
        }
        if let Some(duration) = self.durations.get(at) {
            duration.observe(elapsed.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_place() {
        for (place, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint as usize, place, "{}", endpoint.as_str());
        }
    }
}
