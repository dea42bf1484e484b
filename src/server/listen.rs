//! The sockets that are listened on, and the services behind them.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_server::{Server, ServerBuilder};
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_factory, fn_service};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::api::{self, Route};
use crate::config::Config;
use crate::guard::{Door, EntryError, Patience};
use crate::node::Node;
use crate::server::{Inherited, Listening, ServeError};
use crate::tls::Certificates;
use crate::worker::Worker;
use crate::ws::{self, Upgrade};

fn bind(address: SocketAddr, backlog: u32) -> Result<TcpListener, ServeError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted server must get its port back at once.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|source| ServeError::Bind { address, source })
}

/// What is listened on.
#[derive(Debug)]
pub(super) struct Listeners {
    /// For clients and the API; with TLS if there are certificates.
    pub(super) clients: TcpListener,
    /// For the same without TLS.
    pub(super) plain: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds what is not there yet.
    pub(super) fn open(config: &Config, inherited: Inherited) -> Result<Self, ServeError> {
        let backlog = config.server.backlog;
        // Without a token nobody could use it, so it is off.
        let admin = config.admin.bind.filter(|_| !config.admin.token.expose().is_empty());
        let or_bind = |inherited: Option<TcpListener>, address: Option<SocketAddr>, backlog| match inherited {
            Some(listener) => Ok(Some(listener)),
            None => address.map(|address| bind(address, backlog)).transpose(),
        };
        Ok(Self {
            clients: inherited.clients.map_or_else(|| bind(config.server.bind, backlog), Ok)?,
            plain: or_bind(inherited.plain, config.server.plain_bind, backlog)?,
            metrics: or_bind(inherited.metrics, config.metrics.bind, 128)?,
            admin: or_bind(inherited.admin, admin, 128)?,
        })
    }

    /// Where they are.
    pub(super) fn addresses(&self, tls: bool) -> io::Result<Listening> {
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Listening {
            clients: self.clients.local_addr()?,
            tls,
            plain: address(&self.plain)?,
            metrics: address(&self.metrics)?,
            admin: address(&self.admin)?,
        })
    }
}

/// The sockets of clients and backends, and the worker threads that serve them.
pub(super) fn start(
    node: &Arc<Node>,
    clients: TcpListener,
    plain: Option<TcpListener>,
    certificates: Option<Arc<Certificates>>,
) -> io::Result<Server> {
    let mut builder = Server::build()
        .workers(node.config().workers())
        .disable_signals()
        .shutdown_timeout(1)
        // Ours to limit: actix does not see upgraded connections anyway.
        .max_concurrent_connections(usize::MAX / 2);
    builder = serve_clients(builder, "clients", clients, node, certificates)?;
    if let Some(listener) = plain {
        builder = serve_clients(builder, "plain", listener, node, None)?;
    }
    Ok(builder.run())
}

/// Serves WebSockets and the API on one more address.
fn serve_clients(
    builder: ServerBuilder,
    name: &str,
    listener: TcpListener,
    node: &Arc<Node>,
    certificates: Option<Arc<Certificates>>,
) -> io::Result<ServerBuilder> {
    let stopping = builder.graceful_shutdown_signal();
    let node = node.clone();
    let door = Arc::new(door(&node, certificates));
    builder.listen(name, listener, move || {
        let stopping = stopping.clone();
        let (for_entry, for_expect, for_api) = (node.clone(), node.clone(), node.clone());
        let http = HttpService::build()
            // How long is for `guard` to say, which needs no timer for each request.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::from_secs(node.config().server.head_timeout_s))
            .client_disconnect_timeout(Duration::from_secs(1))
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .expect(fn_service(move |request| ready(api::expect(request, &for_expect))))
            .upgrade(web_sockets(node.clone()))
            .h1(fn_service(move |request| {
                let node = for_api.clone();
                async move { Ok::<_, Infallible>(api::serve(request, &node).await) }
            }))
            .map_err(|_| ());
        let door = door.clone();
        fn_service(move |io| {
            let (door, node) = (door.clone(), for_entry.clone());
            async move {
                let entered = door.enter(io, &node.metrics().doors).await;
                entered.map(|guarded| (guarded.address(), guarded)).map_err(|error| turned_away(&error))
            }
        })
        .map(|(address, guarded)| (guarded, Some(address)))
        .and_then(http)
    })
}

fn door(node: &Node, certificates: Option<Arc<Certificates>>) -> Door {
    let config = node.config();
    Door {
        certificates,
        trusted_proxies: config.server.trusted_proxies.clone(),
        proxy_protocol: config.server.proxy_protocol,
        patience: patience(config),
    }
}

/// How long clients are waited for.
pub(super) fn patience(config: &Config) -> Patience {
    let head = Duration::from_secs(config.server.head_timeout_s);
    Patience {
        entry: head,
        idle: Duration::from_secs(config.api.keep_alive_s),
        busy: head + Duration::from_secs(config.api.body_timeout_s),
    }
}

fn turned_away(error: &EntryError) {
    tracing::debug!(%error, "turned away at the door");
}

thread_local! {
    /// This thread's share of the server, the same for all addresses.
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// This thread's worker, which begins when it is first asked for.
fn worker(node: &Arc<Node>) -> Result<Rc<Worker>, NoMailbox> {
    WORKER.with(|worker| {
        if let Some(worker) = worker.get() {
            return Ok(worker.clone());
        }
        let (id, mailbox) = node.take_mailbox().ok_or(NoMailbox)?;
        Ok(worker.get_or_init(|| Worker::start(id, node.clone(), mailbox)).clone())
    })
}

/// The upgrade service, which begins this thread's [`Worker`]. `HttpServer` has no place for one.
fn web_sockets(
    node: Arc<Node>,
) -> impl ServiceFactory<Upgrade, Config = (), Response = (), Error = Infallible, InitError = NoMailbox> {
    fn_factory(move || {
        let node = node.clone();
        async move {
            let worker = worker(&node)?;
            Ok(fn_service(move |upgrade: Upgrade| {
                let worker = worker.clone();
                async move {
                    let is_api = Route::parse(upgrade.0.path()).is_some();
                    if let Err(error) = ws::upgrade(&worker, upgrade, is_api).await {
                        // The client went before it had its answer.
                        tracing::debug!(%error, "upgrade failed");
                    }
                    Ok(())
                }
            }))
        }
    })
}

/// A thread that was started again after a panic: its connections and its mailbox are gone with the first.
#[derive(Debug, Error)]
#[error("every worker has begun already")]
struct NoMailbox;

#[cfg(test)]
mod tests {
    use actix_rt::net::TcpStream;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_small_frame_is_not_held_back_until_the_last_one_is_acknowledged() {
        actix_rt::System::new().block_on(async {
            let listener = bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a free port");
            let address = listener.local_addr().expect("an address");
            let _client = std::net::TcpStream::connect(address).expect("connected");
            let (io, _) = listener.accept().expect("accepted");
            io.set_nonblocking(true).expect("nonblocking");
            let io = TcpStream::from_std(io).expect("registered");
            assert!(!io.nodelay().expect("readable"), "the system's default");
            let second = Duration::from_secs(1);
            let patience = Patience { entry: second, idle: second, busy: second };
            let door =
                Door { certificates: None, trusted_proxies: Vec::new(), proxy_protocol: false, patience };
            let Ok(guarded) = door.enter(io, &Metrics::new().doors).await else { panic!("refused") };
            assert!(guarded.address().ip().is_loopback());
            let (line, _) = guarded.into_inner().into_line();
            assert!(line.io.nodelay().expect("readable"));
        });
    }
}
