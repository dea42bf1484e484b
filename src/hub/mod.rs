//! Every channel of this node: who is subscribed, who is present, what was said last.
//!
//! A [`Hub`] is a plain value: one command in, its answer out, and any number of [`Effect`]s. It has no
//! sockets, clocks, locks or tasks, so a test drives it with values alone. `node` runs many of them.
//!
//! It knows connections only by the worker that serves them, and how many there are: who exactly is
//! subscribed is the worker's to know, which says so when a connection joins and leaves.
//!
//! Invariant: a channel lives in exactly one hub, and a hub applies one command at a time: that is the
//! order of its events. Each gets the next [`Position`], and a subscriber remembers the one it joined at.
//!
//! A user is the channel `#server-to-user-{id}`: signing in joins it, being online is having subscribers,
//! and those who watch the user are its second [`Audience`].
//!
//! Not here: signatures and limits (`connection`, `api`); bytes on the wire (`protocol`).

mod channel;
mod effect;
mod spread;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::app::{App, AppId};
use crate::hub::channel::Channel;
use crate::protocol::{CachedEvent, ChannelName, Frame, Member, Roster, SocketId};

pub(crate) use crate::hub::spread::Spread;

pub use crate::hub::effect::{
    Audience, Body, ClientEventFact, Delivery, Effect, Fact, Occurrence, Position, Topic, WorkerId,
};

/// A share of the node's channels.
#[derive(Debug)]
pub struct Hub {
    apps: HashMap<AppId, Channels>,
    /// Channels that need attention at a time of their own, soonest first.
    due: BinaryHeap<Reverse<Due>>,
    epochs: Epochs,
    debounce: Duration,
}

/// The channels of one app.
#[derive(Debug, Default)]
struct Channels {
    by_name: HashMap<ChannelName, Channel>,
    /// How many of them have subscribers; users' own channels are left out.
    occupied: usize,
}

/// Joining or leaving a channel.
#[derive(Clone, Debug)]
pub struct Subscription<'a> {
    /// The channel's app.
    pub app: &'a App,
    /// The channel.
    pub channel: &'a ChannelName,
    /// Who serves the connection.
    pub worker: WorkerId,
    /// Who the connection is in a presence channel.
    pub member: Option<&'a Arc<Member>>,
    /// What the others are told if this is the member's or user's first connection, or was the last.
    pub notice: Option<Frame>,
    /// The time.
    pub now: Instant,
}

/// An event for a channel.
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    /// The channel's app.
    pub app: &'a App,
    /// The channel.
    pub channel: &'a ChannelName,
    /// The event, encoded.
    pub event: Event,
    /// The one connection that gets nothing.
    pub except: Option<SocketId>,
    /// What webhooks tell of it, if a client has sent it.
    pub told: Option<Box<ClientEventFact>>,
    /// The time.
    pub now: Instant,
}

/// An encoded event, and whether a cache channel remembers it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Delivered and forgotten: client events, and whatever is published to a channel without cache.
    Passing(Frame),
    /// Kept for later subscribers.
    Kept(CachedEvent),
}

impl Event {
    /// Roughly what it costs to keep, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Passing(frame) | Self::Kept(CachedEvent { frame, .. }) => frame.wire().len(),
        }
    }
}

/// The answer to a subscription.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The hub's own copy of the name, to be shared rather than kept twice.
    pub channel: ChannelName,
    /// The subscriber is given what comes after this.
    pub position: Position,
    /// Everybody present, the subscriber included.
    pub roster: Option<Arc<Roster>>,
    /// What a cache channel has to replay; the inner none is a miss.
    pub cached: Option<Option<Frame>>,
}

/// The answer to watching a user.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The hub's own copy of the user's channel name.
    pub channel: ChannelName,
    /// The watcher is given what comes after this.
    pub position: Position,
    /// Whether the user is signed in now.
    pub online: bool,
}

/// A presence channel that has no room for another user.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the presence channel is full")]
pub struct ChannelFull;

/// Who has left a channel, or had to when the node ended, and was not reported.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leavers {
    /// The channel's app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
    /// Nobody is subscribed any more.
    pub vacated: bool,
    /// Ids of the users who have gone.
    pub members: Vec<Box<str>>,
}

/// What is asked about a channel.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Connections that are subscribed.
    pub subscriptions: u64,
    /// Distinct users, in a presence channel.
    pub users: usize,
    /// The event a cache channel would replay, and for how much longer.
    pub cached: Option<(CachedEvent, Duration)>,
}

impl Hub {
    /// An empty hub. `seed` should be random: it makes the epochs of its channels. Leaves are reported `debounce`
    /// after they happened, unless they have been undone by then.
    pub fn new(seed: u64, debounce: Duration) -> Self {
        Self { apps: HashMap::new(), due: BinaryHeap::new(), epochs: Epochs::new(seed), debounce }
    }

    /// Adds a connection to a channel.
    ///
    /// # Errors
    /// When it would be one user too many; nothing has changed then.
    pub fn subscribe(
        &mut self,
        new: Subscription<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Joined, ChannelFull> {
        let Subscription { app, now, .. } = new;
        let (channel, occupied) = self.entry_of(app, new.channel);
        if let Some(member) = new.member {
            let roster = channel.roster.get_or_insert_default();
            if roster.len() >= app.presence_members_max && !roster.contains(&member.user_id) {
                self.look_after(app, new.channel, now);
                return Err(ChannelFull);
            }
        }
        let mut out = Out { app, effects };
        let first = channel.subscribers.is_empty();
        if first && channel.occupied() {
            out.occurred(channel, Fact::Occupied);
        }
        let joins = new.member.is_some_and(|member| {
            let joins = channel.roster.as_mut().is_some_and(|roster| Arc::make_mut(roster).join(member));
            if joins && channel.member_added(&member.user_id) {
                out.occurred(channel, Fact::MemberAdded(member.user_id.clone()));
            }
            joins
        });
        // Told before it is added: the others' workers are woken, its own need not be.
        out.notify(channel, new.notice, first, joins);
        channel.subscribers.add(new.worker);
        if first && !channel.name.kind().is_user() {
            *occupied += 1;
        }
        let cached = channel.name.kind().is_cached().then(|| {
            let cached = channel.cached(now).map(|(event, _)| event.frame.clone());
            if cached.is_none() && channel.miss(now) {
                out.occurred(channel, Fact::CacheMissed);
            }
            cached
        });
        let joined = Joined {
            channel: channel.name.clone(),
            position: channel.position,
            roster: channel.roster.clone(),
            cached,
        };
        out.count(channel, now);
        if channel.needs_care() {
            self.look_after(app, &joined.channel, now);
        }
        Ok(joined)
    }

    /// Takes a connection out of a channel it had joined with the same worker and member.
    pub fn unsubscribe(&mut self, old: Subscription<'_>, effects: &mut Vec<Effect>) {
        let told_at = old.now + self.debounce;
        let Some((channel, occupied)) = self.existing_of(&old.app.id, old.channel) else { return };
        let mut out = Out { app: old.app, effects };
        let last = channel.subscribers.remove(old.worker);
        if last && !channel.name.kind().is_user() {
            *occupied -= 1;
        }
        let leaves = old.member.is_some_and(|member| {
            channel.roster.as_mut().is_some_and(|roster| Arc::make_mut(roster).leave(&member.user_id))
        });
        out.notify(channel, old.notice, last, leaves);
        out.count(channel, old.now);
        if (last || leaves) && out.tells(channel) {
            let user = old.member.filter(|_| leaves).map(|member| member.user_id.clone());
            channel.leaving.get_or_insert_default().add(user, last, told_at);
        }
        if channel.needs_care() {
            self.look_after(old.app, old.channel, old.now);
        }
    }

    /// Adds a connection to those who watch a user.
    pub fn watch(&mut self, app: &App, user: &ChannelName, worker: WorkerId) -> Watched {
        let channel = self.entry(app, user);
        channel.watchers.add(worker);
        let online = !channel.subscribers.is_empty();
        Watched { channel: channel.name.clone(), position: channel.position, online }
    }

    /// Takes a connection away from those who watch a user.
    pub fn unwatch(&mut self, app: &App, user: &ChannelName, worker: WorkerId, now: Instant) {
        if let Some(channel) = self.existing(&app.id, user) {
            channel.watchers.remove(worker);
            self.look_after(app, user, now);
        }
    }

    /// Gives an event to all subscribers but one. Returns how many subscribers and users there are.
    pub fn publish(&mut self, new: Publish<'_>, effects: &mut Vec<Effect>) -> Census {
        let kept = matches!(new.event, Event::Kept(_)) && new.channel.kind().is_cached();
        let found = if kept {
            Some(self.entry(new.app, new.channel))
        } else {
            self.existing(&new.app.id, new.channel)
        };
        let Some(channel) = found else { return Census::default() };
        let frame = match new.event {
            Event::Kept(event) => {
                let frame = event.frame.clone();
                if kept {
                    channel.keep(event, new.now + new.app.cache_ttl());
                }
                frame
            }
            Event::Passing(frame) => frame,
        };
        let mut out = Out { app: new.app, effects };
        out.deliver(channel, Audience::Subscribers, Body::Frame(frame), new.except);
        if let Some(fact) = new.told {
            out.occurred(channel, Fact::ClientEvent(fact));
        }
        let census = channel.census(new.now);
        if kept {
            self.look_after(new.app, new.channel, new.now);
        }
        census
    }

    /// Ends every connection signed in as the user of this channel.
    pub fn terminate(&mut self, app: &App, user: &ChannelName, body: Body, effects: &mut Vec<Effect>) {
        if let Some(channel) = self.existing(&app.id, user) {
            Out { app, effects }.deliver(channel, Audience::Subscribers, body, None);
        }
    }

    /// Everybody who will have gone when the node ends, to be restored by its next life: those who are not reported yet,
    /// and those who are still there. `tells` says whether webhooks tell of an app.
    pub fn leavers(&self, tells: impl Fn(&str) -> bool) -> impl Iterator<Item = Leavers> {
        let apps = self.apps.iter().filter(move |(app, _)| tells(app));
        apps.flat_map(|(app, channels)| {
            channels.by_name.iter().filter_map(|(name, channel)| {
                let leavers = Leavers {
                    app: app.clone(),
                    channel: name.clone(),
                    vacated: channel.is_vacated_by_the_end(),
                    members: channel.gone_by_the_end(),
                };
                (leavers.vacated || !leavers.members.is_empty()).then_some(leavers)
            })
        })
    }

    /// Takes over who was there in the node's last life: they are reported as gone unless they are back in time.
    pub fn restore(&mut self, app: &App, leavers: &Leavers, now: Instant) {
        let until = now + self.debounce;
        let channel = self.entry(app, &leavers.channel);
        let vacated = leavers.vacated && channel.subscribers.is_empty();
        let absent = |id: &str| channel.roster.as_ref().is_none_or(|roster| !roster.contains(id));
        let members: Vec<_> = leavers.members.iter().filter(|id| absent(id)).cloned().collect();
        if vacated || !members.is_empty() {
            channel.leaving.get_or_insert_default().add(members, vacated, until);
        }
        self.look_after(app, &leavers.channel, now);
    }

    /// Does what is due by now: cached events end, held-back counts and leaves are told. `app` finds an app by its id.
    pub fn settle<'a>(
        &mut self,
        now: Instant,
        app: impl Fn(&str) -> Option<&'a App>,
        effects: &mut Vec<Effect>,
    ) {
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            let Some(app) = app(&due.app) else {
                self.abandon(&due.app, &due.channel);
                continue;
            };
            let Some(channel) = self.existing(&due.app, &due.channel) else { continue };
            if channel.due != Some(due.at) {
                continue; // an earlier time took its place
            }
            channel.due = None;
            let mut out = Out { app, effects };
            if let Some(count) = channel.settle(now) {
                out.tell_count(channel, count);
            }
            for fact in channel.left(now) {
                out.occurred(channel, fact);
            }
            self.look_after(app, &due.channel, now);
        }
    }

    /// What there is to know about a channel.
    pub fn census(&self, app: &str, channel: &ChannelName, now: Instant) -> Census {
        self.channel(app, channel).map(|channel| channel.census(now)).unwrap_or_default()
    }

    /// Everybody present in a channel.
    pub fn roster(&self, app: &str, channel: &ChannelName) -> Option<Arc<Roster>> {
        self.channel(app, channel)?.roster.clone()
    }

    /// Every channel with subscribers whose name begins with `prefix`; users' own channels are left out.
    pub fn occupied<'a>(
        &'a self,
        app: &str,
        prefix: &'a str,
        now: Instant,
    ) -> impl Iterator<Item = (&'a ChannelName, Census)> {
        let channels = self.apps.get(app).into_iter().flat_map(|channels| &channels.by_name);
        channels
            .filter(move |(name, channel)| {
                !channel.subscribers.is_empty() && !name.kind().is_user() && name.as_str().starts_with(prefix)
            })
            .map(move |(name, channel)| (name, channel.census(now)))
    }

    /// How many channels of an app have subscribers; users' own channels are left out.
    pub fn occupied_count(&self, app: &str) -> usize {
        self.apps.get(app).map_or(0, |channels| channels.occupied)
    }

    /// As [`Hub::occupied`], the names alone.
    pub fn occupied_names<'a>(&'a self, app: &str, prefix: &'a str) -> impl Iterator<Item = &'a ChannelName> {
        let channels = self.apps.get(app).into_iter().flat_map(|channels| &channels.by_name);
        let named = channels.filter(move |(name, channel)| {
            name.as_str().starts_with(prefix) && !channel.subscribers.is_empty() && !name.kind().is_user()
        });
        named.map(|(name, _)| name)
    }

    /// Every app that has channels here, for counting: names of channels, their subscriptions and distinct members.
    pub fn all(&self) -> impl Iterator<Item = (&AppId, impl Iterator<Item = (&ChannelName, u64, usize)>)> {
        self.apps.iter().map(|(app, channels)| {
            let members = |channel: &Channel| channel.roster.as_ref().map_or(0, |roster| roster.len());
            let channels = channels.by_name.iter();
            (app, channels.map(move |(name, each)| (name, each.subscribers.total(), members(each))))
        })
    }

    fn channel(&self, app: &str, channel: &ChannelName) -> Option<&Channel> {
        self.apps.get(app)?.by_name.get(channel)
    }

    fn existing(&mut self, app: &str, channel: &ChannelName) -> Option<&mut Channel> {
        self.existing_of(app, channel).map(|(channel, _)| channel)
    }

    fn entry(&mut self, app: &App, name: &ChannelName) -> &mut Channel {
        self.entry_of(app, name).0
    }

    /// A channel, and how many of its app are occupied.
    fn existing_of(&mut self, app: &str, channel: &ChannelName) -> Option<(&mut Channel, &mut usize)> {
        let Channels { by_name, occupied } = self.apps.get_mut(app)?;
        Some((by_name.get_mut(channel)?, occupied))
    }

    fn entry_of(&mut self, app: &App, name: &ChannelName) -> (&mut Channel, &mut usize) {
        let epochs = &mut self.epochs;
        let Channels { by_name, occupied } = self.apps.entry(app.id.clone()).or_default();
        let channel =
            by_name.entry(name.clone()).or_insert_with(|| Channel::new(name.clone(), epochs.next()));
        (channel, occupied)
    }

    /// Forgets a channel that nobody listens to: its app is gone.
    fn abandon(&mut self, app: &AppId, name: &ChannelName) {
        let Some(channels) = self.apps.get_mut(app) else { return };
        let Some(channel) = channels.by_name.get_mut(name) else { return };
        // Its last listeners may still be about to go, and the app may come back.
        channel.due = None;
        if channel.subscribers.is_empty() && channel.watchers.is_empty() {
            channels.by_name.remove(name);
        }
        if channels.by_name.is_empty() {
            self.apps.remove(app);
        }
    }

    /// Forgets a channel with nothing left, or notes when it next needs attention.
    fn look_after(&mut self, app: &App, name: &ChannelName, now: Instant) {
        let Some(channels) = self.apps.get_mut(&app.id) else { return };
        let Some(channel) = channels.by_name.get_mut(name) else { return };
        if channel.is_over() {
            channels.by_name.remove(name);
            give_back(&mut channels.by_name);
            if channels.by_name.is_empty() {
                self.apps.remove(&app.id);
            }
            return;
        }
        let Some(at) = channel.deadline() else { return };
        if channel.due.is_none_or(|due| at < due) {
            channel.due = Some(at.max(now));
            let due = Due { at: at.max(now), app: app.id.clone(), channel: name.clone() };
            self.due.push(Reverse(due));
        }
    }
}

/// Lets a map shrink after many were removed, but not so eagerly that a churn would resize it all the time.
pub(crate) fn give_back<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.capacity() / 4);
    }
}

impl Channel {
    fn is_vacated_by_the_end(&self) -> bool {
        let is_left = self.leaving.as_ref().is_some_and(|leaving| leaving.vacated.is_some());
        is_left || !(self.subscribers.is_empty() || self.name.kind().is_user())
    }

    fn gone_by_the_end(&self) -> Vec<Box<str>> {
        let left = self.leaving.iter().flat_map(|leaving| leaving.members().cloned());
        let there =
            self.roster.iter().flat_map(|roster| roster.members().map(|member| member.user_id.clone()));
        left.chain(there).collect()
    }

    fn census(&self, now: Instant) -> Census {
        Census {
            subscriptions: self.subscribers.total(),
            users: self.roster.as_ref().map_or(0, |roster| roster.len()),
            cached: self.cached(now).map(|(event, left)| (event.clone(), left)),
        }
    }
}

/// Where the effects of one command on one channel go.
struct Out<'a> {
    app: &'a App,
    effects: &'a mut Vec<Effect>,
}

impl Out<'_> {
    /// Gives the next place in the channel's order to `body` and sends it to every worker of the audience.
    fn deliver(&mut self, channel: &mut Channel, audience: Audience, body: Body, except: Option<SocketId>) {
        let position = channel.advance();
        let spread = match audience {
            Audience::Subscribers => &channel.subscribers,
            Audience::Watchers => &channel.watchers,
        };
        self.effects.extend(spread.workers().map(|worker| {
            let (app, channel, body) = (self.app.id.clone(), channel.name.clone(), body.clone());
            Effect::Deliver(worker, Delivery { app, channel, audience, position, body, except })
        }));
    }

    /// Tells the others of a member's, or the watchers of a user's, first or last connection.
    fn notify(&mut self, channel: &mut Channel, notice: Option<Frame>, user_edge: bool, member_edge: bool) {
        let Some(notice) = notice else { return };
        if channel.name.kind().is_user() {
            if user_edge {
                self.deliver(channel, Audience::Watchers, Body::Frame(notice), None);
            }
        } else if member_edge {
            self.deliver(channel, Audience::Subscribers, Body::Frame(notice), None);
        }
    }

    /// After the number of subscriptions has changed.
    fn count(&mut self, channel: &mut Channel, now: Instant) {
        if self.app.subscription_counts
            && channel.name.kind().is_counted()
            && let Some(count) = channel.count_to_tell(now)
        {
            self.tell_count(channel, count);
        }
    }

    fn tell_count(&mut self, channel: &mut Channel, count: u64) {
        self.deliver(channel, Audience::Subscribers, Body::SubscriptionCount(count), None);
        self.occurred(channel, Fact::Counted(count));
    }

    /// Whether webhooks tell of the channel.
    fn tells(&self, channel: &Channel) -> bool {
        !self.app.webhooks.is_empty() && !channel.name.kind().is_user()
    }

    fn occurred(&mut self, channel: &Channel, fact: Fact) {
        if self.tells(channel) {
            let (app, channel) = (self.app.id.clone(), channel.name.clone());
            self.effects.push(Effect::Occurred(Occurrence { app, channel, fact }));
        }
    }
}

/// A channel that needs attention at a time of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Due {
    at: Instant,
    app: AppId,
    channel: ChannelName,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |due: &Self| (due.at, due.app.clone(), due.channel.clone());
        let (mine, theirs) = (key(self), key(other));
        (mine.0, mine.1, mine.2.as_str()).cmp(&(theirs.0, theirs.1, theirs.2.as_str()))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers that do not repeat (splitmix64), so that a channel's lives can be told apart.
#[derive(Debug)]
pub(crate) struct Epochs(u64);

impl Epochs {
    /// `seed` should be random.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
