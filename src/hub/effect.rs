//! What a command to the hub leads to.

use crate::app::{AppId, WebhookEvent};
use crate::protocol::{ChannelName, CloseReason, Frame, SocketId};

/// A worker thread, counted from 0.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct WorkerId(pub u16);

/// What must happen because a command was applied. Effects are carried out in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A worker has subscribers to serve.
    Deliver(WorkerId, Delivery),
    /// Something a webhook may tell the app's backend.
    Occurred(Occurrence),
}

/// Something for the subscribers of a channel, or for those who watch a user, on one worker.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The channel's app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
    /// Which of its two audiences.
    pub audience: Audience,
    /// The delivery's place in the channel's order. Whoever joined at or after it is given nothing.
    pub position: Position,
    /// What to give.
    pub body: Body,
    /// The one connection that gets nothing.
    pub except: Option<SocketId>,
}

/// Who listens to a channel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Audience {
    /// Its subscribers.
    Subscribers,
    /// Those who watch the user behind a `#server-to-user-` channel come and go.
    Watchers,
}

/// One audience of one channel.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Topic {
    /// The channel's app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
    /// Which of its two audiences.
    pub audience: Audience,
}

impl Topic {
    /// Those who are subscribed to a channel of the app's: no user's own, and nobody who watches one.
    pub fn is_channel(&self) -> bool {
        self.audience == Audience::Subscribers && !self.channel.kind().is_user()
    }
}

/// A place in the order of one channel's events.
///
/// The epoch is drawn when the channel comes into being, the number counts from there. A channel that was
/// empty in between has another epoch: what is still under way from the old one is for nobody.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Position {
    /// Which life of the channel.
    pub epoch: u64,
    /// How many events it had.
    pub seq: u64,
}

/// What is delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// This frame.
    Frame(Frame),
    /// How many connections are subscribed. Encoded by the worker, not under the hub's lock.
    SubscriptionCount(u64),
    /// The end of the connection.
    Disconnect(CloseReason),
}

impl Body {
    /// Roughly what it costs to keep, in bytes, for the limit of a mailbox.
    pub fn weight(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.wire().len(),
            Self::SubscriptionCount(_) | Self::Disconnect(_) => 0,
        }
    }
}

/// A change that webhooks tell. Each is reported exactly once, in the order of its channel, and only if the app
/// has receivers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Occurrence {
    /// The channel's app.
    pub app: AppId,
    /// The channel. Never a user's own.
    pub channel: ChannelName,
    /// What happened.
    pub fact: Fact,
}

/// What happened to a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// It got its first subscription.
    Occupied,
    /// It lost its last one.
    Vacated,
    /// A user's first connection joined.
    MemberAdded(Box<str>),
    /// A user's last connection left.
    MemberRemoved(Box<str>),
    /// Somebody subscribed to a cache channel that has nothing to replay.
    CacheMissed,
    /// The subscriptions are now this many.
    Counted(u64),
    /// A client sent an event.
    ClientEvent(Box<ClientEventFact>),
}

/// What a webhook tells of a client event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientEventFact {
    /// Its name, as a JSON string literal.
    pub event: Box<str>,
    /// Its data, as a JSON string literal.
    pub data: Box<str>,
    /// Who sent it.
    pub socket_id: SocketId,
    /// The member who sent it, in a presence channel.
    pub user_id: Option<Box<str>>,
}

impl Fact {
    /// How webhooks call it.
    pub fn event(&self) -> WebhookEvent {
        match self {
            Self::Occupied => WebhookEvent::ChannelOccupied,
            Self::Vacated => WebhookEvent::ChannelVacated,
            Self::MemberAdded(_) => WebhookEvent::MemberAdded,
            Self::MemberRemoved(_) => WebhookEvent::MemberRemoved,
            Self::CacheMissed => WebhookEvent::CacheMiss,
            Self::Counted(_) => WebhookEvent::SubscriptionCount,
            Self::ClientEvent(_) => WebhookEvent::ClientEvent,
        }
    }

    /// Roughly what it costs to keep, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::MemberAdded(id) | Self::MemberRemoved(id) => id.len(),
            Self::ClientEvent(fact) => fact.event.len() + fact.data.len() + 64,
            _ => 0,
        }
    }
}
