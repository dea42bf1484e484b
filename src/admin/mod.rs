//! `/admin/v1/…`: what operators ask and order, on an address of its own.
//!
//! Every request needs the token (`auth`); then its [`Endpoint`] answers, one function of the resource's file.
//! What is asked of connections goes to the workers as letters, and no answer is longer than a page. `openapi.json`
//! describes all of it, and a test holds it against what runs.
//!
//! Not here: how orders are carried out (`server`), how connections are found and closed (`worker`).

mod apps;
mod auth;
mod call;
mod channels;
mod connections;
mod error;
mod nodes;
mod orders;
mod status;
mod webhooks;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App as WebApp, HttpRequest, HttpResponse, web};
use serde_json::Value;

use crate::admin::auth::Gate;
use crate::admin::call::Call;
use crate::control::Orders;
use crate::node::Node;
use crate::webhook::Desk;

pub use crate::admin::error::AdminError;

/// Describes the API to machines (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// No answer takes longer than this.
pub const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(orders::RELOAD_TIMEOUT_S);

/// Everything the admin API asks.
pub struct Admin {
    node: Arc<Node>,
    orders: Orders,
    /// None where webhooks are not delivered.
    webhooks: Option<Desk>,
    addresses: Addresses,
    gate: Gate,
    began: Instant,
    started: SystemTime,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Clients and the API.
    pub clients: SocketAddr,
    /// The Prometheus page.
    pub metrics: Option<SocketAddr>,
    /// This API.
    pub admin: SocketAddr,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Admin {
    /// The API of a node whose configuration has a token.
    pub fn new(node: Arc<Node>, orders: Orders, webhooks: Option<Desk>, addresses: Addresses) -> Arc<Self> {
        let gate = Gate::new(&node.config().admin.token);
        let (began, started) = (Instant::now(), SystemTime::now());
        Arc::new(Self { node, orders, webhooks, addresses, gate, began, started })
    }
}

/// What the API has: a method and a path each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "openapi.json says what each is")]
pub enum Endpoint {
    OpenApi,
    Status,
    Config,
    Nodes,
    Apps,
    App,
    Channels,
    Channel,
    TerminateUser,
    Connections,
    Connection,
    CloseConnection,
    Drain,
    Reload,
    DeadLetters,
    Replay,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::OpenApi,
        Self::Status,
        Self::Config,
        Self::Nodes,
        Self::Apps,
        Self::App,
        Self::Channels,
        Self::Channel,
        Self::TerminateUser,
        Self::Connections,
        Self::Connection,
        Self::CloseConnection,
        Self::Drain,
        Self::Reload,
        Self::DeadLetters,
        Self::Replay,
    ];

    /// Its method.
    pub fn method(self) -> Method {
        match self {
            Self::TerminateUser | Self::CloseConnection => Method::DELETE,
            Self::Drain | Self::Reload | Self::Replay => Method::POST,
            _ => Method::GET,
        }
    }

    /// Its path, with names in braces for what differs.
    pub const fn path(self) -> &'static str {
        match self {
            Self::OpenApi => "/admin/v1/openapi.json",
            Self::Status => "/admin/v1/status",
            Self::Config => "/admin/v1/config",
            Self::Nodes => "/admin/v1/nodes",
            Self::Apps => "/admin/v1/apps",
            Self::App => "/admin/v1/apps/{app}",
            Self::Channels => "/admin/v1/apps/{app}/channels",
            Self::Channel => "/admin/v1/apps/{app}/channels/{channel}",
            Self::TerminateUser => "/admin/v1/apps/{app}/users/{user}",
            Self::Connections => "/admin/v1/connections",
            Self::Connection | Self::CloseConnection => "/admin/v1/connections/{socket_id}",
            Self::Drain => "/admin/v1/drain",
            Self::Reload => "/admin/v1/reload",
            Self::DeadLetters => "/admin/v1/webhooks/dead-letters",
            Self::Replay => "/admin/v1/webhooks/dead-letters/replay",
        }
    }

    /// The parameters it knows in the query.
    pub const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Apps | Self::Channel => &["after", "limit"],
            Self::Channels => &["prefix", "after", "limit"],
            Self::Connections => &["app", "user", "channel", "after", "limit"],
            Self::CloseConnection => &["final"],
            Self::DeadLetters => &["app", "limit"],
            _ => &[],
        }
    }

    async fn serve(self, admin: &Admin, call: Call<'_>) -> Result<Answer, AdminError> {
        match self {
            Self::OpenApi => Ok(Answer::text(OPENAPI)),
            Self::Status => status::status(admin).await,
            Self::Config => Ok(status::config(admin)),
            Self::Nodes => Ok(nodes::list(admin)),
            Self::Apps => apps::list(admin, &call),
            Self::App => apps::show(admin, &call).await,
            Self::Channels => channels::list(admin, &call).await,
            Self::Channel => channels::show(admin, &call).await,
            Self::TerminateUser => apps::terminate(admin, &call).await,
            Self::Connections => connections::list(admin, &call).await,
            Self::Connection => connections::show(admin, &call).await,
            Self::CloseConnection => connections::close(admin, &call).await,
            Self::Drain => orders::drain(admin, &call),
            Self::Reload => orders::reload(admin, &call).await,
            Self::DeadLetters => webhooks::list(admin, &call).await,
            Self::Replay => webhooks::replay(admin, call).await,
        }
    }
}

/// A success.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    body: String,
}

impl Answer {
    fn ok(body: &Value) -> Self {
        Self { status: StatusCode::OK, body: body.to_string() }
    }

    /// It has begun, and goes on by itself.
    fn accepted(body: &Value) -> Self {
        Self { status: StatusCode::ACCEPTED, body: body.to_string() }
    }

    fn text(body: &str) -> Self {
        Self { status: StatusCode::OK, body: body.to_owned() }
    }
}

/// The API as a service: every endpoint, behind the gate.
pub fn service(
    admin: Arc<Admin>,
) -> WebApp<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let mut app = WebApp::new();
    for (at, endpoint) in Endpoint::ALL.into_iter().enumerate() {
        let path = endpoint.path();
        if Endpoint::ALL[..at].iter().any(|before| before.path() == path) {
            continue; // it has come with the first of this path
        }
        let of_path = Endpoint::ALL.into_iter().filter(|other| other.path() == path);
        let methods: Vec<String> = of_path.clone().map(|each| each.method().to_string()).collect();
        let wrong_method = AdminError::WrongMethod { allowed: methods.join(", ") };
        let mut resource = web::resource(path);
        for endpoint in of_path {
            let admin = admin.clone();
            resource = resource.route(web::method(endpoint.method()).to(
                move |request: HttpRequest, payload: web::Payload| {
                    let admin = admin.clone();
                    async move { answer(endpoint, &admin, &request, payload).await }
                },
            ));
        }
        app = app.service(resource.default_service(web::to(move || {
            let response = respond(Err(wrong_method.clone()));
            async move { response }
        })));
    }
    let nothing = web::to(|| async { respond(Err(AdminError::UnknownPath)) });
    app.default_service(nothing).wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
        let admin = admin.clone();
        async move {
            let response = match admin.gate.check(&request).await {
                Ok(()) => next.call(request).await?,
                Err(error) => request.into_response(respond(Err(error))),
            };
            admin.node.metrics().admin.with_label_values(&[response.status().as_str()]).inc();
            Ok::<_, actix_web::Error>(response)
        }
    }))
}

async fn answer(
    endpoint: Endpoint,
    admin: &Admin,
    request: &HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    match Call::read(request, payload, endpoint.parameters()) {
        Ok(call) => respond(endpoint.serve(admin, call).await),
        Err(error) => respond(Err(error)),
    }
}

fn respond(outcome: Result<Answer, AdminError>) -> HttpResponse {
    let (status, body) = match &outcome {
        Ok(answer) => (answer.status, answer.body.clone()),
        Err(error) => (error.status(), error.body().to_string()),
    };
    let mut response = HttpResponse::build(status);
    response
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    match outcome {
        Err(AdminError::Unauthorized) => {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        Err(AdminError::WrongMethod { allowed }) => {
            response.insert_header((header::ALLOW, allowed));
        }
        Err(error) if error.status() == StatusCode::SERVICE_UNAVAILABLE => {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        _ => {}
    }
    response.body(body)
}
