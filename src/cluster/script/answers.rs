//! What the scripts answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cluster::envelope;
use crate::cluster::script::{
    Due, DueKind, Fault, Holding, Item, LAYOUT, Opened, Pulse, Taken, TakenFact, due_letter,
};
use crate::hub::{Audience, ClientEventFact, Fact, Occurrence, Topic};
use crate::mirror::{Op, Place, Reply, Snapshot};
use crate::node::Listed;
use crate::protocol::{ChannelName, Member, SocketId};

/// Reads the answer of [`Space::open`](super::Space::open).
///
/// # Errors
/// [`Fault::Nonsense`].
pub fn opened(value: Value) -> Result<Opened, Fault> {
    let [generation, held] = array(value)?;
    let mut topics: HashMap<Topic, Holding> = HashMap::new();
    for [name, value] in groups(held)? {
        let name = text(name)?;
        if name == "#" {
            continue;
        }
        let (topic, user) = named(&name)?;
        let holding = topics.entry(topic.clone()).or_insert(Holding { topic, count: 0, members: Vec::new() });
        match user {
            Some(user) => holding.members.push(user.into()),
            None => holding.count = number(value)?,
        }
    }
    Ok(Opened { generation: number(generation)?, held: topics.into_values().collect() })
}

/// Reads the answer of [`Space::beat`](super::Space::beat).
///
/// # Errors
/// [`Fault::Nonsense`].
pub fn pulse(value: Value) -> Result<Pulse, Fault> {
    let [step, nodes, due, next_due, dead, left, lost, waiting] = array(value)?;
    // Behind its number may be which of the step's holds were refused.
    let step = text(step)?.split(' ').next().and_then(|step| step.parse().ok());
    let nodes = groups(nodes)?.map(|[node, left]| Ok((text(node)?, signed(left)?)));
    let due = list(due)?.into_iter().map(|name| due_named(&text(name)?));
    let left = list(left)?.into_iter().map(|name| Ok(named(&text(name)?)?.0));
    let mut left: Vec<Topic> = left.collect::<Result<_, Fault>>()?;
    // Its users are named beside it.
    let order = |topic: &Topic| (topic.app.clone(), topic.channel.to_string(), topic.audience as u8);
    left.sort_by_cached_key(order);
    left.dedup();
    Ok(Pulse {
        step: step.ok_or_else(|| nonsense("the number of a step"))?,
        nodes: nodes.collect::<Result<_, _>>()?,
        due: due.collect::<Result<_, _>>()?,
        next_due_ms: u64::try_from(signed(next_due)?).ok(),
        dead: if dead == Value::Nil { None } else { Some((text(dead)?, left)) },
        facts_lost: number(lost)?,
        facts: number(waiting)?,
    })
}

/// Reads the answer of [`Space::step`](super::Space::step): one for each [`Item::Op`], in order.
///
/// # Errors
/// [`Fault::Nonsense`].
pub fn replies(items: &[Item], value: Value) -> Result<Vec<Reply>, Fault> {
    let mut values = list(value)?.into_iter();
    let mut replies = Vec::with_capacity(items.len());
    for item in items {
        let Item::Op(op) = item else { continue };
        let mut next = || values.next().ok_or_else(|| nonsense("fewer replies than parts"));
        replies.push(match op {
            Op::Miss(..) => Reply::Noted,
            Op::Hold(_) => place(next()?)?.map_or(Reply::Full, Reply::Held),
            Op::Publish(_) => {
                let [subscriptions, users] = array(next()?)?;
                Reply::Published { subscriptions: number(subscriptions)?, users: size(users)? }
            }
            Op::Census(topic) | Op::Look(topic, _) => Reply::Seen(Box::new(snapshot(topic, next()?)?)),
        });
    }
    if values.next().is_some() {
        return Err(nonsense("more replies than parts"));
    }
    Ok(replies)
}

/// Reads the answer of [`Space::list`](super::Space::list).
///
/// # Errors
/// [`Fault::Nonsense`].
pub fn listed(value: Value) -> Result<Vec<Listed>, Fault> {
    let channels = groups(value)?.map(|[name, subscriptions, users]| {
        Ok(Listed {
            channel: channel(&text(name)?)?,
            subscriptions: number(subscriptions)?,
            users: size(users)?,
        })
    });
    channels.collect()
}

/// Reads the answer of [`Space::take`](super::Space::take).
///
/// # Errors
/// [`Fault::Nonsense`].
pub fn taken(value: Value) -> Result<Taken, Fault> {
    let mut values = list(value)?;
    if values.is_empty() {
        return Err(nonsense("no owner"));
    }
    let facts = values.split_off(1);
    let owner = values.pop().map_or(Ok(String::new()), text)?;
    let facts = groups(Value::Array(facts))?.map(taken_fact).collect::<Result<_, _>>()?;
    Ok(Taken { facts, owner })
}

/// What a script's error means; none if it is none of a script's own.
pub fn fault(text: &str) -> Option<Fault> {
    // Clients of Redis put quotes and colons around the first word.
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let fault = match words.next()? {
        "FENCED" => Fault::Fenced,
        "BEHIND" => Fault::Behind(words.next()?.parse().ok()?),
        "LAYOUT" => Fault::Layout { found: words.next()?.parse().ok()?, needed: LAYOUT },
        _ => return None,
    };
    Some(fault)
}

/// The topic that is called so in its app.
pub(super) fn topic(app: &str, field: &str) -> Option<Topic> {
    let (audience, name) = match field.split_at_checked(1)? {
        ("s", name) => (Audience::Subscribers, name),
        ("w", name) => (Audience::Watchers, name),
        _ => return None,
    };
    let channel = ChannelName::parse(name, usize::MAX).ok()?;
    Some(Topic { app: app.into(), channel, audience })
}

/// The topic of `<app>\0<field>`, and the user who may follow behind another zero.
fn named(name: &str) -> Result<(Topic, Option<&str>), Fault> {
    let mut parts = name.splitn(3, '\0');
    let found = parts.next().zip(parts.next()).and_then(|(app, field)| topic(app, field));
    Ok((found.ok_or_else(|| nonsense("the name of a topic"))?, parts.next()))
}

fn due_named(name: &str) -> Result<Due, Fault> {
    let (letter, name) = name.split_at_checked(1).ok_or_else(|| nonsense("something due without a name"))?;
    let (topic, user) = named(name)?;
    let what = match user {
        Some(user) => DueKind::Removed(user.into()),
        None if letter == due_letter(&DueKind::Count) => DueKind::Count,
        None => DueKind::Vacated,
    };
    Ok(Due { topic, what })
}

fn snapshot(topic: &Topic, value: Value) -> Result<Snapshot, Fault> {
    let [at, subscriptions, users, roster, event, left, online, missed, is_all] = array(value)?;
    let roster = match roster {
        roster @ Value::Array(_) if topic.channel.kind().is_presence() => Some(members(roster)?),
        _ => None,
    };
    let cached = match event {
        Value::Nil => None,
        // What another version has kept cannot be replayed.
        event => envelope::decode_kept(bytes(event)?).ok(),
    };
    let left = Duration::from_millis(number(left)?);
    let logged = list(missed)?.into_iter().map(bytes).collect::<Result<Vec<_>, _>>()?;
    // What cannot be read is missing, like what is known no longer.
    let missed: Vec<_> = logged.iter().filter_map(|bytes| envelope::decode(topic, bytes).ok()).collect();
    Ok(Snapshot {
        place: place(at)?.unwrap_or_default(),
        subscriptions: number(subscriptions)?,
        users: size(users)?,
        roster,
        cached: cached.map(|event| (event, left)),
        online: number(online)? > 0,
        is_all: number(is_all)? > 0 && missed.len() == logged.len(),
        missed,
    })
}

fn members(value: Value) -> Result<Vec<Arc<Member>>, Fault> {
    let members = groups(value)?.map(|[user_id, known]| {
        // On how many nodes the user is comes first.
        let known = bytes(known)?;
        let info = known.get(4..).and_then(|info| std::str::from_utf8(info).ok());
        let user_info = info.ok_or_else(|| nonsense("a member without info"))?.into();
        Ok(Arc::new(Member { user_id: text(user_id)?.into(), user_info }))
    });
    members.collect()
}

fn taken_fact([id, fact, app, channel_name, value, again]: [Value; 6]) -> Result<TakenFact, Fault> {
    let (id, value) = (text(id)?, text(value)?);
    let fact = match &*text(fact)? {
        "channel_occupied" => Fact::Occupied,
        "channel_vacated" => Fact::Vacated,
        "member_added" => Fact::MemberAdded(value.into()),
        "member_removed" => Fact::MemberRemoved(value.into()),
        "cache_miss" => Fact::CacheMissed,
        "subscription_count" => Fact::Counted(value.parse().map_err(|_| nonsense(&value))?),
        "client_event" => Fact::ClientEvent(Box::new(client_event(&value)?)),
        other => return Err(nonsense(other)),
    };
    let time_ms = id.split('-').next().and_then(|time| time.parse().ok());
    Ok(TakenFact {
        time_ms: time_ms.ok_or_else(|| nonsense(&id))?,
        occurrence: Occurrence { app: text(app)?.into(), channel: channel(&text(channel_name)?)?, fact },
        again: !bytes(again)?.is_empty(),
        id,
    })
}

/// What webhooks tell of a client event, as it is kept.
#[derive(Deserialize)]
struct ToldEvent {
    event: Box<RawValue>,
    data: Box<RawValue>,
    socket_id: String,
    user_id: Option<Box<str>>,
}

fn client_event(text: &str) -> Result<ClientEventFact, Fault> {
    let told: ToldEvent = serde_json::from_str(text).map_err(|_| nonsense(text))?;
    let socket_id = SocketId::parse(&told.socket_id).ok().flatten().ok_or_else(|| nonsense(text))?;
    let (event, data) = (told.event.get().into(), told.data.get().into());
    Ok(ClientEventFact { event, data, socket_id, user_id: told.user_id })
}

fn channel(name: &str) -> Result<ChannelName, Fault> {
    ChannelName::parse(name, usize::MAX).map_err(|_| nonsense(name))
}

/// A place; none if there is nothing.
fn place(value: Value) -> Result<Option<Place>, Fault> {
    let bytes = bytes(value)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let half =
        |at: usize| bytes.get(at..at + 8).and_then(|half| half.try_into().ok()).map(u64::from_be_bytes);
    let (epoch, seq) = half(0).zip(half(8)).ok_or_else(|| nonsense("a place that is cut short"))?;
    Ok(Some(Place { epoch, seq }))
}

fn list(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(nonsense(&format!("{other:?} is no list"))),
    }
}

fn array<const N: usize>(value: Value) -> Result<[Value; N], Fault> {
    list(value)?.try_into().map_err(|_| nonsense("a list of another length"))
}

/// What belongs together, `N` by `N`.
fn groups<const N: usize>(value: Value) -> Result<impl Iterator<Item = [Value; N]>, Fault> {
    let values = list(value)?;
    if !values.len().is_multiple_of(N) {
        return Err(nonsense("a list that ends too early"));
    }
    let mut values = values.into_iter();
    Ok(std::iter::from_fn(move || {
        let group: Vec<Value> = values.by_ref().take(N).collect();
        group.try_into().ok()
    }))
}

fn bytes(value: Value) -> Result<Bytes, Fault> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        other => Err(nonsense(&format!("{other:?} is no text"))),
    }
}

fn text(value: Value) -> Result<String, Fault> {
    String::from_utf8(bytes(value)?.into()).map_err(|_| nonsense("a text that is not UTF-8"))
}

fn signed(value: Value) -> Result<i64, Fault> {
    match value {
        Value::Int(number) => Ok(number),
        other => {
            let text = text(other)?;
            text.parse().map_err(|_| nonsense(&text))
        }
    }
}

fn number(value: Value) -> Result<u64, Fault> {
    match value {
        Value::Int(number) => u64::try_from(number).map_err(|_| nonsense("a negative number")),
        other => {
            let text = text(other)?;
            text.parse().map_err(|_| nonsense(&text))
        }
    }
}

fn size(value: Value) -> Result<usize, Fault> {
    usize::try_from(number(value)?).map_err(|_| nonsense("a number that is too large"))
}

fn nonsense(what: &str) -> Fault {
    Fault::Nonsense(crate::protocol::cut(what, 200).into_owned())
}
