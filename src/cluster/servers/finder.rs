//! Finding out who is a master of what: by asking Sentinels, or the servers themselves.

use deadpool_redis::redis::{Value, cmd};

use crate::cluster::servers::Inner;
use crate::cluster::servers::error::{SERVERS, Trouble};
use crate::cluster::servers::requests::Requests;
use crate::cluster::servers::settings::{Settings, Watch};
use crate::cluster::servers::topology::{Address, Topology, sentinel_answer};

/// Asks, and remembers whom.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// Whom to ask first, among servers or Sentinels: another one each time it does not help.
    turn: usize,
    /// The Sentinel that has answered.
    sentinel: Option<Requests>,
}

impl Finder {
    /// Asks until somebody knows.
    pub(super) async fn find(&mut self, inner: &Inner) -> Result<Topology, Trouble> {
        match &inner.settings.watch {
            Some(watch) => self.ask_sentinels(&inner.settings, watch).await.map(Topology::single),
            None => self.ask_servers(inner).await,
        }
    }

    async fn ask_sentinels(&mut self, settings: &Settings, watch: &Watch) -> Result<Address, Trouble> {
        if let Some(sentinel) = &mut self.sentinel {
            match ask_sentinel(sentinel, watch).await {
                Ok(master) => return Ok(master),
                Err(_) => self.sentinel = None,
            }
        }
        let mut troubles = Troubles::default();
        for _ in 0..watch.sentinels.len() {
            let (at, access) = &watch.sentinels[self.turn % watch.sentinels.len()];
            let asked = async {
                let mut sentinel = Requests::open(access, at, settings.timeout).await?;
                if !sentinel.greet().await?.is_sentinel() {
                    let text = format!(
                        "{at}: not a Sentinel: redis.sentinels names Sentinels, redis.url the master"
                    );
                    return Err(Trouble::Refused(text));
                }
                let master = ask_sentinel(&mut sentinel, watch).await?;
                Ok((sentinel, master))
            };
            match asked.await {
                Ok((sentinel, master)) => {
                    self.sentinel = Some(sentinel);
                    return Ok(master);
                }
                Err(trouble) => {
                    troubles.add(trouble);
                    self.turn += 1;
                }
            }
        }
        Err(troubles.worst())
    }

    async fn ask_servers(&mut self, inner: &Inner) -> Result<Topology, Trouble> {
        // One server stays where it is, whether it is there or not.
        if let Some(topology) = inner.topology.borrow().as_ref().filter(|topology| !topology.is_sharded) {
            return Ok(topology.clone());
        }
        let mut troubles = Troubles::default();
        // Those that are connected, and do not say that they have lost the others.
        let mut known = inner.informed();
        if !known.is_empty() {
            self.turn += 1;
            let first = self.turn % known.len();
            known.rotate_left(first);
        }
        for mut requests in known {
            match ask_server(&mut requests, &inner.settings).await {
                Ok(topology) => return Ok(topology),
                Err(trouble) => troubles.add(trouble),
            }
        }
        let servers = &inner.settings.servers;
        for at in &servers.seeds {
            let asked = async {
                let mut requests = Requests::open(&servers.access, at, inner.settings.timeout).await?;
                ask_server(&mut requests, &inner.settings).await
            };
            match asked.await {
                Ok(topology) => return Ok(topology),
                Err(trouble) => troubles.add(trouble),
            }
        }
        Err(troubles.worst())
    }
}

async fn ask_sentinel(sentinel: &mut Requests, watch: &Watch) -> Result<Address, Trouble> {
    let mut command = cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(&watch.master);
    match sentinel.ask(&command).await? {
        Value::Nil => {
            let (at, name) = (sentinel.at(), &watch.master);
            Err(Trouble::Refused(format!("{at}: no master called {name}: the host of {SERVERS} is its name")))
        }
        answer => sentinel_answer(&answer)
            .ok_or_else(|| Trouble::away(sentinel.at(), "an answer that is not of a Sentinel")),
    }
}

async fn ask_server(server: &mut Requests, settings: &Settings) -> Result<Topology, Trouble> {
    let greeting = server.greet().await?;
    let at = server.at().clone();
    greeting.check(&at)?;
    if !greeting.is_sharded() {
        return match settings.servers.seeds.len() {
            1 => Ok(Topology::single(at)),
            _ => Err(Trouble::Refused(format!(
                "{at}: not of a Redis Cluster: {SERVERS} names one server, or several of a Redis Cluster; a master with \
                 replicas is found by redis.sentinels"
            ))),
        };
    }
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    let answer = server.ask(&command).await?;
    Topology::sharded(&answer, &at).ok_or_else(|| Trouble::away(&at, "its Redis Cluster has no slots yet"))
}

/// What went wrong with several servers.
#[derive(Debug, Default)]
struct Troubles(Option<Trouble>);

impl Troubles {
    fn add(&mut self, trouble: Trouble) {
        // Rather what somebody can do something about.
        if !matches!(self.0, Some(Trouble::Refused(_))) {
            self.0 = Some(trouble);
        }
    }

    fn worst(self) -> Trouble {
        self.0.unwrap_or_else(|| Trouble::Away(format!("{SERVERS} names no server")))
    }
}
