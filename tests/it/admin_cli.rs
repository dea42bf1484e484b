//! The commands that talk to a running server.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Broker, Finished, Operator, Process, TOKEN, admin_settings, fanfare, run};

/// A configuration file that says where a broker's admin API is.
struct File {
    path: PathBuf,
    _folder: TempDir,
}

impl File {
    fn of(broker: &Broker) -> Self {
        let address = Operator::of(broker).address();
        Self::new(&format!("admin.bind = \"{address}\"\nadmin.token = \"{TOKEN}\""))
    }

    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fanfare.toml");
        std::fs::write(&path, text).expect("a file");
        Self { path, _folder: folder }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let path = self.path.to_str().expect("a path in UTF-8");
        run(&[arguments, &["--config", path]].concat(), &[])
    }
}

#[track_caller]
fn expect(finished: &Finished, parts: &[&str]) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for part in parts {
        assert!(finished.stdout.contains(part), "{part:?} is not in\n{}", finished.stdout);
    }
}

#[track_caller]
fn expect_failure(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is not in\n{}", finished.stderr);
    }
    assert!(!finished.stderr.contains(TOKEN), "{}", finished.stderr);
}

#[test]
fn the_status_is_told_to_people_and_to_programs() {
    let broker = Broker::with(&admin_settings());
    let file = File::of(&broker);
    let _client = broker.subscriber("news");
    let address = broker.address().to_string();
    expect(&file.run(&["status"]), &["serving", &address, "connections    1\n", "worker 0"]);
    let status = file.run(&["status", "--json"]);
    expect(&status, &[]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["connections"], 1);
}

#[test]
fn connections_are_listed_shown_and_closed() {
    let broker = Broker::with(&admin_settings());
    let file = File::of(&broker);
    let ann = broker.signed_in("ann");
    let bob = broker.joined("presence-room", "bob");
    let cid = broker.subscriber("news");
    expect(&file.run(&["connections"]), &["SOCKET ID", ann.id(), bob.id(), cid.id()]);
    let of_ann = file.run(&["connections", "list", "--app", "1", "--user", "ann"]);
    expect(&of_ann, &[ann.id()]);
    assert!(!of_ann.stdout.contains(bob.id()), "{of_ann:?}");
    let all = file.run(&["connections", "--json", "--limit", "0"]);
    let all: Value = serde_json::from_str(&all.stdout).expect("JSON");
    assert_eq!((all["connections"].as_array().map(Vec::len), &all["next"]), (Some(3), &Value::Null));
    expect(&file.run(&["connections", "--limit", "1"]), &["There are more: --after "]);
    expect(&file.run(&["connections", "show", bob.id()]), &[bob.id(), "presence-room as bob"]);
    expect(&file.run(&["connections", "close", cid.id()]), &["with 4200"]);
    cid.expect_end_with(4200);
    expect(&file.run(&["connections", "close", "--final", ann.id()]), &["with 4009"]);
    ann.expect_end_with(4009);
    expect_failure(&file.run(&["connections", "show", "1.2"]), 1, &["no connection has the socket id 1.2"]);
    expect_failure(&file.run(&["connections", "--user", "ann"]), 2, &["--app"]);
}

#[test]
fn a_reload_tells_what_came_of_it() {
    let broker = Broker::with(&format!("{}\nserver.watch_config = false", admin_settings()));
    let file = File::of(&broker);
    expect(&file.run(&["reload"]), &["in force: 1 app(s)"]);
    let config = std::fs::read_to_string(broker.folder().join("fanfare.toml")).expect("a file");
    broker.rewrite(&format!("server.backlog = 77\n{config}"));
    expect(&file.run(&["reload"]), &["Takes a restart: ", "server.backlog"]);
    broker.rewrite(&format!("{config}\nclient_event = true"));
    expect_failure(&file.run(&["reload"]), 1, &["did you mean client_events?"]);
}

#[test]
fn a_drain_that_is_waited_for_ends_with_the_server() {
    let broker = Broker::with(&admin_settings());
    let file = File::of(&broker);
    let client = broker.subscriber("news");
    let path = file.path.to_str().expect("a path in UTF-8").to_owned();
    let draining = Process::spawn(fanfare(&["drain", "--wait", "--config", &path]));
    client.expect_end_with(4200);
    assert_eq!(broker.finish().code, Some(0));
    expect(&draining.finish(), &["The server has stopped."]);
    expect_failure(&file.run(&["drain"]), 1, &["cannot be reached", "refused"]);
}

#[test]
fn a_drain_need_not_be_waited_for() {
    let broker = Broker::with(&format!("{}\ndrain.delay_s = 60", admin_settings()));
    expect(&File::of(&broker).run(&["drain"]), &["is stopping"]);
    broker.logs("stopping");
    assert_eq!(Operator::of(&broker).get("status")["state"], "leaving");
    broker.signal("INT");
    broker.finish();
}

#[test]
fn replays_say_which() {
    let broker = Broker::with(&admin_settings());
    let file = File::of(&broker);
    expect_failure(&file.run(&["webhooks", "replay"]), 2, &["--all"]);
    expect_failure(&file.run(&["webhooks", "replay", "--all", "--app", "1"]), 2, &["cannot be used with"]);
    expect_failure(&file.run(&["webhooks", "replay", "--app", "9"]), 1, &["no app has the id 9"]);
    expect_failure(&file.run(&["webhooks", "list", "--app", "9"]), 1, &["no app has the id 9"]);
}

#[test]
fn without_a_token_the_settings_to_set_are_named() {
    let none = run(&["status"], &[]);
    expect_failure(&none, 3, &["the admin API is off", "admin.bind", "admin.token"]);
    let environment = [("FANFARE_ADMIN_TOKEN", TOKEN), ("FANFARE_ADMIN_BIND", "")];
    expect_failure(&run(&["status"], &environment), 3, &["admin.bind is empty"]);
    let environment = [("FANFARE_ADMIN_TOKEN", TOKEN), ("FANFARE_ADMIN_BIND", "127.0.0.1:0")];
    expect_failure(&run(&["status"], &environment), 3, &["--url"]);
    let broken = File::new("admin.tokn = \"x\"");
    expect_failure(&broken.run(&["status"]), 3, &["did you mean admin.token?"]);
}

#[test]
fn address_and_token_come_from_file_environment_or_flags() {
    let broker = Broker::with(&admin_settings());
    let address = Operator::of(&broker).address();
    let url = format!("http://{address}/");
    let everywhere = format!("0.0.0.0:{}", address.port());
    let environment = [("FANFARE_ADMIN_TOKEN", TOKEN), ("FANFARE_ADMIN_BIND", &*everywhere)];
    expect(&run(&["status"], &environment), &["serving"]);
    expect(&run(&["status", "--url", &url], &environment[..1]), &["serving"]);
    expect(&run(&["status", "--url", &url, "--token", TOKEN], &[]), &["serving"]);
    let proxy = [("http_proxy", "http://127.0.0.1:1"), ("FANFARE_ADMIN_TOKEN", TOKEN)];
    expect(&run(&["status", "--url", &url], &proxy), &["serving"]);
    let wrong = run(&["status", "--url", &url, "--token", "another-token-than-that"], &[]);
    expect_failure(&wrong, 1, &["refuses the token", "FANFARE_ADMIN_TOKEN"]);
    let elsewhere = format!("http://{}", broker.address());
    let wrong = run(&["status", "--url", &elsewhere, "--token", TOKEN], &[]);
    expect_failure(&wrong, 1, &["is no admin API of Fanfare"]);
    let wrong = run(&["status", "--url", "somewhere", "--token", TOKEN], &[]);
    expect_failure(&wrong, 3, &["http://127.0.0.1:9602"]);
}
