//! The floor: one thread, one epoll loop, and the least that makes a client believe it talks to a server.
//!
//! A handshake, a list of subscribers for each channel, one write for each of them. Nothing is verified,
//! limited, timed or counted, no presence, no order beyond what falls out, nobody is ever told of an error.
//! What a real server costs is told as a multiple of this.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use actix_http::ws::hash_key;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 * 1024;

struct Floor {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    vacant: Vec<usize>,
    channels: HashMap<String, Vec<usize>>,
    scratch: Vec<u8>,
}

struct Peer {
    io: TcpStream,
    upgraded: bool,
    /// The start of something whose end has not come.
    unread: Vec<u8>,
    /// What the kernel has not taken.
    unsent: Vec<u8>,
    channels: Vec<String>,
}

/// Serves until it is killed.
pub(crate) fn serve(port: u16) -> io::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    let mut listener = TcpListener::from_std(socket.into());
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor {
        poll,
        listener,
        peers: Vec::new(),
        vacant: Vec::new(),
        channels: HashMap::new(),
        scratch: vec![0; READ_BYTES],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        if let Err(error) = floor.poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(),
                Token(id) => {
                    if event.is_writable()
                        && let Some(peer) = &mut floor.peers[id]
                    {
                        peer.flush();
                    }
                    if event.is_readable() {
                        floor.read(id, event.is_read_closed());
                    }
                }
            }
        }
    }
}

impl Floor {
    fn accept(&mut self) {
        while let Ok((mut io, _)) = self.listener.accept() {
            let id = self.vacant.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            let ready = io
                .set_nodelay(true)
                .and_then(|()| self.poll.registry().register(&mut io, Token(id), interest));
            match ready {
                Ok(()) => {
                    let channels = Vec::new();
                    self.peers[id] =
                        Some(Peer { io, upgraded: false, unread: Vec::new(), unsent: Vec::new(), channels });
                }
                Err(_) => self.vacant.push(id),
            }
        }
    }

    fn read(&mut self, id: usize, to_the_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(peer) = &mut self.peers[id] {
            match peer.io.read(&mut scratch) {
                Ok(0) => self.forget(id),
                Ok(count) => {
                    self.take_in(id, &mut scratch[..count]);
                    if count == scratch.len() || to_the_end {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.forget(id),
            }
            break;
        }
        self.scratch = scratch;
    }

    fn take_in(&mut self, id: usize, bytes: &mut [u8]) {
        let Some(peer) = &mut self.peers[id] else { return };
        let mut joined = std::mem::take(&mut peer.unread);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &mut joined[..]
        };
        while let Some(peer) = &self.peers[id] {
            let taken = if peer.upgraded { self.frame(id, rest) } else { self.request(id, rest) };
            if taken == 0 {
                break;
            }
            rest = &mut rest[taken..];
        }
        if let Some(peer) = &mut self.peers[id] {
            peer.unread = rest.to_vec();
        }
    }

    /// Answers an HTTP request. Returns its length, or 0 if it is not whole.
    fn request(&mut self, id: usize, bytes: &mut [u8]) -> usize {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return 0 };
        // With the end of its last line.
        let head = &bytes[..end + 2];
        if let Some(key) = value(head, b"Sec-WebSocket-Key: ", b'\r') {
            let hello = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#;
            let accept = hash_key(key);
            let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ".to_vec();
            answer.extend_from_slice(&accept);
            answer.extend_from_slice(b"\r\n\r\n");
            answer.extend_from_slice(&text_frame(hello.as_bytes()));
            if let Some(peer) = &mut self.peers[id] {
                peer.upgraded = true;
                peer.send(&answer);
            }
            return end + 4;
        }
        let length = value(head, b"Content-Length: ", b'\r').and_then(number).unwrap_or(0);
        if bytes.len() < end + 4 + length {
            return 0;
        }
        let body = bytes[end + 4..end + 4 + length].to_vec();
        self.publish(&body);
        if let Some(peer) = &mut self.peers[id] {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}");
        }
        end + 4 + length
    }

    /// Sends the event of a body, or each of a batch.
    fn publish(&mut self, mut body: &[u8]) {
        while let Some(at) = memchr::memmem::find(body, b"\"name\":\"") {
            body = &body[at..];
            let (Some(name), Some(channel), Some(data)) = (
                value(body, b"\"name\":\"", b'"'),
                value(body, b"\"channel\":\"", b'"'),
                value(body, b"\"data\":\"", b'"'),
            ) else {
                return;
            };
            self.send_to(channel, None, &event(name, channel, data));
            body = &body[8..];
        }
    }

    /// Acts on a frame. Returns its length, or 0 if it is not whole.
    fn frame(&mut self, id: usize, bytes: &mut [u8]) -> usize {
        let [first, short, ..] = *bytes else { return 0 };
        let (header, length) = match (short & 0x7f, &*bytes) {
            (126, [_, _, a, b, ..]) => (8, usize::from(u16::from_be_bytes([*a, *b]))),
            (126 | 127, _) => return 0,
            (short, _) => (6, usize::from(short)),
        };
        if bytes.len() < header + length {
            return 0;
        }
        let (head, payload) = bytes[..header + length].split_at_mut(header);
        for (byte, mask) in payload.iter_mut().zip(head[header - 4..].iter().cycle()) {
            *byte ^= mask;
        }
        match first & 0x0f {
            0x1 => self.message(id, payload),
            0x8 => {
                if let Some(peer) = &mut self.peers[id] {
                    peer.send(&[0x88, 0]);
                }
                self.forget(id);
            }
            _ => {}
        }
        header + length
    }

    fn message(&mut self, id: usize, text: &[u8]) {
        let Some(name) = value(text, b"\"event\":\"", b'"') else { return };
        let channel = value(text, b"\"channel\":\"", b'"').unwrap_or_default();
        let Some(peer) = &mut self.peers[id] else { return };
        match name {
            b"pusher:ping" => peer.send(&text_frame(br#"{"event":"pusher:pong","data":"{}"}"#)),
            b"pusher:subscribe" => {
                let channel = String::from_utf8_lossy(channel).into_owned();
                peer.send(&event(b"pusher_internal:subscription_succeeded", channel.as_bytes(), b"{}"));
                peer.channels.push(channel.clone());
                self.channels.entry(channel).or_default().push(id);
            }
            b"pusher:unsubscribe" => self.unsubscribe(id, &String::from_utf8_lossy(channel)),
            _ => {
                let data = value(text, b"\"data\":\"", b'"').unwrap_or_default();
                self.send_to(channel, Some(id), &event(name, channel, data));
            }
        }
    }

    /// One write for each subscriber: what everything is measured by.
    fn send_to(&mut self, channel: &[u8], except: Option<usize>, frame: &[u8]) {
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        let Some(subscribers) = self.channels.get(channel) else { return };
        for id in subscribers.iter().filter(|id| Some(**id) != except) {
            if let Some(peer) = &mut self.peers[*id] {
                peer.send(frame);
            }
        }
    }

    fn unsubscribe(&mut self, id: usize, channel: &str) {
        if let Some(peer) = &mut self.peers[id] {
            peer.channels.retain(|each| each != channel);
        }
        if let Some(subscribers) = self.channels.get_mut(channel) {
            subscribers.retain(|each| *each != id);
            if subscribers.is_empty() {
                self.channels.remove(channel);
            }
        }
    }

    fn forget(&mut self, id: usize) {
        let Some(peer) = self.peers[id].take() else { return };
        for channel in &peer.channels {
            self.unsubscribe(id, channel);
        }
        self.vacant.push(id);
    }
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) {
        if !self.unsent.is_empty() {
            return self.unsent.extend_from_slice(bytes);
        }
        match self.io.write(bytes) {
            Ok(count) if count == bytes.len() => {}
            Ok(count) => self.unsent.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent.extend_from_slice(bytes),
            // Reading will show that it is gone.
            Err(_) => {}
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.io.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(_) => return,
            }
        }
        self.unsent = Vec::new();
    }
}

fn event(name: &[u8], channel: &[u8], data: &[u8]) -> Vec<u8> {
    text_frame(
        &[br#"{"event":""#, name, br#"","channel":""#, channel, br#"","data":""#, data, br#""}"#].concat(),
    )
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x81);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// What stands between `before` and `end`.
fn value<'a>(text: &'a [u8], before: &[u8], end: u8) -> Option<&'a [u8]> {
    let from = memchr::memmem::find(text, before)? + before.len();
    let length = memchr::memchr(end, &text[from..])?;
    Some(&text[from..from + length])
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
