//! Apps for people and for programs to read, secrets masked.

use serde_json::{Value, json};

use crate::cli::app::place::Place;
use crate::cli::app::{AppError, Done};
use crate::config::{toml_of, without_credentials};
use crate::store::{Pair, Record};

/// All apps, as a table.
pub(super) fn list(place: &Place) -> Result<Done, AppError> {
    let mut lines = vec![["ID".to_owned(), "ENABLED".to_owned(), "KEYS".to_owned(), "SETTINGS".to_owned()]];
    let (mut all, mut broken) = (Vec::new(), String::new());
    for record in place.records()? {
        let record = match record {
            Ok(record) => record,
            Err(reason) => {
                broken.push_str(&format!("Not served: {reason}\n"));
                continue;
            }
        };
        let keys: Vec<&str> = record.keys.iter().map(|pair| &*pair.key).collect();
        let names: Vec<&str> = record.settings.keys().map(|name| &**name).collect();
        let enabled = if record.enabled { "yes" } else { "no" };
        lines.push([record.id.clone(), enabled.to_owned(), keys.join(" "), names.join(" ")]);
        all.push(
            json!({ "id": record.id, "enabled": record.enabled, "keys": keys, "settings": masked(&record) }),
        );
    }
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let line = |line: &[String; 4]| {
        let [id, enabled, keys, settings] = line;
        let [a, b, c] = widths;
        format!("{id:a$}  {enabled:b$}  {keys:c$}  {settings}").trim_end().to_owned() + "\n"
    };
    Ok(Done { text: lines.iter().map(line).collect::<String>() + &broken, json: Value::Array(all) })
}

/// What differs from the defaults, without what may be a credential.
fn masked(record: &Record) -> Value {
    let mut settings = record.settings.clone();
    for webhook in settings.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        for header in webhook.get_mut("headers").and_then(Value::as_object_mut).into_iter().flatten() {
            *header.1 = json!("********");
        }
        if let Some(url) = webhook.get("url").and_then(Value::as_str).map(without_credentials) {
            webhook["url"] = json!(url);
        }
    }
    Value::Object(settings)
}

/// One app, as the file would have it.
pub(super) fn show(record: &Record, secrets: bool) -> Done {
    let secret = |pair: &Pair| if secrets { pair.secret.expose().to_owned() } else { "********".to_owned() };
    let settings = if secrets { Value::Object(record.settings.clone()) } else { masked(record) };
    let keys: Vec<Value> =
        record.keys.iter().map(|pair| json!({ "key": pair.key, "secret": secret(pair) })).collect();
    let mut text = format!("id = {}\nenabled = {}\n", toml_of(&json!(record.id)), record.enabled);
    text.push_str("keys = [\n");
    for pair in &keys {
        text.push_str(&format!("  {},\n", toml_of(pair)));
    }
    text.push_str("]\n");
    for (name, value) in settings.as_object().into_iter().flatten() {
        text.push_str(&format!("{name} = {}\n", toml_of(value)));
    }
    let json = json!({ "id": record.id, "enabled": record.enabled, "keys": keys, "settings": settings });
    Done { text, json }
}
