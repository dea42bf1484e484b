//! Carrying out what a client asked for and its connection allowed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::app::App;
use crate::connection::{Membership, Refusal, Request, SigningIn, Standing};
use crate::hub::{Audience, ChannelFull, Event, Joined, Position, Publish, Subscription};
use crate::metrics::{Door, Fault, Limit, Message};
use crate::mirror::{Asked, Ticket};
use crate::node::{Budget, Overloaded};
use crate::protocol::{ChannelName, ClientError, ClientMessage, Frame, Member, cut};
use crate::worker::socket::Socket;
use crate::worker::{Replies, Worker};

/// How much of a name its refusal repeats, in bytes: nobody binds handlers to longer ones.
const TOLD_CHANNEL_MAX: usize = 512;

impl Worker {
    /// Answers one text message.
    pub(super) fn hear(self: &Rc<Self>, socket: &Rc<Socket>, text: &str, replies: &mut Replies<'_>) {
        let message = ClientMessage::parse(text);
        let kind = Message::of(&message);
        self.share.heard(kind);
        if let Some(tally) = socket.tally() {
            tally.ws_messages_received.add(1);
        }
        let now = Instant::now();
        let (app, judged) = match &mut *socket.connection.borrow_mut() {
            Some(connection) => {
                let judged =
                    message.map_err(Refusal::from).and_then(|message| connection.judge(message, now));
                (connection.app().clone(), judged)
            }
            None => return,
        };
        let outcome = judged.and_then(|request| self.carry_out(socket, &app, request, now, replies));
        if let Err(refusal) = outcome {
            self.count_failure(kind, &refusal.error);
            self.complain(&refusal, replies);
        }
    }

    /// Whoever was not believed is counted apart.
    fn count_failure(&self, kind: Message, error: &ClientError) {
        let door = match kind {
            Message::SignIn => Door::SignIn,
            _ if matches!(error, ClientError::MissingAuth) => Door::SignIn,
            _ => Door::Subscribe,
        };
        if let Some(fault) = Fault::of(error) {
            self.node.metrics().auth.failed(door, fault);
        }
    }

    pub(super) fn complain(&self, refusal: &Refusal, replies: &mut Replies<'_>) {
        let (error, of_channel) = self.complaint(refusal);
        replies.push(error.wire().clone());
        if let Some(frame) = of_channel {
            replies.push(frame.wire().clone());
        }
    }

    /// What is told of a refusal: to the connection, and to the channel.
    fn complaint(&self, Refusal { error, channel }: &Refusal) -> (Frame, Option<Frame>) {
        self.node.metrics().message_errors.inc();
        if let Some(limit) = Limit::of(error) {
            self.node.metrics().limits.reached(limit);
        }
        tracing::trace!(error = ?error.to_log(), "message refused");
        let told = channel.as_deref().filter(|_| self.node.config().connection.subscription_errors);
        let of_channel =
            told.and_then(|channel| Frame::subscription_error(&cut(channel, TOLD_CHANNEL_MAX), error));
        (Frame::error(error), of_channel)
    }

    fn carry_out(
        self: &Rc<Self>,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        request: Request,
        now: Instant,
        replies: &mut Replies<'_>,
    ) -> Result<(), Refusal> {
        match request {
            Request::Nothing => {}
            Request::Reply(frame) => replies.push(frame.wire().clone()),
            Request::ReplyAsUser(frame) => self.reply_as_user(socket, frame, replies)?,
            Request::Subscribe { channel, member } => {
                self.subscribe(socket, app, channel, member, now, replies)?
            }
            Request::Unsubscribe(at) => self.leave(socket, app, at),
            Request::SignIn(request) => self.sign_in(socket, app, request, now, replies)?,
            Request::Publish { channel, frame, told } => {
                self.node.check_room().map_err(|Overloaded| ClientError::Overloaded)?;
                let of_app = self.node.spend(app, Budget::ClientEvents, 1);
                of_app.map_err(|out| ClientError::AllClientEventsRate { per_s: out.per_s })?;
                let except = socket.connection.borrow().as_ref().map(|connection| connection.socket_id());
                tracing::trace!(app = %app.id, channel = %channel, "client event");
                let event = Event::Passing(frame);
                let new = Publish { app, channel: &channel, event, except, told, now };
                if self.node.is_clustered() {
                    self.publish_soon(socket, new)?;
                } else {
                    self.node.publish(new);
                }
                self.node.metrics().events_of_clients.inc();
            }
        }
        Ok(())
    }

    fn subscribe(
        self: &Rc<Self>,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        channel: ChannelName,
        member: Option<Arc<Member>>,
        now: Instant,
        replies: &mut Replies<'_>,
    ) -> Result<(), Refusal> {
        let refusal = |error| Refusal { error, channel: Some(channel.to_string()) };
        self.node.check_room().map_err(|Overloaded| refusal(ClientError::Overloaded))?;
        if !self.node.has_room_for(app, &channel) {
            return Err(refusal(ClientError::TooManyChannels { max: app.channels_max }));
        }
        // A cluster makes its notices itself.
        let told = member.as_deref().filter(|_| !self.node.is_clustered());
        let notice = told.map(|member| Frame::member_added(&channel, member));
        let (worker, ticket) = (self.id, self.rolls.borrow_mut().draw_ticket());
        let new = Subscription { app, channel: &channel, worker, member: member.as_ref(), notice, now };
        let asked = self.node.subscribe(new, ticket);
        match asked.map_err(|ChannelFull| presence_full(app, &channel))? {
            Asked::Now(joined) => {
                self.tell_joined(app, &joined, replies);
                self.join(socket, app, joined.channel, Audience::Subscribers, member, joined.position);
            }
            Asked::Later => self.ask(socket, channel, Audience::Subscribers, member, ticket),
        }
        Ok(())
    }

    /// Tells a client that it is subscribed, and what a cache channel has for it.
    pub(super) fn tell_joined(&self, app: &App, joined: &Joined, replies: &mut Replies<'_>) {
        let Joined { channel, roster, cached, .. } = joined;
        tracing::trace!(app = %app.id, channel = %channel, "subscribed");
        // Encoded out here, where no hub is held.
        let succeeded = match roster {
            Some(roster) => Frame::presence_succeeded(channel, roster),
            None => Frame::subscription_succeeded(channel),
        };
        replies.push(succeeded.wire().clone());
        match cached {
            Some(Some(frame)) => replies.push(frame.wire().clone()),
            Some(None) => replies.push(Frame::cache_miss(channel).wire().clone()),
            None => {}
        }
    }

    fn sign_in(
        self: &Rc<Self>,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        request: SigningIn,
        now: Instant,
        replies: &mut Replies<'_>,
    ) -> Result<(), Refusal> {
        self.check_patience(socket)?;
        let SigningIn { channel, watch, nobodies, complaint, reply } = request;
        let (listens, watched) = match &*socket.connection.borrow() {
            Some(connection) => (connection.listens_to(&channel), connection.watched()),
            None => return Ok(()),
        };
        if !listens {
            self.join_own(socket, app, &channel, now);
        }
        let waits = self.waits_for_own(socket, &channel);
        let mut answer = |frame: Frame| match waits {
            true => self.tell_later(socket, frame),
            false => replies.push(frame.wire().clone()),
        };
        answer(reply);
        if let Some(complaint) = complaint {
            let (error, of_channel) = self.complaint(&complaint.into());
            answer(error);
            of_channel.into_iter().for_each(answer);
        }
        for at in watched {
            self.leave(socket, app, at);
        }
        let mut online = Vec::new();
        let mut offline = Vec::new();
        let mut missing = 0;
        for channel in &watch {
            let ticket = self.rolls.borrow_mut().draw_ticket();
            match self.node.watch(app, channel, self.id, ticket) {
                Asked::Now(watched) => {
                    (if watched.online { &mut online } else { &mut offline }).extend(channel.user_id());
                    self.join(socket, app, watched.channel, Audience::Watchers, None, watched.position);
                }
                Asked::Later => {
                    self.ask(socket, channel.clone(), Audience::Watchers, None, ticket);
                    missing += 1;
                }
            }
        }
        if waits || missing > 0 {
            self.tell_watchlist_later(socket, app, nobodies, missing);
            return Ok(());
        }
        self.forget_watchlist(socket);
        offline.extend(nobodies.iter().map(|id| &**id));
        if let Some(frame) = Frame::watchlist_events(online, offline) {
            replies.push(frame.wire().clone());
        }
        Ok(())
    }

    /// Joins the channel of the user that a connection signs in as.
    fn join_own(&self, socket: &Rc<Socket>, app: &Arc<App>, channel: &ChannelName, now: Instant) {
        // A cluster makes its notices itself.
        let told = channel.user_id().filter(|_| !self.node.is_clustered());
        let notice = Frame::watchlist_events(told, []);
        let (worker, ticket) = (self.id, self.rolls.borrow_mut().draw_ticket());
        let new = Subscription { app, channel, worker, member: None, notice, now };
        match self.node.subscribe(new, ticket) {
            Ok(Asked::Now(joined)) => {
                self.join(socket, app, joined.channel, Audience::Subscribers, None, joined.position);
            }
            Ok(Asked::Later) => self.ask(socket, channel.clone(), Audience::Subscribers, None, ticket),
            // Only presence channels can be full.
            Err(ChannelFull) => {}
        }
    }

    /// A membership begins that the hub has counted.
    fn join(
        &self,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        channel: ChannelName,
        audience: Audience,
        member: Option<Arc<Member>>,
        position: Position,
    ) {
        let membership = Membership { channel, audience, member, standing: Standing::on(0) };
        self.rolls.borrow_mut().join(&app.id, socket, membership, position);
    }

    /// A membership waits until the cluster has counted it.
    fn ask(
        &self,
        socket: &Rc<Socket>,
        channel: ChannelName,
        audience: Audience,
        member: Option<Arc<Member>>,
        ticket: Ticket,
    ) {
        let membership = Membership { channel, audience, member, standing: Standing::with(ticket) };
        self.rolls.borrow_mut().ask(socket, membership, ticket);
    }

    /// A membership ends, here and in the hub.
    pub(super) fn leave(&self, socket: &Rc<Socket>, app: &Arc<App>, at: usize) {
        let left = self.rolls.borrow_mut().leave(&app.id, socket, at);
        let Some(left) = left else { return };
        match left.standing.ticket() {
            Some(ticket) => self.withdraw(app, left, ticket),
            None => self.give_back(app, &left),
        }
    }

    /// The place of a membership is free again.
    pub(super) fn give_back(&self, app: &Arc<App>, left: &Membership) {
        let (channel, now) = (&left.channel, Instant::now());
        tracing::trace!(app = %app.id, channel = %channel, "left");
        if left.audience == Audience::Watchers {
            return self.node.unwatch(app, channel, self.id, now);
        }
        let notice = match &left.member {
            // A cluster makes its notices itself.
            _ if self.node.is_clustered() => None,
            Some(member) => Some(Frame::member_removed(channel, &member.user_id)),
            None => channel.user_id().and_then(|user_id| Frame::watchlist_events([], [user_id])),
        };
        let (worker, member) = (self.id, left.member.as_ref());
        self.node.unsubscribe(Subscription { app, channel, worker, member, notice, now });
    }

    /// The index of a connection's last membership.
    pub(super) fn last_membership(&self, socket: &Rc<Socket>) -> Option<usize> {
        socket.connection.borrow().as_ref()?.memberships().len().checked_sub(1)
    }
}

/// What whoever finds no room in a presence channel is told.
pub(super) fn presence_full(app: &App, channel: &ChannelName) -> Refusal {
    let channel = channel.to_string();
    let error = ClientError::PresenceFull { channel: channel.clone(), max: app.presence_members_max };
    Refusal { error, channel: Some(channel) }
}
