//! Connections on which messages come: one to each master.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::cluster::servers::error::Trouble;
use crate::cluster::servers::link::{HEARTBEAT, Link};
use crate::cluster::servers::resp::{self, Greeting, Heard};
use crate::cluster::servers::settings::Access;
use crate::cluster::servers::topics::Batch;
use crate::cluster::servers::topology::Address;
use crate::cluster::servers::{BusEvent, Inner};

/// A connection of the bus.
///
/// Behind each command goes a `HELLO`, whose answer, which is never an error, says that the command before is done: what
/// came until then is what it led to. So nothing has to be counted, and messages and ends that nobody asked for may come
/// in between. The same word shows whether the server lives and is still a master.
pub(super) struct Bus {
    reader: Box<dyn AsyncRead + Unpin>,
    writer: Box<dyn AsyncWrite + Unpin>,
    inbox: BytesMut,
    outbox: Vec<u8>,
    /// How much of `outbox` was written.
    written: usize,
    /// What was written may still be on this side of TLS.
    is_unflushed: bool,
    at: Address,
    setting: &'static str,
    timeout: Duration,
    /// What was sent and is not done, oldest first.
    open: VecDeque<Open>,
    /// When something came for the last time.
    heard: Instant,
    /// When the last `HELLO` was sent.
    greeted: Instant,
}

/// A command that is under way; none is a `HELLO` alone.
struct Open {
    batch: Option<Batch>,
    since: Instant,
}

/// Commands under way on one connection: enough to keep a server busy that is far away.
const OPEN_MAX: usize = 16;

/// What is read at once, and kept for a connection at rest.
const READ: usize = 16 * 1024;

impl Bus {
    /// Connects.
    pub(super) async fn open(
        access: &Access,
        at: &Address,
        limit: Duration,
    ) -> Result<(Self, Greeting), Trouble> {
        match timeout(limit, Self::connect(access, at, limit)).await {
            Ok(opened) => opened,
            Err(_) => Err(Trouble::away(at, "no answer")),
        }
    }

    async fn connect(access: &Access, at: &Address, limit: Duration) -> Result<(Self, Greeting), Trouble> {
        let away = |error: io::Error| Trouble::away(at, error);
        let stream = TcpStream::connect((&*at.host, at.port)).await.map_err(away)?;
        stream.set_nodelay(true).map_err(away)?;
        let (reader, writer): (Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>) = match access.tls() {
            None => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Some(config) => secured(config, at, stream).await.map_err(away)?,
        };
        let now = Instant::now();
        let mut bus = Self {
            reader,
            writer,
            inbox: BytesMut::with_capacity(READ),
            outbox: Vec::new(),
            written: 0,
            is_unflushed: false,
            at: at.clone(),
            setting: access.setting,
            timeout: limit,
            open: VecDeque::new(),
            heard: now,
            greeted: now,
        };
        resp::command(&mut bus.outbox, access.hello().into_iter());
        while !bus.outbox.is_empty() || bus.is_unflushed {
            write(&mut bus.writer, &mut bus.outbox, &mut bus.written, &mut bus.is_unflushed)
                .await
                .map_err(away)?;
        }
        let greeting = loop {
            read(&mut bus.reader, &mut bus.inbox).await.map_err(|error| match bus.ended(&error) {
                trouble if trouble != Trouble::closed(at) => trouble,
                _ => Trouble::closed_at_once(at, access.setting, access.tls().is_some()),
            })?;
            match resp::next(&bus.inbox).map_err(|error| Trouble::away(at, error))? {
                Some((Heard::Greeting(greeting), length)) => {
                    bus.inbox.advance(length);
                    break greeting;
                }
                Some((Heard::Refusal(text), _)) => return Err(bus.refused(text)),
                Some((_, length)) => bus.inbox.advance(length),
                None => {}
            }
        };
        Ok((bus, greeting))
    }

    /// Serves the topics of a link until the connection is lost. Tells why.
    pub(super) async fn serve(mut self, inner: &Inner, link: &Link) -> Trouble {
        loop {
            while self.open.len() < OPEN_MAX {
                let batch = inner.topics.borrow_mut().take(link.id);
                let Some(batch) = batch else { break };
                self.ask(batch, inner.is_sharded());
            }
            let deadline = match self.open.front() {
                Some(open) => open.since.max(self.heard) + self.timeout,
                None => self.greeted + HEARTBEAT,
            };
            let Self { reader, writer, inbox, outbox, written, is_unflushed, .. } = &mut self;
            select! {
                read = read(reader, inbox) => {
                    if let Err(error) = read {
                        return self.ended(&error);
                    }
                    self.heard = Instant::now();
                    if let Err(trouble) = self.hear(inner, link) {
                        return trouble;
                    }
                }
                done = write(writer, outbox, written, is_unflushed), if !outbox.is_empty() || *is_unflushed => {
                    if let Err(error) = done {
                        return self.ended(&error);
                    }
                }
                () = link.asked.notified() => {}
                () = sleep_until(deadline) => {
                    // Commands are answered in order, and any byte shows that somebody is there.
                    if !self.open.is_empty() {
                        return Trouble::away(&self.at, "no answer");
                    }
                    self.greet(None);
                }
            }
        }
    }

    /// Everything that has come as a whole.
    fn hear(&mut self, inner: &Inner, link: &Link) -> Result<(), Trouble> {
        loop {
            let next = resp::next(&self.inbox).map_err(|error| Trouble::away(&self.at, error))?;
            let Some((heard, length)) = next else { return Ok(()) };
            match heard {
                Heard::Message { topic, payload } => inner.tell(BusEvent::Message {
                    topic: topic.to_vec(),
                    // A copy: a part of the inbox would keep all of it for as long as the message waits somewhere.
                    payload: Bytes::copy_from_slice(payload),
                }),
                Heard::Ended(topic) => {
                    let deaf = inner.topics.borrow_mut().ended(link.id, topic);
                    if !deaf.is_empty() {
                        inner.deafened(deaf);
                    }
                }
                Heard::Greeting(greeting) => {
                    inner.judge(&self.at, &greeting)?;
                    if let Some(Open { batch: Some(batch), .. }) = self.open.pop_front() {
                        let listening = inner.topics.borrow_mut().confirm(&batch);
                        if !listening.is_empty() {
                            inner.tell(BusEvent::Listening(listening));
                        }
                    }
                }
                Heard::Refusal(text) => {
                    let batch = self.open.front_mut().and_then(|open| open.batch.take());
                    let Some(batch) = batch.filter(|_| text.starts_with("MOVED ")) else {
                        return Err(self.refused(text));
                    };
                    // An end of what has ended already, or a beginning in the wrong place.
                    if batch.is_begin {
                        let deaf = inner.topics.borrow_mut().unseat(link.id, &batch);
                        inner.deafened(deaf);
                    }
                }
                Heard::Other => {}
            }
            self.inbox.advance(length);
        }
    }

    fn ask(&mut self, batch: Batch, is_sharded: bool) {
        let name: &[u8] = match (is_sharded, batch.is_begin) {
            (false, true) => b"SUBSCRIBE",
            (false, false) => b"UNSUBSCRIBE",
            (true, true) => b"SSUBSCRIBE",
            (true, false) => b"SUNSUBSCRIBE",
        };
        let words: Vec<&[u8]> =
            std::iter::once(name).chain(batch.topics.iter().map(|topic| &**topic)).collect();
        resp::command(&mut self.outbox, words.into_iter());
        self.greet(Some(batch));
    }

    fn greet(&mut self, batch: Option<Batch>) {
        resp::command(&mut self.outbox, [&b"HELLO"[..]].into_iter());
        self.greeted = Instant::now();
        self.open.push_back(Open { batch, since: self.greeted });
    }

    fn ended(&self, error: &io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Trouble::closed(&self.at)
            }
            _ => Trouble::away(&self.at, error),
        }
    }

    fn refused(&self, text: &str) -> Trouble {
        let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
        Trouble::answered(&self.at, self.setting, code, detail)
    }
}

async fn secured(
    config: Arc<ClientConfig>,
    at: &Address,
    stream: TcpStream,
) -> io::Result<(Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>)> {
    let name = ServerName::try_from(at.host.to_string()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (reader, writer) = tokio::io::split(stream);
    Ok((Box::new(reader), Box::new(writer)))
}

/// Reads what is there. Nothing is lost if it is given up.
async fn read(reader: &mut (dyn AsyncRead + Unpin), inbox: &mut BytesMut) -> io::Result<()> {
    inbox.reserve(READ);
    match reader.read_buf(inbox).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Writes a part of what waits. Nothing is written twice if it is given up.
async fn write(
    writer: &mut (dyn AsyncWrite + Unpin),
    outbox: &mut Vec<u8>,
    written: &mut usize,
    is_unflushed: &mut bool,
) -> io::Result<()> {
    if !outbox.is_empty() {
        *written += writer.write(&outbox[*written..]).await?;
        *is_unflushed = true;
        if *written < outbox.len() {
            return Ok(());
        }
        outbox.clear();
        *written = 0;
    }
    writer.flush().await?;
    *is_unflushed = false;
    Ok(())
}
