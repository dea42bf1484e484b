//! `apps/{app}/channels…`: who is subscribed, who is present. In a cluster: on this node.

use serde_json::{Value, json};

use crate::admin::call::Call;
use crate::admin::{Admin, AdminError, Answer};
use crate::hub::Census;
use crate::protocol::{ChannelKind, ChannelName};

/// `GET apps/{app}/channels`: those with subscribers on this node, by name.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let (app, limit) = (call.app(admin).await?, call.limit()?);
    let parameter = |name| call.parameter(name).unwrap_or_default();
    let mut page = admin.node.channels_after(&app, parameter("prefix"), parameter("after"), limit + 1);
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(ToString::to_string);
    let channel = |name: &ChannelName| {
        let census = admin.node.census_here(&app, name);
        // It may have emptied since.
        (census.subscriptions > 0).then(|| channel(name, &census))
    };
    let channels: Vec<Value> = page.iter().filter_map(channel).collect();
    Ok(Answer::ok(&json!({ "channels": channels, "next": next })))
}

/// `GET apps/{app}/channels/{channel}`: one, with a page of the users present on this node, by id.
pub(super) async fn show(admin: &Admin, call: &Call<'_>) -> Result<Answer, AdminError> {
    let (app, limit) = (call.app(admin).await?, call.limit()?);
    let name = call.channel(&app)?;
    let after = call.parameter("after").unwrap_or_default();
    let roster = admin.node.roster_here(&app, &name);
    let members = roster.iter().flat_map(|roster| roster.members());
    let mut users: Vec<&str> = members.map(|member| &*member.user_id).filter(|id| *id > after).collect();
    users.sort_unstable();
    let more = users.len() > limit;
    users.truncate(limit);
    let mut answer = channel(&name, &admin.node.census_here(&app, &name));
    answer["next"] = json!(users.last().filter(|_| more));
    answer["user_ids"] = json!(users);
    Ok(Answer::ok(&answer))
}

fn channel(name: &ChannelName, census: &Census) -> Value {
    let kind = match name.kind() {
        ChannelKind::Public { .. } => "public",
        ChannelKind::Private { .. } if name.as_str().starts_with("private-encrypted-") => "encrypted",
        ChannelKind::Private { .. } => "private",
        ChannelKind::Presence { .. } => "presence",
        ChannelKind::ServerToUser => "user",
    };
    json!({
        "name": name.as_str(),
        "kind": kind,
        "subscriptions": census.subscriptions,
        "users": name.kind().is_presence().then_some(census.users),
        "cached": census.cached.is_some(),
    })
}
