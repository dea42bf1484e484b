//! The ports of operators: the metrics page with the probes of health, and the admin API.
//!
//! They are served on the main thread, which has little else to do. So they answer however busy the workers are, cost them
//! nothing, and go on while the server stops and takes no clients any more.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderValue};
use actix_http::{HttpService, Method, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory, fn_service, map_config};
use actix_web::dev::AppConfig;
use tokio::time::sleep;

use crate::admin::{self, Admin};
use crate::guard::{Door, Guarded, Patience};
use crate::health;
use crate::node::Node;
use crate::server::listen::patience;

/// Begins to serve metrics and probes on the calling thread, for ever.
pub(super) fn start(node: Arc<Node>, listener: TcpListener) -> io::Result<()> {
    let door = door(patience(node.config()));
    let head_timeout = door.patience.entry;
    let answered = node.clone();
    let answer = move |request: Request| ready(Ok::<_, Infallible>(answer(&request, &answered)));
    let http = HttpService::build().client_request_timeout(head_timeout).h1(fn_service(answer));
    begin(http, door, node, listener)
}

/// Begins to serve the admin API on the calling thread, for ever.
pub(super) fn start_admin(node: Arc<Node>, admin: Arc<Admin>, listener: TcpListener) -> io::Result<()> {
    let mut door = door(patience(node.config()));
    // For a request to be answered, too.
    door.patience.busy += admin::ANSWER_TIMEOUT_MAX;
    let service = map_config(admin::service(admin), |()| AppConfig::default());
    let http = HttpService::build().client_request_timeout(door.patience.entry).h1(service);
    begin(http, door, node, listener)
}

/// Operators come without a proxy and without TLS, and are waited for no longer than others.
fn door(patience: Patience) -> Door {
    Door { certificates: None, trusted_proxies: Vec::new(), proxy_protocol: false, patience }
}

/// A client, and where it comes from.
type Entered = (Guarded, Option<SocketAddr>);

fn begin<S>(http: S, door: Door, node: Arc<Node>, listener: TcpListener) -> io::Result<()>
where
    S: ServiceFactory<Entered, Config = ()> + 'static,
    S::Service: 'static,
    <S::Service as Service<Entered>>::Future: 'static,
{
    listener.set_nonblocking(true)?;
    actix_rt::spawn(serve(http, door, node, actix_rt::net::TcpListener::from_std(listener)?));
    Ok(())
}

async fn serve<S>(http: S, door: Door, node: Arc<Node>, listener: actix_rt::net::TcpListener)
where
    S: ServiceFactory<Entered, Config = ()>,
    S::Service: 'static,
    <S::Service as Service<Entered>>::Future: 'static,
{
    // Nothing in it has anything to prepare, so nothing can fail.
    let Ok(http) = http.new_service(()).await else { return };
    let (http, door) = (Rc::new(http), Rc::new(door));
    loop {
        match listener.accept().await {
            Ok((io, _)) => {
                let (http, door, node) = (http.clone(), door.clone(), node.clone());
                actix_rt::spawn(async move {
                    let Ok(io) = door.enter(io, &node.metrics().doors).await else { return };
                    if poll_fn(|cx| http.poll_ready(cx)).await.is_ok() {
                        let address = io.address();
                        // Either way it is over: the client has hung up, or broken HTTP.
                        drop(http.call((io, Some(address))).await);
                    }
                });
            }
            // Out of files, most likely: there will be some again.
            Err(error) => {
                tracing::debug!(%error, "a connection of an operator was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn answer(request: &Request, node: &Node) -> Response<BoxBody> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = Response::new(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.path() {
        "/metrics" => metrics(node),
        "/live" => health::live(node).page().response(),
        "/ready" => health::ready(node).page().response(),
        // soketi has these two here.
        path @ ("/" | "/usage") if node.config().server.soketi_endpoints => health::soketi(node, path)
            .map_or_else(|| Response::new(StatusCode::NOT_FOUND), |page| page.response()),
        _ => Response::new(StatusCode::NOT_FOUND),
    }
}

fn metrics(node: &Node) -> Response<BoxBody> {
    let mut response = Response::with_body(StatusCode::OK, BoxBody::new(node.page()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
