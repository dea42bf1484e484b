//! Who comes in, and a socket that gives up on HTTP clients which hold it without getting anywhere.
//!
//! A connection begins with the header of a trusted proxy if one is due, and with TLS if its port has it; both must
//! be done in the time of a head. From then on it is known who is at the other end ([`Caller`]).
//!
//! The HTTP layer underneath reads heads of twice our limit, times only the first head of a connection, and
//! waits for ever for a client to read its answer. Here a first head is judged as its bytes come, an answer
//! must be read in time, and after it the next request must come in time. WebSockets leave this behind with
//! the rest of HTTP.
//!
//! Not here: the time of the first head (actix-http) and of a body (`api`).

mod caller;
pub mod proxy;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Uri;
use actix_http::header::HeaderMap;
use actix_rt::net::TcpStream;
use ipnet::IpNet;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::metrics::{DoorMetrics, TooSlow};
use crate::tls::{Certificates, HandshakeError, Stream};

pub use crate::guard::caller::{Caller, Client};

/// Room for a head with all parameters in the query string, in bytes.
pub const HEAD_MAX: usize = 64 * 1024;

/// Whether a head that was read whole is longer than that.
pub fn is_too_long(uri: &Uri, headers: &HeaderMap) -> bool {
    let line = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    line + fields > HEAD_MAX
}

/// One of the addresses that clients connect to.
#[derive(Debug)]
pub struct Door {
    /// With TLS, if there are any.
    pub certificates: Option<Arc<Certificates>>,
    /// Networks of trusted proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether those say with the PROXY protocol for whom they connect.
    pub proxy_protocol: bool,
    /// How long clients are waited for.
    pub patience: Patience,
}

/// Why a connection ends before its first request.
#[derive(Debug, Error)]
pub enum EntryError {
    /// The system refuses something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A trusted proxy did not say for whom it connects.
    #[error("trusted proxy: {0}")]
    Proxy(io::Error),
    /// There is no TLS with the client.
    #[error("TLS handshake: {0}")]
    Tls(#[from] HandshakeError),
    /// The client took too long.
    #[error("too slow")]
    TooSlow,
}

impl Door {
    /// Readies a socket that was just accepted: header of a proxy, TLS.
    ///
    /// # Errors
    /// When the client does not get so far, or not in time.
    pub async fn enter(&self, mut io: TcpStream, metrics: &DoorMetrics) -> Result<Guarded, EntryError> {
        // Here, since the HTTP service's own setting for it does not reach HTTP/1.
        io.set_nodelay(true)?;
        let until = Instant::now() + self.patience.entry;
        let trusted = &self.trusted_proxies[..];
        let mut caller = Caller::new(io.peer_addr()?.ip(), self.certificates.is_some(), trusted);
        if self.proxy_protocol && caller.is_trusted() {
            // Boxed, as below, so that connections without it do not carry its buffer.
            let header = Box::pin(timeout_at(until, proxy::read(&mut io))).await;
            let result = match &header {
                Ok(Ok(proxy::Header { source: Some(_), .. })) => "client",
                Ok(Ok(proxy::Header { source: None, .. })) => "local",
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => "malformed",
                Ok(Err(_)) => "gone",
                Err(_) => "timeout",
            };
            metrics.proxy_headers.with_label_values(&[result]).inc();
            let header = header.map_err(|_| EntryError::TooSlow)?.map_err(EntryError::Proxy)?;
            if let Some(source) = header.source {
                caller = Caller::new(source, self.certificates.is_some() || header.tls, trusted);
            }
        }
        let Some(certificates) = &self.certificates else {
            return Ok(Guarded::new(Stream::Plain(io), caller, self.patience, metrics.too_slow.clone()));
        };
        let accepted = Box::pin(timeout_at(until, Stream::accept(io, certificates))).await;
        let (result, version) = match &accepted {
            Ok(Ok(stream)) => ("ok", stream.version().unwrap_or("none")),
            Ok(Err(error)) => (error.label(), "none"),
            Err(_) => ("timeout", "none"),
        };
        metrics.handshakes.with_label_values(&[result, version]).inc();
        let stream = accepted.map_err(|_| EntryError::TooSlow)??;
        Ok(Guarded::new(stream, caller, self.patience, metrics.too_slow.clone()))
    }
}

/// How long an HTTP client is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For what comes before its first request: the header of a proxy, the handshake of TLS.
    pub entry: Duration,
    /// For its next request to begin.
    pub idle: Duration,
    /// For a request that has begun to be answered, and for the answer to be read.
    pub busy: Duration,
}

/// The socket, and what its client is waited for.
pub struct Guarded {
    io: Stream,
    caller: Caller,
    /// None once the first head has ended.
    head: Option<Head>,
    patience: Patience,
    /// None until the first answer has gone out.
    waiting: Option<Waiting>,
    /// Boxed once for a connection, and left alone while it is not too late: in the ordinary course of requests
    /// it is never set anew, and costs them nothing.
    timer: Option<Pin<Box<Sleep>>>,
    // Only while an answer is not read.
    writing: Option<Pin<Box<Sleep>>>,
    too_slow: TooSlow,
}

/// What the next request is waited for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Instant,
    /// Bytes of it have come.
    begun: bool,
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    /// The last two bytes: the end of a head may come in pieces.
    tail: Vec<u8>,
}

impl Guarded {
    fn new(io: Stream, caller: Caller, patience: Patience, too_slow: TooSlow) -> Self {
        let head = Some(Head::default());
        Self { io, caller, head, patience, waiting: None, timer: None, writing: None, too_slow }
    }

    /// The socket, once it speaks HTTP no longer.
    pub fn into_inner(self) -> Stream {
        self.io
    }

    /// Who is at the other end.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// The address at the other end, as far as it is known without a request.
    pub fn address(&self) -> SocketAddr {
        self.caller.socket_address()
    }

    /// Bytes have come.
    fn heard(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(waiting) = self.waiting.as_mut().filter(|waiting| !waiting.begun && !bytes.is_empty()) {
            *waiting = Waiting { since: Instant::now(), begun: true };
        }
        if let Some(head) = &mut self.head
            && head.read(bytes)?
        {
            self.head = None;
        }
        Ok(())
    }

    /// Nothing has come: is there time left?
    fn wait(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(waiting) = self.waiting else { return Ok(()) };
        let at = waiting.since + if waiting.begun { self.patience.busy } else { self.patience.idle };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= at {
                if waiting.begun {
                    self.too_slow.request.inc();
                }
                return Err(io::ErrorKind::TimedOut.into());
            }
            // It was set for an earlier request.
            timer.as_mut().reset(at);
        }
        Ok(())
    }

    /// The client does not take its answer: is there time left?
    fn wait_for_reader(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let until = || Box::pin(sleep_until(Instant::now() + self.patience.busy));
        match self.writing.get_or_insert_with(until).as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.too_slow.answer.inc();
                Err(io::ErrorKind::TimedOut.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl Head {
    /// Takes what came. Whether the head has ended.
    ///
    /// # Errors
    /// When it is too long.
    fn read(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.tail.extend_from_slice(bytes);
        // An empty line, whichever way lines end.
        let ends = |at: usize| matches!(&self.tail[at..], [b'\n', b'\n', ..] | [b'\n', b'\r', b'\n', ..]);
        if (0..self.tail.len()).any(ends) {
            return Ok(true);
        }
        self.bytes += bytes.len();
        if self.bytes > HEAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the request is too long"));
        }
        self.tail.drain(..self.tail.len().saturating_sub(2));
        Ok(false)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(this.heard(&buf.filled()[before..])),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                this.wait(cx)?;
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        match written {
            Poll::Ready(_) => {
                // The HTTP layer's own time is over.
                if this.head.is_some() && buf.starts_with(b"HTTP/1.1 408 ") {
                    this.too_slow.head.inc();
                }
                this.waiting = Some(Waiting { since: Instant::now(), begun: false });
                this.writing = None;
                if this.timer.is_none() {
                    // Nobody may ask for another read before something comes, or ever.
                    this.wait(cx)?;
                }
            }
            Poll::Pending => this.wait_for_reader(cx)?,
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        match flushed {
            // Of a plain socket, that says nothing.
            Poll::Ready(_) if matches!(this.io, Stream::Plain(_)) => {}
            Poll::Ready(_) => this.writing = None,
            // Records that the client does not take.
            Poll::Pending => this.wait_for_reader(cx)?,
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Option<bool> {
        let mut head = Head::default();
        pieces.iter().map(|piece| head.read(piece)).last()?.ok()
    }

    #[test]
    fn a_head_may_end_between_two_reads() {
        assert_eq!(read(&[b"GET / HTTP/1.1\r\n\r\n"]), Some(true));
        assert_eq!(read(&[b"GET / HTTP/1.1\r", b"\n\r", b"\n"]), Some(true));
        assert_eq!(read(&[b"GET / HTTP/1.1\r\n", b"Host: x\r\n"]), Some(false));
        assert_eq!(read(&[b"GET / HTTP/1.1\n", b"\nbody"]), Some(true));
    }

    #[test]
    fn a_head_that_does_not_end_is_given_up_above_the_limit() {
        let most = vec![b'x'; HEAD_MAX];
        assert_eq!(read(&[&most]), Some(false));
        assert_eq!(read(&[&most, b"x"]), None);
    }
}
