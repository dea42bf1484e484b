//! The `info` parameter: what a caller wants to know of channels.

use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::hub::Census;
use crate::protocol::ChannelName;

/// Something that can be asked of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Attribute {
    /// Distinct users, of a presence channel.
    UserCount,
    /// Connections.
    SubscriptionCount,
    /// The last event of a cache channel.
    Cache,
}

impl Attribute {
    pub(super) const OF_PUBLISH: &[Self] = &[Self::UserCount, Self::SubscriptionCount];
    pub(super) const OF_CHANNELS: &[Self] = &[Self::UserCount, Self::SubscriptionCount];
    pub(super) const OF_CHANNEL: &[Self] = &[Self::UserCount, Self::SubscriptionCount, Self::Cache];

    const fn name(self) -> &'static str {
        match self {
            Self::UserCount => "user_count",
            Self::SubscriptionCount => "subscription_count",
            Self::Cache => "cache",
        }
    }
}

/// The attributes that were asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Info(Vec<Attribute>);

impl Info {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// When it names something that is not `allowed` here.
    pub(super) fn parse(text: &str, allowed: &[Attribute]) -> Result<Self, ApiError> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let attribute =
            |name| allowed.iter().copied().find(|known| known.name() == name).ok_or(ApiError::InvalidInfo);
        names.map(attribute).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn wants(&self, attribute: Attribute) -> bool {
        self.0.contains(&attribute)
    }

    /// What was asked of a channel that was published to; what does not apply is left out.
    pub(super) fn of_publish(&self, channel: &ChannelName, census: &Census) -> Value {
        let mut info = Map::new();
        let user = channel.kind().is_user();
        if self.wants(Attribute::UserCount) && channel.kind().is_presence() {
            info.insert("user_count".into(), json!(census.users));
        }
        // Who is signed in is nobody's count.
        if self.wants(Attribute::SubscriptionCount) && !user {
            info.insert("subscription_count".into(), json!(census.subscriptions));
        }
        Value::Object(info)
    }
}
