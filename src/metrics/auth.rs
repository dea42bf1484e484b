//! Who was not believed, and why.

use prometheus::IntCounterVec;

use crate::metrics::Registry;
use crate::protocol::ClientError;

/// Failures to prove who one is.
#[derive(Debug)]
pub struct Auth(IntCounterVec);

/// Where somebody has to prove who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// Subscribing to a channel.
    Subscribe,
    /// Signing in as a user.
    SignIn,
    /// Calling the API.
    Api,
}

/// What was wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Something that must be given is not.
    Missing,
    /// What is given cannot be read.
    Malformed,
    /// No app has that id.
    UnknownApp,
    /// No app, or not this one, has that key.
    UnknownKey,
    /// The signature was not made with the secret, or of something else.
    InvalidSignature,
    /// The clocks differ too much, or an old call was sent again.
    ExpiredTimestamp,
    /// The body is not the one that was signed.
    InvalidBodyMd5,
    /// The app is switched off.
    AppDisabled,
    /// The channel belongs to another user.
    NotAuthorized,
}

impl Door {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::SignIn => "signin",
            Self::Api => "api",
        }
    }

    const fn faults(self) -> &'static [Fault] {
        use Fault::*;
        match self {
            Self::Subscribe => &[Missing, Malformed, UnknownKey, InvalidSignature, NotAuthorized],
            Self::SignIn => &[Missing, Malformed, UnknownKey, InvalidSignature],
            Self::Api => &[
                Missing,
                Malformed,
                UnknownApp,
                UnknownKey,
                InvalidSignature,
                ExpiredTimestamp,
                InvalidBodyMd5,
                AppDisabled,
            ],
        }
    }
}

impl Fault {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::UnknownApp => "unknown_app",
            Self::UnknownKey => "unknown_key",
            Self::InvalidSignature => "invalid_signature",
            Self::ExpiredTimestamp => "expired_timestamp",
            Self::InvalidBodyMd5 => "invalid_body_md5",
            Self::AppDisabled => "app_disabled",
            Self::NotAuthorized => "not_authorized",
        }
    }

    /// What a client's message lacked to be believed; none if that was not what was wrong with it.
    pub const fn of(error: &ClientError) -> Option<Self> {
        match error {
            ClientError::AuthRequired(_) | ClientError::MissingAuth => Some(Self::Missing),
            ClientError::InvalidAuthFormat => Some(Self::Malformed),
            ClientError::InvalidKey(_) => Some(Self::UnknownKey),
            ClientError::InvalidSignature { .. } => Some(Self::InvalidSignature),
            ClientError::NotAuthorized(_) => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl Auth {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let failures = registry.counters(
            "fanfare_auth_failures_total",
            &["door", "reason"],
            "Subscriptions, sign-ins and API calls whose sender was not believed, by reason.",
        );
        for door in [Door::Subscribe, Door::SignIn, Door::Api] {
            for fault in door.faults() {
                failures.with_label_values(&[door.as_str(), fault.as_str()]);
            }
        }
        Self(failures)
    }

    /// Somebody was not believed.
    pub fn failed(&self, door: Door, fault: Fault) {
        self.0.with_label_values(&[door.as_str(), fault.as_str()]).inc();
    }
}
