//! `POST events` and `POST batch_events`: what a backend publishes.
//!
//! Everything is checked before anything is published: a call does all or nothing.

use std::borrow::Cow;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::api::Answer;
use crate::api::auth::Signed;
use crate::api::error::ApiError;
use crate::api::info::{Attribute, Info};
use crate::app::App;
use crate::hub::{Census, Event, Publish};
use crate::node::{Budget, Node};
use crate::protocol::{
    CachedEvent, ChannelName, Frame, InvalidSocketId, Query, SocketId, cut, data_literal, is_longer, object,
    string,
};

/// One event as a publisher describes it; every field as it came, or missing. `null` is missing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    socket_id: Option<&'a RawValue>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

/// An event that may be published.
#[derive(Debug)]
struct Publication<'a> {
    /// As a JSON string literal.
    name: &'a str,
    channels: Vec<ChannelName>,
    /// As a JSON string literal.
    data: Cow<'a, str>,
    except: Option<SocketId>,
    info: Info,
}

/// Where an event says for whom it is.
#[derive(Clone, Copy)]
enum Addressing {
    /// `channel`, `channels` or both.
    Many,
    /// `channel` alone, as in a batch.
    One,
}

/// `POST events`: one event for one or more channels.
pub(super) async fn trigger(node: &Node, signed: &Signed<'_>, body: &[u8]) -> Result<Answer, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::InvalidJson)?;
    let of_query = in_query(&signed.query);
    let of_query = if of_query.is_empty() { String::new() } else { Value::Object(of_query).to_string() };
    let event = publication(&signed.app, fields(text)?.or(fields(&of_query)?), Addressing::Many)?;
    admit(node, &signed.app, event.channels.len())?;
    let mut channels = Map::new();
    let tell = |event: &Publication<'_>, channel: &ChannelName, census: &Census| {
        if !event.info.is_empty() {
            channels.insert(channel.to_string(), event.info.of_publish(channel, census));
        }
    };
    publish(node, &signed.app, std::slice::from_ref(&event), tell).await?;
    Ok(if event.info.is_empty() { nothing() } else { Answer::Json(json!({ "channels": channels })) })
}

/// `POST batch_events`: several events, in order.
pub(super) async fn trigger_batch(node: &Node, signed: &Signed<'_>, body: &[u8]) -> Result<Answer, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::InvalidJson)?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(ApiError::InvalidJson);
    }
    let batch: Batch<'_> = serde_json::from_str(text).map_err(|_| ApiError::InvalidJson)?;
    let batch = batch.batch.ok_or(ApiError::Missing("batch"))?;
    const EXPECTED: ApiError = ApiError::WrongType("batch", "an array of objects");
    let entries: Vec<&RawValue> = serde_json::from_str(batch.get()).map_err(|_| EXPECTED)?;
    let max = signed.app.batch_events_max;
    if entries.len() > max {
        return Err(ApiError::BatchTooLarge { count: entries.len(), max });
    }
    let mut events: Vec<Publication<'_>> = Vec::with_capacity(entries.len());
    for entry in entries {
        let fields = fields(object(entry).ok_or(EXPECTED)?)?;
        events.push(publication(&signed.app, fields, Addressing::One)?);
    }
    admit(node, &signed.app, events.len())?;
    let mut infos: Vec<Value> = Vec::with_capacity(events.len());
    let tell = |event: &Publication<'_>, channel: &ChannelName, census: &Census| {
        infos.push(event.info.of_publish(channel, census));
    };
    publish(node, &signed.app, &events, tell).await?;
    let wanted = events.iter().any(|event| !event.info.is_empty());
    Ok(if wanted { Answer::Json(json!({ "batch": infos })) } else { nothing() })
}

/// `POST channels/{name}/events`, deprecated: the body is the data.
pub(super) async fn trigger_on_channel(
    node: &Node,
    signed: &Signed<'_>,
    channel: &str,
    body: &[u8],
) -> Result<Answer, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::DataNotUtf8)?;
    let mut fields = in_query(&signed.query);
    fields.insert("channel".to_owned(), json!(channel));
    fields.insert("data".to_owned(), json!(text));
    let text = Value::Object(fields).to_string();
    let event = publication(&signed.app, self::fields(&text)?, Addressing::One)?;
    admit(node, &signed.app, 1)?;
    publish(node, &signed.app, &[event], |_, _, _| {}).await?;
    Ok(Answer::Accepted)
}

/// Whether so many events may be published now, all of them.
fn admit(node: &Node, app: &App, events: usize) -> Result<(), ApiError> {
    node.check_room()?;
    Ok(node.spend(app, Budget::Publishes, events)?)
}

/// What is answered when nothing was asked.
fn nothing() -> Answer {
    Answer::Text("{}".to_owned())
}

/// Reads an event's fields; no text has none.
fn fields(text: &str) -> Result<Fields<'_>, ApiError> {
    if text.is_empty() {
        return Ok(Fields::default());
    }
    // serde would take an array as a struct.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(ApiError::InvalidJson);
    }
    serde_json::from_str(text).map_err(|_| ApiError::InvalidJson)
}

/// The event's fields that stand in the query string.
fn in_query(query: &Query<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    for key in ["name", "channel", "data", "socket_id", "info"] {
        if let Some(value) = query.get(key) {
            fields.insert(key.to_owned(), json!(value));
        }
    }
    let channels: Vec<&str> = query.all("channels[]").collect();
    if !channels.is_empty() {
        fields.insert("channels".to_owned(), json!(channels));
    }
    fields
}

impl<'a> Fields<'a> {
    /// These fields, and the others' where these are missing.
    fn or(self, other: Fields<'a>) -> Self {
        let addressed = self.channel.is_some() || self.channels.is_some();
        let address = if addressed { self } else { other };
        Self {
            name: self.name.or(other.name),
            channel: address.channel,
            channels: address.channels,
            data: self.data.or(other.data),
            socket_id: self.socket_id.or(other.socket_id),
            info: self.info.or(other.info),
        }
    }
}

fn publication<'a>(
    app: &App,
    fields: Fields<'a>,
    addressing: Addressing,
) -> Result<Publication<'a>, ApiError> {
    let name = event_name(app, fields.name)?;
    let channels = match addressing {
        Addressing::Many => channels(app, fields)?,
        Addressing::One => vec![channel(app, &one_channel(fields)?)?],
    };
    let data = data_literal(fields.data.ok_or(ApiError::Missing("data"))?);
    if is_longer(&data, app.event_data_bytes_max) {
        return Err(ApiError::DataTooLong { max: app.event_data_bytes_max });
    }
    let except = match fields.socket_id {
        Some(raw) => {
            let text = string(raw).ok_or_else(|| ApiError::InvalidSocketId(raw.get().to_owned()))?;
            SocketId::parse(&text).map_err(|InvalidSocketId| ApiError::InvalidSocketId(text.into_owned()))?
        }
        None => None,
    };
    let info = match fields.info {
        Some(raw) => Info::parse(&string(raw).ok_or(ApiError::InvalidInfo)?, Attribute::OF_PUBLISH)?,
        None => Info::default(),
    };
    Ok(Publication { name, channels, data, except, info })
}

/// Checks an event's name and gives its literal back.
fn event_name<'a>(app: &App, raw: Option<&'a RawValue>) -> Result<&'a str, ApiError> {
    let raw = raw.ok_or(ApiError::Missing("name"))?;
    let name = string(raw).ok_or(ApiError::WrongType("name", "a string"))?;
    let len = name.chars().count();
    match () {
        () if name.is_empty() => Err(ApiError::Missing("name")),
        () if len > app.event_name_max => Err(ApiError::EventNameTooLong { len, max: app.event_name_max }),
        () if name.starts_with("pusher:") || name.starts_with("pusher_internal:") => {
            Err(ApiError::InvalidEventName(name.into_owned()))
        }
        () => Ok(raw.get()),
    }
}

/// `channel` and `channels` together, each name once.
fn channels(app: &App, fields: Fields<'_>) -> Result<Vec<ChannelName>, ApiError> {
    let mut names: Vec<Cow<'_, str>> = match fields.channels {
        Some(raw) => serde_json::from_str(raw.get())
            .map_err(|_| ApiError::WrongType("channels", "an array of strings"))?,
        None => Vec::new(),
    };
    if fields.channel.is_some() {
        names.push(one_channel(fields)?);
    }
    let max = app.publish_channels_max;
    match names.len() {
        0 => return Err(ApiError::Missing("channels")),
        count if count > max => return Err(ApiError::TooManyChannels { count, max }),
        _ => {}
    }
    let mut channels: Vec<ChannelName> = Vec::with_capacity(names.len());
    for name in names {
        let channel = channel(app, &name)?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

fn one_channel(fields: Fields<'_>) -> Result<Cow<'_, str>, ApiError> {
    let raw = fields.channel.ok_or(ApiError::Missing("channel"))?;
    string(raw).ok_or(ApiError::WrongType("channel", "a string"))
}

fn channel(app: &App, name: &str) -> Result<ChannelName, ApiError> {
    ChannelName::parse(name, app.channel_name_max).map_err(|_| ApiError::InvalidChannelName(name.to_owned()))
}

/// Publishes events, each to every one of its channels. `tell` hears of each how many have subscribed to it.
async fn publish(
    node: &Node,
    app: &App,
    events: &[Publication<'_>],
    mut tell: impl FnMut(&Publication<'_>, &ChannelName, &Census),
) -> Result<(), ApiError> {
    let all = || events.iter().flat_map(|event| event.channels.iter().map(move |channel| (event, channel)));
    let now = Instant::now();
    if node.is_clustered() {
        let news = all().map(|(event, channel)| new(app, event, channel, now)).collect();
        // Apart, so that a call takes no more room where there is no cluster.
        let counted = Box::pin(node.publish_all(news, events.len() > 1)).await?;
        all().zip(&counted).for_each(|((event, channel), census)| tell(event, channel, census));
    } else {
        all().for_each(|(event, channel)| {
            tell(event, channel, &node.publish(new(app, event, channel, now)));
        });
    }
    node.metrics().events_of_api.inc_by(events.iter().map(|event| event.channels.len() as u64).sum());
    Ok(())
}

/// An event for one of its channels.
fn new<'a>(app: &'a App, event: &Publication<'_>, channel: &'a ChannelName, now: Instant) -> Publish<'a> {
    tracing::trace!(app = %app.id, channel = %channel, event = ?cut(event.name, 200), "published");
    let encoded = if channel.kind().is_cached() {
        Event::Kept(CachedEvent::new(channel, event.name, &event.data))
    } else {
        Event::Passing(Frame::event(channel, event.name, &event.data))
    };
    Publish { app, channel, event: encoded, except: event.except, told: None, now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Vec<String>, ApiError> {
        let event = publication(&App::default(), fields(body)?, Addressing::Many)?;
        Ok(event.channels.iter().map(ToString::to_string).collect())
    }

    fn refused(body: &str) -> String {
        check(body).expect_err(body).to_string()
    }

    #[test]
    fn p76_channel_and_channels_are_one_set() {
        let body = r#"{"name":"e","data":"1","channel":"a","channels":["b","a","b"]}"#;
        assert_eq!(check(body), Ok(vec!["b".to_owned(), "a".to_owned()]));
        assert_eq!(
            refused(r#"{"name":"e","data":"1","channels":[]}"#),
            "Missing required parameter: channels"
        );
        assert_eq!(refused(r#"{"name":"e","data":"1"}"#), "Missing required parameter: channels");
        let many: Vec<String> = (0..101).map(|n| format!("c{n}")).collect();
        assert_eq!(
            refused(&json!({"name": "e", "data": "", "channels": many}).to_string()),
            "Too many channels (101 > 100)"
        );
        assert_eq!(
            refused(r#"{"name":"e","data":"1","channels":["a",1]}"#),
            "Expected channels parameter to be an array of strings"
        );
    }

    #[test]
    fn p77_the_limit_of_data_counts_bytes() {
        let body = |data: &str| json!({"name": "e", "channel": "a", "data": data}).to_string();
        assert!(check(&body(&"x".repeat(10_240))).is_ok());
        assert!(check(&body(&"\n".repeat(10_240))).is_ok());
        assert!(check(&body(&"ë".repeat(5_120))).is_ok());
        for data in ["x".repeat(10_241), "ë".repeat(5_121)] {
            assert_eq!(
                refused(&body(&data)),
                "The data content of this event exceeds the allowed maximum (10240 bytes)"
            );
        }
        assert_eq!(refused(r#"{"name":"e","channel":"a"}"#), "Missing required parameter: data");
        assert_eq!(refused(r#"{"name":"e","channel":"a","data":null}"#), "Missing required parameter: data");
        assert!(check(&body("")).is_ok());
    }

    #[test]
    fn p78_the_servers_own_names_are_reserved() {
        let body = |name: &str| json!({"name": name, "channel": "a", "data": ""}).to_string();
        for name in ["pusher:x", "pusher_internal:x"] {
            assert_eq!(refused(&body(name)), format!("Invalid event name '{name}'"));
        }
        for name in [r"App\Events\Paid", "a.b", "client-x", "pusher", "Zoë"] {
            assert!(check(&body(name)).is_ok(), "{name}");
        }
        assert_eq!(refused(&body(&"x".repeat(201))), "Event name too long (201 > 200)");
        assert_eq!(refused(&body("")), "Missing required parameter: name");
        assert_eq!(
            refused(r#"{"name":1,"channel":"a","data":""}"#),
            "Expected name parameter to be a string"
        );
    }

    #[test]
    fn p79_socket_ids_are_checked() {
        let body = |id: &str| format!(r#"{{"name":"e","channel":"a","data":"","socket_id":{id}}}"#);
        assert!(check(&body(r#""1.2""#)).is_ok() && check(&body("null")).is_ok());
        assert_eq!(refused(&body(r#""abc""#)), "Invalid socket_id 'abc'");
        assert_eq!(refused(&body("1.2")), "Invalid socket_id '1.2'");
    }

    #[test]
    fn p21_bad_channel_names_are_refused() {
        for name in ["a b", "", "#server-to-user-", "#x"] {
            let body = json!({"name": "e", "channels": ["ok", name], "data": ""}).to_string();
            assert_eq!(refused(&body), format!("Invalid channel name '{name}'"));
        }
        assert!(check(r##"{"name":"e","channel":"#server-to-user-1","data":""}"##).is_ok());
    }

    #[test]
    fn bodies_that_are_no_object_are_refused() {
        for body in ["x", "[]", "1", "null", r#"["e","a"]"#, r#"{"name":"a","name":"b"}"#] {
            assert_eq!(refused(body), "Invalid JSON provided", "{body}");
        }
    }

    #[test]
    fn the_body_wins_over_the_query() {
        let query = Query::parse("name=q&data=q&channels[]=x&channels[]=y").expect("a query");
        let text = Value::Object(in_query(&query)).to_string();
        let of_query: Fields<'_> = serde_json::from_str(&text).expect("fields");
        let of_body = fields(r#"{"name":"b","channel":"z"}"#).expect("fields");
        let event = publication(&App::default(), of_body.or(of_query), Addressing::Many).expect("valid");
        assert_eq!((event.name, &*event.data, &*event.channels[0].to_string()), ("\"b\"", "\"q\"", "z"));
    }
}
