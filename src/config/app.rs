//! One app's settings by themselves, for those who keep apps elsewhere: the store and the command line.

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use crate::app::{App, Webhook};
use crate::config::field::Input;
use crate::config::load::Loading;
use crate::config::settings::APP_SETTINGS;

/// The settings that are no settings to those who keep an app: they have places of their own.
const OWN: [&str; 3] = ["id", "keys", "enabled"];

/// Sets one setting of an app: to a value as a flag takes it, or to one as the file has it.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn set_app(app: &mut App, key: &str, value: &str) -> Result<(), String> {
    let mut changed = app.clone();
    let mut loading = Loading::default();
    loading.set_in(APP_SETTINGS, &mut changed, "", "", key, Input::Text(value));
    if let Some(problem) = loading.problems.pop() {
        // Lists and blocks have more to say than a flag can.
        if !value.starts_with(['[', '{']) {
            return Err(problem.message);
        }
        changed = app.clone();
        read_into(&mut changed, &format!("{key} = {value}")).map_err(|problems| problems.join("; "))?;
    }
    *app = changed;
    Ok(())
}

/// The app that a table of settings describes, and the names in it that are no settings.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_app(table: &Map<String, Value>) -> Result<(App, Vec<String>), Vec<String>> {
    let is_known = |name: &str| APP_SETTINGS.iter().any(|setting| setting.key == name);
    let mut text = String::new();
    let mut unknown = Vec::new();
    for (name, value) in table {
        if is_known(name) {
            text.push_str(&format!("{name} = {}\n", toml_of(value)));
        } else {
            unknown.push(name.clone());
        }
    }
    let mut app = App::default();
    read_into(&mut app, &text)?;
    Ok((app, unknown))
}

fn read_into(app: &mut App, text: &str) -> Result<(), Vec<String>> {
    let table = DeTable::parse(text).map_err(|error| vec![format!("not TOML: {}", error.message())])?;
    let mut loading = Loading::default();
    loading.app_settings(app, table.get_ref(), |_| String::new());
    let problems: Vec<String> = loading.problems.into_iter().map(|problem| problem.message).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What differs from the defaults, without id, keys and `enabled`. Nothing in it is masked.
pub fn app_settings(app: &App) -> Map<String, Value> {
    let (mut app, mut default) = (app.clone(), App::default());
    let mut settings = Map::new();
    for setting in APP_SETTINGS.iter().filter(|setting| !OWN.contains(&setting.key)) {
        if setting.key == "webhooks" {
            continue;
        }
        let value = (setting.field)(&mut app).show();
        if value == (setting.field)(&mut default).show() {
            continue;
        }
        // Numbers, booleans, texts and lists of texts look alike in TOML and JSON.
        if let Ok(value) = serde_json::from_str(&value) {
            settings.insert(setting.key.to_owned(), value);
        }
    }
    if !app.webhooks.is_empty() {
        settings.insert("webhooks".to_owned(), app.webhooks.iter().map(webhook_of).collect());
    }
    settings
}

fn webhook_of(webhook: &Webhook) -> Value {
    let mut table = Map::new();
    table.insert("url".to_owned(), json!(webhook.url));
    if !webhook.events.is_empty() {
        let events: Vec<&str> = webhook.events.iter().map(|event| event.as_str()).collect();
        table.insert("events".to_owned(), json!(events));
    }
    if !webhook.channel_prefixes.is_empty() {
        table.insert("channel_prefixes".to_owned(), json!(webhook.channel_prefixes));
    }
    if !webhook.headers.is_empty() {
        let headers: Map<String, Value> =
            webhook.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        table.insert("headers".to_owned(), Value::Object(headers));
    }
    Value::Object(table)
}

/// A value as TOML writes it in a line.
pub fn toml_of(value: &Value) -> String {
    match value {
        // A JSON string is a TOML string too, but for one character.
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007f"),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pair = |(name, value): (&String, &Value)| {
                let is_bare = !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
                let name = if is_bare { name.clone() } else { toml_of(&Value::from(&**name)) };
                format!("{name} = {}", toml_of(value))
            };
            format!("{{ {} }}", table.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        // TOML has no null; an empty text is wrong wherever null is.
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: Value) -> Map<String, Value> {
        let Value::Object(table) = value else { panic!("a table") };
        table
    }

    #[test]
    fn what_differs_makes_the_same_app_again() {
        let mut app = App::default();
        for (key, value) in [
            ("client_events", "true"),
            ("connections_max", "7"),
            ("allowed_origins", "https://a.example,https://b.example"),
            (
                "webhooks",
                "[{ url = \"https://u:p@a.example/\", events = [\"cache_miss\"], headers = { X-A = \"b\" } }]",
            ),
        ] {
            set_app(&mut app, key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        let settings = app_settings(&app);
        assert_eq!(settings.len(), 4, "{settings:?}");
        let (again, unknown) = read_app(&settings).expect("valid");
        assert_eq!((again, unknown), (app, Vec::new()));
        assert!(app_settings(&App::default()).is_empty());
    }

    #[test]
    fn a_wrong_setting_says_what_would_be_right() {
        let mut app = App::default();
        let mut wrong = |key: &str, value: &str| set_app(&mut app, key, value).expect_err("wrong");
        assert!(wrong("client_event", "true").contains("did you mean client_events?"));
        assert_eq!(wrong("client_events", "yes"), "bad value for client_events: expected true or false");
        assert!(wrong("webhooks", "nowhere").contains("[[apps.webhooks]]"));
        assert!(wrong("webhooks", "[{ url = \"nowhere\" }]").contains("no usable url"));
        let problems = read_app(&table(json!({ "connections_max": "many" }))).expect_err("wrong");
        assert!(problems[0].contains("connections_max"), "{problems:?}");
        let (_, unknown) = read_app(&table(json!({ "later": { "a": null } }))).expect("valid");
        assert_eq!(unknown, ["later"]);
    }
}
