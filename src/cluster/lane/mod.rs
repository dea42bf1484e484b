//! The way of one partition: what waits, what is under way, and what is done when an answer is lost.
//!
//! A plain value: work, times and answers come in, [`Command`]s and [`Outcome`]s go out.
//!
//! One command is under way at a time. Steps are numbered: one whose answer was lost is sent again with its number, and
//! Redis does it once. What Redis has acknowledged of this node's holdings is remembered, so that it can be restated to a
//! Redis that has lost it.
//!
//! Invariant: work leaves the lane answered, or is done by Redis exactly once, in the order it came; a publication that was
//! answered with "away" may at most have been done by the command that was under way just then.

#[cfg(test)]
mod tests;
mod told;
mod work;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::app::AppId;
use crate::cluster::lane::told::Told;
use crate::cluster::lane::work::{Flight, Waiter, What, Work};
use crate::cluster::script::{Item, Opened, Pulse};
use crate::hub::Topic;
use crate::metrics::Restated;
use crate::mirror::{Again, Change, Op, Reply};
use crate::node::{Away, Listed};

/// Most parts of one step, and most bytes of events in it, so that Redis is never busy with one for long.
const ITEMS_MAX: usize = 128;
const BYTES_MAX: usize = 512 * 1024;

/// Pauses between attempts, doubling.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the lanes of a node have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of a node that is silent.
    pub(super) lease: Duration,
    /// Of a publication while Redis is away.
    pub(super) patience: Duration,
    /// How long a leave may be undone.
    pub(super) debounce: Duration,
}

/// To be sent to Redis now. Its answer comes back to the lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Open,
    Beat,
    /// [`Lane::items`] with [`Lane::number`].
    Step,
    List {
        app: AppId,
        prefix: String,
    },
    Leave,
}

impl Command {
    /// The script it runs.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Beat => "beat",
            Self::Step => "step",
            Self::List { .. } => "list",
            Self::Leave => "leave",
        }
    }
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Answered {
    Opened(Opened),
    Pulse(Pulse),
    Replies(Vec<Reply>),
    Listed(Vec<Listed>),
    Left,
    /// Nothing was done, and it may work in a moment.
    NotRun,
    /// It may have been done or not.
    Unknown,
    /// This node has no lease.
    Fenced,
    /// Redis has lost some of this node's steps.
    Behind,
}

/// What has come of work, for whoever has not been answered by the lane itself.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the mirror had asked for, and the reply.
    pub(super) replies: Vec<(Op, Reply)>,
    /// A beat's news.
    pub(super) pulse: Option<Pulse>,
    /// The lease was taken again, since Redis had lost what it knew of this node: why, and how much is told again.
    pub(super) restated: Option<(Restated, usize)>,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Lane {
    limits: Limits,
    stage: Stage,
    generation: Option<u64>,
    /// Of the last step that was sent or done.
    number: u64,
    queue: VecDeque<Work>,
    /// How much work was ever taken out of the queue: its front has this number.
    taken: u64,
    /// Where in that count a mere number of connections waits to be told, so that a later one can take its place.
    counts: HashMap<Topic, u64>,
    flight: Option<Flight>,
    listing: Option<Waiter>,
    busy: bool,
    failing: Option<Instant>,
    pause: Duration,
    not_before: Option<Instant>,
    /// Since when every command has been answered. None while they are not.
    steady: Option<Instant>,
    beat_at: Option<Instant>,
    /// When the lease was last renewed.
    renewed: Option<Instant>,
    told: Told,
    /// Until when others may not have told again what Redis has lost of them: what seems to be new may not be.
    incomplete_until: Option<Instant>,
    is_last: bool,
    /// Callers who were told that Redis is away, since somebody last asked.
    given_up: u64,
    /// When the first of those who wait is to be told so.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// The lease must be taken, or what Redis knows be compared.
    Closed,
    Open,
    /// The lease was given back.
    Left,
}

impl Lane {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            stage: Stage::Closed,
            generation: None,
            number: 0,
            queue: VecDeque::new(),
            taken: 0,
            counts: HashMap::new(),
            flight: None,
            listing: None,
            busy: false,
            failing: None,
            pause: PAUSE_MIN,
            not_before: None,
            steady: None,
            beat_at: None,
            renewed: None,
            told: Told::default(),
            incomplete_until: None,
            is_last: false,
            given_up: 0,
            deadline: None,
        }
    }

    /// The number with which to take the lease. None is ever used twice, so that an older state shows by its number.
    pub(super) fn start(&self) -> u64 {
        self.number + 1
    }

    /// The number of the step to send.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The parts of the step to send.
    pub(super) fn items(&self) -> &[Item] {
        self.flight.as_ref().map_or(&[], |flight| &flight.items)
    }

    /// Whether the lease stands.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the lease was given back.
    pub(super) fn has_left(&self) -> bool {
        self.stage == Stage::Left
    }

    /// Since when no command was answered; none if the last one was.
    pub(super) fn failing(&self) -> Option<Instant> {
        self.failing
    }

    /// When the lease was last renewed.
    pub(super) fn renewed(&self) -> Option<Instant> {
        self.renewed
    }

    /// How much waits, and its bytes.
    pub(super) fn load(&self) -> (usize, usize) {
        let bytes = |work: &Work| {
            size_of::<Work>()
                + match &work.what {
                    What::Item(Item::Op(op)) => op.weight(),
                    What::Item(_) | What::List { .. } => 0,
                }
        };
        (self.queue.len() + self.items().len(), self.queue.iter().map(bytes).sum())
    }

    /// How many callers were told that Redis is away, since the last call.
    pub(super) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Whether others' leases may be judged: everybody has had the time to renew them since Redis was last away.
    pub(super) fn may_judge(&self, now: Instant) -> bool {
        self.steady.is_some_and(|since| now >= since + self.limits.lease)
    }

    /// A mirror's step.
    pub(super) fn tell(&mut self, op: Op) {
        if let Op::Hold(hold) = &op
            && hold.change.is_none()
            && hold.count > 0
        {
            let waits = self.counts.get(&hold.topic).and_then(|at| at.checked_sub(self.taken));
            let waits = waits.and_then(|at| self.queue.get_mut(usize::try_from(at).ok()?));
            if let Some(Work { what: What::Item(Item::Op(Op::Hold(waiting))), .. }) = waits
                && waiting.traits == hold.traits
            {
                waiting.count = hold.count;
                return;
            }
            self.counts.insert(hold.topic.clone(), self.taken + self.queue.len() as u64);
        } else if let Op::Hold(hold) = &op {
            // What comes later must not be put before this one.
            self.counts.remove(&hold.topic);
        }
        self.push(What::Item(Item::Op(op)), Waiter::Mirror);
    }

    /// A step that somebody waits for.
    pub(super) fn ask(&mut self, op: Op, caller: oneshot::Sender<Result<Reply, Away>>, now: Instant) {
        if self.is_away(now) {
            self.given_up += 1;
            drop(caller.send(Err(Away)));
            return;
        }
        self.push(What::Item(Item::Op(op)), Waiter::Caller(caller, now + self.limits.patience));
    }

    /// A list that somebody waits for.
    pub(super) fn list(
        &mut self,
        app: AppId,
        prefix: String,
        caller: oneshot::Sender<Result<Vec<Listed>, Away>>,
        now: Instant,
    ) {
        if self.is_away(now) {
            self.given_up += 1;
            drop(caller.send(Err(Away)));
            return;
        }
        self.push(What::List { app, prefix }, Waiter::Lister(caller, now + self.limits.patience));
    }

    /// Care for what others have left.
    pub(super) fn care(&mut self, item: Item) {
        self.push(What::Item(item), Waiter::Nobody);
    }

    /// Something is due then.
    pub(super) fn beat_at(&mut self, at: Instant) {
        self.beat_at = Some(self.beat_at.map_or(at, |before| before.min(at)));
    }

    /// Everything was said: gives the lease back when nothing waits any more.
    pub(super) fn finish(&mut self) {
        self.is_last = true;
    }

    /// What to send now, if anything. `run` names the run of Redis that will get it: another process, or another server,
    /// has another one, and may not have what its predecessor has done. 0 while there is none.
    pub(super) fn next(&mut self, run: u64, now: Instant) -> Option<Command> {
        if self.busy || self.stage == Stage::Left || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        if let Some(flight) = self.flight.as_mut().filter(|flight| run > 0 && flight.run != run)
            && std::mem::replace(&mut flight.run, run) > 0
            && flight.in_doubt
        {
            self.given_up += flight.give_up_doubtful();
        }
        let command = self.choose(run, now)?;
        self.busy = true;
        Some(command)
    }

    fn choose(&mut self, run: u64, now: Instant) -> Option<Command> {
        if self.stage == Stage::Closed {
            return Some(Command::Open);
        }
        if self.flight.is_some() {
            return Some(Command::Step);
        }
        if self.beat_at.is_none_or(|at| at <= now) {
            return Some(Command::Beat);
        }
        if let Some(Work { what: What::List { .. }, .. }) = self.queue.front() {
            let Work { what, waiter } = self.pop()?;
            let What::List { app, prefix } = what else { return None };
            self.listing = Some(waiter);
            return Some(Command::List { app, prefix });
        }
        if self.queue.is_empty() {
            return self.is_last.then_some(Command::Leave);
        }
        self.number += 1;
        self.flight = Some(self.take_flight(run, now));
        Some(Command::Step)
    }

    fn take_flight(&mut self, run: u64, now: Instant) -> Flight {
        self.incomplete_until.take_if(|until| *until <= now);
        let mut flight = Flight { run, ..Flight::default() };
        let mut bytes = 0;
        while let Some(Work { what: What::Item(item), .. }) = self.queue.front() {
            if let Item::Op(op) = item {
                bytes += op.weight();
            }
            if flight.items.len() >= ITEMS_MAX || (bytes > BYTES_MAX && !flight.items.is_empty()) {
                break;
            }
            let Some(Work { what: What::Item(mut item), waiter }) = self.pop() else { break };
            if let Item::Op(Op::Hold(hold)) = &mut item
                && hold.again == Again::No
                && self.incomplete_until.is_some()
            {
                hold.again = Again::Marked;
            }
            if let Item::Op(Op::Hold(hold)) = &item
                && self.counts.get(&hold.topic).is_some_and(|at| *at < self.taken)
            {
                self.counts.remove(&hold.topic);
            }
            flight.items.push(item);
            flight.waiters.push(waiter);
        }
        flight
    }

    /// What came of the command that was under way.
    pub(super) fn answered(&mut self, answered: Answered, now: Instant) -> Outcome {
        self.busy = false;
        let mut outcome = Outcome { replies: Vec::new(), pulse: None, restated: None };
        match answered {
            Answered::NotRun | Answered::Unknown => {
                if let (Some(flight), Answered::Unknown) = (&mut self.flight, &answered) {
                    flight.in_doubt = true;
                }
                self.failed(now);
                return outcome;
            }
            Answered::Fenced | Answered::Behind => self.stage = Stage::Closed,
            Answered::Opened(opened) => outcome.restated = self.opened(opened, now),
            Answered::Pulse(pulse) => self.pulse(pulse, now, &mut outcome),
            Answered::Replies(replies) => self.replied(replies, now, &mut outcome),
            Answered::Listed(listed) => {
                if let Some(Waiter::Lister(caller, _)) = self.listing.take() {
                    drop(caller.send(Ok(listed)));
                }
            }
            Answered::Left => self.stage = Stage::Left,
        }
        self.failing = None;
        self.pause = PAUSE_MIN;
        self.steady.get_or_insert(now);
        outcome
    }

    /// Answers those who have waited too long. To be called every now and then.
    pub(super) fn expire(&mut self, now: Instant) {
        self.told.settle(self.limits.debounce, now);
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        let flying = self.flight.iter_mut().flat_map(|flight| &mut flight.waiters);
        let waiting = self.queue.iter_mut().map(|work| &mut work.waiter);
        for waiter in flying.chain(waiting).chain(&mut self.listing) {
            match waiter.until() {
                Some(until) if until <= now => self.given_up += waiter.give_up(),
                later => self.deadline = self.deadline.into_iter().chain(later).min(),
            }
        }
        let busy = self.busy;
        if let Some(flight) = self.flight.as_mut().filter(|_| !busy) {
            flight.forget_given_up();
        }
        let before = self.queue.len();
        self.queue.retain(|work| !work.is_given_up());
        if self.queue.len() < before {
            // Places have moved: numbers of connections are simply told one by one.
            self.counts.clear();
        }
    }

    /// Redis has been away for longer than anybody should wait.
    fn is_away(&self, now: Instant) -> bool {
        self.failing.is_some_and(|since| now >= since + self.limits.patience)
    }

    fn push(&mut self, what: What, waiter: Waiter) {
        self.deadline = self.deadline.into_iter().chain(waiter.until()).min();
        self.queue.push_back(Work { what, waiter });
    }

    fn pop(&mut self) -> Option<Work> {
        let work = self.queue.pop_front()?;
        self.taken += 1;
        Some(work)
    }

    fn failed(&mut self, now: Instant) {
        if let Some(mut lister) = self.listing.take() {
            self.given_up += lister.give_up();
        }
        self.failing.get_or_insert(now);
        self.steady = None;
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if let Some(flight) = &mut self.flight {
            flight.forget_given_up();
        }
    }

    /// The lease stands. What Redis does not know of this node any more is told again, before everything that waits.
    fn opened(&mut self, opened: Opened, now: Instant) -> Option<(Restated, usize)> {
        let before = self.generation.replace(opened.generation);
        self.stage = Stage::Open;
        self.renewed = Some(now);
        self.beat_at = Some(now);
        self.number = self.start();
        self.take_back_flight();
        self.counts.clear();
        let why = match before? {
            generation if generation != opened.generation => Restated::Lost,
            _ if opened.held.is_empty() => Restated::Fenced,
            _ => Restated::Behind,
        };
        if why != Restated::Fenced {
            self.incomplete_until = Some(now + self.limits.lease);
        }
        let holds = match why {
            Restated::Lost => self.told.all_again(self.limits.debounce, now),
            // Webhooks have told that everything has gone.
            Restated::Fenced => self.told.differences(&opened.held, Again::No),
            Restated::Behind => self.told.differences(&opened.held, Again::Marked),
        };
        let count = holds.len();
        for hold in holds.into_iter().rev() {
            let what = What::Item(Item::Op(Op::Hold(hold)));
            self.queue.push_front(Work { what, waiter: Waiter::Nobody });
        }
        Some((why, count))
    }

    /// The step under way is work again. Whoever waits for a publication that may have been done is told that it was not.
    fn take_back_flight(&mut self) {
        let Some(mut flight) = self.flight.take() else { return };
        match flight.in_doubt {
            true => self.given_up += flight.give_up_doubtful(),
            false => flight.forget_given_up(),
        }
        for (item, waiter) in flight.items.into_iter().zip(flight.waiters).rev() {
            self.queue.push_front(Work { what: What::Item(item), waiter });
        }
    }

    fn pulse(&mut self, pulse: Pulse, now: Instant, outcome: &mut Outcome) {
        self.renewed = Some(now);
        let next = pulse.next_due_ms.map(|ms| now + Duration::from_millis(ms.max(10)));
        let regular = now + self.limits.lease / 5;
        self.beat_at = Some(next.map_or(regular, |next| next.min(regular)));
        if pulse.step != self.number {
            // Nothing is under way, or there would have been no beat: Redis has lost something.
            self.stage = Stage::Closed;
        }
        outcome.pulse = Some(pulse);
    }

    fn replied(&mut self, replies: Vec<Reply>, now: Instant, outcome: &mut Outcome) {
        let Some(flight) = self.flight.take() else { return };
        let mut replies = replies.into_iter();
        for (item, waiter) in flight.items.into_iter().zip(flight.waiters) {
            let Item::Op(op) = item else { continue };
            let Some(reply) = replies.next() else { break };
            if let (Op::Hold(hold), Reply::Held(_)) = (&op, &reply) {
                let leaves = matches!(hold.change, Some(Change::Leaves(_))) || hold.count == 0;
                self.told.took(hold, now);
                if leaves && hold.traits.tells {
                    self.beat_at(now + self.limits.debounce + Duration::from_millis(10));
                }
            }
            match waiter {
                Waiter::Mirror => outcome.replies.push((op, reply)),
                Waiter::Caller(caller, _) => drop(caller.send(Ok(reply))),
                Waiter::Nobody | Waiter::Lister(..) => {}
            }
        }
    }
}
