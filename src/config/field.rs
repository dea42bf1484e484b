//! The types a setting can have: how each is read, checked and shown.

use std::net::SocketAddr;

use toml::de::DeValue;

use crate::app::{AppId, KeyPair};
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

fn quoted(text: &str) -> String {
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

impl Field for Vec<String> {
    fn read(&mut self, input: Input<'_>) -> Result<(), Expected> {
        let texts = match input {
            Input::Toml(value) => value.as_array().and_then(|items| {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }),
            Input::Text(text) => Some(
                text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect(),
            ),
        };
        *self = texts.ok_or("a list of texts, as in [\"https://a.example\"]")?;
        Ok(())
    }

    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }
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
