//! The gate: a token, and patience with those who guess it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServiceRequest;
use actix_web::http::header;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::admin::AdminError;
use crate::config::Masked;

/// How long a wrong token waits for its answer. A right one never waits, so nobody can lock operators out.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// Refusals of this time share a log line.
const LOGGED_EVERY: Duration = Duration::from_secs(1);

/// Lets those in who have the token.
pub(super) struct Gate {
    /// Digests are of one length, so comparing them tells nothing of the token's.
    token: [u8; 32],
    began: Instant,
    /// When refusals were logged last, in milliseconds since `began`, plus one; 0 is never.
    logged_ms: AtomicU64,
    /// Since then.
    refused: AtomicU64,
}

impl Gate {
    pub(super) fn new(token: &Masked) -> Self {
        let (logged_ms, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { token: digest(token.expose().as_bytes()), began: Instant::now(), logged_ms, refused }
    }

    /// Lets a request in or, after a while, not.
    pub(super) async fn check(&self, request: &ServiceRequest) -> Result<(), AdminError> {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        if given.is_some_and(|token| self.token.ct_eq(&digest(token)).into()) {
            return Ok(());
        }
        self.log_refusal(request);
        tokio::time::sleep(REFUSED_AFTER).await;
        Err(AdminError::Unauthorized)
    }

    fn log_refusal(&self, request: &ServiceRequest) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.began.elapsed()).saturating_add(1);
        let logged = self.logged_ms.load(Ordering::Relaxed);
        let is_due = logged == 0 || now.saturating_sub(logged) >= millis(LOGGED_EVERY);
        let exchange =
            |from, to| self.logged_ms.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && exchange(logged, now).is_ok() {
            let count = self.refused.swap(0, Ordering::Relaxed);
            let peer = request.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(peer, count, "refused by the admin api: no or a wrong token");
        }
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The token of an `Authorization` header.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_read_in_any_case_and_no_other_is() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"abc", b"", b"Bearerabc"] {
            assert_eq!(bearer(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
