//! Whether the node is alive, and whether it should be given clients.
//!
//! Alive is a node whose threads go on; one that is not should be killed. Ready is a node that can take more; one that
//! is not should be left alone until it is. A full or leaving node is alive.
//!
//! Not here: who asks (`server`, `api`).

use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderValue};
use actix_http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::metrics::Process;
use crate::node::{ClusterStatus, Node};

/// A worker that has not come to its timer for so long will hardly do so any more.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Of `webhooks.queue_bytes_max`. One dead receiver takes half of it and is no reason to send clients elsewhere; above
/// this, events of others are dropped too.
const WEBHOOKS_PERCENT_MAX: u64 = 95;

/// What was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The name of each check, and what is wrong there, if anything is.
    pub checks: Vec<(&'static str, Option<String>)>,
}

/// What a probe is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type; none for soketi's plain texts, which have none there either.
    pub media_type: Option<&'static str>,
    /// The text.
    pub body: String,
}

/// Whether every worker has come to its timer in time. That the one who answers is alive shows by itself.
pub fn live(node: &Node) -> Report {
    Report { checks: vec![("workers", stuck(node.silences()))] }
}

/// What is wrong if workers have been silent for so long.
fn stuck(silences: impl Iterator<Item = Duration>) -> Option<String> {
    let stuck = silences.filter(|silence| *silence > SILENCE_MAX).count();
    (stuck > 0).then(|| format!("{stuck} worker(s) silent for more than {SILENCE_MAX:?}"))
}

/// Whether the node should be given more clients.
pub fn ready(node: &Node) -> Report {
    let health = &node.config().health;
    let process = Process::read();
    let leaving = node.is_leaving().then(|| "the node is about to stop".to_owned());
    let overloaded = node.is_overloaded();
    let overloaded = overloaded.then(|| "more waits for a worker than server.mailbox_bytes_max".to_owned());
    let away = node.store_is_away().then(|| "the database of apps does not answer".to_owned());
    let webhooks = gate(
        u64::try_from(node.metrics().webhooks.bytes.get()).unwrap_or_default(),
        node.config().webhooks.queue_bytes_max as u64,
        WEBHOOKS_PERCENT_MAX,
    );
    let mut checks = vec![
        ("draining", leaving),
        ("store", away),
        ("webhooks", webhooks),
        ("workers", overloaded),
        ("open_files", gate(process.open_files, process.open_files_max, health.open_files_percent_max)),
        ("memory", gate(process.resident_bytes, process.memory_limit_bytes, health.memory_percent_max)),
    ];
    if let Some(status) = node.cluster_status() {
        let lease = Duration::from_secs(node.config().redis.lease_s);
        checks.insert(2, ("redis", cut_off(&status, lease)));
    }
    Report { checks }
}

/// What is wrong with the connection to the other nodes.
fn cut_off(status: &ClusterStatus, lease: Duration) -> Option<String> {
    if let Some(since) = status.away_since {
        let trouble = status.trouble.as_deref().unwrap_or("it does not answer");
        return Some(format!("Redis has been away for {} s: {trouble}", since.elapsed().as_secs()));
    }
    // Who should notice that Redis is away may hang.
    let age = status.renewed?.elapsed();
    (age > lease).then(|| format!("the lease has not been renewed for {} s", age.as_secs()))
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|(_, wrong)| wrong.is_none())
    }

    /// 200 if nothing is wrong and 503 otherwise, with every check by its name: `{"status":"ok","checks":{…}}`.
    pub fn page(&self) -> Page {
        let check = |(name, wrong): &(&str, Option<String>)| {
            ((*name).to_owned(), wrong.as_deref().map_or(json!("ok"), |wrong| json!(wrong)))
        };
        let checks: Map<String, Value> = self.checks.iter().map(check).collect();
        let (status, word) =
            if self.is_good() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failed") };
        Page::json(status, &json!({ "status": word, "checks": checks }))
    }
}

impl Page {
    fn json(status: StatusCode, body: &Value) -> Self {
        Self { status, media_type: Some("application/json"), body: body.to_string() }
    }

    /// As an answer of HTTP.
    pub fn response(self) -> Response<BoxBody> {
        let mut response = Response::with_body(self.status, BoxBody::new(self.body));
        if let Some(media_type) = self.media_type {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        // Probes and proxies in between want to know how it is now.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// What is wrong if more is used than so many per cent; 0 per cent is no gate, and what is not known is not judged.
fn gate(used: u64, max: u64, percent_max: u64) -> Option<String> {
    let is_over = u128::from(used) * 100 > u128::from(max) * u128::from(percent_max);
    (percent_max > 0 && max > 0 && is_over)
        .then(|| format!("{used} of {max} are in use, more than {percent_max} per cent"))
}

/// What soketi 1.6 answers to a path beside the API (`http-handler.ts`); none if it has nothing there.
///
/// Its memory is that of Node.js; here it is that of the process, against the same limit as for [`ready`].
pub fn soketi(node: &Node, path: &str) -> Option<Page> {
    let ok = || Page { status: StatusCode::OK, media_type: None, body: "OK".to_owned() };
    let closing = || soketi_error("The server is closing. Choose another server. :)");
    Some(match path {
        "/" => ok(),
        "/ready" if node.is_leaving() => closing(),
        "/ready" => ok(),
        "/accept-traffic" if node.is_leaving() => closing(),
        "/accept-traffic" => {
            let process = Process::read();
            let (used, total) = (process.resident_bytes, process.memory_limit_bytes);
            if gate(used, total, node.config().health.memory_percent_max).is_some() {
                return Some(soketi_error("Low on memory here. Choose another server. :)"));
            }
            let memory =
                json!({ "usedSize": used, "totalSize": total, "percentUsage": percent(used, total) });
            Page::json(StatusCode::OK, &json!({ "memory": memory }))
        }
        "/usage" => {
            let process = Process::read();
            let (used, total) = (process.resident_bytes, process.memory_limit_bytes);
            let free = total.saturating_sub(used);
            let memory =
                json!({ "free": free, "used": used, "total": total, "percent": percent(used, total) });
            Page::json(StatusCode::OK, &json!({ "memory": memory }))
        }
        _ => return None,
    })
}

fn soketi_error(error: &str) -> Page {
    Page::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error, "code": 500 }))
}

fn percent(used: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { used as f64 / total as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_gate_closes_above_its_percentage() {
        assert_eq!(gate(95, 100, 95), None);
        let over = gate(96, 100, 95).expect("closed");
        assert_eq!(over, "96 of 100 are in use, more than 95 per cent");
        assert!(gate(u64::MAX, u64::MAX, 99).is_some());
        assert_eq!(gate(u64::MAX, 1, 0), None, "0 is no gate");
        assert_eq!(gate(5, 0, 1), None, "what is not known is not judged");
    }

    #[test]
    fn a_worker_that_hangs_makes_the_node_count_as_dead() {
        let silences = |seconds: &[u64]| stuck(seconds.iter().map(|seconds| Duration::from_secs(*seconds)));
        assert_eq!(silences(&[0, 30]), None);
        assert_eq!(silences(&[0, 31, 3600]).as_deref(), Some("2 worker(s) silent for more than 30s"));
    }

    #[test]
    fn a_node_that_is_cut_off_says_since_when_and_why() {
        let lease = Duration::from_secs(10);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let cut_off = |away_since, trouble: Option<&str>, renewed| {
            let trouble = trouble.map(str::to_owned);
            cut_off(&ClusterStatus { away_since, trouble, renewed, ..ClusterStatus::default() }, lease)
        };
        assert_eq!(cut_off(None, None, None), None);
        assert_eq!(cut_off(None, None, ago(9)), None);
        let silent = cut_off(None, None, ago(12));
        assert_eq!(silent.as_deref(), Some("the lease has not been renewed for 12 s"));
        let away = cut_off(ago(3), Some("connection refused"), ago(4));
        assert_eq!(away.as_deref(), Some("Redis has been away for 3 s: connection refused"));
    }

    #[test]
    fn a_report_names_every_check() {
        let good = Report { checks: vec![("draining", None), ("memory", None)] };
        let page = good.page();
        assert!(good.is_good() && page.status == StatusCode::OK);
        assert_eq!(page.body, r#"{"checks":{"draining":"ok","memory":"ok"},"status":"ok"}"#);
        let bad = Report { checks: vec![("draining", None), ("memory", Some("full".to_owned()))] };
        let page = bad.page();
        assert!(!bad.is_good() && page.status == StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(page.body, r#"{"checks":{"draining":"ok","memory":"full"},"status":"failed"}"#);
    }
}
