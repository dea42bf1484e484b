//! Every client and every caller of the API, in one epoll loop.
//!
//! A peer costs one read for what has come and one write for what it says; nothing is parsed beyond frame
//! headers and HTTP heads. So one core can listen to more than the server on the other can send.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConnection;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::identity::Identity;
use crate::pusher;

/// Addresses of 127.0.0.0/8 that peers come from: one alone has too few ports.
const SOURCES: u32 = 64;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

/// All peers of one server, or of the nodes of a cluster.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    /// By id; none while it is being served, and once it has gone.
    peers: Vec<Option<Peer>>,
    /// By id: the node that it connects to.
    homes: Vec<usize>,
    /// Of each node.
    addresses: Vec<SocketAddr>,
    /// Whom to trust, where TLS is spoken.
    identity: Option<Identity>,
    sources: u32,
    /// Of clients that connect from now on, in bytes; the loopback device's own is 64 KiB.
    segment: Option<u32>,
    scratch: Vec<u8>,
    /// Said to a peer while it was being served.
    said: Vec<(usize, Vec<u8>)>,
}

/// What a peer has heard.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// The server has let the client in, under this socket id.
    Opened(&'a str),
    /// A message, in JSON.
    Message(&'a [u8]),
    /// The answer to a call: its status and body.
    Reply(u16, &'a [u8]),
    /// The connection has ended. A caller comes back with its next call.
    Closed,
}

struct Peer {
    io: TcpStream,
    tls: Option<Box<ClientConnection>>,
    speech: Speech,
    /// The start of something whose end has not come.
    unread: Vec<u8>,
    /// What the kernel has not taken yet.
    unsent: Vec<u8>,
    connected: bool,
    /// It does not read, whatever comes.
    deaf: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speech {
    /// A client whose handshake is under way.
    Upgrading,
    WebSocket,
    /// A caller of the API.
    Http,
}

impl Crowd {
    /// The crowd of nodes at these addresses, of which there is at least one.
    pub(crate) fn new(addresses: Vec<SocketAddr>, identity: Option<Identity>) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(4096),
            peers: Vec::new(),
            homes: Vec::new(),
            addresses,
            identity,
            sources: 0,
            segment: None,
            scratch: vec![0; READ_BYTES],
            said: Vec::new(),
        })
    }

    /// The server's address; of several nodes, the first one's.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.addresses.len()
    }

    /// Clients from now on have the small segments of a real network. With those of the loopback device the
    /// kernel takes 4 MB for each client that does not read, before a server has to keep anything.
    pub(crate) fn use_small_segments(&mut self) {
        self.segment = Some(1_448);
    }

    /// A client that begins its handshake with a node. Returns its id.
    pub(crate) fn client_of(&mut self, node: usize) -> io::Result<usize> {
        let id = self.caller_of(node);
        let upgrade = pusher::upgrade(self.addresses[node]).into_bytes();
        self.peers[id] = Some(self.connect(id, Speech::Upgrading, upgrade)?);
        Ok(id)
    }

    /// A caller of a node, which connects with its first call. Returns its id.
    pub(crate) fn caller_of(&mut self, node: usize) -> usize {
        self.peers.push(None);
        self.homes.push(node);
        self.peers.len() - 1
    }

    fn connect(&mut self, id: usize, speech: Speech, unsent: Vec<u8>) -> io::Result<Peer> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        self.sources = (self.sources + 1) % SOURCES;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + self.sources);
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = self.segment {
            socket.set_tcp_mss(bytes)?;
        }
        match socket.connect(&self.addresses[self.homes[id]].into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let mut io = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut io, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        let tls = self.identity.as_ref().map(Identity::client).transpose()?;
        Ok(Peer { io, tls, speech, unread: Vec::new(), unsent, connected: false, deaf: false })
    }

    /// A client says something.
    pub(crate) fn say(&mut self, id: usize, message: &str) -> io::Result<()> {
        self.send(id, text_frame(message.as_bytes()))
    }

    /// A client says several things in one breath.
    pub(crate) fn say_all(&mut self, id: usize, messages: &[String]) -> io::Result<()> {
        self.send(id, messages.iter().flat_map(|message| text_frame(message.as_bytes())).collect())
    }

    /// A caller sends a request. One at a time: there is no pipelining.
    pub(crate) fn call(&mut self, id: usize, request: Vec<u8>) -> io::Result<()> {
        if self.peers[id].is_none() {
            self.peers[id] = Some(self.connect(id, Speech::Http, request)?);
            return Ok(());
        }
        self.send(id, request)
    }

    /// A client closes as the protocol wants it, and waits for the server to end the connection.
    pub(crate) fn leave(&mut self, id: usize) -> io::Result<()> {
        self.send(id, frame(0x8, &1000_u16.to_be_bytes()))
    }

    /// A client stops reading.
    pub(crate) fn stop_reading(&mut self, id: usize) {
        if let Some(peer) = &mut self.peers[id] {
            peer.deaf = true;
        }
    }

    /// A client reads again.
    pub(crate) fn read_again(&mut self, id: usize) -> io::Result<()> {
        if let Some(peer) = &mut self.peers[id] {
            peer.deaf = false;
            // Registered anew, so that what has come meanwhile is announced again.
            self.poll.registry().deregister(&mut peer.io)?;
            self.poll.registry().register(
                &mut peer.io,
                Token(id),
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        Ok(())
    }

    fn send(&mut self, id: usize, bytes: Vec<u8>) -> io::Result<()> {
        match &mut self.peers[id] {
            Some(peer) => peer.send(&bytes),
            None => {
                self.said.push((id, bytes));
                Ok(())
            }
        }
    }

    /// Waits for something to happen, until `until` at the latest, and tells `hear` of it.
    ///
    /// # Errors
    /// When the system refuses something; connections that end are told to `hear`.
    pub(crate) fn turn(
        &mut self,
        until: Instant,
        hear: &mut impl FnMut(&mut Self, usize, Heard<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        // The kernel rounds up to milliseconds: the last one is spent asking.
        let wait = until.saturating_duration_since(Instant::now()).saturating_sub(Duration::from_millis(1));
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let id = event.token().0;
            let Some(mut peer) = self.peers[id].take() else { continue };
            if event.is_writable() {
                peer.connected = true;
                peer.flush()?;
            }
            let open = peer.deaf
                || !event.is_readable()
                || self.read(id, &mut peer, event.is_read_closed(), hear)?;
            if open {
                self.peers[id] = Some(peer);
            } else {
                drop(peer);
                self.said.retain(|(to, _)| *to != id);
                hear(self, id, Heard::Closed)?;
            }
            for (to, bytes) in std::mem::take(&mut self.said) {
                if let Some(peer) = &mut self.peers[to] {
                    peer.send(&bytes)?;
                }
            }
        }
        self.events = events;
        Ok(())
    }

    /// Reads what has come. Whether the connection is still open.
    fn read(
        &mut self,
        id: usize,
        peer: &mut Peer,
        to_the_end: bool,
        hear: &mut impl FnMut(&mut Self, usize, Heard<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut open = true;
        loop {
            match peer.receive(&mut scratch) {
                Ok(0) => open = false,
                Ok(count) => {
                    open = peer.take_in(&scratch[..count], |heard| hear(self, id, heard))?;
                    // Less than there is room for: there is no more, and the next edge will tell. But for the end,
                    // which has been announced already.
                    if open && (count == scratch.len() || to_the_end || peer.tls.is_some()) {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => open = false,
            }
            break;
        }
        self.scratch = scratch;
        Ok(open)
    }
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return self.io.read(into) };
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            tls.read_tls(&mut self.io)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            self.flush()?;
        }
    }

    /// What waits, and the client's part of the handshake.
    fn flush_tls(tls: &mut ClientConnection, io: &mut TcpStream, unsent: &mut Vec<u8>) -> io::Result<()> {
        tls.writer().write_all(&std::mem::take(unsent))?;
        while tls.wants_write() {
            match tls.write_tls(io) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Blocked, or gone: reading will show.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.as_mut().filter(|_| self.connected) {
            return Self::flush_tls(tls, &mut self.io, &mut self.unsent);
        }
        while self.connected && !self.unsent.is_empty() {
            match self.io.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Reading will show that it is gone.
                Err(_) => self.unsent.clear(),
            }
        }
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(())
    }

    /// Whether the connection is still of use.
    fn take_in(
        &mut self,
        bytes: &[u8],
        mut hear: impl FnMut(Heard<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let kept = std::mem::take(&mut self.unread);
        let joined = if kept.is_empty() { None } else { Some([&kept[..], bytes].concat()) };
        let mut rest = joined.as_deref().unwrap_or(bytes);
        loop {
            let (step, length) = match self.speech {
                Speech::Upgrading => upgraded(rest),
                Speech::WebSocket => message(rest),
                Speech::Http => reply(rest),
            };
            rest = &rest[length..];
            match step {
                Step::More => break,
                Step::Upgraded => self.speech = Speech::WebSocket,
                Step::Nothing => {}
                Step::End => return Ok(false),
                Step::Heard(heard) => hear(heard)?,
                Step::Last(heard) => {
                    hear(heard)?;
                    return Ok(false);
                }
            }
        }
        self.unread = rest.to_vec();
        Ok(true)
    }
}

/// What the next bytes are.
enum Step<'a> {
    /// The beginning of something.
    More,
    Upgraded,
    /// Nothing that anybody waits for.
    Nothing,
    Heard(Heard<'a>),
    /// The same, and the connection ends behind it.
    Last(Heard<'a>),
    End,
}

fn upgraded(bytes: &[u8]) -> (Step<'_>, usize) {
    match memchr::memmem::find(bytes, b"\r\n\r\n") {
        Some(_) if !bytes.starts_with(b"HTTP/1.1 101") => (Step::End, 0),
        Some(end) => (Step::Upgraded, end + 4),
        None => (Step::More, 0),
    }
}

fn message(bytes: &[u8]) -> (Step<'_>, usize) {
    let [first, short, ..] = *bytes else { return (Step::More, 0) };
    let (header, length) = match (short & 0x7f, bytes) {
        (126, [_, _, a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [_, _, 0, 0, 0, 0, a, b, c, d, ..]) => (10, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        (126 | 127, _) => return (Step::More, 0),
        (short, _) => (2, usize::from(short)),
    };
    let Some(payload) = bytes.get(header..header + length) else { return (Step::More, 0) };
    let step = match first & 0x0f {
        0x1 => match memchr::memmem::find(payload, b"pusher:connection_established") {
            Some(_) => socket_id(payload).map_or(Step::Nothing, |id| Step::Heard(Heard::Opened(id))),
            None => Step::Heard(Heard::Message(payload)),
        },
        0x8 => Step::End,
        _ => Step::Nothing,
    };
    (step, header + length)
}

/// The digits behind `socket_id` in the data of `connection_established`.
fn socket_id(payload: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("socket_id")?;
    let rest = rest.trim_start_matches(|each: char| !each.is_ascii_digit());
    rest.split(|each: char| !each.is_ascii_digit() && each != '.').next()
}

fn reply(bytes: &[u8]) -> (Step<'_>, usize) {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return (Step::More, 0) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
    let length = field("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
    let Some(body) = bytes.get(end + 4..end + 4 + length) else { return (Step::More, 0) };
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let heard = Heard::Reply(status, body);
    let last = field("connection:") == Some("close");
    (if last { Step::Last(heard) } else { Step::Heard(heard) }, end + 4 + length)
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    frame(0x1, payload)
}

/// A frame as clients send it: masked.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x3a, 0x5c, 0x96, 0xe1];
    let mut frame = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_id_is_read_from_doubly_encoded_data() {
        let hello = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"12.34\",\"activity_timeout\":120}"}"#;
        assert_eq!(socket_id(hello), Some("12.34"));
    }

    #[test]
    fn a_reply_is_taken_only_whole() {
        let whole = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        assert!(matches!(reply(&whole[..whole.len() - 1]), (Step::More, 0)));
        let (step, length) = reply(whole);
        assert!(matches!(step, Step::Last(Heard::Reply(503, b"{}"))));
        assert_eq!(length, whole.len());
    }

    #[test]
    fn a_message_is_taken_only_whole() {
        let whole = [0x81, 126, 0, 3, b'a', b'b', b'c'];
        for part in 0..whole.len() {
            assert!(matches!(message(&whole[..part]), (Step::More, 0)), "{part}");
        }
        assert!(matches!(message(&whole), (Step::Heard(Heard::Message(b"abc")), 7)));
    }
}
