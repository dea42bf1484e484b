//! Who comes to the doors, and who is let in.

use prometheus::{IntCounterVec, IntGauge};

use crate::metrics::registry::Registry;

/// The figures of the doors.
#[derive(Debug)]
pub struct DoorMetrics {
    /// WebSocket connections refused, by reason.
    pub refusals: IntCounterVec,
    /// TLS handshakes, by result and version.
    pub handshakes: IntCounterVec,
    /// Until when the certificate is valid, as a Unix time; 0 without one.
    pub certificate_expiry: IntGauge,
    /// Headers of the PROXY protocol that were to come, by result.
    pub proxy_headers: IntCounterVec,
}

impl DoorMetrics {
    /// All at zero.
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            refusals: registry.counters(
                "fanfare_connection_refusals_total",
                &["reason"],
                "WebSocket connections refused, by reason.",
            ),
            handshakes: registry.counters(
                "fanfare_tls_handshakes_total",
                &["result", "version"],
                "TLS handshakes, by result and version.",
            ),
            certificate_expiry: registry.gauge(
                "fanfare_tls_certificate_expiry_seconds",
                "Unix time until which the certificate is valid; 0 without TLS.",
            ),
            proxy_headers: registry.counters(
                "fanfare_proxy_headers_total",
                &["result"],
                "Headers of the PROXY protocol due from trusted proxies, by result.",
            ),
        }
    }
}
