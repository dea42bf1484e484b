//! The hubs, running: one short lock each, and the outlets through which effects leave.
//!
//! A command is applied on the thread that brings it. Its effects enter the workers' mailboxes before the
//! hub's lock is released: that is what makes one order of a channel's events for everybody. Nothing is
//! awaited, written or encoded under the lock.
//!
//! Not here: who is behind a subscription (`worker`), what may be published (`connection`, `api`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::app::{App, AppId, Apps};
use crate::config::Config;
use crate::hub::{
    Body, Census, ChannelFull, Delivery, Effect, Hub, Joined, Publish, Subscription, Watched, WorkerId,
};
use crate::metrics::Metrics;
use crate::protocol::{ChannelName, CloseReason, Roster};

#[allow(clippy::disallowed_types, reason = "the one lock of the hot path: a hub is held for one command")]
type Lock<T> = std::sync::Mutex<T>;

/// Enough hubs that two threads seldom want the same one.
const HUBS: usize = 64;

/// What all threads of the server share.
#[derive(Debug)]
pub struct Node {
    config: Config,
    apps: Apps,
    metrics: Metrics,
    hubs: Box<[Lock<Shard>]>,
    // Keyed: a client that chooses channel names cannot aim at one hub.
    hasher: RandomState,
    outlets: Box<[Outlet]>,
    /// Of workers that have not begun yet.
    mailboxes: Lock<Vec<(WorkerId, Mailbox)>>,
    quotas: HashMap<AppId, Arc<AtomicUsize>>,
    open: Arc<AtomicUsize>,
    draining: AtomicBool,
}

#[derive(Debug)]
struct Shard {
    hub: Hub,
    /// Kept, so that a command allocates nothing for its effects.
    effects: Vec<Effect>,
}

/// The sending end of a worker's mailbox.
#[derive(Debug)]
struct Outlet {
    letters: UnboundedSender<Letter>,
    waiting: Arc<AtomicUsize>,
}

/// The receiving end of a worker's mailbox.
#[derive(Debug)]
pub struct Mailbox {
    letters: UnboundedReceiver<Letter>,
    waiting: Arc<AtomicUsize>,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Letter {
    /// Serve your listeners.
    Deliver(Delivery),
    /// Close every connection: the server stops.
    Drain,
}

/// A connection's right to be open; gives its place back when dropped.
#[derive(Debug)]
pub struct Permit {
    quota: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.quota.fetch_sub(1, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
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
        let hub = || Lock::new(Shard { hub: Hub::new(rand::random()), effects: Vec::new() });
        let node = Self {
            metrics: Metrics::new(),
            hubs: (0..HUBS).map(|_| hub()).collect(),
            hasher: RandomState::new(),
            outlets: outlets.into(),
            mailboxes: Lock::new((0..).map(WorkerId).zip(mailboxes).collect()),
            quotas: apps.all().map(|app| (app.id.clone(), Arc::default())).collect(),
            open: Arc::default(),
            draining: AtomicBool::new(false),
            config,
            apps,
        };
        Arc::new(node)
    }

    /// The number and mailbox of a worker that begins; none when all have.
    pub fn take_mailbox(&self) -> Option<(WorkerId, Mailbox)> {
        hold(&self.mailboxes).pop()
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The apps.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// The figures.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// When the node stops, or it or the app is full.
    pub fn admit(&self, app: &App) -> Result<Permit, CloseReason> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(CloseReason::ShuttingDown);
        }
        // Counted first and judged then, so that two at once cannot both take the last place.
        let quota = self.quotas.get(&app.id).cloned().unwrap_or_default();
        let permit = Permit { quota, open: self.open.clone() };
        let of_app = permit.quota.fetch_add(1, Ordering::Relaxed);
        let of_node = permit.open.fetch_add(1, Ordering::Relaxed);
        let full = |count: usize, max: usize| max > 0 && count >= max;
        match () {
            () if full(of_node, self.config.server.connections_max) => Err(CloseReason::OverCapacity),
            () if full(of_app, app.connections_max) => Err(CloseReason::OverQuota),
            () => Ok(permit),
        }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Refuses new connections from now on and has every worker close those it has.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for outlet in &self.outlets {
            outlet.post(Letter::Drain);
        }
    }

    /// Whether the workers keep up. To be asked before anything that makes them more to deliver.
    ///
    /// # Errors
    /// When it would only pile up: refuse it. The refusal is counted.
    pub fn check_room(&self) -> Result<(), Overloaded> {
        let max = self.config.server.mailbox_bytes_max;
        if self.outlets.iter().all(|outlet| outlet.waiting.load(Ordering::Relaxed) <= max) {
            return Ok(());
        }
        self.metrics.overloads.inc();
        Err(Overloaded)
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

    /// See [`Hub::publish`]. Ask [`Node::check_room`] before.
    pub fn publish(&self, new: Publish<'_>) -> Census {
        self.metrics.events.inc();
        self.apply(&new.app.id, new.channel, |hub, effects| hub.publish(new, effects))
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
        for hub in &self.hubs {
            self.run(&mut hold(hub), |hub, effects| {
                hub.settle(now, |id| self.apps.by_id(id).map(|app| &**app), effects);
            });
        }
    }

    /// The metrics page, with everything counted from state.
    pub fn page(&self) -> Vec<u8> {
        let metrics = &self.metrics;
        // Counted here and set once, since two may ask for the page at the same time.
        let mut counts: HashMap<&str, (i64, i64)> = HashMap::new();
        for hub in &self.hubs {
            let shard = hold(hub);
            for (app, channel, subscriptions) in shard.hub.all() {
                if subscriptions == 0 || channel.kind().is_user() {
                    continue;
                }
                let Some((app, _)) = self.quotas.get_key_value(app) else { continue };
                let (channels, all) = counts.entry(app).or_default();
                *channels += 1;
                *all += i64::try_from(subscriptions).unwrap_or(i64::MAX);
            }
        }
        for (app, quota) in &self.quotas {
            let (channels, subscriptions) = counts.get(&**app).copied().unwrap_or_default();
            let connections = i64::try_from(quota.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            metrics.connections.with_label_values(&[&**app]).set(connections);
            metrics.channels.with_label_values(&[&**app]).set(channels);
            metrics.subscriptions.with_label_values(&[&**app]).set(subscriptions);
        }
        metrics.page()
    }

    /// Applies a command to the hub that owns the channel and hands its effects on, in order.
    fn apply<R>(
        &self,
        app: &AppId,
        channel: &ChannelName,
        command: impl FnOnce(&mut Hub, &mut Vec<Effect>) -> R,
    ) -> R {
        let hash = self.hasher.hash_one((app, channel));
        let at = usize::try_from(hash % HUBS as u64).unwrap_or_default();
        self.run(&mut hold(&self.hubs[at]), command)
    }

    fn run<R>(&self, shard: &mut Shard, command: impl FnOnce(&mut Hub, &mut Vec<Effect>) -> R) -> R {
        let answer = command(&mut shard.hub, &mut shard.effects);
        for effect in shard.effects.drain(..) {
            match effect {
                Effect::Deliver(worker, delivery) => {
                    if let Some(outlet) = self.outlets.get(usize::from(worker.0)) {
                        outlet.post(Letter::Deliver(delivery));
                    }
                }
                // For webhooks, which will be an outlet like the workers. Nobody else wants to know.
                Effect::Occurred(_) => {}
            }
        }
        answer
    }
}

/// A panic of one thread is no reason for all others to end: what it left behind is used on.
#[allow(clippy::disallowed_types, reason = "the guard of that lock")]
fn hold<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn mailbox() -> (Outlet, Mailbox) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Outlet { letters: sender, waiting: waiting.clone() }, Mailbox { letters: receiver, waiting })
}

impl Outlet {
    fn post(&self, letter: Letter) {
        self.waiting.fetch_add(letter.weight(), Ordering::Relaxed);
        if let Err(unsent) = self.letters.send(letter) {
            // A worker that is gone has no listeners left, and nothing waits for it.
            self.waiting.fetch_sub(unsent.0.weight(), Ordering::Relaxed);
        }
    }
}

impl Letter {
    /// Roughly what it costs to keep, in bytes.
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Deliver(delivery) => delivery.body.weight(),
                Self::Drain => 0,
            }
    }
}

impl Mailbox {
    /// Waits for letters and takes all there are, up to `max`. False when none will come any more.
    pub async fn take(&mut self, letters: &mut Vec<Letter>, max: usize) -> bool {
        let taken = self.letters.recv_many(letters, max).await;
        let weight = letters.iter().map(Letter::weight).sum();
        self.waiting.fetch_sub(weight, Ordering::Relaxed);
        taken > 0
    }
}
