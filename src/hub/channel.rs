//! The state of one channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub::effect::{Fact, Position};
use crate::hub::spread::Spread;
use crate::protocol::{CachedEvent, ChannelName, Roster};

/// One cache miss is reported for all that happen within this time.
const MISS_QUIET: Duration = Duration::from_secs(10);

/// Up to this many subscribers, every change of the count is told at once (Pusher docs, "Subscription
/// count events").
const COUNTED_AT_ONCE: u64 = 100;

/// Above it, only so often.
const COUNT_PAUSE: Duration = Duration::from_secs(5);

/// One channel, for as long as somebody is subscribed or something is kept.
#[derive(Debug)]
pub(super) struct Channel {
    /// To be shared rather than kept twice.
    pub(super) name: ChannelName,
    pub(super) position: Position,
    pub(super) subscribers: Spread,
    pub(super) watchers: Spread,
    // Shared with whoever encodes a snapshot: joining copies the roster only while that goes on.
    pub(super) roster: Option<Arc<Roster>>,
    pub(super) cache: Option<Box<Cache>>,
    pub(super) count: Option<Box<CountPause>>,
    /// Who has gone and may still be back, before webhooks tell.
    pub(super) leaving: Option<Box<Leaving>>,
    /// When the hub will look after this channel by itself.
    pub(super) due: Option<Instant>,
}

impl Channel {
    pub(super) fn new(name: ChannelName, epoch: u64) -> Self {
        Self {
            name,
            position: Position { epoch, seq: 0 },
            subscribers: Spread::default(),
            watchers: Spread::default(),
            roster: None,
            cache: None,
            count: None,
            leaving: None,
            due: None,
        }
    }

    /// The place of the next event.
    pub(super) fn advance(&mut self) -> Position {
        self.position.seq += 1;
        self.position
    }

    /// Nothing is left to keep.
    pub(super) fn is_over(&self) -> bool {
        self.subscribers.is_empty()
            && self.watchers.is_empty()
            && self.cache.is_none()
            && self.leaving.is_none()
    }

    /// It is over, or something in it will be. Most channels have nothing of the kind.
    pub(super) fn needs_care(&self) -> bool {
        self.is_over() || self.deadline().is_some()
    }

    /// When something ends by itself next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let cache = self.cache.as_ref().and_then(|cache| cache.deadline());
        let count = self.count.as_ref().filter(|count| count.changed).map(|count| count.told + COUNT_PAUSE);
        let leaving = self.leaving.as_ref().and_then(|leaving| leaving.next);
        cache.into_iter().chain(count).chain(leaving).min()
    }

    /// Lets go of what has ended. Some is the count that is now to be told.
    pub(super) fn settle(&mut self, now: Instant) -> Option<u64> {
        if let Some(cache) = &mut self.cache {
            cache.settle(now);
            if cache.deadline().is_none() {
                self.cache = None;
            }
        }
        self.count.as_ref()?.changed.then(|| self.count_to_tell(now)).flatten()
    }

    /// The number of subscriptions, if it is to be told now rather than later.
    pub(super) fn count_to_tell(&mut self, now: Instant) -> Option<u64> {
        let total = self.subscribers.total();
        let quiet = self.count.as_ref().is_none_or(|count| now >= count.told + COUNT_PAUSE);
        if total <= COUNTED_AT_ONCE || quiet {
            self.count = Some(Box::new(CountPause { told: now, changed: false }));
            return (total > 0).then_some(total);
        }
        if let Some(count) = &mut self.count {
            count.changed = true;
        }
        None
    }

    /// The event to replay, if there is one.
    pub(super) fn cached(&self, now: Instant) -> Option<(&CachedEvent, Duration)> {
        let (event, until) = self.cache.as_ref()?.event.as_ref()?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some((event, left))
    }

    /// Notes that there was nothing to replay. True if that is to be reported.
    pub(super) fn miss(&mut self, now: Instant) -> bool {
        let cache = self.cache.get_or_insert_default();
        let report = cache.missed.is_none_or(|missed| now >= missed + MISS_QUIET);
        if report {
            cache.missed = Some(now);
        }
        report
    }

    /// Keeps an event for later subscribers.
    pub(super) fn keep(&mut self, event: CachedEvent, until: Instant) {
        self.cache = Some(Box::new(Cache { event: Some((event, until)), missed: None }));
    }
}

/// Leaves that webhooks will tell, unless whoever left is back before their time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Leaving {
    /// When the channel counts as vacated.
    pub(super) vacated: Option<Instant>,
    /// When each user counts as removed.
    members: HashMap<Box<str>, Instant>,
    /// When the first of all is due, or was before it came back.
    next: Option<Instant>,
}

impl Leaving {
    /// Users have gone, or the channel's last subscription has.
    pub(super) fn add(&mut self, users: impl IntoIterator<Item = Box<str>>, vacated: bool, until: Instant) {
        self.members.extend(users.into_iter().map(|id| (id, until)));
        if vacated {
            self.vacated = Some(until);
        }
        self.next.get_or_insert(until);
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Box<str>> {
        self.members.keys()
    }

    fn is_empty(&self) -> bool {
        self.vacated.is_none() && self.members.is_empty()
    }

    /// Takes out the leaves whose time has come, in the order of their times, the channel's own last.
    fn settle(&mut self, now: Instant) -> Vec<Fact> {
        let mut gone: Vec<(Instant, Box<str>)> =
            self.members.extract_if(|_, until| *until <= now).map(|(id, until)| (until, id)).collect();
        gone.sort();
        let mut facts: Vec<Fact> = gone.into_iter().map(|(_, id)| Fact::MemberRemoved(id)).collect();
        if self.vacated.take_if(|until| *until <= now).is_some() {
            facts.push(Fact::Vacated);
        }
        self.next = self.members.values().copied().chain(self.vacated).min();
        facts
    }
}

impl Channel {
    /// The first subscription has come. True if the channel had been given up.
    pub(super) fn occupied(&mut self) -> bool {
        let came_back = self.leaving.as_mut().is_some_and(|leaving| leaving.vacated.take().is_some());
        self.leaving.take_if(|leaving| leaving.is_empty());
        !came_back
    }

    /// A user's first connection has come. True if the user had been given up.
    pub(super) fn member_added(&mut self, user_id: &str) -> bool {
        let came_back =
            self.leaving.as_mut().is_some_and(|leaving| leaving.members.remove(user_id).is_some());
        self.leaving.take_if(|leaving| leaving.is_empty());
        !came_back
    }

    /// Leaves whose time has come.
    pub(super) fn left(&mut self, now: Instant) -> Vec<Fact> {
        let Some(leaving) = &mut self.leaving else { return Vec::new() };
        let facts = leaving.settle(now);
        self.leaving.take_if(|leaving| leaving.is_empty());
        facts
    }
}

/// What a cache channel remembers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    event: Option<(CachedEvent, Instant)>,
    missed: Option<Instant>,
}

impl Cache {
    fn deadline(&self) -> Option<Instant> {
        let event = self.event.as_ref().map(|(_, until)| *until);
        event.or(self.missed.map(|missed| missed + MISS_QUIET))
    }

    fn settle(&mut self, now: Instant) {
        self.event.take_if(|(_, until)| *until <= now);
        self.missed.take_if(|missed| *missed + MISS_QUIET <= now);
    }
}

/// When the subscription count was last told, and whether it has changed since.
#[derive(Debug)]
pub(super) struct CountPause {
    told: Instant,
    changed: bool,
}
