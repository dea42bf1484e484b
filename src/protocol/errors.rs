//! Everything a client can be told: why its connection ends, and what was wrong with one message.

use thiserror::Error;

use crate::protocol::json::cut;

/// Why we end a client's connection. 40xx do not come back unchanged, 41xx come back after a pause,
/// 42xx come back at once (Pusher docs, "Error codes"). No other code of the 4xxx range is ever sent.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CloseReason {
    /// A plain connection to an app that demands TLS.
    #[error("Application only accepts SSL connections, reconnect using wss://")]
    TlsOnly,
    /// The key in the path belongs to no app.
    #[error("Application does not exist")]
    UnknownApp,
    /// The app is switched off.
    #[error("Application disabled")]
    AppDisabled,
    /// The app has as many connections as it may have.
    #[error("Application is over connection quota")]
    OverQuota,
    /// An upgrade on any path but `/app/{key}`.
    #[error("Path not found")]
    UnknownPath,
    /// `protocol` is not a whole number.
    #[error("Invalid version string format")]
    InvalidVersion,
    /// `protocol` is not 4, 5, 6 or 7.
    #[error("Unsupported protocol version")]
    UnsupportedVersion,
    /// `protocol` is not given.
    #[error("No protocol version supplied")]
    MissingVersion,
    /// Neither signed in nor on a private or presence channel in time.
    #[error("Connection not authorized within timeout")]
    NotAuthorizedInTime,
    /// The app's backend ended all connections of this user.
    #[error("You got disconnected by the app.")]
    Terminated,
    /// The `Origin` header names a site the app does not allow.
    #[error("Origin not allowed")]
    OriginNotAllowed,
    /// The whole node is full.
    #[error("Over capacity")]
    OverCapacity,
    /// Whether the key belongs to an app cannot be told now.
    #[error("Application cannot be looked up at the moment")]
    StoreAway,
    /// The address has as many connections as one may have.
    #[error("Over capacity: too many connections from your address")]
    AddressConnections,
    /// The address asks for connections faster than one may.
    #[error("Over capacity: too many connection attempts from your address, wait before the next one")]
    AddressHandshakes,
    /// This client reads more slowly than its events arrive.
    #[error("Over capacity: too many unread bytes")]
    SlowReader,
    /// The node shuts down.
    #[error("Server shutting down, reconnect immediately")]
    ShuttingDown,
    /// An operator wants the client to connect anew.
    #[error("Closed by an operator, reconnect immediately")]
    ToReconnect,
    /// We pinged and heard nothing.
    #[error("Pong reply not received")]
    PongMissing,
}

impl CloseReason {
    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        match self {
            Self::TlsOnly => 4000,
            Self::UnknownApp => 4001,
            Self::AppDisabled => 4003,
            Self::OverQuota => 4004,
            Self::UnknownPath => 4005,
            Self::InvalidVersion => 4006,
            Self::UnsupportedVersion => 4007,
            Self::MissingVersion => 4008,
            Self::NotAuthorizedInTime | Self::Terminated | Self::OriginNotAllowed => 4009,
            Self::OverCapacity
            | Self::StoreAway
            | Self::AddressConnections
            | Self::AddressHandshakes
            | Self::SlowReader => 4100,
            Self::ShuttingDown | Self::ToReconnect => 4200,
            Self::PongMissing => 4201,
        }
    }

    /// What the metrics call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TlsOnly => "tls_only",
            Self::UnknownApp => "unknown_app",
            Self::AppDisabled => "app_disabled",
            Self::OverQuota => "over_quota",
            Self::UnknownPath => "path",
            Self::InvalidVersion | Self::UnsupportedVersion | Self::MissingVersion => "version",
            Self::NotAuthorizedInTime => "not_authorized",
            Self::Terminated => "terminated",
            Self::OriginNotAllowed => "origin",
            Self::OverCapacity => "over_capacity",
            Self::StoreAway => "store_away",
            Self::AddressConnections => "address_connections",
            Self::AddressHandshakes => "address_handshakes",
            Self::SlowReader => "slow_reader",
            Self::ShuttingDown => "draining",
            Self::ToReconnect => "operator",
            Self::PongMissing => "pong_missing",
        }
    }
}

/// What was wrong with one message. It is told as `pusher:error`; the connection stays open.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[allow(missing_docs, reason = "each text is what the variant means")]
pub enum ClientError {
    #[error("Received invalid JSON")]
    InvalidJson,
    #[error("Missing parameter: event")]
    MissingEvent,
    #[error("Unsupported event received on socket: {}", cut(.0, SHOWN))]
    UnsupportedEvent(String),
    #[error("Binary frames are not supported: send UTF-8 JSON text")]
    BinaryFrame,

    #[error("Missing parameter: data.channel")]
    MissingChannel,
    #[error("Invalid channel name '{}'", cut(.0, SHOWN))]
    InvalidChannelName(String),
    #[error("Existing subscription to channel {0}")]
    ExistingSubscription(String),
    #[error("No current subscription to channel {}, or subscription in progress", cut(.0, SHOWN))]
    NoSubscription(String),
    #[error("Auth info required to subscribe to {0}")]
    AuthRequired(String),
    #[error("Invalid format: auth must have the format key:signature")]
    InvalidAuthFormat,
    #[error("Invalid key in subscription auth data: '{}'", cut(.0, SHOWN))]
    InvalidKey(String),
    #[error(
        "Invalid signature: Expected HMAC SHA256 hex digest of {}, but got {}",
        cut(.signed, 2 * SHOWN), cut(.got, SHOWN)
    )]
    InvalidSignature { signed: String, got: String },
    #[error("Missing parameter: data.channel_data")]
    MissingChannelData,
    #[error("Invalid channel_data: not a JSON object")]
    InvalidChannelData,
    #[error("Missing parameter: channel_data.user_id")]
    MissingUserId,
    #[error("user_info supplied to presence subscription is invalid - if supplied it must be a type of hash")]
    InvalidUserInfo,
    #[error("user_id supplied to presence subscription exceeds the maximum ({max} characters)")]
    UserIdTooLong { max: usize },
    #[error("user_info supplied to presence subscription exceeds the maximum ({max} bytes)")]
    UserInfoTooLong { max: usize },
    #[error("Presence channel {channel} is full (maximum {max} members)")]
    PresenceFull { channel: String, max: usize },
    #[error("This connection has the maximum of {max} subscriptions")]
    TooManySubscriptions { max: usize },
    #[error("This application has the maximum of {max} channels")]
    TooManyChannels { max: usize },
    #[error("Not authorized to subscribe to {}", cut(.0, SHOWN))]
    NotAuthorized(String),

    #[error("Missing parameter: data.auth")]
    MissingAuth,
    #[error("Missing parameter: data.user_data")]
    MissingUserData,
    #[error("Invalid user_data: {0}")]
    InvalidUserData(&'static str),
    #[error("Invalid user id")]
    InvalidUserId,
    #[error("Connection already signed in as a different user")]
    DifferentUser,
    #[error("The watchlist limit of {max} users was exceeded: the first {max} are watched")]
    WatchlistTooLong { max: usize },

    #[error("To send client events, you must enable this feature in the Settings page of your dashboard.")]
    ClientEventsDisabled,
    #[error("Invalid client event (must contain channel and data)")]
    IncompleteClientEvent,
    #[error("Client event rejected - only supported on private and presence channels")]
    ClientEventOnPublicChannel,
    #[error("Cannot broadcast client event (connection not subscribed to channel {})", cut(.0, SHOWN))]
    ClientEventWithoutSubscription(String),
    #[error("The client event rate limit of {per_s} per second was exceeded")]
    ClientEventRate { per_s: u32 },
    #[error("The client event rate limit of {per_s} per second for the whole application was exceeded")]
    AllClientEventsRate { per_s: u32 },
    #[error("Event name too long ({len} > {max})")]
    EventNameTooLong { len: usize, max: usize },
    #[error("The data content of this event exceeds the allowed maximum ({max} bytes)")]
    DataTooLong { max: usize },
    #[error("Client event rejected: the server cannot reach its cluster at the moment, try again")]
    ClusterAway,
    #[error("The server is overloaded: try again")]
    Overloaded,
}

/// How much of a client's own text an error repeats, in bytes.
const SHOWN: usize = 200;

/// How a refused subscription is told to its channel, in `pusher:subscription_error`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorKind {
    /// `AuthError`, `LimitReached` or `InvalidRequest`.
    pub name: &'static str,
    /// The HTTP status that pusher-js would see from an auth endpoint.
    pub status: u16,
}

impl ClientError {
    /// The code of `pusher:error`: almost always none, as for Pusher.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::ClientEventRate { .. } | Self::AllClientEventsRate { .. } => Some(4301),
            Self::WatchlistTooLong { .. } => Some(4302),
            _ => None,
        }
    }

    /// The text without signatures, which are no business of a log.
    pub fn to_log(&self) -> String {
        match self {
            Self::InvalidSignature { .. } => "Invalid signature".to_owned(),
            _ => self.to_string(),
        }
    }

    /// How the channel of a refused subscription hears of it; none for a duplicate, whose channel is fine.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::ExistingSubscription(_) => None,
            Self::AuthRequired(_)
            | Self::InvalidAuthFormat
            | Self::InvalidKey(_)
            | Self::InvalidSignature { .. }
            | Self::NotAuthorized(_) => Some(ErrorKind { name: "AuthError", status: 401 }),
            Self::PresenceFull { .. } | Self::TooManySubscriptions { .. } | Self::TooManyChannels { .. } => {
                Some(ErrorKind { name: "LimitReached", status: 403 })
            }
            _ => Some(ErrorKind { name: "InvalidRequest", status: 400 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_every_close_code_is_one_the_sdks_know() {
        use CloseReason::*;
        for reason in [
            TlsOnly,
            UnknownApp,
            AppDisabled,
            OverQuota,
            UnknownPath,
            InvalidVersion,
            UnsupportedVersion,
            MissingVersion,
            NotAuthorizedInTime,
            Terminated,
            OriginNotAllowed,
            OverCapacity,
            StoreAway,
            AddressConnections,
            AddressHandshakes,
            SlowReader,
            ShuttingDown,
            ToReconnect,
            PongMissing,
        ] {
            let documented = [4000, 4001, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4100, 4200, 4201, 4202];
            assert!(documented.contains(&reason.code()), "{reason:?}");
            assert!(reason.to_string().len() <= 123, "a close frame has room for 123 bytes: {reason}");
        }
    }

    #[test]
    fn a_strangers_text_is_cut() {
        let told = ClientError::UnsupportedEvent("x".repeat(60_000)).to_string();
        assert!(told.len() < 300, "{} bytes", told.len());
    }
}
