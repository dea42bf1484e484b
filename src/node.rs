//! The hubs, running: one short lock each, and the outlets through which effects leave.
//!
//! A command is applied on the thread that brings it. Its effects enter the workers' mailboxes before the
//! hub's lock is released: that is what makes one order of a channel's events for everybody. Nothing is
//! awaited, written or encoded under the lock.
//!
//! Not here: who is behind a subscription (`worker`), what may be published (`connection`, `api`).

mod addresses;
mod channels;
mod cluster;
mod everywhere;
mod facts;
#[cfg(test)]
pub(crate) mod fake;
mod figures;
mod lookup;
mod survey;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::app::{App, AppId, Apps};
use crate::config::Config;
use crate::hub::{ChannelFull, Delivery, Hub, Occurrence, WorkerId};
use crate::inspect::Question;
use crate::metrics::{Metrics, Tally};
use crate::mirror::{Grant, PARTITIONS, Ticket};
use crate::node::addresses::Addresses;
use crate::protocol::CloseReason;
use crate::rate::Rate;

pub use channels::Overloaded;
pub use cluster::{Away, Call, ClusterStatus, Lease, Listed};
pub use everywhere::{Occupied, Promised};
pub use facts::{FactAnswer, News, Receipt, Room, Tenure, Told};
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
    hubs: Box<[Lock<channels::Shard>]>,
    /// In the place of the hubs, if this node is one of many.
    cluster: Option<cluster::Cluster>,
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
    /// Somebody who waited for a place in an audience has it, or does not get it.
    Granted(Ticket, Result<Grant, ChannelFull>),
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

impl Node {
    /// A node without channels, with a mailbox for each worker.
    pub fn new(config: Config, apps: Apps) -> Arc<Self> {
        let (outlets, mailboxes): (Vec<_>, Vec<_>) = (0..config.workers()).map(|_| mailbox()).unzip();
        let (occurrences, occurred) = mailbox();
        let debounce = Duration::from_secs(config.webhooks.debounce_s);
        let beats = config.workers();
        let hub =
            || Lock::new(channels::Shard { hub: Hub::new(rand::random(), debounce), effects: Vec::new() });
        let node = Self {
            metrics: Metrics::new(),
            hubs: (0..HUBS).map(|_| hub()).collect(),
            cluster: (!config.redis.url.expose().is_empty()).then(cluster::Cluster::new),
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
        for partition in 0..PARTITIONS {
            self.mirrored(partition, |mirror, _| {
                used.extend(mirror.topics().map(|topic| topic.app.clone()));
            });
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
                Self::Granted(..) | Self::AppsChanged | Self::Drain(_) | Self::Ask(_) => 0,
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
