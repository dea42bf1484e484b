//! What the server says: every message, encoded once, ready for every socket.

use std::io::Write;

use bytes::Bytes;

use crate::protocol::channel::ChannelName;
use crate::protocol::errors::{ClientError, CloseReason};
use crate::protocol::json::push_string;
use crate::protocol::member::{Member, Roster};
use crate::protocol::socket_id::SocketId;
use crate::protocol::websocket;

/// One server message as a WebSocket frame. Cloning shares the bytes.
///
/// Two rules of the protocol hold for all of them: `data` is always there, and is a string except in
/// `pusher:error`; `channel` and `user_id` are never null.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    wire: Bytes,
}

/// The last event of a cache channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CachedEvent {
    /// The event as subscribers got it.
    pub frame: Frame,
    /// Its `data`, as a JSON string literal; shares the frame's bytes.
    pub data: Bytes,
}

impl Frame {
    /// A frame that was encoded elsewhere, from its bytes; none if they are not one of ours.
    pub fn from_wire(wire: Bytes) -> Option<Self> {
        websocket::is_text_frame(&wire).then_some(Self { wire })
    }

    /// The frame's bytes, header included.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// The JSON text in the frame.
    pub fn text(&self) -> &[u8] {
        &self.wire[websocket::header_len(&self.wire)..]
    }

    fn build(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&[0; websocket::HEADER_MAX]);
        write(&mut out);
        let start = websocket::prepend_text_header(&mut out);
        Self { wire: Bytes::from(out).slice(start..) }
    }

    /// A message without a channel. `data` is written as a string.
    fn plain(event: &str, data: &str) -> Self {
        Self::build(|out| {
            push(out, &["{\"event\":\"", event, "\",\"data\":"]);
            push_string(out, data);
            out.push(b'}');
        })
    }

    /// A message of a channel. `data` is written as a string.
    fn on(channel: &ChannelName, event: &str, data: &str) -> Self {
        Self::build(|out| {
            push(out, &["{\"event\":\"", event, "\",\"channel\":\"", channel.as_str(), "\",\"data\":"]);
            push_string(out, data);
            out.push(b'}');
        })
    }

    /// The very first message of a connection.
    pub fn connection_established(socket_id: SocketId, activity_timeout_s: u32) -> Self {
        let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#);
        Self::plain("pusher:connection_established", &data)
    }

    /// The answer to `pusher:ping`.
    pub fn pong() -> Self {
        Self::plain("pusher:pong", "{}")
    }

    /// `pusher:error` for one message.
    pub fn error(error: &ClientError) -> Self {
        Self::pusher_error(error.code(), &error.to_string())
    }

    /// `pusher:error` before a close.
    pub fn farewell(reason: CloseReason) -> Self {
        Self::pusher_error(Some(reason.code()), &reason.to_string())
    }

    fn pusher_error(code: Option<u16>, message: &str) -> Self {
        let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
        Self::build(|out| {
            push(out, &[r#"{"event":"pusher:error","data":{"code":"#, &code, r#","message":"#]);
            push_string(out, message);
            out.extend_from_slice(b"}}");
        })
    }

    /// Tells a channel's own error handlers of a refused subscription; none for a duplicate.
    ///
    /// `channel` is what the client asked for, so it may be no valid name.
    pub fn subscription_error(channel: &str, error: &ClientError) -> Option<Self> {
        let kind = error.kind()?;
        let mut data = Vec::new();
        push(&mut data, &["{\"type\":\"", kind.name, "\",\"error\":"]);
        push_string(&mut data, &error.to_string());
        push(&mut data, &[",\"status\":", &kind.status.to_string(), "}"]);
        Some(Self::build(|out| {
            push(out, &[r#"{"event":"pusher:subscription_error","channel":"#]);
            push_string(out, channel);
            push(out, &[",\"data\":"]);
            push_string(out, &String::from_utf8_lossy(&data));
            out.push(b'}');
        }))
    }

    /// A subscription outside presence has begun.
    pub fn subscription_succeeded(channel: &ChannelName) -> Self {
        Self::on(channel, "pusher_internal:subscription_succeeded", "{}")
    }

    /// A presence subscription has begun; everybody present, the subscriber included.
    pub fn presence_succeeded(channel: &ChannelName, roster: &Roster) -> Self {
        let mut data = Vec::with_capacity(64 * (roster.len() + 1));
        push(&mut data, &[r#"{"presence":{"count":"#, &roster.len().to_string(), r#","ids":["#]);
        for (at, member) in roster.members().enumerate() {
            push(&mut data, &[if at == 0 { "" } else { "," }]);
            push_string(&mut data, &member.user_id);
        }
        push(&mut data, &[r#"],"hash":{"#]);
        for (at, member) in roster.members().enumerate() {
            push(&mut data, &[if at == 0 { "" } else { "," }]);
            push_string(&mut data, &member.user_id);
            push(&mut data, &[":", &member.user_info]);
        }
        push(&mut data, &["}}}"]);
        // Everything pushed was UTF-8, so nothing is left out.
        let data = std::str::from_utf8(&data).unwrap_or_default();
        Self::on(channel, "pusher_internal:subscription_succeeded", data)
    }

    /// An event. `event` and `data` are JSON string literals, which go out as they stand.
    pub fn event(channel: &ChannelName, event: &str, data: &str) -> Self {
        Self::build(|out| push_event(out, channel, event, data, None))
    }

    /// An event that one client sent to the others. `user_id` is the sender's, in presence channels.
    pub fn client_event(channel: &ChannelName, event: &str, data: &str, user_id: Option<&str>) -> Self {
        Self::build(|out| push_event(out, channel, event, data, user_id))
    }

    /// The cache channel has no event to replay.
    pub fn cache_miss(channel: &ChannelName) -> Self {
        Self::on(channel, "pusher:cache_miss", "{}")
    }

    /// A user's first connection has joined.
    pub fn member_added(channel: &ChannelName, member: &Member) -> Self {
        let mut data = Vec::new();
        push(&mut data, &[r#"{"user_id":"#]);
        push_string(&mut data, &member.user_id);
        push(&mut data, &[r#","user_info":"#, &member.user_info, "}"]);
        Self::on(channel, "pusher_internal:member_added", &String::from_utf8_lossy(&data))
    }

    /// A user's last connection has left.
    pub fn member_removed(channel: &ChannelName, user_id: &str) -> Self {
        let mut data = Vec::new();
        push(&mut data, &[r#"{"user_id":"#]);
        push_string(&mut data, user_id);
        push(&mut data, &["}"]);
        Self::on(channel, "pusher_internal:member_removed", &String::from_utf8_lossy(&data))
    }

    /// How many connections are subscribed.
    pub fn subscription_count(channel: &ChannelName, count: u64) -> Self {
        let data = format!(r#"{{"subscription_count":{count}}}"#);
        Self::on(channel, "pusher_internal:subscription_count", &data)
    }

    /// The connection is signed in; echoes what was signed.
    pub fn signin_success(user_data: &str) -> Self {
        let mut data = Vec::new();
        push(&mut data, &[r#"{"user_data":"#]);
        push_string(&mut data, user_data);
        push(&mut data, &["}"]);
        Self::plain("pusher:signin_success", &String::from_utf8_lossy(&data))
    }

    /// Which watched users came and went; none if nobody did.
    pub fn watchlist_events<'a>(
        online: impl IntoIterator<Item = &'a str>,
        offline: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let mut events = Vec::new();
        let lists: [(_, Vec<&str>); 2] =
            [("online", online.into_iter().collect()), ("offline", offline.into_iter().collect())];
        for (name, user_ids) in lists.iter().filter(|(_, user_ids)| !user_ids.is_empty()) {
            events.push(serde_json::json!({ "name": name, "user_ids": user_ids }));
        }
        let data = serde_json::json!({ "events": events });
        (!events.is_empty()).then(|| Self::plain("pusher_internal:watchlist_events", &data.to_string()))
    }
}

impl CachedEvent {
    /// The event with its data beside it. Arguments as for [`Frame::event`].
    pub fn new(channel: &ChannelName, event: &str, data: &str) -> Self {
        Self::with_data(Frame::event(channel, event, data), data.len())
    }

    /// An event that was encoded elsewhere, from the bytes of its frame and how long its data is; none if they are not
    /// one of ours.
    pub fn from_wire(wire: Bytes, data_len: usize) -> Option<Self> {
        let frame = Frame::from_wire(wire)?;
        (data_len < frame.text().len()).then(|| Self::with_data(frame, data_len))
    }

    fn with_data(frame: Frame, data_len: usize) -> Self {
        // `data` is the last value of the frame, before the closing brace.
        let end = frame.wire.len() - 1;
        let data = frame.wire.slice(end - data_len..end);
        Self { frame, data }
    }
}

fn push_event(out: &mut Vec<u8>, channel: &ChannelName, event: &str, data: &str, user_id: Option<&str>) {
    out.reserve(event.len() + data.len() + channel.as_str().len() + 64);
    push(out, &["{\"event\":", event, ",\"channel\":\"", channel.as_str(), "\""]);
    if let Some(user_id) = user_id {
        push(out, &[",\"user_id\":"]);
        push_string(out, user_id);
    }
    push(out, &[",\"data\":", data, "}"]);
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        // Writing into memory cannot fail.
        let _ = out.write_all(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn value(frame: &Frame) -> Value {
        serde_json::from_slice(frame.text()).expect("valid JSON")
    }

    /// The frame's fields, with the JSON inside `data` read too.
    fn opened(frame: &Frame) -> Value {
        let mut value = value(frame);
        let data = value["data"].as_str().expect("p14: data is a string").to_owned();
        value["data"] = serde_json::from_str(&data).expect("JSON in data");
        value
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 164).expect("valid name")
    }

    #[test]
    fn p4_the_first_frame_has_socket_id_and_activity_timeout() {
        let frame = Frame::connection_established(SocketId::from_random(1 | 2 << 64), 120);
        let expected = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
        assert_eq!(frame.text(), expected.as_bytes());
    }

    #[test]
    fn p13_errors_carry_an_object_with_code_or_null() {
        let error = value(&Frame::error(&ClientError::InvalidJson));
        assert_eq!(
            error,
            json!({"event": "pusher:error", "data": {"code": null, "message": "Received invalid JSON"}})
        );
        let farewell = value(&Frame::farewell(CloseReason::ShuttingDown));
        assert_eq!(farewell["data"]["code"], 4200);
    }

    #[test]
    fn p27_a_refused_subscription_is_told_to_its_channel() {
        let error = ClientError::AuthRequired("private-a".into());
        let frame = Frame::subscription_error("private-a", &error).expect("told");
        assert_eq!(
            opened(&frame),
            json!({"event": "pusher:subscription_error", "channel": "private-a",
                   "data": {"type": "AuthError", "error": error.to_string(), "status": 401}})
        );
        assert_eq!(Frame::subscription_error("a", &ClientError::ExistingSubscription("a".into())), None);
    }

    #[test]
    fn p31_the_snapshot_lists_every_member_once() {
        let mut roster = Roster::default();
        for (user_id, user_info) in [("10", r#"{"name":"Zoë \"日本\""}"#), ("u \"1\"", "{}")] {
            roster.join(&Arc::new(Member { user_id: user_id.into(), user_info: user_info.into() }));
        }
        let presence =
            opened(&Frame::presence_succeeded(&channel("presence-x"), &roster))["data"]["presence"].clone();
        assert_eq!(presence["count"], 2);
        assert_eq!(presence["hash"], json!({"10": {"name": "Zoë \"日本\""}, "u \"1\"": {}}));
        let mut ids: Vec<_> = presence["ids"].as_array().expect("ids").iter().map(|id| id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [Some("10"), Some("u \"1\"")]);
    }

    #[test]
    fn p39_events_carry_name_and_data_as_published() {
        let cached =
            CachedEvent::new(&channel("cache-a"), r#""App\\Events\\Paid""#, r#""{\"a\":\"\u00eb\"}""#);
        let expected = r#"{"event":"App\\Events\\Paid","channel":"cache-a","data":"{\"a\":\"\u00eb\"}"}"#;
        assert_eq!(cached.frame.text(), expected.as_bytes());
        assert_eq!(&cached.data[..], br#""{\"a\":\"\u00eb\"}""#);
    }

    #[test]
    fn p39_an_event_is_the_same_after_a_journey_as_bytes() {
        for len in [0, 1, 200, 70_000] {
            let event = CachedEvent::new(&channel("cache-a"), r#""e""#, &format!("\"{}\"", "x".repeat(len)));
            let wire = event.frame.wire().clone();
            assert_eq!(CachedEvent::from_wire(wire.clone(), event.data.len()), Some(event));
            assert_eq!(Frame::from_wire(wire.slice(..wire.len() - 1)), None, "cut short");
            assert_eq!(CachedEvent::from_wire(wire.clone(), wire.len()), None, "more data than frame");
        }
        assert_eq!(Frame::from_wire(Bytes::new()), None);
    }

    #[test]
    fn p68_only_presence_events_carry_a_user_id() {
        let with =
            value(&Frame::client_event(&channel("presence-a"), r#""client-x""#, r#""1""#, Some("u\"1")));
        assert_eq!(with["user_id"], "u\"1");
        let without = value(&Frame::client_event(&channel("private-a"), r#""client-x""#, r#""1""#, None));
        assert_eq!(without, json!({"event": "client-x", "channel": "private-a", "data": "1"}));
    }

    #[test]
    fn p56_empty_watchlist_parts_are_left_out() {
        let frame = Frame::watchlist_events(["u2"], []).expect("somebody");
        assert_eq!(opened(&frame)["data"], json!({"events": [{"name": "online", "user_ids": ["u2"]}]}));
        assert_eq!(Frame::watchlist_events([], []), None);
    }

    #[test]
    fn p50_sign_in_echoes_user_data_verbatim() {
        let frame = Frame::signin_success(r#"{"id": "1"}"#);
        assert_eq!(opened(&frame)["data"]["user_data"], r#"{"id": "1"}"#);
    }

    #[test]
    fn p14_members_and_counts_are_strings_of_json() {
        let ann = Member { user_id: "ann".into(), user_info: r#"{"a":1}"#.into() };
        let room = channel("presence-a");
        assert_eq!(
            opened(&Frame::member_added(&room, &ann))["data"],
            json!({"user_id": "ann", "user_info": {"a": 1}})
        );
        assert_eq!(opened(&Frame::member_removed(&room, "ann"))["data"], json!({"user_id": "ann"}));
        assert_eq!(
            opened(&Frame::subscription_count(&channel("a"), 12))["data"],
            json!({"subscription_count": 12})
        );
        assert_eq!(opened(&Frame::cache_miss(&channel("cache-a")))["data"], json!({}));
        assert_eq!(opened(&Frame::pong())["data"], json!({}));
    }
}
