//! Channel names and the kinds they stand for.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use thiserror::Error;

/// A channel name that obeys the naming rules, with its kind read once.
///
/// 1 to 164 bytes (by default) of `A-Z a-z 0-9 _ - = @ , . ;` (Pusher docs, "Channel naming
/// conventions"), or `#server-to-user-` and a user id. So a name never needs escaping in JSON.
#[derive(Clone, Debug)]
pub struct ChannelName {
    name: Arc<str>,
    kind: ChannelKind,
}

/// What the prefix of a name says about the channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelKind {
    /// Anybody may subscribe.
    Public {
        /// Keeps its last event for new subscribers.
        cached: bool,
    },
    /// Subscribing needs a signature. Encrypted channels are private ones whose payload we cannot read.
    Private {
        /// Keeps its last event for new subscribers.
        cached: bool,
    },
    /// Private, and its members know of each other.
    Presence {
        /// Keeps its last event for new subscribers.
        cached: bool,
    },
    /// The connections of one signed-in user.
    ServerToUser,
}

/// A name outside the rules of [`ChannelName`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a channel name")]
pub struct InvalidChannelName;

const USER_PREFIX: &str = "#server-to-user-";

/// Longest user id of sign-in and presence, in characters (Pusher docs, "Presence channels").
const USER_ID_MAX: usize = 128;

impl ChannelName {
    /// Reads a name as clients and publishers send it. `max` is the app's length limit in bytes.
    ///
    /// # Errors
    /// When the name is empty, too long or has a character outside the rules.
    pub fn parse(name: &str, max: usize) -> Result<Self, InvalidChannelName> {
        if let Some(user_id) = name.strip_prefix(USER_PREFIX) {
            return if is_user_id(user_id) { Ok(Self::of_user(user_id)) } else { Err(InvalidChannelName) };
        }
        if name.is_empty() || name.len() > max || !name.bytes().all(is_name_byte) {
            return Err(InvalidChannelName);
        }
        Ok(Self { name: name.into(), kind: ChannelKind::of(name) })
    }

    /// The channel that reaches every connection signed in as `user_id`, which [`is_user_id`] accepts.
    pub fn of_user(user_id: &str) -> Self {
        Self { name: format!("{USER_PREFIX}{user_id}").into(), kind: ChannelKind::ServerToUser }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// What the prefix says.
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// The user behind a `#server-to-user-` channel.
    pub fn user_id(&self) -> Option<&str> {
        self.name.strip_prefix(USER_PREFIX)
    }
}

impl ChannelKind {
    fn of(name: &str) -> Self {
        // The dash counts: `privateer` is a public channel. So does the order: longest prefix first.
        let starts = |prefix: &str| name.starts_with(prefix);
        match name {
            _ if starts("private-encrypted-cache-") => Self::Private { cached: true },
            _ if starts("private-encrypted-") => Self::Private { cached: false },
            _ if starts("private-cache-") => Self::Private { cached: true },
            _ if starts("private-") => Self::Private { cached: false },
            _ if starts("presence-cache-") => Self::Presence { cached: true },
            _ if starts("presence-") => Self::Presence { cached: false },
            _ if starts("cache-") => Self::Public { cached: true },
            _ => Self::Public { cached: false },
        }
    }

    /// Subscribing needs a signature of the app's secret. Client events are allowed on the same kinds.
    pub fn is_authorized(self) -> bool {
        matches!(self, Self::Private { .. } | Self::Presence { .. })
    }

    /// Members know of each other.
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence { .. })
    }

    /// The last event is kept for new subscribers.
    pub fn is_cached(self) -> bool {
        matches!(
            self,
            Self::Public { cached: true } | Self::Private { cached: true } | Self::Presence { cached: true }
        )
    }

    /// Subscribers may be told how many they are, and it shows in lists, counts and webhooks.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::Public { .. } | Self::Private { .. })
    }

    /// Belongs to one user: never listed, counted or told to webhooks.
    pub fn is_user(self) -> bool {
        self == Self::ServerToUser
    }
}

/// Whether `id` may name a user: 1 to 128 of the characters of channel names.
pub fn is_user_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= USER_ID_MAX && id.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte)
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

// The kind follows from the name, so the name alone is compared, and a map can be asked with a `&str`.
impl PartialEq for ChannelName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.name, &other.name) || self.name == other.name
    }
}

impl Eq for ChannelName {}

impl Hash for ChannelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_kind(name: &str, kind: ChannelKind) {
        assert_eq!(ChannelName::parse(name, 164).expect(name).kind(), kind, "{name}");
    }

    #[test]
    fn p20_the_prefix_decides_the_kind() {
        check_kind("orders", ChannelKind::Public { cached: false });
        check_kind("cache-orders", ChannelKind::Public { cached: true });
        check_kind("private-", ChannelKind::Private { cached: false });
        check_kind("private-cache-a", ChannelKind::Private { cached: true });
        check_kind("private-encrypted-a", ChannelKind::Private { cached: false });
        check_kind("private-encrypted-cache-a", ChannelKind::Private { cached: true });
        check_kind("presence-a", ChannelKind::Presence { cached: false });
        check_kind("presence-cache-a", ChannelKind::Presence { cached: true });
        check_kind("#server-to-user-12", ChannelKind::ServerToUser);
    }

    #[test]
    fn p20_prefix_without_dash_or_in_capitals_is_public() {
        for name in
            ["privateer", "private", "presence", "cache", "privatefoo", "Private-a", "my-private-orders"]
        {
            check_kind(name, ChannelKind::Public { cached: false });
        }
    }

    #[test]
    fn p21_names_outside_the_rules_are_refused() {
        let long = "a".repeat(165);
        for name in
            ["", "a b", "a#b", "a:b", "a/b", "ä", "#other", "#server-to-user-", "#server-to-user-a b", &long]
        {
            assert_eq!(ChannelName::parse(name, 164).err(), Some(InvalidChannelName), "{name:?}");
        }
        assert!(ChannelName::parse(&"a".repeat(164), 164).is_ok());
        assert!(ChannelName::parse("aZ09_-=@,.;", 164).is_ok());
    }

    proptest! {
        #[test]
        fn p21_an_accepted_name_is_short_and_needs_no_escaping(name in "\\PC{0,200}|[ -~]{0,20}") {
            if let Ok(channel) = ChannelName::parse(&name, 164) {
                prop_assert!(name.len() <= 164 || channel.kind().is_user());
                prop_assert_eq!(serde_json::to_string(&name).expect("a string"), format!("\"{name}\""));
            }
        }
    }
}
