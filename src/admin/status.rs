//! `status`: how the node is. `config`: by which settings it lives.

use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::admin::{Addresses, Admin, AdminError, Answer, nodes};
use crate::config::shown;
use crate::hub::WorkerId;
use crate::inspect::Question;
use crate::metrics::Process;
use crate::node::Node;

/// How long a worker has to count its sockets.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET status`
pub(super) async fn status(admin: &Admin) -> Result<Answer, AdminError> {
    let node = &*admin.node;
    let Addresses { clients, metrics, admin: own } = admin.addresses;
    let workers = workers(node).await;
    // Counting open files takes a while where there are many.
    let process = actix_web::web::block(Process::read).await.unwrap_or_default();
    let footprints = node.footprints();
    Ok(Answer::ok(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": OffsetDateTime::from(admin.started)
            .replace_nanosecond(0)
            .ok()
            .and_then(|started| started.format(&Rfc3339).ok())
            .unwrap_or_default(),
        "uptime_s": admin.began.elapsed().as_secs(),
        "state": state(node),
        "listening": {
            "clients": clients.to_string(),
            "metrics": metrics.map(|address| address.to_string()),
            "admin": own.to_string(),
        },
        "cluster": nodes::summary(node),
        "apps": node.apps().all().count(),
        "connections": node.open(),
        "channels": footprints.values().map(|footprint| footprint.channels).sum::<usize>(),
        "subscriptions": footprints.values().map(|footprint| footprint.subscriptions).sum::<u64>(),
        "workers": workers,
        "resident_bytes": told(process.resident_bytes),
        "open_files": told(process.open_files),
        "open_files_max": told(process.open_files_max),
    })))
}

/// `GET config`
pub(super) fn config(admin: &Admin) -> Answer {
    let settings: Map<String, Value> =
        shown(admin.node.config()).map(|(key, value)| (key.to_owned(), json!(value))).collect();
    Answer::ok(&json!({ "settings": settings }))
}

/// How far the node is on its way to its end.
pub(super) fn state(node: &Node) -> &'static str {
    match () {
        () if node.is_draining() => "draining",
        () if node.is_leaving() => "leaving",
        () => "serving",
    }
}

/// A figure of the system, where it tells any.
fn told(figure: u64) -> Option<u64> {
    (figure > 0).then_some(figure)
}

/// What each worker has; nothing of its sockets if it is too busy to say.
async fn workers(node: &Node) -> Vec<Value> {
    let mut asked: Vec<oneshot::Receiver<usize>> = Vec::new();
    let waiting: Vec<(WorkerId, usize, usize)> = node.workers().collect();
    for (worker, ..) in &waiting {
        let (reply, answer) = oneshot::channel();
        node.ask(*worker, Question::Count(reply));
        asked.push(answer);
    }
    let by = Instant::now() + COUNT_TIMEOUT;
    let mut workers = Vec::new();
    for ((worker, letters, bytes), answer) in waiting.into_iter().zip(asked) {
        workers.push(json!({
            "worker": worker.0,
            "sockets": timeout_at(by, answer).await.ok().and_then(Result::ok),
            "mailbox_letters": letters,
            "mailbox_bytes": bytes,
        }));
    }
    workers
}

/// Waits for the answer of one worker.
///
/// # Errors
/// When it is too busy, or has gone.
pub(super) async fn answer_of<T>(worker: WorkerId, answer: oneshot::Receiver<T>) -> Result<T, AdminError> {
    const LIMIT_S: u64 = 5;
    let silent = AdminError::WorkerSilent { worker: worker.0, limit_s: LIMIT_S };
    timeout(Duration::from_secs(LIMIT_S), answer).await.ok().and_then(Result::ok).ok_or(silent)
}
