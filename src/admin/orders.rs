//! `drain`, `reload`: orders to whoever runs the process.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admin::call::Call;
use crate::admin::status::state;
use crate::admin::{Admin, AdminError, Answer};
use crate::control::{Order, Reloaded};

/// Seconds a reload may take, with whatever it asks a database.
pub(super) const RELOAD_TIMEOUT_S: u64 = 60;

/// `POST drain`: stop, as on SIGTERM. To a node that is stopping already it is nothing new.
pub(super) fn drain(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    tracing::info!(peer = ?call.peer(), "an operator orders to drain");
    admin.orders.send(Order::Drain).map_err(|_| AdminError::Stopping)?;
    // Unready from this answer on, however soon the order is read.
    admin.node.leave();
    Ok(Answer::accepted(&json!({ "state": state(&admin.node) })))
}

/// `POST reload`: read the configuration again, as on SIGHUP.
pub(super) async fn reload(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    if admin.node.is_leaving() {
        return Err(AdminError::Stopping);
    }
    tracing::info!(peer = ?call.peer(), "an operator orders to reload");
    let (reply, answer) = oneshot::channel();
    admin.orders.send(Order::Reload(reply)).map_err(|_| AdminError::Stopping)?;
    let limit_s = RELOAD_TIMEOUT_S;
    let answer = timeout(Duration::from_secs(limit_s), answer).await;
    let answer = answer.map_err(|_| AdminError::Silent { limit_s })?;
    let Reloaded { apps, problems, needs_restart } = answer.map_err(|_| AdminError::Stopping)?;
    if problems.is_empty() {
        Ok(Answer::ok(&json!({ "apps": apps, "needs_restart": needs_restart })))
    } else {
        Err(AdminError::ReloadRefused { problems })
    }
}
