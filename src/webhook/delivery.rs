//! Requests to be made, and what comes of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use thiserror::Error;

use crate::app::{App, AppId, Apps, Webhook};
use crate::node::Receipt;
use crate::protocol::ChannelName;
use crate::webhook::address::Refused;
use crate::webhook::body::body;

/// A moment, for measuring and for telling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Measured.
    pub(super) at: Instant,
    /// Told: milliseconds since 1970.
    pub(super) ms: u64,
}

/// Where an app's webhooks go. Two blocks of the configuration with the same URL and headers are one.
#[derive(Clone, Eq, Hash, PartialEq)]
pub(super) struct Endpoint {
    pub(super) app: AppId,
    pub(super) url: String,
    /// Which of the app's blocks with this URL, counted from 0.
    pub(super) place: usize,
    /// None if it was restored: it has those of its block then.
    pub(super) headers: Vec<(String, String)>,
}

impl Endpoint {
    pub(super) fn of(app: &App, webhook: &Webhook) -> Self {
        let mut same = app.webhooks.iter().filter(|other| other.url == webhook.url);
        Self {
            app: app.id.clone(),
            url: webhook.url.clone(),
            place: same.position(|other| other.headers == webhook.headers).unwrap_or_default(),
            headers: webhook.headers.clone(),
        }
    }

    /// As the configuration has it now, which may give it other headers; none if it is there no more.
    pub(super) fn now_in(&self, apps: &Apps) -> Option<Self> {
        let app = apps.by_id(&self.app)?;
        let same = || app.webhooks.iter().filter(|webhook| webhook.url == self.url);
        let alike = same().find(|webhook| !self.headers.is_empty() && webhook.headers == self.headers);
        alike.or_else(|| same().nth(self.place)).map(|webhook| Self::of(app, webhook))
    }

    /// Scheme, host and port. Paths and queries can be secrets.
    pub(super) fn origin(&self) -> String {
        Url::parse(&self.url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} {})", self.app, self.origin())
    }
}

/// What a receiver knows a delivery by, over all attempts, a restart and a replay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DeliveryId(pub(super) u128);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl DeliveryId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

/// One request to be made until it succeeds or its time is over.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) id: DeliveryId,
    /// As it was when the events happened: its oldest key signs.
    pub(super) app: Arc<App>,
    pub(super) time_ms: u64,
    /// JSON, with commas between them.
    pub(super) events: String,
    pub(super) count: usize,
    /// Those the events are of, each once.
    pub(super) channels: Vec<ChannelName>,
    /// What it takes in the queue, in bytes.
    pub(super) weight: usize,
    /// No attempt is made after this.
    pub(super) until: Instant,
    pub(super) attempts: u32,
    /// All of it may have been told before, by another node.
    pub(super) again: bool,
    /// Of the events that Redis keeps until they are told.
    pub(super) receipts: Vec<Receipt>,
}

impl Delivery {
    /// Whether another node tells all of it now.
    pub(super) fn is_lost(&self) -> bool {
        !self.receipts.is_empty() && self.receipts.iter().all(Receipt::is_lost)
    }

    /// Whether the receiver may get it from another node, too, or has got it already.
    fn is_again(&self, now: Instant) -> bool {
        self.again || self.receipts.iter().any(|receipt| receipt.is_doubtful(now))
    }
}

/// A request to be made now. Body, signature and id are the same in every attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) ticket: Ticket,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) id: DeliveryId,
    /// Counted from 1.
    pub(super) number: u32,
    /// Another node may have told it, too.
    pub(super) again: bool,
    pub(super) key: String,
    pub(super) signature: String,
    pub(super) body: String,
}

impl Attempt {
    pub(super) fn new(ticket: Ticket, endpoint: &Arc<Endpoint>, delivery: &Delivery, now: Instant) -> Self {
        let body = body(delivery.time_ms, &delivery.events);
        // An app has a key, or it would not have been accepted.
        let pair = delivery.app.keys.first();
        Self {
            ticket,
            endpoint: endpoint.clone(),
            id: delivery.id,
            number: delivery.attempts,
            again: delivery.is_again(now),
            key: pair.map(|pair| pair.key.clone()).unwrap_or_default(),
            signature: pair.map(|pair| pair.secret.sign(&[body.as_bytes()])).unwrap_or_default(),
            body,
        }
    }
}

/// A delivery's place in the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ticket {
    pub(super) receiver: ReceiverId,
    pub(super) delivery: Seq,
}

/// A receiver, for as long as something waits for it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct ReceiverId(pub(super) u64);

/// A delivery's number, in the order they came.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Seq(pub(super) u64);

/// Why an attempt delivered nothing.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum Failure {
    #[error("the receiver answered with status {0}")]
    Status(u16),
    #[error("the receiver did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("no connection: {0}")]
    Connection(String),
    #[error(transparent)]
    Address(#[from] Refused),
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl Failure {
    /// What the metrics call it.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Status(300..400) => "3xx",
            Self::Status(400..500) => "4xx",
            Self::Status(500..600) => "5xx",
            Self::Status(_) => "other",
            Self::Timeout(_) => "timeout",
            Self::Connection(_) => "connection",
            Self::Address(_) => "address",
            Self::Request(_) => "request",
        }
    }
}
