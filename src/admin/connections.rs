//! `connections…`: who is connected, found by asking every worker.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::admin::call::{self, Call, bad};
use crate::admin::status::answer_of;
use crate::admin::{Admin, AdminError, Answer};
use crate::hub::WorkerId;
use crate::inspect::{Details, Filter, Page, Question, Summary};
use crate::protocol::{ChannelName, CloseReason, SocketId};

/// `GET connections`: in the order of their ids.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let limit = call.limit()?;
    let after = call.parameter("after").map(after).transpose()?;
    // One more than asked for says whether there are more.
    let page = Page { filter: filter(admin, call).await?, after, limit: limit + 1 };
    let answers = ask(admin, |reply| Question::List(page.clone(), reply)).await?;
    let mut all: Vec<Summary> = answers.into_iter().flatten().collect();
    all.sort_unstable_by_key(|summary| summary.socket_id);
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(|summary| summary.socket_id.to_string());
    let connections: Vec<Value> = all.iter().map(summary).collect();
    Ok(Answer::ok(&json!({ "connections": connections, "next": next })))
}

/// `GET connections/{socket_id}`: everything about one.
pub(super) async fn show(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let id = call.socket_id()?;
    let answers = ask(admin, |reply| Question::Show(id, reply)).await?;
    let found = answers.into_iter().flatten().next();
    let found = found.ok_or_else(|| AdminError::UnknownConnection(id.to_string()))?;
    Ok(Answer::ok(&details(&found)))
}

/// `DELETE connections/{socket_id}`: ends one, with 4200 or for good.
pub(super) async fn close(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let id = call.socket_id()?;
    let reason = match call.parameter("final") {
        None | Some("false") => CloseReason::ToReconnect,
        Some("true") => CloseReason::Terminated,
        Some(_) => return Err(bad("final", "true or false")),
    };
    let answers = ask(admin, |reply| Question::Close(id, reason, reply)).await?;
    let app = answers.into_iter().flatten().next();
    let app = app.ok_or_else(|| AdminError::UnknownConnection(id.to_string()))?;
    let code = reason.code();
    tracing::info!(app = %app, socket = %id, code, peer = ?call.peer(), "connection closed by an operator");
    Ok(Answer::ok(&json!({ "socket_id": id.to_string(), "code": code })))
}

/// The answers of all workers to one question.
async fn ask<T>(
    admin: &Admin,
    question: impl Fn(oneshot::Sender<T>) -> Question,
) -> Result<Vec<T>, AdminError> {
    let mut asked: Vec<(WorkerId, oneshot::Receiver<T>)> = Vec::new();
    for (worker, ..) in admin.node.workers() {
        let (reply, answer) = oneshot::channel();
        admin.node.ask(worker, question(reply));
        asked.push((worker, answer));
    }
    let mut answers = Vec::with_capacity(asked.len());
    for (worker, answer) in asked {
        answers.push(answer_of(worker, answer).await?);
    }
    Ok(answers)
}

fn after(text: &str) -> Result<SocketId, AdminError> {
    let id = SocketId::parse(text).ok().flatten();
    id.ok_or_else(|| bad("after", "the socket id that the page before ended with"))
}

async fn filter(admin: &Admin, call: &Call<'_>) -> Result<Filter, AdminError> {
    let (user, channel) = (call.parameter("user"), call.parameter("channel"));
    let Some(app) = call.parameter("app") else {
        return match (user, channel) {
            (None, None) => Ok(Filter::All),
            _ => Err(bad("app", "the id of the app whose user or channel it is")),
        };
    };
    let app = call::app(admin, app).await?;
    let id = app.id.clone();
    Ok(match (user, channel) {
        (None, None) => Filter::App(id),
        (Some(user), None) => Filter::Channel(id, call::user(user)?),
        (None, Some(channel)) => Filter::Channel(id, call::channel(&app, channel)?),
        (Some(user), Some(channel)) => {
            call::user(user)?;
            Filter::ChannelAndUser(id, call::channel(&app, channel)?, user.to_owned())
        }
    })
}

fn summary(summary: &Summary) -> Value {
    json!({
        "socket_id": summary.socket_id.to_string(),
        "app": &*summary.app,
        "user": summary.user,
        "worker": summary.worker.0,
        "connected_s": summary.connected.as_secs(),
        "subscriptions": summary.subscriptions,
        "outbox_bytes": summary.outbox_bytes,
    })
}

fn details(details: &Details) -> Value {
    let channel = |(name, user_id): &(ChannelName, Option<Box<str>>)| json!({ "name": name.as_str(), "user_id": user_id });
    let mut answer = summary(&details.summary);
    answer["remote_address"] = json!(details.remote_address.map(|address| address.to_string()));
    answer["authorized"] = json!(details.authorized);
    answer["last_heard_s"] = json!(details.heard.as_secs());
    answer["outbox_frames"] = json!(details.outbox_frames);
    answer["watching"] = json!(details.watching);
    answer["channels"] = details.channels.iter().map(channel).collect();
    answer
}
