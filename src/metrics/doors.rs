//! Who comes to the doors, and who is let in.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use crate::metrics::registry::Registry;
use crate::protocol::CloseReason;

/// The figures of the doors.
#[derive(Debug)]
pub struct DoorMetrics {
    refused: IntCounterVec,
    /// TLS handshakes, by result and version.
    pub handshakes: IntCounterVec,
    /// Until when the certificate is valid, as a Unix time; 0 without one.
    pub certificate_expiry: IntGauge,
    /// Headers of the PROXY protocol that were to come, by result.
    pub proxy_headers: IntCounterVec,
    /// HTTP clients that were too slow.
    pub too_slow: TooSlow,
}

/// HTTP clients that were let go because they were too slow, by what they were waited for. Cloning shares the counts.
#[derive(Clone, Debug)]
pub struct TooSlow {
    /// The head of the first request.
    pub head: IntCounter,
    /// A later request that had begun.
    pub request: IntCounter,
    /// That they read their answer.
    pub answer: IntCounter,
}

/// Why a connection is refused behind a proper handshake.
const REFUSED: [CloseReason; 14] = [
    CloseReason::TlsOnly,
    CloseReason::UnknownApp,
    CloseReason::AppDisabled,
    CloseReason::OverQuota,
    CloseReason::UnknownPath,
    CloseReason::InvalidVersion,
    CloseReason::UnsupportedVersion,
    CloseReason::MissingVersion,
    CloseReason::OriginNotAllowed,
    CloseReason::OverCapacity,
    CloseReason::StoreAway,
    CloseReason::AddressConnections,
    CloseReason::AddressHandshakes,
    CloseReason::ShuttingDown,
];

/// What HTTP says to a handshake that is none, and the reason that all of those have in common.
const REFUSED_BY_HTTP: [&str; 5] = ["400", "404", "405", "426", "431"];
const NO_HANDSHAKE: &str = "handshake";

/// Handshakes of TLS without an end.
const FAILED: [&str; 9] = [
    "plain_http",
    "not_tls",
    "gone",
    "version",
    "parameters",
    "application_protocol",
    "client_alert",
    "protocol",
    "timeout",
];

const PROXY_HEADERS: [&str; 5] = ["client", "local", "malformed", "gone", "timeout"];

impl DoorMetrics {
    /// All at zero.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let refused = registry.counters(
            "fanfare_connections_refused_total",
            &["code", "reason"],
            "WebSocket connections refused, by close code, or HTTP status of what is no handshake, and by reason.",
        );
        let handshakes = registry.counters(
            "fanfare_tls_handshakes_total",
            &["result", "version"],
            "TLS handshakes, by result and version.",
        );
        let proxy_headers = registry.counters(
            "fanfare_proxy_headers_total",
            &["result"],
            "Headers of the PROXY protocol due from trusted proxies, by result.",
        );
        let too_slow = registry.counters(
            "fanfare_http_timeouts_total",
            &["stage"],
            "HTTP clients let go because they were too slow, by what they were waited for.",
        );
        // Counted from zero: an alert sees the first one too.
        for reason in REFUSED {
            refused.with_label_values(&[&*reason.code().to_string(), reason.label()]);
        }
        REFUSED_BY_HTTP.iter().for_each(|status| drop(refused.with_label_values(&[status, NO_HANDSHAKE])));
        ["1.2", "1.3"].iter().for_each(|version| drop(handshakes.with_label_values(&["ok", version])));
        FAILED.iter().for_each(|result| drop(handshakes.with_label_values(&[result, "none"])));
        PROXY_HEADERS.iter().for_each(|result| drop(proxy_headers.with_label_values(&[result])));
        let of_stage = |stage: &str| too_slow.with_label_values(&[stage]);
        Self {
            refused,
            handshakes,
            certificate_expiry: registry.gauge(
                "fanfare_tls_certificate_expiry_seconds",
                "Unix time until which the certificate is valid; 0 without TLS.",
            ),
            proxy_headers,
            too_slow: TooSlow {
                head: of_stage("head"),
                request: of_stage("request"),
                answer: of_stage("answer"),
            },
        }
    }

    /// A connection was refused behind its handshake.
    pub fn refused(&self, reason: CloseReason) {
        self.refused.with_label_values(&[&*reason.code().to_string(), reason.label()]).inc();
    }

    /// A handshake was none, and was answered with this HTTP status.
    pub fn no_handshake(&self, status: &str) {
        self.refused.with_label_values(&[status, NO_HANDSHAKE]).inc();
    }
}
