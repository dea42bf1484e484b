//! A socket that gives up on HTTP clients which hold it without getting anywhere.
//!
//! The HTTP layer underneath reads heads of twice our limit, times only the first head of a connection, and
//! waits for ever for a client to read its answer. Here a first head is judged as its bytes come, an answer
//! must be read in time, and after it the next request must come in time. WebSockets leave this behind with
//! the rest of HTTP.
//!
//! Not here: the time of the first head (actix-http) and of a body (`api`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Uri;
use actix_http::header::HeaderMap;
use actix_rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Room for a head with all parameters in the query string, in bytes.
pub const HEAD_MAX: usize = 64 * 1024;

/// Whether a head that was read whole is longer than that.
pub fn is_too_long(uri: &Uri, headers: &HeaderMap) -> bool {
    let line = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    line + fields > HEAD_MAX
}

/// How long an HTTP client is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For its next request to begin.
    pub idle: Duration,
    /// For a request that has begun to be answered, and for the answer to be read.
    pub busy: Duration,
}

/// The socket, and what its client is waited for.
pub struct Guarded {
    io: TcpStream,
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
    /// Watches a socket that was just accepted.
    pub fn new(io: TcpStream, patience: Patience) -> Self {
        Self { io, head: Some(Head::default()), patience, waiting: None, timer: None, writing: None }
    }

    /// The socket, once it speaks HTTP no longer.
    pub fn into_inner(self) -> TcpStream {
        self.io
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
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
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
        Pin::new(&mut self.io).poll_flush(cx)
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
