//! What Redis has acknowledged of this node's holdings in one partition, to be told again if Redis loses it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::script::Holding;
use crate::hub::Topic;
use crate::mirror::{Again, Change, Hold, Traits};
use crate::protocol::Member;

/// What was acknowledged so long ago has been told by webhooks, however busy everybody was.
const SETTLED: Duration = Duration::from_secs(5);

/// Holdings by topic, and those that ended a short while ago.
#[derive(Debug, Default)]
pub(super) struct Told {
    topics: HashMap<Topic, Held>,
    /// Oldest first.
    left: VecDeque<Left>,
}

#[derive(Debug)]
struct Held {
    count: u64,
    traits: Traits,
    since: Instant,
    // Most topics have none.
    members: Option<Box<Members>>,
}

/// Each member, and since when it is known, by user.
type Members = HashMap<Box<str>, (Arc<Member>, Instant)>;

/// A holding that has ended. Webhooks may still have to tell of it.
#[derive(Debug)]
struct Left {
    at: Instant,
    topic: Topic,
    traits: Traits,
    /// The member who went; none if it was the last connection.
    member: Option<Arc<Member>>,
}

impl Told {
    /// A hold was acknowledged.
    pub(super) fn took(&mut self, hold: &Hold, now: Instant) {
        let Hold { topic, count, change, traits, .. } = hold;
        match self.topics.get_mut(topic) {
            Some(held) => {
                held.count = *count;
                held.traits = *traits;
            }
            None if *count == 0 => return,
            None => {
                let held = Held { count: *count, traits: *traits, since: now, members: None };
                self.topics.insert(topic.clone(), held);
            }
        }
        let Some(held) = self.topics.get_mut(topic) else { return };
        match change {
            Some(Change::Enters { member, .. }) => {
                let members = held.members.get_or_insert_default();
                members.insert(member.user_id.clone(), (member.clone(), now));
            }
            Some(Change::Leaves(user_id)) => {
                let gone = held.members.as_mut().and_then(|members| members.remove(user_id));
                let member = gone.map(|(member, _)| member);
                if traits.tells && member.is_some() {
                    self.left.push_back(Left { at: now, topic: topic.clone(), traits: *traits, member });
                }
            }
            None => {}
        }
        if *count == 0 {
            self.topics.remove(topic);
            if traits.tells {
                self.left.push_back(Left { at: now, topic: topic.clone(), traits: *traits, member: None });
            }
        }
    }

    /// Forgets leaves that webhooks have told by now.
    pub(super) fn settle(&mut self, debounce: Duration, now: Instant) {
        while self.left.pop_front_if(|left| now >= left.at + debounce + SETTLED).is_some() {}
    }

    /// Everything, for a state that has lost it all. Leaves that webhooks have not told yet are made again.
    pub(super) fn all_again(&mut self, debounce: Duration, now: Instant) -> Vec<Hold> {
        self.settle(debounce, now);
        let mut holds = Vec::new();
        for left in &self.left {
            left.again(self.topics.get(&left.topic), &mut holds);
        }
        let again = |since: Instant| {
            if now >= since + SETTLED { Again::Silently } else { Again::Marked }
        };
        for (topic, held) in &self.topics {
            holds.push(held.hold(topic, None, again(held.since)));
            for (member, since) in held.members() {
                holds.push(held.hold(topic, Some(enters(member)), again(*since)));
            }
        }
        holds
    }

    /// What makes what Redis knows into what it had acknowledged.
    pub(super) fn differences(&self, known: &[Holding], again: Again) -> Vec<Hold> {
        let mut holds = Vec::new();
        let by_topic: HashMap<&Topic, &Holding> =
            known.iter().map(|holding| (&holding.topic, holding)).collect();
        for (topic, held) in &self.topics {
            let known = by_topic.get(topic);
            if known.is_none_or(|known| known.count != held.count) {
                holds.push(held.hold(topic, None, again));
            }
            let there: HashSet<&str> =
                known.into_iter().flat_map(|known| known.members.iter().map(|id| &**id)).collect();
            for (member, _) in held.members().filter(|(member, _)| !there.contains(&*member.user_id)) {
                holds.push(held.hold(topic, Some(enters(member)), again));
            }
            for id in there.into_iter().filter(|id| !held.has(id)) {
                holds.push(held.hold(topic, Some(Change::Leaves(id.into())), again));
            }
        }
        for gone in known.iter().filter(|known| !self.topics.contains_key(&known.topic)) {
            let traits = self.left.iter().rev().find(|left| left.topic == gone.topic).map(|left| left.traits);
            let hold = |count, change| {
                let (topic, traits) = (gone.topic.clone(), traits.unwrap_or_default());
                Hold { topic, count, change, traits, again }
            };
            holds.extend(gone.members.iter().map(|id| hold(gone.count, Some(Change::Leaves(id.clone())))));
            holds.push(hold(0, None));
        }
        holds
    }
}

/// Whoever was let in once is let in again.
fn enters(member: &Arc<Member>) -> Change {
    Change::Enters { member: member.clone(), max: usize::MAX }
}

impl Held {
    fn hold(&self, topic: &Topic, change: Option<Change>, again: Again) -> Hold {
        Hold { topic: topic.clone(), count: self.count, change, traits: self.traits, again }
    }

    fn members(&self) -> impl Iterator<Item = &(Arc<Member>, Instant)> {
        self.members.iter().flat_map(|members| members.values())
    }

    fn has(&self, user_id: &str) -> bool {
        self.members.as_ref().is_some_and(|members| members.contains_key(user_id))
    }
}

impl Left {
    /// Comes, which nobody need know, and goes, which webhooks tell unless somebody is still there.
    fn again(&self, held: Option<&Held>, holds: &mut Vec<Hold>) {
        let count = held.map_or(0, |held| held.count);
        let hold = |count, change, again| {
            let (topic, traits) = (self.topic.clone(), self.traits);
            Hold { topic, count, change, traits, again }
        };
        match &self.member {
            Some(member) if held.is_none_or(|held| !held.has(&member.user_id)) => {
                holds.push(hold(count.max(1), Some(enters(member)), Again::Silently));
                let leaves = Change::Leaves(member.user_id.clone());
                holds.push(hold(count, Some(leaves), Again::Marked));
            }
            None if count == 0 => {
                holds.push(hold(1, None, Again::Silently));
                holds.push(hold(0, None, Again::Marked));
            }
            Some(_) | None => {}
        }
    }
}
