use std::path::Path;

use crate::config::foreign::environment::FAMILIES;
use crate::config::foreign::sockudo::SOCKUDO;
use crate::config::foreign::table::{Becomes, Dialect};
use crate::config::settings::{APP_SETTINGS, SETTINGS};
use crate::config::{Layers, Loaded, convert};

/// Loads an environment alone.
fn load(environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let layers = Layers { environment: environment.collect(), ..Layers::default() };
    layers.load().map_err(|error| error.to_string())
}

/// Loads a file of that name, and an environment over it.
fn load_file(name: &str, text: &str, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a file");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let layers = Layers { file: Some(path), environment: environment.collect(), flags: Vec::new() };
    let folder = format!("{}/", folder.path().display());
    layers.load().map_err(|error| error.to_string().replace(&folder, ""))
}

#[track_caller]
fn check_shown(loaded: Result<Loaded, String>, lines: &[&str]) {
    let shown = loaded.expect("valid").show(true);
    for line in lines {
        assert!(shown.lines().any(|shown| shown == *line), "{line} in\n{shown}");
    }
}

#[track_caller]
fn check_note(loaded: &Loaded, name: &str, message: &str) {
    let found = loaded.notes.iter().any(|note| note.name == name && note.message.contains(message));
    assert!(found, "{name}: {message} in {:#?}", loaded.notes);
}

#[track_caller]
fn check_problem(loaded: Result<Loaded, String>, problem: &str) {
    let problems = loaded.expect_err(problem);
    assert!(problems.contains(problem), "{problem} in {problems}");
}

const SOKETI: [(&str, &str); 3] = [
    ("SOKETI_DEFAULT_APP_ID", "9"),
    ("SOKETI_DEFAULT_APP_KEY", "k"),
    ("SOKETI_DEFAULT_APP_SECRET", "hidden-one"),
];
const REVERB: [(&str, &str); 3] =
    [("REVERB_APP_ID", "8"), ("REVERB_APP_KEY", "r"), ("REVERB_APP_SECRET", "hidden-two")];
const PUSHER: [(&str, &str); 3] =
    [("PUSHER_APP_ID", "7"), ("PUSHER_APP_KEY", "p"), ("PUSHER_APP_SECRET", "hidden-three")];

#[test]
fn every_row_becomes_a_setting_that_is_there() {
    for row in FAMILIES.iter().copied().chain([&SOCKUDO]).flat_map(Dialect::all_rows) {
        let keys = match row.becomes {
            Becomes::Setting(key, _) | Becomes::AtLeast(key, _) | Becomes::EveryApp(key, _) => key,
            Becomes::Part(part) => part.of(),
            Becomes::Nothing(why) | Becomes::Missing { why, .. } => {
                assert!(!why.is_empty() && !why.ends_with('.'), "{row:?}");
                continue;
            }
        };
        for key in keys.split(", ") {
            let in_app = APP_SETTINGS.iter().any(|setting| setting.key == key.trim_start_matches("apps."));
            assert!(in_app || SETTINGS.iter().any(|setting| setting.key == key), "{row:?}");
        }
    }
}

#[test]
fn defaults_of_other_servers_are_settings_that_are_there() {
    for dialect in FAMILIES.iter().copied().chain([&SOCKUDO]) {
        for (key, _) in dialect.app_defaults {
            assert!(APP_SETTINGS.iter().any(|setting| setting.key == *key), "{key}");
        }
        for (key, _) in dialect.server_defaults {
            assert!(SETTINGS.iter().any(|setting| setting.key == *key), "{key}");
        }
    }
}

#[test]
fn an_app_of_soketi_keeps_what_soketi_allowed() {
    let more = [("SOKETI_DEFAULT_APP_MAX_CONNS", "-1"), ("SOKETI_HOST", "0.0.0.0"), ("SOKETI_PORT", "6010")];
    check_shown(
        load(&[&SOKETI[..], &more].concat()),
        &[
            "server.bind = \"0.0.0.0:6010\"  # SOKETI_HOST, SOKETI_PORT",
            "server.soketi_endpoints = true  # how soketi behaves",
            "apps[0].id = \"9\"  # SOKETI_DEFAULT_APP_ID",
            "apps[0].keys = [{ key = \"k\", secret = \"********\" }]  # SOKETI_DEFAULT_APP_KEY, SOKETI_DEFAULT_APP_SECRET",
            "apps[0].connections_max = 0  # SOKETI_DEFAULT_APP_MAX_CONNS",
            "apps[0].event_data_bytes_max = 102400  # how soketi behaves",
            "connection.message_bytes_max = 237568  # how soketi behaves",
        ],
    );
}

#[test]
fn an_app_of_soketi_needs_no_id() {
    let loaded = load(&SOKETI[1..]).expect("valid");
    assert_eq!(&*loaded.config.apps[0].id, "app-id");
    check_note(&loaded, "SOKETI_DEFAULT_APP_KEY", "the id of the app is app-id");
    let public = [("SOKETI_DEFAULT_APP_KEY", "app-key"), ("SOKETI_DEFAULT_APP_SECRET", "app-secret")];
    check_note(&load(&public).expect("valid"), "SOKETI_DEFAULT_APP_KEY", "everybody knows");
}

#[test]
fn what_the_file_says_is_stronger_than_how_others_behave() {
    let file =
        "[server]\nsoketi_endpoints = false\nbind = \"127.0.0.1:7\"\n[connection]\nmessage_bytes_max = 70000";
    let loaded = load_file("f.toml", file, &SOKETI).expect("valid");
    assert!(!loaded.config.server.soketi_endpoints);
    assert_eq!(loaded.config.connection.message_bytes_max, 70_000);
}

#[test]
fn our_own_names_are_stronger_and_said_to_be() {
    let ours = [("FANFARE_SERVER_BIND", "127.0.0.1:7000"), ("SOKETI_HOST", "0.0.0.0")];
    let loaded = load(&[&SOKETI[..], &ours].concat()).expect("valid");
    check_note(&loaded, "SOKETI_HOST", "server.bind is set by FANFARE_SERVER_BIND");
    let app = [("FANFARE_APP_KEY", "own"), ("FANFARE_APP_SECRET", "s")];
    let loaded = load(&[&SOKETI[..], &app].concat()).expect("valid");
    assert_eq!(loaded.config.apps.len(), 1);
    check_note(&loaded, "SOKETI_DEFAULT_APP_KEY", "not used: FANFARE_APP_KEY");
}

#[test]
fn a_variable_changes_the_app_of_the_file_and_leaves_its_settings() {
    let file = "[[apps]]\nid = \"7\"\nkeys = [{ key = \"old\", secret = \"s\" }]\nclient_events = true\nchannels_max = 5";
    let loaded = load_file("f.toml", file, &PUSHER).expect("valid");
    let [app] = &loaded.config.apps[..] else { panic!("one app") };
    assert_eq!((&*app.keys[0].key, app.client_events, app.channels_max), ("p", true, 5));
    let loaded = load_file("f.toml", file, &REVERB).expect("valid");
    assert_eq!(loaded.config.apps.len(), 2);
}

#[test]
fn only_one_family_describes_the_app() {
    let loaded = load(&[SOKETI, REVERB, PUSHER].concat()).expect("valid");
    assert_eq!(loaded.config.apps.len(), 1);
    assert_eq!(&*loaded.config.apps[0].id, "9");
    check_note(&loaded, "REVERB_APP_KEY", "not used: SOKETI_DEFAULT_APP_KEY describes the app");
    check_note(&loaded, "PUSHER_APP_KEY", "not used: SOKETI_DEFAULT_APP_KEY describes the app");

    let same = [("PUSHER_APP_ID", "9"), ("PUSHER_APP_KEY", "k"), ("PUSHER_APP_SECRET", "hidden-one")];
    let loaded = load(&[SOKETI, same].concat()).expect("valid");
    check_note(&loaded, "PUSHER_APP_KEY", "the same app as by SOKETI_DEFAULT_APP_KEY");
}

#[test]
fn contradictions_stop_the_start() {
    let other = [("PUSHER_APP_ID", "9"), ("PUSHER_APP_KEY", "else"), ("PUSHER_APP_SECRET", "hidden")];
    check_problem(load(&[SOKETI, other].concat()), "PUSHER_APP_KEY: contradicts SOKETI_DEFAULT_APP_KEY");
    let ports = [("SOKETI_PORT", "1"), ("REVERB_SERVER_PORT", "2")];
    check_problem(load(&ports), "REVERB_SERVER_PORT: contradicts SOKETI_PORT");
    assert!(load(&[("SOKETI_PORT", "1"), ("REVERB_SERVER_PORT", "1")]).is_ok());
    let urls = [("PUSHER_URL", "https://p:other@api.example/apps/7")];
    let problems = load(&[&PUSHER[..], &urls].concat()).expect_err("two secrets");
    assert!(problems.contains("PUSHER_") && !problems.contains("other@"), "{problems}");
}

#[test]
fn a_url_of_pusher_is_an_app() {
    let loaded = load(&[("PUSHER_URL", "http://p:a%2Fb@api-eu.pusher.com:80/apps/77")]).expect("valid");
    let app = &loaded.config.apps[0];
    assert_eq!((&*app.id, &*app.keys[0].key), ("77", "p"));
    let sign = |secret: &crate::protocol::Secret| secret.sign(&[b"x"]);
    assert_eq!(sign(&app.keys[0].secret), sign(&crate::protocol::Secret::new("a/b")));
    let loaded = load(&[("PUSHER_URL", "https://api-eu.pusher.com")]).expect("valid");
    assert!(loaded.config.has_demo_app());
    check_note(&loaded, "PUSHER_URL", "describes no app");
}

#[test]
fn half_an_app_is_told_and_not_used() {
    let loaded = load(&[PUSHER[0], PUSHER[1]]).expect("valid");
    assert!(loaded.config.has_demo_app());
    check_note(&loaded, "PUSHER_APP_ID", "describes no app without PUSHER_APP_SECRET");
    let loaded = load(&[("PUSHER_HOST", "ws.example"), ("PUSHER_BEAMS_ID", "x")]).expect("valid");
    check_note(&loaded, "PUSHER_HOST", "no effect here");
    assert_eq!(loaded.notes.len(), 1);
}

#[test]
fn unknown_names_are_told_with_the_nearest_and_those_of_kubernetes_let_be() {
    let loaded = load(&[("SOKETI_DEFAULT_APP_KEYS", "hidden"), ("SOKETI_PORT", "tcp://10.0.0.1:6001")])
        .expect("valid");
    check_note(&loaded, "SOKETI_DEFAULT_APP_KEYS", "did you mean SOKETI_DEFAULT_APP_KEY?");
    check_note(&loaded, "SOKETI_PORT", "Kubernetes");
}

#[test]
fn who_stays_at_home_is_told_how_to_go_out() {
    let loaded = load(&SOKETI).expect("valid");
    check_note(&loaded, "server.bind", "soketi listens on every address");
    let loaded = load(&[&SOKETI[..], &[("SOKETI_PORT", "6002")]].concat()).expect("valid");
    check_note(&loaded, "server.bind", "FANFARE_SERVER_BIND=0.0.0.0:6002");
    for settled in
        [("SOKETI_HOST", "0.0.0.0"), ("FANFARE_SERVER_BIND", "127.0.0.1:1"), ("SOKETI_HOST", "127.0.0.1")]
    {
        let loaded = load(&[&SOKETI[..], &[settled]].concat()).expect("valid");
        assert!(!loaded.notes.iter().any(|note| note.name == "server.bind"), "{settled:?}");
    }
    let loaded = load(&PUSHER).expect("valid");
    assert!(!loaded.notes.iter().any(|note| note.name == "server.bind"));
}

#[test]
fn nodes_that_are_joined_by_something_else_than_redis_are_said_to_be_missing() {
    let loaded = load(&[("SOKETI_ADAPTER_DRIVER", "nats")]).expect("valid");
    check_note(&loaded, "SOKETI_ADAPTER_DRIVER", "not supported");
    assert!(loaded.notes.iter().all(|note| note.warn));
    assert!(load(&[("SOKETI_ADAPTER_DRIVER", "local")]).expect("valid").notes.is_empty());
}

/// What a foreign configuration makes of `redis.url`, `redis.sentinels` and `redis.prefix`.
#[track_caller]
fn check_redis(loaded: Result<Loaded, String>, url: &str, sentinels: &str, prefix: &str) {
    let redis = loaded.expect(url).config.redis;
    assert_eq!((redis.url.expose(), redis.sentinels.expose(), &*redis.prefix), (url, sentinels, prefix));
}

#[test]
fn the_redis_that_joins_nodes_of_soketi_joins_ours() {
    const REDIS: (&str, &str) = ("SOKETI_ADAPTER_DRIVER", "redis");
    check_redis(load(&[REDIS]), "redis://127.0.0.1:6379", "", "fanfare");
    let of_one = [
        ("SOKETI_DB_REDIS_HOST", "r.example"),
        ("SOKETI_DB_REDIS_PORT", "6380"),
        ("SOKETI_DB_REDIS_DB", "2"),
        ("SOKETI_DB_REDIS_PASSWORD", "p@ss"),
        ("SOKETI_ADAPTER_REDIS_PREFIX", "chat:"),
        ("SOKETI_ADAPTER_REDIS_PUB_OPTIONS", r#"{"tls": {}}"#),
    ];
    let loaded = || load(&[&[REDIS], &of_one[..]].concat());
    check_redis(loaded(), "rediss://:p%40ss@r.example:6380/2", "", "chat");
    let name = "SOKETI_ADAPTER_DRIVER, SOKETI_DB_REDIS_HOST, SOKETI_DB_REDIS_PORT, SOKETI_DB_REDIS_DB, \
                SOKETI_DB_REDIS_PASSWORD, SOKETI_ADAPTER_REDIS_PUB_OPTIONS";
    check_note(&loaded().expect("valid"), name, "becomes redis.url");
    assert!(!loaded().expect("valid").show(true).contains("p%40ss"));

    let watched = [
        ("SOKETI_DB_REDIS_SENTINELS", r#"[{"host": "a", "port": 1}, {"host": "b"}]"#),
        ("SOKETI_DB_REDIS_SENTINEL_PASSWORD", "s"),
        ("SOKETI_DB_REDIS_INSTANCE_NAME", "main"),
        ("SOKETI_DB_REDIS_USERNAME", "u"),
        ("SOKETI_DB_REDIS_PASSWORD", "p"),
        ("SOKETI_DB_REDIS_HOST", "ignored"),
    ];
    let loaded = || load(&[&[REDIS], &watched[..]].concat());
    check_redis(loaded(), "redis://u:p@main", "redis://:s@a:1,redis://:s@b:26379", "fanfare");
    check_note(&loaded().expect("valid"), "SOKETI_DB_REDIS_HOST", "Sentinels know");

    let cluster = r#"{"adapter": {"driver": "redis", "redis": {"clusterMode": true}},
        "database": {"redis": {"clusterNodes": [{"host": "a", "port": 7000}, {"host": "::1", "port": "7001"}], "password": "p"}},
        "appManager.array.apps": [{"id": "1", "key": "k", "secret": "s"}]}"#;
    let loaded = load_file("soketi.json", cluster, &[]);
    check_redis(loaded, "redis://:p@a:7000,redis://:p@[::1]:7001", "", "fanfare");
}

#[test]
fn without_joined_nodes_what_is_said_of_redis_has_no_effect() {
    let loaded = load(&[("SOKETI_DB_REDIS_HOST", "r"), ("REDIS_HOST", "r"), ("REDIS_URL", "nonsense")]);
    let loaded = loaded.expect("valid");
    check_note(&loaded, "SOKETI_DB_REDIS_HOST", "not joined over Redis");
    assert_eq!(loaded.notes.len(), 1, "names of others are let be: {:?}", loaded.notes);
    assert!(loaded.config.redis.url.expose().is_empty());
}

#[test]
fn the_redis_that_scales_reverb_joins_our_nodes() {
    let scaled = |more: &[(&str, &str)]| load(&[&[("REVERB_SCALING_ENABLED", "true")], more].concat());
    check_redis(scaled(&[]), "redis://127.0.0.1:6379", "", "fanfare");
    let laravel = [
        ("REDIS_HOST", "r"),
        ("REDIS_PASSWORD", "null"),
        ("REDIS_DB", "0"),
        ("REVERB_SCALING_CHANNEL", "reverb"),
        ("REDIS_CLIENT", "phpredis"),
    ];
    check_redis(scaled(&laravel), "redis://r:6379", "", "reverb");
    let url = [("REDIS_URL", "tls://u:a%2Fb@r.example:6380?x=1"), ("REDIS_HOST", "other"), ("REDIS_DB", "3")];
    check_redis(scaled(&url), "rediss://u:a%2Fb@r.example:6380/3", "", "fanfare");
    check_problem(scaled(&[("REDIS_URL", "http://secret")]), "REDIS_URL: bad value: expected redis://");
    check_problem(scaled(&[("REDIS_PORT", "soon")]), "REDIS_PORT: bad value: expected a port");
    check_problem(load(&[("REVERB_SCALING_ENABLED", "perhaps")]), "REVERB_SCALING_ENABLED: bad value");
    // A service called redis.
    check_redis(scaled(&[("REDIS_PORT", "tcp://10.0.0.1:6379")]), "redis://127.0.0.1:6379", "", "fanfare");
    let both = [("SOKETI_ADAPTER_DRIVER", "redis"), ("REDIS_HOST", "elsewhere")];
    check_problem(scaled(&both), "contradicts SOKETI_ADAPTER_DRIVER");
}

#[test]
fn the_redis_that_joins_nodes_of_sockudo_joins_ours() {
    let convert = |file: &str| {
        let file = file.replace("APPS", r#""app_manager": {"driver": "memory"}"#);
        let converted = convert(Path::new("config.json"), &file).map_err(|error| error.to_string())?;
        load_file("fanfare.toml", &converted.toml, &[])
    };
    let one = r#"{APPS, "adapter": {"driver": "redis", "redis": {"prefix": "sockudo_adapter:"}, "cluster": {"prefix": "x", "nodes": []}},
        "database": {"redis": {"host": "rediss://r", "port": 6380, "password": "p", "sentinels": [], "master_tls": {"ca_path": "ca.pem"}}}}"#;
    check_redis(convert(one), "rediss://:p@r:6380", "", "sockudo_adapter");
    assert_eq!(convert(one).expect("valid").config.redis.tls_ca_file, "ca.pem");
    let many = r#"{APPS, "adapter": {"driver": "redis-cluster", "cluster": {"nodes": ["redis://a:7000", "b:7001"], "prefix": "c:"}}}"#;
    check_redis(convert(many), "redis://a:7000,redis://b:7001", "", "c");
    let with_password = r#"{APPS, "adapter": {"driver": "redis-cluster"},
        "database": {"redis": {"cluster": {"nodes": [{"host": "rediss://a", "port": 7000}, {"host": "b", "port": 7001}],
        "password": "p", "use_tls": true}, "master_tls": {"ca_path": "ca.pem"}}}}"#;
    check_redis(convert(with_password), "rediss://:p@a:7000,rediss://:p@b:7001", "", "fanfare");
    let plain = r#"{APPS, "adapter": {"driver": "redis"}, "database": {"redis": {"host": "::1", "master_tls": {"ca_path": "ca.pem"}}}}"#;
    check_redis(convert(plain), "redis://[::1]:6379", "", "fanfare");
    assert_eq!(convert(plain).expect("valid").config.redis.tls_ca_file, "");
    let none = r#"{APPS, "adapter": {"driver": "kafka"}}"#;
    check_redis(convert(none), "", "", "fanfare");
}

#[test]
fn apps_in_a_database_of_soketi_are_found_there() {
    let environment = [
        ("SOKETI_APP_MANAGER_DRIVER", "mysql"),
        ("SOKETI_DB_MYSQL_HOST", "db"),
        ("SOKETI_DB_MYSQL_PASSWORD", "p@ss"),
        ("SOKETI_APP_MANAGER_MYSQL_TABLE", "applications"),
        ("SOKETI_APP_MANAGER_CACHE_TTL", "30"),
        ("SOKETI_HOST", "0.0.0.0"),
    ];
    let loaded = load(&environment).expect("valid");
    assert_eq!(loaded.config.store.url.expose(), "mysql://root:p%40ss@db:3306/main");
    assert!(loaded.config.apps.is_empty());
    check_shown(
        Ok(loaded),
        &[
            "store.schema = \"soketi\"  # SOKETI_APP_MANAGER_DRIVER",
            "store.table = \"applications\"  # SOKETI_APP_MANAGER_MYSQL_TABLE",
            "store.cache_ttl_s = 30  # SOKETI_APP_MANAGER_CACHE_TTL",
        ],
    );
    check_problem(load(&[("SOKETI_APP_MANAGER_DRIVER", "dynamodb")]), "DynamoDB");
}

#[test]
fn reverb_is_understood() {
    let more = [
        ("REVERB_SERVER_HOST", "127.0.0.1"),
        ("REVERB_SERVER_PORT", "8080"),
        ("REVERB_APP_PING_INTERVAL", "45"),
        ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none"),
        ("REVERB_MAX_REQUEST_SIZE", "20_000"),
    ];
    check_shown(
        load(&[&REVERB[..], &more].concat()),
        &[
            "server.bind = \"127.0.0.1:8080\"  # REVERB_SERVER_HOST, REVERB_SERVER_PORT",
            "connection.ping_after_s = 45  # REVERB_APP_PING_INTERVAL",
            "apps[0].client_events = false  # REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM",
            "apps[0].event_data_bytes_max = 20000  # REVERB_MAX_REQUEST_SIZE",
        ],
    );
    check_shown(load(&REVERB), &["apps[0].client_events = true  # how Reverb behaves"]);
}

#[test]
fn soketi_s_file_is_a_configuration_and_its_variables_come_after_it() {
    let file = r#"{ "port": 6002, "metrics": {"enabled": true}, "appManager.array.apps":
        [{ "id": 5, "key": "k", "secret": "hidden", "max_connections": "10" }, { "id": "6", "key": "l", "secret": "hidden" }] }"#;
    let variables = [("SOKETI_PORT", "6003"), ("SOKETI_DEFAULT_APP_KEY", "other")];
    let shown = load_file("soketi.json", file, &variables).expect("valid").show(true);
    assert!(!shown.contains("hidden"), "{shown}");
    for (key, origin) in [
        ("server.bind = \"127.0.0.1:6003\"", "SOKETI_PORT"),
        ("metrics.soketi_names = true", "soketi.json: metrics.enabled"),
        ("apps[0].keys = [{ key = \"other\"", "soketi.json: appManager.array.apps[0]"),
        ("apps[0].connections_max = 10", "soketi.json: appManager.array.apps[0].max_connections"),
        ("apps[1].id = \"6\"", "soketi.json: appManager.array.apps[1]"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(key));
        assert!(line.is_some_and(|line| line.ends_with(origin)), "{key} from {origin} in\n{shown}");
    }
    let loaded = load_file("soketi.json", file, &[("SOKETI_METRICS_ENABLED", "false")]).expect("valid");
    assert!(!loaded.config.metrics.soketi_names);
    let dotted = r#"{"appManager.array.apps.0.id": "1", "appManager.array.apps.0.key": "k", "appManager.array.apps.0.secret": "s"}"#;
    assert_eq!(load_file("soketi.json", dotted, &[]).expect("valid").config.apps.len(), 1);
    assert_eq!(load_file("config", dotted, &[]).expect("valid").config.apps.len(), 1);
}

#[test]
fn mistakes_in_soketi_s_file_name_their_place() {
    let app = r#""appManager": {"array": {"apps": [{"id": "1", "key": "k", "secret": "hidden"}]}}"#;
    let with = |more: &str| load_file("soketi.json", &format!("{{{more}, {app}}}"), &[]);
    check_problem(with(r#""port": "soon""#), "soketi.json: port: bad value: expected a port");
    check_problem(with(r#""metrics": true"#), "soketi.json: metrics: expected a block");
    check_problem(
        with(r#""eventLimits": {"maxPayloadInKb": []}"#),
        "soketi.json: eventLimits.maxPayloadInKb: bad value",
    );
    check_problem(with(r#""ssl": {"certPath": "a.pem"}"#), "tls.certificate and tls.key belong together");
    check_problem(load_file("soketi.json", "{\n  oops", &[]), "soketi.json:2: not JSON");
    check_problem(load_file("soketi.json", "[]", &[]), "soketi.json: expected the keys");
    check_problem(
        load_file("soketi.json", r#"{"appManager.array.apps": [{"id": "1", "key": "k"}]}"#, &[]),
        "soketi.json: appManager.array.apps[0]: the app has no secret",
    );
    let loaded = with(r#""eventLimit": {"maxBatchSize": 1}"#).expect("valid");
    let note = loaded.notes.iter().find(|note| note.name.ends_with("eventLimit")).expect("a note");
    assert!(note.message.contains("did you mean eventLimits."), "{note:?}");
    let twice =
        r#"{"appManager.array.apps": [{"id":"1","key":"k","secret":"s"},{"id":"1","key":"l","secret":"s"}]}"#;
    check_problem(load_file("soketi.json", twice, &[]), "two apps have the id 1");
    check_problem(load_file("c.json", r#"{"app_manager": {}}"#, &[]), "fanfare config convert");
}

#[test]
fn a_webhook_s_mistakes_are_told_without_its_secrets() {
    let with = |webhook: &str| {
        let apps = format!(
            r#"{{"appManager.array.apps": [{{"id":"1","key":"k","secret":"s","webhooks":[{webhook}]}}]}}"#
        );
        load_file("soketi.json", &apps, &[])
    };
    check_problem(with(r#"{"url": "ftp://x", "event_types": ["cache_miss"]}"#), "webhooks[0].url: bad value");
    check_problem(
        with(r#"{"url": "https://x.example", "event_types": ["no"]}"#),
        "webhooks[0].event_types: bad value",
    );
    check_problem(with("1"), "webhooks[0]: bad value");
    let lambda =
        with(r#"{"lambda_function": "f", "lambda": {}, "event_types": ["cache_miss"]}"#).expect("valid");
    assert!(lambda.config.apps[0].webhooks.is_empty());
    assert!(lambda.notes.iter().any(|note| note.message.contains("Lambda")));
    let private = with(
        r#"{"url": "http://app:80/hidden", "event_types": ["cache_miss"], "filter": {"channel_name_ends_with": "x"}}"#,
    );
    let notes = private.expect("valid").notes;
    assert!(notes.iter().any(|note| note.message.contains("allowed_networks")), "{notes:?}");
    assert!(notes.iter().any(|note| note.name.ends_with("filter.channel_name_ends_with")), "{notes:?}");
    assert!(!format!("{notes:?}").contains("hidden"));
}

#[test]
fn what_is_converted_loads_and_says_the_same() {
    for name in ["soketi.json", "soketi.env", "laravel.env", "pusher.env", "sockudo.json", "sockudo.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/migration").join(name);
        let text = std::fs::read_to_string(&path).expect(name);
        let converted = convert(&path, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut ours = load_file("fanfare.toml", &converted.toml, &[])
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", converted.toml));
        assert!(ours.notes.is_empty() && ours.warnings.is_empty());
        let mut theirs = match name {
            "soketi.json" => load_file(name, &text, &[]),
            name if name.ends_with(".env") => {
                let variables = super::dotenv::parse(&text).expect(name);
                let variables: Vec<(&str, &str)> =
                    variables.iter().map(|(name, value)| (&**name, &**value)).collect();
                load(&variables)
            }
            _ => continue,
        }
        .expect(name);
        assert_eq!(ours.show(false), theirs.show(false), "{name}\n{}", converted.toml);
        assert_eq!(ours.config.apps, theirs.config.apps, "{name}");
    }
}

#[test]
fn odd_texts_survive_the_conversion() {
    let secret = "a\"b\\c\u{7f}\u{1}\nü#";
    let file = serde_json::json!({
        "appManager.array.apps": [{ "id": "1", "key": "k", "secret": secret }],
        "odd\n[server]\nbind = 1": 1,
    });
    let converted = convert(Path::new("soketi.json"), &file.to_string()).expect("converted");
    let loaded = load_file("fanfare.toml", &converted.toml, &[])
        .unwrap_or_else(|error| panic!("{error}\n{}", converted.toml));
    let ours = loaded.config.apps[0].secret("k").expect("the key");
    assert_eq!(ours.sign(&[b"x"]), crate::protocol::Secret::new(secret).sign(&[b"x"]));
}

#[test]
fn what_cannot_be_converted_says_why() {
    let error = |name: &str, text: &str| convert(Path::new(name), text).expect_err(name).to_string();
    assert!(error("reverb.php", "<?php return [];").contains("convert that"));
    assert!(error("fanfare.toml", "[server]\nworkers = 1").contains("needs no change"));
    assert!(error(".env", "APP_NAME=x\n").contains("nothing in it is understood"));
    assert!(error("x.env", "A=1\nsecret\n").contains("x.env:2"));
    assert!(error("x.json", "{").contains("not JSON"));
}

/// A table of the names of one server for its page, neighbours of one meaning in one line.
fn table(dialect: &Dialect) -> String {
    let mut lines: Vec<(Vec<String>, String)> = Vec::new();
    for row in dialect.app_rows.iter().chain(dialect.rows) {
        let path = row.path.split('|').next().unwrap_or_default();
        let name = if row.variable.is_empty() { path } else { row.variable };
        let in_app = dialect.app_rows.iter().any(|of_app| std::ptr::eq(of_app, row));
        let ours = match row.becomes {
            Becomes::Setting(key, _) | Becomes::AtLeast(key, _) | Becomes::EveryApp(key, _)
                if in_app || matches!(row.becomes, Becomes::EveryApp(..)) =>
            {
                format!("`apps.{key}`")
            }
            Becomes::Setting(key, _) | Becomes::AtLeast(key, _) | Becomes::EveryApp(key, _) => {
                format!("`{key}`")
            }
            Becomes::Part(part) => format!("`{}`", part.of().replace(", ", "`, `")),
            Becomes::Nothing(why) => why.to_owned(),
            Becomes::Missing { fine: [], why } => format!("not supported: {why}"),
            Becomes::Missing { fine, why } => {
                format!("not supported other than as `{}`: {why}", fine.join("`, `"))
            }
        };
        let name = format!("`{name}`");
        match lines.last_mut() {
            Some((names, last)) if *last == ours => names.push(name),
            _ => lines.push((vec![name], ours)),
        }
    }
    let line = |(names, ours): (Vec<String>, String)| format!("| {} | {ours} |\n", names.join(" "));
    lines.into_iter().map(line).collect()
}

#[test]
fn the_pages_have_every_name() {
    let pages = ["soketi", "reverb", "pusher", "sockudo"];
    let mut lacking = String::new();
    for (page, dialect) in pages.into_iter().zip(FAMILIES.iter().copied().chain([&SOCKUDO])) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrate").join(format!("{page}.md"));
        let text = std::fs::read_to_string(path).expect(page);
        let table = table(dialect);
        if !text.contains(&table) {
            lacking += &format!("docs/migrate/{page}.md lacks this table:\n{table}\n");
        }
    }
    assert!(lacking.is_empty(), "{lacking}");
}

#[test]
fn a_key_with_dots_without_end_is_one_unknown_key() {
    let deep = format!(
        r#"{{"a{}": 1, "appManager.array.apps": [{{"id": "1", "key": "k", "secret": "s"}}]}}"#,
        ".a".repeat(200_000)
    );
    let loaded = load_file("soketi.json", &deep, &[]).expect("valid");
    assert_eq!(loaded.config.apps.len(), 1);
    assert!(
        loaded.notes.iter().any(|note| note.message.contains("unknown to soketi")),
        "{:#?}",
        loaded.notes
    );
}
