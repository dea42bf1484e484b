//! Nodes that share the facts of a partition, under chosen and random stories, with a Redis that is a value.

mod random;
mod stories;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::outbox::share::preferred;
use crate::cluster::outbox::turns::{Action, Trouble, Turns};
use crate::cluster::script::{Taken, TakenFact};
use crate::hub::{Fact, Occurrence};
use crate::node::{FactAnswer, Room, Tenure, Told};
use crate::protocol::ChannelName;

const PARTITION: u8 = 7;
const LEASE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn occurrence(number: u64) -> Occurrence {
    let channel = ChannelName::parse("room", 200).expect("a name");
    Occurrence { app: "1".into(), channel, fact: Fact::Counted(number) }
}

/// What Redis has of the partition. Facts are numbers, and their ids the same as text.
#[derive(Clone, Debug, Default)]
struct Redis {
    facts: BTreeSet<u64>,
    added: u64,
    taken: u64,
    owner: String,
    /// Until when each node has its lease.
    leases: HashMap<String, Instant>,
}

impl Redis {
    fn has_lease(&self, node: &str, now: Instant) -> bool {
        self.leases.get(node).is_some_and(|until| *until > now)
    }

    fn take(&mut self, node: &str, after: &str, max: usize, now: Instant) -> Result<Taken, Trouble> {
        if !self.has_lease(node, now) {
            return Err(Trouble::Lasting);
        }
        if self.owner != node && self.has_lease(&self.owner, now) {
            return Ok(Taken { facts: Vec::new(), owner: self.owner.clone() });
        }
        self.owner = node.to_owned();
        let after: u64 = after.parse().unwrap_or_default();
        let numbers: Vec<u64> = self.facts.range(after + 1..).take(max).copied().collect();
        let fact = |number: &u64| TakenFact {
            id: number.to_string(),
            time_ms: 0,
            occurrence: occurrence(*number),
            again: *number <= self.taken,
        };
        let facts = numbers.iter().map(fact).collect();
        self.taken = self.taken.max(numbers.last().copied().unwrap_or_default());
        Ok(Taken { facts, owner: self.owner.clone() })
    }

    fn release(&mut self, node: &str) -> Taken {
        if self.owner == node {
            self.owner.clear();
        }
        Taken { facts: Vec::new(), owner: self.owner.clone() }
    }
}

/// A node, with what its webhooks have under way.
struct Peer {
    name: String,
    turns: Turns,
    listens: bool,
    is_connected: bool,
    /// Scripts on their way.
    calls: VecDeque<Action>,
    webhooks: Vec<Telling>,
    /// What it has delivered.
    delivered: HashSet<u64>,
}

struct Telling {
    number: u64,
    again: bool,
    tenure: Arc<Tenure>,
}

/// A script's fate.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// It is run, and nobody hears of it.
    AnswerLost,
    NotRun,
}

struct Story {
    start: Instant,
    elapsed: Duration,
    redis: Redis,
    peers: Vec<Peer>,
    /// Every node that was told a fact, by its number.
    told_to: HashMap<u64, Vec<usize>>,
    /// The newest fact that somebody was told.
    newest: u64,
    /// Deliveries, each with whether it was marked as a repetition.
    delivered: Vec<(u64, bool)>,
    /// Redis has forgotten something: it may have facts that were told and not know it.
    has_forgotten: bool,
}

impl Story {
    fn of(peers: usize) -> Self {
        let start = Instant::now();
        let peer = |number: usize| {
            let name = format!("node-{number}");
            Peer {
                turns: Turns::new(&name, LEASE, start),
                name,
                listens: false,
                is_connected: true,
                calls: VecDeque::new(),
                webhooks: Vec::new(),
                delivered: HashSet::new(),
            }
        };
        let mut story = Self {
            start,
            elapsed: Duration::ZERO,
            redis: Redis::default(),
            peers: (0..peers).map(peer).collect(),
            told_to: HashMap::new(),
            newest: 0,
            delivered: Vec::new(),
            has_forgotten: false,
        };
        story.beat();
        story
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// The number of the node that should have the turn.
    fn preferred(&self) -> usize {
        let live = self.live();
        let name = preferred(PARTITION, &live).expect("a node");
        self.peers.iter().position(|peer| peer.name == name).expect("a peer")
    }

    fn live(&self) -> Vec<String> {
        let has_lease = |peer: &&Peer| self.redis.has_lease(&peer.name, self.now());
        self.peers.iter().filter(has_lease).map(|peer| peer.name.clone()).collect()
    }

    /// Nodes renew their leases and hear of each other.
    fn beat(&mut self) {
        let now = self.now();
        for peer in self.peers.iter_mut().filter(|peer| peer.is_connected) {
            if self.redis.leases.insert(peer.name.clone(), now + LEASE).is_some_and(|until| until <= now) {
                // As the engine does when a lease had run out.
                peer.turns.doubt(PARTITION, now);
            }
        }
        let live = self.live();
        for peer in self.peers.iter_mut().filter(|peer| peer.is_connected) {
            peer.turns.follow(PARTITION, &live, now);
        }
    }

    fn add(&mut self, count: u64, is_heard: bool) {
        let now = self.now();
        for _ in 0..count {
            self.redis.added += 1;
            self.redis.facts.insert(self.redis.added);
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.listens && peer.is_connected && is_heard) {
            peer.turns.wake(PARTITION, now);
        }
    }

    /// Has a node begin what it wants to do.
    fn pump(&mut self, at: usize) {
        let now = self.now();
        while let Some(action) = self.peers[at].turns.next(now) {
            let peer = &mut self.peers[at];
            match action {
                Action::Listen(partition) => {
                    assert!(partition == PARTITION && !peer.listens);
                    peer.listens = true;
                }
                Action::Unlisten(partition) => {
                    assert!(partition == PARTITION && peer.listens);
                    peer.listens = false;
                }
                Action::Tell { fact, tenure, .. } => self.tell(at, &fact, tenure),
                Action::TellLost => peer.webhooks.retain(|telling| !telling.tenure.is_lost()),
                call => peer.calls.push_back(call),
            }
        }
        let wake = self.peers[at].turns.wake_at(now);
        assert!(wake.is_none_or(|at| at > now), "nothing is left to do at this time");
    }

    fn tell(&mut self, at: usize, fact: &TakenFact, tenure: Arc<Tenure>) {
        let Fact::Counted(number) = fact.occurrence.fact else { panic!("{fact:?}") };
        let peer = &mut self.peers[at];
        let is_told = |telling: &Telling| telling.number == number && !telling.tenure.is_lost();
        assert!(!peer.webhooks.iter().any(is_told), "{number} is under way twice in {}", peer.name);
        let is_repeated = peer.delivered.contains(&number);
        assert!(!is_repeated || self.has_forgotten, "{number} is told again by {}", peer.name);
        let told_to = self.told_to.entry(number).or_default();
        assert!(told_to.is_empty() || fact.again || self.has_forgotten, "{number} is not marked");
        told_to.push(at);
        let is_newest = self.newest < number;
        assert!(is_newest || fact.again || self.has_forgotten, "new facts are told in their order");
        self.newest = self.newest.max(number);
        peer.webhooks.push(Telling { number, again: fact.again, tenure });
        let room = Room { facts: 1, bytes: Told::weight_of(&fact.occurrence) };
        peer.turns.answered(FactAnswer::Room(room), self.start + self.elapsed);
    }

    /// The oldest script of a node comes to its end.
    fn run(&mut self, at: usize, fate: Fate) {
        let now = self.now();
        let peer = &mut self.peers[at];
        let Some(call) = peer.calls.pop_front() else { return };
        let fate = if peer.is_connected { fate } else { Fate::NotRun };
        let is_run = !matches!(fate, Fate::NotRun);
        let heard = matches!(fate, Fate::Answered);
        match call {
            Action::Take { after, max, .. } => {
                let taken = is_run.then(|| self.redis.take(&peer.name, &after, max, now));
                let answer = taken.filter(|_| heard).unwrap_or(Err(Trouble::Passing));
                peer.turns.taken(PARTITION, answer, now);
            }
            Action::Release(_) => {
                let released = is_run.then(|| self.redis.release(&peer.name));
                let answer = released.filter(|_| heard).ok_or(Trouble::Passing);
                peer.turns.taken(PARTITION, answer, now);
            }
            Action::Done { ids, .. } => {
                if is_run {
                    for id in ids {
                        self.redis.facts.remove(&id.parse().expect("a number"));
                    }
                }
                peer.turns.done(PARTITION, if heard { Ok(()) } else { Err(Trouble::Passing) }, now);
            }
            other => panic!("{other:?} is no script"),
        }
    }

    /// A fact that a node has under way comes to its end.
    fn end(&mut self, at: usize, which: usize, done: bool) {
        let now = self.now();
        let peer = &mut self.peers[at];
        let Telling { number, again, tenure } = peer.webhooks.remove(which);
        if done {
            let marked = again || tenure.is_doubtful(now);
            let to_others = self.told_to[&number].iter().any(|other| *other != at);
            // The first node may have delivered before the next one was told of it, but not after.
            assert!(marked || !to_others || self.has_forgotten, "{number} comes from {} unmarked", peer.name);
            peer.delivered.insert(number);
            self.delivered.push((number, marked));
        }
        let id = number.to_string().into_boxed_str();
        peer.turns.answered(FactAnswer::Ended { partition: PARTITION, id, tenure, done }, now);
    }

    /// Time passes; all nodes that can renew their leases do.
    fn wait(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(SECOND);
            self.elapsed += step;
            left -= step;
            self.beat();
            (0..self.peers.len()).for_each(|at| self.pump(at));
        }
    }

    fn connect(&mut self, at: usize, is_connected: bool) {
        let now = self.now();
        self.peers[at].is_connected = is_connected;
        if is_connected {
            self.peers[at].turns.reconnected(now);
        }
        self.beat();
    }

    /// Does everything that can be done at this time.
    fn settle(&mut self) {
        loop {
            (0..self.peers.len()).for_each(|at| self.pump(at));
            let busy: Vec<usize> =
                (0..self.peers.len()).filter(|at| !self.peers[*at].calls.is_empty()).collect();
            if busy.is_empty() {
                return;
            }
            busy.into_iter().for_each(|at| self.run(at, Fate::Answered));
        }
    }

    /// The facts that a node has under way, with whether they were told before.
    fn under_way(&self, at: usize) -> Vec<(u64, bool)> {
        self.peers[at].webhooks.iter().map(|telling| (telling.number, telling.again)).collect()
    }

    fn deliver_all(&mut self, at: usize) {
        while !self.peers[at].webhooks.is_empty() {
            self.end(at, 0, true);
        }
        self.settle();
    }
}
