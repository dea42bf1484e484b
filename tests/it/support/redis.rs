//! Redis that a story starts for itself: one server, one with Sentinels, a cluster; on ports of its own, in folders of
//! its own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use deadpool_redis::redis::{
    Client, ClientTlsConfig, Connection, FromRedisValue, RedisResult, TlsCertificates, Value, cmd,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::{PASSWORD, until_within};

/// Starting, electing and agreeing take a busy machine its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The password of the Sentinels, which is not the one of the servers they watch.
const SENTINEL_PASSWORD: &str = "hush-sentinel-7";

/// What the Sentinels call their master.
const MASTER: &str = "mymaster";

/// A Redis of one story, without persistence.
pub(crate) struct RedisServer {
    port: u16,
    /// Of its link to others of its cluster.
    bus_port: u16,
    folder: TempDir,
    program: &'static str,
    options: Vec<String>,
    password: &'static str,
    pki: Option<Rc<Pki>>,
    server: Option<Child>,
}

impl RedisServer {
    /// Starts one that lets everybody in.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with options of the command line, each a pair: `["--appendonly", "yes"]`.
    #[track_caller]
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::made("redis-server", options, "", None)
    }

    /// Starts one that wants [`PASSWORD`].
    #[track_caller]
    pub(crate) fn with_password(options: &[&str]) -> Self {
        let mut all = vec!["--requirepass", PASSWORD];
        all.extend_from_slice(options);
        Self::made("redis-server", &all, PASSWORD, None)
    }

    /// Starts one that speaks nothing but TLS, and only with who shows a certificate.
    #[track_caller]
    pub(crate) fn secure() -> Self {
        Self::made("redis-server", &["--tls-auth-clients", "yes"], "", Some(Rc::new(Pki::new())))
    }

    #[track_caller]
    fn made(program: &'static str, options: &[&str], password: &'static str, pki: Option<Rc<Pki>>) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let mut redis = Self { port: 0, bus_port: 0, folder, program, options, password, pki, server: None };
        redis.serve();
        redis
    }

    /// Where it is, with the password.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.pki.is_some() { "rediss" } else { "redis" };
        let credentials =
            if self.password.is_empty() { String::new() } else { format!(":{}@", self.password) };
        format!("{scheme}://{credentials}127.0.0.1:{}/", self.port)
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Certificates that go with it, if it speaks TLS.
    pub(crate) fn pki(&self) -> &Pki {
        self.pki.as_ref().expect("a server with TLS")
    }

    /// A connection of the story's own.
    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().expect("a Redis that answers")
    }

    fn try_connect(&self) -> RedisResult<Connection> {
        let client = match &self.pki {
            Some(pki) => Client::build_with_tls(self.url(), pki.certificates())?,
            None => Client::open(self.url())?,
        };
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        cmd("PING").exec(&mut connection).map(|()| connection)
    }

    /// Runs a command, on a connection of its own.
    #[track_caller]
    pub(crate) fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// As [`RedisServer::command`], of a server that may be away or refuse.
    pub(crate) fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let (name, arguments) = words.split_first().expect("a command");
        cmd(name).arg(arguments).query(&mut self.try_connect()?)
    }

    /// Starts it again where it was, after it was killed.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "it runs");
        self.server = Some(self.spawn());
        until_within(PATIENCE, "a Redis that answers again", || {
            if self.server.as_mut().expect("a child").try_wait().expect("a child").is_some() {
                self.server = Some(self.spawn());
            }
            self.try_connect().is_ok()
        });
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill(); // it may have gone already
            server.wait().expect("an end");
        }
    }

    /// Stops it in the middle of whatever it does: connections stay, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let server = self.server.as_ref().expect("a server that runs");
        let status = Command::new("kill").args([format!("-{name}"), server.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    #[track_caller]
    fn serve(&mut self) {
        until_within(PATIENCE, "a Redis that answers", || {
            let ended = match &mut self.server {
                Some(server) => server.try_wait().expect("a child").is_some(),
                None => true,
            };
            if ended {
                // Somebody else may have taken the port between the two; then it ends at once, and gets another.
                (self.port, self.bus_port) = (free_port(), free_port());
                self.server = Some(self.spawn());
            }
            self.try_connect().is_ok()
        });
    }

    fn spawn(&self) -> Child {
        let folder = self.folder.path();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = Command::new(self.program);
        if self.program == "redis-sentinel" {
            // It keeps what it learns in its configuration.
            let file = folder.join("sentinel.conf");
            if !file.exists() {
                fs::write(&file, self.options.join("\n")).expect("a configuration");
            }
            command.arg(file).args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        } else {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
            let port = self.port.to_string();
            match &self.pki {
                None => command.args(["--port", &port]),
                Some(pki) => command.args(["--port", "0", "--tls-port", &port]).args(pki.options()),
            };
            command.args(&self.options);
            if self.options.iter().any(|option| option == "--cluster-enabled") {
                command.args(["--cluster-port", &self.bus_port.to_string()]);
            }
        }
        command.arg("--dir").arg(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        command.spawn().expect("redis-server and redis-sentinel, of the packages of these names")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A master, a replica of it, and three Sentinels that make the replica a master when the master has gone.
pub(crate) struct Sentinels {
    /// The master at first, and the replica at first.
    pub(crate) servers: [RedisServer; 2],
    /// Those who watch them.
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts them, and waits until they know each other.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let auth = ["--masterauth", PASSWORD];
        let master = RedisServer::with_password(&auth);
        let port = master.port().to_string();
        let replica =
            RedisServer::with_password(&[auth[0], auth[1], "--replicaof", &format!("127.0.0.1 {port}")]);
        until_within(PATIENCE, "a replica that is up to date", || {
            replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let lines = [
            format!("requirepass {SENTINEL_PASSWORD}"),
            format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"),
            format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"),
            format!("sentinel auth-pass {MASTER} {PASSWORD}"),
            format!("sentinel down-after-milliseconds {MASTER} 1000"),
            format!("sentinel failover-timeout {MASTER} 3000"),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let watch = || RedisServer::made("redis-sentinel", &lines, SENTINEL_PASSWORD, None);
        let sentinels: Vec<RedisServer> = (0..3).map(|_| watch()).collect();
        let all = Self { servers: [master, replica], sentinels };
        until_within(PATIENCE, "Sentinels that know each other and the replica", || {
            let state =
                |sentinel: &RedisServer| sentinel.command::<Vec<String>>(&["SENTINEL", "MASTER", MASTER]);
            all.sentinels.iter().all(|sentinel| {
                let state = state(sentinel);
                let field = |name: &str| {
                    state.iter().position(|it| it == name).map(|at| state[at + 1].as_str()).unwrap_or("")
                };
                field("num-other-sentinels") == "2"
                    && field("num-slaves") == "1"
                    && field("flags") == "master"
            })
        });
        all
    }

    /// For `redis.url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://:{PASSWORD}@{MASTER}/0")
    }

    /// For `redis.sentinels`.
    pub(crate) fn sentinel_urls(&self) -> String {
        let urls: Vec<String> =
            self.sentinels.iter().map(|it| it.url().trim_end_matches('/').to_owned()).collect();
        urls.join(",")
    }

    /// Which of the servers is the master now, by the word of the Sentinels.
    #[track_caller]
    pub(crate) fn master(&self) -> usize {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let (_, port): (String, u16) = self.sentinels[0].command(&ask);
        self.servers.iter().position(|server| server.port() == port).expect("one of the two")
    }

    /// Waits until the other one is the master, and all Sentinels say so.
    #[track_caller]
    pub(crate) fn expect_master(&self, index: usize) {
        until_within(PATIENCE, "another master", || {
            let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
            let agreed = |it: &RedisServer| {
                it.try_command::<(String, u16)>(&ask).is_ok_and(|it| it.1 == self.servers[index].port())
            };
            let role = || self.servers[index].try_command::<Vec<Value>>(&["ROLE"]);
            self.sentinels.iter().all(agreed)
                && role().is_ok_and(|role| role.first() == Some(&Value::BulkString(b"master".to_vec())))
        });
    }
}

/// A Redis Cluster: masters that share the slots evenly, then their replicas.
pub(crate) struct RedisCluster {
    /// Masters at first, in the order of their slots; then, if there are any, a replica of each in the same order.
    pub(crate) nodes: Vec<RedisServer>,
    masters: usize,
}

impl RedisCluster {
    /// Three masters.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(3, false, &[])
    }

    /// Three masters with a replica each.
    #[track_caller]
    pub(crate) fn with_replicas() -> Self {
        Self::with(3, true, &[])
    }

    /// As many masters, each with a replica or none, with options of the command line.
    #[track_caller]
    pub(crate) fn with(masters: usize, replicas: bool, options: &[&str]) -> Self {
        Self::made(masters, replicas, options, None)
    }

    /// Three masters that speak nothing but TLS, among themselves, too.
    #[track_caller]
    pub(crate) fn secure() -> Self {
        Self::made(3, false, &["--tls-cluster", "yes"], Some(&Rc::new(Pki::new())))
    }

    #[track_caller]
    fn made(masters: usize, replicas: bool, options: &[&str], pki: Option<&Rc<Pki>>) -> Self {
        let mut all = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        all.extend_from_slice(options);
        let count = if replicas { 2 * masters } else { masters };
        let node = |_| RedisServer::made("redis-server", &all, "", pki.cloned());
        let nodes: Vec<RedisServer> = (0..count).map(node).collect();
        let cluster = Self { nodes, masters };
        for (index, node) in cluster.nodes.iter().enumerate() {
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < masters {
                let edge = |index: usize| SLOTS * index / masters;
                let (from, to) = (edge(index).to_string(), (edge(index + 1) - 1).to_string());
                node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]);
            }
            let (port, bus) = (node.port().to_string(), node.bus_port.to_string());
            cluster.nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        cluster.expect_known(count);
        for index in masters..count {
            let master = cluster.id(index - masters);
            until_within(PATIENCE, "a replica", || {
                cluster.nodes[index].try_command::<()>(&["CLUSTER", "REPLICATE", &master]).is_ok()
            });
        }
        for index in masters..count {
            until_within(PATIENCE, "a replica that is up to date", || {
                cluster.nodes[index]
                    .command::<String>(&["INFO", "replication"])
                    .contains("master_link_status:up")
                    && cluster.nodes.iter().all(|node| node.shows_replicas(count - masters))
            });
        }
        cluster
    }

    #[track_caller]
    fn expect_known(&self, count: usize) {
        until_within(PATIENCE, "nodes that know each other", || {
            self.nodes.iter().all(|node| {
                let info: String = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}\r"))
            })
        });
    }

    /// For `redis.url`: the masters of the beginning.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<String> =
            self.nodes[..self.masters].iter().map(|it| it.url().trim_end_matches('/').to_owned()).collect();
        urls.join(",")
    }

    fn id(&self, index: usize) -> String {
        self.nodes[index].command(&["CLUSTER", "MYID"])
    }

    /// The slot of a key.
    pub(crate) fn slot(&self, key: &str) -> u16 {
        let node = self.nodes.iter().find(|node| node.server.is_some()).expect("a node that runs");
        node.command(&["CLUSTER", "KEYSLOT", key])
    }

    /// Which node has a slot, by the word of the first one that answers.
    #[track_caller]
    pub(crate) fn owner(&self, slot: u16) -> usize {
        let running = self.nodes.iter().filter(|node| node.server.is_some());
        let nodes = running.filter_map(|node| node.try_command::<String>(&["CLUSTER", "NODES"]).ok()).next();
        let nodes = nodes.expect("a node that answers");
        let line = nodes.lines().find(|line| line_has_slot(line, slot)).expect("a slot that is had");
        let leads_to = |node: &RedisServer| line.contains(&format!(":{}@", node.port()));
        self.nodes.iter().position(leads_to).expect("one of the nodes")
    }

    /// Begins to move a slot: its owner asks newcomers to go to `to`.
    #[track_caller]
    pub(crate) fn begin_move(&self, slot: u16, to: usize) {
        let (from, slot) = (self.owner(slot), slot.to_string());
        let set = ["CLUSTER", "SETSLOT", &slot];
        self.nodes[to].command::<()>(&[&set[..], &["IMPORTING", &self.id(from)]].concat());
        self.nodes[from].command::<()>(&[&set[..], &["MIGRATING", &self.id(to)]].concat());
    }

    /// Moves the keys that are in the slot now.
    #[track_caller]
    pub(crate) fn move_keys(&self, slot: u16, to: usize) {
        let from = &self.nodes[self.owner(slot)];
        let (slot, port) = (slot.to_string(), self.nodes[to].port().to_string());
        loop {
            let keys: Vec<String> = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.is_empty() {
                return;
            }
            for key in keys {
                from.command::<()>(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
            }
        }
    }

    /// Makes `to` the owner of the slot, at all masters of the beginning.
    #[track_caller]
    pub(crate) fn finish_move(&self, slot: u16, to: usize) {
        let (from, id, slot) = (self.owner(slot), self.id(to), slot.to_string());
        // The new owner first: the slot is never nobody's.
        let others = (0..self.masters).filter(|&index| index != to && index != from);
        for index in [to, from].into_iter().chain(others) {
            self.nodes[index].command::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    /// Waits until all nodes that run say that `index` has the slot.
    #[track_caller]
    pub(crate) fn expect_owner(&self, slot: u16, index: usize) {
        until_within(PATIENCE, "another owner of the slot", || {
            let port = self.nodes[index].port().to_string();
            self.nodes.iter().filter(|node| node.server.is_some()).all(|node| {
                let nodes = node.try_command::<String>(&["CLUSTER", "NODES"]).unwrap_or_default();
                let ok = node
                    .try_command::<String>(&["CLUSTER", "INFO"])
                    .is_ok_and(|it| it.contains("cluster_state:ok"));
                ok && nodes
                    .lines()
                    .any(|line| line.contains(&format!(":{port}@")) && line_has_slot(line, slot))
            })
        });
    }
}

impl RedisServer {
    fn shows_replicas(&self, count: usize) -> bool {
        let nodes: String = self.command(&["CLUSTER", "NODES"]);
        nodes.lines().filter(|line| line.contains("slave ")).count() == count
    }
}

/// Whether a line of `CLUSTER NODES` says that its node is a master with the slot.
fn line_has_slot(line: &str, slot: u16) -> bool {
    let mut words = line.split(' ').skip(2);
    let is_master = words.next().is_some_and(|flags| flags.split(',').any(|flag| flag == "master"));
    let ranges = words.skip(5).filter(|word| !word.starts_with('['));
    let has = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        from.parse().is_ok_and(|from: u16| from <= slot) && to.parse().is_ok_and(|to: u16| slot <= to)
    };
    is_master && ranges.into_iter().any(has)
}

/// Slots of a Redis Cluster.
const SLOTS: usize = 16384;

/// An authority of one story, with certificates for a server on 127.0.0.1 and for a client, as files.
pub(crate) struct Pki {
    folder: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes certificates for their own issuers if all are called the same.
        params.distinguished_name.push(DnType::CommonName, "Authority of a story");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority = authority.expect("an authority");
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("a file");
        for (name, host) in [("server", Ipv4Addr::LOCALHOST.to_string()), ("client", "fanfare".to_owned())] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![host]).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
            fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).expect("a file");
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).expect("a file");
        }
        Self { folder }
    }

    /// `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> Vec<PathBuf> {
        let flag = |name: &str| Path::new(name).to_owned();
        vec![
            flag("--tls-cert-file"),
            self.file("server.pem"),
            flag("--tls-key-file"),
            self.file("server.key"),
            flag("--tls-ca-cert-file"),
            self.file("ca.pem"),
        ]
    }

    fn certificates(&self) -> TlsCertificates {
        let read = |name: &str| fs::read(self.file(name)).expect("a file");
        let client_tls = ClientTlsConfig { client_cert: read("client.pem"), client_key: read("client.key") };
        TlsCertificates { client_tls: Some(client_tls), root_cert: Some(read("ca.pem")) }
    }
}

/// A port below those that the system gives to connections, so that it is still free when its server comes back.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(15_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
