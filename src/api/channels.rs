//! `GET channels…`: who is subscribed, who is present, what is cached.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::api::Answer;
use crate::api::auth::Signed;
use crate::api::error::ApiError;
use crate::api::info::{Attribute, Info};
use crate::app::App;
use crate::node::Node;
use crate::protocol::{ChannelName, Query};

/// `GET channels`: everything that has subscribers.
pub(super) async fn list(node: &Node, signed: &Signed<'_>) -> Result<Answer, ApiError> {
    let prefix = signed.query.get("filter_by_prefix").unwrap_or_default();
    let info = info(&signed.query, Attribute::OF_CHANNELS)?;
    if info.wants(Attribute::UserCount) && !prefix.starts_with("presence-") {
        return Err(ApiError::UserCountNeedsPrefix);
    }
    let channels: Map<String, Value> = node
        .occupied(&signed.app, prefix)
        .await?
        .into_iter()
        .map(|occupied| (occupied.channel.to_string(), info.of_publish(&occupied.channel, &occupied.census)))
        .collect();
    Ok(Answer::Json(json!({ "channels": channels })))
}

/// `GET channels/{name}`: one channel, occupied or not.
pub(super) async fn show(node: &Node, signed: &Signed<'_>, name: &str) -> Result<Answer, ApiError> {
    let channel = channel(&signed.app, name)?;
    let info = info(&signed.query, Attribute::OF_CHANNEL)?;
    let census = node.census(&signed.app, &channel).await?;
    let mut reply = Map::new();
    reply.insert("occupied".into(), json!(census.subscriptions > 0));
    if info.wants(Attribute::UserCount) {
        if !channel.kind().is_presence() {
            return Err(ApiError::UserCountNeedsPresence);
        }
        reply.insert("user_count".into(), json!(census.users));
    }
    if info.wants(Attribute::SubscriptionCount) {
        reply.insert("subscription_count".into(), json!(census.subscriptions));
    }
    if info.wants(Attribute::Cache) {
        if !channel.kind().is_cached() {
            return Err(ApiError::CacheNeedsCacheChannel);
        }
        let cache = census.cached.map(|(event, left)| {
            // A literal with a lone surrogate is no Rust string, so it goes out as it came in.
            let data: Box<RawValue> = serde_json::from_slice(&event.data).unwrap_or_default();
            // A cache in its last second still has something to give.
            (data, left.as_secs().max(1))
        });
        return Ok(Answer::Text(with_cache(&Value::Object(reply), cache)));
    }
    Ok(Answer::Json(Value::Object(reply)))
}

/// The reply with `cache` added to it.
fn with_cache(reply: &Value, cache: Option<(Box<RawValue>, u64)>) -> String {
    let cache = match cache {
        Some((data, ttl)) => format!(r#"{{"data":{},"ttl":{ttl}}}"#, data.get()),
        None => "null".to_owned(),
    };
    let mut text = reply.to_string();
    text.pop(); // the closing brace; `occupied` stands before
    format!(r#"{text},"cache":{cache}}}"#)
}

/// `GET channels/{name}/users`: everybody present.
pub(super) async fn users(node: &Node, signed: &Signed<'_>, name: &str) -> Result<Answer, ApiError> {
    let channel = channel(&signed.app, name)?;
    if !channel.kind().is_presence() {
        return Err(ApiError::UsersNeedPresence);
    }
    let roster = node.roster(&signed.app, &channel).await?;
    let users: Vec<Value> = roster
        .iter()
        .flat_map(|roster| roster.members())
        .map(|member| json!({ "id": member.user_id }))
        .collect();
    Ok(Answer::Json(json!({ "users": users })))
}

/// `GET channels/{name}/stats`, deprecated.
pub(super) async fn stats(node: &Node, signed: &Signed<'_>, name: &str) -> Result<Answer, ApiError> {
    let channel = channel(&signed.app, name)?;
    let census = node.census(&signed.app, &channel).await?;
    let mut reply = json!({ "occupied": census.subscriptions > 0, "connection_count": census.subscriptions });
    if channel.kind().is_presence() {
        reply["user_count"] = json!(census.users);
    }
    Ok(Answer::Json(reply))
}

/// A channel that may be asked about; users' own are nobody's business.
fn channel(app: &App, name: &str) -> Result<ChannelName, ApiError> {
    let channel = ChannelName::parse(name, app.channel_name_max).ok();
    channel
        .filter(|channel| !channel.kind().is_user())
        .ok_or_else(|| ApiError::InvalidChannelName(name.to_owned()))
}

fn info(query: &Query, allowed: &[Attribute]) -> Result<Info, ApiError> {
    query.get("info").map_or(Ok(Info::default()), |text| Info::parse(text, allowed))
}
