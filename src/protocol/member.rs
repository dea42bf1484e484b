//! People: members of presence channels and signed-in users, as their apps describe them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::errors::ClientError;
use crate::protocol::json;

/// Longest user id of a presence member, in characters (Pusher docs, "Presence channels").
const USER_ID_MAX: usize = 128;

/// One user of a presence channel, however many connections it has there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// The id. An integer in `channel_data` is its decimal text here: `10` and `"10"` are one user.
    pub user_id: Box<str>,
    /// What the app tells about the user: the text of a JSON object, `{}` when nothing was given.
    pub user_info: Box<str>,
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

impl Member {
    /// Reads the `channel_data` of a subscription, whose signature was checked before.
    ///
    /// # Errors
    /// What to tell the client when it is not an object, or id or info break a rule. `user_info_max` is
    /// in bytes of JSON text.
    pub fn from_channel_data(text: &str, user_info_max: usize) -> Result<Self, ClientError> {
        if !text.trim_ascii_start().starts_with('{') {
            return Err(ClientError::InvalidChannelData);
        }
        let data: ChannelData<'_> =
            serde_json::from_str(text).map_err(|_| ClientError::InvalidChannelData)?;
        let user_id = data.user_id.and_then(user_id).ok_or(ClientError::MissingUserId)?;
        if user_id.chars().count() > USER_ID_MAX {
            return Err(ClientError::UserIdTooLong { max: USER_ID_MAX });
        }
        let user_info = match data.user_info {
            Some(raw) => json::object(raw).ok_or(ClientError::InvalidUserInfo)?,
            None => "{}",
        };
        if user_info.len() > user_info_max {
            return Err(ClientError::UserInfoTooLong { max: user_info_max });
        }
        Ok(Self { user_id: user_id.into(), user_info: user_info.into() })
    }
}

/// A non-empty string, or the digits of an integer literal.
fn user_id(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Cow::Borrowed(text));
    }
    json::string(raw).filter(|id| !id.is_empty())
}

/// Everybody in a presence channel, with the number of connections each has.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    members: HashMap<Arc<str>, Seat>,
}

#[derive(Clone, Debug)]
struct Seat {
    member: Arc<Member>,
    connections: u32,
}

impl Roster {
    /// How many distinct users there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the user is there.
    pub fn contains(&self, user_id: &str) -> bool {
        self.members.contains_key(user_id)
    }

    /// The users, in no order. What is told of a user is what its first connection brought.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|seat| &*seat.member)
    }

    /// The same, to be shared.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values().map(|seat| &seat.member)
    }

    /// What is told of a user.
    pub fn get(&self, user_id: &str) -> Option<&Arc<Member>> {
        self.members.get(user_id).map(|seat| &seat.member)
    }

    /// How many connections a user has.
    pub fn connections(&self, user_id: &str) -> u32 {
        self.members.get(user_id).map_or(0, |seat| seat.connections)
    }

    /// Counts one more connection of a user. True if it is the first.
    pub fn join(&mut self, member: &Arc<Member>) -> bool {
        if let Some(seat) = self.members.get_mut(&*member.user_id) {
            seat.connections += 1;
            return false;
        }
        let seat = Seat { member: member.clone(), connections: 1 };
        self.members.insert((*member.user_id).into(), seat);
        true
    }

    /// Counts one connection of a user less. True if it was the last.
    pub fn leave(&mut self, user_id: &str) -> bool {
        let Some(seat) = self.members.get_mut(user_id) else { return false };
        seat.connections -= 1;
        if seat.connections > 0 {
            return false;
        }
        self.members.remove(user_id);
        true
    }
}

/// Who a connection signs in as (Pusher docs, "Authenticating users").
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserData {
    /// The user's id, of the characters of channel names.
    pub id: String,
    /// The text of a JSON object; `{}` when none was given.
    pub user_info: String,
    /// Ids of users to watch, each once, in the order given.
    pub watchlist: Vec<String>,
}

#[derive(Deserialize)]
struct RawUserData<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow)]
    watchlist: Option<&'a RawValue>,
}

impl UserData {
    /// Reads `user_data`.
    ///
    /// # Errors
    /// What to tell the client when it is not an object, has no usable id, or a field has the wrong type.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        const NOT_AN_OBJECT: ClientError = ClientError::InvalidUserData("not a JSON object");
        if !text.trim_ascii_start().starts_with('{') {
            return Err(NOT_AN_OBJECT);
        }
        let data: RawUserData<'_> = serde_json::from_str(text).map_err(|_| NOT_AN_OBJECT)?;
        let id = data
            .id
            .and_then(json::string)
            .filter(|id| !id.is_empty())
            .ok_or(ClientError::InvalidUserData("id must be a non-empty string"))?;
        let user_info = match data.user_info {
            Some(raw) => {
                json::object(raw).ok_or(ClientError::InvalidUserData("user_info must be an object"))?
            }
            None => "{}",
        };
        let mut watchlist: Vec<String> = match data.watchlist {
            Some(raw) => serde_json::from_str(raw.get())
                .map_err(|_| ClientError::InvalidUserData("watchlist must be an array of strings"))?,
            None => Vec::new(),
        };
        let mut seen = std::collections::HashSet::new();
        watchlist.retain(|id| seen.insert(id.clone()));
        Ok(Self { id: id.into_owned(), user_info: user_info.to_owned(), watchlist })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str) -> Result<(String, String), ClientError> {
        Member::from_channel_data(text, 1024).map(|member| (member.user_id.into(), member.user_info.into()))
    }

    #[test]
    fn p33_integer_ids_become_their_digits() {
        for (text, id) in [
            (r#"{"user_id":10}"#, "10"),
            (r#"{"user_id":"10"}"#, "10"),
            (r#"{"user_id":90071992547409931234}"#, "90071992547409931234"),
            (r#" {"user_id":"Zo\u00eb"}"#, "Zoë"),
        ] {
            assert_eq!(member(text), Ok((id.into(), "{}".into())), "{text}");
        }
    }

    #[test]
    fn p33_other_ids_are_refused() {
        for id in ["1.5", "1e3", "true", "null", "{}", "[]", r#""""#] {
            assert_eq!(member(&format!(r#"{{"user_id":{id}}}"#)), Err(ClientError::MissingUserId), "{id}");
        }
        assert_eq!(member("{}"), Err(ClientError::MissingUserId));
        for text in ["", "[]", "null", "{", r#"["a","b"]"#, "12"] {
            assert_eq!(member(text), Err(ClientError::InvalidChannelData), "{text}");
        }
    }

    #[test]
    fn p35_long_ids_and_infos_and_wrong_types_are_refused() {
        let id = |n| format!(r#"{{"user_id":"{}"}}"#, "ë".repeat(n));
        assert!(member(&id(128)).is_ok());
        assert_eq!(member(&id(129)), Err(ClientError::UserIdTooLong { max: 128 }));
        let info = |n| format!(r#"{{"user_id":"a","user_info":{{"b":"{}"}}}}"#, "c".repeat(n));
        assert!(member(&info(1024 - 8)).is_ok());
        assert_eq!(member(&info(1024 - 7)), Err(ClientError::UserInfoTooLong { max: 1024 }));
        for wrong in ["[]", "1", r#""x""#, "true"] {
            let text = format!(r#"{{"user_id":"a","user_info":{wrong}}}"#);
            assert_eq!(member(&text), Err(ClientError::InvalidUserInfo), "{wrong}");
        }
    }

    #[test]
    fn p32_a_user_comes_once_and_goes_once() {
        let mut roster = Roster::default();
        let ann = Arc::new(Member { user_id: "ann".into(), user_info: r#"{"tab":1}"#.into() });
        let tab = Arc::new(Member { user_id: "ann".into(), user_info: r#"{"tab":2}"#.into() });
        assert!(roster.join(&ann));
        assert!(!roster.join(&tab));
        assert_eq!(roster.members().map(|member| &*member.user_info).collect::<Vec<_>>(), [r#"{"tab":1}"#]);
        assert!(!roster.leave("ann"));
        assert!(roster.leave("ann"));
        assert!(!roster.leave("ann"));
        assert!(roster.is_empty());
    }

    #[test]
    fn p51_user_data_needs_a_string_id() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"id":12}"#,
            r#"{"id":""}"#,
            r#"{"id":null}"#,
            r#"{"id":"a","watchlist":[1]}"#,
        ] {
            assert!(matches!(UserData::parse(text), Err(ClientError::InvalidUserData(_))), "{text}");
        }
        let user = UserData::parse(r#"{"id":"a","watchlist":["b","c","b"],"more":1}"#).expect("valid");
        assert_eq!(user.watchlist, ["b", "c"]);
    }
}
