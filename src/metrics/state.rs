//! What can be counted from the state of the node, when somebody asks for the page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricFamily;

use crate::metrics::cluster::OfCluster;
use crate::metrics::registry::{Definition, Kind};
use crate::protocol::{ChannelKind, ChannelName};

/// The label of all apps together that have none of their own.
pub const OTHER_APPS: &str = "other";

/// The state of a node at one moment.
#[derive(Debug, Default)]
pub struct State {
    /// By label.
    pub apps: BTreeMap<String, OfApp>,
    /// Letters and bytes that wait for each worker.
    pub mailboxes: Vec<(usize, usize)>,
    /// The node is about to stop.
    pub draining: bool,
    /// Nothing, if the node is all there is.
    pub cluster: OfCluster,
}

/// What one app has, or all those together that share a label.
#[derive(Debug, Default)]
pub struct OfApp {
    /// Open connections.
    pub connections: usize,
    channels: [u64; Prefix::ALL.len()],
    subscriptions: [u64; Prefix::ALL.len()],
    members: u64,
    users: u64,
    /// What soketi would have counted, if that is wanted.
    pub tally: Option<Arc<Tally>>,
}

/// What soketi counts of each app, counted only if its names are wanted.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is a metric of soketi without its affixes")]
pub struct Tally {
    pub new_connections: Count,
    pub new_disconnections: Count,
    pub socket_received_bytes: Count,
    pub socket_transmitted_bytes: Count,
    pub ws_messages_received: Count,
    pub ws_messages_sent: Count,
    pub http_received_bytes: Count,
    pub http_transmitted_bytes: Count,
    pub http_calls_received: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// What a channel's name begins with, as far as it means something.
#[derive(Clone, Copy)]
enum Prefix {
    Public,
    Cache,
    Private,
    PrivateCache,
    Encrypted,
    EncryptedCache,
    Presence,
    PresenceCache,
}

impl Prefix {
    const ALL: [Self; 8] = [
        Self::Public,
        Self::Cache,
        Self::Private,
        Self::PrivateCache,
        Self::Encrypted,
        Self::EncryptedCache,
        Self::Presence,
        Self::PresenceCache,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Cache => "cache",
            Self::Private => "private",
            Self::PrivateCache => "private-cache",
            Self::Encrypted => "private-encrypted",
            Self::EncryptedCache => "private-encrypted-cache",
            Self::Presence => "presence",
            Self::PresenceCache => "presence-cache",
        }
    }

    /// None for a user's own channel.
    fn of(channel: &ChannelName) -> Option<Self> {
        let encrypted = channel.as_str().starts_with("private-encrypted-");
        Some(match channel.kind() {
            ChannelKind::Public { cached: false } => Self::Public,
            ChannelKind::Public { cached: true } => Self::Cache,
            ChannelKind::Private { cached: false } if encrypted => Self::Encrypted,
            ChannelKind::Private { cached: true } if encrypted => Self::EncryptedCache,
            ChannelKind::Private { cached: false } => Self::Private,
            ChannelKind::Private { cached: true } => Self::PrivateCache,
            ChannelKind::Presence { cached: false } => Self::Presence,
            ChannelKind::Presence { cached: true } => Self::PresenceCache,
            ChannelKind::ServerToUser => return None,
        })
    }
}

impl OfApp {
    /// Counts a channel with subscribers; `members` are distinct users.
    pub fn add_channel(&mut self, channel: &ChannelName, subscriptions: u64, members: usize) {
        let Some(prefix) = Prefix::of(channel) else {
            self.users += 1;
            return;
        };
        let at = prefix as usize;
        if let (Some(channels), Some(all)) = (self.channels.get_mut(at), self.subscriptions.get_mut(at)) {
            *channels += 1;
            *all += subscriptions;
        }
        self.members += members as u64;
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, kind: Kind::Gauge, labels, help }
}

const CONNECTIONS: Definition = gauge("fanfare_connections", &["app"], "Open WebSocket connections.");
const CHANNELS: Definition =
    gauge("fanfare_channels", &["app", "kind"], "Channels with subscribers, by what their names begin with.");
const SUBSCRIPTIONS: Definition = gauge(
    "fanfare_subscriptions",
    &["app", "kind"],
    "Subscriptions of all channels, by what the channels' names begin with.",
);
const MEMBERS: Definition = gauge(
    "fanfare_presence_members",
    &["app"],
    "Members of presence channels: a user in two channels is two of them.",
);
const USERS: Definition = gauge("fanfare_users_online", &["app"], "Users who are signed in.");
const MAILBOX_LETTERS: Definition = gauge(
    "fanfare_worker_mailbox_letters",
    &["worker"],
    "Events and other letters that wait for a worker to take them.",
);
const MAILBOX_BYTES: Definition =
    gauge("fanfare_worker_mailbox_bytes", &["worker"], "Bytes of what waits for a worker to take it.");
const DRAINING: Definition = gauge("fanfare_draining", &[], "1 once the node has begun to stop.");

/// Everything that is counted here.
pub(super) const DEFINITIONS: [Definition; 8] =
    [CONNECTIONS, CHANNELS, SUBSCRIPTIONS, MEMBERS, USERS, MAILBOX_LETTERS, MAILBOX_BYTES, DRAINING];

impl State {
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        vec![
            CONNECTIONS.family(self.by_app(|app| app.connections as f64)),
            CHANNELS.family(self.by_kind(|app| &app.channels)),
            SUBSCRIPTIONS.family(self.by_kind(|app| &app.subscriptions)),
            MEMBERS.family(self.by_app(|app| app.members as f64)),
            USERS.family(self.by_app(|app| app.users as f64)),
            MAILBOX_LETTERS.family(self.by_worker(|(letters, _)| letters)),
            MAILBOX_BYTES.family(self.by_worker(|(_, bytes)| bytes)),
            DRAINING.single(f64::from(u8::from(self.draining))),
        ]
    }

    fn by_app(&self, figure: impl Fn(&OfApp) -> f64) -> impl Iterator<Item = (Vec<String>, f64)> {
        self.apps.iter().map(move |(label, app)| (vec![label.clone()], figure(app)))
    }

    /// Kinds of channel that an app does not have are left out: most apps have two or three.
    fn by_kind<'a>(
        &'a self,
        figures: impl Fn(&'a OfApp) -> &'a [u64; Prefix::ALL.len()],
    ) -> impl Iterator<Item = (Vec<String>, f64)> {
        self.apps.iter().flat_map(move |(label, app)| {
            let figures = Prefix::ALL.into_iter().zip(figures(app)).enumerate();
            // One of them is always there, so that an app without channels is seen to have none.
            let shown = figures.filter(|(at, (_, figure))| *at == 0 || **figure > 0);
            shown.map(|(_, (prefix, figure))| {
                (vec![label.clone(), prefix.as_str().to_owned()], *figure as f64)
            })
        })
    }

    fn by_worker(
        &self,
        figure: impl Fn((usize, usize)) -> usize,
    ) -> impl Iterator<Item = (Vec<String>, f64)> {
        let mailboxes = self.mailboxes.iter().enumerate();
        mailboxes.map(move |(worker, mailbox)| (vec![worker.to_string()], figure(*mailbox) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_one_kind() {
        for (name, kind) in [
            ("orders", "public"),
            ("privateer", "public"),
            ("cache-a", "cache"),
            ("private-a", "private"),
            ("private-cache-a", "private-cache"),
            ("private-encrypted-a", "private-encrypted"),
            ("private-encrypted-cache-a", "private-encrypted-cache"),
            ("presence-a", "presence"),
            ("presence-cache-a", "presence-cache"),
        ] {
            let channel = ChannelName::parse(name, 164).expect(name);
            assert_eq!(Prefix::of(&channel).map(Prefix::as_str), Some(kind), "{name}");
        }
        assert!(Prefix::of(&ChannelName::of_user("ann")).is_none());
        for (place, prefix) in Prefix::ALL.into_iter().enumerate() {
            assert_eq!(prefix as usize, place);
        }
    }
}
