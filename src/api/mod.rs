//! `/apps/{id}/…`: the signed HTTP API of backends.
//!
//! [`serve`] takes a request from its path to its answer: route, method, body, signature, then the one
//! function of the resource. Errors are one line of text.
//!
//! Not here: what a publish leads to (`hub`), sockets (`worker`).

mod auth;
mod channels;
mod error;
mod events;
mod info;
mod route;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use actix_http::body::{BodyStream, BoxBody, MessageBody};
use actix_http::header::{self, HeaderMap, HeaderValue};
use actix_http::{HttpMessage, Method, Payload, Request, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::config::{Api, ExtraneousParameters};
use crate::guard::{HEAD_MAX, is_too_long};
use crate::health;
use crate::metrics::{Door, Endpoint};
use crate::node::{AppName, Budget, Node};
use crate::protocol::{ChannelName, Query, cut, is_user_id};
use crate::ws;

pub use crate::api::auth::{Signed, Unchecked};
pub use crate::api::error::ApiError;
pub use crate::api::route::{Resource, Route};

/// What a successful call answers.
#[derive(Debug)]
pub enum Answer {
    /// 200 with a JSON object.
    Json(Value),
    /// The same, already text.
    Text(String),
    /// 202 without a body: deprecated calls only.
    Accepted,
}

impl Answer {
    /// How long the body is.
    fn bytes(&self) -> usize {
        match self {
            Self::Json(value) => value.to_string().len(),
            Self::Text(text) => text.len(),
            Self::Accepted => 0,
        }
    }
}

/// Answers one request.
///
/// A service of actix-http itself: routing of actix-web for this one handler would cost 5 % of a publish.
pub async fn serve(mut request: Request, node: &Node) -> Response<BoxBody> {
    if let Some(page) = soketi_page(&request, node) {
        return page;
    }
    let began = Instant::now();
    let payload = request.take_payload();
    let route = Route::parse(request.path());
    let endpoint = endpoint(route.as_ref().map(|route| &route.resource));
    let response = match answer(&request, route, payload, node).await {
        Ok(Answer::Json(value)) => json_response(value.to_string()),
        Ok(Answer::Text(text)) => json_response(text),
        Ok(Answer::Accepted) => Response::new(StatusCode::ACCEPTED),
        Err(Refused::Options) => Response::new(StatusCode::NO_CONTENT),
        Err(Refused::Error(error)) => {
            tracing::debug!(path = ?cut(request.path(), 200), error = ?error.to_log(), "call refused");
            if let Some(fault) = error.fault() {
                node.metrics().auth.failed(Door::Api, fault);
            }
            if let Some(limit) = error.limit() {
                node.metrics().limits.reached(limit);
            }
            error.response()
        }
    };
    node.metrics().api.answered(endpoint, response.status().as_str(), began.elapsed());
    response
}

/// What soketi answers beside the API, if that is wanted.
fn soketi_page(request: &Request, node: &Node) -> Option<Response<BoxBody>> {
    if !node.config().server.soketi_endpoints || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    Some(health::soketi(node, request.path())?.response())
}

fn endpoint(resource: Option<&Resource>) -> Endpoint {
    resource.map_or(Endpoint::None, Resource::endpoint)
}

fn json_response(text: String) -> Response<BoxBody> {
    let mut response = Response::with_body(StatusCode::OK, BoxBody::new(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Why there is no answer of a resource.
enum Refused {
    /// The request only asks what it may do. Browsers are no clients of a signed API: nothing is allowed to them.
    Options,
    Error(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

async fn answer(
    request: &Request,
    route: Option<Route<'_>>,
    payload: Payload,
    node: &Node,
) -> Result<Answer, Refused> {
    let route = check_route(request, route);
    // Read even if the request is refused already: only then the connection can be kept.
    let resource = route.as_ref().ok().map(|route| &route.resource);
    let body = body(request, payload, node, resource).await;
    let (route, body) = (route?, body?);
    let unchecked = Unchecked {
        method: request.method().as_str(),
        path: request.path(),
        query: request.uri().query().unwrap_or_default(),
        body: &body,
    };
    let tolerance_s = node.config().api.timestamp_tolerance_s;
    let check = || Signed::check(unchecked, &route, &node.apps(), tolerance_s, SystemTime::now());
    let signed = match check() {
        Err(ApiError::UnknownApp | ApiError::UnknownKey) if node.has_store() => {
            look_up(node, &route, unchecked.query).await?;
            check()?
        }
        signed => signed?,
    };
    node.spend(&signed.app, Budget::Requests, 1).map_err(ApiError::from)?;
    if node.config().api.extraneous_parameters == ExtraneousParameters::Refuse {
        check_extraneous(&signed, &route.resource)?;
    }
    let answer = dispatch(node, &signed, &route.resource, &body).await?;
    if let Some(tally) = node.tally(&signed.app) {
        tally.http_calls_received.add(1);
        tally.http_received_bytes.add(body.len());
        tally.http_transmitted_bytes.add(answer.bytes());
    }
    Ok(answer)
}

/// Has what a call names brought into the apps, if the store knows it: an app, or a key that is new to its app.
async fn look_up(node: &Node, route: &Route<'_>, query: &str) -> Result<(), ApiError> {
    let name = match &route.app_id {
        Some(id) if node.apps().by_id(id).is_none() => AppName::Id(id.clone()),
        _ => AppName::Key(Query::parse(query)?.get("auth_key").unwrap_or_default().to_owned()),
    };
    Ok(node.look_up(name).await?)
}

/// Where the request leads, if it may go there.
fn check_route<'a>(request: &'a Request, route: Option<Route<'a>>) -> Result<Route<'a>, Refused> {
    let route = match route {
        Some(route) => route,
        None if ws::app_key(request.path()).is_some() => return Err(ApiError::UpgradeRequired.into()),
        None => return Err(ApiError::UnknownRoute.into()),
    };
    check_method(request.method(), &route.resource)?;
    check_head(request)?;
    Ok(route)
}

/// Carries out a call whose sender has been checked.
///
/// A node that is alone waits for nothing: the answer is there when it is first asked for.
///
/// # Errors
/// What is wrong with the call; nothing of it was carried out then, unless the cluster is away.
pub async fn dispatch(
    node: &Node,
    signed: &Signed<'_>,
    resource: &Resource,
    body: &[u8],
) -> Result<Answer, ApiError> {
    match resource {
        Resource::Events => events::trigger(node, signed, body).await,
        Resource::BatchEvents => events::trigger_batch(node, signed, body).await,
        Resource::ChannelEvents(channel) => events::trigger_on_channel(node, signed, channel, body).await,
        Resource::Channels => channels::list(node, signed).await,
        Resource::Channel(channel) => channels::show(node, signed, channel).await,
        Resource::Users(channel) => channels::users(node, signed, channel).await,
        Resource::ChannelStats(channel) => channels::stats(node, signed, channel).await,
        Resource::Terminate(user_id) => terminate(node, signed, user_id).await,
    }
}

/// `POST users/{id}/terminate_connections`. A user who is not there has no connections to end.
async fn terminate(node: &Node, signed: &Signed<'_>, user_id: &str) -> Result<Answer, ApiError> {
    if is_user_id(user_id) {
        node.terminate(&signed.app, &ChannelName::of_user(user_id)).await?;
    }
    Ok(Answer::Json(json!({})))
}

fn check_method(method: &Method, resource: &Resource) -> Result<(), Refused> {
    match method {
        &Method::OPTIONS => Err(Refused::Options),
        method if *method == resource.method() => Ok(()),
        _ if resource.method() == Method::POST => Err(ApiError::WrongMethod("POST").into()),
        _ => Err(ApiError::WrongMethod("GET").into()),
    }
}

fn check_head(request: &Request) -> Result<(), ApiError> {
    if is_too_long(request.uri(), request.headers()) {
        return Err(ApiError::HeadTooLarge { max: HEAD_MAX });
    }
    Ok(())
}

/// Refuses a body by its declared length, before any of it is read. Returns the limit.
fn check_declared(resource: Option<&Resource>, headers: &HeaderMap, config: &Api) -> Result<usize, ApiError> {
    let max = match resource {
        Some(Resource::BatchEvents) => config.batch_body_bytes_max,
        _ => config.body_bytes_max,
    };
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        Err(ApiError::BodyTooLarge { max })
    } else {
        Ok(max)
    }
}

/// Answers `Expect: 100-continue`: a body that would be refused need not come.
///
/// # Errors
/// The answer to send instead.
pub fn expect(request: Request, node: &Node) -> Result<Request, Response<BoxBody>> {
    let resource = Route::parse(request.path()).map(|route| route.resource);
    match check_declared(resource.as_ref(), request.headers(), &node.config().api) {
        Ok(_) => Ok(request),
        Err(error) => {
            let endpoint = endpoint(resource.as_ref());
            node.metrics().api.answered(endpoint, error.status().as_str(), Duration::ZERO);
            Err(error.response())
        }
    }
}

/// Reads the body, within its limits of size and time.
async fn body(
    request: &Request,
    payload: Payload,
    node: &Node,
    resource: Option<&Resource>,
) -> Result<Bytes, ApiError> {
    let config = &node.config().api;
    let max = check_declared(resource, request.headers(), config)?;
    let limit = Duration::from_secs(config.body_timeout_s);
    tokio::time::timeout(limit, collect(payload, max)).await.unwrap_or(Err(ApiError::BodyTimeout))
}

/// All of a payload. Most come in one piece, which is passed on as it is.
async fn collect(payload: Payload, max: usize) -> Result<Bytes, ApiError> {
    let mut payload = pin!(BodyStream::new(payload));
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(piece) = poll_fn(|cx| payload.as_mut().poll_next(cx)).await {
        let piece = piece.map_err(|_| ApiError::BodyBroken)?;
        if first.len().max(joined.len()) + piece.len() > max {
            return Err(ApiError::BodyTooLarge { max });
        }
        if first.is_empty() {
            first = piece;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&piece);
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// Parameters that an endpoint does not know are refused where Pusher does so.
fn check_extraneous(signed: &Signed<'_>, resource: &Resource) -> Result<(), ApiError> {
    let known: &[&str] = match resource {
        Resource::Channels => &["filter_by_prefix", "info"],
        Resource::Channel(_) => &["info"],
        Resource::Users(_) | Resource::Terminate(_) | Resource::ChannelStats(_) => &[],
        Resource::Events | Resource::BatchEvents | Resource::ChannelEvents(_) => return Ok(()),
    };
    let of_signature = ["auth_key", "auth_timestamp", "auth_version", "auth_signature", "body_md5"];
    let extraneous: Vec<&str> =
        signed.query.keys().filter(|key| !known.contains(key) && !of_signature.contains(key)).collect();
    if extraneous.is_empty() { Ok(()) } else { Err(ApiError::Extraneous(extraneous.join(", "))) }
}
