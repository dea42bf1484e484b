//! The port of operators: the metrics page and the probes of health.
//!
//! It is served on the main thread, which has little else to do. So it answers however busy the workers are, costs them
//! nothing, and goes on while the server stops and takes no clients any more.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderValue};
use actix_http::{HttpService, Method, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory, fn_service};
use tokio::time::sleep;

use crate::health;
use crate::node::Node;

/// Begins to serve on the calling thread, for ever.
pub(super) fn start(node: Arc<Node>, listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    actix_rt::spawn(serve(node, actix_rt::net::TcpListener::from_std(listener)?));
    Ok(())
}

async fn serve(node: Arc<Node>, listener: actix_rt::net::TcpListener) {
    let answer = move |request: Request| ready(Ok::<_, Infallible>(answer(&request, &node)));
    let http = HttpService::build().h1(fn_service(answer)).tcp();
    // Nothing in it has anything to prepare, so nothing can fail.
    let Ok(http) = http.new_service(()).await else { return };
    loop {
        match listener.accept().await {
            Ok((io, _)) => {
                if poll_fn(|cx| http.poll_ready(cx)).await.is_ok() {
                    actix_rt::spawn(http.call(io));
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
