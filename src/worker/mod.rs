//! What one thread owns: its sockets, who of them listens to what, their timers, and its mailbox.
//!
//! Everything here is of one thread, so nothing is locked. A worker carries out what `connection` allows,
//! asks the hubs through `node`, and hands out what arrives in its mailbox.
//!
//! Invariants: a membership of a connection, its seat in a roll and its count in the hub begin and end
//! together, in [`Worker::join`] and [`Worker::leave`]; in a cluster it may wait for seat and count, see `later`.
//! Nobody waits for a socket: what does not fit goes to
//! its outbox, and an outbox over its limit ends that one connection.
//!
//! Not here: the handshake (`ws`), what a client may do (`connection`).

mod fan_out;
mod inspect;
mod later;
mod outbox;
mod roll;
mod session;
mod socket;
#[cfg(test)]
mod tests;
mod tickets;
mod wheel;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::task::yield_now;
use tokio::time::MissedTickBehavior;

use crate::app::{App, Apps};
use crate::connection::Connection;
use crate::control::vital;
use crate::hub::WorkerId;
use crate::metrics::{Message, Share};
use crate::node::{Letter, Mailbox, Node, Permit};
use crate::protocol::websocket::{self, Incoming, Violation};
use crate::protocol::{ClientError, CloseReason, Frame, SocketId};
use crate::tls::{Line, READ_LEAST};
use crate::worker::later::Later;
use crate::worker::roll::Rolls;
use crate::worker::socket::{Socket, State, Task};
use crate::worker::wheel::{TICK, Wheel, ticks};

/// Bytes read at a time. One buffer serves all sockets of the worker.
const READ_BYTES: usize = 64 * 1024;
const _: () = assert!(READ_BYTES >= READ_LEAST, "records are read into half of it");

/// Connections looked at in a row when apps have changed, before others get the thread.
const FOLLOWED_IN_A_ROW: usize = 1024;

/// One thread's share of the server.
pub struct Worker {
    id: WorkerId,
    node: Arc<Node>,
    rolls: RefCell<Rolls>,
    later: RefCell<Later>,
    wheel: RefCell<Wheel<Socket>>,
    scratch: Cell<Vec<u8>>,
    share: Rc<Share>,
}

impl Worker {
    /// Begins to serve a mailbox on the calling thread.
    pub fn start(id: WorkerId, node: Arc<Node>, mailbox: Mailbox<Letter>) -> Rc<Self> {
        let worker = Rc::new(Self {
            id,
            share: Rc::new(node.metrics().workers.share(id.0)),
            node,
            rolls: RefCell::default(),
            later: RefCell::default(),
            wheel: RefCell::new(Wheel::new()),
            scratch: Cell::default(),
        });
        vital(WORKER_LOST, fan_out::run(worker.clone(), mailbox));
        vital(WORKER_LOST, worker.clone().keep_time());
        worker
    }

    /// The node this worker is part of.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Takes over a socket whose handshake is done. `head` is the answer to the handshake, still to be sent;
    /// `early` is what the client has already sent behind its own.
    pub fn adopt(self: &Rc<Self>, line: Line, head: &[u8], early: &mut [u8], app: Arc<App>, permit: Permit) {
        let socket_id = SocketId::from_random(rand::rng().random());
        tracing::debug!(app = %app.id, socket = %socket_id, address = %permit.address(), "connected");
        let activity_timeout_s = self.node.config().connection.activity_timeout_s;
        let hello = Frame::connection_established(socket_id, activity_timeout_s);
        let connection = Connection::new(app, socket_id, Instant::now());
        self.node.metrics().opened.inc();
        let share = self.share.clone();
        let socket =
            Rc::new(Socket::new(line, Some(connection), Some(permit), State::Open, self.now(), share));
        self.replied(&socket);
        if let Some(tally) = socket.tally() {
            tally.new_connections.add(1);
        }
        socket.send(&Bytes::from([head, hello.wire()].concat()));
        self.look_at_next(&socket);
        if !early.is_empty() {
            socket.received(early.len());
            self.receive(&socket, early);
        }
        actix_rt::spawn(Task { worker: self.clone(), socket });
    }

    /// Completes a handshake only to say why the client cannot stay.
    pub fn refuse(self: &Rc<Self>, line: Line, head: &[u8], reason: CloseReason) {
        self.node.metrics().doors.refused(reason);
        let farewell = Frame::farewell(reason);
        let close = websocket::close(Some(reason.code()), &reason.to_string());
        let state = State::Closing { until: self.closing_until(), deaf: false };
        let socket = Rc::new(Socket::new(line, None, None, state, self.now(), self.share.clone()));
        socket.send(&Bytes::from([head, farewell.wire(), &close].concat()));
        self.look_at_next(&socket);
        actix_rt::spawn(Task { worker: self.clone(), socket });
    }

    /// Reads once and acts on it.
    fn read(self: &Rc<Self>, socket: &Rc<Socket>) {
        let mut scratch = self.scratch.take();
        scratch.resize(READ_BYTES, 0);
        match socket.read(&mut scratch) {
            Ok(0) => socket.advance(State::Gone),
            Ok(count) => self.receive(socket, &mut scratch[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => socket.advance(State::Gone),
        }
        self.scratch.set(scratch);
    }

    /// Acts on what a client has sent.
    fn receive(self: &Rc<Self>, socket: &Rc<Socket>, mut bytes: &mut [u8]) {
        socket.heard.set(self.now());
        socket.pinged.set(None);
        let max = self.node.config().connection.message_bytes_max;
        let mut decoder = socket.decoder.take();
        let mut replies = Replies::new(self, socket);
        loop {
            if matches!(
                socket.state(),
                State::Closing { deaf: true, .. } | State::Closed { .. } | State::Gone
            ) {
                break;
            }
            let heard = match decoder.next(&mut bytes, max) {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(violation) => {
                    drop(replies);
                    return self.violated(socket, violation);
                }
            };
            match heard {
                Incoming::Close(code) => {
                    if socket.is_open() {
                        replies.put(Bytes::from(websocket::close(code, "")));
                    }
                    drop(replies);
                    self.disconnected(socket, "client");
                    socket.advance(State::Closed { until: self.closing_until() });
                    return self.look_at_next(socket);
                }
                // Nothing but the answer to our close frame matters any more.
                _ if !socket.is_open() => {}
                Incoming::Ping(payload) => {
                    self.share.pings.inc();
                    replies.put(Bytes::from(websocket::pong(payload)));
                }
                Incoming::Pong => {}
                Incoming::Text(text) => {
                    self.hear(socket, text, &mut replies);
                    // Between messages too: one read may ask for far more than may wait.
                    if self.is_over_limit(socket) {
                        socket.flush();
                        self.check_backlog(socket);
                    }
                }
                Incoming::Binary(_) => {
                    self.share.heard(Message::Invalid);
                    replies.push(Frame::error(&ClientError::BinaryFrame).wire().clone());
                    drop(replies);
                    return self.end(socket, 1003, "Binary frames are not supported", true);
                }
            }
        }
        socket.decoder.set(decoder);
        drop(replies);
        self.check_backlog(socket);
    }

    fn violated(self: &Rc<Self>, socket: &Rc<Socket>, violation: Violation) {
        match socket.state() {
            State::Open => self.end(socket, violation.code(), &violation.to_string(), true),
            // Our close frame is out, and its answer will not be understood.
            State::Closing { until, .. } => socket.advance(State::Closing { until, deaf: true }),
            State::Closed { .. } | State::Gone => {}
        }
    }

    /// Tells a client why it must go, and lets it.
    fn close(self: &Rc<Self>, socket: &Rc<Socket>, reason: CloseReason) {
        if !socket.is_open() {
            return;
        }
        if reason == CloseReason::SlowReader {
            let (frames, bytes) = socket.backlog();
            tracing::warn!(frames, bytes, "closing a client that reads too slowly");
            self.node.metrics().slow.inc();
            socket.forget_backlog();
        }
        socket.push(Frame::farewell(reason).wire().clone());
        self.end(socket, reason.code(), &reason.to_string(), false);
    }

    /// Sends a close frame and waits for the client's.
    fn end(self: &Rc<Self>, socket: &Rc<Socket>, code: u16, reason: &str, deaf: bool) {
        self.disconnected(socket, &code.to_string());
        socket.push(Bytes::from(websocket::close(Some(code), reason)));
        socket.advance(State::Closing { until: self.closing_until(), deaf });
        socket.flush();
        self.look_at_next(socket);
    }

    /// Leaves everything the connection was part of. Whatever way it ends, this happens once.
    fn disconnected(&self, socket: &Rc<Socket>, code: &str) {
        let Some(app) = socket.connection.borrow().as_ref().map(|connection| connection.app().clone()) else {
            return;
        };
        while let Some(last) = self.last_membership(socket) {
            self.leave(socket, &app, last);
        }
        if let Some(connection) = socket.connection.take() {
            if self.node.is_clustered() {
                self.later.borrow_mut().forget(connection.socket_id());
            }
            self.node.metrics().closed.with_label_values(&[code]).inc();
            if let Some(tally) = socket.tally() {
                tally.new_disconnections.add(1);
            }
            tracing::debug!(app = %app.id, socket = %connection.socket_id(), code, "disconnected");
        }
    }

    /// The task of a socket ends: nothing of it may stay behind.
    fn forget(&self, socket: &Rc<Socket>) {
        self.disconnected(socket, "none");
        self.wheel.borrow_mut().remove(socket);
    }

    /// Ends the connection if more waits for it than may.
    fn check_backlog(self: &Rc<Self>, socket: &Rc<Socket>) {
        if self.is_over_limit(socket) {
            self.close(socket, CloseReason::SlowReader);
        }
    }

    fn is_over_limit(&self, socket: &Socket) -> bool {
        let (frames, bytes) = socket.backlog();
        let limits = &self.node.config().connection;
        socket.is_open() && (bytes > limits.outbox_bytes_max || frames > limits.outbox_frames_max)
    }

    /// Lets connections live by the settings that their app has now, or go if it has none for them.
    async fn follow_apps(self: &Rc<Self>) {
        let apps = self.node.apps().clone();
        let all = self.wheel.borrow().all();
        for some in all.chunks(FOLLOWED_IN_A_ROW) {
            for socket in some {
                self.follow_app(socket, &apps);
            }
            yield_now().await;
        }
    }

    fn follow_app(self: &Rc<Self>, socket: &Rc<Socket>, apps: &Apps) {
        let before = socket.connection.borrow().as_ref().map(|connection| connection.app().clone());
        let Some(before) = before else { return };
        match apps.by_id(&before.id) {
            None => self.close(socket, CloseReason::UnknownApp),
            Some(now) if !now.enabled => self.close(socket, CloseReason::AppDisabled),
            Some(now) if Arc::ptr_eq(now, &before) => {}
            Some(now) => {
                if let Some(connection) = &mut *socket.connection.borrow_mut() {
                    connection.follow(now.clone());
                }
                self.look_at_next(socket);
            }
        }
    }

    /// Closes every connection, evenly over a time: the server stops.
    fn drain(self: &Rc<Self>, over: Duration) {
        let mut all = self.wheel.borrow().all();
        if over.is_zero() {
            return all.iter().for_each(|socket| self.close(socket, CloseReason::ShuttingDown));
        }
        // In no order: those who came together need not come back together.
        all.shuffle(&mut rand::rng());
        let (worker, started) = (self.clone(), tokio::time::Instant::now());
        vital(WORKER_LOST, async move {
            let slot = over / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
            for (at, socket) in (0..).zip(all) {
                // Anywhere in its own slot.
                let due = started + slot * at + slot.mul_f32(rand::rng().random());
                tokio::time::sleep_until(due).await;
                worker.close(&socket, CloseReason::ShuttingDown);
            }
        });
    }

    async fn keep_time(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        // After a pause of the whole process, clients still get the time they have been promised.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let planned = interval.tick().await;
            self.share.tick(planned.elapsed());
            self.node.beat(self.id);
            let due = self.wheel.borrow_mut().turn();
            for socket in due {
                self.look_at(&socket);
            }
        }
    }

    /// A message answers a client.
    fn replied(&self, socket: &Socket) {
        self.share.replies.inc();
        if let Some(tally) = socket.tally() {
            tally.ws_messages_sent.add(1);
        }
    }

    fn now(&self) -> wheel::Ticks {
        self.wheel.borrow().now()
    }

    fn closing_until(&self) -> wheel::Ticks {
        let timeout = Duration::from_secs(self.node.config().connection.close_timeout_s);
        self.now().saturating_add(ticks(timeout))
    }

    /// A socket's time has come: is it still alive, and when shall we look again?
    fn look_at(self: &Rc<Self>, socket: &Rc<Socket>) {
        match socket.state() {
            State::Open => match self.deadline(socket) {
                (at, _) if at > self.now() => {}
                (_, Overdue::Authorization) => self.close(socket, CloseReason::NotAuthorizedInTime),
                (_, Overdue::Pong) => self.close(socket, CloseReason::PongMissing),
                (_, Overdue::Ping) => {
                    socket.pinged.set(Some(self.now()));
                    socket.send(&Bytes::from_static(websocket::PING));
                    self.check_backlog(socket);
                }
            },
            State::Closing { until, .. } | State::Closed { until } if until <= self.now() => {
                socket.advance(State::Gone);
            }
            State::Closing { .. } | State::Closed { .. } | State::Gone => {}
        }
        if socket.state() != State::Gone {
            self.look_at_next(socket);
        }
    }

    fn look_at_next(&self, socket: &Rc<Socket>) {
        let at = match socket.state() {
            // Not later than the next ping would be due: the answer to this one moves nothing.
            State::Open => {
                let ping_after = ticks(Duration::from_secs(self.node.config().connection.ping_after_s));
                self.deadline(socket).0.min(self.now().saturating_add(ping_after))
            }
            State::Closing { until, .. } | State::Closed { until } => until,
            State::Gone => return,
        };
        self.wheel.borrow_mut().set(socket, at);
    }

    /// When an open connection needs attention, and why.
    fn deadline(&self, socket: &Socket) -> (wheel::Ticks, Overdue) {
        let config = &self.node.config().connection;
        let liveness = match socket.pinged.get() {
            Some(pinged) => {
                (pinged.saturating_add(ticks(Duration::from_secs(config.pong_timeout_s))), Overdue::Pong)
            }
            None => (
                socket.heard.get().saturating_add(ticks(Duration::from_secs(config.ping_after_s))),
                Overdue::Ping,
            ),
        };
        let connection = socket.connection.borrow();
        let unauthorized = connection.as_ref().filter(|connection| !connection.is_authorized());
        let timeout = unauthorized.and_then(|connection| connection.app().authorized_timeout());
        match timeout.map(|timeout| socket.opened.saturating_add(ticks(timeout))) {
            Some(at) if at < liveness.0 => (at, Overdue::Authorization),
            _ => liveness,
        }
    }
}

/// What is lost with a task of a worker: it would go on accepting clients and serve none of them.
const WORKER_LOST: &str = "a worker has failed and its clients must reconnect";

/// What an open connection is late with.
enum Overdue {
    Authorization,
    Ping,
    Pong,
}

/// Answers to what one read brought, written together when dropped.
struct Replies<'a> {
    worker: &'a Worker,
    socket: &'a Rc<Socket>,
    first: Option<Bytes>,
}

impl<'a> Replies<'a> {
    fn new(worker: &'a Worker, socket: &'a Rc<Socket>) -> Self {
        Self { worker, socket, first: None }
    }

    /// Adds an answer to a message.
    fn push(&mut self, frame: Bytes) {
        self.worker.replied(self.socket);
        self.put(frame);
    }

    /// A single answer is written as it is; from the second on they wait for each other.
    fn put(&mut self, frame: Bytes) {
        if self.first.is_none() && self.socket.backlog() == (0, 0) {
            self.first = Some(frame);
            return;
        }
        if let Some(first) = self.first.take() {
            self.socket.push(first);
        }
        self.socket.push(frame);
    }
}

impl Drop for Replies<'_> {
    fn drop(&mut self) {
        match self.first.take() {
            Some(frame) => self.socket.send(&frame),
            None => self.socket.flush(),
        }
    }
}
