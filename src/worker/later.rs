//! Answers that come later: only in a cluster, where others have to be asked.
//!
//! A membership that the cluster has not granted yet stands on a ticket. It ends like any other; then the ticket is
//! given back, or, if the grant is on its way, the place is, as soon as it comes.
//!
//! Who signs in is told so when its own channel is granted, and how the users on its watchlist are when all of them are:
//! in one list, with nothing about any of them before it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::app::App;
use crate::connection::{Membership, Refusal};
use crate::hub::{ChannelFull, Joined, Position, Publish, Watched, give_back};
use crate::mirror::{Grant, Ticket};
use crate::protocol::{ChannelName, ClientError, Frame, SocketId};
use crate::worker::roll::topic_of;
use crate::worker::session::presence_full;
use crate::worker::socket::Socket;
use crate::worker::tickets::{Departed, Holder};
use crate::worker::{Replies, Worker};

/// Answers that may wait for one sign-in: nobody needs more than two or three.
const ANSWERS_MAX: usize = 16;

/// Bytes of client events that one connection may have under way. Several times what its rate lets through at once.
const IN_FLIGHT_BYTES_MAX: usize = 512 * 1024;

/// What an event under way costs beside its bytes, roughly.
const IN_FLIGHT_BYTES: usize = 256;

/// What waits of the connections of a worker; nothing of most.
#[derive(Default)]
pub(super) struct Later {
    welcomes: HashMap<SocketId, Welcome>,
    /// Bytes of client events that are under way.
    in_flight: HashMap<SocketId, usize>,
}

/// What a client is told once it is signed in.
#[derive(Default)]
struct Welcome {
    /// When its own channel is granted.
    answers: Vec<Frame>,
    /// When that and everything on it is granted.
    watchlist: Option<Watchlist>,
}

struct Watchlist {
    /// Ids that can name no user.
    nobodies: Vec<String>,
    /// Users on it that are still waited for.
    missing: usize,
}

impl Later {
    fn welcome(&mut self, socket: SocketId) -> &mut Welcome {
        self.welcomes.entry(socket).or_default()
    }

    /// The user's own channel is granted.
    fn take_answers(&mut self, socket: SocketId) -> Vec<Frame> {
        self.welcomes.get_mut(&socket).map(|welcome| std::mem::take(&mut welcome.answers)).unwrap_or_default()
    }

    /// One user more on the watchlist is granted.
    fn found(&mut self, socket: SocketId) {
        if let Some(Welcome { watchlist: Some(watchlist), .. }) = self.welcomes.get_mut(&socket) {
            watchlist.missing = watchlist.missing.saturating_sub(1);
        }
    }

    /// Takes room for an event of a client, if it has some left.
    fn take_off(&mut self, socket: SocketId, bytes: usize) -> bool {
        let in_flight = self.in_flight.entry(socket).or_default();
        let fits = *in_flight == 0 || *in_flight + bytes <= IN_FLIGHT_BYTES_MAX;
        *in_flight += if fits { bytes } else { 0 };
        fits
    }

    /// An event of a client has arrived, or never will.
    fn land(&mut self, socket: SocketId, bytes: usize) {
        let Some(in_flight) = self.in_flight.get_mut(&socket) else { return };
        *in_flight -= bytes;
        if *in_flight == 0 {
            self.in_flight.remove(&socket);
            give_back(&mut self.in_flight);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.welcomes.is_empty() && self.in_flight.is_empty()
    }

    /// The connection has gone, or has been told everything.
    pub(super) fn forget(&mut self, socket: SocketId) {
        self.welcomes.remove(&socket);
        give_back(&mut self.welcomes);
    }
}

impl Worker {
    /// Somebody who waited for a place has it, or does not get it.
    pub(super) fn granted(self: &Rc<Self>, ticket: Ticket, grant: Result<Grant, ChannelFull>) {
        let holder = self.rolls.borrow_mut().take_ticket(ticket);
        match (holder, grant) {
            (Some(Holder::Waits { socket, membership }), grant) => {
                self.answer_to(&socket, membership as usize, grant);
                self.check_backlog(&socket);
            }
            (Some(Holder::Gone(departed)), Ok(_)) => {
                let Departed { app, membership } = *departed;
                // The settings of now, if it still has some.
                let app = self.node.apps().by_id(&app.id).cloned().unwrap_or(app);
                self.give_back(&app, &membership);
            }
            (Some(Holder::Gone(_)), Err(ChannelFull)) => {}
            (None, _) => debug_assert!(false, "a grant for nobody"),
        }
    }

    fn answer_to(self: &Rc<Self>, socket: &Rc<Socket>, at: usize, grant: Result<Grant, ChannelFull>) {
        let app = socket.connection.borrow().as_ref().map(|connection| connection.app().clone());
        let Some(app) = app else { return };
        let mut replies = Replies::new(self, socket);
        match grant {
            Ok(Grant::Joined(joined)) => self.admit(socket, &app, at, &joined, &mut replies),
            Ok(Grant::Watched(watched)) => self.admit_watcher(socket, &app, at, &watched, &mut replies),
            Err(ChannelFull) => self.refuse_place(socket, &app, at, &mut replies),
        }
    }

    /// A subscription begins.
    fn admit(
        &self,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        at: usize,
        joined: &Joined,
        replies: &mut Replies<'_>,
    ) {
        let Joined { channel, position, .. } = joined;
        self.rolls.borrow_mut().seat(&app.id, socket, at, channel, *position);
        if !channel.kind().is_user() {
            return self.tell_joined(app, joined, replies);
        }
        let answers = id(socket).map(|id| self.later.borrow_mut().take_answers(id)).unwrap_or_default();
        answers.iter().for_each(|frame| replies.push(frame.wire().clone()));
        self.tell_watchlist(socket, app, replies);
    }

    /// Watching a user begins, but silently: the list comes first.
    fn admit_watcher(
        &self,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        at: usize,
        watched: &Watched,
        replies: &mut Replies<'_>,
    ) {
        let Watched { channel, position, .. } = watched;
        self.rolls.borrow_mut().seat(&app.id, socket, at, channel, silent(*position));
        if let Some(id) = id(socket) {
            self.later.borrow_mut().found(id);
        }
        self.tell_watchlist(socket, app, replies);
    }

    /// There is no room for another user: the membership ends before it began.
    fn refuse_place(
        self: &Rc<Self>,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        at: usize,
        replies: &mut Replies<'_>,
    ) {
        let left = self.rolls.borrow_mut().leave(&app.id, socket, at);
        if let Some(left) = left {
            self.complain(&presence_full(app, &left.channel), replies);
        }
        // As long as it waited, it counted as authorized.
        self.look_at_next(socket);
    }

    /// Takes a membership back that has not been granted.
    pub(super) fn withdraw(&self, app: &Arc<App>, left: Membership, ticket: Ticket) {
        let (topic, wish) = (topic_of(&app.id, &left), (self.id, ticket));
        let withdrawn = self.node.withdraw(&topic, left.member.as_ref(), wish, Instant::now());
        let mut rolls = self.rolls.borrow_mut();
        if withdrawn {
            rolls.take_ticket(ticket);
        } else {
            rolls.abandon_ticket(ticket, Departed { app: app.clone(), membership: left });
        }
    }

    /// Whether a connection may have more to wait for. To be asked before it signs in.
    ///
    /// # Errors
    /// When it has asked often enough without waiting for an answer.
    pub(super) fn check_patience(&self, socket: &Rc<Socket>) -> Result<(), Refusal> {
        if !self.node.is_clustered() {
            return Ok(());
        }
        let later = self.later.borrow();
        let welcome = id(socket).and_then(|id| later.welcomes.get(&id));
        match welcome.is_some_and(|welcome| welcome.answers.len() >= ANSWERS_MAX) {
            true => Err(ClientError::Overloaded.into()),
            false => Ok(()),
        }
    }

    /// Whether a connection waits for its user's own channel.
    pub(super) fn waits_for_own(&self, socket: &Rc<Socket>, channel: &ChannelName) -> bool {
        let waits = || socket.connection.borrow().as_ref().is_some_and(|each| each.waits_for(channel));
        self.node.is_clustered() && waits()
    }

    /// Answers when the client is signed in: at once if it is.
    ///
    /// # Errors
    /// When too many answers wait.
    pub(super) fn reply_as_user(
        &self,
        socket: &Rc<Socket>,
        frame: Frame,
        replies: &mut Replies<'_>,
    ) -> Result<(), Refusal> {
        self.check_patience(socket)?;
        let waits = id(socket).is_some_and(|id| {
            self.later.borrow().welcomes.get(&id).is_some_and(|welcome| !welcome.answers.is_empty())
        });
        match waits {
            true => self.tell_later(socket, frame),
            false => replies.push(frame.wire().clone()),
        }
        Ok(())
    }

    /// Answers when the user's own channel is granted.
    pub(super) fn tell_later(&self, socket: &Rc<Socket>, frame: Frame) {
        if let Some(id) = id(socket) {
            self.later.borrow_mut().welcome(id).answers.push(frame);
        }
    }

    /// Has a client wait for its watchlist. Until then it is told nothing of anybody on it.
    pub(super) fn tell_watchlist_later(
        &self,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        nobodies: Vec<String>,
        missing: usize,
    ) {
        let Some((id, watched)) = socket
            .connection
            .borrow()
            .as_ref()
            .map(|connection| (connection.socket_id(), connection.watched()))
        else {
            return;
        };
        let mut rolls = self.rolls.borrow_mut();
        watched
            .into_iter()
            .for_each(|at| rolls.listen_from(&app.id, socket, at, silent(Position::default())));
        self.later.borrow_mut().welcome(id).watchlist = Some(Watchlist { nobodies, missing });
    }

    /// Nobody waits for an earlier watchlist any more: there is a new one, and nothing to wait for.
    pub(super) fn forget_watchlist(&self, socket: &Rc<Socket>) {
        if let Some(id) = self.node.is_clustered().then(|| id(socket)).flatten() {
            self.later.borrow_mut().forget(id);
        }
    }

    /// Tells a client how those on its watchlist are, if nothing is waited for any more.
    fn tell_watchlist(&self, socket: &Rc<Socket>, app: &Arc<App>, replies: &mut Replies<'_>) {
        let Some(id) = id(socket) else { return };
        let mut later = self.later.borrow_mut();
        let Some(Welcome { answers, watchlist }) = later.welcomes.get_mut(&id) else { return };
        if !answers.is_empty() || watchlist.as_ref().is_some_and(|watchlist| watchlist.missing > 0) {
            return;
        }
        let watchlist = watchlist.take();
        later.forget(id);
        if let Some(Watchlist { nobodies, .. }) = watchlist {
            self.tell_watched(socket, app, &nobodies, replies);
        }
    }

    /// Tells how the watched users are now, and from then on how they come and go.
    fn tell_watched(
        &self,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        nobodies: &[String],
        replies: &mut Replies<'_>,
    ) {
        let mut users: Vec<(usize, ChannelName)> = Vec::new();
        if let Some(connection) = &*socket.connection.borrow() {
            let channel = |at: usize| (at, connection.memberships()[at].channel.clone());
            users.extend(connection.watched().into_iter().rev().map(channel));
        }
        let mut online = Vec::new();
        let mut offline = Vec::new();
        for (at, channel) in &users {
            let watched = self.node.watched(app, channel);
            let (position, is_online) =
                watched.map(|watched| (watched.position, watched.online)).unwrap_or_default();
            self.rolls.borrow_mut().listen_from(&app.id, socket, *at, position);
            (if is_online { &mut online } else { &mut offline }).extend(channel.user_id());
        }
        offline.extend(nobodies.iter().map(|id| &**id));
        if let Some(frame) = Frame::watchlist_events(online, offline) {
            replies.push(frame.wire().clone());
        }
    }

    /// Hands a client's event to the cluster. If it gets no further, the client is told.
    ///
    /// # Errors
    /// When too much of the client is under way.
    pub(super) fn publish_soon(
        self: &Rc<Self>,
        socket: &Rc<Socket>,
        new: Publish<'_>,
    ) -> Result<(), Refusal> {
        let Some(id) = id(socket) else { return Ok(()) };
        let bytes = IN_FLIGHT_BYTES + new.event.weight();
        if !self.later.borrow_mut().take_off(id, bytes) {
            return Err(ClientError::Overloaded.into());
        }
        let promised = self.node.publish_soon(new);
        // A client that goes is not kept for the answer.
        let (worker, socket) = (self.clone(), Rc::downgrade(socket));
        actix_rt::spawn(async move {
            let is_published = promised.await.is_ok_and(|reply| reply.is_ok());
            worker.later.borrow_mut().land(id, bytes);
            if is_published {
                return;
            }
            if let Some(socket) = socket.upgrade().filter(|socket| socket.is_open()) {
                let refusal = ClientError::ClusterAway.into();
                worker.complain(&refusal, &mut Replies::new(&worker, &socket));
                worker.check_backlog(&socket);
            }
        });
        Ok(())
    }
}

fn id(socket: &Socket) -> Option<SocketId> {
    socket.connection.borrow().as_ref().map(|connection| connection.socket_id())
}

/// A position behind which nothing comes.
fn silent(Position { epoch, .. }: Position) -> Position {
    Position { epoch, seq: u64::MAX }
}
