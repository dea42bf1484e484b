//! A socket that gives up on HTTP clients which hold it without getting anywhere.
//!
//! The HTTP layer underneath reads heads of twice our limit, times only the first head of a connection, and
//! waits for ever for a client to read its answer. Here a first head is judged as its bytes come, what has
//! begun to arrive must be answered in time, and an answer must be read in time. WebSockets leave this
//! behind with the rest of HTTP.

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

/// The socket, and what its client is waited for.
pub struct Guarded {
    io: TcpStream,
    /// None once the first head has ended.
    head: Option<Head>,
    /// How long a request may take to arrive, and an answer to be read.
    patience: Duration,
    /// When bytes came that have not been answered yet.
    asked: Option<Instant>,
    // Only while the client is waited for: an ordinary request never is.
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    /// The last two bytes: the end of a head may come in pieces.
    tail: Vec<u8>,
}

impl Guarded {
    /// Watches a socket that was just accepted.
    pub fn new(io: TcpStream, patience: Duration) -> Self {
        Self { io, head: Some(Head::default()), patience, asked: None, reading: None, writing: None }
    }

    /// The socket, once it speaks HTTP no longer.
    pub fn into_inner(self) -> TcpStream {
        self.io
    }

    /// Bytes have come.
    fn heard(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            self.asked.get_or_insert_with(Instant::now);
        }
        if let Some(head) = &mut self.head
            && head.read(bytes)?
        {
            self.head = None;
        }
        Ok(())
    }
}

/// Waits until `at`, and no longer.
fn wait(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> io::Result<()> {
    match timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx) {
        Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        Poll::Pending => Ok(()),
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
                if let Some(asked) = this.asked {
                    wait(&mut this.reading, asked + this.patience, cx)?;
                }
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
            Poll::Ready(_) => (this.asked, this.reading, this.writing) = (None, None, None),
            Poll::Pending => wait(&mut this.writing, Instant::now() + this.patience, cx)?,
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
