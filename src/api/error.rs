//! Everything a publisher can be told when a call fails: one line of text and a status.

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Response, StatusCode};
use thiserror::Error;

use crate::metrics::{Fault, Limit};
use crate::node::{Away, Budget, Exhausted, Overloaded, StoreAway};
use crate::protocol::{QueryError, cut, one_line};

/// Why a call was refused. Nothing of it was carried out, unless the cluster is away: then that is not known.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[allow(missing_docs, reason = "each text is what the variant means")]
pub enum ApiError {
    #[error("Not found")]
    UnknownRoute,
    #[error("This is a WebSocket endpoint: connect with ws:// or wss://")]
    UpgradeRequired,
    #[error("Method not allowed: use {0}")]
    WrongMethod(&'static str),
    #[error("Request head too large (maximum {max} bytes)")]
    HeadTooLarge { max: usize },
    #[error("Request body too large (maximum {max} bytes)")]
    BodyTooLarge { max: usize },
    #[error("The request body did not arrive in time")]
    BodyTimeout,
    #[error("The request body could not be read")]
    BodyBroken,

    #[error("Unknown app_id")]
    UnknownApp,
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("Missing parameter: auth_key")]
    MissingKey,
    #[error("Unknown auth_key")]
    UnknownKey,
    #[error("Version required")]
    MissingVersion,
    #[error("Version not supported")]
    WrongVersion,
    #[error("Timestamp required")]
    MissingTimestamp,
    #[error("Timestamp expired: Given timestamp ({given}) not within {tolerance_s}s of server time ({now})")]
    TimestampExpired { given: String, now: String, tolerance_s: u64 },
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex({to_sign}, your_secret_key), but you sent {:?}",
        cut(.sent, 200)
    )]
    InvalidSignature { to_sign: String, sent: String },
    #[error("Missing parameter: body_md5")]
    MissingBodyMd5,
    #[error("Invalid body_md5")]
    InvalidBodyMd5,
    #[error("Application disabled")]
    AppDisabled,

    #[error("Invalid JSON provided")]
    InvalidJson,
    #[error("Missing required parameter: {0}")]
    Missing(&'static str),
    #[error("Expected {0} parameter to be {1}")]
    WrongType(&'static str, &'static str),
    #[error("Event name too long ({len} > {max})")]
    EventNameTooLong { len: usize, max: usize },
    #[error("Invalid event name '{}'", one_line(.0, 200))]
    InvalidEventName(String),
    #[error("Too many channels ({count} > {max})")]
    TooManyChannels { count: usize, max: usize },
    #[error("Invalid channel name '{}'", one_line(.0, 200))]
    InvalidChannelName(String),
    #[error("The data content of this event exceeds the allowed maximum ({max} bytes)")]
    DataTooLong { max: usize },
    #[error("Invalid event data: not UTF-8")]
    DataNotUtf8,
    #[error("Invalid socket_id '{}'", one_line(.0, 200))]
    InvalidSocketId(String),
    #[error("info should be a comma separated list of attributes")]
    InvalidInfo,
    #[error("Batch too large ({count} > {max})")]
    BatchTooLarge { count: usize, max: usize },

    // (sic): receivers compare these two texts with what Pusher says.
    #[error(
        "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-"
    )]
    UserCountNeedsPrefix,
    #[error("Cannot retrieve the user count unless the channel is a presence channel")]
    UserCountNeedsPresence,
    #[error("Cannot retrieve the cache unless the channel is a cache channel")]
    CacheNeedsCacheChannel,
    #[error("Users can only be retrieved for presence channels")]
    UsersNeedPresence,
    #[error("The following query string parameters are extraneous: {}", one_line(.0, 200))]
    Extraneous(String),

    #[error("{0}: nothing was done, try again later")]
    TooMany(#[from] Exhausted),
    #[error("The server is overloaded, nothing was sent: try again")]
    Overloaded,
    #[error("The app cannot be looked up at the moment: try again")]
    StoreAway,
    #[error("The cluster cannot be reached at the moment, an event may have been sent or not: try again")]
    ClusterAway,
}

impl From<Overloaded> for ApiError {
    fn from(Overloaded: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<StoreAway> for ApiError {
    fn from(StoreAway: StoreAway) -> Self {
        Self::StoreAway
    }
}

impl From<Away> for ApiError {
    fn from(Away: Away) -> Self {
        Self::ClusterAway
    }
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownRoute | Self::UnknownApp => StatusCode::NOT_FOUND,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge { .. } | Self::DataTooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MissingKey
            | Self::UnknownKey
            | Self::MissingVersion
            | Self::WrongVersion
            | Self::MissingTimestamp
            | Self::TimestampExpired { .. }
            | Self::InvalidSignature { .. }
            | Self::MissingBodyMd5
            | Self::InvalidBodyMd5 => StatusCode::UNAUTHORIZED,
            Self::AppDisabled => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::StoreAway | Self::ClusterAway => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What the caller lacked to be believed; none if that was not what was wrong.
    pub(super) fn fault(&self) -> Option<Fault> {
        Some(match self {
            Self::MissingKey | Self::MissingVersion | Self::MissingTimestamp | Self::MissingBodyMd5 => {
                Fault::Missing
            }
            Self::Query(_) | Self::WrongVersion => Fault::Malformed,
            Self::UnknownApp => Fault::UnknownApp,
            Self::UnknownKey => Fault::UnknownKey,
            Self::InvalidSignature { .. } => Fault::InvalidSignature,
            Self::TimestampExpired { .. } => Fault::ExpiredTimestamp,
            Self::InvalidBodyMd5 => Fault::InvalidBodyMd5,
            Self::AppDisabled => Fault::AppDisabled,
            _ => return None,
        })
    }

    /// The limit of the app that the call was over; none if that was not what was wrong.
    pub(super) fn limit(&self) -> Option<Limit> {
        let Self::TooMany(exhausted) = self else { return None };
        Some(match exhausted.budget {
            Budget::Requests => Limit::RequestsPerS,
            Budget::Publishes => Limit::PublishesPerS,
            Budget::ClientEvents => Limit::AllClientEventsPerS,
        })
    }

    /// The text without signatures, which are no business of a log.
    pub(super) fn to_log(&self) -> String {
        match self {
            Self::InvalidSignature { .. } => "Invalid signature".to_owned(),
            _ => self.to_string(),
        }
    }

    /// The answer: plain text with one trailing newline, as SDKs expect it.
    pub(super) fn response(&self) -> Response<BoxBody> {
        let mut response = Response::with_body(self.status(), BoxBody::new(format!("{self}\n")));
        let mut set = |name: HeaderName, value: &'static str| {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        };
        set(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        match self {
            Self::WrongMethod(allowed) => set(header::ALLOW, allowed),
            Self::UpgradeRequired => set(header::UPGRADE, "websocket"),
            Self::Overloaded | Self::StoreAway | Self::ClusterAway => set(header::RETRY_AFTER, "1"),
            Self::TooMany(exhausted) => {
                // Whole seconds, and never "at once".
                let seconds = exhausted.retry_after.as_secs() + 1;
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        response
    }
}
