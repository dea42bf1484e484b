//! The only place where everything meets: bind, serve, drain.

mod listen;
mod operators;
mod reload;
mod systemd;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_server::ServerHandle;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{interval, sleep, timeout};

use crate::admin::{Addresses, Admin};
use crate::app::{Apps, AppsError};
use crate::cluster;
use crate::config::{Config, Layers};
use crate::control::{Order, Reloaded, vital};
use crate::directory::Directory;
use crate::node::Node;
use crate::server::listen::{Listeners, start};
use crate::server::reload::Source;
use crate::store::{Store, StoreError};
use crate::tls::{Certificates, TlsError};
use crate::webhook::{self, StateError};

/// Why the server did not start, or ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The demo app where strangers can use it: at a socket that was handed over, which the configuration knows not.
    #[error(
        "the demo credentials are public and only for this machine, but others can connect: configure an app with \
         credentials of its own ([[apps]], or FANFARE_APP_KEY and FANFARE_APP_SECRET)"
    )]
    Demo,
    /// The apps of the configuration cannot be used.
    #[error(transparent)]
    Apps(#[from] AppsError),
    /// It was told to stop again while it was stopping.
    #[error("stopped at once by a second signal: {connections} connections were still open")]
    StoppedTwice {
        /// How many clients were not told.
        connections: usize,
    },
    /// The database that holds apps cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// This node cannot be one of many.
    #[error(transparent)]
    Cluster(#[from] cluster::StartError),
    /// What an earlier run has left of webhooks cannot be used.
    #[error(transparent)]
    Webhooks(#[from] StateError),
    /// The system refuses something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The addresses in use, once the server accepts connections.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Clients and the API.
    pub clients: SocketAddr,
    /// Whether they are served with TLS there.
    pub tls: bool,
    /// The same without TLS, beside it.
    pub plain: Option<SocketAddr>,
    /// The Prometheus page.
    pub metrics: Option<SocketAddr>,
    /// The admin API.
    pub admin: Option<SocketAddr>,
}

impl Listening {
    /// Whether clients can come from elsewhere than this machine.
    fn is_public(&self) -> bool {
        [Some(self.clients), self.plain].into_iter().flatten().any(|address| !address.ip().is_loopback())
    }
}

/// Sockets that listen already, from whoever started the process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// In the place of `server.bind`.
    pub clients: Option<TcpListener>,
    /// In the place of `server.plain_bind`.
    pub plain: Option<TcpListener>,
    /// In the place of `metrics.bind`.
    pub metrics: Option<TcpListener>,
    /// In the place of `admin.bind`.
    pub admin: Option<TcpListener>,
}

/// How often the hubs look for what is due.
const SETTLE_EVERY: Duration = Duration::from_millis(250);

/// How often files are looked at for changes.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Connections closed in each second of a drain, at least: few are not dragged out.
const CLOSED_PER_S: usize = 100;

/// Webhooks have so long to be delivered when the server stops, even if connections took all of its time.
const WEBHOOKS_TIME_MIN: Duration = Duration::from_secs(2);

/// The other nodes are told so long that this one has gone. What they do not hear they find out when its lease ends.
const CLUSTER_TIME: Duration = Duration::from_secs(3);

/// Serves until it is told to stop, then closes every connection with 4200.
///
/// `layers` are read again when the configuration changes. `ready` is called once the server accepts connections.
///
/// # Errors
/// When it cannot start, or was stopped a second time before it was done.
pub fn run(
    config: Config,
    layers: Layers,
    inherited: Inherited,
    ready: impl FnOnce(Listening),
) -> Result<(), ServeError> {
    actix_rt::System::new().block_on(serve(config, layers, inherited, ready))
}

async fn serve(
    config: Config,
    layers: Layers,
    inherited: Inherited,
    ready: impl FnOnce(Listening),
) -> Result<(), ServeError> {
    raise_file_limit();
    let listeners = Listeners::open(&config, inherited)?;
    let listening = listeners.addresses(!config.tls.certificate.is_empty())?;
    if config.has_demo_app() && listening.is_public() {
        return Err(ServeError::Demo);
    }
    let apps = Apps::new(config.apps.iter().cloned())?;
    let has_store = !config.store.url.expose().is_empty();
    let store = if has_store { Some(Store::open(&config.store).await?) } else { None };
    let node = Node::new(config, apps);
    let directory = Directory::start(&node, store);
    let certificates = Certificates::load(&node.config().tls, &node.metrics().doors)?.map(Arc::new);
    let Listeners { clients, plain, metrics, admin } = listeners;
    let server = start(&node, clients, plain, certificates.clone())?;
    let handle = server.handle();
    // Kept, so that the channel stays open.
    let (to_us, mut orders) = unbounded_channel();
    let mut signals = Signals::new()?;
    let cluster = cluster::start(&node).await?;
    // Last of what can stop the start: it takes over what the run before has left, and nobody else has that then.
    let webhooks = webhook::start(&node).await?;
    vital("what is due in the hubs is done no longer", settle(node.clone()));
    let serving = actix_rt::spawn(server);
    if let Some(metrics) = metrics {
        operators::start(node.clone(), metrics)?;
    }
    if let Some((socket, admin)) = admin.zip(listening.admin) {
        let addresses = Addresses { clients: listening.clients, metrics: listening.metrics, admin };
        let admin = Admin::new(node.clone(), to_us.clone(), Some(webhooks.desk()), addresses);
        operators::start_admin(node.clone(), admin, socket)?;
    }
    // It knows how the files look now: whoever hears that we listen may change them.
    let source = Source::new(layers, node.clone(), directory, certificates, listening.is_public());
    ready(listening);
    tracing::info!(clients = %listening.clients, workers = node.config().workers(), "listening");
    systemd::ready();
    let haste = attend(&node, source, &mut signals, &mut orders).await;
    systemd::stopping();
    let ending = async {
        drain(&node, &handle, haste).await;
        let patience = Duration::from_secs(node.config().server.shutdown_timeout_s);
        webhooks.finish(patience.max(WEBHOOKS_TIME_MIN)).await;
        if let Some(cluster) = cluster {
            cluster.finish(CLUSTER_TIME).await;
        }
    };
    let stopped = tokio::select! {
        () = ending => Ok(()),
        () = signals.stop_again(haste) => {
            let connections = node.open();
            // What waits is kept, if there is a place for it; nobody is waited for.
            webhooks.finish(Duration::ZERO).await;
            Err(ServeError::StoppedTwice { connections })
        }
    };
    if stopped.is_ok() {
        // It has been told to stop, and whatever it says changes nothing.
        let _ = serving.await;
        tracing::info!("stopped");
    }
    stopped
}

/// The signals that mean something to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// How a stop was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Haste {
    /// As configured: readiness off first, then connections one after the other.
    Paced,
    /// The same, by an order. SIGTERM behind it is no haste: that is how hooks of Kubernetes and systemd end.
    Ordered,
    /// By somebody at the keyboard.
    AtOnce,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) -> Haste {
        tokio::select! {
            _ = self.terminate.recv() => Haste::Paced,
            _ = self.interrupt.recv() => Haste::AtOnce,
        }
    }

    /// Somebody wants the end at once, after a stop of this haste.
    async fn stop_again(&mut self, before: Haste) {
        if self.stop().await == Haste::Paced && before == Haste::Ordered {
            self.stop().await;
        }
    }
}

/// What the process is to do, whoever says so.
enum Task {
    /// Whoever asked may have gone.
    Reload(Option<oneshot::Sender<Reloaded>>),
    Stop(Haste),
}

/// Waits for the next thing to do, by a signal or an order.
async fn next(signals: &mut Signals, orders: &mut UnboundedReceiver<Order>) -> Task {
    tokio::select! {
        _ = signals.terminate.recv() => Task::Stop(Haste::Paced),
        _ = signals.interrupt.recv() => Task::Stop(Haste::AtOnce),
        _ = signals.hangup.recv() => Task::Reload(None),
        Some(order) = orders.recv() => match order {
            Order::Reload(reply) => Task::Reload(Some(reply)),
            Order::Drain => Task::Stop(Haste::Ordered),
        },
    }
}

/// Carries out what it is told until that is to stop.
async fn attend(
    node: &Node,
    mut source: Source,
    signals: &mut Signals,
    orders: &mut UnboundedReceiver<Order>,
) -> Haste {
    let mut watch = interval(WATCH_EVERY);
    let watching = node.config().server.watch_config;
    let mut asked = Vec::new();
    loop {
        if asked.is_empty() {
            tokio::select! {
                task = next(signals, orders) => match task {
                    Task::Reload(reply) => asked.push(reply),
                    Task::Stop(haste) => return haste,
                },
                _ = watch.tick(), if watching => {
                    if !source.has_changed() {
                        continue;
                    }
                }
            }
        }
        let replies = std::mem::take(&mut asked);
        match reload(&mut source, signals, orders, &mut asked).await {
            Ok(reloaded) => {
                replies.into_iter().flatten().for_each(|reply| drop(reply.send(reloaded.clone())))
            }
            Err(haste) => return haste,
        }
    }
}

/// Reloads. That may ask a database and take its time, but a stop does not wait for it. Who asks for another reload
/// meanwhile is kept in `asked`: only one that begins later sees all that was written before.
async fn reload(
    source: &mut Source,
    signals: &mut Signals,
    orders: &mut UnboundedReceiver<Order>,
    asked: &mut Vec<Option<oneshot::Sender<Reloaded>>>,
) -> Result<Reloaded, Haste> {
    systemd::reloading();
    let mut reloading = pin!(source.reload());
    let reloaded = loop {
        tokio::select! {
            reloaded = &mut reloading => break reloaded,
            task = next(signals, orders) => match task {
                Task::Reload(reply) => asked.push(reply),
                Task::Stop(haste) => return Err(haste),
            },
        }
    };
    systemd::ready();
    Ok(reloaded)
}

/// Every connection costs a file. The limit of the shell is for interactive programs.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::info!(limit, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

async fn settle(node: Arc<Node>) {
    let mut due = interval(SETTLE_EVERY);
    loop {
        due.tick().await;
        node.settle(Instant::now());
        systemd::alive(&node);
    }
}

/// Tells every client to come back elsewhere, and waits until they have gone.
async fn drain(node: &Node, server: &ServerHandle, haste: Haste) {
    node.leave();
    let config = node.config();
    let paced = |seconds: u64| Duration::from_secs(if haste == Haste::AtOnce { 0 } else { seconds });
    let delay = paced(config.drain.delay_s);
    tracing::info!(connections = node.open(), delay_s = delay.as_secs(), "stopping");
    sleep(delay).await;
    server.pause().await;
    let open = node.open();
    let over = paced(config.drain.spread_s).min(Duration::from_secs(1) * u32_of(open) / u32_of(CLOSED_PER_S));
    tracing::info!(connections = open, over_ms = over.as_millis(), "closing connections");
    node.drain(over);
    let gone = async {
        let mut look = interval(Duration::from_millis(10));
        while node.open() > 0 {
            look.tick().await;
        }
    };
    let limit = over + Duration::from_secs(config.server.shutdown_timeout_s);
    if timeout(limit, gone).await.is_err() {
        tracing::warn!(connections = node.open(), "stopping without waiting any longer");
    }
    server.stop(true).await;
}

fn u32_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
