//! One row per setting.

use crate::app::{App, Webhook};
use crate::config::Config;
use crate::config::field::Field;

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
    row(
        "server.plain_bind",
        |c| &mut c.server.plain_bind,
        "With [tls]: address and port where clients and the API are served without it. \"\" is nowhere.",
    ),
    row("server.workers", |c| &mut c.server.workers, "Worker threads. 0 is one per core."),
    row(
        "server.connections_max",
        |c| &mut c.server.connections_max,
        "Most WebSocket connections of this node; further ones are refused with 4100.\n0 is no limit but the system's limit of open files.",
    ),
    row(
        "server.address_connections_max",
        |c| &mut c.server.address_connections_max,
        "Most WebSocket connections from one address (of IPv6, one /64); further ones are refused with 4100.\n0 is no limit: offices and phone networks share addresses.",
    ),
    row(
        "server.address_handshakes_per_s",
        |c| &mut c.server.address_handshakes_per_s,
        "WebSocket handshakes of one address per second, and at once; further ones are refused with 4100.\n0 is no limit.",
    ),
    row(
        "server.trusted_proxies",
        |c| &mut c.server.trusted_proxies,
        "Networks of proxies that are believed for whom they connect (X-Forwarded-For, X-Forwarded-Proto, PROXY\nprotocol), as in [\"10.0.0.0/8\"]. What others say of that is ignored.",
    ),
    row(
        "server.proxy_protocol",
        |c| &mut c.server.proxy_protocol,
        "Every connection of a trusted proxy begins with a header of the PROXY protocol, version 1 or 2.",
    ),
    row(
        "server.soketi_endpoints",
        |c| &mut c.server.soketi_endpoints,
        "Answer soketi's /, /ready, /accept-traffic and /usage on the client port, for probes made for it.",
    ),
    row(
        "server.watch_config",
        |c| &mut c.server.watch_config,
        "Take changes of the configuration file and of certificates as soon as they are written, not on SIGHUP alone.",
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
        "tls.certificate",
        |c| &mut c.tls.certificate,
        "File with the certificate and its chain, PEM. \"\" is no TLS: a proxy speaks it.",
    ),
    row("tls.key", |c| &mut c.tls.key, "File with the certificate's private key, PEM."),
    row(
        "tls.min_version",
        |c| &mut c.tls.min_version,
        "The oldest version that is spoken, \"1.2\" or \"1.3\".",
    ),
    row(
        "drain.delay_s",
        |c| &mut c.drain.delay_s,
        "Seconds to go on accepting connections on SIGTERM, once readiness is off: as long as a load balancer takes to\nnotice.",
    ),
    row(
        "drain.spread_s",
        |c| &mut c.drain.spread_s,
        "Seconds over which connections are then closed, so that their clients do not all come back at once. Fewer\nthan 100 connections for each second take less. SIGINT closes them at once; a second signal waits for\nnobody.",
    ),
    row(
        "webhooks.debounce_s",
        |c| &mut c.webhooks.debounce_s,
        "Seconds that channel_vacated and member_removed wait: who is back by then has never been away. Pusher's value.",
    ),
    at_least(
        1,
        row("webhooks.timeout_s", |c| &mut c.webhooks.timeout_s, "Seconds for a receiver to answer."),
    ),
    row(
        "webhooks.retry_s",
        |c| &mut c.webhooks.retry_s,
        "Seconds in which a delivery that failed is tried again, with growing pauses. Pusher's value; receivers refuse\nolder ones.",
    ),
    at_least(
        1,
        row(
            "webhooks.concurrency",
            |c| &mut c.webhooks.concurrency,
            "Requests to one receiver at a time. Those of one channel never overlap.",
        ),
    ),
    row(
        "webhooks.batch_wait_ms",
        |c| &mut c.webhooks.batch_wait_ms,
        "Milliseconds that events of an app with webhook_batching wait for others to travel with.",
    ),
    at_least(
        1,
        row("webhooks.batch_events_max", |c| &mut c.webhooks.batch_events_max, "Most events of one request."),
    ),
    at_least(
        65_536,
        row(
            "webhooks.queue_bytes_max",
            |c| &mut c.webhooks.queue_bytes_max,
            "Bytes of webhooks that may wait to be delivered; above it new ones are dropped and counted.",
        ),
    ),
    row(
        "webhooks.dead_letters_max",
        |c| &mut c.webhooks.dead_letters_max,
        "Undelivered requests that are kept, newest first, to be replayed: fanfare webhooks list | replay.",
    ),
    row(
        "webhooks.allowed_networks",
        |c| &mut c.webhooks.allowed_networks,
        "Private networks that receivers may be in, as in [\"10.1.0.0/16\"]. All others that are not public are refused\nwhen connecting: an app's settings must not reach into your network.",
    ),
    row(
        "webhooks.state_file",
        |c| &mut c.webhooks.state_file,
        "File that carries over a restart what was not delivered yet, dead letters, and who was there: clients that are\nback in time cause no webhook. \"\" is none: what waits is lost then, and leaves are told when stopping.\nNot with redis.url: Redis keeps what the next node, or the next start, tells.",
    ),
    row(
        "store.apps_file",
        |c| &mut c.store.apps_file,
        "File with more [[apps]] and nothing else, so that secrets are kept apart from settings. \"\" is none. Like this\nfile it is read again when it changes; the demo app never stands in for it.",
    ),
    row(
        "store.url",
        |c| &mut c.store.url,
        "Database that holds apps beside those of this file: \"sqlite:apps.db\", \"postgres://user:password@host/db\" or\n\"mysql://user:password@host/db\". \"\" is none.",
    ),
    row(
        "store.schema",
        |c| &mut c.store.schema,
        "\"fanfare\": a table that fanfare makes and brings up to date. \"soketi\": soketi's table, which is only read.",
    ),
    row("store.table", |c| &mut c.store.table, "Name of the table."),
    at_least(
        1,
        row(
            "store.cache_ttl_s",
            |c| &mut c.store.cache_ttl_s,
            "Seconds after which an app is read again: that is how long a change takes. While the database is away, known\napps go on.",
        ),
    ),
    row(
        "store.unknown_ttl_s",
        |c| &mut c.store.unknown_ttl_s,
        "Seconds for which an unknown key stays unknown without asking again.",
    ),
    at_least(
        1,
        row("store.connections_max", |c| &mut c.store.connections_max, "Connections to the database."),
    ),
    at_least(1, row("store.timeout_s", |c| &mut c.store.timeout_s, "Seconds for the database to answer.")),
    row(
        "redis.url",
        |c| &mut c.redis.url,
        "Redis 7 or Valkey, by which many nodes are one: \"redis://user:password@host:6379/0\", rediss:// with TLS. Of a Redis\nCluster, one node or several with commas between them. \"\" is none: this node is all there is.",
    ),
    row(
        "redis.sentinels",
        |c| &mut c.redis.sentinels,
        "Sentinels, with commas between them: \"redis://host1:26379,redis://host2:26379\". The host of redis.url is then the\nname of the master.",
    ),
    row(
        "redis.tls_ca_file",
        |c| &mut c.redis.tls_ca_file,
        "With rediss://: PEM file of the authorities that may have signed Redis' certificate. \"\" are the system's.",
    ),
    row(
        "redis.tls_cert_file",
        |c| &mut c.redis.tls_cert_file,
        "With rediss://: PEM file of a certificate to show to Redis. \"\" is none.",
    ),
    row("redis.tls_key_file", |c| &mut c.redis.tls_key_file, "PEM file of its private key."),
    row(
        "redis.prefix",
        |c| &mut c.redis.prefix,
        "Begins every key and topic. Nodes with the same prefix are one cluster.",
    ),
    row(
        "redis.node",
        |c| &mut c.redis.node,
        "How this node is called in lists and logs. \"\" is the host's name.",
    ),
    at_least(
        3,
        row(
            "redis.lease_s",
            |c| &mut c.redis.lease_s,
            "Seconds after which a node that Redis has not heard counts as dead, and its connections as gone. The same on all nodes.",
        ),
    ),
    at_least(100, row("redis.timeout_ms", |c| &mut c.redis.timeout_ms, "Milliseconds for Redis to answer.")),
    at_least(
        100,
        row(
            "redis.publish_timeout_ms",
            |c| &mut c.redis.publish_timeout_ms,
            "Milliseconds that a publish waits while Redis is away, before it is answered with 503.",
        ),
    ),
    row(
        "redis.log_bytes",
        |c| &mut c.redis.log_bytes,
        "Bytes of the latest events that Redis keeps in each of 64 partitions, at most twice as much: a node that was cut off\nfor a moment delivers from there what it has missed. 0 keeps nothing.",
    ),
    at_least(
        100,
        row(
            "redis.outbox_max",
            |c| &mut c.redis.outbox_max,
            "Events for webhooks that may wait in each of 64 partitions; above it new ones are dropped and counted.",
        ),
    ),
    row(
        "metrics.bind",
        |c| &mut c.metrics.bind,
        "Address and port of the Prometheus page, /metrics, and of /live and /ready. Not for the public.\n\"\" switches it off.",
    ),
    row(
        "metrics.soketi_names",
        |c| &mut c.metrics.soketi_names,
        "Add the metrics under soketi's names, so that dashboards made for it go on.",
    ),
    row(
        "metrics.apps_max",
        |c| &mut c.metrics.apps_max,
        "Most apps with a label of their own; the others are counted together as \"other\".",
    ),
    row(
        "health.open_files_percent_max",
        |c| &mut c.health.open_files_percent_max,
        "/ready turns to 503 above so many per cent of the limit of open files. 0 is no gate.",
    ),
    row(
        "health.memory_percent_max",
        |c| &mut c.health.memory_percent_max,
        "/ready turns to 503 above so many per cent of the memory limit (of the control group, or the machine's memory).\n0 is no gate.",
    ),
    row(
        "admin.bind",
        |c| &mut c.admin.bind,
        "Address and port of the admin API. Not for the public. \"\" switches it off.",
    ),
    row(
        "admin.token",
        |c| &mut c.admin.token,
        "Who sends it as a bearer token may do everything there. \"\" switches the admin API off.\nAt least 16 characters: openssl rand -hex 16.",
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
    row(
        "tls_only",
        |a| &mut a.tls_only,
        "Refuse plain connections with 4000. A proxy that speaks TLS must be one of server.trusted_proxies.",
    ),
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
    row(
        "requests_per_s",
        |a| &mut a.requests_per_s,
        "API calls per second, and at once; further ones are answered with 429. 0 is no limit.",
    ),
    row(
        "publishes_per_s",
        |a| &mut a.publishes_per_s,
        "Events published through the API per second, counted for each channel; above it calls are answered with 429.\n0 is no limit.",
    ),
    row(
        "all_client_events_per_s",
        |a| &mut a.all_client_events_per_s,
        "Client events of all connections per second; further ones are refused with 4301. 0 is no limit.",
    ),
    row(
        "subscriptions_max",
        |a| &mut a.subscriptions_max,
        "Most subscriptions of one connection; further ones are refused. 0 is no limit.",
    ),
    row(
        "channels_max",
        |a| &mut a.channels_max,
        "Most channels with subscribers at a time; subscriptions to further ones are refused. 0 is no limit.",
    ),
    row(
        "webhook_batching",
        |a| &mut a.webhook_batching,
        "Webhooks for one receiver travel together, as far as they come shortly after each other.",
    ),
    row(
        "webhooks",
        |a| &mut a.webhooks,
        "Receivers of webhooks. Instead of this line write a block for each:\n  [[apps.webhooks]]\n  url = \"https://app.example/pusher/webhook\"\n  events = [\"channel_occupied\", \"member_added\"]    # all if left out\n  channel_prefixes = [\"presence-\"]                 # all channels if left out\n  headers = { Authorization = \"Bearer …\" }        # sent along",
    ),
];

pub(super) const WEBHOOK_SETTINGS: &[Setting<Webhook>] = &[
    row("url", |w| &mut w.url, "Where to post."),
    row("events", |w| &mut w.events, "What to tell; empty is everything."),
    row("channel_prefixes", |w| &mut w.channel_prefixes, "Beginnings of channel names; empty is all."),
    row("headers", |w| &mut w.headers, "Headers to send along."),
];

impl Config {
    /// Keys of the settings, apps aside, that are not as in `other`.
    pub fn differs_from(&self, other: &Self) -> Vec<&'static str> {
        let (mut mine, mut theirs) = (self.clone(), other.clone());
        let differs = |setting: &&Setting<Self>| {
            let (mine, theirs) = ((setting.field)(&mut mine), (setting.field)(&mut theirs));
            mine.show() != theirs.show() || mine.hidden() != theirs.hidden()
        };
        SETTINGS.iter().filter(differs).map(|setting| setting.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Masked;

    #[test]
    fn a_changed_secret_is_a_change_too() {
        let with = |password: &str| {
            let mut config = Config::default();
            config.redis.url = Masked::new(format!("redis://:{password}@r.example"));
            config
        };
        assert_eq!(with("one").differs_from(&with("two")), ["redis.url"]);
        assert!(with("one").differs_from(&with("one")).is_empty());
    }
}
