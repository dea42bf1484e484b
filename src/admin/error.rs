//! Everything an operator's program can be told is wrong.

use actix_web::http::StatusCode;
use serde_json::{Value, json};
use thiserror::Error;

use crate::node::Away;
use crate::protocol::cut;

/// How much of a stranger's text an error repeats, in bytes.
const SHOWN: usize = 200;

/// Why a call is refused, and what would be right.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[allow(missing_docs, reason = "each text is what the variant means")]
pub enum AdminError {
    #[error("send the admin.token of the configuration along: Authorization: Bearer …")]
    Unauthorized,
    #[error("nothing is here: see GET /admin/v1/openapi.json")]
    UnknownPath,
    #[error("this path takes {allowed}")]
    WrongMethod { allowed: String },
    #[error("the query cannot be read: {0}")]
    BadQuery(String),
    #[error("unknown parameter {}: expected {known}", cut(.name, SHOWN))]
    UnknownParameter { name: String, known: String },
    #[error("bad value for {name}: expected {expected}")]
    BadParameter { name: &'static str, expected: String },
    #[error("bad body: expected {expected}")]
    BadBody { expected: &'static str },
    #[error("the body is too large: expected at most {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the body did not arrive within {limit_s} seconds")]
    BodyTimeout { limit_s: u64 },
    #[error("no app has the id {}: see GET /admin/v1/apps", cut(.0, SHOWN))]
    UnknownApp(String),
    #[error("no connection has the socket id {0}: see GET /admin/v1/connections")]
    UnknownConnection(String),
    #[error("no dead letter has the id {}: see GET /admin/v1/webhooks/dead-letters", cut(.0, SHOWN))]
    UnknownDeadLetter(String),
    #[error("not everything was reloaded: what is wrong stays as it was")]
    ReloadRefused { problems: Vec<String> },
    #[error("the node is stopping")]
    Stopping,
    #[error("no answer of worker {worker} within {limit_s} seconds: try again")]
    WorkerSilent { worker: u16, limit_s: u64 },
    #[error("the store of apps is away: whether there is such an app cannot be told now")]
    StoreAway,
    #[error("the cluster cannot be reached at the moment: try again")]
    ClusterAway,
    #[error("webhooks are not delivered by this node")]
    NoWebhooks,
    #[error("no answer within {limit_s} seconds: try again")]
    Silent { limit_s: u64 },
}

impl From<Away> for AdminError {
    fn from(Away: Away) -> Self {
        Self::ClusterAway
    }
}

impl AdminError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UnknownPath
            | Self::UnknownApp(_)
            | Self::UnknownConnection(_)
            | Self::UnknownDeadLetter(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::ReloadRefused { .. } => StatusCode::CONFLICT,
            Self::Stopping
            | Self::StoreAway
            | Self::ClusterAway
            | Self::WorkerSilent { .. }
            | Self::NoWebhooks
            | Self::Silent { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadQuery(_)
            | Self::UnknownParameter { .. }
            | Self::BadParameter { .. }
            | Self::BadBody { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer's body.
    pub(super) fn body(&self) -> Value {
        match self {
            Self::ReloadRefused { problems } => json!({ "error": self.to_string(), "problems": problems }),
            _ => json!({ "error": self.to_string() }),
        }
    }
}
