//! The only place where everything meets: bind, serve, drain.

mod listen;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_server::ServerHandle;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};

use crate::app::{Apps, AppsError};
use crate::config::Config;
use crate::node::Node;
use crate::server::listen::{bind, start};

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
    /// The apps of the configuration cannot be used.
    #[error(transparent)]
    Apps(#[from] AppsError),
    /// The system refuses something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The addresses in use, once the server accepts connections.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Clients and the API.
    pub clients: SocketAddr,
    /// The Prometheus page.
    pub metrics: Option<SocketAddr>,
}

/// How often the hubs look for what is due.
const SETTLE_EVERY: Duration = Duration::from_millis(250);

/// Serves until SIGTERM or SIGINT, then closes every connection with 4200.
///
/// `ready` is called once the server accepts connections.
///
/// # Errors
/// When it cannot start.
pub fn run(config: Config, ready: impl FnOnce(Listening)) -> Result<(), ServeError> {
    actix_rt::System::new().block_on(serve(config, ready))
}

async fn serve(config: Config, ready: impl FnOnce(Listening)) -> Result<(), ServeError> {
    raise_file_limit();
    let listener = bind(config.server.bind, config.server.backlog)?;
    let metrics = config.metrics.bind.map(|address| bind(address, 128)).transpose()?;
    let listening = Listening {
        clients: listener.local_addr()?,
        metrics: metrics.as_ref().map(TcpListener::local_addr).transpose()?,
    };
    let apps = Apps::new(config.apps.iter().cloned())?;
    let shutdown_timeout = Duration::from_secs(config.server.shutdown_timeout_s);
    let node = Node::new(config, apps);
    let server = start(&node, listener, metrics)?;
    let handle = server.handle();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let settling = actix_rt::spawn(settle(node.clone()));
    let serving = actix_rt::spawn(server);
    ready(listening);
    tracing::info!(clients = %listening.clients, workers = node.config().workers(), "listening");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(connections = node.open(), "stopping");
    drain(&node, &handle, shutdown_timeout).await;
    settling.abort();
    // It has been told to stop, and whatever it says changes nothing.
    let _ = serving.await;
    tracing::info!("stopped");
    Ok(())
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
    }
}

/// Tells every client to come back elsewhere, and waits until they have gone.
async fn drain(node: &Node, server: &ServerHandle, limit: Duration) {
    server.pause().await;
    node.drain();
    let gone = async {
        let mut look = interval(Duration::from_millis(10));
        while node.open() > 0 {
            look.tick().await;
        }
    };
    if timeout(limit, gone).await.is_err() {
        tracing::warn!(connections = node.open(), "stopping without waiting any longer");
    }
    server.stop(true).await;
}
