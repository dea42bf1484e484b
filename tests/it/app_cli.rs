//! `fanfare app`: apps of the configuration file, by command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Api, Client, Finished, Process, fanfare, run};

const FILE: &str = "\
# What stands here stays.
server.bind = \"127.0.0.1:0\" # a free port
metrics.bind = \"\"

# The first.
[[apps]]
id = \"1\"
keys = [
  { key = \"app-key\", secret = \"app-secret\" }, # of last year
]
enabled = true # for now
";

/// A configuration file in a folder of its own.
struct File {
    path: PathBuf,
    folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fanfare.toml");
        fs::write(&path, text).expect("a file");
        Self { path, folder }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("a file")
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let path = self.path.to_str().expect("UTF-8");
        run(&[&["app"], arguments, &["--config", path]].concat(), &[])
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(finished.code, Some(0), "{finished:?}");
        serde_json::from_str(&finished.stdout).expect("JSON")
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, part: &str) {
        let before = self.text();
        let finished = self.run(arguments);
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        assert_eq!(self.text(), before);
        let files: Vec<_> = fs::read_dir(self.folder.path()).expect("a folder").collect();
        assert_eq!(files.len(), 1, "something was left behind: {files:?}");
    }

    /// A server of this file.
    fn served(&self) -> (Process, Api) {
        let process = Process::spawn(fanfare(&["serve", "--config", self.path.to_str().expect("UTF-8")]));
        let api = Api::new(process.listening());
        (process, api)
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn an_app_is_made_and_serves_and_comments_stay() {
    let file = File::new(FILE);
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).expect("permissions");
    let made = file.done(&[
        "create",
        "--client-events",
        "--origin",
        "https://a.example",
        "--webhook",
        "https://a.example/hook",
        "--set",
        "event_data_bytes_max=2048",
    ]);
    assert_eq!(text(&made, "id"), "2");
    let (key, secret) = (text(&made, "key"), text(&made, "secret"));
    assert!(key.len() == 20 && secret.len() >= 20, "{made}");
    assert!(file.text().starts_with(FILE), "{}", file.text());
    assert_eq!(fs::metadata(&file.path).expect("a file").permissions().mode() & 0o777, 0o640);

    let other = file.done(&["create", "--id", "shop"]);
    let (_process, api) = file.served();
    let shop = api.of_app("shop", text(&other, "key"), text(&other, "secret"));
    let path = format!("/app/{}?protocol=7", text(&other, "key"));
    let mut client = Client::connect(&shop, &path);
    client.subscribe("private-room");
    shop.publish("private-room", "e", "d");
    client.expect_event("private-room", "e", "d");
    // Its page has an origin, this client has none.
    api.refused(&format!("/app/{key}?protocol=7"), 4009);
}

#[test]
fn people_are_told_what_to_paste_and_the_secret_only_once() {
    let file = File::new(FILE);
    let made = file.run(&["create"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    for part in ["App 2 is made", "PUSHER_APP_ID=2\n", "PUSHER_APP_KEY=", "PUSHER_APP_SECRET="] {
        assert!(made.stdout.contains(part), "{part}: {made:?}");
    }
    let secret = made.stdout.split("PUSHER_APP_SECRET=").nth(1).and_then(|rest| rest.lines().next());
    let secret = secret.expect("a secret");
    for arguments in [&["list"][..], &["show", "2"], &["list", "--json"], &["show", "2", "--json"]] {
        let finished = file.run(arguments);
        assert!(finished.code == Some(0) && !finished.stdout.contains(secret), "{finished:?}");
    }
    assert!(file.run(&["show", "2", "--secrets"]).stdout.contains(secret));
    let listed = file.run(&["list"]).stdout;
    assert!(listed.contains("1   yes      app-key"), "{listed}");
}

#[test]
fn a_rotation_has_two_pairs_until_the_old_one_is_dropped() {
    let file = File::new(FILE);
    file.refused(&["rotate", "1", "--drop-old"], 1, "rotate 1 adds one first");
    let added = file.run(&["rotate", "1"]);
    assert!(added.code == Some(0) && added.stdout.contains("--drop-old"), "{added:?}");
    assert!(file.text().contains("of last year"), "{}", file.text());
    let keys = file.done(&["show", "1"])["keys"].clone();
    assert_eq!((keys.as_array().map(Vec::len), &keys[0]["key"]), (Some(2), &Value::from("app-key")));
    let newest = text(&keys[1], "key").to_owned();
    let dropped = file.done(&["rotate", "1", "--drop-old"]);
    assert_eq!((text(&dropped, "key"), &dropped["dropped"][0]), (&*newest, &Value::from("app-key")));
    let (_process, api) = file.served();
    Client::connect(&api, &format!("/app/{newest}?protocol=7"));
    api.refused("/app/app-key?protocol=7", 4001);
}

#[test]
fn an_app_is_disabled_enabled_and_deleted() {
    let file = File::new(FILE);
    file.done(&["disable", "1"]);
    assert!(file.text().contains("enabled = false # for now"), "{}", file.text());
    assert_eq!(file.done(&["show", "1"])["enabled"], false);
    {
        let (_process, api) = file.served();
        api.refused("/app/app-key?protocol=7", 4003);
    }
    file.done(&["enable", "1"]);
    assert_eq!(file.text(), FILE);
    file.done(&["create"]);
    file.done(&["delete", "1"]);
    let left = file.done(&["list"]);
    assert_eq!((left.as_array().map(Vec::len), text(&left[0], "id")), (Some(1), "2"));
    assert!(file.text().starts_with("# What stands here stays."));
}

#[test]
fn a_new_file_is_made_for_the_first_app_and_is_nobody_elses_to_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new.toml");
    let named = path.to_str().expect("UTF-8");
    let made = run(&["app", "create", "--config", named], &[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&["config", "check", "--config", named], &[]).code, Some(0));
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let made = run(&["app", "create", "--config", link.to_str().expect("UTF-8")], &[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    assert_eq!(fs::read_to_string(&path).expect("a file").matches("[[apps]]").count(), 2);
}

#[test]
fn apps_in_one_line_are_edited_too() {
    let file = File::new("apps = [{ id = \"1\", keys = [{ key = \"app-key\", secret = \"s\" }] }]\n");
    file.done(&["create"]);
    assert_eq!(file.done(&["list"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn mistakes_change_nothing_and_name_the_remedy() {
    let file = File::new(FILE);
    file.refused(&["create", "--id", "1"], 1, "the id 1 is taken");
    file.refused(&["create", "--id", "a/b"], 1, "id: expected");
    file.refused(&["create", "--set", "client_event=true"], 1, "did you mean client_events?");
    file.refused(&["create", "--set", "connections_max=many"], 1, "expected a whole number");
    file.refused(&["create", "--set", "connections_max"], 1, "expected KEY=VALUE");
    file.refused(&["create", "--webhook", "nowhere"], 1, "webhooks");
    file.refused(&["list", "--set", "connections_max=1"], 1, "fanfare app create");
    for command in ["show", "rotate", "enable", "disable", "delete"] {
        file.refused(&[command, "9"], 1, "there is no app 9 in");
    }
    file.refused(&["list", "--store"], 1, "set store.url");
    file.refused(&["list", "--file", "--store"], 2, "--store");
    let nowhere = run(&["app", "list"], &[]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("--config"), "{nowhere:?}");

    let broken = File::new(&format!("{FILE}client_event = true\n"));
    broken.refused(&["create"], 3, "did you mean client_events?");
    let broken = File::new("[[apps]\n");
    broken.refused(&["create"], 3, "not TOML");
}

#[test]
fn new_apps_go_to_the_file_of_apps_and_others_are_changed_where_they_stand() {
    let folder = tempfile::tempdir().expect("a folder");
    let apps = folder.path().join("apps.toml");
    let main = format!("store.apps_file = \"{}\"\n{FILE}", apps.display());
    let file = File::new(&main);
    let made = file.run(&["create"]);
    assert!(made.code == Some(0) && made.stdout.contains(&format!("in {}.", apps.display())), "{made:?}");
    assert_eq!(fs::metadata(&apps).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(file.text(), main);
    let first = fs::read_to_string(&apps).expect("a file");
    assert!(first.contains("id = \"2\""), "{first}");

    let listed = file.done(&["list"]);
    assert_eq!((text(&listed[0], "id"), text(&listed[1], "id")), ("1", "2"));
    file.done(&["rotate", "2"]);
    assert_eq!(fs::read_to_string(&apps).expect("a file").matches("secret =").count(), 2);
    file.done(&["disable", "1"]);
    assert!(file.text().contains("enabled = false # for now"), "{}", file.text());
    file.refused(&["create", "--id", "1"], 1, "the id 1 is taken");
    file.refused(&["show", "9"], 1, "there is no app 9 in");
    let (_process, api) = file.served();
    let pair = &file.done(&["show", "2", "--secrets"])["keys"][0];
    api.of_app("2", text(pair, "key"), text(pair, "secret")).publish("news", "e", "");
    file.done(&["delete", "2"]);
    assert_eq!(fs::read_to_string(&apps).expect("a file"), "");
}

#[test]
fn the_first_app_is_made_though_others_than_this_machine_will_connect() {
    let file = File::new("server.bind = \"0.0.0.0:0\"\n");
    file.done(&["create"]);
    assert_eq!(run(&["config", "check", "--config", file.path.to_str().expect("UTF-8")], &[]).code, Some(0));
}

#[test]
fn a_file_of_apps_needs_no_configuration_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let apps = folder.path().join("apps.toml");
    let named = format!("store.apps_file={}", apps.display());
    for id in ["1", "2"] {
        let made = run(&["app", "create", "--set", &named], &[]);
        assert!(made.code == Some(0) && made.stdout.contains(&format!("App {id} is made")), "{made:?}");
    }
    fs::write(&apps, "server.bind = \"127.0.0.1:0\"\n").expect("written");
    let refused = run(&["app", "create", "--set", &named], &[]);
    assert!(
        refused.code == Some(3) && refused.stderr.contains("apps.toml:1: server does not"),
        "{refused:?}"
    );
}
