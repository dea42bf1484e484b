//! One topic: its replica, and who listens.

mod replica;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub::{Audience, Body, ChannelFull, Delivery, Joined, Position, Spread, Topic, Watched, WorkerId};
use crate::mirror::channel::replica::Believed;
use crate::mirror::unsettled::{Newcomer, Unsettled, Waiting};
use crate::mirror::{
    Again, Arrival, Change, Effect, Gap, Grant, Hold, Message, Op, Place, Request, Snapshot, Traits,
};
use crate::protocol::{CachedEvent, ChannelName, Frame, Member, Roster, SocketId};

/// So long a member, or a user who is watched, is believed to be there after the state has lost what it knew, or against
/// what this node knows better: every node says again what it holds, and nobody has to be told that somebody went and came.
pub(super) const BELIEF: Duration = Duration::from_secs(10);

/// What cannot be decided now is looked at again after this.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// One topic, for as long as somebody listens, and a little longer.
///
/// There may be hundreds of thousands of them, so what most have not is behind a box.
#[derive(Debug)]
pub(super) struct Channel {
    /// To be shared rather than kept twice.
    pub(super) name: ChannelName,
    /// The cluster's place of the last message that was applied.
    place: Place,
    /// The same in the order that this node gives to its workers.
    position: Position,
    pub(super) listeners: Spread,
    /// Connections that listen or wait.
    pub(super) held: u64,
    pub(super) presence: Option<Box<Presence>>,
    pub(super) cached: Option<Box<(CachedEvent, Instant)>>,
    pub(super) unsettled: Option<Box<Unsettled>>,
    pub(super) traits: Traits,
    pub(super) stage: Stage,
    /// It has been looked at, so what is missed can be told from what is known.
    is_known: bool,
    /// It has been looked at since this node holds it: whatever is published arrives, or is missed.
    is_sure: bool,
    /// Of a user, for watchers.
    is_online: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// The bus was asked for, for the first time; nothing arrives, and nothing is said yet.
    Opening,
    /// The bus is cut off; nothing arrives.
    Deaf,
    /// It was asked how the topic is; what arrives waits.
    Looking,
    /// Every message is applied as it arrives.
    Open,
}

#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Everybody in the cluster. Shared with whoever encodes a snapshot.
    pub(super) roster: Arc<Roster>,
    /// Everybody on this node, waiting or not, with their connections.
    pub(super) here: Roster,
    /// Most users.
    pub(super) max: usize,
}

/// Where the consequences for one topic go.
pub(super) struct Out<'a> {
    pub(super) topic: &'a Topic,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Out<'_> {
    fn ask(&mut self, op: Op) {
        self.effects.push(Effect::Ask(Request::Op(op)));
    }
}

impl Channel {
    pub(super) fn new(name: ChannelName, epoch: u64) -> Self {
        let presence = name.kind().is_presence().then(Box::default);
        Self {
            name,
            place: Place::default(),
            position: Position { epoch, seq: 0 },
            listeners: Spread::default(),
            held: 0,
            presence,
            cached: None,
            unsettled: None,
            traits: Traits::default(),
            stage: Stage::Opening,
            is_known: false,
            is_sure: false,
            is_online: false,
        }
    }

    /// One connection more is here: a subscriber, who is this member in a presence channel. None: it has to wait.
    pub(super) fn subscribe(
        &mut self,
        member: Option<&Arc<Member>>,
        max: usize,
        waiting: Waiting,
        now: Instant,
        out: &mut Out<'_>,
    ) -> Option<Joined> {
        let Some(member) = member else {
            self.hold(None, out);
            if self.can_answer() {
                return Some(self.join(waiting.worker, now, out));
            }
            self.unsettled().waiting.push(waiting);
            return None;
        };
        let presence = self.presence.get_or_insert_default();
        presence.max = max;
        let is_first = presence.here.join(member);
        self.hold(is_first.then(|| Change::Enters { member: member.clone(), max }), out);
        let is_settled = !is_first && !self.is_newcomer(&member.user_id);
        if is_settled && self.is_sure && self.is_member(&member.user_id) {
            return Some(self.join(waiting.worker, now, out));
        }
        let entered = is_settled.then_some(self.place);
        let newcomers = &mut self.unsettled().newcomers;
        let before = newcomers.len();
        let new = || Newcomer { before, entered, waiting: Vec::new() };
        newcomers.entry(member.user_id.clone()).or_insert_with(new).waiting.push(waiting);
        None
    }

    /// Whether a subscriber who is no member can be told at once how the topic is. What it misses it is told later, but what a cache
    /// channel replays must be the latest there is.
    fn can_answer(&self) -> bool {
        self.is_sure && (self.stage == Stage::Open || !self.name.kind().is_cached())
    }

    /// One connection more is here: a watcher. None: it has to wait.
    pub(super) fn watch(&mut self, waiting: Waiting, out: &mut Out<'_>) -> Option<Watched> {
        self.hold(None, out);
        if !self.is_sure {
            self.unsettled().waiting.push(waiting);
            return None;
        }
        self.listeners.add(waiting.worker);
        Some(self.watched())
    }

    /// How a user is, if that is known.
    pub(super) fn watched_now(&self) -> Option<Watched> {
        self.is_known.then(|| self.watched())
    }

    /// A subscriber who was this member has left.
    pub(super) fn unsubscribe(&mut self, member: Option<&Arc<Member>>, worker: WorkerId, out: &mut Out<'_>) {
        self.listeners.remove(worker);
        let left = member.filter(|member| {
            self.presence.as_mut().is_some_and(|presence| presence.here.leave(&member.user_id))
        });
        self.release(1, left.map(|member| Change::Leaves(member.user_id.clone())), out);
    }

    /// Somebody who watched does so no longer.
    pub(super) fn unwatch(&mut self, worker: WorkerId, out: &mut Out<'_>) {
        self.listeners.remove(worker);
        self.release(1, None, out);
    }

    /// The bus listens, for the first time or again.
    pub(super) fn listening(&mut self, out: &mut Out<'_>) {
        let is_first = self.stage == Stage::Opening;
        self.stage = Stage::Looking;
        self.unsettled().was_cut = true;
        if is_first {
            self.say_all(out);
        }
        self.look(out);
    }

    /// The bus listens no longer.
    pub(super) fn deaf(&mut self) {
        if self.stage != Stage::Opening {
            self.stage = Stage::Deaf;
        }
    }

    /// A hold was done, for the user that it brought.
    pub(super) fn held(&mut self, entered: Option<&str>, place: Place, now: Instant, out: &mut Out<'_>) {
        if let (Some(user_id), Some(unsettled)) = (entered, &mut self.unsettled)
            && let Some(newcomer) = unsettled.newcomers.get_mut(user_id)
            && newcomer.entered.is_none()
        {
            newcomer.entered = Some(place);
            unsettled.entered.push_back((place, user_id.into()));
        }
        if self.stage == Stage::Open && !place.is_of_one_era(self.place) {
            self.look(out);
        }
        self.admit(now, out);
    }

    /// A hold was refused, since there is no room for the user that it brought.
    pub(super) fn refused(&mut self, user_id: &str, out: &mut Out<'_>) {
        let newcomer = self.unsettled.as_mut().and_then(|unsettled| unsettled.newcomers.remove(user_id));
        let Some(newcomer) = newcomer else { return };
        let mut count = 0;
        for Waiting { worker, ticket } in newcomer.waiting {
            if let Some(presence) = &mut self.presence {
                presence.here.leave(user_id);
            }
            out.effects.push(Effect::Granted(worker, ticket, Err(ChannelFull)));
            count += 1;
        }
        self.release(count, None, out);
    }

    /// Applies a message if it is the next one. Otherwise it waits until it is known what is missing.
    pub(super) fn follow(&mut self, arrival: Arrival, now: Instant, out: &mut Out<'_>) {
        let Place { epoch, seq } = arrival.place;
        match self.stage {
            Stage::Opening | Stage::Deaf => {}
            Stage::Open if arrival.place == self.place.next() => self.apply(arrival, now, out),
            Stage::Open if epoch == self.place.epoch && seq <= self.place.seq => {}
            Stage::Open => {
                self.look(out);
                // The look will show it anyway, but the state may not have kept it.
                if epoch == self.place.epoch && self.held > 0 {
                    self.unsettled().early.push(arrival);
                }
            }
            Stage::Looking if self.held > 0 => self.unsettled().early.push(arrival),
            Stage::Looking => {}
        }
    }

    /// Takes over how the topic is, if nothing was asked since, and tells the listeners what that changes.
    pub(super) fn see(&mut self, mut snapshot: Snapshot, now: Instant, out: &mut Out<'_>) -> Gap {
        let unsettled = self.unsettled();
        let is_last = unsettled.looks == 1;
        unsettled.looks = unsettled.looks.saturating_sub(1);
        if !is_last || self.stage != Stage::Looking {
            return Gap::default();
        }
        let early = self.unsettled().early.take();
        let is_told = self.is_known && !self.listeners.is_empty();
        let is_reborn = snapshot.place.epoch != self.place.epoch;
        // Another server has the state, and may not have all of it.
        let is_shaken = !snapshot.place.is_of_one_era(self.place);
        let was_cut = std::mem::take(&mut self.unsettled().was_cut);
        let missed = (std::mem::take(&mut snapshot.missed), snapshot.is_all);
        self.stage = Stage::Open;
        if is_told
            && !was_cut
            && let Some(until) = self.is_complete(&missed.0, &early, snapshot.place)
        {
            let (gap, early) = self.heal(missed, until, early, now, out);
            self.go_on(snapshot.subscriptions, gap, early, now, out);
            return gap;
        }
        let (mut gap, early) = match is_told {
            true => self.heal(missed, snapshot.place, early, now, out),
            false => (Gap::default(), early),
        };
        if is_told && is_reborn {
            // Nobody knows how many there were in the life before.
            gap.lost += 1;
        }
        self.place = snapshot.place;
        self.is_known = true;
        self.is_sure = self.held > 0;
        if let Some(members) = snapshot.roster {
            let believed = if is_shaken { Believed::Everybody } else { Believed::Ours };
            self.adopt_roster(members, is_told.then_some(believed), now, out);
        }
        self.adopt_online(snapshot.online, is_told && is_shaken, now, out);
        self.cached = snapshot.cached.map(|(event, left)| Box::new((event, now + left)));
        self.go_on(snapshot.subscriptions, gap, early, now, out);
        gap
    }

    /// Serves everybody who waits, now that it is known how the topic is, and applies what came meanwhile.
    fn go_on(&mut self, subscriptions: u64, gap: Gap, early: Vec<Arrival>, now: Instant, out: &mut Out<'_>) {
        let was_waited_for = self.seat_all(now, out);
        if self.traits.counts && subscriptions > 0 && (was_waited_for || gap.lost > 0) {
            self.deliver(Body::SubscriptionCount(subscriptions), None, out);
        }
        self.replay(early, now, out);
        self.admit_all(now, out);
    }

    /// Gives those their place who wait for a message that has come by now.
    pub(super) fn admit(&mut self, now: Instant, out: &mut Out<'_>) {
        let here = self.place;
        while self.stage == Stage::Open
            && let Some(unsettled) = &mut self.unsettled
            && let Some((_, user_id)) = unsettled.entered.pop_front_if(|(place, _)| here.has_come_to(*place))
        {
            self.admit_user(&user_id, now, out);
        }
    }

    /// Decides what was doubtful for long enough. When to come again, if something is left.
    pub(super) fn decide(&mut self, now: Instant, out: &mut Out<'_>) -> Option<Instant> {
        let doubts = &mut self.unsettled.as_mut()?.doubts;
        doubts.is_listed = false;
        // While it is looked, the answer decides.
        if self.stage == Stage::Open {
            let is_over = |until: &mut Instant| *until <= now;
            let gone: Vec<_> = doubts.members.extract_if(.., |_, until| is_over(until)).collect();
            let is_offline = doubts.online.take_if(is_over).is_some();
            for (user_id, _) in gone {
                match self.presence.as_ref().is_some_and(|presence| presence.here.contains(&user_id)) {
                    true => self.doubt_member(&user_id, now),
                    false => self.remove_member(&user_id, out),
                }
            }
            if is_offline {
                self.turn(false, out);
            }
        }
        self.doubtful().map(|next| next.max(now + PAUSE))
    }

    /// When to decide what is doubtful, if something is and is not listed as such.
    pub(super) fn doubtful(&mut self) -> Option<Instant> {
        let doubts = &mut self.unsettled.as_mut()?.doubts;
        let next = doubts.next().filter(|_| !doubts.is_listed)?;
        doubts.is_listed = true;
        Some(next)
    }

    /// When it may be closed, if that is later. It stays listed then.
    pub(super) fn closes(&mut self, now: Instant) -> Option<Instant> {
        let unsettled = self.unsettled.as_mut()?;
        let mut until = unsettled.closes.take()?;
        if self.held > 0 {
            return None;
        }
        if unsettled.looks > 0 {
            // An answer that is under way must not come to another life of the topic.
            until = until.max(now + PAUSE);
        }
        unsettled.closes = (until > now).then_some(until);
        unsettled.closes
    }

    /// Gives back what is needed only while something is awaited.
    pub(super) fn tidy(&mut self) {
        self.unsettled.take_if(|unsettled| unsettled.is_idle());
    }

    /// How many connections wait for their place.
    pub(super) fn waiting(&self) -> usize {
        let Some(unsettled) = &self.unsettled else { return 0 };
        let newcomers = unsettled.newcomers.values().map(|newcomer| newcomer.waiting.len());
        unsettled.waiting.len() + newcomers.sum::<usize>()
    }

    pub(super) fn unsettled(&mut self) -> &mut Unsettled {
        self.unsettled.get_or_insert_default()
    }
}

impl Channel {
    /// One connection more is here.
    fn hold(&mut self, change: Option<Change>, out: &mut Out<'_>) {
        self.held += 1;
        self.say(change, out);
        if self.held == 1 {
            // The state has forgotten the topic, if nobody else holds it, and what was published since went nowhere.
            self.look(out);
        }
    }

    /// So many connections are here no longer.
    pub(super) fn release(&mut self, count: u64, change: Option<Change>, out: &mut Out<'_>) {
        self.held = self.held.saturating_sub(count);
        if self.held == 0 {
            self.is_sure = false;
        }
        self.say(change, out);
    }

    /// Says how many connections this node holds.
    fn say(&self, change: Option<Change>, out: &mut Out<'_>) {
        if self.stage != Stage::Opening {
            let (topic, count, traits) = (out.topic.clone(), self.held, self.traits);
            out.ask(Op::Hold(Hold { topic, count, change, traits, again: Again::No }));
        }
    }

    /// Says for the first time what this node holds.
    fn say_all(&self, out: &mut Out<'_>) {
        let users = self.unsettled.iter().flat_map(|unsettled| &unsettled.newcomers);
        let mut users: Vec<_> = users.map(|(user_id, newcomer)| (newcomer.before, user_id)).collect();
        let Some(presence) = self.presence.as_ref().filter(|_| !users.is_empty()) else {
            return self.say(None, out);
        };
        // There may be no room for all: who came first is first.
        users.sort_unstable();
        let max = presence.max;
        for member in users.iter().filter_map(|(_, user_id)| presence.here.get(user_id)) {
            self.say(Some(Change::Enters { member: member.clone(), max }), out);
        }
    }

    /// Asks how the topic is. What arrives meanwhile waits. If nobody wants to know, it is asked when somebody comes.
    pub(super) fn look(&mut self, out: &mut Out<'_>) {
        if matches!(self.stage, Stage::Opening | Stage::Deaf) {
            return; // to be done when the bus listens
        }
        self.stage = Stage::Looking;
        if self.held == 0 {
            return;
        }
        let epoch = self.place.epoch;
        let unsettled = self.unsettled();
        unsettled.looks += 1;
        // What was published before the look is part of its answer; here it only fills holes in what the state has kept.
        unsettled.early.keep_epoch(epoch);
        out.ask(Op::Look(out.topic.clone(), self.is_known.then_some(self.place)));
    }

    /// Adds a subscriber.
    fn join(&mut self, worker: WorkerId, now: Instant, out: &mut Out<'_>) -> Joined {
        self.listeners.add(worker);
        let cached = self.name.kind().is_cached().then(|| {
            self.cached.take_if(|cached| cached.1 <= now);
            self.cached.as_ref().map(|cached| cached.0.frame.clone())
        });
        if let Some(None) = &cached {
            out.ask(Op::Miss(out.topic.clone(), self.traits));
        }
        Joined {
            channel: self.name.clone(),
            position: self.position,
            roster: self.presence.as_ref().map(|presence| presence.roster.clone()),
            cached,
        }
    }

    fn watched(&self) -> Watched {
        Watched { channel: self.name.clone(), position: self.position, online: self.is_online }
    }

    /// Gives a connection its place.
    fn seat(&mut self, Waiting { worker, ticket }: Waiting, now: Instant, out: &mut Out<'_>) {
        let grant = match out.topic.audience {
            Audience::Subscribers => Grant::Joined(self.join(worker, now, out)),
            Audience::Watchers => {
                self.listeners.add(worker);
                Grant::Watched(self.watched())
            }
        };
        out.effects.push(Effect::Granted(worker, ticket, Ok(grant)));
    }

    /// Gives everybody a place who waits for the topic alone. Whether there was anybody.
    fn seat_all(&mut self, now: Instant, out: &mut Out<'_>) -> bool {
        if !self.is_sure {
            return false;
        }
        let waiting = std::mem::take(&mut self.unsettled().waiting);
        let was_waited_for = !waiting.is_empty();
        for each in waiting {
            self.seat(each, now, out);
        }
        was_waited_for
    }

    /// Gives the connections of a user their place, if the user is a member by now.
    fn admit_user(&mut self, user_id: &str, now: Instant, out: &mut Out<'_>) {
        if !self.is_member(user_id) {
            return; // again when the user is
        }
        let here = self.place;
        let Some(unsettled) = &mut self.unsettled else { return };
        let entered = unsettled.newcomers.get(user_id).and_then(|newcomer| newcomer.entered);
        if entered.is_none_or(|place| !here.has_come_to(place)) {
            return;
        }
        let newcomer = unsettled.newcomers.remove(user_id).unwrap_or_default();
        for waiting in newcomer.waiting {
            self.seat(waiting, now, out);
        }
    }

    /// The same for everybody: much may have happened at once.
    fn admit_all(&mut self, now: Instant, out: &mut Out<'_>) {
        if self.stage == Stage::Open
            && let Some(unsettled) = &self.unsettled
        {
            let users: Vec<Box<str>> = unsettled.newcomers.keys().cloned().collect();
            for user_id in users {
                self.admit_user(&user_id, now, out);
            }
        }
    }

    fn is_member(&self, user_id: &str) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.roster.contains(user_id))
    }

    fn is_newcomer(&self, user_id: &str) -> bool {
        self.unsettled.as_ref().is_some_and(|unsettled| unsettled.newcomers.contains_key(user_id))
    }

    /// Whether a user is here, and has been told so. Then the state must say so too, sooner or later.
    fn is_ours(&self, user_id: &str) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.here.contains(user_id))
            && !self.is_newcomer(user_id)
    }
}
