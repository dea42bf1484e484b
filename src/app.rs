//! An app: who may publish and subscribe, and within which limits.
//!
//! Not here: where apps are written down (`config`), how many connections one has (`node`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::protocol::Secret;

/// The id of an app, as in `/apps/{id}`. Cloning shares the text.
pub type AppId = Arc<str>;

/// One app. The defaults are Pusher's documented values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct App {
    /// Names the app in the HTTP API. Numeric by default, since some server SDKs accept nothing else.
    pub id: AppId,
    /// Key and secret pairs, oldest first. Several of them allow a rotation without downtime.
    pub keys: Vec<KeyPair>,
    /// A disabled app refuses connections (4003) and API calls (403).
    pub enabled: bool,
    /// Clients may send `client-` events.
    pub client_events: bool,
    /// Subscribers are told how many they are.
    pub subscription_counts: bool,
    /// Signed-in users may watch others come and go.
    pub watchlist: bool,
    /// Refuse plain connections (4000).
    pub tls_only: bool,
    /// Seconds in which a connection must sign in or subscribe with authorization; 0 is for ever.
    pub authorized_timeout_s: u64,
    /// Values of the `Origin` header that may connect. Empty allows all, also those without one.
    pub allowed_origins: Vec<String>,
    /// Seconds a cache channel keeps its last event.
    pub cache_ttl_s: u64,
    /// Most connections at a time; 0 is no limit.
    pub connections_max: usize,
    /// Longest channel name, in bytes.
    pub channel_name_max: usize,
    /// Longest event name, in characters.
    pub event_name_max: usize,
    /// Longest event data, in bytes of UTF-8.
    pub event_data_bytes_max: usize,
    /// Most distinct users in a presence channel.
    pub presence_members_max: usize,
    /// Longest `user_info` of a presence member, in bytes of JSON.
    pub presence_user_info_bytes_max: usize,
    /// Most events in one batch.
    pub batch_events_max: usize,
    /// Most channels of one publish.
    pub publish_channels_max: usize,
    /// Client events a connection may send per second, and at once.
    pub client_events_per_s: u32,
    /// Most users on one watchlist.
    pub watchlist_users_max: usize,
    /// API calls of all backends per second; 0 is no limit.
    pub requests_per_s: u32,
    /// Events that backends publish per second, counted for each channel; 0 is no limit.
    pub publishes_per_s: u32,
    /// Client events of all connections per second; 0 is no limit.
    pub all_client_events_per_s: u32,
    /// Most subscriptions of one connection; 0 is no limit.
    pub subscriptions_max: usize,
    /// Most channels with subscribers; 0 is no limit.
    pub channels_max: usize,
    /// Webhooks of one receiver that come shortly after each other travel together.
    pub webhook_batching: bool,
    /// Who is told what happens on channels.
    pub webhooks: Vec<Webhook>,
}

/// A receiver of webhooks: an endpoint of the app's backend, and what it wants to know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Webhook {
    /// Where to post, `http` or `https`.
    pub url: String,
    /// What it is told of; empty is everything.
    pub events: Vec<WebhookEvent>,
    /// Beginnings of the names of the channels it is told of; empty is all.
    pub channel_prefixes: Vec<String>,
    /// Headers to send along: names and values.
    pub headers: Vec<(String, String)>,
}

/// What a webhook can tell (Pusher docs, "Webhooks").
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs, reason = "each is its name in the protocol")]
pub enum WebhookEvent {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded,
    MemberRemoved,
    ClientEvent,
    CacheMiss,
    SubscriptionCount,
}

impl WebhookEvent {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    /// The name in the webhook's body and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }

    /// The event of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

impl Webhook {
    /// Whether this receiver is told of such an event on such a channel.
    pub fn wants(&self, event: WebhookEvent, channel: &str) -> bool {
        (self.events.is_empty() || self.events.contains(&event))
            && (self.channel_prefixes.is_empty()
                || self.channel_prefixes.iter().any(|prefix| channel.starts_with(&**prefix)))
    }
}

/// A key, which is public, and its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyPair {
    /// Names the app in `/app/{key}` and in tokens.
    pub key: String,
    /// Signs.
    pub secret: Secret,
}

impl Default for App {
    fn default() -> Self {
        Self {
            id: AppId::from(""),
            keys: Vec::new(),
            enabled: true,
            client_events: false,
            subscription_counts: false,
            watchlist: true,
            tls_only: false,
            authorized_timeout_s: 0,
            allowed_origins: Vec::new(),
            cache_ttl_s: 30 * 60,
            connections_max: 0,
            channel_name_max: 164,
            event_name_max: 200,
            event_data_bytes_max: 10 * 1024,
            presence_members_max: 100,
            presence_user_info_bytes_max: 1024,
            batch_events_max: 10,
            publish_channels_max: 100,
            client_events_per_s: 10,
            watchlist_users_max: 100,
            requests_per_s: 0,
            publishes_per_s: 0,
            all_client_events_per_s: 0,
            subscriptions_max: 0,
            channels_max: 0,
            webhook_batching: false,
            webhooks: Vec::new(),
        }
    }
}

impl App {
    /// The secret that belongs to `key`, if the key is this app's.
    pub fn secret(&self, key: &str) -> Option<&Secret> {
        self.keys.iter().find(|pair| pair.key == key).map(|pair| &pair.secret)
    }

    /// How long a cache channel keeps its last event.
    pub fn cache_ttl(&self) -> Duration {
        Duration::from_secs(self.cache_ttl_s)
    }

    /// In what time a connection must be authorized, if it must.
    pub fn authorized_timeout(&self) -> Option<Duration> {
        (self.authorized_timeout_s > 0).then(|| Duration::from_secs(self.authorized_timeout_s))
    }

    /// Whether some receiver of webhooks is told of such an event on such a channel.
    pub fn tells(&self, event: WebhookEvent, channel: &str) -> bool {
        self.webhooks.iter().any(|webhook| webhook.wants(event, channel))
    }

    /// Whether a page of this origin may connect.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        self.allowed_origins.is_empty()
            || origin.is_some_and(|origin| self.allowed_origins.iter().any(|allowed| allowed == origin))
    }
}

/// All apps, found by id and by key.
#[derive(Debug, Default)]
pub struct Apps {
    by_id: HashMap<AppId, Arc<App>>,
    by_key: HashMap<String, Arc<App>>,
}

/// Two apps that cannot be told apart, or one that nobody can use.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AppsError {
    /// An app has no id.
    #[error("an app has no id: give it one, best a number")]
    NoId,
    /// An id has a control character, which would break names that are made of it.
    #[error("the app id {0:?} has a control character: use letters and digits, best a number")]
    ControlInId(AppId),
    /// An app has no key.
    #[error("app {0} has no keys: give it one, as in keys = [{{ key = \"…\", secret = \"…\" }}]")]
    NoKey(AppId),
    /// Two apps share an id.
    #[error("two apps have the id {0}: ids must differ")]
    SameId(AppId),
    /// A key belongs to two pairs.
    #[error("the key {0} is used twice: every key belongs to one app")]
    SameKey(String),
}

impl Apps {
    /// # Errors
    /// When ids or keys are missing or used twice.
    pub fn new(apps: impl IntoIterator<Item = App>) -> Result<Self, AppsError> {
        let mut all = Self::default();
        for app in apps.into_iter().map(Arc::new) {
            if app.id.is_empty() {
                return Err(AppsError::NoId);
            }
            if app.id.chars().any(char::is_control) {
                return Err(AppsError::ControlInId(app.id.clone()));
            }
            if app.keys.is_empty() {
                return Err(AppsError::NoKey(app.id.clone()));
            }
            // First: an app that is there twice has its keys twice, too.
            if let Some(twin) = all.by_id.insert(app.id.clone(), app.clone()) {
                return Err(AppsError::SameId(twin.id.clone()));
            }
            for pair in &app.keys {
                if all.by_key.insert(pair.key.clone(), app.clone()).is_some() {
                    return Err(AppsError::SameKey(pair.key.clone()));
                }
            }
        }
        Ok(all)
    }

    /// The same apps; those that are as they were before are shared with `before`, so that what has changed can be
    /// told by the address.
    #[must_use]
    pub fn sharing(mut self, before: &Self) -> Self {
        let share = |app: &mut Arc<App>| {
            if let Some(same) = before.by_id(&app.id).filter(|same| same == &app) {
                *app = same.clone();
            }
        };
        self.by_id.values_mut().for_each(share);
        for app in self.by_key.values_mut() {
            if let Some(shared) = self.by_id.get(&app.id) {
                *app = shared.clone();
            }
        }
        self
    }

    /// The app of `/apps/{id}`.
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id)
    }

    /// The app of `/app/{key}`.
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key)
    }

    /// Every app, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_id.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(id: &str, keys: &[&str]) -> App {
        let pair = |key: &&str| KeyPair { key: (*key).to_owned(), secret: Secret::new("s") };
        App { id: id.into(), keys: keys.iter().map(pair).collect(), ..App::default() }
    }

    #[test]
    fn an_app_is_found_by_each_of_its_keys() {
        let apps = Apps::new([app("1", &["a", "b"]), app("2", &["c"])]).expect("fine");
        assert_eq!(apps.by_key("b").map(|app| &*app.id), Some("1"));
        assert_eq!(apps.by_id("2").map(|app| &*app.keys[0].key), Some("c"));
        assert!(apps.by_key("1").is_none());
    }

    #[test]
    fn apps_that_cannot_be_told_apart_are_refused() {
        let error = |apps: Vec<App>| Apps::new(apps).expect_err("refused");
        assert_eq!(error(vec![app("1", &["a"]), app("1", &["b"])]), AppsError::SameId("1".into()));
        assert_eq!(error(vec![app("1", &["a"]), app("2", &["a"])]), AppsError::SameKey("a".into()));
        assert_eq!(error(vec![app("1", &[])]), AppsError::NoKey("1".into()));
        assert_eq!(error(vec![app("", &["a"])]), AppsError::NoId);
        assert_eq!(error(vec![app("1\0", &["a"])]), AppsError::ControlInId("1\0".into()));
    }

    #[test]
    fn an_origin_list_allows_only_its_own() {
        let open = App::default();
        assert!(open.allows_origin(None) && open.allows_origin(Some("https://a.example")));
        let closed = App { allowed_origins: vec!["https://a.example".into()], ..App::default() };
        assert!(closed.allows_origin(Some("https://a.example")));
        assert!(!closed.allows_origin(Some("https://b.example")) && !closed.allows_origin(None));
    }
}
