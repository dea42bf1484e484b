//! The names of Pusher's SDKs and of Laravel Reverb, both found in the `.env` of a backend.
//!
//! Sources: `config/reverb.php` of Reverb 1; `config/broadcasting.php` of Laravel; the READMEs of Pusher's server SDKs.
//! Paths are made up: these names stand in environments alone.

use crate::config::foreign::redis::RedisPart;
use crate::config::foreign::table::Becomes::{AtLeast, Nothing, Part as P, Setting};
use crate::config::foreign::table::{Dialect, Part, Row, missing, row};
use crate::config::foreign::unit::Unit;

const CLIENT_SIDE: &str =
    "tells clients and backends where to find this server, not the server where to listen";

pub(super) const PUSHER: Dialect = Dialect {
    server: "Pusher",
    prefix: "PUSHER_",
    rows: &[
        row("PUSHER_HOST", "host", Nothing(CLIENT_SIDE)),
        row("PUSHER_PORT", "port", Nothing(CLIENT_SIDE)),
        row("PUSHER_SCHEME", "scheme", Nothing(CLIENT_SIDE)),
        row("PUSHER_CLUSTER", "cluster", Nothing(CLIENT_SIDE)),
        row("PUSHER_APP_CLUSTER", "app_cluster", Nothing(CLIENT_SIDE)),
    ],
    apps_path: "apps",
    app_rows: &[
        row("PUSHER_APP_ID", "id", P(Part::Id)),
        row("PUSHER_APP_KEY", "key", P(Part::Key)),
        row("PUSHER_APP_SECRET", "secret", P(Part::Secret)),
        row("PUSHER_URL", "url", P(Part::Url)),
    ],
    app_defaults: &[],
    server_defaults: &[],
    default_id: None,
    authentication_timeout_s: "0",
    public_pair: None,
    listens_everywhere: false,
};

pub(super) const REVERB: Dialect = Dialect {
    server: "Reverb",
    prefix: "REVERB_",
    rows: REVERB_ROWS,
    apps_path: "apps",
    app_rows: &[
        row("REVERB_APP_ID", "id", P(Part::Id)),
        row("REVERB_APP_KEY", "key", P(Part::Key)),
        row("REVERB_APP_SECRET", "secret", P(Part::Secret)),
        row("REVERB_APP_MAX_CONNECTIONS", "max_connections", Setting("connections_max", Unit::Limit)),
        row(
            "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM",
            "accept_client_events_from",
            Setting("client_events", Unit::ClientEventsFrom),
        ),
        // An event must fit into a request, and there is one limit for both.
        row("REVERB_MAX_REQUEST_SIZE", "max_request_size", AtLeast("event_data_bytes_max", Unit::Count)),
    ],
    app_defaults: &[("client_events", "true")],
    server_defaults: &[],
    default_id: None,
    authentication_timeout_s: "0",
    public_pair: None,
    listens_everywhere: true,
};

const RATE: &str = "messages of clients have no limit in common: client events have apps.client_events_per_s";
const LARAVEL: &str = "for tools inside a Laravel application; there is a metrics page instead";

const REVERB_ROWS: &[Row] = &[
    row("REVERB_SERVER", "server", Nothing("there is one kind of server")),
    row("REVERB_SERVER_HOST", "server_host", P(Part::Host)),
    row("REVERB_SERVER_PORT", "server_port", P(Part::Port)),
    row(
        "REVERB_SERVER_PATH",
        "server_path",
        Nothing("any prefix before /app and /apps works without a setting"),
    ),
    row("REVERB_HOST", "host", Nothing(CLIENT_SIDE)),
    row("REVERB_PORT", "port", Nothing(CLIENT_SIDE)),
    row("REVERB_SCHEME", "scheme", Nothing(CLIENT_SIDE)),
    row(
        "REVERB_APP_MAX_MESSAGE_SIZE",
        "max_message_size",
        AtLeast("connection.message_bytes_max", Unit::Count),
    ),
    row("REVERB_APP_PING_INTERVAL", "ping_interval", Setting("connection.ping_after_s", Unit::Count)),
    row(
        "REVERB_APP_ACTIVITY_TIMEOUT",
        "activity_timeout",
        Setting("connection.activity_timeout_s", Unit::Count),
    ),
    row("REVERB_APP_RATE_LIMITING_ENABLED", "rate_limiting_enabled", missing(&["false", "0"], RATE)),
    row("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "rate_limit_max_attempts", Nothing(RATE)),
    row("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "rate_limit_decay_seconds", Nothing(RATE)),
    row("REVERB_APP_RATE_LIMIT_TERMINATE", "rate_limit_terminate", Nothing(RATE)),
    row("REVERB_SCALING_ENABLED", "scaling_enabled", P(Part::Redis(RedisPart::Enabled))),
    row("REVERB_SCALING_CHANNEL", "scaling_channel", P(Part::Redis(RedisPart::Prefix))),
    // Laravel's: they count only with the two above.
    row("REDIS_URL", "redis_url", P(Part::Redis(RedisPart::Url))),
    row("REDIS_HOST", "redis_host", P(Part::Redis(RedisPart::Host))),
    row("REDIS_PORT", "redis_port", P(Part::Redis(RedisPart::Port))),
    row("REDIS_USERNAME", "redis_username", P(Part::Redis(RedisPart::User))),
    row("REDIS_PASSWORD", "redis_password", P(Part::Redis(RedisPart::Password))),
    row("REDIS_DB", "redis_db", P(Part::Redis(RedisPart::Database))),
    row("REVERB_PULSE_INGEST_INTERVAL", "pulse_ingest_interval", Nothing(LARAVEL)),
    row("REVERB_TELESCOPE_INGEST_INTERVAL", "telescope_ingest_interval", Nothing(LARAVEL)),
];
