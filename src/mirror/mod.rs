//! What a node of a cluster knows of the channels it serves: a replica, kept up to date by the messages of the cluster.
//!
//! A [`Mirror`] is a plain value like the hub, which it replaces when there is a cluster. The hub decides; a mirror asks
//! ([`Request`]) and follows what it hears ([`Mirror::arrived`]). What happens to a topic of which nobody is here is none
//! of its business.
//!
//! A topic is *opened* when its first listener comes: the node listens on the bus ([`Mirror::listening`]), says what it
//! holds, and looks how the topic is ([`Mirror::seen`]). From then on every message that arrives is the next one, or the
//! mirror looks again and tells its listeners the difference. Whoever subscribes to an open topic is answered at once;
//! others, and those who bring a new user into a presence channel, are *granted* their place later. So are those who come
//! back while the topic lingers after its last listener: the state may have forgotten that this node holds it.
//!
//! Invariant: what a subscriber is told when it joins is the replica as of its position, and it is given every message
//! that is applied after it. So nothing comes before the answer, nothing twice, and nothing is missing without being
//! counted ([`Gap`]).
//!
//! What the state says is followed, but for two cases in which it will soon say otherwise. After it has lost something,
//! which shows in another epoch, members and users who are online are believed to be there for a while: their nodes say
//! again that they are. And members of this node are believed to be there as long as they are, whatever becomes of its
//! lease.
//!
//! Not here: sockets (`worker`), Redis (`cluster`).

mod channel;
mod local;
mod op;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod unsettled;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::app::{App, AppId};
use crate::hub::{
    Audience, ChannelFull, Delivery, Epochs, Joined, Subscription, Topic, Watched, WorkerId, give_back,
};
use crate::mirror::channel::{Channel, Out};
use crate::mirror::unsettled::Waiting;
use crate::protocol::ChannelName;

pub use crate::mirror::op::{
    Again, Arrival, Change, Hold, Message, Op, PARTITIONS, Place, Publication, Reply, Snapshot, Traits,
    partition_of,
};

/// A share of the topics that this node listens to.
#[derive(Debug)]
pub struct Mirror {
    topics: HashMap<Topic, Channel>,
    /// Topics without listeners, in the order in which they are to be closed. Each is here once at most.
    left: VecDeque<(Instant, Topic)>,
    /// Topics of which something is doubtful, and when that is to be decided.
    doubtful: VecDeque<(Instant, Topic)>,
    /// How many channels of each app are held; users' own are left out.
    occupied: HashMap<AppId, usize>,
    epochs: Epochs,
    linger: Duration,
}

/// What a worker calls a connection that waits for its place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ticket(pub u32);

/// The answer to who wants to listen.
#[derive(Debug)]
pub enum Asked<T> {
    /// It does from now on.
    Now(T),
    /// [`Effect::Granted`] will tell.
    Later,
}

/// A place among the listeners.
#[derive(Clone, Debug)]
pub enum Grant {
    /// Of a subscriber.
    Joined(Joined),
    /// Of a watcher.
    Watched(Watched),
}

/// What must happen because the mirror was asked or told something. Carried out in order.
#[derive(Debug)]
pub enum Effect {
    /// A worker has listeners to serve.
    Deliver(WorkerId, Delivery),
    /// Somebody who waits is answered.
    Granted(WorkerId, Ticket, Result<Grant, ChannelFull>),
    /// The cluster is asked for something.
    Ask(Request),
}

/// What a mirror wants of the cluster.
#[derive(Debug)]
pub enum Request {
    /// Listen on the bus; [`Mirror::listening`] is to follow.
    Open(Topic),
    /// Listen no longer.
    Close(Topic),
    /// A step. The replies of holds and looks are to come back to the mirror, each once, and in order.
    Op(Op),
}

/// What came of looking again after a gap.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gap {
    /// Messages that were missed and are delivered now.
    pub healed: u64,
    /// Messages that nobody has any more. At least one if it is not known how many.
    pub lost: u64,
}

impl Mirror {
    /// An empty one. `seed` should be random; topics are kept open for `linger` after the last listener has gone.
    pub fn new(seed: u64, linger: Duration) -> Self {
        Self {
            topics: HashMap::new(),
            left: VecDeque::new(),
            doubtful: VecDeque::new(),
            occupied: HashMap::new(),
            epochs: Epochs::new(seed),
            linger,
        }
    }

    /// Adds a connection to a channel.
    pub fn subscribe(
        &mut self,
        new: &Subscription<'_>,
        ticket: Ticket,
        effects: &mut Vec<Effect>,
    ) -> Asked<Joined> {
        let topic = &subscribers(new.app, new.channel);
        let channel = self.entry(topic, effects);
        channel.traits = Traits::of(new.app, topic);
        let (max, waiting) = (new.app.presence_members_max, Waiting { worker: new.worker, ticket });
        let joined = channel.subscribe(new.member, max, waiting, new.now, &mut Out { topic, effects });
        if channel.held == 1 {
            self.occupy(topic);
        }
        joined.into()
    }

    /// Takes away a connection that was granted its place.
    pub fn unsubscribe(&mut self, old: &Subscription<'_>, effects: &mut Vec<Effect>) {
        let topic = &subscribers(old.app, old.channel);
        self.change(topic, old.now, effects, |channel, out| {
            channel.traits = Traits::of(old.app, topic);
            channel.unsubscribe(old.member, old.worker, out);
        });
    }

    /// Adds a connection to those who watch a user.
    pub fn watch(
        &mut self,
        app: &App,
        user: &ChannelName,
        worker: WorkerId,
        ticket: Ticket,
        effects: &mut Vec<Effect>,
    ) -> Asked<Watched> {
        let topic = &watchers(app, user);
        let channel = self.entry(topic, effects);
        channel.watch(Waiting { worker, ticket }, &mut Out { topic, effects }).into()
    }

    /// How a user is now, for somebody who watches already.
    pub fn watched(&self, app: &App, user: &ChannelName) -> Option<Watched> {
        self.topics.get(&watchers(app, user)).and_then(Channel::watched_now)
    }

    /// Takes away a connection that watches a user.
    pub fn unwatch(
        &mut self,
        app: &App,
        user: &ChannelName,
        worker: WorkerId,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        self.change(&watchers(app, user), now, effects, |channel, out| channel.unwatch(worker, out));
    }

    /// The bus listens to a topic, for the first time or again: whatever is published from now on arrives.
    pub fn listening(&mut self, topic: &Topic, effects: &mut Vec<Effect>) {
        if let Some(channel) = self.topics.get_mut(topic) {
            channel.listening(&mut Out { topic, effects });
        }
    }

    /// The bus listens no longer, since its connection is lost. Everything is to be looked at again.
    pub fn deaf(&mut self) {
        self.topics.values_mut().for_each(Channel::deaf);
    }

    /// The cluster's state was lost, or this node's part of it: everything is looked at again.
    pub fn look_again(&mut self, effects: &mut Vec<Effect>) {
        for (topic, channel) in &mut self.topics {
            channel.look(&mut Out { topic, effects });
        }
    }

    /// What came of a hold that the mirror has asked for, and of the user that it brought; or of one by which a lost state
    /// is told again what this node holds, without a user.
    pub fn held(
        &mut self,
        topic: &Topic,
        entered: Option<&str>,
        outcome: Result<Place, ChannelFull>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        self.change(topic, now, effects, |channel, out| match (outcome, entered) {
            (Ok(place), _) => channel.held(entered, place, now, out),
            (Err(ChannelFull), Some(user_id)) => channel.refused(user_id, out),
            (Err(ChannelFull), None) => {}
        });
    }

    /// A message has come over the bus.
    pub fn arrived(&mut self, topic: &Topic, arrival: Arrival, now: Instant, effects: &mut Vec<Effect>) {
        self.change(topic, now, effects, |channel, out| {
            channel.follow(arrival, now, out);
            channel.admit(now, out);
        });
    }

    /// How a topic is, as it was asked. If it was asked again since, only that answer counts.
    pub fn seen(
        &mut self,
        topic: &Topic,
        snapshot: Snapshot,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Gap {
        self.change(topic, now, effects, |channel, out| channel.see(snapshot, now, out)).unwrap_or_default()
    }

    /// Closes topics that nobody has listened to for a while, and decides what was doubtful for long enough.
    pub fn settle(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some((_, topic)) = self.left.pop_front_if(|(at, _)| *at <= now) {
            let Some(channel) = self.topics.get_mut(&topic) else { continue };
            if let Some(at) = channel.closes(now) {
                self.left.push_back((at, topic));
            } else if channel.held > 0 {
                channel.tidy();
            } else {
                self.topics.remove(&topic);
                give_back(&mut self.topics);
                effects.push(Effect::Ask(Request::Close(topic)));
            }
        }
        while let Some((_, topic)) = self.doubtful.pop_front_if(|(at, _)| *at <= now) {
            let Some(channel) = self.topics.get_mut(&topic) else { continue };
            if let Some(at) = channel.decide(now, &mut Out { topic: &topic, effects }) {
                self.doubtful.push_back((at, topic));
            } else {
                channel.tidy();
            }
        }
    }

    /// Every topic the bus should listen to.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }

    /// How many wait for their place.
    pub fn waiting(&self) -> usize {
        self.topics.values().map(Channel::waiting).sum()
    }

    /// The channels that have subscribers here, with their subscriptions and, in a presence channel, users of this node.
    pub fn occupied<'a>(
        &'a self,
        app: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a AppId, &'a ChannelName, u64, usize)> {
        let listened = self.topics.iter().filter(move |(topic, channel)| {
            topic.audience == Audience::Subscribers
                && !channel.listeners.is_empty()
                && app.is_none_or(|app| *topic.app == *app)
        });
        listened.map(|(topic, channel)| {
            let users = channel.presence.as_ref().map_or(0, |presence| presence.here.len());
            (&topic.app, &topic.channel, channel.listeners.total(), users)
        })
    }

    /// The topic, which is opened if it is not.
    fn entry(&mut self, topic: &Topic, effects: &mut Vec<Effect>) -> &mut Channel {
        let epochs = &mut self.epochs;
        self.topics.entry(topic.clone()).or_insert_with(|| {
            effects.push(Effect::Ask(Request::Open(topic.clone())));
            Channel::new(topic.channel.clone(), epochs.next())
        })
    }

    /// Changes a topic, if it is open, and sees to what that leaves behind.
    fn change<R>(
        &mut self,
        topic: &Topic,
        now: Instant,
        effects: &mut Vec<Effect>,
        change: impl FnOnce(&mut Channel, &mut Out<'_>) -> R,
    ) -> Option<R> {
        let channel = self.topics.get_mut(topic)?;
        let was_held = channel.held > 0;
        let result = change(channel, &mut Out { topic, effects });
        let is_vacated = was_held && channel.held == 0;
        if is_vacated {
            let until = now + self.linger;
            if channel.unsettled().closes.replace(until).is_none() {
                self.left.push_back((until, topic.clone()));
            }
        }
        if let Some(at) = channel.doubtful() {
            self.doubtful.push_back((at, topic.clone()));
        }
        channel.tidy();
        if is_vacated {
            self.vacate(topic);
        }
        Some(result)
    }
}

impl<T> From<Option<T>> for Asked<T> {
    fn from(now: Option<T>) -> Self {
        now.map_or(Self::Later, Self::Now)
    }
}

fn subscribers(app: &App, channel: &ChannelName) -> Topic {
    Topic { app: app.id.clone(), channel: channel.clone(), audience: Audience::Subscribers }
}

fn watchers(app: &App, user: &ChannelName) -> Topic {
    Topic { app: app.id.clone(), channel: user.clone(), audience: Audience::Watchers }
}
