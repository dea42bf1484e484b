//! Every setting, in one typed struct: what it means, its default, and where its value came from.
//!
//! A setting is one row of a table in `settings`; file, environment and flags, `config default` and
//! `config show` all read that table. Nothing else reads the environment.
//!
//! File < names of other servers (`foreign`) < environment < flags. An unknown key or a bad value stops the start.

mod app;
mod convert;
mod field;
mod foreign;
mod load;
mod sample;
mod settings;
mod show;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::app::{App, AppId, KeyPair};
use crate::protocol::Secret;

pub use app::{app_settings, read_app, set_app, toml_of};
pub use convert::{Converted, convert};
pub use field::{ExtraneousParameters, LogFormat, LogLevel, StoreSchema, TlsVersion, without_credentials};
pub use foreign::Note;
pub use load::{ConfigError, Layers, Loaded, Problem};
pub use sample::default_toml;
pub use show::shown;

/// Everything an operator can set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Listening and capacity.
    pub server: Server,
    /// WebSocket connections.
    pub connection: Connections,
    /// The HTTP API.
    pub api: Api,
    /// TLS on the client port.
    pub tls: Tls,
    /// How the server stops.
    pub drain: Drain,
    /// Delivery of webhooks.
    pub webhooks: Webhooks,
    /// Apps elsewhere than in the configuration file.
    pub store: Store,
    /// Many nodes as one.
    pub redis: Redis,
    /// The metrics page.
    pub metrics: Metrics,
    /// When the node counts as ready.
    pub health: Health,
    /// The admin API.
    pub admin: Admin,
    /// Logging.
    pub log: Log,
    /// The apps; the demo app if none is configured.
    pub apps: Vec<App>,
}

/// A text that shows itself to nobody who only looks: a URL with a password, a token.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Masked(String);

impl Masked {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for its one use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masked(…)")
    }
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Address and port for clients and the HTTP API.
    pub bind: SocketAddr,
    /// With TLS: another one, without it.
    pub plain_bind: Option<SocketAddr>,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Most WebSocket connections of this node; 0 is no limit but the file limit.
    pub connections_max: usize,
    /// Most WebSocket connections from one address; 0 is no limit.
    pub address_connections_max: usize,
    /// WebSocket handshakes of one address per second; 0 is no limit.
    pub address_handshakes_per_s: u32,
    /// Networks of proxies that say truly for whom they connect.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted proxies begin each connection with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Answer soketi's `/`, `/ready`, `/accept-traffic` and `/usage` on the client port.
    pub soketi_endpoints: bool,
    /// Take changes of the configuration file as soon as they are written.
    pub watch_config: bool,
    /// Connections the kernel holds before they are accepted.
    pub backlog: u32,
    /// Seconds for a request's head to arrive.
    pub head_timeout_s: u64,
    /// Seconds for open connections and requests to end when the server stops.
    pub shutdown_timeout_s: u64,
    /// Bytes of events waiting for one worker, above which publishes are answered with 503.
    pub mailbox_bytes_max: usize,
}

/// `[connection]`
#[derive(Clone, Debug)]
pub struct Connections {
    /// Seconds of silence after which a client should ping, as told to it.
    pub activity_timeout_s: u32,
    /// Seconds of silence after which the server pings.
    pub ping_after_s: u64,
    /// Seconds the server waits for an answer to its ping.
    pub pong_timeout_s: u64,
    /// Seconds a closing client has to end its side.
    pub close_timeout_s: u64,
    /// Longest message of a client, in bytes.
    pub message_bytes_max: usize,
    /// Bytes that may wait for one slow client.
    pub outbox_bytes_max: usize,
    /// Frames that may wait for one slow client.
    pub outbox_frames_max: usize,
    /// Tell refused subscriptions to their channel as well.
    pub subscription_errors: bool,
}

/// `[api]`
#[derive(Clone, Debug)]
pub struct Api {
    /// Longest body, in bytes.
    pub body_bytes_max: usize,
    /// Longest body of a batch, in bytes.
    pub batch_body_bytes_max: usize,
    /// Seconds for a body to arrive.
    pub body_timeout_s: u64,
    /// Seconds an idle API connection is kept.
    pub keep_alive_s: u64,
    /// Seconds the clock of a publisher may differ from ours.
    pub timestamp_tolerance_s: u64,
    /// What to do with parameters that an endpoint does not know.
    pub extraneous_parameters: ExtraneousParameters,
}

/// `[tls]`
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// File with the certificate chain, PEM; empty is no TLS.
    pub certificate: String,
    /// File with the private key, PEM.
    pub key: String,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// `[drain]`
#[derive(Clone, Debug)]
pub struct Drain {
    /// Seconds to go on accepting after readiness is off.
    pub delay_s: u64,
    /// Seconds over which connections are closed.
    pub spread_s: u64,
}

/// `[webhooks]`
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// Seconds a leave waits for a return that makes it nothing.
    pub debounce_s: u64,
    /// Seconds for a receiver to answer.
    pub timeout_s: u64,
    /// Seconds in which a delivery is tried again.
    pub retry_s: u64,
    /// Requests to one receiver at a time.
    pub concurrency: usize,
    /// Milliseconds that events of an app with batching wait for others.
    pub batch_wait_ms: u64,
    /// Most events of one request.
    pub batch_events_max: usize,
    /// Bytes of deliveries that may wait.
    pub queue_bytes_max: usize,
    /// Undelivered ones that are kept to be replayed.
    pub dead_letters_max: usize,
    /// Private networks that may be posted to.
    pub allowed_networks: Vec<IpNet>,
    /// Where to keep, over a restart, what was not delivered and who was there; empty is nowhere.
    pub state_file: String,
}

/// `[redis]`
#[derive(Clone, Debug)]
pub struct Redis {
    /// Where Redis or Valkey is, with user and password; several seeds of a Redis Cluster; empty is a node of its own.
    pub url: Masked,
    /// Sentinels that know where Redis is; the host of `url` is the name of the master then.
    pub sentinels: Masked,
    /// Certificates of authorities that sign Redis', in PEM; empty are the system's.
    pub tls_ca_file: String,
    /// Certificate to show to Redis, in PEM; empty is none.
    pub tls_cert_file: String,
    /// Its key, in PEM.
    pub tls_key_file: String,
    /// Begins every key and bus topic.
    pub prefix: String,
    /// How this node is called in metrics and lists; empty is the host's name.
    pub node: String,
    /// Seconds after which a silent node counts as dead.
    pub lease_s: u64,
    /// Milliseconds for Redis to answer.
    pub timeout_ms: u64,
    /// Milliseconds that a publish waits for a Redis that is away.
    pub publish_timeout_ms: u64,
    /// Bytes of events that each of the 64 partitions keeps to heal gaps.
    pub log_bytes: usize,
    /// Most facts that may wait for webhooks in each of the 64 partitions.
    pub outbox_max: usize,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct Store {
    /// A file with apps alone, beside those of the configuration file; empty is none.
    pub apps_file: String,
    /// Where the apps are: `sqlite:`, `postgres:` or `mysql:`; empty is the configuration alone.
    pub url: Masked,
    /// Whose table it is.
    pub schema: StoreSchema,
    /// Name of the table.
    pub table: String,
    /// Seconds after which a known app is read again.
    pub cache_ttl_s: u64,
    /// Seconds for which an unknown app is taken to be unknown still.
    pub unknown_ttl_s: u64,
    /// Connections to the database.
    pub connections_max: u32,
    /// Seconds for the database to answer.
    pub timeout_s: u64,
}

/// `[metrics]`
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Address and port of the Prometheus page; none switches it off.
    pub bind: Option<SocketAddr>,
    /// Add soketi's names.
    pub soketi_names: bool,
    /// Most apps with a label of their own.
    pub apps_max: usize,
}

/// `[health]`
#[derive(Clone, Debug)]
pub struct Health {
    /// Per cent of the limit of open files above which the node is not ready; 0 is no gate.
    pub open_files_percent_max: u64,
    /// Per cent of the memory limit above which the node is not ready; 0 is no gate.
    pub memory_percent_max: u64,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address and port of the admin API; none switches it off.
    pub bind: Option<SocketAddr>,
    /// Who has it may do everything; empty switches the admin API off.
    pub token: Masked,
}

/// `[log]`
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What is worth a line.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Public parts of the app that stands in when none is configured.
pub const DEMO_KEY: &str = "demo-key";
/// Its secret, which is no secret: see [`Config::demo_app`].
pub const DEMO_SECRET: &str = "demo-secret";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: loopback(6001),
            plain_bind: None,
            workers: 0,
            connections_max: 0,
            address_connections_max: 0,
            address_handshakes_per_s: 0,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            soketi_endpoints: false,
            watch_config: true,
            backlog: 4096,
            head_timeout_s: 10,
            shutdown_timeout_s: 5,
            mailbox_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            activity_timeout_s: 120,
            ping_after_s: 60,
            pong_timeout_s: 30,
            close_timeout_s: 5,
            message_bytes_max: 64 * 1024,
            outbox_bytes_max: 1024 * 1024,
            outbox_frames_max: 16 * 1024,
            subscription_errors: true,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            body_bytes_max: 256 * 1024,
            batch_body_bytes_max: 1024 * 1024,
            body_timeout_s: 15,
            keep_alive_s: 75,
            timestamp_tolerance_s: 600,
            extraneous_parameters: ExtraneousParameters::Refuse,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay_s: 0, spread_s: 10 }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            debounce_s: 3,
            timeout_s: 10,
            retry_s: 300,
            concurrency: 8,
            batch_wait_ms: 200,
            batch_events_max: 50,
            queue_bytes_max: 64 * 1024 * 1024,
            dead_letters_max: 1000,
            allowed_networks: Vec::new(),
            state_file: String::new(),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: Masked::default(),
            sentinels: Masked::default(),
            tls_ca_file: String::new(),
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            prefix: "fanfare".to_owned(),
            node: String::new(),
            lease_s: 10,
            timeout_ms: 2000,
            publish_timeout_ms: 3000,
            log_bytes: 512 * 1024,
            outbox_max: 10_000,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            apps_file: String::new(),
            url: Masked::default(),
            schema: StoreSchema::Fanfare,
            table: "apps".to_owned(),
            cache_ttl_s: 60,
            unknown_ttl_s: 10,
            connections_max: 10,
            timeout_s: 5,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { bind: Some(loopback(9601)), soketi_names: false, apps_max: 100 }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { open_files_percent_max: 95, memory_percent_max: 95 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Some(loopback(9602)), token: Masked::default() }
    }
}

impl Config {
    /// The app that stands in when none is configured: for trying out on one machine, nowhere else.
    pub fn demo_app() -> App {
        let pair = KeyPair { key: DEMO_KEY.to_owned(), secret: Secret::new(DEMO_SECRET) };
        App { id: AppId::from("1"), keys: vec![pair], client_events: true, ..App::default() }
    }

    /// Whether the demo app stands in, since none is configured.
    pub fn is_demo(&self) -> bool {
        self.apps == [Self::demo_app()]
    }

    /// Whether some app can be used with the demo key.
    pub fn has_demo_app(&self) -> bool {
        self.apps.iter().any(|app| app.secret(DEMO_KEY).is_some())
    }

    /// How many worker threads there will be.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        // The server underneath starts no more than 512.
        (if self.server.workers == 0 { cores() } else { self.server.workers }).clamp(1, 512)
    }
}
