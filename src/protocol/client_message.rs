//! What a client may write, read once into types.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::errors::ClientError;
use crate::protocol::json;

/// One message of a client, with its shape checked and its meaning still to be judged.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// `pusher:ping`, whatever its data.
    Ping,
    /// `pusher:pong`: a sign of life.
    Pong,
    /// `pusher:subscribe`.
    Subscribe(Subscribe<'a>),
    /// `pusher:unsubscribe` of this channel.
    Unsubscribe(Cow<'a, str>),
    /// `pusher:signin`.
    SignIn(SignIn<'a>),
    /// An event whose name begins with `client-`. Fields are as they came, or missing.
    ClientEvent {
        /// The name, decoded.
        name: Cow<'a, str>,
        /// The name as a JSON string literal.
        name_literal: &'a str,
        /// The channel, if it is a string.
        channel: Option<Cow<'a, str>>,
        /// Any JSON. `null` is a value.
        data: Option<&'a RawValue>,
    },
}

/// The data of `pusher:subscribe`.
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// The name, not yet checked.
    pub channel: Cow<'a, str>,
    /// The token; none when missing or empty, as pusher-js sends it for public channels.
    pub auth: Option<Cow<'a, str>>,
    /// Part of what is signed whenever the key is there, even empty. The error is for anything but a string.
    pub channel_data: Result<Option<Cow<'a, str>>, ClientError>,
}

/// The data of `pusher:signin`.
#[derive(Debug)]
pub struct SignIn<'a> {
    /// The token.
    pub auth: Cow<'a, str>,
    /// What is signed, verbatim.
    pub user_data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    // Not an `Option` of `RawValue`: that would read `null` as missing.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_data: Option<&'a RawValue>,
}

impl<'a> ClientMessage<'a> {
    /// Reads one text frame.
    ///
    /// # Errors
    /// What to tell the client when it is not an object with a known event and the fields that event needs.
    pub fn parse(text: &'a str) -> Result<Self, ClientError> {
        // serde would take an array as a struct.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(ClientError::InvalidJson);
        }
        let envelope: Envelope<'a> = serde_json::from_str(text).map_err(|_| ClientError::InvalidJson)?;
        let event_raw = envelope.event.ok_or(ClientError::MissingEvent)?;
        let event = json::string(event_raw).ok_or(ClientError::MissingEvent)?;
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => Self::subscribe(&data_text(envelope.data)),
            "pusher:unsubscribe" => {
                let text = data_text(envelope.data);
                let channel =
                    fields(&text).channel.and_then(json::string).ok_or(ClientError::MissingChannel)?;
                Ok(Self::Unsubscribe(Cow::Owned(channel.into_owned())))
            }
            "pusher:signin" => Self::sign_in(&data_text(envelope.data)),
            name if name.starts_with("client-") => Ok(Self::ClientEvent {
                name_literal: event_raw.get(),
                channel: envelope.channel.and_then(json::string),
                data: envelope.data,
                name: event,
            }),
            _ => Err(ClientError::UnsupportedEvent(event.into_owned())),
        }
    }

    fn subscribe(data: &str) -> Result<Self, ClientError> {
        let fields = fields(data);
        let channel = fields.channel.and_then(json::string).ok_or(ClientError::MissingChannel)?;
        let auth = fields.auth.and_then(json::string).filter(|auth| !auth.is_empty());
        let channel_data = match fields.channel_data {
            Some(raw) => {
                json::string(raw).map(|text| Some(owned(text))).ok_or(ClientError::InvalidChannelData)
            }
            None => Ok(None),
        };
        Ok(Self::Subscribe(Subscribe { channel: owned(channel), auth: auth.map(owned), channel_data }))
    }

    fn sign_in(data: &str) -> Result<Self, ClientError> {
        let fields = fields(data);
        let auth = fields.auth.and_then(json::string).filter(|auth| !auth.is_empty());
        let auth = auth.ok_or(ClientError::MissingAuth)?;
        let user_data = fields.user_data.and_then(json::string).ok_or(ClientError::MissingUserData)?;
        Ok(Self::SignIn(SignIn { auth: owned(auth), user_data: owned(user_data) }))
    }
}

fn owned<'b>(text: Cow<'_, str>) -> Cow<'b, str> {
    Cow::Owned(text.into_owned())
}

/// The JSON of `data`, which may stand inside a string.
fn data_text(data: Option<&RawValue>) -> Cow<'_, str> {
    match data {
        Some(raw) => json::string(raw).unwrap_or(Cow::Borrowed(raw.get())),
        None => Cow::Borrowed(""),
    }
}

/// The fields of `data`; all missing when it is not an object.
fn fields(data: &str) -> Fields<'_> {
    if data.trim_ascii_start().starts_with('{') {
        serde_json::from_str(data).unwrap_or_default()
    } else {
        Fields::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, error: ClientError) {
        assert_eq!(ClientMessage::parse(text).err(), Some(error), "{text}");
    }

    #[test]
    fn p15_malformed_messages_are_told_what_is_wrong() {
        for text in
            ["", "x", "[]", "1", "\"a\"", "null", r#"["pusher:ping"]"#, "{", r#"{"event":"a","event":"b"}"#]
        {
            check_error(text, ClientError::InvalidJson);
        }
        for text in ["{}", r#"{"event":null}"#, r#"{"event":1}"#, r#"{"data":{}}"#] {
            check_error(text, ClientError::MissingEvent);
        }
        for event in ["x", "pusher:connection_established", "pusher_internal:member_added", "Client-x", ""] {
            check_error(&format!(r#"{{"event":"{event}"}}"#), ClientError::UnsupportedEvent(event.into()));
        }
        for event in ["pusher:subscribe", "pusher:unsubscribe"] {
            for data in [
                r#"{"event":"E"}"#,
                r#"{"event":"E","data":{}}"#,
                r#"{"event":"E","data":{"channel":1}}"#,
                r#"{"event":"E","data":{"channel":null}}"#,
                r#"{"event":"E","data":"nonsense"}"#,
                r#"{"event":"E","data":["a"]}"#,
            ] {
                check_error(&data.replace('E', event), ClientError::MissingChannel);
            }
        }
    }

    #[test]
    fn p7_ping_takes_any_data() {
        for data in ["", r#","data":{}"#, r#","data":"""#, r#","data":null"#] {
            let text = format!(r#"{{"event":"pusher:ping"{data}}}"#);
            assert!(matches!(ClientMessage::parse(&text), Ok(ClientMessage::Ping)), "{text}");
        }
    }

    #[test]
    fn p22_an_empty_auth_is_none() {
        for data in [r#"{"channel":"a","auth":""}"#, r#"{"channel":"a"}"#, r#""{\"channel\":\"a\"}""#] {
            let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(&text) else {
                panic!("{text}")
            };
            assert_eq!((&*subscribe.channel, subscribe.auth, subscribe.channel_data), ("a", None, Ok(None)));
        }
    }

    #[test]
    fn p42_channel_data_is_kept_as_received() {
        let text =
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":"{\"a\": \"\\u00eb\"}"}}"#;
        let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(text) else {
            panic!("a subscribe")
        };
        assert_eq!(subscribe.channel_data, Ok(Some(r#"{"a": "\u00eb"}"#.into())));
        let text = r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":{"user_id":"1"}}}"#;
        let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(text) else {
            panic!("a subscribe")
        };
        assert_eq!(subscribe.channel_data, Err(ClientError::InvalidChannelData));
    }

    #[test]
    fn p65_null_is_a_value_of_a_client_event() {
        let text = r#"{"event":"client-x","channel":"private-a","data":null}"#;
        let Ok(ClientMessage::ClientEvent { data, .. }) = ClientMessage::parse(text) else {
            panic!("an event")
        };
        assert_eq!(data.map(RawValue::get), Some("null"));
        let text = r#"{"event":"client-x","channel":7}"#;
        let Ok(ClientMessage::ClientEvent { data, channel, .. }) = ClientMessage::parse(text) else {
            panic!("an event")
        };
        assert!(data.is_none() && channel.is_none());
    }

    #[test]
    fn p51_sign_in_needs_both_fields() {
        check_error(r#"{"event":"pusher:signin","data":{"user_data":"{}"}}"#, ClientError::MissingAuth);
        check_error(r#"{"event":"pusher:signin","data":{"auth":"a:b"}}"#, ClientError::MissingUserData);
        check_error(
            r#"{"event":"pusher:signin","data":{"auth":"a:b","user_data":{}}}"#,
            ClientError::MissingUserData,
        );
    }
}
