//! Everything that waits to be told: occurrences become deliveries, deliveries become attempts.
//!
//! A plain value: what has happened and what time it is come in, attempts to make and changes worth a line go out.
//! `courier` runs it.
//!
//! Invariant: every event that was accepted is in exactly one delivery of each endpoint that wants it, and leaves the
//! queue delivered, as a dead letter, or counted as dropped. Only then is its share of a receipt done.
//!
//! A receiver whose share of the queue is full is sent nothing more: its events are dropped. But what a cluster tells can
//! wait in Redis, so a receiver that takes deliveries is waited for a while first ([`Queue::is_held_up`]). Not for long,
//! and not for one that is down: what others are told waits with it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::{App, AppId, Apps};
use crate::config::Webhooks;
use crate::hub::Occurrence;
use crate::node::{Receipt, Told};
use crate::webhook::Selection;
use crate::webhook::body::push_event;
use crate::webhook::dead_letters::{Dead, DeadLetters};
use crate::webhook::delivery::{
    Attempt, Delivery, DeliveryId, Endpoint, Failure, Now, ReceiverId, Seq, Ticket,
};
use crate::webhook::receiver::{Batch, Change, Finished, Receiver};

/// What an event costs besides its names and data: its delivery, and places in queues and maps. Measured, and rounded up.
pub(super) const EVENT_OVERHEAD: usize = 768;

/// What a receipt costs, here and where it was taken from.
const RECEIPT_OVERHEAD: usize = 256;

/// A restored delivery has at least this long, however long the server was down. So has a fact that comes late.
const RESTORED_TIME_MIN: Duration = Duration::from_secs(10);

/// A fact that comes later than this is told as of now, like a replayed dead letter: receivers refuse what is more than
/// five minutes old.
const LATE: Duration = Duration::from_secs(60);

/// A receiver whose share is full is waited for so long, until half of it is free again.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much may wait and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) concurrency: usize,
    pub(super) retry: Duration,
    pub(super) batch_wait: Duration,
    pub(super) batch_events_max: usize,
    pub(super) bytes_max: usize,
    pub(super) dead_letters_max: usize,
}

impl From<&Webhooks> for Limits {
    fn from(settings: &Webhooks) -> Self {
        Self {
            concurrency: settings.concurrency,
            retry: Duration::from_secs(settings.retry_s),
            batch_wait: Duration::from_millis(settings.batch_wait_ms),
            batch_events_max: settings.batch_events_max,
            bytes_max: settings.queue_bytes_max,
            dead_letters_max: settings.dead_letters_max,
        }
    }
}

/// The deliveries of all apps.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// Begins the ids of this run's deliveries.
    run: u64,
    /// How many deliveries there have been.
    count: u64,
    ids: HashMap<Arc<Endpoint>, ReceiverId>,
    receivers: HashMap<ReceiverId, Slot>,
    /// When each receiver next has something to do by itself.
    wakes: BTreeSet<(Instant, ReceiverId)>,
    /// Receivers that may be asked now, in turns.
    runnable: VecDeque<ReceiverId>,
    /// Receivers for which there was no room for what Redis keeps, and since when.
    full: HashMap<ReceiverId, Instant>,
    bytes: usize,
    dead: DeadLetters,
    tally: Tally,
}

/// Something to tell.
struct Telling<'a> {
    occurrence: &'a Occurrence,
    /// When it happened, as receivers are told.
    time_ms: u64,
    /// It is given up after so long.
    within: Duration,
    /// It may have been told before.
    again: bool,
    /// Of what Redis keeps.
    receipt: Option<&'a Receipt>,
}

#[derive(Debug)]
struct Slot {
    receiver: Receiver,
    wake: Option<Instant>,
    runnable: bool,
}

/// What has happened since somebody last asked.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Events for which there was no room.
    pub(super) queue_full: usize,
    /// Events whose app or receiver is gone.
    pub(super) receiver_gone: usize,
    /// Deliveries that became dead letters.
    pub(super) given_up: usize,
    /// Where the last of these was to go, and why it did not.
    pub(super) last: Option<(Arc<Endpoint>, String)>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Load {
    pub(super) deliveries: usize,
    pub(super) bytes: usize,
    pub(super) dead_letters: usize,
    pub(super) receivers_down: usize,
}

impl Queue {
    /// An empty one. `run` should be random: it makes the ids of its deliveries.
    pub(super) fn new(limits: Limits, run: u64) -> Self {
        Self {
            limits,
            run,
            count: 0,
            ids: HashMap::new(),
            receivers: HashMap::new(),
            wakes: BTreeSet::new(),
            runnable: VecDeque::new(),
            full: HashMap::new(),
            bytes: 0,
            dead: DeadLetters::new(limits.dead_letters_max, limits.bytes_max),
            tally: Tally::default(),
        }
    }

    /// Something happened on a channel of `app`.
    pub(super) fn accept(&mut self, app: &Arc<App>, occurrence: &Occurrence, now: Now) {
        let (time_ms, within) = (now.ms, self.limits.retry);
        self.tell(app, &Telling { occurrence, time_ms, within, again: false, receipt: None }, now);
    }

    /// The cluster tells that something happened on a channel of `app`.
    pub(super) fn accept_fact(&mut self, app: &Arc<App>, told: Told, now: Now) {
        let Told { occurrence, time_ms, again, receipt } = told;
        let (age, retry) = (Duration::from_millis(now.ms.saturating_sub(time_ms)), self.limits.retry);
        let (time_ms, within) = match age > LATE {
            true => (now.ms, retry),
            // The clock of Redis may be ahead of ours.
            false => (time_ms.min(now.ms), retry.saturating_sub(age).max(retry.min(RESTORED_TIME_MIN))),
        };
        let telling = Telling { occurrence: &occurrence, time_ms, within, again, receipt: Some(&receipt) };
        self.tell(app, &telling, now);
        receipt.done();
    }

    fn tell(&mut self, app: &Arc<App>, telling: &Telling<'_>, now: Now) {
        let Telling { occurrence, receipt, .. } = telling;
        let (event, channel) = (occurrence.fact.event(), occurrence.channel.as_str());
        let receipt_weight = receipt.map_or(0, |_| RECEIPT_OVERHEAD);
        let weight = EVENT_OVERHEAD + receipt_weight + channel.len() + occurrence.fact.weight();
        for webhook in app.webhooks.iter().filter(|webhook| webhook.wants(event, channel)) {
            let endpoint = Endpoint::of(app, webhook);
            let is_kept = receipt.is_some();
            let has_place =
                self.has_room(&endpoint, weight) || is_kept && self.is_waited_for(&endpoint, now.at);
            if !has_place {
                self.tally.queue_full += 1;
                continue;
            }
            let id = self.receiver_for(endpoint);
            self.add_to_batch(id, app, telling, weight, now);
            let due = |batch: &Batch| {
                !app.webhook_batching || batch.count >= self.limits.batch_events_max || batch.due <= now.at
            };
            if self.receivers[&id].receiver.batch.as_ref().is_some_and(due) {
                self.close_batch(id);
            }
            self.look_after(id, now.at);
        }
    }

    /// Whether nothing more should be taken out of Redis now, since some receiver is given time to catch up.
    pub(super) fn is_held_up(&self, now: Instant) -> bool {
        let is_waited_for = |(id, since): (&ReceiverId, &Instant)| {
            let is_down = self.receivers.get(id).is_none_or(|slot| slot.receiver.is_down());
            !is_down && now < *since + PATIENCE
        };
        self.bytes > self.limits.bytes_max || self.full.iter().any(is_waited_for)
    }

    /// Whether there may be an attempt to begin.
    pub(super) fn may_attempt(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// The next attempt to begin, if there is one.
    pub(super) fn next_attempt(&mut self, now: Instant) -> Option<Attempt> {
        while let Some(id) = self.runnable.pop_front() {
            let Some(slot) = self.receivers.get_mut(&id) else { continue };
            slot.runnable = false;
            let attempt = slot.receiver.start(now, self.limits.concurrency);
            self.look_after(id, now);
            if attempt.is_some() {
                return attempt;
            }
        }
        None
    }

    /// An attempt has ended.
    pub(super) fn finished(
        &mut self,
        ticket: Ticket,
        outcome: &Result<(), Failure>,
        now: Instant,
    ) -> Option<(Change, Arc<Endpoint>)> {
        let slot = self.receivers.get_mut(&ticket.receiver)?;
        let endpoint = slot.receiver.endpoint().clone();
        let (finished, change) = slot.receiver.finished(ticket.delivery, outcome, now)?;
        match (finished, outcome) {
            (Finished::Delivered(delivery), _) => {
                self.bytes -= delivery.weight;
                delivery.receipts.into_iter().for_each(Receipt::done);
            }
            (Finished::GivenUp(delivery), Err(failure)) => {
                self.bury(&endpoint, delivery, failure.to_string())
            }
            (Finished::GivenUp(_), Ok(())) | (Finished::Failed, _) => {}
        }
        self.look_after(ticket.receiver, now);
        change.map(|change| (change, endpoint))
    }

    /// Does what is due by now.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some((_, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            let Some(slot) = self.receivers.get_mut(&id) else { return };
            if slot.receiver.batch.as_ref().is_some_and(|batch| batch.due <= now) {
                self.close_batch(id);
            }
            let Some(slot) = self.receivers.get_mut(&id) else { return };
            let over = slot.receiver.settle(now);
            let endpoint = slot.receiver.endpoint().clone();
            let error = match slot.receiver.error() {
                "" => "it was not its turn in time".to_owned(),
                error => error.to_owned(),
            };
            for delivery in over {
                self.bury(&endpoint, delivery, error.clone());
            }
            self.look_after(id, now);
        }
    }

    /// When there is something to do by itself.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// The apps that something waits for and that are not among these.
    pub(super) fn apps_missing_in(&self, apps: &Apps) -> BTreeSet<AppId> {
        let waiting = self.ids.keys().map(|endpoint| &endpoint.app);
        waiting.filter(|app| apps.by_id(app).is_none()).cloned().collect()
    }

    /// Lets go of everything that waits for receivers that are gone, but not of that of apps which `may_exist` all the
    /// same. Whose headers have changed gets the new ones.
    pub(super) fn follow(&mut self, apps: &Apps, may_exist: impl Fn(&AppId) -> bool) {
        let ids: Vec<_> = self.receivers.keys().copied().collect();
        for id in ids {
            let Some(slot) = self.receivers.get_mut(&id) else { continue };
            let before = slot.receiver.endpoint().clone();
            match before.now_in(apps) {
                None if may_exist(&before.app) => {}
                Some(now) if now == *before => {}
                // One that others wait for already is another receiver at the same URL.
                Some(now) if !self.ids.contains_key(&now) => {
                    let now = Arc::new(now);
                    slot.receiver.rename(now.clone());
                    self.ids.remove(&before);
                    self.ids.insert(now, id);
                }
                _ => self.let_go(id),
            }
        }
    }

    fn let_go(&mut self, id: ReceiverId) {
        let Some(Slot { receiver, wake, .. }) = self.receivers.remove(&id) else { return };
        self.ids.remove(receiver.endpoint());
        self.full.remove(&id);
        if let Some(at) = wake {
            self.wakes.remove(&(at, id));
        }
        self.bytes -= receiver.bytes;
        self.tally.receiver_gone += receiver.events();
        receiver.into_receipts().for_each(Receipt::done);
    }

    /// Lets go of what another node tells now, but for what is under way or travels with others. Returns how many events
    /// that were.
    pub(super) fn let_go_of_lost(&mut self, now: Instant) -> usize {
        let (ids, mut events): (Vec<_>, _) = (self.receivers.keys().copied().collect(), 0);
        for id in ids {
            self.close_batch(id);
            let Some(slot) = self.receivers.get_mut(&id) else { continue };
            for lost in slot.receiver.take_lost() {
                self.bytes -= lost.weight;
                events += lost.count;
            }
            self.look_after(id, now);
        }
        events
    }

    /// Nothing waits for others to travel with any more.
    pub(super) fn close_batches(&mut self, now: Instant) {
        let ids: Vec<_> = self.receivers.keys().copied().collect();
        for id in ids {
            self.close_batch(id);
            self.look_after(id, now);
        }
    }

    /// Dead letters.
    pub(super) fn dead(&self) -> &DeadLetters {
        &self.dead
    }

    /// Puts a dead letter of an earlier run back.
    pub(super) fn restore_dead(&mut self, dead: Dead) {
        self.dead.add(dead);
    }

    /// Everything undelivered, with where it was to go.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = (&Arc<Endpoint>, &Delivery)> {
        let mut slots: Vec<_> = self.receivers.iter().collect();
        slots.sort_by_key(|(id, _)| **id);
        slots.into_iter().flat_map(|(_, slot)| {
            slot.receiver.deliveries().map(|delivery| (slot.receiver.endpoint(), delivery))
        })
    }

    /// Puts back a delivery of an earlier run, with what is left of its time.
    pub(super) fn restore(&mut self, endpoint: Endpoint, mut delivery: Delivery, now: Now) {
        let age = Duration::from_millis(now.ms.saturating_sub(delivery.time_ms));
        let left = self.limits.retry.saturating_sub(age).max(RESTORED_TIME_MIN);
        delivery.until = now.at + left;
        self.add(endpoint, delivery, now.at);
    }

    /// Tries dead letters again, as far as their receivers exist and there is room. Returns how many.
    ///
    /// They keep their ids, but are told as of now and signed with the key of now: receivers refuse old ones.
    pub(super) fn replay(&mut self, selection: &Selection, apps: &Apps, now: Now) -> usize {
        let mut replayed = 0;
        for dead in self.dead.take(selection) {
            let endpoint = dead.endpoint.now_in(apps).filter(|now| self.has_room(now, dead.weight));
            let (Some(app), Some(endpoint)) = (apps.by_id(&dead.endpoint.app), endpoint) else {
                self.dead.add(dead);
                continue;
            };
            let delivery = Delivery {
                id: dead.id,
                app: app.clone(),
                time_ms: now.ms,
                events: dead.events,
                count: dead.count,
                channels: dead.channels,
                weight: dead.weight,
                until: now.at + self.limits.retry,
                attempts: 0,
                again: dead.again,
                receipts: Vec::new(),
            };
            self.add(endpoint, delivery, now.at);
            replayed += 1;
        }
        replayed
    }

    /// What has happened since the last call.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// How many events are undelivered.
    pub(super) fn events(&self) -> usize {
        self.receivers.values().map(|slot| slot.receiver.events()).sum()
    }

    /// How many of them Redis keeps.
    pub(super) fn kept_events(&self) -> usize {
        self.receivers.values().map(|slot| slot.receiver.receipts()).sum()
    }

    /// How much there is now.
    pub(super) fn load(&self) -> Load {
        let mut load = Load { bytes: self.bytes, dead_letters: self.dead.len(), ..Load::default() };
        for Slot { receiver, .. } in self.receivers.values() {
            load.deliveries += receiver.deliveries().len();
            load.receivers_down += usize::from(receiver.is_down());
        }
        load
    }

    /// A receiver may hold as much as is still free: one that takes nothing leaves half of the queue to the others, two
    /// leave a third, and so on.
    fn has_room(&self, endpoint: &Endpoint, weight: usize) -> bool {
        let held = self
            .ids
            .get(endpoint)
            .and_then(|id| self.receivers.get(id))
            .map_or(0, |slot| slot.receiver.bytes);
        held + weight <= self.limits.bytes_max.saturating_sub(self.bytes + weight)
    }

    /// Whether a receiver without room is given what comes all the same. That is not much, as long as nothing more is
    /// taken out of Redis.
    fn is_waited_for(&mut self, endpoint: &Endpoint, now: Instant) -> bool {
        // If it holds nothing, it is not the one that has to catch up.
        let Some(id) = self.ids.get(endpoint) else { return true };
        let is_down = self.receivers.get(id).is_some_and(|slot| slot.receiver.is_down());
        !is_down && now < *self.full.entry(*id).or_insert(now) + PATIENCE
    }

    fn receiver_for(&mut self, endpoint: Endpoint) -> ReceiverId {
        if let Some(id) = self.ids.get(&endpoint) {
            return *id;
        }
        let id = ReceiverId(self.next_number());
        let endpoint = Arc::new(endpoint);
        let receiver = Receiver::new(id, endpoint.clone());
        self.ids.insert(endpoint, id);
        self.receivers.insert(id, Slot { receiver, wake: None, runnable: false });
        id
    }

    /// Adds an event to those that wait for others, which are of the same key and app, and repetitions like it or not.
    fn add_to_batch(
        &mut self,
        id: ReceiverId,
        app: &Arc<App>,
        telling: &Telling<'_>,
        weight: usize,
        now: Now,
    ) {
        let other =
            |batch: &Batch| batch.app.keys.first() != app.keys.first() || batch.again != telling.again;
        if self.receivers.get(&id).and_then(|slot| slot.receiver.batch.as_ref()).is_some_and(other) {
            self.close_batch(id);
        }
        let Some(Slot { receiver, .. }) = self.receivers.get_mut(&id) else { return };
        receiver.bytes += weight;
        self.bytes += weight;
        let batch = receiver.batch.get_or_insert_with(|| Batch {
            app: app.clone(),
            events: String::new(),
            count: 0,
            channels: Vec::new(),
            weight: 0,
            again: telling.again,
            receipts: Vec::new(),
            time_ms: telling.time_ms,
            until: now.at + telling.within,
            due: now.at + self.limits.batch_wait,
        });
        if batch.count > 0 {
            batch.events.push(',');
        }
        push_event(&mut batch.events, telling.occurrence);
        batch.count += 1;
        batch.weight += weight;
        batch.channels.push(telling.occurrence.channel.clone());
        batch.receipts.extend(telling.receipt.map(Receipt::share));
    }

    /// Makes a delivery of the events that wait for others.
    fn close_batch(&mut self, id: ReceiverId) {
        let number = self.next_number();
        let Some(Slot { receiver, .. }) = self.receivers.get_mut(&id) else { return };
        let Some(mut batch) = receiver.batch.take() else { return };
        batch.channels.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        batch.channels.dedup();
        batch.channels.shrink_to_fit();
        batch.events.shrink_to_fit();
        let delivery = Delivery {
            id: DeliveryId(u128::from(self.run) << 64 | u128::from(number)),
            app: batch.app,
            time_ms: batch.time_ms,
            events: batch.events,
            count: batch.count,
            channels: batch.channels,
            weight: batch.weight,
            until: batch.until,
            attempts: 0,
            again: batch.again,
            receipts: batch.receipts,
        };
        receiver.add(Seq(number), delivery);
    }

    /// Adds a delivery that was made before.
    fn add(&mut self, endpoint: Endpoint, delivery: Delivery, now: Instant) {
        let id = self.receiver_for(endpoint);
        let number = self.next_number();
        let Some(Slot { receiver, .. }) = self.receivers.get_mut(&id) else { return };
        receiver.bytes += delivery.weight;
        self.bytes += delivery.weight;
        receiver.add(Seq(number), delivery);
        self.look_after(id, now);
    }

    fn bury(&mut self, endpoint: &Arc<Endpoint>, delivery: Delivery, error: String) {
        self.bytes -= delivery.weight;
        self.tally.given_up += 1;
        self.tally.last = Some((endpoint.clone(), error.clone()));
        let Delivery { id, time_ms, events, count, channels, weight, attempts, again, receipts, .. } =
            delivery;
        let endpoint = endpoint.clone();
        self.dead.add(Dead {
            id,
            endpoint,
            time_ms,
            events,
            count,
            channels,
            attempts,
            again,
            error,
            weight,
        });
        receipts.into_iter().for_each(Receipt::done);
    }

    /// Forgets a receiver for which nothing waits, or notes when to look at it next.
    fn look_after(&mut self, id: ReceiverId, now: Instant) {
        let Some(slot) = self.receivers.get_mut(&id) else { return };
        if let Some(at) = slot.wake.take() {
            self.wakes.remove(&(at, id));
        }
        let free = self.limits.bytes_max.saturating_sub(self.bytes);
        if slot.receiver.bytes <= free / 2 {
            self.full.remove(&id);
        }
        if slot.receiver.is_empty() {
            self.ids.remove(slot.receiver.endpoint());
            self.receivers.remove(&id);
            self.full.remove(&id);
            return;
        }
        slot.wake = slot.receiver.wake(now, self.limits.concurrency);
        self.wakes.extend(slot.wake.map(|at| (at, id)));
        if !slot.runnable && slot.receiver.may_start(now, self.limits.concurrency) {
            slot.runnable = true;
            self.runnable.push_back(id);
        }
    }

    fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}
