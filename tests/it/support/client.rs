//! A Pusher client: it says what a story says, and every frame it reads must obey the protocol.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::SockRef;
use tungstenite::{
    ClientRequestBuilder, Error, Message, WebSocket,
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};

use super::{Api, DEADLINE, Wire, parsed};

/// Every close code a broker may send (protocol, "Close codes"), and those of RFC 6455.
const CLOSE_CODES: [u16; 19] = [
    1000, 1001, 1002, 1003, 1007, 1009, 4000, 4001, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4100, 4200,
    4201, 4202,
];

/// One connection.
pub(crate) struct Client {
    socket: WebSocket<Wire>,
    api: Api,
    id: String,
    activity_timeout: u64,
    markers: usize,
    deadline: Duration,
}

impl Client {
    /// Connects and reads `connection_established`.
    #[track_caller]
    pub(crate) fn connect(api: &Api, path: &str) -> Self {
        let mut client = Self::dial(api, path);
        client.established();
        client
    }

    /// Connects and reads nothing.
    #[track_caller]
    pub(crate) fn dial(api: &Api, path: &str) -> Self {
        Self::dial_with(api, path, &[])
    }

    /// Connects with request headers of the story's own.
    #[track_caller]
    pub(crate) fn dial_with(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(api.address()).expect("the broker accepts connections");
        Self::dial_over(api, stream, path, headers)
    }

    /// Connects on a socket that the story has readied.
    #[track_caller]
    pub(crate) fn dial_over(api: &Api, stream: TcpStream, path: &str, headers: &[(&str, &str)]) -> Self {
        let wire = Wire::over(stream, api.tls());
        let uri = format!("ws://{}{path}", api.address()).parse().expect("an address");
        let mut request = ClientRequestBuilder::new(uri);
        for (name, value) in headers {
            request = request.with_header(*name, *value);
        }
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024);
        let (socket, _) = tungstenite::client::client_with_config(request, wire, Some(config))
            .unwrap_or_else(|error| panic!("no upgrade of {path}: {error}"));
        Self {
            socket,
            api: api.clone(),
            id: String::new(),
            activity_timeout: 0,
            markers: 0,
            deadline: DEADLINE,
        }
    }

    /// Asserts that the first frame is `connection_established` and takes the socket id from it.
    #[track_caller]
    pub(crate) fn established(&mut self) {
        let frame = self.next();
        assert_eq!(frame["event"], "pusher:connection_established", "{frame}");
        assert_eq!(frame.as_object().map(|frame| frame.len()), Some(2), "{frame}");
        let data = parsed(&frame["data"]);
        let id = data["socket_id"].as_str().expect("a socket id");
        let (left, right) = id.split_once('.').unwrap_or_else(|| panic!("no dot in {id}"));
        for half in [left, right] {
            assert!(!half.is_empty() && half.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        }
        self.id = id.to_owned();
        self.activity_timeout = data["activity_timeout"].as_u64().expect("an integer");
        assert_ne!(self.activity_timeout, 0);
    }

    /// What the connection runs over.
    pub(crate) fn wire(&self) -> &Wire {
        self.socket.get_ref()
    }

    /// The socket id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn activity_timeout(&self) -> u64 {
        self.activity_timeout
    }

    // What a client says.

    pub(crate) fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text));
    }

    pub(crate) fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("an open connection");
    }

    /// Sends several frames in one piece, so that the broker is likely to hear them in one breath.
    pub(crate) fn send_together(&mut self, frames: &[Value]) {
        for frame in frames {
            self.socket.write(Message::text(frame.to_string())).expect("an open connection");
        }
        self.socket.flush().expect("an open connection");
    }

    /// Sends `pusher:subscribe` with this `data` and reads nothing.
    pub(crate) fn ask(&mut self, data: &Value) {
        self.send(&json!({ "event": "pusher:subscribe", "data": data }));
    }

    /// Subscribes to a channel, with a token if its name asks for one.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, channel: &str) {
        if channel.starts_with("private-") {
            self.ask(&json!({ "channel": channel, "auth": self.token_for(channel) }));
        } else {
            self.ask(&json!({ "channel": channel }));
        }
        assert_eq!(self.expect_succeeded(channel), json!({}));
    }

    /// Joins a presence channel and gives the roster: `count`, `ids`, `hash`.
    #[track_caller]
    pub(crate) fn join(&mut self, channel: &str, channel_data: &str) -> Value {
        self.ask_to_join(channel, channel_data);
        self.expect_roster(channel)
    }

    /// Sends a correctly signed presence subscription and reads nothing.
    pub(crate) fn ask_to_join(&mut self, channel: &str, channel_data: &str) {
        self.send(&self.joining(channel, channel_data));
    }

    /// A correctly signed presence subscription.
    pub(crate) fn joining(&self, channel: &str, channel_data: &str) -> Value {
        let auth = self.token_for(&format!("{channel}:{channel_data}"));
        let data = json!({ "channel": channel, "auth": auth, "channel_data": channel_data });
        json!({ "event": "pusher:subscribe", "data": data })
    }

    pub(crate) fn unsubscribe(&mut self, channel: &str) {
        self.send(&leaving(channel));
    }

    /// Signs in without a watchlist.
    #[track_caller]
    pub(crate) fn sign_in(&mut self, user_data: &str) {
        self.ask_to_sign_in(user_data);
        self.expect_signed_in(user_data);
    }

    /// Signs in with a watchlist and gives the events told about it.
    #[track_caller]
    pub(crate) fn watch(&mut self, user_data: &str) -> Value {
        self.sign_in(user_data);
        self.expect_watchlist()
    }

    /// Sends a correctly signed sign-in and reads nothing.
    pub(crate) fn ask_to_sign_in(&mut self, user_data: &str) {
        let auth = self.token_for(&format!(":user::{user_data}"));
        self.send(&json!({
            "event": "pusher:signin",
            "data": { "auth": auth, "user_data": user_data },
        }));
    }

    /// A token for what stands behind the socket id in the string to sign.
    pub(crate) fn token_for(&self, rest: &str) -> String {
        self.api.token(&format!("{}:{rest}", self.id))
    }

    pub(crate) fn say(&mut self, channel: &str, event: &str, data: &Value) {
        self.send(&json!({ "event": event, "channel": channel, "data": data }));
    }

    pub(crate) fn ping(&mut self) {
        self.send(&json!({ "event": "pusher:ping", "data": {} }));
    }

    /// Closes properly: a close frame, its echo, the end.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        let code = CloseCode::Normal;
        self.socket.close(Some(CloseFrame { code, reason: "".into() })).expect("a close frame");
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return,
                Err(error) => panic!("no proper end: {error}"),
            }
        }
    }

    /// Sends a close frame and goes without waiting for the echo.
    pub(crate) fn close_without_waiting(mut self) {
        self.socket.close(None).expect("a close frame");
    }

    /// Ends TLS in order, and nothing above it.
    pub(crate) fn end_tls(mut self) {
        self.socket.get_mut().end_tls();
    }

    /// Ends the TCP connection with a reset.
    pub(crate) fn reset(self) {
        let stream = SockRef::from(self.socket.get_ref().tcp());
        stream.set_linger(Some(Duration::ZERO)).expect("an open socket");
    }

    /// Waits longer than usual for the other side.
    pub(crate) fn patience(&mut self, deadline: Duration) {
        self.deadline = deadline;
        let stream = self.wire().tcp();
        stream.set_read_timeout(Some(deadline)).expect("a read deadline");
        stream.set_write_timeout(Some(deadline)).expect("a write deadline");
    }

    // What a client hears.

    /// The next frame.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        match self.next_message() {
            Message::Text(text) => {
                let frame = serde_json::from_str(&text).expect("a frame is JSON");
                expect_invariants(&frame);
                frame
            }
            other => panic!("expected a frame, saw {other:?}"),
        }
    }

    /// The next message that is neither a ping nor a pong.
    #[track_caller]
    fn next_message(&mut self) -> Message {
        let deadline = Instant::now() + self.deadline;
        while Instant::now() < deadline {
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return message,
                Err(error) => panic!("expected a frame, saw {error}"),
            }
        }
        panic!("nothing but pings and pongs within {:?}", self.deadline);
    }

    /// The payload of the next pong frame; nothing else may come before it.
    #[track_caller]
    pub(crate) fn expect_pong_frame(&mut self) -> Vec<u8> {
        match self.socket.read() {
            Ok(Message::Pong(payload)) => payload.to_vec(),
            other => panic!("expected a pong frame, saw {other:?}"),
        }
    }

    /// Asserts that the next frame is exactly this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, frame: &Value) {
        assert_eq!(&self.next(), frame);
    }

    /// Asserts that the next frame is an event of this channel, to the byte.
    #[track_caller]
    pub(crate) fn expect_event(&mut self, channel: &str, event: &str, data: &str) {
        self.expect(&json!({ "event": event, "channel": channel, "data": data }));
    }

    /// Asserts the event and channel of the next frame and gives its data as it is.
    #[track_caller]
    pub(crate) fn expect_text_of(&mut self, channel: &str, event: &str) -> String {
        let frame = self.next();
        let data = frame["data"].as_str().expect("a string").to_owned();
        assert_eq!(frame, json!({ "event": event, "channel": channel, "data": data }));
        data
    }

    /// Asserts the event and channel of the next frame and gives its data, parsed.
    #[track_caller]
    pub(crate) fn expect_on(&mut self, channel: &str, event: &str) -> Value {
        let frame = self.next();
        assert_eq!(frame, json!({ "event": event, "channel": channel, "data": frame["data"] }));
        parsed(&frame["data"])
    }

    /// Asserts that the next frame confirms a subscription and gives its data, parsed.
    #[track_caller]
    pub(crate) fn expect_succeeded(&mut self, channel: &str) -> Value {
        self.expect_on(channel, "pusher_internal:subscription_succeeded")
    }

    /// Asserts that the next frame is a consistent presence snapshot and gives it.
    #[track_caller]
    pub(crate) fn expect_roster(&mut self, channel: &str) -> Value {
        let data = self.expect_succeeded(channel);
        let presence = &data["presence"];
        let ids = presence["ids"].as_array().unwrap_or_else(|| panic!("no ids in {data}"));
        let hash = presence["hash"].as_object().unwrap_or_else(|| panic!("no hash in {data}"));
        let id_of = |id: &Value| id.as_str().expect("a string id").to_owned();
        let mut ids: Vec<String> = ids.iter().map(id_of).collect();
        assert_eq!(presence["count"], ids.len(), "{data}");
        ids.sort();
        let mut keys: Vec<String> = hash.keys().cloned().collect();
        keys.sort();
        assert_eq!(ids, keys, "{data}");
        assert!(hash.values().all(Value::is_object), "{data}");
        let mut roster = presence.clone();
        roster["ids"] = json!(ids);
        roster
    }

    #[track_caller]
    pub(crate) fn expect_member_added(&mut self, channel: &str, user_id: &str) -> Value {
        let data = self.expect_on(channel, "pusher_internal:member_added");
        assert_eq!(data, json!({ "user_id": user_id, "user_info": data["user_info"] }));
        assert!(data["user_info"].is_object(), "{data}");
        data["user_info"].clone()
    }

    #[track_caller]
    pub(crate) fn expect_member_removed(&mut self, channel: &str, user_id: &str) {
        let data = self.expect_on(channel, "pusher_internal:member_removed");
        assert_eq!(data, json!({ "user_id": user_id }));
    }

    #[track_caller]
    pub(crate) fn expect_signed_in(&mut self, user_data: &str) {
        let frame = self.next();
        assert_eq!(frame["event"], "pusher:signin_success", "{frame}");
        assert_eq!(frame.as_object().map(|frame| frame.len()), Some(2), "{frame}");
        assert_eq!(parsed(&frame["data"]), json!({ "user_data": user_data }));
    }

    /// Asserts that the next frame is about the watchlist and gives its events.
    #[track_caller]
    pub(crate) fn expect_watchlist(&mut self) -> Value {
        let frame = self.next();
        assert_eq!(frame["event"], "pusher_internal:watchlist_events", "{frame}");
        assert_eq!(frame.as_object().map(|frame| frame.len()), Some(2), "{frame}");
        parsed(&frame["data"])["events"].clone()
    }

    /// Asserts that the next frame tells of one user coming or going.
    #[track_caller]
    pub(crate) fn expect_watched(&mut self, name: &str, id: &str) {
        assert_eq!(self.expect_watchlist(), json!([{ "name": name, "user_ids": [id] }]));
    }

    /// Asserts that the next frame is an error without a code, with this message.
    #[track_caller]
    pub(crate) fn expect_error(&mut self, message: &str) {
        assert_eq!(self.expect_error_code(&Value::Null), message);
    }

    /// Asserts that the next frame is an error without a code whose message holds `part`.
    #[track_caller]
    pub(crate) fn expect_error_with(&mut self, part: &str) {
        let message = self.expect_error_code(&Value::Null);
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }

    /// Asserts that the next frame is an error with this code and gives its message.
    #[track_caller]
    pub(crate) fn expect_error_code(&mut self, code: &Value) -> String {
        let frame = self.next();
        assert_eq!(frame["event"], "pusher:error", "{frame}");
        assert_eq!(&frame["data"]["code"], code, "{frame}");
        frame["data"]["message"].as_str().expect("a message").to_owned()
    }

    /// Asserts that a subscription is refused: an error, then the same on the channel.
    #[track_caller]
    pub(crate) fn expect_refusal(&mut self, channel: &str, kind: &str, message: &str) {
        let seen = self.expect_any_refusal(channel, kind);
        assert_eq!(seen, message);
    }

    /// As [`Client::expect_refusal`], and gives the message.
    #[track_caller]
    pub(crate) fn expect_any_refusal(&mut self, channel: &str, kind: &str) -> String {
        let message = self.expect_error_code(&Value::Null);
        let status = match kind {
            "AuthError" => 401,
            "LimitReached" => 403,
            _ => 400,
        };
        let data = self.expect_on(channel, "pusher:subscription_error");
        assert_eq!(data, json!({ "type": kind, "error": message, "status": status }));
        message
    }

    /// Asserts a `pusher:error`, a close frame with the same code, and nothing more.
    #[track_caller]
    pub(crate) fn expect_end_with(mut self, code: u16) -> String {
        let message = self.expect_error_code(&json!(code));
        self.expect_close(code);
        message
    }

    /// Asserts that the broker closes with this code, and gives the reason.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        let Message::Close(Some(close)) = self.next_message() else {
            panic!("expected a close frame with {code}");
        };
        assert_eq!(u16::from(close.code), code, "{close:?}");
        assert!(CLOSE_CODES.contains(&code), "{code} is not for close frames");
        assert!(close.reason.len() <= 123, "{close:?}");
        match self.socket.read() {
            Err(Error::ConnectionClosed) => close.reason.to_string(),
            other => panic!("expected the end of the connection, saw {other:?}"),
        }
    }

    /// Asserts that nothing is under way to this client: what is published to a channel of its own
    /// after everything else is the next thing it sees.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        self.markers += 1;
        let channel = format!("marker-{}-{}", self.id, self.markers);
        self.subscribe(&channel);
        self.api.publish(&channel, "marker", "");
        self.expect_event(&channel, "marker", "");
        self.unsubscribe(&channel);
        self.expect_served();
    }

    /// Asserts that everything said so far has been dealt with, without a word in between.
    #[track_caller]
    pub(crate) fn expect_served(&mut self) {
        self.ping();
        self.expect(&json!({ "event": "pusher:pong", "data": "{}" }));
    }
}

/// The end of a subscription.
pub(crate) fn leaving(channel: &str) -> Value {
    json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })
}

/// What holds for every frame of a broker: data is a string, but an object in errors; an error has
/// a message and an integer or null as code; nothing carries a null channel or user id.
#[track_caller]
pub(crate) fn expect_invariants(frame: &Value) {
    let event = frame["event"].as_str().unwrap_or_else(|| panic!("no event in {frame}"));
    if event == "pusher:error" {
        assert!(frame["data"].is_object(), "{frame}");
        assert!(frame["data"]["message"].is_string(), "{frame}");
        let code = &frame["data"]["code"];
        assert!(code.is_null() || code.is_u64(), "{frame}");
        assert!(frame.get("channel").is_none(), "{frame}");
    } else {
        assert!(frame["data"].is_string(), "{frame}");
    }
    for key in ["channel", "user_id"] {
        assert!(frame.get(key).is_none_or(Value::is_string), "{frame}");
    }
}
