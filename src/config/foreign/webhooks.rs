//! Receivers of webhooks, as soketi and sockudo describe them.

use serde_json::Value;

use crate::app::{Webhook, WebhookEvent};
use crate::config::field::{header, is_webhook_url};
use crate::config::foreign::translate::json_of;
use crate::config::foreign::unit::plain;
use crate::config::{Note, Problem};

/// Reads a list of receivers, and what is to be said about them.
pub(super) fn read(place: &str, value: &Value, problems: &mut Vec<Problem>) -> (Vec<Webhook>, Vec<Note>) {
    let mut reading = Reading { problems, notes: Vec::new() };
    let Some(Value::Array(items)) = json_of(value) else {
        reading.problem(place, "bad value: expected a list of receivers of webhooks");
        return (Vec::new(), reading.notes);
    };
    let webhooks = items.iter().enumerate();
    let webhooks =
        webhooks.filter_map(|(at, item)| reading.webhook(&format!("{place}[{at}]"), item)).collect();
    (webhooks, reading.notes)
}

struct Reading<'a> {
    problems: &'a mut Vec<Problem>,
    notes: Vec<Note>,
}

impl Reading<'_> {
    fn problem(&mut self, place: &str, message: &str) {
        self.problems.push(Problem { place: place.to_owned(), message: message.to_owned() });
    }

    fn warn(&mut self, name: &str, message: &str) {
        self.notes.push(Note { name: name.to_owned(), message: message.to_owned(), warn: true });
    }

    fn webhook(&mut self, place: &str, item: &Value) -> Option<Webhook> {
        let Some(item) = item.as_object() else {
            self.problem(place, "bad value: expected a block with url and event_types");
            return None;
        };
        let is_set = |name: &str| item.get(name).is_some_and(|value| !value.is_null());
        if is_set("lambda_function") || is_set("lambda") {
            self.warn(place, "not supported: functions of AWS Lambda are not called; give it a url");
        }
        let Some(url) = item.get("url").and_then(Value::as_str) else {
            if !is_set("lambda_function") {
                self.problem(place, "the webhook has no url");
            }
            return None;
        };
        if !is_webhook_url(url) {
            self.problem(&format!("{place}.url"), "bad value: expected an http or https URL");
            return None;
        }
        if is_private(url) {
            self.warn(
                &format!("{place}.url"),
                "looks private: name its network in webhooks.allowed_networks, or it is refused",
            );
        }
        for known in item.keys().filter(|key| !KNOWN.contains(&&***key)) {
            self.warn(&format!("{place}.{known}"), "no effect here: unknown in a webhook");
        }
        Some(Webhook {
            url: url.to_owned(),
            events: self.events(place, item.get("event_types")),
            channel_prefixes: self.prefixes(place, item.get("filter")),
            headers: self.headers(place, item.get("headers")),
        })
    }

    fn events(&mut self, place: &str, value: Option<&Value>) -> Vec<WebhookEvent> {
        let place = format!("{place}.event_types");
        let names = value.and_then(Value::as_array);
        let parsed = names.and_then(|names| {
            names.iter().map(|name| WebhookEvent::parse(name.as_str()?)).collect::<Option<Vec<_>>>()
        });
        match parsed {
            Some(events) if !events.is_empty() => events,
            _ => {
                let known = WebhookEvent::ALL.map(WebhookEvent::as_str).join(", ");
                self.problem(&place, &format!("bad value: expected a list of some of {known}"));
                Vec::new()
            }
        }
    }

    fn prefixes(&mut self, place: &str, value: Option<&Value>) -> Vec<String> {
        let mut prefixes = Vec::new();
        for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
            match (&**name, plain(value)) {
                (_, None) => {}
                ("channel_name_starts_with" | "channel_prefix", Some(prefix)) => prefixes.push(prefix),
                (name, Some(_)) => self.warn(
                    &format!("{place}.filter.{name}"),
                    "not supported: channels are chosen by the beginning of their name, so more will be told",
                ),
            }
        }
        prefixes
    }

    fn headers(&mut self, place: &str, value: Option<&Value>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
            match value.as_str().and_then(|value| header(name, value)) {
                Some(header) => headers.push(header),
                None => self.warn(
                    &format!("{place}.headers.{name}"),
                    "no effect here: the header is set by the server, or its value is no text",
                ),
            }
        }
        headers
    }
}

const KNOWN: &[&str] = &["url", "lambda_function", "lambda", "event_types", "filter", "headers"];

/// Whether a receiver seems to be in a private network: an address of one, or a name without a dot.
fn is_private(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => !host.contains('.') || host.ends_with(".local") || host.ends_with(".internal"),
    }
}
