//! Apps in a database: SQLite, PostgreSQL and MariaDB, in our own table and in soketi's.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, Api, Backend, Client, Database, Finished, Http, Kind, PASSWORD, Process, TOKEN, fanfare, run,
    until, until_within,
};

/// Free ports, whatever else this machine serves.
const AT_HOME: [(&str, &str); 3] = [
    ("FANFARE_SERVER_BIND", "127.0.0.1:0"),
    ("FANFARE_METRICS_BIND", "127.0.0.1:0"),
    ("FANFARE_ADMIN_BIND", ""),
];

/// Servers and commands of one store.
struct Lab {
    database: Database,
    settings: Vec<(String, String)>,
}

/// A server of a lab.
struct Node {
    process: Process,
    api: Api,
    metrics: std::net::SocketAddr,
}

impl Lab {
    fn start(kind: Kind, settings: &[(&str, &str)]) -> Option<Self> {
        let database = Database::start(kind)?;
        let mut all = vec![("FANFARE_STORE_URL".to_owned(), database.url())];
        all.extend(AT_HOME.map(|(name, value)| (name.to_owned(), value.to_owned())));
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Some(Self { database, settings: all })
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    fn app(&self, arguments: &[&str]) -> Finished {
        run(&[&["app"], arguments].concat(), &self.environment())
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Value {
        let finished = self.app(&[arguments, &["--json"]].concat());
        assert_eq!(finished.code, Some(0), "{finished:?}");
        serde_json::from_str(&finished.stdout).expect("JSON")
    }

    fn serve(&self, arguments: &[&str]) -> Node {
        self.serve_with(fanfare(arguments))
    }

    fn serve_with(&self, mut command: Command) -> Node {
        command.envs(self.environment());
        let process = Process::spawn(command);
        let metrics = process.announced("metrics on http://");
        let api = Api::new(process.listening());
        Node { process, api, metrics }
    }
}

impl Node {
    /// The app that a command made.
    fn of(&self, made: &Value) -> Api {
        let text = |name: &str| made[name].as_str().expect("a text");
        self.api.of_app(text("id"), text("key"), text("secret"))
    }

    #[track_caller]
    fn connect(&self, made: &Value) -> Client {
        Client::connect(&self.of(made), &path(made))
    }

    #[track_caller]
    fn refused(&self, made: &Value, code: u16) {
        self.api.refused(&path(made), code);
    }

    /// A figure of the metrics page.
    fn figure(&self, name: &str) -> f64 {
        let mut http = Http::connect(self.metrics);
        http.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let page = http.reply().body;
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{name}: {page}"))
    }

    /// Stops and gives the log.
    fn stop(self) -> String {
        self.process.signal("TERM");
        let finished = self.process.finish();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!said.contains(PASSWORD), "{said}");
        said
    }
}

fn path(made: &Value) -> String {
    format!("/app/{}?protocol=7", made["key"].as_str().expect("a key"))
}

/// Whether an app can be used, by its clients and its backend.
#[track_caller]
fn expect_served(node: &Node, made: &Value) {
    let mut client = node.connect(made);
    client.subscribe("private-room");
    node.of(made).publish("private-room", "e", "d");
    client.expect_event("private-room", "e", "d");
}

fn unknown(key: &str) -> Value {
    json!({ "id": key, "key": key, "secret": "s" })
}

/// An app from its making to its end, while a server runs.
fn check_life(kind: Kind) {
    let quick = [("FANFARE_STORE_CACHE_TTL_S", "1"), ("FANFARE_STORE_UNKNOWN_TTL_S", "600")];
    let Some(lab) = Lab::start(kind, &quick) else { return };
    let node = lab.serve(&["serve"]);
    node.api.refused("/app/demo-key?protocol=7", 4001);

    let first = lab.done(&["create", "--client-events", "--webhook", "https://a.example/"]);
    assert_eq!(first["id"], "1");
    expect_served(&node, &first);
    // A backend is as good as a client to begin with.
    let second = lab.done(&["create", "--set", "event_name_max=10"]);
    node.of(&second).publish("room", "e", "d");
    let event = json!({ "name": "e".repeat(11), "channels": ["room"], "data": "" });
    assert_eq!(node.of(&second).trigger(&event).status, 400);
    assert_eq!(lab.app(&["create", "--id", "2"]).code, Some(1));

    // What no database should be asked for is nobody's, and upsets none.
    for key in ["guess", "%00", "a%20b", "%C3%A9", "%F0%9F%8E%89", &"x".repeat(300)] {
        node.refused(&unknown(key), 4001);
    }
    assert_eq!(node.of(&unknown("guess")).get("/channels").send().status, 404);
    assert_eq!(node.figure("fanfare_store_query_errors_total"), 0.0);

    // A new pair is good at once, for clients and for the backend, and the old one until it is dropped.
    let rotated = lab.done(&["rotate", "1"]);
    node.of(&rotated).publish("room", "e", "d");
    expect_served(&node, &rotated);
    expect_served(&node, &first);
    lab.done(&["rotate", "1", "--drop-old"]);
    until("the old key is gone", || node.of(&first).get("/channels").send().status == 401);
    expect_served(&node, &rotated);

    let mut client = node.connect(&rotated);
    lab.done(&["disable", "1"]);
    client.expect_error_code(&json!(4003));
    client.expect_close(4003);
    node.refused(&rotated, 4003);
    lab.done(&["enable", "1"]);
    until("it is enabled", || node.of(&rotated).get("/channels").send().status == 200);
    let mut client = node.connect(&rotated);
    lab.done(&["delete", "1"]);
    client.expect_error_code(&json!(4001));
    client.expect_close(4001);
    assert_eq!(lab.app(&["show", "1"]).code, Some(1));
    assert_eq!(lab.app(&["delete", "1"]).code, Some(1));
    node.stop();
}

#[test]
fn who_guesses_is_not_worth_a_query_each_time() {
    let lab = Lab::start(Kind::Sqlite, &[]).expect("SQLite is everywhere");
    let made = lab.done(&["create"]);
    let found_with = |ttl: &str| {
        let mut command = fanfare(&["serve"]);
        command.env("FANFARE_STORE_UNKNOWN_TTL_S", ttl);
        let node = lab.serve_with(command);
        node.refused(&unknown("guess"), 4001);
        assert_eq!(node.of(&unknown("guess")).get("/channels").send().status, 404);
        let queries = node.figure("fanfare_store_queries_total");
        assert_eq!(queries, 2.0);
        for _ in 0..5 {
            node.refused(&unknown("guess"), 4001);
        }
        node.figure("fanfare_store_queries_total") - queries
    };
    assert_eq!(found_with("600"), 0.0);
    assert_eq!(found_with("0"), 5.0);

    let node = lab.serve(&["serve"]);
    for _ in 0..5 {
        expect_served(&node, &made);
    }
    assert_eq!(node.figure("fanfare_store_queries_total"), 1.0);
    assert_eq!(node.figure("fanfare_store_apps"), 1.0);
    assert_eq!(node.figure("fanfare_store_query_seconds_count"), 1.0);
}

#[test]
fn an_app_lives_in_sqlite() {
    check_life(Kind::Sqlite);
}

#[test]
fn an_app_lives_in_postgresql() {
    check_life(Kind::Postgres);
}

#[test]
fn an_app_lives_in_mariadb() {
    check_life(Kind::MariaDb);
}

/// A database that dies and comes back.
fn check_outage(kind: Kind) {
    let quick = [("FANFARE_STORE_CACHE_TTL_S", "1"), ("FANFARE_STORE_TIMEOUT_S", "2")];
    let Some(mut lab) = Lab::start(kind, &quick) else { return };
    // Nodes that start together make the tables once.
    let together: Vec<Process> = (0..4)
        .map(|_| {
            let mut command = fanfare(&["app", "list"]);
            command.envs(lab.environment()).env("FANFARE_STORE_TIMEOUT_S", "60");
            Process::spawn(command)
        })
        .collect();
    for process in together {
        let finished = process.finish();
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
    let known = lab.done(&["create"]);
    let later = lab.done(&["create"]);
    let node = lab.serve(&["serve"]);
    let mut client = node.connect(&known);
    client.subscribe("room");
    assert_eq!(node.figure("fanfare_store_up"), 1.0);

    lab.database.kill();
    node.refused(&later, 4100);
    let mut http = Http::connect(node.api.address());
    http.send(node.of(&later).get("/channels").bytes());
    let reply = http.reply();
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true));
    assert_eq!(node.figure("fanfare_store_up"), 0.0);
    node.of(&known).publish("room", "e", "d");
    client.expect_event("room", "e", "d");
    expect_served(&node, &known);

    lab.database.serve();
    until_within(std::time::Duration::from_secs(60), "the store is back", || {
        node.figure("fanfare_store_up") == 1.0
    });
    expect_served(&node, &later);
    client.expect_served();
    let log = node.stop();
    for (line, times) in [("the store of apps is away", 1), ("the store of apps is back", 1)] {
        assert_eq!(log.matches(line).count(), times, "{line}: {log}");
    }
}

#[test]
fn known_apps_go_on_while_postgresql_is_away() {
    check_outage(Kind::Postgres);
}

#[test]
fn known_apps_go_on_while_mariadb_is_away() {
    check_outage(Kind::MariaDb);
}

#[test]
fn a_store_that_hangs_is_as_good_as_away() {
    let Some(lab) = Lab::start(Kind::MariaDb, &[("FANFARE_STORE_TIMEOUT_S", "1")]) else { return };
    let known = lab.done(&["create"]);
    let later = lab.done(&["create"]);
    let node = lab.serve(&["serve"]);
    expect_served(&node, &known);
    lab.database.signal("STOP");
    node.refused(&later, 4100);
    expect_served(&node, &known);
    lab.database.signal("CONT");
    until("the store is back", || node.figure("fanfare_store_up") == 1.0);
    expect_served(&node, &later);
    node.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_store_that_is_read_again() {
    let Some(mut lab) = Lab::start(Kind::MariaDb, &[("FANFARE_STORE_TIMEOUT_S", "3600")]) else { return };
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    lab.settings.push(("NOTIFY_SOCKET".to_owned(), path.to_str().expect("a path in UTF-8").to_owned()));
    let app = lab.done(&["create"]);
    let node = lab.serve(&["serve"]);
    expect_served(&node, &app);
    lab.database.signal("STOP");
    node.process.signal("HUP");
    let mut told = [0; 512];
    until("the configuration is read again", || {
        let length = systemd.recv(&mut told).unwrap_or_default();
        told[..length].starts_with(b"RELOADING=1")
    });
    node.process.signal("TERM");
    assert_eq!(node.process.finish().code, Some(0));
    lab.database.signal("CONT");
}

/// soketi's own schema for MySQL, from its repository's tests.
const SOKETI_MYSQL: &str = "
CREATE TABLE IF NOT EXISTS `apps` (
    `id` varchar(255) NOT NULL,
    `key` varchar(255) NOT NULL,
    `secret` varchar(255) NOT NULL,
    `max_connections` integer(10) NOT NULL,
    `enabled` tinyint(1) NOT NULL,
    `enable_client_messages` tinyint(1) NOT NULL,
    `max_backend_events_per_sec` integer(10) NOT NULL,
    `max_client_events_per_sec` integer(10) NOT NULL,
    `max_read_req_per_sec` integer(10) NOT NULL,
    `webhooks` json,
    `max_presence_members_per_channel` tinyint(1) NULL,
    `max_presence_member_size_in_kb` tinyint(1) NULL,
    `max_channel_name_length` tinyint(1) NULL,
    `max_event_channels_at_once` tinyint(1) NULL,
    `max_event_name_length` tinyint(1) NULL,
    `max_event_payload_in_kb` tinyint(1) NULL,
    `max_event_batch_size` tinyint(1) NULL,
    `enable_user_authentication` tinyint(1) NOT NULL,
    PRIMARY KEY (`id`)
)";

/// The same for PostgreSQL.
const SOKETI_POSTGRES: &str = "
CREATE TABLE IF NOT EXISTS apps (
    id varchar(255) PRIMARY KEY,
    \"key\" varchar(255) NOT NULL,
    secret varchar(255) NOT NULL,
    max_connections integer NOT NULL,
    enable_client_messages smallint NOT NULL,
    \"enabled\" smallint NOT NULL,
    max_backend_events_per_sec integer NOT NULL,
    max_client_events_per_sec integer NOT NULL,
    max_read_req_per_sec integer NOT NULL,
    webhooks json,
    max_presence_members_per_channel integer DEFAULT NULL,
    max_presence_member_size_in_kb integer DEFAULT NULL,
    max_channel_name_length integer DEFAULT NULL,
    max_event_channels_at_once integer DEFAULT NULL,
    max_event_name_length integer DEFAULT NULL,
    max_event_payload_in_kb integer DEFAULT NULL,
    max_event_batch_size integer DEFAULT NULL,
    enable_user_authentication smallint NOT NULL
)";

/// soketi's table, served as it is.
fn check_soketi(kind: Kind) {
    let Some(lab) =
        Lab::start(kind, &[("FANFARE_STORE_SCHEMA", "soketi"), ("FANFARE_STORE_CACHE_TTL_S", "1")])
    else {
        return;
    };
    if kind == Kind::Sqlite {
        lab.database.sql("CREATE TABLE other (id INTEGER)");
    }
    let missing = run(&["serve"], &lab.environment());
    assert!(missing.code == Some(1) && missing.stderr.contains("there is no table apps"), "{missing:?}");
    let quote = if kind == Kind::MariaDb { "`" } else { "\"" };
    lab.database.sql(if kind == Kind::MariaDb { SOKETI_MYSQL } else { SOKETI_POSTGRES });
    let insert = |id: &str, key: &str, secret: &str, more: &str, values: &str| {
        let names = "max_connections, enable_client_messages, enabled, max_backend_events_per_sec, \
                     max_client_events_per_sec, max_read_req_per_sec, enable_user_authentication";
        lab.database.sql(&format!(
            "INSERT INTO apps (id, {quote}key{quote}, secret, {names}, webhooks{more}) VALUES \
             ('{id}', '{key}', '{secret}', -1, 1, 1, -1, -1, -1, 0, {values})"
        ));
    };
    insert("one", "key-one", "secret-one", "", "'[]'");
    let webhook = r#"'[{"lambda_function": "f", "event_types": ["channel_occupied"]}]'"#;
    insert("two", "key-two", "secret-two", ", max_event_name_length", &format!("{webhook}, 5"));
    insert("bad", "key-bad", "", "", "NULL");
    insert("twin", "key-one", "secret-twin", "", "NULL");

    let node = lab.serve(&["serve"]);
    let made = |id: &str| json!({ "id": id, "key": format!("key-{id}"), "secret": format!("secret-{id}") });
    expect_served(&node, &made("one"));
    let mut client = node.connect(&made("one"));
    client.subscribe("private-room");
    client.say("private-room", "client-x", &json!(1));
    client.expect_served();
    node.of(&made("two")).publish("room", "short", "d");
    let event = json!({ "name": "longer", "channels": ["room"], "data": "" });
    assert_eq!(node.of(&made("two")).trigger(&event).status, 400);
    node.refused(&made("bad"), 4001);
    node.refused(&made("KEY-ONE"), 4001);
    assert_eq!(node.of(&made("twin")).get("/channels").send().status, 404);
    assert!(node.figure("fanfare_store_rows_skipped_total") >= 1.0);
    lab.database.sql("UPDATE apps SET enabled = 0 WHERE id = 'one'");
    client.expect_error_code(&json!(4003));
    client.expect_close(4003);

    let listed = lab.done(&["list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    for arguments in [&["create"][..], &["rotate", "one"], &["disable", "one"], &["delete", "one"]] {
        let finished = lab.app(arguments);
        assert!(finished.code == Some(1) && finished.stderr.contains("only read"), "{finished:?}");
    }
    let log = node.stop();
    for part in ["skipped", "secret is empty", "Lambda", "key-one belongs to another app", "app=\"bad\""] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("secret-"), "{log}");
    let url = lab.database.url();
    let ours = run(&["serve"], &[&[("FANFARE_STORE_URL", &*url)], &AT_HOME[..]].concat());
    assert!(ours.code == Some(1) && ours.stderr.contains("store.schema to \"soketi\""), "{ours:?}");
}

#[test]
fn the_table_of_soketi_is_served_from_sqlite() {
    check_soketi(Kind::Sqlite);
}

#[test]
fn the_table_of_soketi_is_served_from_postgresql() {
    check_soketi(Kind::Postgres);
}

#[test]
fn the_table_of_soketi_is_served_from_mariadb() {
    check_soketi(Kind::MariaDb);
}

#[test]
fn the_file_and_the_store_are_served_together_and_the_file_wins() {
    let lab = Lab::start(Kind::Sqlite, &[]).expect("SQLite is everywhere");
    let stored = lab.done(&["create", "--id", "7"]);
    lab.done(&["create", "--id", "8"]);
    let keys = r#"[{"key": "app-key", "secret": "theirs"}]"#;
    lab.database.sql(&format!("UPDATE apps SET keys = '{keys}' WHERE id = '8'"));
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("fanfare.toml");
    let text = "[[apps]]\nid = \"1\"\nkeys = [{ key = \"app-key\", secret = \"app-secret\" }]\n";
    std::fs::write(&file, text).expect("a file");
    let named = file.to_str().expect("UTF-8");
    // An id of the file is no free one.
    lab.database.sql("UPDATE apps SET settings = '{\"connections_max\": 5}' WHERE id = '7'");
    assert_eq!(lab.app(&["create", "--id", "1", "--config", named]).code, Some(1));
    assert_eq!(lab.done(&["list", "--file", "--config", named])[0]["id"], "1");

    let node = lab.serve(&["serve", "--config", named]);
    node.api.expect_healthy();
    expect_served(&node, &stored);
    assert_eq!(node.api.of_app("8", "app-key", "theirs").get("/channels").send().status, 404);
    let log = node.stop();
    assert!(log.contains("the key app-key belongs to another app"), "{log}");
}

#[test]
fn an_app_moves_from_the_file_to_the_store_and_back_and_nobody_is_dropped() {
    let lab =
        Lab::start(Kind::Sqlite, &[("FANFARE_SERVER_WATCH_CONFIG", "false")]).expect("SQLite is everywhere");
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("fanfare.toml");
    let named = file.to_str().expect("UTF-8");
    let made = lab.done(&["create", "--file", "--config", named, "--id", "7"]);
    let text = std::fs::read_to_string(&file).expect("a file");
    let node = lab.serve(&["serve", "--config", named]);
    let mut client = node.connect(&made);
    client.subscribe("room");
    let reload = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        node.process.signal("HUP");
        node.process.error_with("reloaded");
        node.of(&made).publish("room", "e", text);
    };

    lab.done(&["create", "--id", "7"]);
    let keys = json!([{ "key": made["key"], "secret": made["secret"] }]);
    lab.database.sql(&format!("UPDATE apps SET keys = '{keys}' WHERE id = '7'"));
    lab.database.sql(&format!("UPDATE apps_keys SET app_key = '{}'", made["key"].as_str().expect("a key")));
    for text in ["# moved", &text, "# moved again"] {
        reload(text);
        client.expect_event("room", "e", text);
    }
    assert_eq!(lab.done(&["delete", "7"])["deleted"], true);
    node.process.signal("HUP");
    client.expect_error_code(&json!(4001));
    client.expect_close(4001);
}

#[test]
fn a_stop_does_not_wait_for_a_reload() {
    let settings = [("FANFARE_STORE_TIMEOUT_S", "600"), ("FANFARE_STORE_CACHE_TTL_S", "600")];
    let token = ("FANFARE_ADMIN_TOKEN", "an-admin-token-of-some-length");
    let Some(lab) = Lab::start(Kind::MariaDb, &[&settings[..], &[token]].concat()) else { return };
    let made = lab.done(&["create"]);
    let mut command = fanfare(&["serve"]);
    command.envs(lab.environment()).env("FANFARE_ADMIN_BIND", "127.0.0.1:0");
    let process = Process::spawn(command);
    let admin = process.announced("admin API on http://");
    let node = Api::new(process.listening()).of_app("1", made["key"].as_str().expect("a key"), "");
    let client = Client::connect(&node, &path(&made));
    lab.database.signal("STOP");
    let request = |order: &str| {
        format!("POST /admin/v1/{order} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", token.1)
    };
    let mut operator = Http::connect(admin);
    operator.send(request("reload"));
    process.error_with("an operator orders to reload");
    let mut other = Http::connect(admin);
    other.send(request("drain"));
    assert_eq!(other.reply().status, 202);
    client.expect_end_with(4200);
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn a_store_that_cannot_be_used_stops_the_start() {
    let folder = TempDir::new().expect("a folder");
    let within = |name: &str| folder.path().join(name).display().to_string();
    for (url, part) in [
        (
            format!("postgres://ann:{PASSWORD}@localhost/db?host={}", within("none")),
            "postgres://ann:********@localhost/db",
        ),
        (
            format!("mysql://ann:{PASSWORD}@localhost/db?socket={}", within("none")),
            "mysql://ann:********@localhost/db",
        ),
        (format!("sqlite:{}", within("none/apps.db")), "none/apps.db"),
        (format!("oracle://ann:{PASSWORD}@localhost/db"), "expected sqlite:FILE"),
        (format!("postgres://ann:{PASSWORD}@localhost:port/db"), "store.url"),
    ] {
        for command in [&["serve"][..], &["app", "list"]] {
            let settings = [("FANFARE_STORE_URL", &*url), ("FANFARE_STORE_TIMEOUT_S", "2")];
            let finished = run(command, &[&settings, &AT_HOME[..]].concat());
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert!(finished.stderr.contains(part), "{part}: {finished:?}");
            assert!(!finished.stderr.contains(PASSWORD), "{finished:?}");
        }
    }
    let url = format!("sqlite:{}", within("apps.db"));
    let run_with = |name: &str, value: &str| {
        run(&["serve"], &[&[("FANFARE_STORE_URL", &*url), (name, value)], &AT_HOME[..]].concat())
    };
    let quoted = run_with("FANFARE_STORE_TABLE", "apps\"; DROP TABLE apps");
    assert!(quoted.code == Some(1) && quoted.stderr.contains("store.table"), "{quoted:?}");
    let listed = run(&["app", "list"], &[("FANFARE_STORE_URL", &*url)]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
}

#[test]
fn over_a_restart_apps_of_the_store_keep_their_webhooks() {
    let (backend, folder) = (Backend::start(), TempDir::new().expect("a folder"));
    let file = folder.path().join("state.json");
    let settings = [
        ("FANFARE_WEBHOOKS_STATE_FILE", file.to_str().expect("a path in UTF-8")),
        ("FANFARE_WEBHOOKS_ALLOWED_NETWORKS", "127.0.0.0/8"),
        ("FANFARE_WEBHOOKS_DEBOUNCE_S", "1"),
    ];
    let lab = Lab::start(Kind::Sqlite, &settings).expect("SQLite needs no server");
    let app = lab.done(&["create", "--webhook", &backend.url()]);
    let before = lab.serve(&["serve"]);
    let mut client = before.connect(&app);
    client.subscribe("news");
    assert_eq!(backend.event(), json!({ "name": "channel_occupied", "channel": "news" }));
    before.stop();
    assert!(file.exists());
    let after = lab.serve(&["serve"]);
    // Nobody has asked for the app in this run.
    assert_eq!(backend.event(), json!({ "name": "channel_vacated", "channel": "news" }));
    assert!(!file.exists());
    after.stop();
}

#[test]
fn a_dead_letter_of_an_app_that_nobody_uses_is_replayed() {
    let (backend, folder) = (Backend::with(|_| Answer::Status(500)), TempDir::new().expect("a folder"));
    let file = folder.path().join("state.json");
    let settings = [
        ("FANFARE_WEBHOOKS_STATE_FILE", file.to_str().expect("a path in UTF-8")),
        ("FANFARE_WEBHOOKS_ALLOWED_NETWORKS", "127.0.0.0/8"),
        ("FANFARE_WEBHOOKS_DEBOUNCE_S", "0"),
        ("FANFARE_WEBHOOKS_RETRY_S", "0"),
        ("FANFARE_ADMIN_BIND", "127.0.0.1:0"),
        ("FANFARE_ADMIN_TOKEN", TOKEN),
    ];
    let lab = Lab::start(Kind::Sqlite, &settings).expect("SQLite needs no server");
    let app = lab.done(&["create", "--webhook", &backend.url()]);
    let before = lab.serve(&["serve"]);
    let mut client = before.connect(&app);
    client.subscribe("news");
    client.leave();
    until("dead letters", || before.figure("fanfare_webhook_dead_letters") == 2.0);
    before.stop();
    backend.so_far();
    let mut command = fanfare(&["serve"]);
    command.envs(lab.environment());
    let after = Process::spawn(command);
    let url = format!("http://{}", after.announced("admin API on http://"));
    let replay = ["webhooks", "replay", "--all", "--url", &url];
    let replayed = run(&replay, &[("FANFARE_ADMIN_TOKEN", TOKEN)]);
    assert!(replayed.code == Some(0) && replayed.stdout.contains('2'), "{replayed:?}");
    assert_eq!(backend.event(), json!({ "name": "channel_occupied", "channel": "news" }));
    after.signal("TERM");
    assert_eq!(after.finish().code, Some(0));
}
