//! The ports of operators: the metrics page with the probes of health, and the admin API.
//!
//! They are served on the main thread, which has little else to do. So they answer however busy the workers are, cost them
//! nothing, and go on while the server stops and takes no clients any more.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderValue};
use actix_http::{HttpService, Method, Request, Response, StatusCode};
use actix_rt::net::TcpStream;
use actix_service::{Service, ServiceFactory, fn_service, map_config};
use actix_web::dev::AppConfig;
use tokio::time::sleep;

use crate::admin::{self, Admin};
use crate::health;
use crate::node::Node;

/// How long a request's head may take to the admin API.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Begins to serve metrics and probes on the calling thread, for ever.
pub(super) fn start(node: Arc<Node>, listener: TcpListener) -> io::Result<()> {
    let answer = move |request: Request| ready(Ok::<_, Infallible>(answer(&request, &node)));
    begin(HttpService::build().h1(fn_service(answer)).tcp(), listener)
}

/// Begins to serve the admin API on the calling thread, for ever.
pub(super) fn start_admin(admin: Arc<Admin>, listener: TcpListener) -> io::Result<()> {
    let service = map_config(admin::service(admin), |()| AppConfig::default());
    begin(HttpService::build().client_request_timeout(HEAD_TIMEOUT).h1(service).tcp(), listener)
}

fn begin<S>(http: S, listener: TcpListener) -> io::Result<()>
where
    S: ServiceFactory<TcpStream, Config = ()> + 'static,
    <S::Service as Service<TcpStream>>::Future: 'static,
{
    listener.set_nonblocking(true)?;
    actix_rt::spawn(serve(http, actix_rt::net::TcpListener::from_std(listener)?));
    Ok(())
}

async fn serve<S>(http: S, listener: actix_rt::net::TcpListener)
where
    S: ServiceFactory<TcpStream, Config = ()>,
    <S::Service as Service<TcpStream>>::Future: 'static,
{
    // Nothing in it has anything to prepare, so nothing can fail.
    let Ok(http) = http.new_service(()).await else { return };
    loop {
        match listener.accept().await {
            Ok((io, _)) => {
                if poll_fn(|cx| http.poll_ready(cx)).await.is_ok() {
                    let served = http.call(io);
                    // Either way it is over: the client has hung up, or broken HTTP.
                    actix_rt::spawn(async move { drop(served.await) });
                }
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
