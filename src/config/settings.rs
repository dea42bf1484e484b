//! One row per setting.

use std::fmt::Write;

use crate::app::App;
use crate::config::field::Field;
use crate::config::{Config, DEMO_SECRET};

/// A setting of `T`: its key, what it means, and its place.
pub(super) struct Setting<T> {
    /// `section.name`, or the name alone inside `[[apps]]`.
    pub(super) key: &'static str,
    /// One or more lines: meaning, unit, reason of the default.
    pub(super) doc: &'static str,
    pub(super) field: fn(&mut T) -> &mut dyn Field,
    /// The least a number may be.
    pub(super) least: u64,
}

const fn row<T>(key: &'static str, field: fn(&mut T) -> &mut dyn Field, doc: &'static str) -> Setting<T> {
    Setting { key, doc, field, least: 0 }
}

const fn at_least<T>(least: u64, setting: Setting<T>) -> Setting<T> {
    Setting { least, ..setting }
}

pub(super) const SETTINGS: &[Setting<Config>] = &[
    row(
        "server.bind",
        |c| &mut c.server.bind,
        "Address and port for clients and the HTTP API. Port 0 takes a free one.\nThe default is reachable from this machine alone.",
    ),
    row("server.workers", |c| &mut c.server.workers, "Worker threads. 0 is one per core."),
    row(
        "server.connections_max",
        |c| &mut c.server.connections_max,
        "Most WebSocket connections of this node; further ones are refused with 4100.\n0 is no limit but the system's limit of open files.",
    ),
    at_least(
        1,
        row(
            "server.backlog",
            |c| &mut c.server.backlog,
            "Connections that the kernel holds until they are accepted: a reconnect storm needs room.",
        ),
    ),
    at_least(
        1,
        row(
            "server.head_timeout_s",
            |c| &mut c.server.head_timeout_s,
            "Seconds for the head of a request to arrive.",
        ),
    ),
    row(
        "server.shutdown_timeout_s",
        |c| &mut c.server.shutdown_timeout_s,
        "Seconds that open connections and requests have to end when the server stops.",
    ),
    at_least(
        65_536,
        row(
            "server.mailbox_bytes_max",
            |c| &mut c.server.mailbox_bytes_max,
            "Bytes of events that may wait for one worker; above it publishes are answered with 503.",
        ),
    ),
    at_least(
        1,
        row(
            "connection.activity_timeout_s",
            |c| &mut c.connection.activity_timeout_s,
            "Seconds of silence after which a client should ping, as told to it. Pusher's value.",
        ),
    ),
    at_least(
        1,
        row(
            "connection.ping_after_s",
            |c| &mut c.connection.ping_after_s,
            "Seconds of silence after which the server sends a WebSocket ping.",
        ),
    ),
    at_least(
        1,
        row(
            "connection.pong_timeout_s",
            |c| &mut c.connection.pong_timeout_s,
            "Seconds the server then waits for anything at all, before it closes with 4201.",
        ),
    ),
    at_least(
        1,
        row(
            "connection.close_timeout_s",
            |c| &mut c.connection.close_timeout_s,
            "Seconds a client has to end its side after a close frame.",
        ),
    ),
    at_least(
        128,
        row(
            "connection.message_bytes_max",
            |c| &mut c.connection.message_bytes_max,
            "Longest message of a client, in bytes; longer ones close with 1009.\nEvent data of 10 KB may need 60 KB of JSON escapes.",
        ),
    ),
    at_least(
        1024,
        row(
            "connection.outbox_bytes_max",
            |c| &mut c.connection.outbox_bytes_max,
            "Bytes that may wait for one slow client, beside what the kernel holds; above it the client is\nclosed with 4100. Waiting bytes are shared by all clients they wait for.",
        ),
    ),
    at_least(
        16,
        row(
            "connection.outbox_frames_max",
            |c| &mut c.connection.outbox_frames_max,
            "The same limit in frames, for many small ones.",
        ),
    ),
    row(
        "connection.subscription_errors",
        |c| &mut c.connection.subscription_errors,
        "After the pusher:error of a refused subscription, send pusher:subscription_error to its channel too:\nthe error handlers of pusher-js and Laravel Echo are bound there.",
    ),
    at_least(
        1024,
        row(
            "api.body_bytes_max",
            |c| &mut c.api.body_bytes_max,
            "Longest body of an API request, in bytes; longer ones are answered with 413.",
        ),
    ),
    at_least(
        1024,
        row("api.batch_body_bytes_max", |c| &mut c.api.batch_body_bytes_max, "The same for batch_events."),
    ),
    at_least(
        1,
        row(
            "api.body_timeout_s",
            |c| &mut c.api.body_timeout_s,
            "Seconds for the body of a request to arrive.",
        ),
    ),
    at_least(
        1,
        row(
            "api.keep_alive_s",
            |c| &mut c.api.keep_alive_s,
            "Seconds an idle API connection is kept: reconnecting is most of what a publish costs.",
        ),
    ),
    row(
        "api.timestamp_tolerance_s",
        |c| &mut c.api.timestamp_tolerance_s,
        "Seconds the clock of a publisher may differ from this machine's. Pusher's value.",
    ),
    row(
        "api.extraneous_parameters",
        |c| &mut c.api.extraneous_parameters,
        "Query parameters that an endpoint does not know: \"refuse\" them with 400, as Pusher does, or \"ignore\" them.",
    ),
    row(
        "metrics.bind",
        |c| &mut c.metrics.bind,
        "Address and port of the Prometheus page, /metrics. Not for the public. \"\" switches it off.",
    ),
    row(
        "log.level",
        |c| &mut c.log.level,
        "What is worth a line: \"error\", \"warn\", \"info\", \"debug\" (each connection) or \"trace\" (each message,\nwithout its payload).",
    ),
    row("log.format", |c| &mut c.log.format, "\"text\" or \"json\". Lines go to standard error."),
];

pub(super) const APP_SETTINGS: &[Setting<App>] = &[
    row("id", |a| &mut a.id, "Names the app in the HTTP API. Some server SDKs accept nothing but a number."),
    row(
        "keys",
        |a| &mut a.keys,
        "Pairs of key and secret, oldest first. Two of them allow a rotation without downtime.",
    ),
    row("enabled", |a| &mut a.enabled, "A disabled app refuses connections (4003) and API calls (403)."),
    row(
        "client_events",
        |a| &mut a.client_events,
        "Clients may send events whose name begins with client- on private and presence channels.\nfalse unless set.",
    ),
    row(
        "subscription_counts",
        |a| &mut a.subscription_counts,
        "Tell subscribers how many they are, with pusher_internal:subscription_count.",
    ),
    row("watchlist", |a| &mut a.watchlist, "Signed-in users may watch others come online and go offline."),
    row("tls_only", |a| &mut a.tls_only, "Refuse plain connections with 4000."),
    row(
        "authorized_timeout_s",
        |a| &mut a.authorized_timeout_s,
        "Seconds in which a connection must sign in or join a private or presence channel, before it is\nclosed with 4009. 0 is for ever.",
    ),
    row(
        "allowed_origins",
        |a| &mut a.allowed_origins,
        "Pages that may connect, as in [\"https://app.example\"]; others are refused with 4009.\nEmpty allows all.",
    ),
    at_least(1, row("cache_ttl_s", |a| &mut a.cache_ttl_s, "Seconds a cache channel keeps its last event.")),
    row(
        "connections_max",
        |a| &mut a.connections_max,
        "Most connections at a time; further ones are refused with 4004. 0 is no limit.",
    ),
    at_least(
        1,
        row(
            "channel_name_max",
            |a| &mut a.channel_name_max,
            "Longest channel name, in bytes. Pusher's value; some SDKs allow 200.",
        ),
    ),
    at_least(1, row("event_name_max", |a| &mut a.event_name_max, "Longest event name, in characters.")),
    row(
        "event_data_bytes_max",
        |a| &mut a.event_data_bytes_max,
        "Longest event data, in bytes of UTF-8. Pusher's value.\nFor more than 10 KB raise connection.message_bytes_max and api.body_bytes_max too.",
    ),
    at_least(
        1,
        row(
            "presence_members_max",
            |a| &mut a.presence_members_max,
            "Most distinct users in a presence channel. Pusher's value.",
        ),
    ),
    at_least(
        2,
        row(
            "presence_user_info_bytes_max",
            |a| &mut a.presence_user_info_bytes_max,
            "Longest user_info of a presence member, in bytes of JSON.",
        ),
    ),
    at_least(1, row("batch_events_max", |a| &mut a.batch_events_max, "Most events in one batch.")),
    at_least(
        1,
        row("publish_channels_max", |a| &mut a.publish_channels_max, "Most channels of one publish."),
    ),
    at_least(
        1,
        row(
            "client_events_per_s",
            |a| &mut a.client_events_per_s,
            "Client events a connection may send per second; further ones are refused with 4301.",
        ),
    ),
    row(
        "watchlist_users_max",
        |a| &mut a.watchlist_users_max,
        "Most users on one watchlist; the rest is cut off with 4302.",
    ),
];

/// The whole default configuration as a commented file, the demo app included.
pub fn default_toml() -> String {
    let mut text = String::from(
        "# Every setting of Fanfare with its default. Leave out what you do not change.\n\
         # Precedence: this file < FANFARE_SECTION_KEY in the environment < flags.\n",
    );
    let mut config = Config::default();
    let mut section = "";
    for setting in SETTINGS {
        let (of, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if of != section {
            section = of;
            let _ = write!(text, "\n[{section}]\n");
        }
        push_setting(&mut text, setting, name, &mut config);
    }
    text.push_str("\n# One block for each app. Without any, this demo app is served, to this machine alone.\n[[apps]]\n");
    let mut app = Config::demo_app();
    for setting in APP_SETTINGS {
        push_setting(&mut text, setting, setting.key, &mut app);
    }
    text.replace("********", DEMO_SECRET)
}

fn push_setting<T>(text: &mut String, setting: &Setting<T>, name: &str, of: &mut T) {
    for line in setting.doc.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "{name} = {}", (setting.field)(of).show());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_file_is_the_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(file, default_toml(), "write it anew: fanfare config default > config/default.toml");
    }
}
