//! What waits for one receiver, and when it may be asked to take it.
//!
//! Every delivery joins the [`Lanes`] of its channels. The first in all of them is ready, and whoever is ready is sent,
//! so long as fewer requests are under way than may be. That makes the order of first attempts on each channel, and
//! keeps requests of one channel from overlapping. A failed delivery holds its channels for its first attempts, so that
//! a hiccup puts nothing out of order; then it lets others pass, since one that cannot be delivered must not hold up a
//! channel for minutes.
//!
//! A receiver that fails again and again with different deliveries is *down*: it is asked with one delivery at a time,
//! after growing pauses, until it takes one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::node::Receipt;
use crate::protocol::ChannelName;
use crate::webhook::delivery::{Attempt, Delivery, Endpoint, Failure, ReceiverId, Seq, Ticket};
use crate::webhook::lanes::Lanes;

/// How often a delivery is tried before others of its channels may pass it: some three seconds.
const HELD_ATTEMPTS: u32 = 3;

/// Failures in a row, each of another delivery than the one before, after which a receiver is down.
const DOWN_AFTER: u32 = 5;

/// The longest pause between two attempts of a delivery.
const PAUSE_MAX: Duration = Duration::from_secs(256);

/// The longest pause between two probes of a receiver that is down.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(32);

/// A delivery that was never tried outlives its time by this while the receiver takes others.
const UNTRIED_GRACE: Duration = Duration::from_secs(60);

/// A receiver and what waits for it.
#[derive(Debug)]
pub(super) struct Receiver {
    id: ReceiverId,
    endpoint: Arc<Endpoint>,
    /// Events that wait for others to travel with.
    pub(super) batch: Option<Batch>,
    waiting: BTreeMap<Seq, Waiting>,
    lanes: Lanes,
    /// In the order of their turns. May name some that are gone.
    ready: VecDeque<Seq>,
    pauses: BTreeSet<(Instant, Seq)>,
    in_flight: usize,
    health: Health,
    /// Of everything above.
    pub(super) bytes: usize,
}

/// Events that will be one delivery.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) app: Arc<App>,
    pub(super) events: String,
    pub(super) count: usize,
    pub(super) channels: Vec<ChannelName>,
    pub(super) weight: usize,
    /// They may have been told before.
    pub(super) again: bool,
    /// Of those that Redis keeps.
    pub(super) receipts: Vec<Receipt>,
    /// When the first of them happened.
    pub(super) time_ms: u64,
    /// When they are given up.
    pub(super) until: Instant,
    pub(super) due: Instant,
}

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    state: State,
    /// It is in the queues of its channels.
    in_lanes: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Others are before it on so many channels.
    Blocked(usize),
    Ready,
    InFlight,
    /// It failed and will be tried again then.
    Paused(Instant),
}

#[derive(Debug, Default)]
struct Health {
    /// In a row.
    failures: u32,
    last_failed: Option<Seq>,
    error: String,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    probes: u32,
    probe_at: Instant,
    probe: Option<Seq>,
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Finished {
    /// It was delivered.
    Delivered(Delivery),
    /// It will be tried again.
    Failed,
    /// Its time is over.
    GivenUp(Delivery),
}

/// A change worth a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The first failure after a success.
    Failing,
    /// It will only be probed now.
    Down,
    /// It takes deliveries again.
    Up,
}

impl Receiver {
    pub(super) fn new(id: ReceiverId, endpoint: Arc<Endpoint>) -> Self {
        Self {
            id,
            endpoint,
            batch: None,
            waiting: BTreeMap::new(),
            lanes: Lanes::default(),
            ready: VecDeque::new(),
            pauses: BTreeSet::new(),
            in_flight: 0,
            health: Health::default(),
            bytes: 0,
        }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// It is another one from now on, also for what waits.
    pub(super) fn rename(&mut self, endpoint: Arc<Endpoint>) {
        self.endpoint = endpoint;
    }

    /// Nothing waits for it.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_none() && self.waiting.is_empty()
    }

    pub(super) fn is_down(&self) -> bool {
        self.health.down.is_some()
    }

    /// What went wrong last.
    pub(super) fn error(&self) -> &str {
        &self.health.error
    }

    /// Everything that waits, in its order.
    pub(super) fn deliveries(&self) -> impl ExactSizeIterator<Item = &Delivery> {
        self.waiting.values().map(|waiting| &waiting.delivery)
    }

    /// How many events wait.
    pub(super) fn events(&self) -> usize {
        let batch = self.batch.as_ref().map_or(0, |batch| batch.count);
        batch + self.deliveries().map(|delivery| delivery.count).sum::<usize>()
    }

    /// How many of them Redis keeps.
    pub(super) fn receipts(&self) -> usize {
        let batch = self.batch.as_ref().map_or(0, |batch| batch.receipts.len());
        batch + self.deliveries().map(|delivery| delivery.receipts.len()).sum::<usize>()
    }

    /// The receipts of everything that waits.
    pub(super) fn into_receipts(self) -> impl Iterator<Item = Receipt> {
        let batch = self.batch.into_iter().flat_map(|batch| batch.receipts);
        batch.chain(self.waiting.into_values().flat_map(|waiting| waiting.delivery.receipts))
    }

    /// Adds a delivery whose number is higher than all before.
    pub(super) fn add(&mut self, seq: Seq, delivery: Delivery) {
        self.waiting.insert(seq, Waiting { delivery, state: State::Ready, in_lanes: false });
        self.line_up(seq);
    }

    /// Whether an attempt may begin.
    pub(super) fn may_start(&self, now: Instant, concurrency: usize) -> bool {
        let healthy = match &self.health.down {
            None => true,
            Some(down) => down.probe.is_none() && down.probe_at <= now,
        };
        healthy && self.in_flight < concurrency && !self.ready.is_empty()
    }

    /// The next attempt to begin, if one may.
    pub(super) fn start(&mut self, now: Instant, concurrency: usize) -> Option<Attempt> {
        if !self.may_start(now, concurrency) {
            return None;
        }
        while let Some(seq) = self.ready.pop_front() {
            let Some(waiting) = self.waiting.get_mut(&seq) else { continue };
            waiting.state = State::InFlight;
            waiting.delivery.attempts += 1;
            self.in_flight += 1;
            if let Some(down) = &mut self.health.down {
                down.probe = Some(seq);
            }
            let ticket = Ticket { receiver: self.id, delivery: seq };
            return Some(Attempt::new(ticket, &self.endpoint, &waiting.delivery, now));
        }
        None
    }

    /// An attempt has ended. None if nobody knows of it.
    pub(super) fn finished(
        &mut self,
        seq: Seq,
        outcome: &Result<(), Failure>,
        now: Instant,
    ) -> Option<(Finished, Option<Change>)> {
        let waiting = self.waiting.get_mut(&seq).filter(|waiting| waiting.state == State::InFlight)?;
        self.in_flight -= 1;
        let Err(failure) = outcome else {
            let change = self.health.succeeded();
            return self.remove(seq).map(|delivery| (Finished::Delivered(delivery), change));
        };
        let change = self.health.failed(seq, failure, now);
        let again = now + pause(waiting.delivery.attempts, PAUSE_MAX);
        if again > waiting.delivery.until {
            return self.remove(seq).map(|delivery| (Finished::GivenUp(delivery), change));
        }
        waiting.state = State::Paused(again);
        self.pauses.insert((again, seq));
        if waiting.delivery.attempts >= HELD_ATTEMPTS {
            waiting.in_lanes = false;
            let next = self.lanes.leave(seq, &waiting.delivery.channels);
            self.advance(next);
        }
        Some((Finished::Failed, change))
    }

    /// Has those whose pause is over line up again, and takes out those whose time is.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Delivery> {
        while let Some((_, seq)) = self.pauses.first().copied().filter(|(until, _)| *until <= now) {
            self.pauses.pop_first();
            self.line_up(seq);
        }
        let over = |waiting: &Waiting| waiting.state != State::InFlight && self.end_of(waiting) <= now;
        let in_flight = |waiting: &Waiting| waiting.state == State::InFlight;
        let first = self.waiting.iter().take_while(|(_, waiting)| in_flight(waiting) || over(waiting));
        let over: Vec<Seq> = first.filter(|(_, waiting)| !in_flight(waiting)).map(|(seq, _)| *seq).collect();
        over.into_iter().filter_map(|seq| self.remove(seq)).collect()
    }

    /// Takes out what other nodes tell now, but for what is under way.
    pub(super) fn take_lost(&mut self) -> Vec<Delivery> {
        let lost = |waiting: &Waiting| waiting.state != State::InFlight && waiting.delivery.is_lost();
        let lost: Vec<Seq> =
            self.waiting.iter().filter(|(_, waiting)| lost(waiting)).map(|(seq, _)| *seq).collect();
        lost.into_iter().filter_map(|seq| self.remove(seq)).collect()
    }

    /// When there will be something to do here by itself. After [`Self::settle`] that is later than now.
    pub(super) fn wake(&self, now: Instant, concurrency: usize) -> Option<Instant> {
        let batch = self.batch.as_ref().map(|batch| batch.due);
        let pause = self.pauses.first().map(|(until, _)| *until);
        let idle = |waiting: &&Waiting| waiting.state != State::InFlight;
        let end = self.waiting.values().find(idle).map(|waiting| self.end_of(waiting));
        let can_probe = self.in_flight < concurrency && !self.ready.is_empty();
        let down = self.health.down.as_ref().filter(|down| down.probe.is_none() && can_probe);
        // One that is due waits for nothing but to be begun.
        let probe = down.map(|down| down.probe_at).filter(|at| *at > now);
        batch.into_iter().chain(pause).chain(end).chain(probe).min()
    }

    /// When a delivery is given up. The numbers of deliveries are in the order of their ends, but for restored ones.
    fn end_of(&self, waiting: &Waiting) -> Instant {
        let untried = waiting.delivery.attempts == 0 && !self.is_down();
        waiting.delivery.until + if untried { UNTRIED_GRACE } else { Duration::ZERO }
    }

    fn line_up(&mut self, seq: Seq) {
        let Some(waiting) = self.waiting.get_mut(&seq) else { return };
        let before = if waiting.in_lanes { 0 } else { self.lanes.join(seq, &waiting.delivery.channels) };
        waiting.in_lanes = true;
        waiting.state = State::Blocked(before);
        if before == 0 {
            waiting.state = State::Ready;
            self.ready.push_back(seq);
        }
    }

    /// Some have become the first on a channel more.
    fn advance(&mut self, next: Vec<Seq>) {
        for seq in next {
            let Some(waiting) = self.waiting.get_mut(&seq) else { continue };
            let State::Blocked(before) = &mut waiting.state else { continue };
            *before -= 1;
            if *before == 0 {
                waiting.state = State::Ready;
                self.ready.push_back(seq);
            }
        }
    }

    fn remove(&mut self, seq: Seq) -> Option<Delivery> {
        let gone = self.waiting.remove(&seq)?;
        if let State::Paused(until) = gone.state {
            self.pauses.remove(&(until, seq));
        }
        if gone.in_lanes {
            let next = self.lanes.leave(seq, &gone.delivery.channels);
            self.advance(next);
        }
        self.bytes -= gone.delivery.weight;
        debug_assert!(!self.waiting.is_empty() || self.lanes.is_empty());
        Some(gone.delivery)
    }
}

impl Health {
    fn succeeded(&mut self) -> Option<Change> {
        let was_down = self.down.take().is_some();
        self.failures = 0;
        self.last_failed = None;
        was_down.then_some(Change::Up)
    }

    fn failed(&mut self, seq: Seq, failure: &Failure, now: Instant) -> Option<Change> {
        self.error = failure.to_string();
        if let Some(down) = &mut self.down {
            if down.probe == Some(seq) {
                down.probe = None;
                down.probes += 1;
                down.probe_at = now + pause(down.probes + 1, PROBE_PAUSE_MAX);
            }
            return None;
        }
        // One delivery that the receiver does not like says nothing about the others.
        if self.last_failed.replace(seq) == Some(seq) {
            return None;
        }
        self.failures += 1;
        match self.failures {
            DOWN_AFTER => {
                self.down = Some(Down { probes: 0, probe_at: now + pause(1, PROBE_PAUSE_MAX), probe: None });
                Some(Change::Down)
            }
            1 => Some(Change::Failing),
            _ => None,
        }
    }
}

/// 1, 2, 4, 8 … seconds.
fn pause(failures: u32, max: Duration) -> Duration {
    Duration::from_secs(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX)).min(max)
}
