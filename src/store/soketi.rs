//! soketi's `apps` table: what its columns mean here.
//!
//! | column | setting |
//! | --- | --- |
//! | `max_connections` | `connections_max`; 0 and less are no limit, as with soketi |
//! | `enable_client_messages` | `client_events` |
//! | `max_client_events_per_sec` | `client_events_per_s`, of each connection |
//! | `max_backend_events_per_sec` | `publishes_per_s` |
//! | `max_read_req_per_sec` | with the limit of publishes, `requests_per_s`, which counts both; none alone |
//! | `enable_user_authentication` | `authorized_timeout_s` of 30 s |
//! | `max_…` | the limit of that name; NULL is soketi's default, not ours |
//! | `webhooks` | `webhooks`, but for Lambda functions and `channel_name_ends_with` |

use serde_json::{Map, Value, json};

use crate::app::{App, WebhookEvent};
use crate::config::{Masked, set_app, toml_of};
use crate::store::record::{Pair, Record};

/// The columns that are read, as far as the table has them: older ones lack some.
pub(super) const COLUMNS: [&str; 18] = [
    "id",
    "key",
    "secret",
    "enabled",
    "max_connections",
    "enable_client_messages",
    "max_backend_events_per_sec",
    "max_client_events_per_sec",
    "max_read_req_per_sec",
    "webhooks",
    "max_presence_members_per_channel",
    "max_presence_member_size_in_kb",
    "max_channel_name_length",
    "max_event_channels_at_once",
    "max_event_name_length",
    "max_event_payload_in_kb",
    "max_event_batch_size",
    "enable_user_authentication",
];

/// soketi's `userAuthenticationTimeout`.
const AUTHENTICATION_S: u64 = 30;
/// soketi's `channelLimits.cacheTtl`.
const CACHE_TTL_S: u64 = 3600;
/// More than anybody can do.
const UNLIMITED: f64 = 1_000_000_000.0;

/// What a row says, in our words. What of it cannot be served is added to `warnings`.
pub(super) fn record<'a>(
    id: &str,
    value: impl Fn(&str) -> Option<&'a str>,
    warnings: &mut Vec<String>,
) -> Result<Record, String> {
    // As soketi has it, an empty text is as good as nothing.
    let value = |name: &str| value(name).filter(|text| !text.is_empty());
    let number = |name: &str, default: f64| match value(name) {
        None => Ok(default),
        Some(text) => text.trim().parse::<f64>().map_err(|_| format!("{name}: expected a number")),
    };
    let mut settings = Map::new();
    let mut set = |name: &str, number: f64| settings.insert(name.to_owned(), json!(whole(number)));

    set("connections_max", number("max_connections", -1.0)?.max(0.0));
    let mut per_s = |column: &str| {
        let per_s = number(column, -1.0)?;
        if per_s == 0.0 {
            warnings.push(format!("{column} of 0 is served as 1: to let nothing through, set enabled to 0"));
        }
        Ok::<_, String>((per_s >= 0.0).then(|| per_s.max(1.0)))
    };
    let (publishes, reads) = (per_s("max_backend_events_per_sec")?, per_s("max_read_req_per_sec")?);
    if reads.is_some() && publishes.is_none() {
        warnings.push(
            "max_read_req_per_sec is not served without max_backend_events_per_sec: it would limit publishes too"
                .to_owned(),
        );
    }
    set("publishes_per_s", publishes.unwrap_or_default());
    set("requests_per_s", publishes.zip(reads).map_or(0.0, |(publishes, reads)| publishes + reads));
    let client_events = number("max_client_events_per_sec", -1.0)?;
    set("client_events_per_s", if client_events < 0.0 { UNLIMITED } else { client_events.max(1.0) });
    for (column, name, unit, default) in [
        ("max_presence_members_per_channel", "presence_members_max", 1.0, 100.0),
        ("max_presence_member_size_in_kb", "presence_user_info_bytes_max", 1024.0, 2.0),
        ("max_channel_name_length", "channel_name_max", 1.0, 200.0),
        ("max_event_channels_at_once", "publish_channels_max", 1.0, 100.0),
        ("max_event_name_length", "event_name_max", 1.0, 200.0),
        ("max_event_payload_in_kb", "event_data_bytes_max", 1024.0, 100.0),
        ("max_event_batch_size", "batch_events_max", 1.0, 10.0),
    ] {
        let limit = number(column, default)?;
        set(name, if limit < 0.0 { UNLIMITED } else { limit * unit });
    }
    set("cache_ttl_s", CACHE_TTL_S as f64);
    let flag = |name: &str, default: bool| value(name).map_or(default, is_true);
    if flag("enable_user_authentication", false) {
        set("authorized_timeout_s", AUTHENTICATION_S as f64);
    }
    let speaks = flag("enable_client_messages", false) && client_events != 0.0;
    settings.insert("client_events".to_owned(), json!(speaks));
    if let Some(text) = value("webhooks") {
        settings.insert("webhooks".to_owned(), webhooks(text, warnings));
    }
    let text = |name: &str| value(name).map(str::to_owned).ok_or_else(|| format!("{name} is empty"));
    let pair = Pair { key: text("key")?, secret: Masked::new(text("secret")?) };
    Ok(Record { id: id.to_owned(), enabled: flag("enabled", true), keys: vec![pair], settings })
}

/// A number that TOML can write.
fn whole(number: f64) -> u64 {
    // Whole, not below zero and far below the end: `as` does not saturate here.
    number.clamp(0.0, UNLIMITED) as u64
}

/// What the databases have for true: 1, t, true.
fn is_true(text: &str) -> bool {
    !matches!(text, "0" | "f" | "false" | "FALSE" | "no")
}

/// The receivers, without those that cannot be served.
fn webhooks(text: &str, warnings: &mut Vec<String>) -> Value {
    let Ok(Value::Array(webhooks)) = serde_json::from_str(text) else {
        if text != "null" {
            warnings.push("webhooks: expected a list in JSON; there are none".to_owned());
        }
        return json!([]);
    };
    let mut served = Vec::new();
    for (at, webhook) in webhooks.iter().enumerate() {
        match receiver(webhook, |text| warnings.push(format!("webhooks[{at}]: {text}"))) {
            Ok(webhook) => served.push(webhook),
            Err(reason) => warnings.push(format!("webhooks[{at}] is left out: {reason}")),
        }
    }
    Value::Array(served)
}

fn receiver(webhook: &Value, mut warn: impl FnMut(String)) -> Result<Value, String> {
    let Some(url) = webhook.get("url").and_then(Value::as_str).filter(|url| !url.is_empty()) else {
        return Err(match webhook.get("lambda_function") {
            Some(_) => "Lambda functions are not called, only URLs".to_owned(),
            None => "it has no url".to_owned(),
        });
    };
    let mut events = Vec::new();
    for name in webhook.get("event_types").and_then(Value::as_array).into_iter().flatten() {
        match name.as_str().and_then(WebhookEvent::parse) {
            Some(event) => events.push(event.as_str()),
            None => warn(format!("the event type {name} is not known")),
        }
    }
    if events.is_empty() {
        return Err("it has no event_types".to_owned());
    }
    let mut table = Map::new();
    table.insert("url".to_owned(), json!(url));
    table.insert("events".to_owned(), json!(events));
    let filter = |name: &str| {
        webhook.get("filter").and_then(|filter| filter.get(name)?.as_str()).filter(|text| !text.is_empty())
    };
    if let Some(prefix) = filter("channel_name_starts_with") {
        table.insert("channel_prefixes".to_owned(), json!([prefix]));
    }
    if filter("channel_name_ends_with").is_some() {
        warn("channel_name_ends_with is not served: it is told of all endings".to_owned());
    }
    if let Some(Value::Object(headers)) = webhook.get("headers")
        && !headers.is_empty()
    {
        table.insert("headers".to_owned(), json!(headers));
    }
    let table = Value::Object(table);
    // One receiver that is wrong is no reason not to serve the app.
    set_app(&mut App::default(), "webhooks", &toml_of(&json!([table])))?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[(&str, &str)]) -> Result<(App, Vec<String>), String> {
        let mut warnings = Vec::new();
        let value = |name: &str| {
            let given = values.iter().find(|(column, _)| *column == name).map(|(_, value)| *value);
            given.or(match name {
                "key" => Some("k"),
                "secret" => Some("hush"),
                _ => None,
            })
        };
        let (app, _) = record("1", value, &mut warnings)?.app()?;
        Ok((app, warnings))
    }

    #[test]
    fn a_bare_row_has_the_defaults_of_soketi() {
        let (app, warnings) = row(&[]).expect("valid");
        assert!(app.enabled && !app.client_events && app.webhooks.is_empty() && warnings.is_empty());
        assert_eq!((app.connections_max, app.requests_per_s, app.publishes_per_s), (0, 0, 0));
        assert_eq!(
            (app.event_data_bytes_max, app.channel_name_max, app.batch_events_max),
            (102_400, 200, 10)
        );
        assert_eq!((app.presence_members_max, app.presence_user_info_bytes_max), (100, 2048));
        assert_eq!(app.authorized_timeout_s, 0);
    }

    #[test]
    fn every_column_has_its_meaning() {
        let (app, warnings) = row(&[
            ("enabled", "0"),
            ("enable_client_messages", "true"),
            ("max_connections", "200"),
            ("max_backend_events_per_sec", "5"),
            ("max_client_events_per_sec", "6"),
            ("max_read_req_per_sec", "7"),
            ("max_presence_members_per_channel", "8"),
            ("max_presence_member_size_in_kb", "0.5"),
            ("max_event_payload_in_kb", "1"),
            ("enable_user_authentication", "1"),
        ])
        .expect("valid");
        assert!(!app.enabled && app.client_events && warnings.is_empty());
        assert_eq!((app.connections_max, app.publishes_per_s, app.client_events_per_s), (200, 5, 6));
        assert_eq!((app.requests_per_s, app.presence_members_max, app.authorized_timeout_s), (12, 8, 30));
        assert_eq!((app.presence_user_info_bytes_max, app.event_data_bytes_max), (512, 1024));
    }

    #[test]
    fn a_limit_of_reads_alone_limits_no_publishes() {
        let (app, warnings) = row(&[("max_read_req_per_sec", "7")]).expect("valid");
        assert_eq!((app.requests_per_s, app.publishes_per_s, warnings.len()), (0, 0, 1));
        let (app, warnings) = row(&[
            ("max_backend_events_per_sec", "0"),
            ("max_client_events_per_sec", "0"),
            ("enable_client_messages", "1"),
        ])
        .expect("valid");
        assert_eq!((app.publishes_per_s, app.client_events, warnings.len()), (1, false, 1));
    }

    #[test]
    fn webhooks_are_served_as_far_as_they_can_be() {
        let text = r#"[
            {"url": "https://a.example/", "event_types": ["channel_occupied", "odd"],
             "filter": {"channel_name_starts_with": "x-", "channel_name_ends_with": "-y"}, "headers": {"X-A": "b"}},
            {"lambda_function": "f", "event_types": ["channel_occupied"]},
            {"url": "nowhere", "event_types": ["channel_occupied"]},
            {"url": "https://b.example/", "event_types": []}
        ]"#;
        let (app, warnings) = row(&[("webhooks", text)]).expect("valid");
        let [webhook] = &app.webhooks[..] else { panic!("one receiver: {warnings:?}") };
        assert_eq!((&webhook.channel_prefixes[..], webhook.events.len()), (&["x-".to_owned()][..], 1));
        for part in ["odd", "channel_name_ends_with", "Lambda", "webhooks[2] is left out", "webhooks[3]"] {
            assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}: {warnings:?}");
        }
        let (app, warnings) = row(&[("webhooks", "{broken")]).expect("valid");
        assert!(app.webhooks.is_empty() && warnings.len() == 1);
        assert!(row(&[("webhooks", "null")]).expect("valid").1.is_empty());
    }

    #[test]
    fn a_row_that_makes_no_app_says_why() {
        for (column, value) in
            [("key", ""), ("secret", ""), ("max_connections", "many"), ("max_channel_name_length", "0")]
        {
            let error = row(&[(column, value)]).expect_err(column);
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
