//! The sockets that are listened on, and the services behind them.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_factory, fn_service};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::api::{self, Route};
use crate::guard::{Guarded, Patience};
use crate::node::Node;
use crate::server::ServeError;
use crate::worker::Worker;
use crate::ws::{self, Upgrade};

pub(super) fn bind(address: SocketAddr, backlog: u32) -> Result<TcpListener, ServeError> {
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

/// The socket of clients and backends, and the worker threads that serve it.
pub(super) fn start(node: &Arc<Node>, clients: TcpListener) -> io::Result<Server> {
    let builder = Server::build()
        .workers(node.config().workers())
        .disable_signals()
        .shutdown_timeout(1)
        // Ours to limit: actix does not see upgraded connections anyway.
        .max_concurrent_connections(usize::MAX / 2);
    let stopping = builder.graceful_shutdown_signal();
    let for_clients = node.clone();
    let builder = builder.listen("clients", clients, move || {
        let config = for_clients.config();
        let stopping = stopping.clone();
        let (for_expect, for_api) = (for_clients.clone(), for_clients.clone());
        let http = HttpService::build()
            // How long is for `guard` to say, which needs no timer for each request.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::from_secs(config.server.head_timeout_s))
            .client_disconnect_timeout(Duration::from_secs(1))
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .expect(fn_service(move |request| ready(api::expect(request, &for_expect))))
            .upgrade(web_sockets(for_clients.clone()))
            .h1(fn_service(move |request| {
                let node = for_api.clone();
                async move { Ok::<_, Infallible>(api::serve(request, &node).await) }
            }));
        let patience = Patience {
            idle: Duration::from_secs(config.api.keep_alive_s),
            busy: Duration::from_secs(config.server.head_timeout_s + config.api.body_timeout_s),
        };
        fn_service(move |io| ready(accepted(io, patience))).and_then(http)
    })?;
    Ok(builder.run())
}

/// Readies a socket that was just accepted.
fn accepted(io: TcpStream, patience: Patience) -> Result<(Guarded, Option<SocketAddr>), DispatchError> {
    // Here, since the HTTP service's own setting for it does not reach HTTP/1.
    io.set_nodelay(true)?;
    let peer = io.peer_addr().ok();
    Ok((Guarded::new(io, patience), peer))
}

/// The upgrade service, which begins this thread's [`Worker`]. `HttpServer` has no place for one.
fn web_sockets(
    node: Arc<Node>,
) -> impl ServiceFactory<Upgrade, Config = (), Response = (), Error = Infallible, InitError = NoMailbox> {
    fn_factory(move || {
        let node = node.clone();
        async move {
            let (id, mailbox) = node.take_mailbox().ok_or(NoMailbox)?;
            let worker = Worker::start(id, node, mailbox);
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
    use super::*;

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
            let patience = Patience { idle: Duration::from_secs(1), busy: Duration::from_secs(1) };
            let Ok((guarded, peer)) = accepted(io, patience) else { panic!("refused") };
            assert!(peer.is_some());
            assert!(guarded.into_inner().nodelay().expect("readable"));
        });
    }
}
