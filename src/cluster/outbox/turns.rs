//! Which facts are taken when, and what becomes of them.
//!
//! A plain value: what is heard, and what time it is, come in; scripts to run and facts to tell go out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::outbox::partition::{Asked, Partition, Role};
use crate::cluster::outbox::share::preferred;
use crate::cluster::script::{Taken, TakenFact};
use crate::mirror::PARTITIONS;
use crate::node::{FactAnswer, Room, Tenure, Told};

/// Most facts that are taken with one call.
pub(super) const TAKEN_MAX: usize = 100;

/// So many facts may be on their way to webhooks, or wait there for room. The rest waits in Redis.
pub(super) const FACTS_MAX: usize = 1000;

/// And what they may take, in bytes; the last call may bring more.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// All partitions, as seen from this node.
#[derive(Debug)]
pub(super) struct Turns {
    name: String,
    lease: Duration,
    partitions: Vec<Partition>,
    /// Whose turn it is to be looked at.
    next: usize,
    actions: VecDeque<Action>,
    /// What webhooks were told and have not made room for yet, and what was asked for.
    under_way: Room,
    asked_for: usize,
    is_closing: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Listen to the wake topic of a partition.
    Listen(u8),
    /// Listen no longer.
    Unlisten(u8),
    /// Take facts. The answer is for [`Turns::taken`].
    Take {
        /// Whose.
        partition: u8,
        /// Behind this one.
        after: String,
        /// At most so many.
        max: usize,
    },
    /// Give the turn back. The answer is for [`Turns::taken`], too.
    Release(u8),
    /// Forget facts. The answer is for [`Turns::done`].
    Done {
        /// Whose.
        partition: u8,
        /// Which.
        ids: Vec<String>,
    },
    /// Have webhooks tell a fact.
    Tell {
        /// Of this partition.
        partition: u8,
        /// Which.
        fact: TakenFact,
        /// For how long the node has it to itself.
        tenure: Arc<Tenure>,
    },
    /// Tell webhooks that another node tells some of what they have under way.
    TellLost,
}

/// Why there is no answer of Redis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    /// It may work in a moment.
    Passing,
    /// Somebody has to mend it.
    Lasting,
}

impl Turns {
    pub(super) fn new(name: &str, lease: Duration, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            lease,
            partitions: (0..PARTITIONS).map(|_| Partition::new(now)).collect(),
            next: 0,
            actions: VecDeque::new(),
            under_way: Room::default(),
            asked_for: 0,
            is_closing: false,
        }
    }

    /// How this node is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A beat tells that these nodes have a lease in a partition.
    pub(super) fn follow(&mut self, number: u8, live: &[String], now: Instant) {
        let is_preferred = !self.is_closing && preferred(number, live) == Some(&self.name);
        let Some(partition) = self.partitions.get_mut(usize::from(number)) else { return };
        partition.is_preferred = is_preferred;
        if live.contains(&self.name) {
            // The lease was renewed some time before this is heard.
            partition.is_sure_until(now + self.lease / 2, now);
        }
        match (partition.role, is_preferred) {
            (Role::Bystander, true) => {
                partition.role = Role::Candidate;
                partition.ask_now(now);
                self.actions.push_back(Action::Listen(number));
            }
            (_, false) if partition.may_step_back() => {
                partition.role = Role::Bystander;
                self.actions.push_back(Action::Unlisten(number));
            }
            _ => {}
        }
    }

    /// There may be new facts.
    pub(super) fn wake(&mut self, number: u8, now: Instant) {
        if let Some(partition) = self.partitions.get_mut(usize::from(number)) {
            partition.wake(now);
        }
    }

    /// Redis was away and answers again, or it is another server that answers.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.partitions.iter_mut().for_each(|partition| partition.begin_again(now));
    }

    /// Others may have taken over a partition.
    pub(super) fn doubt(&mut self, number: u8, now: Instant) {
        if let Some(partition) = self.partitions.get_mut(usize::from(number)) {
            partition.doubt();
            partition.begin_again(now);
        }
    }

    /// Nothing more is taken. Turns are given back when nothing is under way any more.
    pub(super) fn close(&mut self, now: Instant) {
        self.is_closing = true;
        (0..PARTITIONS).for_each(|number| self.follow(number, &[], now));
    }

    /// Whether nothing is left to do after [`Self::close`].
    pub(super) fn is_over(&self) -> bool {
        let is_over = |partition: &Partition| {
            partition.is_idle() && partition.asked.is_none() && partition.role == Role::Bystander
        };
        self.is_closing && self.partitions.iter().all(is_over)
    }

    /// What is to be done next, if there is something.
    pub(super) fn next(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        for _ in 0..self.partitions.len() {
            let at = self.next;
            self.next = (at + 1) % self.partitions.len();
            let action = self.next_of(at, now);
            if action.is_some() {
                return action;
            }
        }
        None
    }

    /// When there will be something to do by itself, if [`Self::next`] has nothing at this time.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let times = |partition: &Partition| {
            [partition.takes_at(), partition.releases_at(self.is_closing), partition.forgets_at()]
        };
        // What is due and was not done waits for room.
        self.partitions.iter().flat_map(times).flatten().filter(|at| *at > now).min()
    }

    fn next_of(&mut self, at: usize, now: Instant) -> Option<Action> {
        let max = self.room();
        let number = u8::try_from(at).ok()?;
        let partition = self.partitions.get_mut(at)?;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(partition.forgets_at()) {
            return Some(Action::Done { partition: number, ids: partition.start_forgetting() });
        }
        if is_due(partition.releases_at(self.is_closing)) {
            partition.start_releasing();
            return Some(Action::Release(number));
        }
        partition.hold_back(now);
        if !self.is_closing && max > 0 && is_due(partition.takes_at()) {
            self.asked_for += max;
            return Some(Action::Take { partition: number, after: partition.start_taking(max), max });
        }
        None
    }

    /// How many facts may be asked for.
    fn room(&self) -> usize {
        if self.under_way.bytes >= BYTES_MAX {
            return 0;
        }
        FACTS_MAX.saturating_sub(self.under_way.facts + self.asked_for).min(TAKEN_MAX)
    }

    /// The answer to [`Action::Take`] or [`Action::Release`].
    pub(super) fn taken(&mut self, number: u8, answer: Result<Taken, Trouble>, now: Instant) {
        let Some(partition) = self.partitions.get_mut(usize::from(number)) else { return };
        let Some(asked) = partition.asked.take() else { return };
        if let Asked::Take(max) = asked {
            self.asked_for -= max;
        }
        match (asked, answer) {
            (_, Err(trouble)) => partition.failed(trouble, now),
            (Asked::Release, Ok(_)) => partition.step_back(now),
            (Asked::Take(max), Ok(taken)) if taken.owner == self.name => {
                // At the end they are left to others.
                let facts = if self.is_closing { Vec::new() } else { taken.facts };
                for (fact, tenure) in partition.take_over(facts, max, now) {
                    self.under_way.facts += 1;
                    self.under_way.bytes += Told::weight_of(&fact.occurrence);
                    self.actions.push_back(Action::Tell { partition: number, fact, tenure });
                }
            }
            (Asked::Take(_), Ok(_)) => {
                if partition.leave_to_others(now) {
                    self.actions.push_back(Action::TellLost);
                }
            }
        }
        if partition.role == Role::Bystander {
            self.actions.push_back(Action::Unlisten(number));
        }
    }

    /// The answer to [`Action::Done`].
    pub(super) fn done(&mut self, number: u8, answer: Result<(), Trouble>, now: Instant) {
        if let Some(partition) = self.partitions.get_mut(usize::from(number)) {
            partition.forgotten(answer, now);
        }
    }

    /// Webhooks say what has become of facts.
    pub(super) fn answered(&mut self, answer: FactAnswer, now: Instant) {
        match answer {
            FactAnswer::Ended { partition, id, tenure, done } => {
                if let Some(partition) = self.partitions.get_mut(usize::from(partition)) {
                    partition.ended(id, &tenure, done, now);
                }
            }
            FactAnswer::Room(room) => {
                self.under_way.facts = self.under_way.facts.saturating_sub(room.facts);
                self.under_way.bytes = self.under_way.bytes.saturating_sub(room.bytes);
            }
            FactAnswer::Closing => self.close(now),
        }
    }
}
