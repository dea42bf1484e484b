//! What workers count, without atomics where messages are many.
//!
//! Each worker has a [`Share`] of its own, which nobody else touches, and adds it up at every tick. So the page is
//! at most a tick behind.

use std::cell::Cell;
use std::time::{Duration, Instant};

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::Registry;
use crate::protocol::{ClientError, ClientMessage};

/// What all workers have counted.
#[derive(Debug)]
pub struct Workers {
    messages: IntCounterVec,
    pings: IntCounter,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    replies: IntCounter,
    deliveries: IntCounter,
    fan_out: Histogram,
    outbox_frames: IntGaugeVec,
    outbox_bytes: IntGaugeVec,
    lag: HistogramVec,
}

/// What a client has sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "each is the event of its name")]
pub enum Message {
    Subscribe,
    Unsubscribe,
    SignIn,
    ClientEvent,
    Ping,
    Pong,
    /// An event that clients may not send.
    Other,
    /// No event at all.
    Invalid,
}

impl Message {
    const ALL: [Self; 8] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::SignIn,
        Self::ClientEvent,
        Self::Ping,
        Self::Pong,
        Self::Other,
        Self::Invalid,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::SignIn => "signin",
            Self::ClientEvent => "client_event",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Other => "other",
            Self::Invalid => "invalid",
        }
    }

    /// What a message is, or was meant to be.
    pub fn of(message: &Result<ClientMessage<'_>, ClientError>) -> Self {
        match message {
            Ok(ClientMessage::Subscribe(_)) => Self::Subscribe,
            Ok(ClientMessage::Unsubscribe(_)) => Self::Unsubscribe,
            Ok(ClientMessage::SignIn(_)) => Self::SignIn,
            Ok(ClientMessage::ClientEvent { .. }) => Self::ClientEvent,
            Ok(ClientMessage::Ping) => Self::Ping,
            Ok(ClientMessage::Pong) => Self::Pong,
            Err(ClientError::UnsupportedEvent(_)) => Self::Other,
            Err(_) => Self::Invalid,
        }
    }
}

/// Upper bounds of times in the server, in seconds.
const FAN_OUT_S: [f64; 15] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A timer of the runtime is up to 1 ms late by itself.
const LAG_S: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

impl Workers {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            messages: registry.counters(
                "fanfare_messages_received_total",
                &["type"],
                "Messages from clients, by what they are.",
            ),
            pings: registry
                .counter("fanfare_websocket_pings_received_total", "Ping frames of WebSocket from clients."),
            received_bytes: registry.counter(
                "fanfare_websocket_received_bytes_total",
                "Bytes read from WebSockets, frame heads and TLS included.",
            ),
            sent_bytes: registry.counter(
                "fanfare_websocket_sent_bytes_total",
                "Bytes written to WebSockets, frame heads and TLS included.",
            ),
            replies: registry.counter(
                "fanfare_replies_total",
                "Messages that answered a client: greetings, confirmations, errors, pusher:pong.",
            ),
            deliveries: registry.counter(
                "fanfare_deliveries_total",
                "Events, and notices of members and counts, handed to connections.",
            ),
            fan_out: registry.histogram(
                "fanfare_fan_out_duration_seconds",
                &FAN_OUT_S,
                "Time from accepting an event until a worker has written it to all its listeners.",
            ),
            outbox_frames: registry.gauges(
                "fanfare_outbox_frames",
                &["worker"],
                "Frames that wait for clients to read them.",
            ),
            outbox_bytes: registry.gauges(
                "fanfare_outbox_bytes",
                &["worker"],
                "Bytes that wait for clients to read them.",
            ),
            lag: registry.histograms(
                "fanfare_worker_lag_seconds",
                &["worker"],
                &LAG_S,
                "How late a worker's timer came, ten times a second: how busy its thread is.",
            ),
        }
    }

    /// What the worker of this number counts.
    pub fn share(&self, worker: u16) -> Share {
        let worker = &[&*worker.to_string()];
        Share {
            messages: Message::ALL.map(|kind| self.messages.with_label_values(&[kind.as_str()]).local()),
            pings: self.pings.local(),
            received_bytes: self.received_bytes.local(),
            sent_bytes: self.sent_bytes.local(),
            replies: self.replies.local(),
            deliveries: self.deliveries.local(),
            fan_out: self.fan_out.local(),
            waiting: Cell::default(),
            outbox_frames: self.outbox_frames.with_label_values(worker),
            outbox_bytes: self.outbox_bytes.with_label_values(worker),
            lag: self.lag.with_label_values(worker).local(),
        }
    }
}

/// What one worker has counted since its last tick. It lives on the worker's thread.
#[derive(Debug)]
pub struct Share {
    messages: [LocalIntCounter; Message::ALL.len()],
    /// Ping frames from clients.
    pub pings: LocalIntCounter,
    /// Bytes read from sockets.
    pub received_bytes: LocalIntCounter,
    /// Bytes written to sockets.
    pub sent_bytes: LocalIntCounter,
    /// Messages that answered a client.
    pub replies: LocalIntCounter,
    /// Events handed to connections.
    pub deliveries: LocalIntCounter,
    fan_out: LocalHistogram,
    /// Frames and bytes in all outboxes of the worker.
    waiting: Cell<(usize, usize)>,
    outbox_frames: IntGauge,
    outbox_bytes: IntGauge,
    lag: LocalHistogram,
}

impl Share {
    /// A client has sent a message.
    pub fn heard(&self, message: Message) {
        if let Some(counter) = self.messages.get(message as usize) {
            counter.inc();
        }
    }

    /// Events that were accepted at these times have now been written.
    pub fn written(&self, accepted: impl IntoIterator<Item = Instant>) {
        let mut accepted = accepted.into_iter().peekable();
        if accepted.peek().is_none() {
            return;
        }
        let now = Instant::now();
        for at in accepted {
            self.fan_out.observe(now.saturating_duration_since(at).as_secs_f64());
        }
    }

    /// An outbox has changed: frames and bytes in it before and now.
    pub fn outbox_moved(&self, before: (usize, usize), now: (usize, usize)) {
        let (frames, bytes) = self.waiting.get();
        self.waiting.set((
            frames.wrapping_sub(before.0).wrapping_add(now.0),
            bytes.wrapping_sub(before.1).wrapping_add(now.1),
        ));
    }

    /// Adds everything up for the page. `lag` is how late that is.
    pub fn tick(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
        let own = [&self.pings, &self.received_bytes, &self.sent_bytes, &self.replies, &self.deliveries];
        self.messages.iter().chain(own).for_each(LocalIntCounter::flush);
        self.fan_out.flush();
        self.lag.flush();
        let (frames, bytes) = self.waiting.get();
        self.outbox_frames.set(i64::try_from(frames).unwrap_or(i64::MAX));
        self.outbox_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_added_up_once() {
        let mut registry = Registry::default();
        let workers = Workers::new(&mut registry);
        let (first, second) = (workers.share(0), workers.share(1));
        first.heard(Message::Ping);
        second.heard(Message::Ping);
        second.heard(Message::Invalid);
        first.outbox_moved((0, 0), (2, 100));
        first.outbox_moved((2, 100), (1, 40));
        for _ in 0..2 {
            first.tick(Duration::ZERO);
            second.tick(Duration::ZERO);
        }
        assert_eq!(workers.messages.with_label_values(&["ping"]).get(), 2);
        assert_eq!(workers.messages.with_label_values(&["invalid"]).get(), 1);
        assert_eq!(workers.outbox_bytes.with_label_values(&["0"]).get(), 40);
        assert_eq!(workers.outbox_frames.with_label_values(&["0"]).get(), 1);
        assert_eq!(workers.outbox_bytes.with_label_values(&["1"]).get(), 0);
    }

    #[test]
    fn each_kind_of_message_has_its_place() {
        for (place, kind) in Message::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{}", kind.as_str());
        }
    }
}
