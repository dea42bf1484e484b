//! The hubs, running: one short lock each, and the outlets through which effects leave.
//!
//! A command is applied on the thread that brings it. Its effects enter the workers' mailboxes before the
//! hub's lock is released: that is what makes one order of a channel's events for everybody. Nothing is
//! awaited, written or encoded under the lock.
//!
//! Not here: who is behind a subscription (`worker`), what may be published (`connection`, `api`).

mod addresses;
mod figures;
mod lookup;
mod survey;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::app::{App, AppId, Apps};
use crate::config::Config;
use crate::hub::{
    Body, Census, ChannelFull, Delivery, Effect, Hub, Joined, Leavers, Occurrence, Publish, Subscription,
    Watched, WorkerId,
};
use crate::inspect::Question;
use crate::metrics::{Dropped, Metrics, Tally};
use crate::node::addresses::Addresses;
use crate::protocol::{ChannelName, CloseReason, Roster};
use crate::rate::Rate;

pub use lookup::{AppName, Lookup, NoApp, StoreAway};
pub use survey::Footprint;

#[allow(clippy::disallowed_types, reason = "the one lock of the hot path: a hub is held for one command")]
type Lock<T> = std::sync::Mutex<T>;

/// Enough hubs that two threads seldom want the same one.
const HUBS: usize = 64;

/// What all threads of the server share.
#[derive(Debug)]
pub struct Node {
    config: Config,
    began: Instant,
    /// Replaced as a whole when apps change.
    apps: ArcSwap<Apps>,
    /// For apps that are not among them.
    lookups: lookup::Lookups,
    /// Of every app that is or was known, so that a changed app keeps its figures.
    usages: ArcSwap<HashMap<AppId, Arc<Usage>>>,
    metrics: Metrics,
    hubs: Box<[Lock<Shard>]>,
    // Keyed: a client that chooses channel names cannot aim at one hub.
    hasher: RandomState,
    outlets: Box<[Outlet<Letter>]>,
    /// When each worker was last seen to be alive, in milliseconds since the node began.
    beats: Box<[AtomicU64]>,
    /// Of workers that have not begun yet.
    mailboxes: Lock<Vec<(WorkerId, Mailbox<Letter>)>>,
    /// For webhooks.
    occurrences: Outlet<Occurrence>,
    /// Until webhooks begin.
    occurred: Lock<Option<Mailbox<Occurrence>>>,
    gate: Arc<Gate>,
    /// Of apps that share a label, if soketi's metrics are wanted.
    other_tally: Option<Arc<Tally>>,
    /// The node is about to stop: others should take what is new.
    leaving: AtomicBool,
    draining: AtomicBool,
}

#[derive(Debug)]
struct Shard {
    hub: Hub,
    /// Kept, so that a command allocates nothing for its effects.
    effects: Vec<Effect>,
}

/// What an app uses of the node now.
#[derive(Debug, Default)]
pub struct Usage {
    open: AtomicUsize,
    /// It has a label of its own in the metrics, for as long as it is known.
    labelled: bool,
    /// None unless soketi's metrics are wanted; apps without a label of their own share one.
    tally: Option<Arc<Tally>>,
    requests: Rate,
    publishes: Rate,
    client_events: Rate,
}

/// Who is in.
#[derive(Debug)]
struct Gate {
    open: AtomicUsize,
    addresses: Addresses,
}

/// The sending end of a mailbox.
#[derive(Debug)]
struct Outlet<L> {
    letters: UnboundedSender<L>,
    waiting: Arc<Waiting>,
}

/// How much waits in a mailbox.
#[derive(Debug, Default)]
struct Waiting {
    letters: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    fn add(&self, bytes: usize) {
        self.letters.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, letters: usize, bytes: usize) {
        self.letters.fetch_sub(letters, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The receiving end of a mailbox.
#[derive(Debug)]
pub struct Mailbox<L> {
    letters: UnboundedReceiver<L>,
    waiting: Arc<Waiting>,
}

/// What can wait in a mailbox.
pub trait Weighed {
    /// Roughly what it costs to keep, in bytes.
    fn weight(&self) -> usize;
}

/// What a worker is told.
#[derive(Debug)]
pub enum Letter {
    /// Serve your listeners. With it, when the event was accepted, if that is what it is.
    Deliver(Delivery, Option<Instant>),
    /// Apps have changed: let connections go whose app serves them no longer.
    AppsChanged,
    /// Close every connection, evenly over this time: the server stops.
    Drain(Duration),
    /// Answer an operator.
    Ask(Box<Question>),
}

/// A connection's right to be open; gives its place back when dropped.
#[derive(Debug)]
pub struct Permit {
    usage: Arc<Usage>,
    gate: Arc<Gate>,
    // Both kinds of addresses, in the bytes of the longer one.
    address: Ipv6Addr,
}

impl Permit {
    /// Where the client connects from.
    pub fn address(&self) -> IpAddr {
        self.address.to_canonical()
    }
}

impl Permit {
    /// Where soketi's figures of the app are counted, if they are wanted.
    pub fn tally(&self) -> Option<&Tally> {
        self.usage.tally.as_deref()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.open.fetch_sub(1, Ordering::Relaxed);
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        self.gate.addresses.leave(self.address);
    }
}

/// An app has spent what it may spend in a second.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{budget} of this app: more than {per_s} per second")]
pub struct Exhausted {
    /// Of what.
    pub budget: Budget,
    /// How many there are in a second.
    pub per_s: u32,
    /// When to come again.
    pub retry_after: Duration,
}

/// What an app has so many of in a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Budget {
    /// API calls.
    Requests,
    /// Events of backends, counted for each channel.
    Publishes,
    /// Events of clients.
    ClientEvents,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "API calls",
            Self::Publishes => "Published events",
            Self::ClientEvents => "Client events",
        })
    }
}

/// Too much waits for the workers already.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the workers are too far behind")]
pub struct Overloaded;

/// A channel as the API lists it.
#[derive(Clone, Debug)]
pub struct Occupied {
    /// Its name.
    pub channel: ChannelName,
    /// Its figures.
    pub census: Census,
}

impl Node {
    /// A node without channels, with a mailbox for each worker.
    pub fn new(config: Config, apps: Apps) -> Arc<Self> {
        let (outlets, mailboxes): (Vec<_>, Vec<_>) = (0..config.workers()).map(|_| mailbox()).unzip();
        let (occurrences, occurred) = mailbox();
        let debounce = Duration::from_secs(config.webhooks.debounce_s);
        let beats = config.workers();
        let hub = || Lock::new(Shard { hub: Hub::new(rand::random(), debounce), effects: Vec::new() });
        let node = Self {
            metrics: Metrics::new(),
            hubs: (0..HUBS).map(|_| hub()).collect(),
            hasher: RandomState::new(),
            outlets: outlets.into(),
            beats: (0..beats).map(|_| AtomicU64::new(0)).collect(),
            mailboxes: Lock::new((0..).map(WorkerId).zip(mailboxes).collect()),
            occurrences,
            occurred: Lock::new(Some(occurred)),
            lookups: lookup::Lookups::default(),
            usages: ArcSwap::default(),
            gate: Arc::new(Gate { open: AtomicUsize::new(0), addresses: Addresses::new(&config.server) }),
            other_tally: config.metrics.soketi_names.then(Arc::default),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            config,
            began: Instant::now(),
            apps: ArcSwap::default(),
        };
        node.replace_apps(apps);
        Arc::new(node)
    }

    /// The mailbox of what webhooks tell; none when somebody has it.
    pub fn take_occurrences(&self) -> Option<Mailbox<Occurrence>> {
        hold(&self.occurred).take()
    }

    /// The number and mailbox of a worker that begins; none when all have.
    pub fn take_mailbox(&self) -> Option<(WorkerId, Mailbox<Letter>)> {
        hold(&self.mailboxes).pop()
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The apps, as they are now.
    pub fn apps(&self) -> Guard<Arc<Apps>> {
        self.apps.load()
    }

    /// Puts other apps in the place of those before. Connections of apps that are gone or disabled are closed, all
    /// others stay and live by the new settings.
    pub fn replace_apps(&self, apps: Apps) {
        self.usages.rcu(|usages| {
            let mut usages = HashMap::clone(usages);
            usages.retain(|id, usage| apps.by_id(id).is_some() || usage.open.load(Ordering::Relaxed) > 0);
            self.make_known(&mut usages, &apps);
            usages
        });
        let before = self.apps.load_full();
        let apps = Arc::new(apps.sharing(&before));
        self.apps.store(apps.clone());
        // Apps that have only been added have no connections that would have to know.
        let stays = |app: &Arc<App>| apps.by_id(&app.id).is_some_and(|now| Arc::ptr_eq(now, app));
        if !before.all().all(stays) {
            self.outlets.iter().for_each(|outlet| outlet.post(Letter::AppsChanged));
        }
    }

    /// The apps that have connections, or channels with anything in them.
    pub fn apps_in_use(&self) -> HashSet<AppId> {
        let connected =
            |(id, usage): (&AppId, &Arc<Usage>)| (usage.open.load(Ordering::Relaxed) > 0).then(|| id.clone());
        let mut used: HashSet<AppId> = self.usages.load().iter().filter_map(connected).collect();
        for hub in &self.hubs {
            for (app, _) in hold(hub).hub.all() {
                if !used.contains(app) {
                    used.insert(app.clone());
                }
            }
        }
        used
    }

    /// The figures.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts an attempt to connect, whatever comes of it.
    ///
    /// # Errors
    /// When there are too many of this address.
    pub fn knock(&self, address: IpAddr, now: Instant) -> Result<(), CloseReason> {
        self.gate.addresses.knock(in_six(address), now)
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// When the node stops, or it, the app or the address has enough of them.
    pub fn admit(&self, app: &App, address: IpAddr, now: Instant) -> Result<Permit, CloseReason> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(CloseReason::ShuttingDown);
        }
        let address = in_six(address);
        self.gate.addresses.enter(address, now)?;
        // Counted first and judged then, so that two at once cannot both take the last place.
        let usage = self.usages.load().get(&app.id).cloned().unwrap_or_default();
        let permit = Permit { usage, gate: self.gate.clone(), address };
        let of_app = permit.usage.open.fetch_add(1, Ordering::Relaxed);
        let of_node = permit.gate.open.fetch_add(1, Ordering::Relaxed);
        let full = |count: usize, max: usize| max > 0 && count >= max;
        match () {
            () if full(of_node, self.config.server.connections_max) => Err(CloseReason::OverCapacity),
            () if full(of_app, app.connections_max) => Err(CloseReason::OverQuota),
            () => Ok(permit),
        }
    }

    /// Spends of what an app may do in a second.
    ///
    /// # Errors
    /// When it has done so much already; nothing is spent then.
    pub fn spend(&self, app: &App, budget: Budget, count: usize) -> Result<(), Exhausted> {
        let per_s = match budget {
            Budget::Requests => app.requests_per_s,
            Budget::Publishes => app.publishes_per_s,
            Budget::ClientEvents => app.all_client_events_per_s,
        };
        if per_s == 0 {
            return Ok(());
        }
        let usages = self.usages.load();
        let Some(usage) = usages.get(&app.id) else { return Ok(()) };
        let rate = match budget {
            Budget::Requests => &usage.requests,
            Budget::Publishes => &usage.publishes,
            Budget::ClientEvents => &usage.client_events,
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        rate.spend(count, per_s, self.began.elapsed()).map_err(|retry_after| Exhausted {
            budget,
            per_s,
            retry_after,
        })
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.gate.open.load(Ordering::Relaxed)
    }

    /// The node is about to stop, and says so to whoever asks whether it is ready.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the node is about to stop.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Refuses new connections from now on and has every worker close those it has, evenly over a time.
    pub fn drain(&self, over: Duration) {
        self.leave();
        self.draining.store(true, Ordering::Relaxed);
        for outlet in &self.outlets {
            outlet.post(Letter::Drain(over));
        }
    }

    /// Whether the workers keep up. To be asked before anything that makes them more to deliver.
    ///
    /// # Errors
    /// When it would only pile up: refuse it. The refusal is counted.
    pub fn check_room(&self) -> Result<(), Overloaded> {
        if !self.is_overloaded() {
            return Ok(());
        }
        self.metrics.overloads.inc();
        Err(Overloaded)
    }

    /// Whether more waits for some worker than may.
    pub fn is_overloaded(&self) -> bool {
        let max = self.config.server.mailbox_bytes_max;
        self.outlets.iter().any(|outlet| outlet.waiting.bytes.load(Ordering::Relaxed) > max)
    }

    /// Whether an app may have one more channel, if `channel` would be one. Two threads that ask at the same time may
    /// both hear yes.
    pub fn has_room_for(&self, app: &App, channel: &ChannelName) -> bool {
        if app.channels_max == 0 || self.census(app, channel).subscriptions > 0 {
            return true;
        }
        self.hubs.iter().map(|hub| hold(hub).hub.occupied_count(&app.id)).sum::<usize>() < app.channels_max
    }

    /// See [`Hub::subscribe`].
    ///
    /// # Errors
    /// When a presence channel has no room for another user.
    pub fn subscribe(&self, new: Subscription<'_>) -> Result<Joined, ChannelFull> {
        self.apply(&new.app.id, new.channel, |hub, effects| hub.subscribe(new, effects))
    }

    /// See [`Hub::unsubscribe`].
    pub fn unsubscribe(&self, old: Subscription<'_>) {
        self.apply(&old.app.id, old.channel, |hub, effects| hub.unsubscribe(old, effects));
    }

    /// See [`Hub::watch`].
    pub fn watch(&self, app: &App, user: &ChannelName, worker: WorkerId) -> Watched {
        self.apply(&app.id, user, |hub, _| hub.watch(app, user, worker))
    }

    /// See [`Hub::unwatch`].
    pub fn unwatch(&self, app: &App, user: &ChannelName, worker: WorkerId, now: Instant) {
        self.apply(&app.id, user, |hub, _| hub.unwatch(app, user, worker, now));
    }

    /// See [`Hub::publish`]. Ask [`Node::check_room`] before, and count the event.
    pub fn publish(&self, new: Publish<'_>) -> Census {
        let accepted = Some(new.now);
        let shard = &mut *hold(self.shard(&new.app.id, new.channel));
        self.run(shard, accepted, |hub, effects| hub.publish(new, effects))
    }

    /// See [`Hub::leavers`].
    pub fn leavers(&self) -> Vec<Leavers> {
        let apps = self.apps();
        let tells = |id: &str| apps.by_id(id).is_some_and(|app| !app.webhooks.is_empty());
        self.hubs.iter().flat_map(|hub| hold(hub).hub.leavers(tells).collect::<Vec<_>>()).collect()
    }

    /// See [`Hub::restore`].
    pub fn restore(&self, app: &App, leavers: &Leavers, now: Instant) {
        self.apply(&app.id, &leavers.channel, |hub, _| hub.restore(app, leavers, now));
    }

    /// See [`Hub::terminate`].
    pub fn terminate(&self, app: &App, user: &ChannelName) {
        let body = Body::Disconnect(CloseReason::Terminated);
        self.apply(&app.id, user, |hub, effects| hub.terminate(app, user, body, effects));
    }

    /// See [`Hub::census`].
    pub fn census(&self, app: &App, channel: &ChannelName) -> Census {
        self.apply(&app.id, channel, |hub, _| hub.census(&app.id, channel, Instant::now()))
    }

    /// See [`Hub::roster`].
    pub fn roster(&self, app: &App, channel: &ChannelName) -> Option<Arc<Roster>> {
        self.apply(&app.id, channel, |hub, _| hub.roster(&app.id, channel))
    }

    /// Every channel of an app that has subscribers and whose name begins with `prefix`.
    pub fn occupied(&self, app: &App, prefix: &str) -> Vec<Occupied> {
        let mut all = Vec::new();
        for hub in &self.hubs {
            let shard = hold(hub);
            let channels = shard.hub.occupied(&app.id, prefix, Instant::now());
            all.extend(channels.map(|(channel, census)| Occupied { channel: channel.clone(), census }));
        }
        all
    }

    /// Does what is due in every hub. To be called a few times a second.
    pub fn settle(&self, now: Instant) {
        // Whoever is back after a restart has never been away: then nobody's leave is told before it.
        if self.draining.load(Ordering::Relaxed) && !self.config.webhooks.state_file.is_empty() {
            return;
        }
        let apps = self.apps();
        for hub in &self.hubs {
            self.run(&mut hold(hub), None, |hub, effects| {
                hub.settle(now, |id| apps.by_id(id).map(|app| &**app), effects);
            });
        }
    }

    fn shard(&self, app: &AppId, channel: &ChannelName) -> &Lock<Shard> {
        let hash = self.hasher.hash_one((app, channel));
        let at = usize::try_from(hash % HUBS as u64).unwrap_or_default();
        &self.hubs[at]
    }

    /// Applies a command to the hub that owns the channel and hands its effects on, in order.
    fn apply<R>(
        &self,
        app: &AppId,
        channel: &ChannelName,
        command: impl FnOnce(&mut Hub, &mut Vec<Effect>) -> R,
    ) -> R {
        self.run(&mut hold(self.shard(app, channel)), None, command)
    }

    fn run<R>(
        &self,
        shard: &mut Shard,
        accepted: Option<Instant>,
        command: impl FnOnce(&mut Hub, &mut Vec<Effect>) -> R,
    ) -> R {
        let answer = command(&mut shard.hub, &mut shard.effects);
        for effect in shard.effects.drain(..) {
            match effect {
                Effect::Deliver(worker, delivery) => {
                    if let Some(outlet) = self.outlets.get(usize::from(worker.0)) {
                        outlet.post(Letter::Deliver(delivery, accepted));
                    }
                }
                Effect::Occurred(occurrence) => self.tell(occurrence),
            }
        }
        answer
    }

    /// Hands over what webhooks tell. Nobody waits for them: what is too much is dropped and counted.
    fn tell(&self, occurrence: Occurrence) {
        if self.occurrences.waiting.bytes.load(Ordering::Relaxed) > self.config.webhooks.queue_bytes_max {
            return self.metrics.webhooks.dropped(Dropped::Overload, 1);
        }
        self.occurrences.post(occurrence);
    }
}

fn in_six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

/// A panic of one thread is no reason for all others to end: what it left behind is used on.
#[allow(clippy::disallowed_types, reason = "the guard of that lock")]
fn hold<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn mailbox<L>() -> (Outlet<L>, Mailbox<L>) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::<Waiting>::default();
    (Outlet { letters: sender, waiting: waiting.clone() }, Mailbox { letters: receiver, waiting })
}

impl<L: Weighed> Outlet<L> {
    fn post(&self, letter: L) {
        self.waiting.add(letter.weight());
        if let Err(unsent) = self.letters.send(letter) {
            // Whoever is gone has nothing left to do, and nothing waits for it.
            self.waiting.remove(1, unsent.0.weight());
        }
    }
}

impl Weighed for Letter {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Deliver(delivery, _) => delivery.body.weight(),
                Self::AppsChanged | Self::Drain(_) | Self::Ask(_) => 0,
            }
    }
}

impl Weighed for Occurrence {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.fact.weight()
    }
}

impl<L: Weighed> Mailbox<L> {
    /// Waits for letters and takes all there are, up to `max`. False when none will come any more.
    pub async fn take(&mut self, letters: &mut Vec<L>, max: usize) -> bool {
        let taken = self.letters.recv_many(letters, max).await;
        let weight = letters.iter().map(L::weight).sum();
        self.waiting.remove(taken, weight);
        taken > 0
    }

    /// Takes what is there now.
    pub fn take_waiting(&mut self, letters: &mut Vec<L>) {
        while let Ok(letter) = self.letters.try_recv() {
            self.waiting.remove(1, letter.weight());
            letters.push(letter);
        }
    }
}
