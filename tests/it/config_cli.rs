//! The command line, the configuration and their mistakes.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::{Api, Client, Finished, Process, fanfare, run};

const APP: &str = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }]
"#;

/// A configuration file in a folder of its own.
struct File {
    path: PathBuf,
    _folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fanfare.toml");
        std::fs::write(&path, text).expect("a file");
        Self { path, _folder: folder }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a path in UTF-8")
    }
}

/// A file of these lines around the usual app, on free ports.
fn file_with(settings: &str) -> File {
    File::new(&format!("server.bind = \"127.0.0.1:0\"\nmetrics.bind = \"\"\n{settings}\n{APP}"))
}

#[track_caller]
fn check_bad(finished: &Finished, parts: &[&str]) {
    assert_eq!(finished.code, Some(3), "{finished:?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
    }
}

/// Asserts that `serve` and `config check` both refuse a file and name all `parts`.
#[track_caller]
fn check_bad_file(text: &str, parts: &[&str]) {
    let file = File::new(text);
    let path = file.path();
    for command in [vec!["serve", "--config", path], vec!["config", "check", "--config", path]] {
        let finished = run(&command, &[]);
        check_bad(&finished, parts);
        check_bad(&finished, &[path]);
    }
}

#[test]
fn an_unknown_key_stops_the_start_and_its_neighbour_is_named() {
    let text = format!("[connection]\nping_after_s = 60\nactivity_timeout = 30\n{APP}");
    check_bad_file(&text, &["fanfare.toml:3", "activity_timeout", "activity_timeout_s"]);
    let text = format!("[server]\n\n\nbnid = \"127.0.0.1:0\"\n{APP}");
    check_bad_file(&text, &["fanfare.toml:4", "bnid", "bind"]);
    let text = format!("[conection]\nping_after_s = 60\n{APP}");
    check_bad_file(&text, &["fanfare.toml:", "conection", "connection"]);
    check_bad_file(
        &format!("{APP}client_event = true\n"),
        &["fanfare.toml:5", "client_event", "client_events"],
    );
}

#[test]
fn apps_in_a_file_of_their_own_are_shown_with_their_place_and_their_mistakes_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let apps = folder.path().join("apps.toml");
    let app = |id: &str| APP.replace("\"1\"", &format!("\"{id}\"")).replace("app-key", &format!("key-{id}"));
    std::fs::write(&apps, app("2")).expect("written");
    let file = file_with(&format!("store.apps_file = \"{}\"", apps.display()));
    let checked = run(&["config", "check", "--config", file.path()], &[]);
    assert!(checked.code == Some(0) && checked.stdout.contains("2 app(s)"), "{checked:?}");
    let shown = run(&["config", "show", "--origin", "--config", file.path()], &[]).stdout;
    let place = format!("apps[1].id = \"2\"  # {}:3\n", apps.display());
    assert!(shown.contains(&place) && !shown.contains("app-secret"), "{place} is not in {shown}");

    std::fs::write(&apps, format!("{}client_event = true\n", app("2"))).expect("written");
    let parts = ["apps.toml:5", "did you mean client_events?"];
    check_bad(&run(&["config", "check", "--config", file.path()], &[]), &parts);
    std::fs::write(&apps, app("1")).expect("written");
    let parts = ["apps.toml:3", "two apps have the id 1", "fanfare.toml:"];
    check_bad(&run(&["serve", "--config", file.path()], &[]), &parts);
}

#[test]
fn a_bad_value_stops_the_start() {
    for (line, key) in [
        ("connection.ping_after_s = \"soon\"", "ping_after_s"),
        ("connection.ping_after_s = -1", "ping_after_s"),
        ("connection.activity_timeout_s = 0", "activity_timeout_s"),
        ("connection.message_bytes_max = 1.5", "message_bytes_max"),
        ("server.bind = \"nowhere\"", "bind"),
        ("server.bind = 6001", "bind"),
        ("log.level = \"loud\"", "level"),
        ("log.format = \"xml\"", "format"),
        ("api.extraneous_parameters = \"maybe\"", "extraneous_parameters"),
        ("connection.subscription_errors = \"yes\"", "subscription_errors"),
    ] {
        check_bad_file(&format!("\n{line}\n{APP}"), &["fanfare.toml:2", key]);
    }
    for line in ["client_events = 1", "presence_members_max = \"many\"", "allowed_origins = \"x\""] {
        let key = line.split(' ').next().expect("a key");
        check_bad_file(&format!("{APP}{line}\n"), &["fanfare.toml:5", key]);
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = format!("log.level = \"loud\"\nserver.wrokers = 2\n{APP}enabledd = true\n");
    check_bad_file(&text, &["log.level", "wrokers", "enabledd"]);
}

#[test]
fn broken_toml_and_missing_files_stop_the_start() {
    check_bad_file("[server\nbind = 1", &["fanfare.toml:1"]);
    check_bad_file(&format!("[server]\nworkers = 1\nworkers = 2\n{APP}"), &["fanfare.toml:3"]);
    check_bad(&run(&["serve", "--config", "/nowhere/f.toml"], &[]), &["/nowhere/f.toml"]);
    check_bad(&run(&["config", "check", "--config", "/nowhere/f.toml"], &[]), &["/nowhere/f.toml"]);
}

#[test]
fn apps_must_be_whole_and_distinct() {
    check_bad_file("[[apps]]\nkeys = [{ key = \"k\", secret = \"s\" }]\n", &["id"]);
    check_bad_file("[[apps]]\nid = \"1\"\n", &["keys"]);
    check_bad_file("[[apps]]\nid = \"1\"\nkeys = []\n", &["keys"]);
    check_bad_file("[[apps]]\nid = \"1\"\nkeys = [{ key = \"k\" }]\n", &["secret"]);
    let twice = format!("{APP}{}", APP.replace("app-key", "other-key"));
    check_bad_apps(&twice, &["id"]);
    let same_key = format!("{APP}{}", APP.replace("id = \"1\"", "id = \"2\""));
    check_bad_apps(&same_key, &["app-key"]);
}

/// As [`check_bad_file`], for what no single line is to blame for.
#[track_caller]
fn check_bad_apps(text: &str, parts: &[&str]) {
    let file = File::new(text);
    check_bad(&run(&["serve", "--config", file.path()], &[]), parts);
    check_bad(&run(&["config", "check", "--config", file.path()], &[]), parts);
}

#[test]
fn bad_flags_and_variables_stop_the_start() {
    let file = file_with("");
    let serve = |flags: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["serve", "--config", file.path()], flags].concat();
        run(&arguments, environment)
    };
    check_bad(&serve(&["--set", "connection.ping_afterr_s=1"], &[]), &["ping_afterr_s", "ping_after_s"]);
    check_bad(&serve(&["--set", "connection.ping_after_s=x"], &[]), &["ping_after_s"]);
    check_bad(&serve(&["--bind", "nowhere"], &[]), &["bind"]);
    check_bad(
        &serve(&[], &[("FANFARE_CONNECTION_PING_AFTER_S", "soon")]),
        &["FANFARE_CONNECTION_PING_AFTER_S"],
    );
    check_bad(
        &serve(&[], &[("FANFARE_SERVER_BIN", "127.0.0.1:0")]),
        &["FANFARE_SERVER_BIN", "FANFARE_SERVER_BIND"],
    );
    let unknown = run(&["serve", "--no-such-flag"], &[]);
    assert!(unknown.code.is_some_and(|code| code != 0), "{unknown:?}");
    assert!(unknown.stderr.contains("--no-such-flag"), "{unknown:?}");
}

#[test]
fn demo_credentials_stay_at_home() {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        check_bad(&run(&["serve", "--bind", bind, "--set", "metrics.bind="], &[]), &["demo"]);
        let environment = [("FANFARE_SERVER_BIND", bind), ("FANFARE_METRICS_BIND", "")];
        check_bad(&run(&["serve"], &environment), &["demo"]);
    }
}

#[test]
fn an_app_of_ones_own_may_go_out() {
    let file = file_with("");
    let process = Process::spawn(fanfare(&["serve", "--config", file.path(), "--bind", "0.0.0.0:0"]));
    process.line_with("listening on http://");
}

/// Starts a server and gives the address it serves.
#[track_caller]
fn served(arguments: &[&str], environment: &[(&str, &str)]) -> (Process, Api) {
    let mut command = fanfare(arguments);
    command.envs(environment.iter().copied());
    let process = Process::spawn(command);
    let api = Api::new(process.listening());
    (process, api)
}

const AT_HOME: [(&str, &str); 2] = [("FANFARE_SERVER_BIND", "127.0.0.1:0"), ("FANFARE_METRICS_BIND", "")];

#[test]
fn without_a_configuration_there_is_a_demo_app_and_a_way_in() {
    for arguments in [&["serve"][..], &[]] {
        let process = {
            let mut command = fanfare(arguments);
            command.envs(AT_HOME);
            Process::spawn(command)
        };
        let (banner, address) = process.banner();
        let api = Api::new(address).of_app("1", "demo-key", "demo-secret");
        let mut client = Client::connect(&api, "/app/demo-key?protocol=7");
        client.subscribe("private-room");
        let mut other = Client::connect(&api, "/app/demo-key?protocol=7");
        other.subscribe("private-room");
        client.say("private-room", "client-x", &serde_json::json!("hello"));
        other.expect_event("private-room", "client-x", "hello");
        api.publish("private-room", "e", "d");
        other.expect_event("private-room", "e", "d");

        drop((client, other));
        process.signal("TERM");
        let finished = process.finish();
        let said = format!("{banner}{}{}", finished.stdout, finished.stderr);
        for part in ["demo-key", "demo-secret", "Pusher", &address.port().to_string()] {
            assert!(said.contains(part), "{part:?} is not in the banner:\n{said}");
        }
    }
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let file = file_with("connection.activity_timeout_s = 11");
    let timeout = |flags: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["serve", "--config", file.path()], flags].concat();
        let (_process, api) = served(&arguments, environment);
        Client::connect(&api, "/app/app-key?protocol=7").activity_timeout()
    };
    let environment = [("FANFARE_CONNECTION_ACTIVITY_TIMEOUT_S", "22")];
    let flag = ["--set", "connection.activity_timeout_s=33"];
    assert_eq!(timeout(&[], &[]), 11);
    assert_eq!(timeout(&[], &environment), 22);
    assert_eq!(timeout(&flag, &environment), 33);
    assert_eq!(timeout(&flag, &[]), 33);
    assert_eq!(timeout(&["--set", "connection.activity_timeout_s=1", flag[0], flag[1]], &[]), 33);
}

#[test]
fn the_file_may_be_named_in_the_environment() {
    let file = file_with("connection.activity_timeout_s = 44");
    let (_process, api) = served(&["serve"], &[("FANFARE_CONFIG", file.path())]);
    assert_eq!(Client::connect(&api, "/app/app-key?protocol=7").activity_timeout(), 44);
}

#[test]
fn an_app_may_be_described_in_the_environment() {
    let app = [
        ("FANFARE_APP_ID", "7"),
        ("FANFARE_APP_KEY", "env-key"),
        ("FANFARE_APP_SECRET", "env-secret"),
        ("FANFARE_APP_CLIENT_EVENTS", "true"),
    ];
    let (_process, api) = served(&["serve"], &[&AT_HOME[..], &app].concat());
    let own = api.of_app("7", "env-key", "env-secret");
    let mut client = Client::connect(&own, "/app/env-key?protocol=7");
    client.subscribe("private-room");
    own.publish("private-room", "e", "d");
    client.expect_event("private-room", "e", "d");
    client.say("private-room", "client-x", &serde_json::json!(1));
    client.expect_served();
    Client::dial(&api, "/app/demo-key?protocol=7").expect_end_with(4001);
}

#[test]
fn the_default_configuration_is_the_documented_one() {
    let finished = run(&["config", "default"], &[]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
    let documented = std::fs::read_to_string(path).expect("config/default.toml");
    assert_eq!(finished.stdout.trim_end(), documented.trim_end());

    let file = File::new(&finished.stdout);
    let checked = run(&["config", "check", "--config", file.path()], &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn a_good_configuration_passes_the_check_without_being_served() {
    let file = file_with("connection.ping_after_s = 30");
    let finished = run(&["config", "check", "--config", file.path()], &[]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!finished.stdout.contains("listening"), "{finished:?}");
}

#[test]
fn the_configuration_is_shown_with_its_origins_and_without_its_secrets() {
    let file = file_with("connection.ping_after_s = 31");
    let environment = [
        ("FANFARE_CONNECTION_PONG_TIMEOUT_S", "17"),
        ("FANFARE_APP_ID", "7"),
        ("FANFARE_APP_KEY", "env-key"),
        ("FANFARE_APP_SECRET", "env-secret"),
    ];
    for arguments in [
        vec!["config", "show", "--config", file.path()],
        vec!["config", "show", "--origin", "--config", file.path()],
    ] {
        let shown = run(&arguments, &environment);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        let line = |key: &str| {
            let mut lines = shown.stdout.lines();
            lines.find(|line| line.contains(key)).unwrap_or_else(|| panic!("no {key}: {shown:?}"))
        };
        assert!(line("ping_after_s").contains("31"), "{shown:?}");
        assert!(line("pong_timeout_s").contains("17"), "{shown:?}");
        assert!(line("activity_timeout_s").contains("120"), "{shown:?}");
        for key in ["app-key", "env-key"] {
            assert!(shown.stdout.contains(key), "{key} is not shown: {shown:?}");
        }
        for secret in ["app-secret", "env-secret"] {
            assert!(!shown.stdout.contains(secret), "{secret} is shown: {shown:?}");
            assert!(!shown.stderr.contains(secret), "{secret} is shown: {shown:?}");
        }
        if arguments.contains(&"--origin") {
            assert!(line("ping_after_s").contains("fanfare.toml"), "{shown:?}");
            assert!(line("pong_timeout_s").contains("FANFARE_CONNECTION_PONG_TIMEOUT_S"), "{shown:?}");
            assert!(line("activity_timeout_s").contains("default"), "{shown:?}");
        }
    }
}

#[test]
fn mistakes_do_not_tell_secrets() {
    let text = format!("{}secret = \"hush-hush\"\nlevel = 1\n", APP.replace("app-secret", "hush-2"));
    let file = File::new(&text);
    let finished = run(&["config", "check", "--config", file.path()], &[]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    for secret in ["hush-hush", "hush-2"] {
        assert!(!finished.stderr.contains(secret), "{finished:?}");
    }
}

#[test]
fn an_address_of_redis_that_is_none_is_told_without_its_password() {
    let file = file_with("redis.url = \"http://:hush-hush@127.0.0.1:6379\"");
    for (command, code) in [(vec!["config", "check"], 3), (vec!["serve"], 1)] {
        let finished = run(&[&command[..], &["--config", file.path()]].concat(), &[]);
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.stderr.contains("redis.url: not an address: expected redis://"), "{finished:?}");
        assert!(!finished.stderr.contains("hush-hush"), "{finished:?}");
    }
}

#[test]
fn the_version_and_help_are_told() {
    let version = run(&["--version"], &[]);
    assert_eq!(version.code, Some(0));
    assert_eq!(version.stdout.trim(), concat!("fanfare ", env!("CARGO_PKG_VERSION")));
    for arguments in [&["--help"][..], &["serve", "--help"], &["config", "--help"]] {
        let help = run(arguments, &[]);
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.stdout.contains("Usage"), "{help:?}");
    }
}

#[test]
fn a_port_in_use_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let file = file_with("");
    let finished = run(&["serve", "--config", file.path(), "--bind", &address], &[]);
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert!(finished.stderr.contains(&address), "{finished:?}");
    assert!(!finished.stdout.contains("listening"), "{finished:?}");
}

#[test]
fn metrics_are_told_before_the_broker_listens() {
    let file = file_with("");
    let arguments = ["serve", "--config", file.path(), "--set", "metrics.bind=127.0.0.1:0"];
    let process = Process::spawn(fanfare(&arguments));
    let (before, _) = process.banner();
    let line = before.lines().find(|line| line.contains("metrics on http://"));
    assert!(line.is_some_and(|line| line.ends_with("/metrics")), "{before}");
}
