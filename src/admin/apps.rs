//! `apps…`: who is served, by which settings.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admin::call::{self, Call};
use crate::admin::{Admin, AdminError, Answer};
use crate::app::{App, Webhook};
use crate::config::without_credentials;
use crate::node::Footprint;

/// `GET apps`: all that are known, by id.
pub(super) fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let (limit, after) = (call.limit()?, call.parameter("after").unwrap_or_default());
    let apps = admin.node.apps();
    let mut page: Vec<&Arc<App>> = apps.all().filter(|app| &*app.id > after).collect();
    page.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|app| app.id.to_string());
    let footprints = admin.node.footprints();
    let footprint = |app: &App| footprints.get(&app.id).copied().unwrap_or_default();
    let apps: Vec<Value> = page.iter().map(|app| summary(app, footprint(app))).collect();
    Ok(Answer::ok(&json!({ "apps": apps, "next": next })))
}

/// `GET apps/{app}`: one, with its settings.
pub(super) async fn show(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let app = call.app(admin).await?;
    let footprint = admin.node.footprints().get(&app.id).copied().unwrap_or_default();
    let mut answer = summary(&app, footprint);
    answer["settings"] = settings(&app);
    Ok(Answer::ok(&answer))
}

/// `DELETE apps/{app}/users/{user}`: ends every connection of a user for good.
pub(super) async fn terminate(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let (app, user) = (call.app(admin).await?, call::user(&call.segment("user"))?);
    let connections = admin.node.terminate(&app, &user).await?;
    tracing::info!(app = %app.id, connections, peer = ?call.peer(), "user terminated by an operator");
    Ok(Answer::accepted(&json!({ "connections": connections })))
}

fn summary(app: &App, footprint: Footprint) -> Value {
    let keys: Vec<&str> = app.keys.iter().map(|pair| pair.key.as_str()).collect();
    json!({
        "id": &*app.id,
        "enabled": app.enabled,
        "keys": keys,
        "connections": footprint.connections,
        "channels": footprint.channels,
        "subscriptions": footprint.subscriptions,
    })
}

/// Every setting but secrets. Taken apart field by field, so that none is forgotten when one is added.
fn settings(app: &App) -> Value {
    let App {
        id: _,
        keys: _,
        enabled: _,
        client_events,
        subscription_counts,
        watchlist,
        tls_only,
        authorized_timeout_s,
        allowed_origins,
        cache_ttl_s,
        connections_max,
        channel_name_max,
        event_name_max,
        event_data_bytes_max,
        presence_members_max,
        presence_user_info_bytes_max,
        batch_events_max,
        publish_channels_max,
        client_events_per_s,
        watchlist_users_max,
        requests_per_s,
        publishes_per_s,
        all_client_events_per_s,
        subscriptions_max,
        channels_max,
        webhook_batching,
        webhooks,
    } = app;
    json!({
        "client_events": client_events,
        "subscription_counts": subscription_counts,
        "watchlist": watchlist,
        "tls_only": tls_only,
        "authorized_timeout_s": authorized_timeout_s,
        "allowed_origins": allowed_origins,
        "cache_ttl_s": cache_ttl_s,
        "connections_max": connections_max,
        "channel_name_max": channel_name_max,
        "event_name_max": event_name_max,
        "event_data_bytes_max": event_data_bytes_max,
        "presence_members_max": presence_members_max,
        "presence_user_info_bytes_max": presence_user_info_bytes_max,
        "batch_events_max": batch_events_max,
        "publish_channels_max": publish_channels_max,
        "client_events_per_s": client_events_per_s,
        "watchlist_users_max": watchlist_users_max,
        "requests_per_s": requests_per_s,
        "publishes_per_s": publishes_per_s,
        "all_client_events_per_s": all_client_events_per_s,
        "subscriptions_max": subscriptions_max,
        "channels_max": channels_max,
        "webhook_batching": webhook_batching,
        "webhooks": webhooks.iter().map(receiver).collect::<Vec<_>>(),
    })
}

/// Of headers the names alone: their values may be credentials.
fn receiver(webhook: &Webhook) -> Value {
    json!({
        "url": without_credentials(&webhook.url),
        "events": webhook.events.iter().map(|event| event.as_str()).collect::<Vec<_>>(),
        "channel_prefixes": webhook.channel_prefixes,
        "headers": webhook.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    })
}
