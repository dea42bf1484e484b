//! A client that outlives faults: what breaks is a value, not the end of the story.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Api, JS_PATH, Opcode, expect_invariants, frame, parsed, upgrade_request};

/// One connection that may end at any time.
pub(crate) struct Device {
    stream: TcpStream,
    unread: Vec<u8>,
    api: Api,
    id: String,
}

/// The end of a connection.
#[derive(Debug)]
pub(crate) enum Gone {
    /// The broker has said goodbye with this code.
    Closed(u16),
    /// Without a word.
    Lost(io::Error),
}

impl Device {
    /// Connects as pusher-js does and reads `connection_established`.
    ///
    /// A frozen broker's kernel takes connections, too, so each step has its time.
    pub(crate) fn connect(api: &Api, patience: Duration) -> Result<Self, Gone> {
        let stream = TcpStream::connect_timeout(&api.address(), patience)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(patience))?;
        let mut device = Self { stream, unread: Vec::new(), api: api.clone(), id: String::new() };
        device.stream.write_all(upgrade_request(JS_PATH, "").as_bytes())?;
        let deadline = Instant::now() + patience;
        let head = device.read_head(deadline)?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(Gone::Lost(io::Error::other(head)));
        }
        let frame = device.next(patience)?.ok_or_else(too_late)?;
        if frame["event"] != "pusher:connection_established" {
            return Err(Gone::Lost(io::Error::other(frame.to_string())));
        }
        device.id = parsed(&frame["data"])["socket_id"].as_str().expect("a socket id").to_owned();
        Ok(device)
    }

    pub(crate) fn send(&mut self, json: &Value) -> io::Result<()> {
        self.stream.write_all(&frame(true, Opcode::TEXT, json.to_string().as_bytes()))
    }

    /// Asks for a channel, with whatever its kind needs; as this user, if it is a presence channel.
    pub(crate) fn ask(&mut self, channel: &str, user: &str) -> io::Result<()> {
        let mut data = json!({ "channel": channel });
        let mut text = format!("{}:{channel}", self.id);
        if channel.starts_with("presence-") {
            let channel_data = json!({ "user_id": user, "user_info": { "name": user } }).to_string();
            text.push_str(&format!(":{channel_data}"));
            data["channel_data"] = json!(channel_data);
        }
        if channel.starts_with("presence-") || channel.starts_with("private-") {
            data["auth"] = json!(self.api.token(&text));
        }
        self.send(&json!({ "event": "pusher:subscribe", "data": data }))
    }

    /// Asks to be signed in as this user, who watches others.
    pub(crate) fn ask_to_sign_in(&mut self, id: &str, watchlist: &[&str]) -> io::Result<()> {
        let user_data = json!({ "id": id, "watchlist": watchlist }).to_string();
        let auth = self.api.token(&format!("{}::user::{user_data}", self.id));
        self.send(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } }))
    }

    /// The next frame, if one comes in time. Pings are answered.
    pub(crate) fn next(&mut self, wait: Duration) -> Result<Option<Value>, Gone> {
        let deadline = Instant::now() + wait;
        loop {
            while let Some((opcode, payload)) = self.take_frame() {
                match opcode {
                    Opcode::TEXT => {
                        let json = serde_json::from_slice(&payload).expect("a frame is JSON");
                        expect_invariants(&json);
                        return Ok(Some(json));
                    }
                    Opcode::PING => self.stream.write_all(&frame(true, Opcode::PONG, &payload))?,
                    Opcode::CLOSE => {
                        let code = payload.first_chunk().map_or(1005, |bytes| u16::from_be_bytes(*bytes));
                        // The answer that the broker waits for; it may have gone.
                        let _ = self.stream.write_all(&frame(true, Opcode::CLOSE, &payload));
                        return Err(Gone::Closed(code));
                    }
                    other => panic!("{other:?} from the broker"),
                }
            }
            if !self.read_more(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Ends the connection in order, without waiting for the answer.
    pub(crate) fn close(mut self) {
        let _ = self.stream.write_all(&frame(true, Opcode::CLOSE, &1000_u16.to_be_bytes()));
    }

    fn read_head(&mut self, deadline: Instant) -> Result<String, Gone> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.read_more(deadline)? {
                return Err(too_late());
            }
        }
    }

    /// Reads what there is; waits for it until the deadline. Whether there was anything.
    fn read_more(&mut self, deadline: Instant) -> Result<bool, Gone> {
        // Zero would be for ever.
        let wait = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        self.stream.set_read_timeout(Some(wait))?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Gone::Lost(ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.unread.extend(&bytes[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A whole frame out of what was read.
    fn take_frame(&mut self) -> Option<(Opcode, Vec<u8>)> {
        let (first, second) = (*self.unread.first()?, *self.unread.get(1)?);
        assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "a fragment, a reserved bit or a mask");
        let (head, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().ok()?))),
            127 => panic!("a frame above 64 KiB"),
            short => (2, usize::from(short)),
        };
        self.unread.get(..head + length)?;
        let payload = self.unread.drain(..head + length).skip(head).collect();
        Some((Opcode(first & 0x0f), payload))
    }
}

fn too_late() -> Gone {
    Gone::Lost(ErrorKind::TimedOut.into())
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(to, "closed with {code}"),
            Self::Lost(error) => write!(to, "lost: {error}"),
        }
    }
}
