//! The shared state of one partition, as the steps of the cluster change it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::hub::Topic;
use crate::mirror::simulation::{index_of, topic};
use crate::mirror::{Again, Arrival, Change, Hold, Message, Op, Place, Publication, Reply, Snapshot};
use crate::protocol::{CachedEvent, Member};

/// What a node holds of a topic: connections and users.
pub(super) type Part = (u64, BTreeSet<Box<str>>);

/// Everything that would be in Redis. A copy is a replica of it, or what is left of it after a fail-over.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Another one: everything was lost.
    pub(super) generation: u64,
    records: BTreeMap<usize, Record>,
    /// By node: what it holds; none if it has no lease.
    pub(super) held: Vec<Option<BTreeMap<usize, Part>>>,
    /// By node: steps that were done.
    pub(super) steps: Vec<u64>,
    cached: BTreeMap<usize, CachedEvent>,
    log: VecDeque<(usize, Arrival)>,
    log_max: usize,
}

#[derive(Clone, Debug)]
struct Record {
    place: Place,
    /// Users with the nodes that hold them, and what is told of them.
    users: BTreeMap<Box<str>, (BTreeSet<usize>, Arc<Member>)>,
}

/// What a step publishes, and where new epochs come from.
pub(super) struct Step<'a> {
    pub(super) epochs: &'a mut u64,
    pub(super) published: Vec<(usize, Arrival)>,
}

impl State {
    pub(super) fn new(generation: u64, nodes: usize, log_max: usize) -> Self {
        Self {
            generation,
            records: BTreeMap::new(),
            held: vec![None; nodes],
            steps: vec![0; nodes],
            cached: BTreeMap::new(),
            log: VecDeque::new(),
            log_max,
        }
    }

    /// Nothing of it is left.
    pub(super) fn wiped(&self) -> Self {
        Self::new(self.generation + 1, self.held.len(), self.log_max)
    }

    /// Whether the node can go on with its next step, having done so many.
    pub(super) fn knows(&self, node: usize, steps: u64, generation: u64) -> bool {
        self.held[node].is_some() && self.steps[node] == steps && self.generation == generation
    }

    /// Does the next step of a node.
    pub(super) fn execute(&mut self, node: usize, op: &Op, step: &mut Step<'_>) -> Reply {
        self.steps[node] += 1;
        self.apply(node, op, step)
    }

    fn apply(&mut self, node: usize, op: &Op, step: &mut Step<'_>) -> Reply {
        let at = index_of(op.topic());
        match op {
            Op::Hold(hold) => self.hold(node, at, hold, step),
            Op::Publish(Publication { message, except, .. }) => {
                if let Message::Kept(event, _) = message {
                    self.cached.insert(at, event.clone());
                }
                self.publish(at, message.clone(), step, *except);
                Reply::Published { subscriptions: self.total(at), users: self.users(at) }
            }
            Op::Miss(..) => Reply::Noted,
            Op::Look(_, since) => Reply::Seen(Box::new(self.look(at, *since, step))),
            Op::Census(_) => Reply::Seen(Box::default()),
        }
    }

    /// Answers what was done before, and changes nothing.
    pub(super) fn repeat(&mut self, node: usize, op: &Op, step: &mut Step<'_>) -> Reply {
        let Op::Hold(hold) = op else { return self.apply(node, op, step) };
        let at = index_of(op.topic());
        let part = self.held[node].as_ref().and_then(|held| held.get(&at));
        match &hold.change {
            Some(Change::Enters { member, .. })
                if hold.again == Again::No
                    && part.is_none_or(|(_, users)| !users.contains(&member.user_id)) =>
            {
                Reply::Full
            }
            _ => Reply::Held(self.records.get(&at).map(|record| record.place).unwrap_or_default()),
        }
    }

    /// Redis has lost its latest writes: what follows must not be taken for what was lost.
    pub(super) fn begin_again(&mut self, epochs: &mut u64) {
        for record in self.records.values_mut() {
            *epochs += 1;
            record.place.epoch = *epochs;
        }
    }

    /// Ends all that a node holds, and its lease.
    pub(super) fn bury(&mut self, node: usize, step: &mut Step<'_>) {
        for (at, (count, users)) in self.held[node].clone().unwrap_or_default() {
            let leaves = users.into_iter().map(|user_id| (count, Some(Change::Leaves(user_id))));
            for (count, change) in leaves.chain([(0, None)]) {
                let hold = Hold {
                    topic: topic(at),
                    count,
                    change,
                    traits: crate::mirror::Traits { tells: false, counts: super::counts(at) },
                    again: Again::No,
                };
                self.hold(node, at, &hold, step);
            }
        }
        self.held[node] = None;
    }

    pub(super) fn total(&self, at: usize) -> u64 {
        self.held.iter().flatten().filter_map(|held| held.get(&at)).map(|(count, _)| count).sum()
    }

    pub(super) fn users(&self, at: usize) -> usize {
        self.records.get(&at).map_or(0, |record| record.users.len())
    }

    pub(super) fn members(&self, at: usize) -> BTreeMap<Box<str>, Box<str>> {
        let users = self.records.get(&at).into_iter().flat_map(|record| record.users.values());
        users.map(|(_, member)| (member.user_id.clone(), member.user_info.clone())).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.held.iter().flatten().all(BTreeMap::is_empty)
    }

    fn hold(&mut self, node: usize, at: usize, hold: &Hold, step: &mut Step<'_>) -> Reply {
        if let (Again::No, Some(Change::Enters { member, max })) = (hold.again, &hold.change)
            && self.users(at) >= *max
            && !self.members(at).contains_key(&member.user_id)
        {
            return Reply::Full;
        }
        let before = self.total(at);
        let held = self.held[node].as_mut().expect("a lease");
        let part = held.entry(at).or_default();
        part.0 = hold.count;
        let edge = match &hold.change {
            Some(Change::Enters { member, .. }) => part.1.insert(member.user_id.clone()),
            Some(Change::Leaves(user_id)) => part.1.remove(user_id),
            None => false,
        };
        if part.0 == 0 && part.1.is_empty() {
            held.remove(&at);
        }
        let after = self.total(at);
        let Some(record) = self.record(at, after > 0 || before > 0, step) else {
            return Reply::Held(Place::default());
        };
        let mut notice = None;
        match &hold.change {
            Some(Change::Enters { member, .. }) if edge => {
                let seat = record.users.entry(member.user_id.clone()).or_insert_with(|| {
                    notice = Some(Message::MemberAdded(member.clone()));
                    (BTreeSet::new(), member.clone())
                });
                seat.0.insert(node);
            }
            Some(Change::Leaves(user_id)) if edge => {
                if let Some((nodes, _)) = record.users.get_mut(user_id) {
                    nodes.remove(&node);
                    if nodes.is_empty() {
                        record.users.remove(user_id);
                        notice = Some(Message::MemberRemoved(user_id.clone()));
                    }
                }
            }
            _ => {}
        }
        if let Some(notice) = notice {
            self.publish(at, notice, step, None);
        }
        if hold.traits.counts && after != before && after > 0 {
            self.publish(at, Message::Count(after), step, None);
        }
        if at == super::USER && (after > 0) != (before > 0) {
            let notice = if after > 0 { Message::Online } else { Message::Offline };
            self.publish(super::WATCHERS, notice, step, None);
        }
        let place = self.records.get(&at).map(|record| record.place).unwrap_or_default();
        if after == 0 {
            self.records.remove(&at);
        }
        Reply::Held(place)
    }

    /// The record of a topic, which comes into being if the topic is held.
    fn record(&mut self, at: usize, is_held: bool, step: &mut Step<'_>) -> Option<&mut Record> {
        if is_held && !self.records.contains_key(&at) {
            *step.epochs += 1;
            let place = Place { epoch: *step.epochs, seq: 0 };
            self.records.insert(at, Record { place, users: BTreeMap::new() });
        }
        self.records.get_mut(&at)
    }

    fn publish(
        &mut self,
        at: usize,
        message: Message,
        step: &mut Step<'_>,
        except: Option<crate::protocol::SocketId>,
    ) {
        if self.total(at) == 0 {
            return;
        }
        let Some(record) = self.records.get_mut(&at) else { return };
        record.place = record.place.next();
        let arrival = Arrival { place: record.place, message, except };
        step.published.push((at, arrival.clone()));
        self.log.push_back((at, arrival));
        while self.log.len() > self.log_max {
            self.log.pop_front();
        }
    }

    fn look(&mut self, at: usize, since: Option<Place>, step: &mut Step<'_>) -> Snapshot {
        let online = at == super::WATCHERS && self.total(super::USER) > 0;
        let cached = self.cached.get(&at).map(|event| (event.clone(), super::TTL));
        let Some(record) = self.records.get_mut(&at) else {
            return Snapshot { online, cached, roster: Some(Vec::new()), ..Snapshot::default() };
        };
        if since.is_some_and(|since| since.epoch == record.place.epoch && since.seq > record.place.seq) {
            *step.epochs += 1;
            record.place.epoch = *step.epochs;
        }
        let Record { place, users } = record.clone();
        let is_missed = |arrival: &Arrival| {
            since.is_some_and(|since| {
                since.epoch == place.epoch
                    && arrival.place.epoch == place.epoch
                    && arrival.place.seq > since.seq
            })
        };
        let missed = self.log.iter().filter(|(topic, arrival)| *topic == at && is_missed(arrival));
        let roster = users.values().map(|(_, member)| member.clone()).collect();
        Snapshot {
            place,
            subscriptions: self.total(at),
            users: users.len(),
            roster: (since != Some(place) && topic(at).channel.kind().is_presence()).then_some(roster),
            cached,
            online,
            missed: missed.map(|(_, arrival)| arrival.clone()).collect(),
        }
    }
}

/// What a node has to say again, having opened the partition anew, so that the state is as the node knows it.
pub(super) fn differences(
    said: BTreeMap<usize, crate::mirror::Held>,
    there: &BTreeMap<usize, Part>,
    again: Again,
) -> Vec<Hold> {
    let mut holds = Vec::new();
    let mut hold = |topic: &Topic, count, change| {
        let traits = crate::mirror::Traits { tells: false, counts: super::counts(index_of(topic)) };
        holds.push(Hold { topic: topic.clone(), count, change, traits, again });
    };
    for (at, (_, users)) in there {
        let held = said.get(at);
        let is_here = |user_id: &str| {
            held.is_some_and(|held| held.members.iter().any(|member| *member.user_id == *user_id))
        };
        let count = held.map_or(0, |held| held.count);
        for user_id in users.iter().filter(|user_id| !is_here(user_id)) {
            hold(&topic(*at), count, Some(Change::Leaves(user_id.clone())));
        }
        hold(&topic(*at), count, None);
    }
    for (at, held) in said {
        let users = there.get(&at).map(|(_, users)| users.clone()).unwrap_or_default();
        for member in held.members.iter().filter(|member| !users.contains(&member.user_id)) {
            let change = Change::Enters { member: member.clone(), max: usize::MAX };
            hold(&held.topic, held.count, Some(change));
        }
        hold(&held.topic, held.count, None);
    }
    holds
}
