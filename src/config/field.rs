//! The types a setting can have: how each is read, checked and shown.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use crate::app::{AppId, KeyPair, Webhook, WebhookEvent};
use crate::config::Masked;
use crate::protocol::Secret;

/// A value on its way into a setting.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// From the file.
    Toml(&'a DeValue<'a>),
    /// From the environment or a flag.
    Text(&'a str),
}

/// What would have been right. Completes "expected …".
pub(super) type Expected = String;

/// A setting's place in the configuration.
pub(super) trait Field {
    /// Takes the value.
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected>;

    /// The value as TOML, without secrets.
    fn show(&self) -> String;

    /// What [`Field::show`] hides, if it does.
    fn hidden(&self) -> Option<&str> {
        None
    }

    /// The value, if it is a number.
    fn number(&self) -> Option<u64> {
        None
    }
}

impl Input<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }
}

pub(super) fn quoted(text: &str) -> String {
    // A JSON string is a TOML string too.
    serde_json::Value::from(text).to_string()
}

impl Field for bool {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let value = match input {
            Input::Toml(value) => value.as_bool(),
            Input::Text(text) => text.parse().ok(),
        };
        *self = value.ok_or("true or false")?;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
                let value = match input {
                    Input::Toml(value) => value
                        .as_integer()
                        .and_then(|number| Self::from_str_radix(number.as_str(), number.radix()).ok()),
                    Input::Text(text) => text.parse().ok(),
                };
                *self = value.ok_or_else(|| format!("a whole number from 0 to {}", Self::MAX))?;
                Ok(())
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )*};
}

whole_numbers!(u32, u64, usize);

impl Field for String {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        *self = input.text().ok_or("a text in quotes")?.to_owned();
        Ok(())
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Field for Masked {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        *self = Self::new(input.text().ok_or("a text in quotes")?);
        Ok(())
    }

    fn show(&self) -> String {
        quoted(if self.expose().is_empty() { "" } else { "********" })
    }

    fn hidden(&self) -> Option<&str> {
        Some(self.expose())
    }
}

impl Field for AppId {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let id = input.text().filter(|id| !id.is_empty() && !id.contains('/'));
        *self = id.ok_or("a text in quotes without a slash, best a number: \"1\"")?.into();
        Ok(())
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

const ADDRESS: &str = "an address and a port, as in \"127.0.0.1:6001\" or \"[::]:6001\"";

impl Field for SocketAddr {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        *self = input.text().and_then(|text| text.parse().ok()).ok_or(ADDRESS)?;
        Ok(())
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Field for Option<SocketAddr> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        *self = match input.text() {
            Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| format!("{ADDRESS}, or \"\" for none"))?),
            None => return Err(format!("{ADDRESS}, or \"\" for none")),
        };
        Ok(())
    }

    fn show(&self) -> String {
        quoted(&self.map(|address| address.to_string()).unwrap_or_default())
    }
}

/// The items of a list of texts: an array in the file, separated by commas elsewhere.
fn texts<T>(input: Input<'_>, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    match input {
        Input::Toml(value) => {
            value.as_array()?.iter().map(|item| item.get_ref().as_str().and_then(&read)).collect()
        }
        Input::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(read).collect()
        }
    }
}

fn show_all<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(|item| quoted(&show(item))).collect::<Vec<_>>().join(", "))
}

impl Field for Vec<String> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let items = texts(input, |item| Some(item.to_owned()));
        *self = items.ok_or("a list of texts, as in [\"https://a.example\"]")?;
        Ok(())
    }

    fn show(&self) -> String {
        show_all(self, Clone::clone)
    }
}

impl Field for Vec<IpNet> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let network = |item: &str| item.parse().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from));
        *self = texts(input, network).ok_or("a list of networks, as in [\"10.0.0.0/8\", \"fd00::/8\"]")?;
        Ok(())
    }

    fn show(&self) -> String {
        show_all(self, IpNet::to_string)
    }
}

impl Field for Vec<WebhookEvent> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let expected = || {
            let names: Vec<String> = WebhookEvent::ALL.map(|event| quoted(event.as_str())).into();
            format!("a list of some of {}", names.join(" "))
        };
        *self = texts(input, WebhookEvent::parse).ok_or_else(expected)?;
        Ok(())
    }

    fn show(&self) -> String {
        show_all(self, |event| event.as_str().to_owned())
    }
}

/// Headers of a webhook. Their values may be credentials, so they are not shown.
impl Field for Vec<(String, String)> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let headers: Option<Self> = match input {
            Input::Toml(value) => value.as_table().and_then(|table| {
                let header = |(name, value): (&str, &DeValue<'_>)| header(name, value.as_str()?);
                table.iter().map(|(name, value)| header((name.get_ref(), value.get_ref()))).collect()
            }),
            Input::Text(_) => None,
        };
        *self = headers.ok_or(
            "a table of headers other than Content-Type, Content-Length, Host and X-Pusher-…, as in { Authorization = \"Bearer …\" }",
        )?;
        Ok(())
    }

    fn show(&self) -> String {
        let header = |(name, _): &(String, String)| format!("{} = \"********\"", quoted(name));
        format!("{{ {} }}", self.iter().map(header).collect::<Vec<_>>().join(", "))
    }
}

/// A header that may be sent along with a webhook: one that takes no other's place.
pub(super) fn header(name: &str, value: &str) -> Option<(String, String)> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = name.to_ascii_lowercase();
    let ours = ["content-type", "content-length", "host", "connection", "transfer-encoding"];
    let free =
        !ours.contains(&&*lower) && !lower.starts_with("x-pusher-") && !lower.starts_with("x-fanfare-");
    let sound = !name.is_empty() && name.bytes().all(token) && !value.chars().any(char::is_control);
    (free && sound).then(|| (name.to_owned(), value.to_owned()))
}

/// Receivers of webhooks. The file describes each in a block of its own, see `load`; elsewhere their URLs do.
impl Field for Vec<Webhook> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let webhook =
            |url: &str| is_webhook_url(url).then(|| Webhook { url: url.to_owned(), ..Webhook::default() });
        *self =
            texts(input, webhook).ok_or("a block [[apps.webhooks]] for each receiver, or a list of URLs")?;
        Ok(())
    }

    fn show(&self) -> String {
        let webhook = |webhook: &Webhook| {
            format!(
                "{{ url = {}, events = {}, channel_prefixes = {}, headers = {} }}",
                quoted(&without_credentials(&webhook.url)),
                webhook.events.show(),
                webhook.channel_prefixes.show(),
                webhook.headers.show()
            )
        };
        format!("[{}]", self.iter().map(webhook).collect::<Vec<_>>().join(", "))
    }
}

/// Whether webhooks can be posted there.
pub(super) fn is_webhook_url(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A URL for the eyes of others: what stands before the host, and the query, may be a secret.
pub fn without_credentials(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "********".to_owned() };
    if url.password().is_some() || !url.username().is_empty() {
        let _ = url.set_username("********");
        let _ = url.set_password(None);
    }
    if url.query().is_some() {
        url.set_query(Some("********"));
    }
    url.set_fragment(None);
    url.into()
}

impl Field for Vec<KeyPair> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let pairs = match input {
            Input::Toml(value) => {
                value.as_array().and_then(|items| items.iter().map(|item| pair_of(item.get_ref())).collect())
            }
            Input::Text(text) => {
                text.split(',').map(|pair| pair.trim().split_once(':').and_then(pair_from)).collect()
            }
        };
        let pairs: Option<Self> = pairs;
        let expected = match input {
            Input::Toml(_) => "a list of pairs, as in [{ key = \"…\", secret = \"…\" }]",
            Input::Text(_) => "pairs of key and secret, as in key:secret,key2:secret2",
        };
        *self = pairs.filter(|pairs| !pairs.is_empty()).ok_or(expected)?;
        Ok(())
    }

    fn show(&self) -> String {
        let pair = |pair: &KeyPair| format!("{{ key = {}, secret = \"********\" }}", quoted(&pair.key));
        format!("[{}]", self.iter().map(pair).collect::<Vec<_>>().join(", "))
    }
}

fn pair_of(value: &DeValue<'_>) -> Option<KeyPair> {
    let table = value.as_table()?;
    let text = |name| table.get(name).and_then(|value| value.get_ref().as_str());
    (table.len() == 2).then_some(())?;
    pair_from((text("key")?, text("secret")?))
}

/// A pair that can be used.
pub(super) fn pair_from((key, secret): (&str, &str)) -> Option<KeyPair> {
    // A token is split at its first colon, and a path at its slashes.
    let usable = !key.is_empty() && !key.contains([':', '/']) && !secret.is_empty();
    usable.then(|| KeyPair { key: key.to_owned(), secret: Secret::new(secret) })
}

/// Settings that take one of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// The word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl Field for $name {
            fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
                *self = match input.text() {
                    $(Some($word) => Self::$variant,)*
                    _ => return Err(["one of", $(concat!(" \"", $word, "\"")),*].concat()),
                };
                Ok(())
            }

            fn show(&self) -> String {
                quoted(self.as_str())
            }
        }
    };
}

words! {
    /// What is worth a line in the log; each includes those before it.
    LogLevel {
        /// Someone must act.
        Error = "error",
        /// Something was dropped or limited.
        Warn = "warn",
        /// The life of the server.
        #[default]
        Info = "info",
        /// Each connection.
        Debug = "debug",
        /// Each message, without its payload.
        Trace = "trace",
    }
}

words! {
    /// How a line of the log looks.
    LogFormat {
        /// For people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// What to do with query parameters that an endpoint does not know.
    ExtraneousParameters {
        /// Answer 400, as Pusher does.
        #[default]
        Refuse = "refuse",
        /// Leave them be.
        Ignore = "ignore",
    }
}

words! {
    /// The oldest version of TLS that is spoken.
    TlsVersion {
        /// RFC 5246, and newer.
        #[default]
        Tls12 = "1.2",
        /// RFC 8446.
        Tls13 = "1.3",
    }
}

words! {
    /// Whose table holds the apps.
    StoreSchema {
        /// Fanfare's own, which it makes and brings up to date itself.
        #[default]
        Fanfare = "fanfare",
        /// soketi's, which is only read.
        Soketi = "soketi",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_credentials() {
        let check = |url: &str, shown: &str| assert_eq!(without_credentials(url), shown);
        check("https://a.example/hook", "https://a.example/hook");
        check(
            "https://ann:secret@a.example:8443/hook?token=x#y",
            "https://********@a.example:8443/hook?********",
        );
        check("http://a.example/@b", "http://a.example/@b");
        check("nonsense with a secret", "********");
    }

    #[test]
    fn headers_that_would_take_another_s_place_are_refused() {
        for name in ["Authorization", "X-Tenant", "x-api-key"] {
            assert!(header(name, "v").is_some(), "{name}");
        }
        for name in
            ["Content-Type", "host", "X-Pusher-Key", "x-pusher-signature", "X-Fanfare-Delivery", "a b", ""]
        {
            assert!(header(name, "v").is_none(), "{name}");
        }
        assert!(header("X-Tenant", "a\r\nX-Pusher-Key: b").is_none());
    }
}
