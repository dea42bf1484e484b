//! Carrying out what a client asked for and its connection allowed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::app::App;
use crate::connection::{Membership, Refusal, Request, SigningIn};
use crate::hub::{Audience, ChannelFull, Event, Position, Publish, Subscription};
use crate::metrics::{Door, Fault, Limit, Message};
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

    fn complain(&self, Refusal { error, channel }: &Refusal, replies: &mut Replies<'_>) {
        self.node.metrics().message_errors.inc();
        if let Some(limit) = Limit::of(error) {
            self.node.metrics().limits.reached(limit);
        }
        tracing::trace!(error = ?error.to_log(), "message refused");
        replies.push(Frame::error(error).wire().clone());
        let told = channel.as_deref().map(|channel| cut(channel, TOLD_CHANNEL_MAX));
        if self.node.config().connection.subscription_errors
            && let Some(frame) = told.and_then(|channel| Frame::subscription_error(&channel, error))
        {
            replies.push(frame.wire().clone());
        }
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
            Request::Subscribe { channel, member } => {
                self.subscribe(socket, app, channel, member, now, replies)?
            }
            Request::Unsubscribe(at) => self.leave(socket, app, at),
            Request::SignIn(request) => self.sign_in(socket, app, request, now, replies),
            Request::Publish { channel, frame, told } => {
                self.node.check_room().map_err(|Overloaded| ClientError::Overloaded)?;
                let of_app = self.node.spend(app, Budget::ClientEvents, 1);
                of_app.map_err(|out| ClientError::AllClientEventsRate { per_s: out.per_s })?;
                let except = socket.connection.borrow().as_ref().map(|connection| connection.socket_id());
                tracing::trace!(app = %app.id, channel = %channel, "client event");
                let event = Event::Passing(frame);
                self.node.metrics().events_of_clients.inc();
                self.node.publish(Publish { app, channel: &channel, event, except, told, now });
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
        let notice = member.as_deref().map(|member| Frame::member_added(&channel, member));
        let worker = self.id;
        let new = Subscription { app, channel: &channel, worker, member: member.as_ref(), notice, now };
        let joined = self.node.subscribe(new).map_err(|ChannelFull| {
            let max = app.presence_members_max;
            refusal(ClientError::PresenceFull { channel: channel.to_string(), max })
        })?;
        tracing::trace!(app = %app.id, channel = %channel, "subscribed");
        // Encoded out here, where no hub is held.
        let succeeded = match &joined.roster {
            Some(roster) => Frame::presence_succeeded(&channel, roster),
            None => Frame::subscription_succeeded(&channel),
        };
        replies.push(succeeded.wire().clone());
        if let Some(cached) = joined.cached {
            let frame = cached.unwrap_or_else(|| Frame::cache_miss(&channel));
            replies.push(frame.wire().clone());
        }
        self.join(socket, app, joined.channel, Audience::Subscribers, member, joined.position);
        Ok(())
    }

    fn sign_in(
        self: &Rc<Self>,
        socket: &Rc<Socket>,
        app: &Arc<App>,
        request: SigningIn,
        now: Instant,
        replies: &mut Replies<'_>,
    ) {
        replies.push(request.reply.wire().clone());
        if let Some(complaint) = request.complaint {
            self.complain(&complaint.into(), replies);
        }
        let (listens, watched) = match &*socket.connection.borrow() {
            Some(connection) => (connection.listens_to(&request.channel), connection.watched()),
            None => return,
        };
        if !listens {
            let notice = Frame::watchlist_events(request.channel.user_id(), []);
            let channel = &request.channel;
            let new = Subscription { app, channel, worker: self.id, member: None, notice, now };
            // Only presence channels can be full.
            if let Ok(joined) = self.node.subscribe(new) {
                self.join(socket, app, joined.channel, Audience::Subscribers, None, joined.position);
            }
        }
        for at in watched {
            self.leave(socket, app, at);
        }
        let mut online = Vec::new();
        let mut offline = Vec::new();
        for channel in &request.watch {
            let watched = self.node.watch(app, channel, self.id);
            (if watched.online { &mut online } else { &mut offline }).extend(channel.user_id());
            self.join(socket, app, watched.channel, Audience::Watchers, None, watched.position);
        }
        offline.extend(request.nobodies.iter().map(|id| &**id));
        if let Some(frame) = Frame::watchlist_events(online, offline) {
            replies.push(frame.wire().clone());
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
        let membership = Membership { channel, audience, member, seat: 0 };
        self.rolls.borrow_mut().join(&app.id, socket, membership, position);
    }

    /// A membership ends, here and in the hub.
    pub(super) fn leave(&self, socket: &Rc<Socket>, app: &Arc<App>, at: usize) {
        let left = self.rolls.borrow_mut().leave(&app.id, socket, at);
        let Some(left) = left else { return };
        let (channel, now) = (&left.channel, Instant::now());
        tracing::trace!(app = %app.id, channel = %channel, "left");
        if left.audience == Audience::Watchers {
            return self.node.unwatch(app, channel, self.id, now);
        }
        let notice = match &left.member {
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
