//! One client's socket: bytes in, bytes out, and the task that waits for both.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_rt::net::TcpStream;
use bytes::Bytes;
use socket2::SockRef;
use tokio::io::Interest;

use crate::connection::Connection;
use crate::metrics::{Share, Tally};
use crate::node::Permit;
use crate::protocol::SocketId;
use crate::protocol::websocket::Decoder;
use crate::tls::{Line, Session};
use crate::worker::Worker;
use crate::worker::outbox::Outbox;
use crate::worker::wheel::{Place, Ticks, Timed};

/// A WebSocket. While it is idle, it is this struct, its task and the kernel's part, and no buffer.
pub(crate) struct Socket {
    io: TcpStream,
    tls: Option<RefCell<Box<Session>>>,
    state: Cell<State>,
    outbox: RefCell<Outbox>,
    pub(super) decoder: Cell<Decoder>,
    /// None for a client that was refused and is only being told so.
    pub(super) connection: RefCell<Option<Connection>>,
    /// When it was last heard, and let in.
    pub(super) heard: Cell<Ticks>,
    pub(super) opened: Ticks,
    /// When it was pinged, if it has not been heard since.
    pub(super) pinged: Cell<Option<Ticks>>,
    /// It has frames of the current round in its outbox.
    pub(super) touched: Cell<bool>,
    place: Place,
    task: Cell<Option<Waker>>,
    /// None for a client that was refused.
    permit: Option<Permit>,
    share: Rc<Share>,
}

/// How far a connection is on its way from open to gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Open,
    /// We have sent a close frame. Until the client answers or the time is up, its bytes are dropped: an early
    /// end would be a reset, which can overtake the close frame.
    Closing {
        until: Ticks,
        /// Its frames cannot be read any more, so no answer can be seen: our side ends at once.
        deaf: bool,
    },
    /// Both sides have closed; what is owed is still being written.
    Closed {
        until: Ticks,
    },
    Gone,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nobody waits for it any more.
        self.share.outbox_moved(self.backlog(), (0, 0));
    }
}

impl Timed for Socket {
    fn place(&self) -> &Place {
        &self.place
    }
}

impl Socket {
    pub(super) fn new(
        Line { io, session }: Line,
        connection: Option<Connection>,
        permit: Option<Permit>,
        state: State,
        now: Ticks,
        share: Rc<Share>,
    ) -> Self {
        // The handshakes may have left something.
        share.outbox_moved((0, 0), session.as_deref().map_or((0, 0), sealed));
        Self {
            io,
            tls: session.map(RefCell::new),
            state: Cell::new(state),
            outbox: RefCell::default(),
            decoder: Cell::default(),
            connection: RefCell::new(connection),
            heard: Cell::new(now),
            opened: now,
            pinged: Cell::new(None),
            touched: Cell::new(false),
            place: Place::default(),
            task: Cell::new(None),
            permit,
            share,
        }
    }

    /// Where the client connects from; none of one that was refused.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.permit.as_ref().map(Permit::address)
    }

    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Where soketi's figures of its app are counted, if they are wanted.
    pub(super) fn tally(&self) -> Option<&Tally> {
        self.permit.as_ref()?.tally()
    }

    /// Whether this is the connection with that id.
    pub(super) fn is(&self, id: SocketId) -> bool {
        self.connection.borrow().as_ref().is_some_and(|connection| connection.socket_id() == id)
    }

    /// Goes on to a later state; the task will see to it.
    pub(super) fn advance(&self, state: State) {
        if self.state.get() != State::Gone {
            self.state.set(state);
        }
        self.wake();
    }

    /// The worker has moved one of the connection's memberships to another seat.
    pub(super) fn seated(&self, membership: usize, seat: u32) {
        if let Some(connection) = &mut *self.connection.borrow_mut() {
            connection.seated(membership, seat);
        }
    }

    /// Reads what has come, as far as there is room. With TLS, `WouldBlock` may mean that it was nothing whole.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.read_bytes(into) };
        let read = self.with_tls(tls, |session| session.read(into, |room| self.read_bytes(room)));
        // TLS may have an answer of its own, if only an alert.
        self.flush_records();
        read
    }

    fn read_bytes(&self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.io.try_read(into)?;
        self.received(count);
        if count < into.len() {
            // That was all: more will be announced. Said to the runtime, which would have us ask the kernel again.
            // Nothing can be announced in between: the runtime and its driver are on this thread.
            let nothing =
                self.io.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            debug_assert!(nothing.is_err());
        }
        Ok(count)
    }

    /// Counts bytes that have come.
    pub(super) fn received(&self, bytes: usize) {
        self.share.received_bytes.inc_by(bytes as u64);
        if let Some(tally) = self.tally() {
            tally.socket_received_bytes.add(bytes);
        }
    }

    fn sent(&self, bytes: usize) {
        self.share.sent_bytes.inc_by(bytes as u64);
        if let Some(tally) = self.tally() {
            tally.socket_transmitted_bytes.add(bytes);
        }
    }

    /// Changes the outbox, and keeps count of what is in it.
    fn with_outbox<R>(&self, change: impl FnOnce(&mut Outbox) -> R) -> R {
        let mut outbox = self.outbox.borrow_mut();
        let before = outbox.size();
        let done = change(&mut outbox);
        self.share.outbox_moved(before, outbox.size());
        done
    }

    /// Lets TLS work, and keeps count of what it has sealed and the client has not taken.
    fn with_tls<R>(&self, tls: &RefCell<Box<Session>>, work: impl FnOnce(&mut Session) -> R) -> R {
        let mut session = tls.borrow_mut();
        let before = sealed(&session);
        let done = work(&mut session);
        self.share.outbox_moved(before, sealed(&session));
        done
    }

    /// Puts a frame behind everything that waits.
    pub(super) fn push(&self, frame: Bytes) {
        self.with_outbox(|outbox| outbox.push(frame));
    }

    /// Sends a frame now, or as soon as the client takes it.
    pub(super) fn send(&self, frame: &Bytes) {
        if !self.outbox.borrow().is_empty() {
            return self.push(frame.clone());
        }
        let written = match self.write(&[IoSlice::new(frame)]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return self.advance(State::Gone),
        };
        if written < frame.len() {
            self.with_outbox(|outbox| outbox.push_rest(frame, written));
            self.wake();
        }
    }

    /// Writes what waits, as far as the client takes it.
    pub(super) fn flush(&self) {
        if self.outbox.borrow().is_empty() {
            return self.flush_records();
        }
        match self.with_outbox(|outbox| outbox.flush(|pieces| self.write(pieces))) {
            Ok(true) => {}
            Ok(false) => self.wake(),
            Err(_) => self.advance(State::Gone),
        }
    }

    /// Gives pieces to the socket, as much as it takes.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.tls, pieces) {
            (None, [alone]) => self.write_bytes(alone), // the cheaper call
            (None, _) => self.io.try_write_vectored(pieces).inspect(|written| self.sent(*written)),
            (Some(tls), _) => {
                let write =
                    |session: &mut Session| session.write(pieces, |records| self.write_bytes(records));
                let written = self.with_tls(tls, write);
                if self.records().1 > 0 {
                    self.wake();
                }
                written
            }
        }
    }

    fn write_bytes(&self, bytes: &[u8]) -> io::Result<usize> {
        self.io.try_write(bytes).inspect(|written| self.sent(*written))
    }

    /// Writes the records that wait, as far as the client takes them.
    fn flush_records(&self) {
        let Some(tls) = &self.tls else { return };
        match self.with_tls(tls, |session| session.flush(|records| self.write_bytes(records))) {
            Ok(true) => {}
            Ok(false) => self.wake(),
            Err(_) => self.advance(State::Gone),
        }
    }

    /// What TLS has sealed and the client has not taken.
    fn records(&self) -> (usize, usize) {
        self.tls.as_ref().map_or((0, 0), |tls| sealed(&tls.borrow()))
    }

    /// Frames and bytes that wait.
    pub(super) fn backlog(&self) -> (usize, usize) {
        let (frames, bytes) = self.outbox.borrow().size();
        let (sealed, records) = self.records();
        (frames + sealed, bytes + records)
    }

    /// Lets go of everything that waits and was not begun.
    pub(super) fn forget_backlog(&self) {
        self.with_outbox(Outbox::clear);
    }

    /// Ends our side, so that the client sees the end behind the close frame.
    fn end_our_side(&self) {
        self.part();
        // If it fails the client is gone already.
        let _ = SockRef::from(&self.io).shutdown(Shutdown::Write);
    }

    /// Says the goodbye of TLS, if the client takes it at once: nobody waits for that.
    fn part(&self) {
        if let Some(tls) = &self.tls {
            self.with_tls(tls, |session| {
                session.close();
                let _ = session.flush(|records| self.write_bytes(records));
            });
        }
    }

    fn wake(&self) {
        let task = self.task.take();
        if let Some(task) = &task {
            task.wake_by_ref();
        }
        self.task.set(task);
    }

    /// Remembers whom to wake.
    fn watch(&self, cx: &Context<'_>) {
        let task = self.task.take().filter(|task| task.will_wake(cx.waker()));
        self.task.set(Some(task.unwrap_or_else(|| cx.waker().clone())));
    }

    /// Writes what waits whenever the client takes it. Whether everything is gone.
    fn poll_flush(&self, cx: &mut Context<'_>) -> bool {
        while (!self.outbox.borrow().is_empty() || self.records().1 > 0) && self.state() != State::Gone {
            match self.io.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => self.flush(),
                Poll::Ready(Err(_)) => self.state.set(State::Gone),
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Waits for something to read. What TLS knows of the end, the kernel may not tell any more.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.as_ref().is_some_and(|tls| tls.borrow().has_ended()) {
            return Poll::Ready(Ok(()));
        }
        self.io.poll_read_ready(cx)
    }
}

/// Records that wait, as frames and bytes: whatever is in them counts as one frame.
fn sealed(session: &Session) -> (usize, usize) {
    let bytes = session.unsent();
    (usize::from(bytes > 0), bytes)
}

/// Waits for one socket and calls its worker.
pub(super) struct Task {
    pub(super) worker: Rc<Worker>,
    pub(super) socket: Rc<Socket>,
}

/// Reads of one socket in a row before others get their turn.
const READS: usize = 16;

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { worker, socket } = &*self;
        socket.watch(cx);
        let flushed = socket.poll_flush(cx);
        match socket.state() {
            State::Closed { .. } if flushed => socket.state.set(State::Gone),
            State::Closing { deaf: true, .. } if flushed => socket.end_our_side(),
            _ => {}
        }
        for _ in 0..READS {
            match socket.state() {
                State::Gone => {
                    socket.part();
                    worker.forget(socket);
                    return Poll::Ready(());
                }
                // It has said its last word; only what it is owed is left, and whoever closed it has woken us.
                State::Closed { .. } => return Poll::Pending,
                State::Open | State::Closing { .. } => {}
            }
            match socket.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => worker.read(socket),
                Poll::Ready(Err(_)) => socket.state.set(State::Gone),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
