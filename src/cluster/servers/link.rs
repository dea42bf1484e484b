//! One server: the connections to it, made again whenever they are lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::servers::Inner;
use crate::cluster::servers::bus::Bus;
use crate::cluster::servers::error::{RunError, Trouble};
use crate::cluster::servers::requests::Requests;
use crate::cluster::servers::topics::LinkId;
use crate::cluster::servers::topology::Address;

/// How often a server is asked whether it is still there, and still a master.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// A server, as long as it is a master or somebody is sent to it.
#[derive(Debug)]
pub(super) struct Link {
    /// Its name among topics.
    pub(super) id: LinkId,
    /// Where it is.
    pub(super) address: Address,
    /// The connection for requests, or why there is none.
    requests: RefCell<Result<Requests, Trouble>>,
    has_bus: Cell<bool>,
    is_bus_up: Cell<bool>,
    /// It did not hear enough of the others when it was last asked for something.
    is_alone: Cell<bool>,
    used: Cell<Instant>,
    /// Tells the bus that there is something to ask for.
    pub(super) asked: Notify,
    tasks: RefCell<JoinSet<()>>,
}

impl Link {
    /// Begins to connect for requests.
    pub(super) fn begin(inner: &Rc<Inner>, id: LinkId, address: Address) -> Rc<Self> {
        let requests = RefCell::new(Err(Trouble::Away(format!("{address}: not connected yet"))));
        let link = Rc::new(Self {
            id,
            address,
            requests,
            has_bus: Cell::new(false),
            is_bus_up: Cell::new(false),
            is_alone: Cell::new(false),
            used: Cell::new(Instant::now()),
            asked: Notify::new(),
            tasks: RefCell::new(JoinSet::new()),
        });
        link.tasks.borrow_mut().spawn_local(tend_requests(Rc::clone(inner), Rc::clone(&link)));
        link
    }

    /// Begins to connect for messages, if it has not.
    pub(super) fn begin_bus(self: &Rc<Self>, inner: &Rc<Inner>) {
        if !self.has_bus.replace(true) {
            self.tasks.borrow_mut().spawn_local(tend_bus(Rc::clone(inner), Rc::clone(self)));
        }
    }

    /// Ends all connections.
    pub(super) fn end(&self) {
        self.tasks.borrow_mut().abort_all();
        *self.requests.borrow_mut() = Err(Trouble::Away(format!("{}: no longer a master", self.address)));
    }

    /// The connection for requests.
    pub(super) fn requests(&self) -> Result<Requests, RunError> {
        self.used.set(Instant::now());
        self.requests.borrow().as_ref().map(Requests::clone).map_err(Trouble::of_run)
    }

    /// Which run of the server answers requests; 0 while none does.
    pub(super) fn run_id(&self) -> u64 {
        self.requests.borrow().as_ref().map_or(0, Requests::run_id)
    }

    /// The connection for requests, if there is one that knows of others.
    pub(super) fn informed(&self) -> Option<Requests> {
        if self.is_alone.get() { None } else { self.requests.borrow().as_ref().ok().cloned() }
    }

    /// Whether requests and messages have their connections.
    pub(super) fn is_up(&self) -> (bool, bool) {
        (self.requests.borrow().is_ok(), self.is_bus_up.get())
    }

    /// Whether it hears enough of others.
    pub(super) fn set_alone(&self, is_alone: bool) {
        self.is_alone.set(is_alone);
    }

    /// Whether somebody was sent to it lately who is no master's.
    pub(super) fn is_guest(&self, lately: Duration) -> bool {
        !self.has_bus.get() && self.used.get().elapsed() < lately
    }
}

async fn tend_requests(inner: Rc<Inner>, link: Rc<Link>) {
    let mut pause = Pause::default();
    loop {
        let (trouble, was_there) = match open(&inner, &link).await {
            Ok(requests) => {
                *link.requests.borrow_mut() = Ok(requests.clone());
                inner.connected();
                let began = Instant::now();
                let trouble = watch(&inner, requests).await;
                pause.has_lasted(began.elapsed());
                (trouble, true)
            }
            Err(trouble) => (trouble, false),
        };
        *link.requests.borrow_mut() = Err(trouble.clone());
        if was_there {
            inner.lost(&trouble)
        } else {
            inner.failed(&trouble)
        }
        sleep(pause.next()).await;
    }
}

async fn open(inner: &Inner, link: &Link) -> Result<Requests, Trouble> {
    let access = &inner.settings.servers.access;
    let mut requests = Requests::open(access, &link.address, inner.settings.timeout).await?;
    let greeting = requests.greet().await?;
    inner.judge(&link.address, &greeting)?;
    requests.find_run().await?;
    Ok(requests)
}

/// Waits until a connection is of no more use.
async fn watch(inner: &Inner, mut requests: Requests) -> Trouble {
    let other = requests.clone();
    loop {
        let is_broken = select! {
            () = other.broken() => true,
            () = sleep(HEARTBEAT) => false,
        };
        match requests.greet().await {
            Ok(greeting) => {
                // Somebody who found a replica gave the connection up.
                if let Err(trouble) = inner.judge(requests.at(), &greeting) {
                    return trouble;
                }
            }
            Err(trouble) if !is_broken => return trouble,
            Err(_) => {}
        }
        if is_broken {
            return Trouble::closed(requests.at());
        }
    }
}

async fn tend_bus(inner: Rc<Inner>, link: Rc<Link>) {
    let mut pause = Pause::default();
    let Inner { settings, .. } = &*inner;
    loop {
        let opened = Bus::open(&settings.servers.access, &link.address, settings.timeout).await;
        let opened = opened.and_then(|(bus, greeting)| inner.judge(&link.address, &greeting).map(|()| bus));
        match opened {
            Ok(bus) => {
                link.is_bus_up.set(true);
                inner.connected();
                let began = Instant::now();
                let trouble = bus.serve(&inner, &link).await;
                pause.has_lasted(began.elapsed());
                link.is_bus_up.set(false);
                let deaf = inner.topics.borrow_mut().lost(link.id);
                inner.deafened(deaf);
                inner.lost(&trouble);
            }
            Err(trouble) => inner.failed(&trouble),
        }
        sleep(pause.next()).await;
    }
}

/// How long to wait before the next attempt: longer each time, and not the same for all nodes.
#[derive(Debug, Default)]
pub(super) struct Pause {
    attempts: u32,
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Pause {
    /// The next one.
    pub(super) fn next(&mut self) -> Duration {
        let whole = PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(self.attempts.min(16)));
        self.attempts += 1;
        whole.mul_f64(rand::random_range(0.5..1.0))
    }

    /// Begins anew if the last connection was a good one.
    pub(super) fn has_lasted(&mut self, time: Duration) {
        if time > HEARTBEAT {
            self.attempts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew_after_a_good_connection() {
        let mut pause = Pause::default();
        assert!((25..=50).contains(&pause.next().as_millis()));
        assert!((50..=100).contains(&pause.next().as_millis()));
        let longest = (0..40).map(|_| pause.next()).max();
        assert!(longest.is_some_and(|longest| longest <= PAUSE_MAX && longest > PAUSE_MAX / 2));
        pause.has_lasted(Duration::from_millis(10));
        assert!(pause.next() > PAUSE_MAX / 3);
        pause.has_lasted(Duration::from_secs(2));
        assert!(pause.next() <= PAUSE_MIN);
    }
}
