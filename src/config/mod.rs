//! Every setting, in one typed struct: what it means, its default, and where its value came from.
//!
//! A setting is one row of a table in `settings`; file, environment and flags, `config default` and
//! `config show` all read that table. Nothing else reads the environment.
//!
//! File < environment < flags. An unknown key or a bad value stops the start.

mod field;
mod load;
mod settings;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::app::{App, AppId, KeyPair};
use crate::protocol::Secret;

pub use field::{ExtraneousParameters, LogFormat, LogLevel};
pub use load::{ConfigError, Layers, Loaded, Problem};
pub use settings::default_toml;

/// Everything an operator can set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Listening and capacity.
    pub server: Server,
    /// WebSocket connections.
    pub connection: Connections,
    /// The HTTP API.
    pub api: Api,
    /// The metrics page.
    pub metrics: Metrics,
    /// Logging.
    pub log: Log,
    /// The apps; the demo app if none is configured.
    pub apps: Vec<App>,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Address and port for clients and the HTTP API.
    pub bind: SocketAddr,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Most WebSocket connections of this node; 0 is no limit but the file limit.
    pub connections_max: usize,
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

/// `[metrics]`
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Address and port of the Prometheus page; none switches it off.
    pub bind: Option<SocketAddr>,
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
            workers: 0,
            connections_max: 0,
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

impl Default for Metrics {
    fn default() -> Self {
        Self { bind: Some(loopback(9601)) }
    }
}

impl Config {
    /// The app that stands in when none is configured: for trying out on one machine, nowhere else.
    pub fn demo_app() -> App {
        let pair = KeyPair { key: DEMO_KEY.to_owned(), secret: Secret::new(DEMO_SECRET) };
        App { id: AppId::from("1"), keys: vec![pair], client_events: true, ..App::default() }
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
