//! Several brokers that are one: nodes on one Redis, one receiver of their webhooks, and what may happen to a node.

use std::{ops::Index, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::{Api, Backend, Broker, Http, RedisCluster, RedisServer, Sentinels, until_within};

/// How long nodes may take to be ready again after whatever has happened to them or to Redis.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(15);

/// How long a leave may be undone in stories about clusters, in seconds.
const DEBOUNCE_S: u64 = 1;

/// What every node is set to, unless its story wants something else.
const SETTINGS: [&str; 5] = [
    "redis.lease_s = 3",
    "metrics.bind = \"127.0.0.1:0\"",
    "server.workers = 2",
    "server.shutdown_timeout_s = 2",
    "webhooks.allowed_networks = [\"127.0.0.0/8\"]",
];

/// What nodes are connected by.
pub(crate) trait Servers {
    /// The settings that say where it is.
    fn settings(&self) -> String;
}

impl Servers for RedisServer {
    fn settings(&self) -> String {
        format!("redis.url = \"{}\"", self.url())
    }
}

impl Servers for RedisCluster {
    fn settings(&self) -> String {
        format!("redis.url = \"{}\"", self.url())
    }
}

impl Servers for Sentinels {
    fn settings(&self) -> String {
        format!("redis.url = \"{}\"\nredis.sentinels = \"{}\"", self.url(), self.sentinel_urls())
    }
}

/// What the story has written itself; empty for nodes that are no cluster.
impl Servers for String {
    fn settings(&self) -> String {
        self.clone()
    }
}

/// The nodes of a cluster.
pub(crate) struct Fleet {
    nodes: Vec<Option<Broker>>,
    doors: Arc<Doors>,
    backend: Backend,
    settings: String,
    app: String,
}

/// Where clients find the nodes, as a load balancer knows them.
pub(crate) struct Doors(ArcSwap<Vec<Door>>);

/// The address of one node.
#[derive(Clone)]
pub(crate) struct Door {
    /// Which.
    pub(crate) node: usize,
    /// Its address.
    pub(crate) api: Api,
    /// Whether new clients are sent there.
    pub(crate) is_open: bool,
}

impl Fleet {
    /// So many nodes with all that a load makes use of.
    pub(crate) fn start(servers: &impl Servers, count: usize) -> Self {
        Self::with(servers, count, "", "client_events = true\nsubscription_counts = true")
    }

    /// One node that is no part of a cluster.
    pub(crate) fn alone() -> Self {
        Self::start(&String::new(), 1)
    }

    /// The same with further settings of the nodes, and of the app.
    pub(crate) fn with(servers: &impl Servers, count: usize, settings: &str, app: &str) -> Self {
        Self::telling(Backend::start(), servers, count, settings, app)
    }

    /// Nodes that may find nobody where Redis should be.
    pub(crate) fn unready(servers: &impl Servers, count: usize) -> Self {
        Self::launched(Backend::start(), servers, count, "", "client_events = true")
    }

    /// The same with a receiver of webhooks of the story's own.
    pub(crate) fn telling(
        backend: Backend,
        servers: &impl Servers,
        count: usize,
        settings: &str,
        app: &str,
    ) -> Self {
        let fleet = Self::launched(backend, servers, count, settings, app);
        fleet.until_ready();
        fleet
    }

    fn launched(backend: Backend, servers: &impl Servers, count: usize, settings: &str, app: &str) -> Self {
        let app = format!("{app}\n[[apps.webhooks]]\nurl = \"{}\"\n", backend.url());
        let debounce = format!("webhooks.debounce_s = {DEBOUNCE_S}");
        let own = [&debounce[..]].into_iter().chain(SETTINGS);
        // What the story sets comes first.
        let is_free = |line: &&str| line.split_once('=').is_some_and(|(key, _)| !settings.contains(key));
        let own: Vec<&str> = own.filter(is_free).collect();
        let settings = format!("{}\n{}\n{settings}", servers.settings(), own.join("\n"));
        let mut fleet = Self { nodes: Vec::new(), doors: Doors::new(), backend, settings, app };
        for _ in 0..count {
            let broker = fleet.launch();
            fleet.add(broker);
        }
        fleet
    }

    /// Adds a node that was started elsewhere with the same settings.
    pub(crate) fn add(&mut self, broker: Broker) {
        let (node, api) = (self.nodes.len(), broker.api().clone());
        self.nodes.push(Some(broker));
        let mut doors = self.doors.all();
        doors.push(Door { node, api, is_open: true });
        self.doors.0.store(Arc::new(doors));
    }

    /// The settings of every node.
    pub(crate) fn settings(&self) -> (&str, &str) {
        (&self.settings, &self.app)
    }

    fn launch(&self) -> Broker {
        Broker::of(&self.settings, &self.app)
    }

    /// Where clients find the nodes.
    pub(crate) fn doors(&self) -> &Arc<Doors> {
        &self.doors
    }

    /// Who is told of what happens.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The nodes that run.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (usize, &Broker)> {
        self.nodes.iter().enumerate().filter_map(|(node, broker)| Some((node, broker.as_ref()?)))
    }

    // What happens to a node.

    /// Ends a node as a crash would.
    pub(crate) fn kill(&mut self, node: usize) {
        self.doors.shut(node);
        let broker = self.nodes[node].take().expect("a node that runs");
        broker.signal("KILL");
        drop(broker);
    }

    /// Starts a node that has ended.
    pub(crate) fn restart(&mut self, node: usize) {
        assert!(self.nodes[node].is_none(), "node {node} runs");
        let broker = self.launch();
        let api = broker.api().clone();
        self.nodes[node] = Some(broker);
        self.until_ready();
        self.doors.put(Door { node, api, is_open: true });
    }

    /// Stops a node in order.
    #[track_caller]
    pub(crate) fn stop(&mut self, node: usize) {
        self.doors.shut(node);
        let finished = self.nodes[node].take().expect("a node that runs").stop();
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }

    /// Halts a node: its sockets stay, and it does nothing.
    pub(crate) fn freeze(&self, node: usize) {
        self.doors.shut(node);
        self[node].signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, node: usize) {
        self[node].signal("CONT");
        self.until_ready();
        self.doors.open(node);
    }

    // How it is.

    /// What a node says to whoever asks if it should be given clients.
    #[track_caller]
    pub(crate) fn readiness(&self, node: usize) -> (u16, Value) {
        let mut http = Http::connect(self[node].metrics_address());
        http.send("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = http.reply();
        (reply.status, serde_json::from_str(&reply.body).expect("JSON"))
    }

    /// Waits until every node that runs is ready.
    #[track_caller]
    pub(crate) fn until_ready(&self) {
        self.until_all_say(200);
    }

    /// Waits until every node that runs is not.
    #[track_caller]
    pub(crate) fn until_unready(&self) {
        self.until_all_say(503);
    }

    #[track_caller]
    fn until_all_say(&self, wanted: u16) {
        for (node, _) in self.nodes() {
            let what = format!("node {node} answers /ready with {wanted}");
            until_within(HEALED_WITHIN, &what, || self.readiness(node).0 == wanted);
        }
    }

    /// Waits until a node that is not ready says of Redis why.
    #[track_caller]
    pub(crate) fn until_complaint(&self, node: usize, part: &str) {
        let complaint = || self.readiness(node).1["checks"]["redis"].to_string();
        until_within(HEALED_WITHIN, &format!("{part:?} as the reason"), || complaint().contains(part));
    }

    /// Waits until a node counts so many.
    #[track_caller]
    pub(crate) fn until_counted(&self, node: usize, nodes: f64) {
        let counted = || (self[node].figure("fanfare_cluster_nodes") - nodes).abs() < 0.5;
        until_within(HEALED_WITHIN, &format!("node {node} counts {nodes} nodes"), counted);
    }
}

/// A node that runs.
impl Index<usize> for Fleet {
    type Output = Broker;

    fn index(&self, node: usize) -> &Broker {
        self.nodes[node].as_ref().expect("a node that runs")
    }
}

impl Doors {
    fn new() -> Arc<Self> {
        Arc::new(Self(ArcSwap::default()))
    }

    fn all(&self) -> Vec<Door> {
        Vec::clone(&self.0.load())
    }

    /// Those that are open.
    pub(crate) fn all_open(&self) -> Vec<Door> {
        self.0.load().iter().filter(|door| door.is_open).cloned().collect()
    }

    /// One of those that are open, another one for each number.
    pub(crate) fn pick(&self, number: usize) -> Option<Door> {
        let doors = self.all_open();
        doors.get(number % doors.len().max(1)).cloned()
    }

    /// That of a node if it is open, otherwise another one.
    pub(crate) fn of(&self, node: usize) -> Option<Door> {
        let doors = self.all_open();
        doors.iter().find(|door| door.node == node).or(doors.first()).cloned()
    }

    pub(crate) fn shut(&self, node: usize) {
        self.change(node, |door| door.is_open = false);
    }

    pub(crate) fn open(&self, node: usize) {
        self.change(node, |door| door.is_open = true);
    }

    fn put(&self, new: Door) {
        self.change(new.node, |door| *door = new.clone());
    }

    fn change(&self, node: usize, change: impl Fn(&mut Door)) {
        self.0.rcu(|doors| {
            let mut doors = Vec::clone(doors);
            doors.iter_mut().filter(|door| door.node == node).for_each(&change);
            doors
        });
    }
}
