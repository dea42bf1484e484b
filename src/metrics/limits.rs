//! What was refused because there was enough of it.

use prometheus::IntCounterVec;

use crate::metrics::registry::Registry;
use crate::protocol::ClientError;

/// Refusals by the limits of apps.
#[derive(Debug)]
pub struct Limits(IntCounterVec);

/// A limit of an app, by the name of its setting. Those of connections are counted with the refused connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "each is the setting of its name")]
pub enum Limit {
    RequestsPerS,
    PublishesPerS,
    AllClientEventsPerS,
    ClientEventsPerS,
    SubscriptionsMax,
    ChannelsMax,
    PresenceMembersMax,
    WatchlistUsersMax,
}

impl Limit {
    const ALL: [Self; 8] = [
        Self::RequestsPerS,
        Self::PublishesPerS,
        Self::AllClientEventsPerS,
        Self::ClientEventsPerS,
        Self::SubscriptionsMax,
        Self::ChannelsMax,
        Self::PresenceMembersMax,
        Self::WatchlistUsersMax,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerS => "requests_per_s",
            Self::PublishesPerS => "publishes_per_s",
            Self::AllClientEventsPerS => "all_client_events_per_s",
            Self::ClientEventsPerS => "client_events_per_s",
            Self::SubscriptionsMax => "subscriptions_max",
            Self::ChannelsMax => "channels_max",
            Self::PresenceMembersMax => "presence_members_max",
            Self::WatchlistUsersMax => "watchlist_users_max",
        }
    }

    /// The limit that a client's message was over; none if that was not what was wrong with it.
    pub const fn of(error: &ClientError) -> Option<Self> {
        Some(match error {
            ClientError::AllClientEventsRate { .. } => Self::AllClientEventsPerS,
            ClientError::ClientEventRate { .. } => Self::ClientEventsPerS,
            ClientError::TooManySubscriptions { .. } => Self::SubscriptionsMax,
            ClientError::TooManyChannels { .. } => Self::ChannelsMax,
            ClientError::PresenceFull { .. } => Self::PresenceMembersMax,
            ClientError::WatchlistTooLong { .. } => Self::WatchlistUsersMax,
            _ => return None,
        })
    }
}

impl Limits {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let refused = registry.counters(
            "fanfare_limit_refusals_total",
            &["limit"],
            "API calls and messages of clients refused because an app had reached a limit, by its setting.",
        );
        for limit in Limit::ALL {
            refused.with_label_values(&[limit.as_str()]);
        }
        Self(refused)
    }

    /// Something was over a limit.
    pub fn reached(&self, limit: Limit) {
        self.0.with_label_values(&[limit.as_str()]).inc();
    }
}
