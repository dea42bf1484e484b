//! The figures of apps in a database.

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::metrics::registry::Registry;

/// What is counted of the store of apps. Without one they stay as they begin.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// 0 while the database does not answer.
    pub up: IntGauge,
    /// Apps of the store that this node knows.
    pub apps: IntGauge,
    /// Questions put to the database.
    pub queries: IntCounter,
    /// Those that were not answered.
    pub errors: IntCounter,
    /// Rows that make no valid app.
    pub skipped: IntCounter,
    /// How long the database takes to answer.
    pub seconds: Histogram,
}

const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

impl StoreMetrics {
    /// All at zero, but up.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let up = registry.gauge("fanfare_store_up", "0 while the database that holds apps does not answer.");
        up.set(1);
        Self {
            up,
            apps: registry.gauge("fanfare_store_apps", "Apps of the database that this node knows."),
            queries: registry
                .counter("fanfare_store_queries_total", "Questions put to the database that holds apps."),
            errors: registry
                .counter("fanfare_store_query_errors_total", "Questions that the database did not answer."),
            skipped: registry
                .counter("fanfare_store_rows_skipped_total", "Rows read that make no valid app."),
            seconds: registry.histogram(
                "fanfare_store_query_seconds",
                &SECONDS,
                "How long the database takes to answer.",
            ),
        }
    }
}
