//! Everything that waits to be told: occurrences become deliveries, deliveries become attempts.
//!
//! A plain value: what has happened and what time it is come in, attempts to make and changes worth a line go out.
//! `courier` runs it.
//!
//! Invariant: every event that was accepted is in exactly one delivery of each endpoint that wants it, and leaves the
//! queue delivered, as a dead letter, or counted as dropped.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::{App, Apps};
use crate::config::Webhooks;
use crate::hub::Occurrence;
use crate::webhook::Selection;
use crate::webhook::body::push_event;
use crate::webhook::dead_letters::{Dead, DeadLetters};
use crate::webhook::delivery::{
    Attempt, Delivery, DeliveryId, Endpoint, Failure, Now, ReceiverId, Seq, Ticket,
};
use crate::webhook::receiver::{Batch, Change, Finished, Receiver};

/// What an event costs besides its names and data: its delivery, and places in queues and maps. Measured, and rounded up.
pub(super) const EVENT_OVERHEAD: usize = 768;

/// A restored delivery has at least this long, however long the server was down.
const RESTORED_TIME_MIN: Duration = Duration::from_secs(10);

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
    bytes: usize,
    dead: DeadLetters,
    tally: Tally,
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
            bytes: 0,
            dead: DeadLetters::new(limits.dead_letters_max, limits.bytes_max),
            tally: Tally::default(),
        }
    }

    /// Something happened on a channel of `app`.
    pub(super) fn accept(&mut self, app: &Arc<App>, occurrence: &Occurrence, now: Now) {
        let (event, channel) = (occurrence.fact.event(), occurrence.channel.as_str());
        let weight = EVENT_OVERHEAD + channel.len() + occurrence.fact.weight();
        for webhook in app.webhooks.iter().filter(|webhook| webhook.wants(event, channel)) {
            let endpoint = Endpoint::of(app, webhook);
            if !self.has_room(&endpoint, weight) {
                self.tally.queue_full += 1;
                continue;
            }
            let id = self.receiver_for(endpoint);
            self.add_to_batch(id, app, occurrence, weight, now);
            let due = |batch: &Batch| {
                !app.webhook_batching || batch.count >= self.limits.batch_events_max || batch.due <= now.at
            };
            if self.receivers[&id].receiver.batch.as_ref().is_some_and(due) {
                self.close_batch(id);
            }
            self.look_after(id, now.at);
        }
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
            (Finished::Delivered(delivery), _) => self.bytes -= delivery.weight,
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

    /// Lets go of everything that waits for receivers that are gone. Whose headers have changed gets the new ones.
    pub(super) fn follow(&mut self, apps: &Apps) {
        let ids: Vec<_> = self.receivers.keys().copied().collect();
        for id in ids {
            let Some(slot) = self.receivers.get_mut(&id) else { continue };
            let before = slot.receiver.endpoint().clone();
            match before.now_in(apps) {
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
        if let Some(at) = wake {
            self.wakes.remove(&(at, id));
        }
        self.bytes -= receiver.bytes;
        self.tally.receiver_gone += receiver.events();
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

    /// Adds an event to those that wait for others, which are of the same key and app.
    fn add_to_batch(
        &mut self,
        id: ReceiverId,
        app: &Arc<App>,
        occurrence: &Occurrence,
        weight: usize,
        now: Now,
    ) {
        let other = |batch: &Batch| batch.app.keys.first() != app.keys.first();
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
            since: now,
            due: now.at + self.limits.batch_wait,
        });
        if batch.count > 0 {
            batch.events.push(',');
        }
        push_event(&mut batch.events, occurrence);
        batch.count += 1;
        batch.weight += weight;
        batch.channels.push(occurrence.channel.clone());
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
            time_ms: batch.since.ms,
            events: batch.events,
            count: batch.count,
            channels: batch.channels,
            weight: batch.weight,
            until: batch.since.at + self.limits.retry,
            attempts: 0,
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
        let Delivery { id, time_ms, events, count, channels, weight, attempts, .. } = delivery;
        let endpoint = endpoint.clone();
        self.dead.add(Dead { id, endpoint, time_ms, events, count, channels, attempts, error, weight });
    }

    /// Forgets a receiver for which nothing waits, or notes when to look at it next.
    fn look_after(&mut self, id: ReceiverId, now: Instant) {
        let Some(slot) = self.receivers.get_mut(&id) else { return };
        if let Some(at) = slot.wake.take() {
            self.wakes.remove(&(at, id));
        }
        if slot.receiver.is_empty() {
            self.ids.remove(slot.receiver.endpoint());
            self.receivers.remove(&id);
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
