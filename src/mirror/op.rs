//! What a node of a cluster asks of the shared state, and what it hears.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::hub::{ClientEventFact, Topic};
use crate::protocol::{CachedEvent, CloseReason, Frame, Member, SocketId};

/// Into how many parts the shared state is divided. Fixed for ever: nodes must agree.
pub const PARTITIONS: u8 = 64;

/// The part of the shared state that a channel belongs to, with both its audiences.
pub fn partition_of(app: &str, channel: &str) -> u8 {
    // FNV-1a: the same on every machine and in every version.
    let bytes = app.bytes().chain([0]).chain(channel.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The high bits are mixed best.
    u8::try_from((hash >> 32) % u64::from(PARTITIONS)).unwrap_or_default()
}

/// A place in the order that the cluster gives to the messages of a topic.
///
/// The epoch is drawn when the shared state of the topic comes into being, or had to be made anew because some of it was
/// lost. Within it places are in order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Which life of the topic.
    pub epoch: u64,
    /// How many messages it had, below the era in the upper [`ERA_BITS`]. Whenever another server has the state, which may
    /// lack the latest messages, another era begins, and goes on counting with what that server has.
    pub seq: u64,
}

/// How much of a number is the era.
const ERA_BITS: u32 = 20;

impl Place {
    pub(super) fn next(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }

    /// Whether both are of one life and of one era of it.
    pub(super) fn is_of_one_era(self, other: Self) -> bool {
        self.epoch == other.epoch && (self.seq ^ other.seq) >> (u64::BITS - ERA_BITS) == 0
    }

    /// How many messages are missing behind this place up to a later one of the same life, with it: at least one if
    /// another era has begun between them, unless nobody has missed any.
    pub(super) fn missing_to(self, later: Self, is_all: bool) -> u64 {
        if self.is_of_one_era(later) { later.seq.saturating_sub(self.seq) } else { u64::from(!is_all) }
    }

    /// Whether a mirror that has come here has heard what is at another place, which is of the same life or an earlier one.
    pub(super) fn has_come_to(self, other: Self) -> bool {
        self.epoch != other.epoch || self.seq >= other.seq
    }
}

/// What is kept with a topic, so that any node can end what a dead one has held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traits {
    /// Webhooks tell of it.
    pub tells: bool,
    /// Its subscribers are told how many they are.
    pub counts: bool,
}

impl Traits {
    /// Those of a topic of `app`.
    pub fn of(app: &App, topic: &Topic) -> Self {
        let kind = topic.channel.kind();
        Self {
            tells: !app.webhooks.is_empty() && topic.is_channel(),
            counts: app.subscription_counts && kind.is_counted() && topic.is_channel(),
        }
    }
}

/// One step of the shared state of one topic.
#[derive(Clone, Debug)]
pub enum Op {
    /// This node holds so many connections now.
    Hold(Hold),
    /// A message for everybody.
    Publish(Publication),
    /// Somebody subscribed to a cache channel that has nothing to replay.
    Miss(Topic, Traits),
    /// How many are there, and what is cached? A snapshot without a roster.
    Census(Topic),
    /// How is it? With the place up to which the asker has heard everything, what it has missed since.
    Look(Topic, Option<Place>),
}

impl Op {
    /// What it is about.
    pub fn topic(&self) -> &Topic {
        match self {
            Self::Hold(hold) => &hold.topic,
            Self::Publish(publication) => &publication.topic,
            Self::Miss(topic, _) | Self::Look(topic, _) | Self::Census(topic) => topic,
        }
    }

    /// Roughly what it costs to keep, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Publish(publication) => publication.message.weight(),
            Self::Hold(_) | Self::Miss(..) | Self::Look(..) | Self::Census(_) => 0,
        }
    }
}

/// How many connections the node holds on a topic. The number is whole, not a difference: saying it twice changes
/// nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// The topic.
    pub topic: Topic,
    /// Connections of this node.
    pub count: u64,
    /// In a presence channel: whose first connection here has come, or whose last has gone.
    pub change: Option<Change>,
    /// What is kept with the topic.
    pub traits: Traits,
    /// Whether it was said before, to a state that is lost.
    pub again: Again,
}

/// A user comes to, or leaves, this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Refused, with the whole hold, if it is new and the channel has `max` users without this one.
    Enters {
        /// Who.
        member: Arc<Member>,
        /// Most users of the channel, in the whole cluster.
        max: usize,
    },
    /// The user's last connection here has gone.
    Leaves(Box<str>),
}

/// Whether a hold repeats what a lost state had heard. If it does, nobody is refused, since everybody is there already; the
/// listeners are told of whom the state has not known, as ever.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Again {
    /// It is new: webhooks tell what it changes.
    #[default]
    No,
    /// It was told long ago: webhooks tell nothing.
    Silently,
    /// Webhooks may have told of it or not: they tell again, marked as a repetition.
    Marked,
}

/// A message for everybody who listens to a topic.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The topic.
    pub topic: Topic,
    /// The message. [`Message::Kept`] is kept for later subscribers, even if nobody listens now.
    pub message: Message,
    /// The one connection that gets nothing.
    pub except: Option<SocketId>,
    /// What webhooks tell of it, if a client has sent it.
    pub told: Option<Box<ClientEventFact>>,
}

/// What the listeners of a topic are given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// An event, encoded.
    Event(Frame),
    /// The same, and a cache channel replays it for so long.
    Kept(CachedEvent, Duration),
    /// A user's first connection in the cluster has joined.
    MemberAdded(Arc<Member>),
    /// A user's last connection in the cluster has left.
    MemberRemoved(Box<str>),
    /// The subscriptions in the cluster are now this many.
    Count(u64),
    /// To watchers: the user's first connection in the cluster has signed in.
    Online,
    /// To watchers: the user's last connection has gone.
    Offline,
    /// The end of the connection.
    Disconnect(CloseReason),
}

impl Message {
    /// Roughly what it costs to keep, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Event(frame) | Self::Kept(CachedEvent { frame, .. }, _) => frame.wire().len(),
            Self::MemberAdded(member) => member.user_id.len() + member.user_info.len(),
            Self::MemberRemoved(id) => id.len(),
            Self::Count(_) | Self::Online | Self::Offline | Self::Disconnect(_) => 0,
        }
    }
}

/// A message as it comes to every node that listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Its place in the order of its topic.
    pub place: Place,
    /// What it is.
    pub message: Message,
    /// The one connection that gets nothing.
    pub except: Option<SocketId>,
}

/// What became of an [`Op`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// Of a hold: everything it led to stands at or before this place.
    Held(Place),
    /// Of a hold: the presence channel has no room for another user, and nothing was changed.
    Full,
    /// Of a publication: how many subscriptions and users there are.
    Published {
        /// Subscriptions in the cluster.
        subscriptions: u64,
        /// Distinct users, in a presence channel.
        users: usize,
    },
    /// Of a miss.
    Noted,
    /// Of a look or a census.
    Seen(Box<Snapshot>),
}

/// How a topic is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// The place of the last message. All else is as of there.
    pub place: Place,
    /// Subscriptions in the cluster.
    pub subscriptions: u64,
    /// Distinct users, in a presence channel.
    pub users: usize,
    /// Everybody present, in a presence channel; none if the asker has heard everything.
    pub roster: Option<Vec<Arc<Member>>>,
    /// What a cache channel replays, and for how much longer.
    pub cached: Option<(CachedEvent, Duration)>,
    /// For watchers: whether the user is signed in.
    pub online: bool,
    /// What the asker has missed, in order, as far as it is still known: if it does not begin behind the asker's place,
    /// the messages in between are lost.
    pub missed: Vec<Arrival>,
    /// That is all it has missed, though other eras may have begun since.
    pub is_all: bool,
}
