//! A WebSocket as an SDK opens it: the handshake by hand, so that whatever a proxy makes of it is seen.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use actix_codec::{Decoder, Encoder};
use actix_http::ws::{Codec, Frame, Item, Message, ProtocolError, hash_key};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A connection, with or without TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// An open WebSocket.
pub(super) struct Socket {
    wire: Box<dyn Wire>,
    codec: Codec,
    /// What has come, up to an incomplete frame.
    unread: BytesMut,
    /// What has not been taken yet.
    unsent: BytesMut,
    /// The beginning of a message that comes in pieces.
    begun: Option<BytesMut>,
    /// What has come while something else was waited for.
    events: VecDeque<Event>,
    /// As the server calls it.
    id: Option<String>,
}

/// A message of the protocol.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) channel: Option<String>,
    /// As it came: a text in which there may be JSON, or JSON.
    pub(super) data: Value,
}

/// What came in the place of an upgrade.
#[derive(Debug)]
pub(super) enum NoUpgrade {
    /// An answer of HTTP. Its head, and what came of its body.
    Answered(Head),
    /// The connection has ended.
    Ended(String),
    /// Something that is not HTTP.
    Nonsense(String),
}

/// The head of an answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Head {
    /// As in `HTTP/1.1`.
    pub(super) version: String,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    /// What came behind it at once.
    pub(super) text: String,
}

/// How a connection has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// By a close frame: its code, if there is one, and its reason.
    Closed(Option<u16>, String),
    /// Without a word.
    Cut(String),
    /// By somebody who does not speak WebSocket.
    Nonsense(String),
}

/// Much more than an event of 10 KB has in JSON.
const FRAME_MAX: usize = 256 * 1024;

/// More than any head.
const HEAD_MAX: usize = 32 * 1024;

/// Enough to know who is speaking.
const BODY_MAX: usize = 4096;
const BODY_TIME: Duration = Duration::from_millis(500);

/// A key of 16 bytes, in base64. It proves nothing, and one is as good as the other.
const KEY: &str = "ZmFuZmFyZSBkb2N0b3I/Pw==";

/// Asks for an upgrade.
pub(super) async fn open(
    mut wire: Box<dyn Wire>,
    authority: &str,
    target: &str,
    origin: Option<&str>,
) -> Result<Socket, NoUpgrade> {
    let ended = |error: io::Error| NoUpgrade::Ended(error.to_string());
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{origin}User-Agent: fanfare-doctor\r\n\r\n"
    );
    wire.write_all(request.as_bytes()).await.map_err(ended)?;
    wire.flush().await.map_err(ended)?;
    let mut bytes = BytesMut::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > HEAD_MAX {
            return Err(NoUpgrade::Nonsense("a head of an answer that does not end".to_owned()));
        }
        let count = wire.read_buf(&mut bytes).await.map_err(ended)?;
        if count == 0 {
            return Err(match bytes.is_empty() {
                true => NoUpgrade::Ended("the connection was closed without an answer".to_owned()),
                false => NoUpgrade::Nonsense(first_bytes(&bytes)),
            });
        }
    };
    let head = bytes.split_to(head_len);
    let Some(mut head) = Head::parse(&head) else { return Err(NoUpgrade::Nonsense(first_bytes(&head))) };
    let accepted = hash_key(KEY.as_bytes());
    if head.status != 101 || head.header("sec-websocket-accept").map(str::as_bytes) != Some(&accepted[..]) {
        head.text = rest_of(wire, bytes).await;
        return Err(NoUpgrade::Answered(head));
    }
    let codec = Codec::new().client_mode().max_size(FRAME_MAX);
    let (begun, events, id) = (None, VecDeque::new(), None);
    Ok(Socket { wire, codec, unread: bytes, unsent: BytesMut::new(), begun, events, id })
}

/// What follows a head, as far as it comes soon.
async fn rest_of(mut wire: Box<dyn Wire>, mut bytes: BytesMut) -> String {
    let reading = async {
        while bytes.len() < BODY_MAX && wire.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {}
    };
    let _ = timeout(BODY_TIME, reading).await;
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

impl Socket {
    /// The next message. Pings are answered meanwhile. May be given up at any time.
    pub(super) async fn next(&mut self) -> Result<Event, End> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.hear().await
    }

    /// The next message that has one of these names. Others are kept.
    pub(super) async fn wait_for(&mut self, names: &[&str]) -> Result<Event, End> {
        if let Some(at) = self.events.iter().position(|event| names.contains(&&*event.name))
            && let Some(event) = self.events.remove(at)
        {
            return Ok(event);
        }
        loop {
            let event = self.hear().await?;
            if names.contains(&&*event.name) {
                return Ok(event);
            }
            self.events.push_back(event);
        }
    }

    /// How the server calls the connection, once it has greeted.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Says something.
    pub(super) async fn say(&mut self, message: &Value) -> Result<(), End> {
        self.send(Message::Text(message.to_string().into())).await
    }

    /// Says goodbye. Nobody waits for the answer.
    pub(super) async fn leave(mut self) {
        let _ = self.send(Message::Close(None)).await;
    }

    async fn hear(&mut self) -> Result<Event, End> {
        loop {
            let whole = match self.frame().await? {
                Frame::Text(bytes) => Some(bytes),
                Frame::Continuation(item) => self.continued(item),
                Frame::Ping(bytes) => {
                    self.send(Message::Pong(bytes)).await?;
                    None
                }
                Frame::Close(reason) => {
                    let code = reason.as_ref().map(|reason| u16::from(reason.code));
                    let text = reason.and_then(|reason| reason.description).unwrap_or_default();
                    return Err(End::Closed(code, text));
                }
                Frame::Binary(_) | Frame::Pong(_) => None,
            };
            let Some(event) = whole.and_then(|bytes| Event::parse(&bytes)) else { continue };
            if event.name == "pusher:connection_established" {
                self.id = event.fields()["socket_id"].as_str().map(str::to_owned);
            }
            if event.name == "pusher:ping" {
                self.say(&serde_json::json!({ "event": "pusher:pong", "data": {} })).await?;
                continue;
            }
            return Ok(event);
        }
    }

    /// Puts pieces together.
    fn continued(&mut self, item: Item) -> Option<Bytes> {
        match item {
            Item::FirstText(bytes) | Item::FirstBinary(bytes) => {
                self.begun = Some(BytesMut::from(&bytes[..]))
            }
            Item::Continue(bytes) => self.begun.get_or_insert_default().extend_from_slice(&bytes),
            Item::Last(bytes) => {
                let mut whole = self.begun.take().unwrap_or_default();
                whole.extend_from_slice(&bytes);
                return Some(whole.freeze());
            }
        }
        None
    }

    /// The next frame. What comes first may have come with the head.
    async fn frame(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.unread).map_err(|error| nonsense(&error))? {
                return Ok(frame);
            }
            match self.wire.read_buf(&mut self.unread).await {
                Ok(0) => return Err(End::Cut("the connection ended without a close frame".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(cut_by(&error)),
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        self.codec.encode(message, &mut self.unsent).map_err(|error| nonsense(&error))?;
        self.wire.write_all_buf(&mut self.unsent).await.map_err(|error| cut_by(&error))?;
        self.wire.flush().await.map_err(|error| cut_by(&error))
    }
}

fn cut_by(error: &io::Error) -> End {
    End::Cut(format!("the connection broke: {error}"))
}

fn nonsense(error: &ProtocolError) -> End {
    End::Nonsense(error.to_string())
}

impl Event {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut message: Value = serde_json::from_slice(bytes).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (name, channel) = (text(&message["event"])?, text(&message["channel"]));
        Some(Self { name, channel, data: message["data"].take() })
    }

    /// The JSON that is in `data`, whichever way.
    pub(super) fn fields(&self) -> Value {
        match &self.data {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            data => data.clone(),
        }
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.splitn(3, ' ');
        let version = first.next().filter(|version| version.starts_with("HTTP/1."))?.to_owned();
        let status = first.next()?.parse().ok()?;
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some(Self { version, status, headers: lines.filter_map(pair).collect(), text: String::new() })
    }

    /// A header, by its name in small letters.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }
}

fn first_bytes(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_one() {
        assert_eq!(KEY.len(), 24);
        assert!(KEY.ends_with("=="));
    }

    #[test]
    fn a_head_has_a_status_and_headers() {
        let head =
            Head::parse(b"HTTP/1.0 502 Bad Gateway\r\nServer: nginx\r\nX: a:b\r\n\r\n").expect("a head");
        assert_eq!((head.version.as_str(), head.status), ("HTTP/1.0", 502));
        assert_eq!(
            (head.header("server"), head.header("x"), head.header("y")),
            (Some("nginx"), Some("a:b"), None)
        );
        for bytes in [&b"SSH-2.0-OpenSSH\r\n\r\n"[..], b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(Head::parse(bytes), None);
        }
    }

    #[test]
    fn data_is_read_as_text_and_as_json() {
        for bytes in [&br#"{"event":"e","data":"{\"a\":1}"}"#[..], br#"{"event":"e","data":{"a":1}}"#] {
            assert_eq!(Event::parse(bytes).expect("an event").fields()["a"], 1);
        }
        assert!(Event::parse(b"[]").is_none());
    }
}
