//! An app as it is written down: what the command line edits, and what a row becomes on its way to an [`App`].

use serde_json::{Map, Value, json};

use crate::app::App;
use crate::config::{Masked, app_settings, read_app};

/// An app with its secrets in the clear, as a table or a file has it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Names the app in the HTTP API.
    pub id: String,
    /// Whether it serves.
    pub enabled: bool,
    /// Oldest first.
    pub keys: Vec<Pair>,
    /// What differs from the defaults.
    pub settings: Map<String, Value>,
}

/// A key and its secret.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The key, which is public.
    pub key: String,
    /// The secret, which is not.
    pub secret: Masked,
}

/// Whether a text can be an id or a key of the store: 1 to 255 printable characters of ASCII, without slash and colon.
///
/// What cannot is never asked for: databases would refuse some of it, and compare some of it as equal.
pub fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}

impl Record {
    /// A record of these settings, as far as they differ from the defaults.
    pub fn new(id: String, keys: Vec<Pair>, app: &App) -> Self {
        Self { id, enabled: app.enabled, keys, settings: app_settings(app) }
    }

    /// From a row of our own table.
    pub(super) fn of_columns<'a>(id: &str, value: impl Fn(&str) -> Option<&'a str>) -> Result<Self, String> {
        let keys = serde_json::from_str(value("keys").unwrap_or_default());
        let settings = value("settings").filter(|text| !text.trim().is_empty()).unwrap_or("{}");
        let settings = serde_json::from_str(settings).map_err(|_| "settings: expected an object in JSON")?;
        Ok(Self {
            id: id.to_owned(),
            enabled: !matches!(value("enabled"), Some("0" | "f" | "false")),
            keys: keys.ok().and_then(|keys| pairs_of(&keys)).ok_or(
                "keys: expected a list of pairs in JSON, as in [{\"key\": \"…\", \"secret\": \"…\"}]",
            )?,
            settings,
        })
    }

    /// The app, and the names that are no settings.
    ///
    /// # Errors
    /// Why it is none.
    pub fn app(&self) -> Result<(App, Vec<String>), String> {
        if !is_name(&self.id) {
            return Err(
                "id: expected 1 to 255 printable characters of ASCII, without slash and colon".to_owned()
            );
        }
        if self.keys.is_empty() {
            return Err("there are no keys".to_owned());
        }
        for (at, pair) in self.keys.iter().enumerate() {
            if !is_name(&pair.key) {
                return Err("key: expected 1 to 255 printable characters of ASCII, without slash and colon"
                    .to_owned());
            }
            if pair.secret.expose().is_empty() {
                return Err(format!("the secret of key {} is empty", pair.key));
            }
            if self.keys.iter().take(at).any(|other| other.key == pair.key) {
                return Err(format!("the key {} is there twice", pair.key));
            }
        }
        let mut table = self.settings.clone();
        table.insert("id".to_owned(), json!(self.id));
        table.insert("enabled".to_owned(), json!(self.enabled));
        table.insert("keys".to_owned(), self.keys_value());
        read_app(&table).map_err(|problems| problems.join("; "))
    }

    /// The pairs, as JSON.
    pub fn keys_value(&self) -> Value {
        self.keys.iter().map(|pair| json!({ "key": pair.key, "secret": pair.secret.expose() })).collect()
    }

    pub(super) fn keys_text(&self) -> String {
        self.keys_value().to_string()
    }

    pub(super) fn settings_text(&self) -> String {
        Value::Object(self.settings.clone()).to_string()
    }
}

/// Pairs, from JSON.
fn pairs_of(keys: &Value) -> Option<Vec<Pair>> {
    let pair = |pair: &Value| {
        let text = |name: &str| pair.get(name)?.as_str().map(str::to_owned);
        Some(Pair { key: text("key")?, secret: Masked::new(text("secret")?) })
    };
    keys.as_array()?.iter().map(pair).collect()
}

impl Pair {
    /// Pairs as JSON has them, if that is what it has.
    pub fn list_of(keys: &Value) -> Option<Vec<Self>> {
        pairs_of(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keys: &str, settings: &str) -> Result<Record, String> {
        Record::of_columns("1", |column| match column {
            "keys" => Some(keys),
            "settings" => Some(settings),
            _ => None,
        })
    }

    const KEYS: &str = r#"[{"key": "k", "secret": "hush"}]"#;

    #[test]
    fn a_row_becomes_an_app() {
        let (app, unknown) = record(KEYS, r#"{"connections_max": 5, "later": 1}"#)
            .and_then(|record| record.app())
            .expect("valid");
        assert_eq!((app.connections_max, app.enabled, unknown), (5, true, vec!["later".to_owned()]));
        assert!(app.secret("k").is_some());
        assert!(record(KEYS, "").and_then(|record| record.app()).is_ok());
    }

    #[test]
    fn a_row_that_makes_no_app_says_why_and_never_a_secret() {
        for (keys, settings, reason) in [
            ("hush", "{}", "keys: expected"),
            ("[]", "{}", "there are no keys"),
            (r#"[{"key": "a:b", "secret": "hush"}]"#, "{}", "printable"),
            (r#"[{"key": "k", "secret": ""}]"#, "{}", "is empty"),
            (r#"[{"key": "k", "secret": "hush"}, {"key": "k", "secret": "hush2"}]"#, "{}", "twice"),
            (KEYS, "[]", "settings: expected"),
            (KEYS, r#"{"connections_max": "hush"}"#, "bad value for connections_max"),
        ] {
            let error = record(keys, settings).and_then(|record| record.app()).expect_err(reason);
            assert!(error.contains(reason) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn names_are_what_every_database_compares_alike() {
        for name in ["1", "0123456789abcdef0123", "a.b_c-d@e"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "é", "a\0", "a/b", "a:b", &"x".repeat(256)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
