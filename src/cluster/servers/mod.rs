//! Connections to Redis: one server, what Sentinels name, or a Redis Cluster.
//!
//! ```text
//!  Servers ─▶ supervisor: who is master of which slots? (Sentinels, CLUSTER SLOTS)
//!     │            │
//!     │            ▼        ┌─ requests: one connection that all commands share
//!     └─ run ──▶ link, one ─┤
//!     └─ listen▶ per master └─ bus: one connection that messages come on ──▶ BusEvent
//! ```
//!
//! Every connection is asked each second whether it lives and leads to a master, by `HELLO`, which everybody may send at
//! any time. One that is silent for `redis.timeout_ms` is lost: a network that is cut says nothing.
//!
//! Invariants: nothing that may have been done is done again here. Whatever may have missed a message is told to be deaf,
//! and to be listening again once nothing is missed any more: then is the time to ask what it was.
//!
//! Not here: what scripts do (`script`), what follows from being deaf (`engine`).

mod bus;
mod error;
mod finder;
mod health;
mod link;
mod requests;
mod resp;
mod settings;
mod topics;
mod topology;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::Value;
use sha1::{Digest, Sha1};
use tokio::select;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use crate::cluster::script::{Invocation, Script};
use crate::cluster::servers::error::{Answer, Trouble};
use crate::cluster::servers::finder::Finder;
use crate::cluster::servers::health::Monitor;
use crate::cluster::servers::link::{Link, Pause};
use crate::cluster::servers::requests::Requests;
use crate::cluster::servers::resp::Greeting;
use crate::cluster::servers::settings::Settings;
use crate::cluster::servers::topics::{LinkId, Names, Topics};
use crate::cluster::servers::topology::{Address, Redirect, Topology, slot_of};
use crate::config;

pub use error::{RIGHTS, RunError, SettingsError};
pub use health::Health;

/// The servers of the cluster's state, and the bus.
///
/// Lives in one thread, in a [`tokio::task::LocalSet`]. Connections end with the value.
pub struct Servers {
    inner: Rc<Inner>,
    supervisor: AbortHandle,
}

/// What the bus tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BusEvent {
    /// A message.
    Message {
        /// On which topic.
        topic: Vec<u8>,
        /// What.
        payload: Bytes,
    },
    /// Whatever is published on these topics from now on arrives. Told for each topic that is asked for, and again after
    /// each loss of a connection.
    Listening(Vec<Vec<u8>>),
    /// A connection was lost, or a slot went elsewhere: messages of these topics may be missing until they are listened
    /// to again, which is being tried.
    Deaf(Vec<Vec<u8>>),
}

/// What the tasks share.
struct Inner {
    settings: Settings,
    events: UnboundedSender<BusEvent>,
    topology: RefCell<Option<Topology>>,
    links: RefCell<BTreeMap<Address, Rc<Link>>>,
    links_ever: Cell<LinkId>,
    topics: RefCell<Topics>,
    monitor: RefCell<Monitor>,
    /// Somebody has found out that masters are not who they were.
    refresh: Notify,
    /// The health is another one.
    changed: Notify,
    /// What scripts are called by.
    hashes: RefCell<Vec<(&'static Script, Rc<str>)>>,
}

/// How often it is looked who is master, while all is well.
const LOOK: Duration = Duration::from_secs(3);

/// How often, while something is away.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How often at most, whoever wants it.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// How long the connection to a server is kept that a slot is on its way to.
const GUEST: Duration = Duration::from_secs(60);

/// How often a script is sent elsewhere before it is given back.
const REDIRECTS: usize = 4;

/// Checks settings, and files that they name, without connecting. No settings are fine.
///
/// # Errors
/// When a setting makes no sense or a certificate cannot be read.
pub fn check(settings: &config::Redis) -> Result<(), SettingsError> {
    match (settings.url.expose(), settings.sentinels.expose()) {
        ("", "") => Ok(()),
        ("", _) => Err(SettingsError(
            "redis.sentinels: redis.url is missing, whose host is the name of the master".to_owned(),
        )),
        _ => Settings::read(settings).map(drop),
    }
}

impl Servers {
    /// Begins to connect, in a runtime for local tasks, and goes on for as long as the value lives.
    ///
    /// # Errors
    /// When a setting makes no sense or a certificate cannot be read. That nobody answers is no error.
    pub fn new(settings: &config::Redis) -> Result<(Self, UnboundedReceiver<BusEvent>), SettingsError> {
        let (events, receiver) = unbounded_channel();
        let inner = Rc::new(Inner {
            settings: Settings::read(settings)?,
            events,
            topology: RefCell::default(),
            links: RefCell::default(),
            links_ever: Cell::default(),
            topics: RefCell::default(),
            monitor: RefCell::new(Monitor::new()),
            refresh: Notify::new(),
            changed: Notify::new(),
            hashes: RefCell::default(),
        });
        let supervisor = spawn_local(supervise(Rc::clone(&inner))).abort_handle();
        Ok((Self { inner, supervisor }, receiver))
    }

    /// Runs a script where its first key lives. Many may be under way at once; they share writes.
    ///
    /// # Errors
    /// Why not, and whether it may have been done all the same.
    pub async fn run(&self, invocation: &Invocation) -> Result<Value, RunError> {
        let inner = &self.inner;
        let hash = inner.hash(invocation.script);
        let slot = invocation.keys.first().map_or(0, |key| slot_of(key));
        let mut link = inner.owner(slot)?;
        let mut asking = false;
        for _ in 0..=REDIRECTS {
            let mut requests = link.requests()?;
            let answer = requests.run(invocation, &hash, asking).await;
            link.set_alone(matches!(answer, Err(Answer::Alone(_))));
            match answer {
                Ok(value) => return Ok(value),
                Err(Answer::Moved(redirect)) => {
                    link = inner.moved(&redirect);
                    asking = false;
                }
                Err(Answer::Asked(redirect)) => {
                    link = inner.link(&redirect.address);
                    asking = true;
                }
                Err(Answer::Demoted(text)) => {
                    requests.give_up();
                    return Err(RunError::NotRun(text));
                }
                Err(Answer::Alone(text)) => {
                    inner.refresh.notify_one();
                    return Err(RunError::NotRun(text));
                }
                Err(Answer::Error(error)) => return Err(error),
                Err(Answer::NoScript) => {
                    return Err(RunError::NotRun(format!("{}: NOSCRIPT to EVAL", link.address)));
                }
            }
        }
        Err(RunError::NotRun(format!("slot {slot} was sent from server to server")))
    }

    /// Which run of which server serves a key now: another number after a restart or a fail-over. 0 while there is none.
    pub fn run_of(&self, key: &[u8]) -> u64 {
        self.inner.owner(slot_of(key)).map_or(0, |link| link.run_id())
    }

    /// Listens to a topic until told otherwise, whatever happens to connections.
    pub fn listen(&self, topic: Vec<u8>) {
        let asked = self.inner.topics.borrow_mut().listen(&topic, |slot| self.inner.owner_id(slot));
        self.inner.poke(asked);
    }

    /// Listens no longer.
    pub fn unlisten(&self, topic: &[u8]) {
        let asked = self.inner.topics.borrow_mut().unlisten(topic);
        self.inner.poke(asked);
    }

    /// Whether it is a Redis Cluster, where scripts publish with `SPUBLISH`; none until that is known.
    pub fn is_sharded(&self) -> Option<bool> {
        self.inner.topology.borrow().as_ref().map(|topology| topology.is_sharded)
    }

    /// How the connections are.
    pub fn health(&self) -> Health {
        self.inner.monitor.borrow().health().clone()
    }

    /// Waits until commands or bus go away or come back.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.supervisor.abort();
        for link in std::mem::take(&mut *self.inner.links.borrow_mut()).values() {
            link.end();
        }
    }
}

/// Says nothing of settings, which have passwords.
impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("is_sharded", &self.is_sharded()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}

/// Keeps looking who is master of what.
async fn supervise(inner: Rc<Inner>) {
    let mut finder = Finder::default();
    let mut pause = Pause::default();
    loop {
        let wait = match finder.find(&inner).await {
            Ok(topology) => {
                pause = Pause::default();
                inner.adopt(topology);
                if inner.monitor.borrow().health().away_since().is_none() { LOOK } else { LOOK_AGAIN }
            }
            Err(trouble) => {
                inner.monitor.borrow_mut().trouble(&trouble);
                pause.next()
            }
        };
        sleep(LOOK_PAUSE).await;
        select! {
            () = inner.refresh.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

impl Inner {
    fn tell(&self, event: BusEvent) {
        // Nobody hears it only when everything ends.
        let _ = self.events.send(event);
    }

    fn is_sharded(&self) -> bool {
        self.topology.borrow().as_ref().is_some_and(|topology| topology.is_sharded)
    }

    /// Whether a server is what it should be.
    fn judge(&self, at: &Address, greeting: &Greeting) -> Result<(), Trouble> {
        greeting.check(at)?;
        if greeting.is_sharded() != self.is_sharded() {
            // Somebody has put another server there.
            *self.topology.borrow_mut() = None;
            return Err(Trouble::away(at, "another kind of server than before"));
        }
        if greeting.is_master { Ok(()) } else { Err(Trouble::away(at, "a replica, not a master")) }
    }

    /// The connections of all servers that may know who is master.
    fn informed(&self) -> Vec<Requests> {
        self.links.borrow().values().filter_map(|link| link.informed()).collect()
    }

    /// The server that has a slot.
    fn owner(self: &Rc<Self>, slot: u16) -> Result<Rc<Link>, RunError> {
        let owner = match &*self.topology.borrow() {
            Some(topology) => topology.master(slot).cloned(),
            None => return Err(self.unknown().of_run()),
        };
        owner
            .map(|owner| self.link(&owner))
            .ok_or_else(|| RunError::NotRun(format!("nobody has slot {slot}")))
    }

    /// Why nothing is known of any server.
    fn unknown(&self) -> Trouble {
        let monitor = self.monitor.borrow();
        let health = monitor.health();
        let text = health.trouble.clone().unwrap_or_else(|| "not connected yet".to_owned());
        if health.is_refused { Trouble::Refused(text) } else { Trouble::Away(text) }
    }

    fn owner_id(&self, slot: u16) -> Option<LinkId> {
        let topology = self.topology.borrow();
        let owner = topology.as_ref()?.master(slot)?;
        self.links.borrow().get(owner).map(|link| link.id)
    }

    /// The link to a server.
    fn link(self: &Rc<Self>, at: &Address) -> Rc<Link> {
        if let Some(link) = self.links.borrow().get(at) {
            return Rc::clone(link);
        }
        let id = self.links_ever.get() + 1;
        self.links_ever.set(id);
        let link = Link::begin(self, id, at.clone());
        self.links.borrow_mut().insert(at.clone(), Rc::clone(&link));
        link
    }

    /// Takes over who is master of what.
    fn adopt(self: &Rc<Self>, topology: Topology) {
        for master in topology.masters() {
            self.link(master).begin_bus(self);
        }
        self.links.borrow_mut().retain(|address, link| {
            let stays = topology.masters().any(|master| master == address) || link.is_guest(GUEST);
            if !stays {
                link.end();
            }
            stays
        });
        let names = |topology: &Topology| {
            topology
                .masters()
                .map(Address::to_string)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(",")
        };
        let masters = names(&topology);
        let before = self.topology.replace(Some(topology));
        if before.as_ref().map(names).as_ref() != Some(&masters) {
            tracing::info!(masters, "redis is found");
        }
        self.place();
        self.see();
    }

    /// A server says that a slot is elsewhere. Gives the link to its place.
    fn moved(self: &Rc<Self>, redirect: &Redirect) -> Rc<Link> {
        let link = self.link(&redirect.address);
        if let Some(topology) = &mut *self.topology.borrow_mut()
            && topology.is_sharded
        {
            topology.set(redirect.slot, &redirect.address);
        }
        link.begin_bus(self);
        self.place();
        self.see();
        self.refresh.notify_one();
        link
    }

    /// Gives topics to the servers that have their slots.
    fn place(&self) {
        let deaf = self.topics.borrow_mut().place(|slot| self.owner_id(slot));
        if !deaf.is_empty() {
            self.tell(BusEvent::Deaf(deaf));
        }
        for link in self.links.borrow().values() {
            link.asked.notify_one();
        }
    }

    /// Tells a link that its bus has something to do.
    fn poke(&self, link: Option<LinkId>) {
        if let Some(id) = link
            && let Some(link) = self.links.borrow().values().find(|link| link.id == id)
        {
            link.asked.notify_one();
        }
    }

    fn connected(&self) {
        self.monitor.borrow_mut().connected();
        self.see();
    }

    fn lost(&self, trouble: &Trouble) {
        self.see();
        let mut monitor = self.monitor.borrow_mut();
        monitor.lost();
        monitor.trouble(trouble);
        // It may not be a master any more.
        self.refresh.notify_one();
    }

    fn failed(&self, trouble: &Trouble) {
        let mut monitor = self.monitor.borrow_mut();
        monitor.failed();
        monitor.trouble(trouble);
        self.refresh.notify_one();
    }

    /// Topics are not heard any more, since something is not where it was.
    fn deafened(&self, topics: Names) {
        if !topics.is_empty() {
            self.tell(BusEvent::Deaf(topics));
        }
        self.refresh.notify_one();
    }

    /// Looks which connections there are.
    fn see(&self) {
        let (mut commands, mut bus) = (false, false);
        if let Some(topology) = &*self.topology.borrow() {
            let links = self.links.borrow();
            (commands, bus) = topology.masters().fold((true, true), |(commands, bus), master| {
                let (has_commands, has_bus) = links.get(master).map_or((false, false), |link| link.is_up());
                (commands && has_commands, bus && has_bus)
            });
        }
        if self.monitor.borrow_mut().see(commands, bus) {
            self.changed.notify_one();
        }
    }

    /// What a script is called by.
    fn hash(&self, script: &'static Script) -> Rc<str> {
        let mut hashes = self.hashes.borrow_mut();
        if let Some((_, hash)) = hashes.iter().find(|(known, _)| std::ptr::eq(*known, script)) {
            return Rc::clone(hash);
        }
        let hash: Rc<str> = hex::encode(Sha1::digest(script.source)).into();
        hashes.push((script, Rc::clone(&hash)));
        hash
    }
}
