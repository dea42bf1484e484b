//! The shared state of one partition, as the steps of the cluster change it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::mirror::simulation::node::Told;
use crate::mirror::simulation::{index_of, topic};
use crate::mirror::{Again, Arrival, Change, Hold, Message, Op, Place, Publication, Reply, Snapshot, Traits};
use crate::protocol::{CachedEvent, Member};

/// What a node holds of a topic: connections and users.
pub(super) type Part = (u64, BTreeSet<Box<str>>);

/// Where the era is in a number, and what is below it.
const SHIFT: u32 = 44;
const NUMBER: u64 = (1 << SHIFT) - 1;

/// Everything that would be in Redis. A copy is a replica of it, or what is left of it after a fail-over.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Another one: everything was lost.
    pub(super) generation: u64,
    /// Another one whenever another server has the state.
    era: u64,
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
    /// Of the last message.
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
            era: 0,
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
            _ => Reply::Held(self.place(at)),
        }
    }

    /// Another server has the state, and it may lack the latest writes: what follows must not be taken for what was lost.
    pub(super) fn begin_again(&mut self, epochs: &mut u64) {
        *epochs += 1;
        self.era = *epochs;
    }

    /// The place of a topic, as it is said.
    fn place(&self, at: usize) -> Place {
        let place = |record: &Record| self.now(record.place);
        self.records.get(&at).map(place).unwrap_or_default()
    }

    fn now(&self, Place { epoch, seq }: Place) -> Place {
        Place { epoch, seq: self.era << SHIFT | seq & NUMBER }
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
                    traits: Traits { tells: false, counts: super::counts(at) },
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
        let place = self.place(at);
        if after == 0 {
            self.records.remove(&at);
        }
        Reply::Held(place)
    }

    /// The record of a topic, which comes into being if the topic is held.
    fn record(&mut self, at: usize, is_held: bool, step: &mut Step<'_>) -> Option<&mut Record> {
        if is_held && !self.records.contains_key(&at) {
            *step.epochs += 1;
            let place = self.now(Place { epoch: *step.epochs, seq: 0 });
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
        let place = self.place(at).next();
        let Some(record) = self.records.get_mut(&at) else { return };
        record.place = place;
        let arrival = Arrival { place, message, except };
        step.published.push((at, arrival.clone()));
        self.log.push_back((at, arrival));
        while self.log.len() > self.log_max {
            self.log.pop_front();
        }
    }

    fn look(&mut self, at: usize, since: Option<Place>, step: &mut Step<'_>) -> Snapshot {
        let online = at == super::WATCHERS && self.total(super::USER) > 0;
        let cached = self.cached.get(&at).map(|event| (event.clone(), super::TTL));
        let here = self.place(at);
        let Some(record) = self.records.get_mut(&at) else {
            return Snapshot { online, cached, roster: Some(Vec::new()), ..Snapshot::default() };
        };
        let since_here = since.filter(|since| since.epoch == here.epoch);
        if since_here.is_some_and(|since| since.seq > here.seq) {
            *step.epochs += 1;
            record.place = Place { epoch: *step.epochs, seq: here.seq & !NUMBER };
        }
        let users = record.users.clone();
        let (missed, is_all) = since_here.map(|since| self.missed(at, since)).unwrap_or_default();
        let place = self.place(at);
        let roster = users.values().map(|(_, member)| member.clone()).collect();
        Snapshot {
            place,
            subscriptions: self.total(at),
            users: users.len(),
            roster: (since != Some(place) && topic(at).channel.kind().is_presence()).then_some(roster),
            cached,
            online,
            missed,
            is_all,
        }
    }

    /// What the log has of a topic behind a place, without a hole up to the last message; and whether that is all.
    fn missed(&self, at: usize, since: Place) -> (Vec<Arrival>, bool) {
        let Some(Record { place: last, .. }) = self.records.get(&at) else { return Default::default() };
        if last.epoch != since.epoch {
            return Default::default();
        }
        let of_topic = self.log.iter().rev().filter(|(topic, _)| *topic == at).map(|(_, arrival)| arrival);
        let (mut found, mut next) = (Vec::new(), *last);
        for arrival in of_topic {
            if arrival.place.epoch != next.epoch || arrival.place.seq & NUMBER != next.seq & NUMBER {
                break;
            }
            next = arrival.place;
            if next.seq <= since.seq || next.seq & NUMBER == 0 {
                break;
            }
            found.insert(0, arrival.clone());
            next.seq -= 1;
        }
        (found, next.seq <= since.seq || next.seq & NUMBER == 0)
    }
}

/// What a node has to say again, having opened the partition anew, so that the state is as the node was told.
pub(super) fn differences(
    told: &BTreeMap<usize, Told>,
    there: &BTreeMap<usize, Part>,
    again: Again,
) -> Vec<Hold> {
    let mut holds = Vec::new();
    let mut hold = |at: usize, count, change| {
        let traits = Traits { tells: false, counts: super::counts(at) };
        holds.push(Hold { topic: topic(at), count, change, traits, again });
    };
    for (&at, (_, users)) in there {
        let told = told.get(&at);
        let is_here = |user_id: &str| told.is_some_and(|told| told.members.contains_key(user_id));
        let count = told.map_or(0, |told| told.count);
        for user_id in users.iter().filter(|user_id| !is_here(user_id)) {
            hold(at, count, Some(Change::Leaves(user_id.clone())));
        }
        hold(at, count, None);
    }
    for (&at, told) in told {
        let users = there.get(&at).map(|(_, users)| users.clone()).unwrap_or_default();
        for member in told.members.values().filter(|member| !users.contains(&member.user_id)) {
            let change = Change::Enters { member: member.clone(), max: usize::MAX };
            hold(at, told.count, Some(change));
        }
        hold(at, told.count, None);
    }
    holds
}
