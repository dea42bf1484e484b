//! A WebSocket byte by byte, so that a story can break RFC 6455.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use super::{DEADLINE, JS_PATH, expect_invariants, parsed};

/// The kinds of frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Opcode(pub(crate) u8);

impl Opcode {
    pub(crate) const CONTINUATION: Self = Self(0);
    pub(crate) const TEXT: Self = Self(1);
    pub(crate) const BINARY: Self = Self(2);
    pub(crate) const CLOSE: Self = Self(8);
    pub(crate) const PING: Self = Self(9);
    pub(crate) const PONG: Self = Self(10);
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct RawFrame {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// One connection.
pub(crate) struct RawSocket {
    stream: TcpStream,
}

impl RawSocket {
    /// Upgrades as pusher-js does and reads `connection_established`.
    #[track_caller]
    pub(crate) fn connected(address: SocketAddr) -> Self {
        let (mut socket, _) = Self::upgraded(address, JS_PATH, "");
        let frame = socket.expect_json();
        assert_eq!(frame["event"], "pusher:connection_established", "{frame}");
        socket
    }

    /// Upgrades with additional header lines and gives the head of the reply.
    #[track_caller]
    pub(crate) fn upgraded(address: SocketAddr, path: &str, headers: &str) -> (Self, String) {
        let mut socket = Self::tcp(address);
        socket.send_bytes(upgrade_request(path, headers).as_bytes());
        let head = socket.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The accept value of the sample key in RFC 6455, section 1.3.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        (socket, head)
    }

    /// A TCP connection that has said nothing yet.
    #[track_caller]
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the broker accepts connections"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a read deadline");
        stream.set_write_timeout(Some(DEADLINE)).expect("a write deadline");
        stream.set_nodelay(true).expect("no delay");
        Self { stream }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("an open connection");
    }

    /// Sends to a broker that may have closed the connection already.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a whole frame, masked.
    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.send_bytes(&frame(true, opcode, payload));
    }

    /// Sends a frame that another one continues.
    pub(crate) fn send_part(&mut self, opcode: Opcode, payload: &[u8]) {
        self.send_bytes(&frame(false, opcode, payload));
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send(Opcode::TEXT, text.as_bytes());
    }

    /// The head of an HTTP reply, up to the empty line.
    #[track_caller]
    pub(crate) fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a whole head");
            head.extend(byte);
        }
        String::from_utf8(head).expect("a head in UTF-8")
    }

    /// The next frame, or `None` when the connection has ended.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<RawFrame> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("no frame and no end: {error}"),
        }
        assert_eq!(head[0] & 0xf0, 0x80, "a fragment or reserved bits: {head:?}");
        assert_eq!(head[1] & 0x80, 0, "a masked frame: {head:?}");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.array())),
            127 => u64::from_be_bytes(self.array()),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a sane length")];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        Some(RawFrame { opcode: Opcode(head[0] & 0x0f), payload })
    }

    #[track_caller]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("a whole length");
        bytes
    }

    /// Asserts the kind of the next frame and gives its payload.
    #[track_caller]
    pub(crate) fn expect(&mut self, opcode: Opcode) -> Vec<u8> {
        let frame = self.next().expect("a frame, but the connection ended");
        assert_eq!(frame.opcode, opcode, "{:?}", String::from_utf8_lossy(&frame.payload));
        frame.payload
    }

    /// Asserts that the next frame is text and gives its JSON.
    #[track_caller]
    pub(crate) fn expect_json(&mut self) -> Value {
        let payload = self.expect(Opcode::TEXT);
        let frame = serde_json::from_slice(&payload).expect("a frame is JSON");
        expect_invariants(&frame);
        frame
    }

    /// Asserts that the next frame is a `pusher:error` and gives its code and message.
    #[track_caller]
    pub(crate) fn expect_error(&mut self) -> (Value, String) {
        let frame = self.expect_json();
        assert_eq!(frame["event"], "pusher:error", "{frame}");
        let message = frame["data"]["message"].as_str().expect("a message");
        (frame["data"]["code"].clone(), message.to_owned())
    }

    /// Asserts that the broker closes with this code and then ends the connection.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) {
        let payload = self.expect(Opcode::CLOSE);
        let seen = payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        assert_eq!(seen, Some(code), "{payload:?}");
        assert!(payload.len() <= 125, "a close frame of {} bytes", payload.len());
        // What the broker awaits before it lets go; it may have let go already.
        let _ = self.try_send_bytes(&frame(true, Opcode::CLOSE, &payload));
        self.expect_end();
    }

    /// Asserts that the broker ends the connection in order and without another word: a reset could
    /// have overtaken what it said last.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let read = self.stream.read(&mut [0; 64]);
        assert!(matches!(read, Ok(0)), "instead of the end of the connection: {read:?}");
    }

    /// Says that nothing more will come. The broker may have gone already.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Asserts that the broker ends the connection, in whatever way and with whatever last words.
    #[track_caller]
    pub(crate) fn expect_any_end(&mut self) {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// Sends these bytes one by one, a tenth of a second apart, until the broker ends the connection.
    #[track_caller]
    pub(crate) fn drip(&mut self, bytes: &[u8]) {
        self.patience(Duration::from_millis(100));
        for byte in bytes {
            if self.try_send_bytes(&[*byte]).is_err() {
                return;
            }
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                // Last words; or nothing, as it should be for a while.
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted), "{error}")
                }
            }
        }
        panic!("all {} bytes were waited for", bytes.len());
    }

    /// Waits longer or shorter than usual for the other side.
    pub(crate) fn patience(&mut self, deadline: Duration) {
        self.stream.set_read_timeout(Some(deadline)).expect("a read deadline");
        self.stream.set_write_timeout(Some(deadline)).expect("a write deadline");
    }

    /// Asserts that the broker ends the connection, after an HTTP refusal at most.
    #[track_caller]
    pub(crate) fn expect_end_or_refusal(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
    }

    /// Reads whatever comes until the broker has answered or ended the connection.
    #[track_caller]
    pub(crate) fn expect_any_answer(&mut self) {
        let read = self.stream.read(&mut [0; 1024]);
        assert!(read.is_ok(), "neither an answer nor an end: {read:?}");
    }

    /// Asserts an optional `pusher:error` without a code, then a close with this code.
    #[track_caller]
    pub(crate) fn expect_breach(&mut self, code: u16) {
        let frame = self.next().expect("a frame, but the connection ended");
        if frame.opcode == Opcode::TEXT {
            let error: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            assert_eq!(error["event"], "pusher:error", "{error}");
            self.expect_close(code);
            return;
        }
        assert_eq!(frame.opcode, Opcode::CLOSE);
        let seen = frame.payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        assert_eq!(seen, Some(code));
        self.expect_end();
    }

    /// Asserts that everything sent so far has been dealt with, without a word in between.
    #[track_caller]
    pub(crate) fn expect_served(&mut self) {
        self.send_text(r#"{"event":"pusher:ping","data":{}}"#);
        let frame = self.expect_json();
        assert_eq!(frame["event"], "pusher:pong", "{frame}");
    }

    /// Subscribes to a public channel.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.send_text(&subscribe_frame(channel));
        self.expect_succeeded(channel);
    }

    #[track_caller]
    pub(crate) fn expect_succeeded(&mut self, channel: &str) {
        let frame = self.expect_json();
        assert_eq!(frame["event"], "pusher_internal:subscription_succeeded", "{frame}");
        assert_eq!(frame["channel"], channel, "{frame}");
        assert!(parsed(&frame["data"]).is_object(), "{frame}");
    }
}

/// The JSON of a plain subscription.
pub(crate) fn subscribe_frame(channel: &str) -> String {
    serde_json::json!({ "event": "pusher:subscribe", "data": { "channel": channel } }).to_string()
}

/// An upgrade request with the sample key of RFC 6455, section 1.3.
pub(crate) fn upgrade_request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A masked frame.
pub(crate) fn frame(last: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(last, opcode, payload.len() as u64);
    let mask = [0x5a, 0x01, 0xfe, 0x33];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a masked frame of any length, up to the mask.
pub(crate) fn frame_head(last: bool, opcode: Opcode, length: u64) -> Vec<u8> {
    let mut bytes = vec![opcode.0 | if last { 0x80 } else { 0 }];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(middle)) => {
            bytes.push(0x80 | 126);
            bytes.extend(middle.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}
