//! soketi's names: `SOKETI_…` in the environment, and the keys of its JSON configuration.
//!
//! Source: soketi 1.6, `src/cli/cli.ts` (the variables) and `src/options.ts`, `src/app.ts` (the keys).

use crate::config::foreign::redis::RedisPart;
use crate::config::foreign::table::Becomes::{EveryApp, Nothing, Part as P, Setting};
use crate::config::foreign::table::{Dialect, Part, Row, missing, row};
use crate::config::foreign::unit::{RATE_UNLIMITED, Unit};

pub(super) const SOKETI: Dialect = Dialect {
    server: "soketi",
    prefix: "SOKETI_",
    rows: ROWS,
    apps_path: "appManager.array.apps",
    app_rows: APP_ROWS,
    app_defaults: &[
        ("client_events_per_s", RATE_UNLIMITED),
        ("event_data_bytes_max", "102400"),
        ("channel_name_max", "200"),
        ("cache_ttl_s", "3600"),
        ("presence_user_info_bytes_max", "2048"),
    ],
    server_defaults: &[("server.soketi_endpoints", "true")],
    default_id: Some("app-id"),
    authentication_timeout_s: "30",
    public_pair: Some(("app-key", "app-secret")),
    listens_everywhere: true,
};

const DRIVERLESS: &str = "a setting of a part that this version does not have or need";
const DISCOVERY: &str = "nodes do not look for each other: they meet in Redis, at redis.url";
const CACHE: &str = "cached events are kept in the process, and in Redis once redis.url is set";
const DYNAMODB: &str =
    "apps in DynamoDB are not read: list them in the file as [[apps]], or move them to SQL";

const ROWS: &[Row] = &[
    row("SOKETI_HOST", "host", P(Part::Host)),
    row("SOKETI_PORT", "port", P(Part::Port)),
    row(
        "SOKETI_PATH_PREFIX",
        "pathPrefix",
        Nothing("any prefix before /app and /apps works without a setting"),
    ),
    row("SOKETI_DEBUG", "debug", Setting("log.level", Unit::Debug)),
    row(
        "SOKETI_MODE",
        "mode",
        missing(&["full"], "one process does everything: it is not divided into servers and workers"),
    ),
    row("SOKETI_SSL_CERT", "ssl.certPath", Setting("tls.certificate", Unit::Text)),
    row("SOKETI_SSL_KEY", "ssl.keyPath", Setting("tls.key", Unit::Text)),
    row(
        "SOKETI_SSL_PASS",
        "ssl.passphrase",
        missing(&[], "keys under a passphrase are not read: take it off with openssl pkey -in KEY -out NEW"),
    ),
    row(
        "SOKETI_SSL_CA",
        "ssl.caPath",
        missing(&[], "clients are not asked for certificates: let a proxy do that"),
    ),
    row(
        "SOKETI_SHUTDOWN_GRACE_PERIOD",
        "shutdownGracePeriod",
        Setting("server.shutdown_timeout_s", Unit::Millis),
    ),
    row(
        "SOKETI_USER_AUTHENTICATION_TIMEOUT",
        "userAuthenticationTimeout",
        P(Part::UserAuthenticationTimeout(Unit::Millis)),
    ),
    row("SOKETI_WEBHOOKS_BATCHING", "webhooks.batching.enabled", EveryApp("webhook_batching", Unit::Flag)),
    row(
        "SOKETI_WEBHOOKS_BATCHING_DURATION",
        "webhooks.batching.duration",
        Setting("webhooks.batch_wait_ms", Unit::Count),
    ),
    row("SOKETI_METRICS_ENABLED", "metrics.enabled", Setting("metrics.soketi_names", Unit::Flag)),
    row("SOKETI_METRICS_HOST", "metrics.host", P(Part::MetricsHost)),
    row("SOKETI_METRICS_SERVER_PORT", "metrics.port", P(Part::MetricsPort)),
    row(
        "SOKETI_METRICS_DRIVER",
        "metrics.driver",
        missing(&["prometheus"], "there is a Prometheus page and nothing else"),
    ),
    row(
        "SOKETI_METRICS_PROMETHEUS_PREFIX",
        "metrics.prometheus.prefix",
        missing(&["soketi_"], "metrics.soketi_names adds them with soketi's own prefix, soketi_, alone"),
    ),
    row(
        "SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH",
        "channelLimits.maxNameLength",
        EveryApp("channel_name_max", Unit::Count),
    ),
    row("SOKETI_CHANNEL_CACHE_TTL", "channelLimits.cacheTtl", EveryApp("cache_ttl_s", Unit::Count)),
    row("SOKETI_EVENT_MAX_BATCH_SIZE", "eventLimits.maxBatchSize", EveryApp("batch_events_max", Unit::Count)),
    row(
        "SOKETI_EVENT_MAX_CHANNELS_AT_ONCE",
        "eventLimits.maxChannelsAtOnce",
        EveryApp("publish_channels_max", Unit::Count),
    ),
    row("SOKETI_EVENT_MAX_NAME_LENGTH", "eventLimits.maxNameLength", EveryApp("event_name_max", Unit::Count)),
    row(
        "SOKETI_EVENT_MAX_SIZE_IN_KB",
        "eventLimits.maxPayloadInKb",
        EveryApp("event_data_bytes_max", Unit::Kib),
    ),
    row(
        "SOKETI_PRESENCE_MAX_MEMBER_SIZE",
        "presence.maxMemberSizeInKb",
        EveryApp("presence_user_info_bytes_max", Unit::Kib),
    ),
    row(
        "SOKETI_PRESENCE_MAX_MEMBERS",
        "presence.maxMembersPerChannel",
        EveryApp("presence_members_max", Unit::Count),
    ),
    row(
        "SOKETI_HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD",
        "httpApi.acceptTraffic.memoryThreshold",
        Setting("health.memory_percent_max", Unit::Count),
    ),
    row("", "httpApi.requestLimitInMb", Setting("api.body_bytes_max", Unit::Mib)),
    row("", "cors", Nothing("the HTTP API is for backends: browsers do not call it")),
    row("", "instance", Nothing("a process needs no name")),
    row("SOKETI_APP_MANAGER_DRIVER", "appManager.driver", P(Part::StoreDriver)),
    row(
        "SOKETI_APP_MANAGER_CACHE_ENABLED",
        "appManager.cache.enabled",
        Nothing("apps of a database are always cached, for store.cache_ttl_s"),
    ),
    row("SOKETI_APP_MANAGER_CACHE_TTL", "appManager.cache.ttl", Setting("store.cache_ttl_s", Unit::Ttl)),
    row("SOKETI_APP_MANAGER_DYNAMODB_TABLE", "appManager.dynamodb.table", Nothing(DYNAMODB)),
    row("SOKETI_APP_MANAGER_DYNAMODB_REGION", "appManager.dynamodb.region", Nothing(DYNAMODB)),
    row("SOKETI_APP_MANAGER_DYNAMODB_ENDPOINT", "appManager.dynamodb.endpoint", Nothing(DYNAMODB)),
    row("SOKETI_APP_MANAGER_MYSQL_TABLE", "appManager.mysql.table", P(Part::Store("mysql.table"))),
    row(
        "SOKETI_APP_MANAGER_MYSQL_VERSION",
        "appManager.mysql.version",
        Nothing("every version in use is understood"),
    ),
    row(
        "SOKETI_APP_MANAGER_MYSQL_USE_V2",
        "appManager.mysql.useMysql2",
        Nothing("there is one MySQL driver"),
    ),
    row("SOKETI_APP_MANAGER_POSTGRES_TABLE", "appManager.postgres.table", P(Part::Store("postgres.table"))),
    row(
        "SOKETI_APP_MANAGER_POSTGRES_VERSION",
        "appManager.postgres.version",
        Nothing("every version in use is understood"),
    ),
    row("SOKETI_DB_MYSQL_HOST", "database.mysql.host", P(Part::Store("mysql.host"))),
    row("SOKETI_DB_MYSQL_PORT", "database.mysql.port", P(Part::Store("mysql.port"))),
    row("SOKETI_DB_MYSQL_USERNAME", "database.mysql.user", P(Part::Store("mysql.user"))),
    row("SOKETI_DB_MYSQL_PASSWORD", "database.mysql.password", P(Part::Store("mysql.password"))),
    row("SOKETI_DB_MYSQL_DATABASE", "database.mysql.database", P(Part::Store("mysql.database"))),
    row("SOKETI_DB_POSTGRES_HOST", "database.postgres.host", P(Part::Store("postgres.host"))),
    row("SOKETI_DB_POSTGRES_PORT", "database.postgres.port", P(Part::Store("postgres.port"))),
    row("SOKETI_DB_POSTGRES_USERNAME", "database.postgres.user", P(Part::Store("postgres.user"))),
    row("SOKETI_DB_POSTGRES_PASSWORD", "database.postgres.password", P(Part::Store("postgres.password"))),
    row("SOKETI_DB_POSTGRES_DATABASE", "database.postgres.database", P(Part::Store("postgres.database"))),
    row("SOKETI_DB_POOLING_MAX", "databasePooling.max", Setting("store.connections_max", Unit::Count)),
    row(
        "SOKETI_DB_POOLING_MIN",
        "databasePooling.min",
        Nothing("connections to the database are made when needed"),
    ),
    row(
        "SOKETI_DB_POOLING_ENABLED",
        "databasePooling.enabled",
        Nothing("connections to the database are always pooled"),
    ),
    row("SOKETI_DB_REDIS_HOST", "database.redis.host", P(Part::Redis(RedisPart::Host))),
    row("SOKETI_DB_REDIS_PORT", "database.redis.port", P(Part::Redis(RedisPart::Port))),
    row("SOKETI_DB_REDIS_DB", "database.redis.db", P(Part::Redis(RedisPart::Database))),
    row("SOKETI_DB_REDIS_USERNAME", "database.redis.username", P(Part::Redis(RedisPart::User))),
    row("SOKETI_DB_REDIS_PASSWORD", "database.redis.password", P(Part::Redis(RedisPart::Password))),
    row("SOKETI_DB_REDIS_KEY_PREFIX", "database.redis.keyPrefix", P(Part::Redis(RedisPart::KeyPrefix))),
    row("SOKETI_DB_REDIS_SENTINELS", "database.redis.sentinels", P(Part::Redis(RedisPart::Sentinels))),
    row(
        "SOKETI_DB_REDIS_SENTINEL_PASSWORD",
        "database.redis.sentinelPassword",
        P(Part::Redis(RedisPart::SentinelPassword)),
    ),
    row("SOKETI_DB_REDIS_CLUSTER_NODES", "database.redis.clusterNodes", P(Part::Redis(RedisPart::Nodes))),
    row("SOKETI_DB_REDIS_INSTANCE_NAME", "database.redis.name", P(Part::Redis(RedisPart::Master))),
    row("SOKETI_ADAPTER_DRIVER", "adapter.driver", P(Part::Redis(RedisPart::Driver))),
    row("SOKETI_ADAPTER_CLUSTER_REQUESTS_TIMEOUT", "adapter.cluster.requestsTimeout", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_REDIS_PREFIX", "adapter.redis.prefix", P(Part::Redis(RedisPart::Prefix))),
    row(
        "SOKETI_ADAPTER_REDIS_CLUSTER_MODE",
        "adapter.redis.clusterMode",
        P(Part::Redis(RedisPart::IsCluster)),
    ),
    row(
        "SOKETI_ADAPTER_REDIS_REQUESTS_TIMEOUT",
        "adapter.redis.requestsTimeout",
        Nothing("no node asks another: counts and members are in Redis"),
    ),
    row(
        "SOKETI_ADAPTER_REDIS_SUB_OPTIONS",
        "adapter.redis.redisSubOptions",
        P(Part::Redis(RedisPart::Options)),
    ),
    row(
        "SOKETI_ADAPTER_REDIS_PUB_OPTIONS",
        "adapter.redis.redisPubOptions",
        P(Part::Redis(RedisPart::Options)),
    ),
    row("SOKETI_ADAPTER_NATS_PREFIX", "adapter.nats.prefix", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_SERVERS", "adapter.nats.servers", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_USER", "adapter.nats.user", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_PASSWORD", "adapter.nats.pass", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_TOKEN", "adapter.nats.token", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_TIMEOUT", "adapter.nats.timeout", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_REQUESTS_TIMEOUT", "adapter.nats.requestsTimeout", Nothing(DRIVERLESS)),
    row("SOKETI_ADAPTER_NATS_NODES_NUMBER", "adapter.nats.nodesNumber", Nothing(DRIVERLESS)),
    row("SOKETI_CACHE_DRIVER", "cache.driver", Nothing(CACHE)),
    row("SOKETI_CACHE_REDIS_CLUSTER_MODE", "cache.redis.clusterMode", Nothing(CACHE)),
    row("SOKETI_CACHE_REDIS_OPTIONS", "cache.redis.redisOptions", Nothing(CACHE)),
    row(
        "SOKETI_QUEUE_DRIVER",
        "queue.driver",
        missing(
            &["sync", "redis"],
            "webhooks wait in the process, and in a cluster in Redis, and are tried again from there",
        ),
    ),
    row(
        "SOKETI_QUEUE_REDIS_CONCURRENCY",
        "queue.redis.concurrency",
        Nothing("webhooks.concurrency counts requests to one receiver"),
    ),
    row("SOKETI_QUEUE_REDIS_OPTIONS", "queue.redis.redisOptions", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_REDIS_CLUSTER_MODE", "queue.redis.clusterMode", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_REGION", "queue.sqs.region", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_CLIENT_OPTIONS", "queue.sqs.clientOptions", Nothing(DRIVERLESS)),
    row("", "queue.sqs.consumerOptions", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_URL", "queue.sqs.queueUrl", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_ENDPOINT", "queue.sqs.endpoint", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_PROCESS_BATCH", "queue.sqs.processBatch", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_BATCH_SIZE", "queue.sqs.batchSize", Nothing(DRIVERLESS)),
    row("SOKETI_QUEUE_SQS_POLLING_WAIT_TIME_MS", "queue.sqs.pollingWaitTimeMs", Nothing(DRIVERLESS)),
    row(
        "SOKETI_RATE_LIMITER_DRIVER",
        "rateLimiter.driver",
        missing(&["local"], "each node counts for itself"),
    ),
    row("SOKETI_RATE_LIMITER_REDIS_OPTIONS", "rateLimiter.redis.redisOptions", Nothing(DRIVERLESS)),
    row("SOKETI_RATE_LIMITER_REDIS_CLUSTER_MODE", "rateLimiter.redis.clusterMode", Nothing(DRIVERLESS)),
    row("SOKETI_CLUSTER_CHECK_INTERVAL", "cluster.checkInterval", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_HOST", "cluster.hostname", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_IGNORE_PROCESS", "cluster.ignoreProcess", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_BROADCAST_ADDRESS", "cluster.broadcast", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_KEEPALIVE_INTERVAL", "cluster.helloInterval", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_MASTER_TIMEOUT", "cluster.masterTimeout", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_MULTICAST_ADDRESS", "cluster.multicast", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_NODE_TIMEOUT", "cluster.nodeTimeout", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_PORT", "cluster.port", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_PREFIX", "cluster.prefix", Nothing(DISCOVERY)),
    row("SOKETI_CLUSTER_UNICAST_ADDRESSES", "cluster.unicast", Nothing(DISCOVERY)),
];

const APP_ROWS: &[Row] = &[
    row("SOKETI_DEFAULT_APP_ID", "id|AppId", P(Part::Id)),
    row("SOKETI_DEFAULT_APP_KEY", "key|AppKey", P(Part::Key)),
    row("SOKETI_DEFAULT_APP_SECRET", "secret|AppSecret", P(Part::Secret)),
    row(
        "SOKETI_DEFAULT_APP_MAX_CONNS",
        "maxConnections|MaxConnections|max_connections",
        Setting("connections_max", Unit::Limit),
    ),
    row(
        "SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES",
        "enableClientMessages|EnableClientMessages|enable_client_messages",
        Setting("client_events", Unit::Flag),
    ),
    row("SOKETI_DEFAULT_APP_ENABLED", "enabled|Enabled", Setting("enabled", Unit::Flag)),
    row(
        "SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC",
        "maxBackendEventsPerSecond|MaxBackendEventsPerSecond|max_backend_events_per_sec",
        Setting("publishes_per_s", Unit::Limit),
    ),
    row(
        "SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC",
        "maxClientEventsPerSecond|MaxClientEventsPerSecond|max_client_events_per_sec",
        Setting("client_events_per_s", Unit::Rate),
    ),
    row(
        "SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC",
        "maxReadRequestsPerSecond|MaxReadRequestsPerSecond|max_read_req_per_sec",
        missing(&["-1"], "reads have no limit of their own: apps.requests_per_s counts every API call"),
    ),
    row(
        "SOKETI_DEFAULT_APP_USER_AUTHENTICATION",
        "enableUserAuthentication|EnableUserAuthentication|enable_user_authentication",
        P(Part::UserAuthentication),
    ),
    row("SOKETI_DEFAULT_APP_WEBHOOKS", "webhooks|Webhooks", P(Part::Webhooks)),
    row(
        "",
        "maxPresenceMembersPerChannel|MaxPresenceMembersPerChannel|max_presence_members_per_channel",
        Setting("presence_members_max", Unit::Count),
    ),
    row(
        "",
        "maxPresenceMemberSizeInKb|MaxPresenceMemberSizeInKb|max_presence_member_size_in_kb",
        Setting("presence_user_info_bytes_max", Unit::Kib),
    ),
    row(
        "",
        "maxChannelNameLength|MaxChannelNameLength|max_channel_name_length",
        Setting("channel_name_max", Unit::Count),
    ),
    row(
        "",
        "maxEventChannelsAtOnce|MaxEventChannelsAtOnce|max_event_channels_at_once",
        Setting("publish_channels_max", Unit::Count),
    ),
    row(
        "",
        "maxEventNameLength|MaxEventNameLength|max_event_name_length",
        Setting("event_name_max", Unit::Count),
    ),
    row(
        "",
        "maxEventPayloadInKb|MaxEventPayloadInKb|max_event_payload_in_kb",
        Setting("event_data_bytes_max", Unit::Kib),
    ),
    row(
        "",
        "maxEventBatchSize|MaxEventBatchSize|max_event_batch_size",
        Setting("batch_events_max", Unit::Count),
    ),
    row("", "hasClientEventWebhooks", Nothing("told by the webhooks themselves")),
    row("", "hasChannelOccupiedWebhooks", Nothing("told by the webhooks themselves")),
    row("", "hasChannelVacatedWebhooks", Nothing("told by the webhooks themselves")),
    row("", "hasMemberAddedWebhooks", Nothing("told by the webhooks themselves")),
    row("", "hasMemberRemovedWebhooks", Nothing("told by the webhooks themselves")),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variable of soketi 1.6, without its prefix.
    const VARIABLES: &str = "
        ADAPTER_DRIVER ADAPTER_CLUSTER_REQUESTS_TIMEOUT ADAPTER_REDIS_PREFIX ADAPTER_REDIS_CLUSTER_MODE
        ADAPTER_REDIS_REQUESTS_TIMEOUT ADAPTER_REDIS_SUB_OPTIONS ADAPTER_REDIS_PUB_OPTIONS ADAPTER_NATS_PREFIX
        ADAPTER_NATS_SERVERS ADAPTER_NATS_USER ADAPTER_NATS_PASSWORD ADAPTER_NATS_TOKEN ADAPTER_NATS_TIMEOUT
        ADAPTER_NATS_REQUESTS_TIMEOUT ADAPTER_NATS_NODES_NUMBER APP_MANAGER_DRIVER APP_MANAGER_CACHE_ENABLED
        APP_MANAGER_CACHE_TTL APP_MANAGER_DYNAMODB_TABLE APP_MANAGER_DYNAMODB_REGION APP_MANAGER_DYNAMODB_ENDPOINT
        APP_MANAGER_MYSQL_TABLE APP_MANAGER_MYSQL_VERSION APP_MANAGER_POSTGRES_TABLE APP_MANAGER_POSTGRES_VERSION
        APP_MANAGER_MYSQL_USE_V2 CHANNEL_LIMITS_MAX_NAME_LENGTH CHANNEL_CACHE_TTL CACHE_DRIVER
        CACHE_REDIS_CLUSTER_MODE CACHE_REDIS_OPTIONS CLUSTER_CHECK_INTERVAL CLUSTER_HOST CLUSTER_IGNORE_PROCESS
        CLUSTER_BROADCAST_ADDRESS CLUSTER_KEEPALIVE_INTERVAL CLUSTER_MASTER_TIMEOUT CLUSTER_MULTICAST_ADDRESS
        CLUSTER_NODE_TIMEOUT CLUSTER_PORT CLUSTER_PREFIX CLUSTER_UNICAST_ADDRESSES DEBUG DEFAULT_APP_ID
        DEFAULT_APP_KEY DEFAULT_APP_SECRET DEFAULT_APP_MAX_CONNS DEFAULT_APP_ENABLE_CLIENT_MESSAGES
        DEFAULT_APP_ENABLED DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC
        DEFAULT_APP_MAX_READ_REQ_PER_SEC DEFAULT_APP_USER_AUTHENTICATION DEFAULT_APP_WEBHOOKS DB_POOLING_ENABLED
        DB_POOLING_MIN DB_POOLING_MAX DB_MYSQL_HOST DB_MYSQL_PORT DB_MYSQL_USERNAME DB_MYSQL_PASSWORD
        DB_MYSQL_DATABASE DB_POSTGRES_HOST DB_POSTGRES_PORT DB_POSTGRES_USERNAME DB_POSTGRES_PASSWORD
        DB_POSTGRES_DATABASE DB_REDIS_HOST DB_REDIS_PORT DB_REDIS_DB DB_REDIS_USERNAME DB_REDIS_PASSWORD
        DB_REDIS_KEY_PREFIX DB_REDIS_SENTINELS DB_REDIS_SENTINEL_PASSWORD DB_REDIS_CLUSTER_NODES
        DB_REDIS_INSTANCE_NAME EVENT_MAX_BATCH_SIZE EVENT_MAX_CHANNELS_AT_ONCE EVENT_MAX_NAME_LENGTH
        EVENT_MAX_SIZE_IN_KB HOST HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD METRICS_ENABLED METRICS_DRIVER METRICS_HOST
        METRICS_PROMETHEUS_PREFIX METRICS_SERVER_PORT MODE PORT PATH_PREFIX PRESENCE_MAX_MEMBER_SIZE
        PRESENCE_MAX_MEMBERS QUEUE_DRIVER QUEUE_REDIS_CONCURRENCY QUEUE_REDIS_OPTIONS QUEUE_REDIS_CLUSTER_MODE
        QUEUE_SQS_REGION QUEUE_SQS_CLIENT_OPTIONS QUEUE_SQS_URL QUEUE_SQS_ENDPOINT QUEUE_SQS_PROCESS_BATCH
        QUEUE_SQS_BATCH_SIZE QUEUE_SQS_POLLING_WAIT_TIME_MS RATE_LIMITER_DRIVER RATE_LIMITER_REDIS_OPTIONS
        RATE_LIMITER_REDIS_CLUSTER_MODE SHUTDOWN_GRACE_PERIOD SSL_CERT SSL_KEY SSL_PASS SSL_CA
        USER_AUTHENTICATION_TIMEOUT WEBHOOKS_BATCHING WEBHOOKS_BATCHING_DURATION";

    #[test]
    fn every_variable_of_soketi_has_a_meaning_and_no_other() {
        let mut known: Vec<&str> =
            SOKETI.all_rows().filter_map(|row| row.variable.strip_prefix("SOKETI_")).collect();
        let mut theirs: Vec<&str> = VARIABLES.split_whitespace().collect();
        known.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(known, theirs);
    }
}
