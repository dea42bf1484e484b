//! A changed configuration takes effect while everybody stays connected.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Broker, Client, JS_PATH, KEY, SECRET, fanfare};

/// Where the broker listens does not change; one app a line: id, key, secret, settings.
fn config(apps: &[(&str, &str, &str, &str)]) -> String {
    let mut text =
        "server.bind = \"127.0.0.1:0\"\nmetrics.bind = \"\"\nserver.watch_config = false\n".to_owned();
    for (id, key, secret, settings) in apps {
        let keys = format!("keys = [{{ key = \"{key}\", secret = \"{secret}\" }}]");
        text.push_str(&format!("[[apps]]\nid = \"{id}\"\n{keys}\n{settings}\n"));
    }
    text
}

const APP: (&str, &str, &str, &str) = ("1", KEY, SECRET, "");

/// A broker that reads its configuration again only when it is told to.
fn broker() -> Broker {
    Broker::of("server.watch_config = false", "")
}

fn reload(broker: &Broker, apps: &[(&str, &str, &str, &str)]) {
    broker.rewrite(&config(apps));
    broker.signal("HUP");
    broker.logs("reloaded");
}

#[test]
fn a_new_app_is_served_and_nobody_is_dropped() {
    let broker = broker();
    let mut client = broker.subscriber("news");
    let second = broker.of_app("2", "second-key", "second-secret");
    broker.refused("/app/second-key?protocol=7", 4001);
    assert_eq!(second.trigger(&json!({ "name": "e", "channel": "c", "data": "" })).status, 404);

    reload(&broker, &[APP, ("2", "second-key", "second-secret", "")]);

    second.publish("news", "e", "of another app");
    assert_eq!(second.channels(), json!({}));
    broker.publish("news", "e", "still there");
    client.expect_event("news", "e", "still there");
}

#[test]
fn changed_settings_hold_for_those_who_are_connected() {
    let broker = broker();
    let mut ann = broker.subscriber("private-room");
    let mut bob = broker.subscriber("private-room");
    let event = json!({ "event": "client-hi", "channel": "private-room", "data": "x" });
    ann.send(&event);
    ann.expect_error_with("you must enable this feature");

    reload(&broker, &[(APP.0, APP.1, APP.2, "client_events = true")]);

    // The workers hear of it by their mailboxes, which an event passes behind them.
    broker.publish("private-room", "marker", "");
    ann.expect_event("private-room", "marker", "");
    bob.expect_event("private-room", "marker", "");
    ann.send(&event);
    bob.expect_event("private-room", "client-hi", "x");
}

#[test]
fn p5_connections_of_a_disabled_app_are_closed_with_4003() {
    let broker = broker();
    let client = broker.connect();
    reload(&broker, &[(APP.0, APP.1, APP.2, "enabled = false")]);
    client.expect_end_with(4003);
    broker.refused(JS_PATH, 4003);
    assert_eq!(broker.get("/channels").send().status, 403);

    reload(&broker, &[APP]);
    broker.expect_healthy();
}

#[test]
fn connections_of_a_deleted_app_are_closed_with_4001_and_leave_nothing_behind() {
    let broker = Broker::of(
        "server.watch_config = false",
        "[[apps.webhooks]]\nurl = \"http://127.0.0.1:9/\"\nevents = [\"channel_vacated\"]",
    );
    let client = broker.subscriber("news");
    reload(&broker, &[("2", "second-key", "second-secret", "")]);
    client.expect_end_with(4001);
    reload(&broker, &[APP]);
    assert_eq!(broker.channels(), json!({}));
}

#[test]
fn a_key_can_be_changed_without_dropping_those_who_use_the_old_one() {
    let broker = broker();
    let mut client = broker.subscriber("news");
    reload(&broker, &[("1", "new-key", "new-secret", "")]);
    broker.refused(JS_PATH, 4001);
    let new = broker.of_app("1", "new-key", "new-secret");
    new.publish("news", "e", "from the new key");
    client.expect_event("news", "e", "from the new key");
}

#[test]
fn a_mistake_changes_nothing_and_is_told() {
    let broker = broker();
    let mut client = broker.subscriber("news");
    broker.rewrite("[[apps]]\nid = \"1\"\nkeys = []\nclient_event = true");
    broker.signal("HUP");
    let line = broker.logs("fanfare.toml:4");
    assert!(line.contains("not reloaded") && line.contains("did you mean client_events?"), "{line}");
    broker.publish("news", "e", "as before");
    client.expect_event("news", "e", "as before");
    broker.expect_healthy();
}

#[test]
fn a_file_that_lost_its_apps_lets_no_stranger_in() {
    let broker = broker();
    let mut client = broker.subscriber("news");
    broker.rewrite("server.watch_config = false");
    broker.signal("HUP");
    assert!(broker.logs("not reloaded").contains("no app is configured any more"));
    broker.refused("/app/demo-key?protocol=7", 4001);
    broker.publish("news", "e", "as before");
    client.expect_event("news", "e", "as before");
}

#[test]
fn the_demo_key_is_not_served_where_strangers_can_connect() {
    let broker = Broker::everywhere();
    // The address is changed together with it, but only a restart would change it.
    broker.rewrite(&config(&[("1", "demo-key", "s", "")]));
    broker.signal("HUP");
    assert!(broker.logs("not reloaded").contains("demo credentials"));
    broker.refused("/app/demo-key?protocol=7", 4001);
    broker.expect_healthy();
}

#[test]
fn what_takes_a_restart_is_named() {
    let broker = broker();
    broker.rewrite(&format!("connection.ping_after_s = 5\n{}", config(&[APP])));
    broker.signal("HUP");
    assert!(broker.logs("a changed setting takes a restart").contains("connection.ping_after_s"));
}

#[test]
fn a_written_file_is_taken_without_being_told() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    broker.rewrite(&config(&[APP, ("2", "second-key", "second-secret", "")]));
    broker.logs("reloaded");
    broker.of_app("2", "second-key", "second-secret").publish("news", "e", "");
    broker.publish("news", "e", "still there");
    client.expect_event("news", "e", "still there");
}

/// A volume as Kubernetes mounts a Secret: `apps.toml` leads through `..data` to the folder of a version.
struct Volume {
    folder: TempDir,
}

impl Volume {
    fn new(apps: &str) -> Self {
        let volume = Self { folder: tempfile::tempdir().expect("a folder") };
        symlink("..data/apps.toml", volume.path().join("apps.toml")).expect("a link");
        volume.swap("1", apps);
        volume
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn swap(&self, version: &str, apps: &str) {
        let [folder, next] = [&format!("..{version}"), "..data_tmp"].map(|name| self.path().join(name));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("apps.toml"), apps).expect("written");
        symlink(folder, &next).expect("a link");
        fs::rename(next, self.path().join("..data")).expect("swapped");
    }

    fn setting(&self) -> String {
        format!("store.apps_file = \"{}/apps.toml\"", self.path().display())
    }
}

fn app(id: &str, key: &str) -> String {
    format!("[[apps]]\nid = \"{id}\"\nkeys = [{{ key = \"{key}\", secret = \"{SECRET}\" }}]\n")
}

#[test]
fn a_swapped_volume_with_the_file_of_apps_is_taken_without_being_told() {
    let volume = Volume::new(&app("2", "second-key"));
    let broker = Broker::of(&volume.setting(), "");
    let mut client = broker.subscriber("news");
    broker.of_app("2", "second-key", SECRET).publish("news", "e", "");
    volume.swap("2", &(app("2", "second-key") + &app("3", "third-key")));
    broker.logs("reloaded");
    broker.of_app("3", "third-key", SECRET).publish("news", "e", "");
    broker.publish("news", "e", "still there");
    client.expect_event("news", "e", "still there");

    volume.swap("3", "[[apps]]\nid = 2\n");
    let line = broker.logs("apps.toml:1");
    assert!(line.contains("not reloaded"), "{line}");
    broker.of_app("3", "third-key", SECRET).publish("news", "e", "as before");
}

#[test]
fn a_file_of_apps_is_named_and_left_without_a_restart() {
    let volume = Volume::new(&app("2", "second-key"));
    let broker = Broker::start();
    broker.rewrite(&format!("{}\n{}", volume.setting(), app("1", KEY)));
    broker.logs("reloaded");
    broker.of_app("2", "second-key", SECRET).publish("news", "e", "");
    volume.swap("2", &app("3", "third-key"));
    broker.logs("reloaded");
    broker.of_app("3", "third-key", SECRET).publish("news", "e", "");
    broker.refused("/app/second-key?protocol=7", 4001);
    broker.rewrite(&app("1", KEY));
    broker.logs("reloaded");
    broker.refused("/app/third-key?protocol=7", 4001);
    broker.expect_healthy();
}

#[test]
fn a_file_of_apps_may_be_empty_at_first_and_must_not_become_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("apps.toml");
    fs::write(&path, "").expect("written");
    let settings = [
        "server.bind=127.0.0.1:0",
        "metrics.bind=",
        "admin.bind=",
        &format!("store.apps_file={}", path.display()),
    ];
    let command = fanfare(&[&["serve"][..], &settings.map(|setting| ["--set", setting]).concat()].concat());
    let broker = Broker::spawned(command, false, folder);
    broker.logs("there is no app");
    broker.refused("/app/demo-key?protocol=7", 4001);
    fs::write(&path, app("1", KEY)).expect("written");
    broker.logs("reloaded");
    let mut client = broker.subscriber("news");
    fs::write(&path, "").expect("written");
    assert!(broker.logs("not reloaded").contains("no app is configured any more"));
    broker.publish("news", "e", "as before");
    client.expect_event("news", "e", "as before");
}

#[test]
fn thousands_of_apps_are_reloaded_under_load() {
    let apps = |settings: &str| {
        let keys = |id: u32| (id.to_string(), format!("key-{id}"), format!("secret-{id}"));
        let all: Vec<_> = (1..=2000).map(keys).collect();
        let all: Vec<_> = all.iter().map(|(id, key, secret)| (&**id, &**key, &**secret, settings)).collect();
        config(&all)
    };
    let broker = broker();
    broker.rewrite(&apps(""));
    broker.signal("HUP");
    // Its own app has gone with the others.
    broker.logs("reloaded");
    let api = |id: u32| broker.of_app(&id.to_string(), &format!("key-{id}"), &format!("secret-{id}"));
    let mut clients: Vec<_> = (1..=200)
        .map(|id| {
            let path = format!("/app/key-{id}?protocol=7");
            let mut client = Client::connect(&api(id), &path);
            client.subscribe("news");
            client
        })
        .collect();
    for round in 0..3 {
        broker.rewrite(&apps(&format!("connections_max = {}", 1000 + round)));
        broker.signal("HUP");
        broker.logs("reloaded");
        for (id, client) in (1..).zip(&mut clients) {
            api(id).publish("news", "e", &round.to_string());
            client.expect_event("news", "e", &round.to_string());
        }
    }
    assert_eq!(api(200).channels(), json!({ "news": {} }));
}
