//! Moving from other servers: their names, their files, `config convert`, and the commands of `docs/migrate`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Api, Client, Finished, Process, fanfare, run};

/// What keeps a server of these stories off fixed ports.
const AT_HOME: [&str; 4] = ["--bind", "127.0.0.1:0", "--set", "metrics.bind="];

const SOKETI: [(&str, &str); 4] = [
    ("SOKETI_DEFAULT_APP_ID", "env-app"),
    ("SOKETI_DEFAULT_APP_KEY", "env-key"),
    ("SOKETI_DEFAULT_APP_SECRET", "hush-hush"),
    ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "1"),
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/migration").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Starts a server in this environment.
#[track_caller]
fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> (Process, Api) {
    let mut command = fanfare(&[&["serve"], &AT_HOME[..], arguments].concat());
    command.envs(environment.iter().copied());
    let process = Process::spawn(command);
    let api = Api::new(process.listening());
    (process, api)
}

/// Two clients of an app tell each other something, and a backend tells them.
#[track_caller]
fn check_app(api: &Api, id: &str, key: &str, secret: &str) {
    let api = api.of_app(id, key, secret);
    let path = format!("/app/{key}?protocol=7");
    let (mut one, mut other) = (Client::connect(&api, &path), Client::connect(&api, &path));
    one.subscribe("private-room");
    other.subscribe("private-room");
    one.say("private-room", "client-x", &json!("hello"));
    other.expect_event("private-room", "client-x", "hello");
    api.publish("private-room", "e", "d");
    other.expect_event("private-room", "e", "d");
}

#[track_caller]
fn stop(process: Process) -> Finished {
    process.signal("TERM");
    process.finish()
}

#[test]
fn an_environment_made_for_soketi_is_served_and_each_name_told_once() {
    let cluster = [("SOKETI_ADAPTER_DRIVER", "nats"), ("SOKETI_DEFAULT_APP_KEYY", "hush-2")];
    let (process, api) = serve(&[], &[&SOKETI[..], &cluster].concat());
    check_app(&api, "env-app", "env-key", "hush-hush");
    Client::dial(&api, "/app/demo-key?protocol=7").expect_end_with(4001);
    let log = stop(process).stderr;
    for (name, meaning) in [
        ("SOKETI_DEFAULT_APP_KEY, SOKETI_DEFAULT_APP_SECRET ", "becomes apps[0].keys"),
        ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "becomes apps[0].client_events"),
        ("SOKETI_ADAPTER_DRIVER", "not supported"),
        ("SOKETI_DEFAULT_APP_KEYY", "did you mean SOKETI_DEFAULT_APP_KEY?"),
    ] {
        let told = log.lines().filter(|line| line.replace('"', " ").contains(name) && line.contains(meaning));
        assert_eq!(told.count(), 1, "{name} {meaning} in\n{log}");
    }
    assert!(!log.contains("hush"), "{log}");
}

#[test]
fn the_names_of_reverb_and_pusher_make_an_app_too() {
    let reverb = [("REVERB_APP_ID", "1"), ("REVERB_APP_KEY", "r"), ("REVERB_APP_SECRET", "s")];
    let (_process, api) = serve(&[], &reverb);
    check_app(&api, "1", "r", "s");
    let (_process, api) = serve(&[], &[("PUSHER_URL", "https://p:s@api.pusherapp.com/apps/77")]);
    let api = api.of_app("77", "p", "s");
    let mut client = Client::connect(&api, "/app/p?protocol=7");
    client.subscribe("private-room");
    api.publish("private-room", "e", "d");
    client.expect_event("private-room", "e", "d");
}

#[test]
fn soketi_s_file_is_served_as_it_is() {
    let file = sample("soketi.json");
    let (_process, api) = serve(&["--config", text(&file)], &[]);
    check_app(&api, "app-one", "key-one", "secret-one");
    let second = api.of_app("2", "key-two", "secret-two");
    let mut client = Client::connect(&second, "/app/key-two?protocol=7");
    client.subscribe("private-room");
    second.publish("private-room", "e", &"x".repeat(90_000));
    client.expect_event("private-room", "e", &"x".repeat(90_000));
}

#[test]
fn origins_are_the_foreign_names() {
    let shown = run(&["config", "show", "--origin"], &[&SOKETI[..], &[("SOKETI_PORT", "6010")]].concat());
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for line in [
        "server.bind = \"127.0.0.1:6010\"  # SOKETI_PORT",
        "apps[0].client_events = true  # SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES",
    ] {
        assert!(shown.stdout.lines().any(|shown| shown == line), "{line} in {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("hush"), "{shown:?}");
    let checked = run(&["config", "check"], &SOKETI);
    assert!(checked.stdout.contains("SOKETI_DEFAULT_APP_SECRET: becomes apps[0].keys"), "{checked:?}");
}

#[test]
fn a_converted_file_is_for_its_owner_and_replaces_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("fanfare.toml");
    let (from, to) = (sample("soketi.json"), text(&out).to_owned());
    let convert =
        |more: &[&str]| run(&[&["config", "convert", text(&from), "--out", &to], more].concat(), &[]);
    assert_eq!(convert(&[]).code, Some(0));
    let mode = std::fs::metadata(&out).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = convert(&[]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--force"), "{refused:?}");
    std::fs::write(&out, "old").expect("written");
    assert_eq!(convert(&["--force"]).code, Some(0));
    let (_process, api) = serve(&["--config", &to], &[]);
    check_app(&api, "app-one", "key-one", "secret-one");
}

#[test]
fn without_a_file_it_goes_to_standard_output_and_what_is_missing_to_standard_error() {
    let converted = run(&["config", "convert", text(&sample("soketi.json"))], &[]);
    assert_eq!(converted.code, Some(0), "{converted:?}");
    for part in ["[[apps]]", "secret-one", "secret-header", "# To look at:", "queue.driver", "cors"] {
        assert!(converted.stdout.contains(part), "{part} in {}", converted.stdout);
    }
    assert!(converted.stderr.contains("queue.driver: not supported"), "{converted:?}");
    assert!(!converted.stderr.contains("secret-"), "{converted:?}");
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content, reason) in [
        ("reverb.php", "<?php\nreturn [];", ".env"),
        ("fanfare.toml", "[server]\nworkers = 1", "no change"),
        ("x.json", "{ \"port\": ", "x.json:1"),
        (".env", "APP_NAME=x", "nothing in it"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        let refused = run(&["config", "convert", text(&path)], &[]);
        assert!(refused.code == Some(3) && refused.stderr.contains(reason), "{name}: {refused:?}");
        assert_eq!(refused.stdout, "");
    }
    assert_eq!(run(&["config", "convert", "/nowhere/x.json"], &[]).code, Some(3));
}

/// The commands of a page that are for our binary, in order.
fn commands_of(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrate").join(page);
    let page = std::fs::read_to_string(path).expect("a page");
    let blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split("  #").next().unwrap_or(line).trim());
    lines.filter(|line| line.split(' ').any(|word| word == "fanfare")).map(str::to_owned).collect()
}

/// Does what a page says, in a folder with the files it speaks of.
#[track_caller]
fn check_page(page: &str, files: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (from, to) in files {
        std::fs::copy(sample(from), folder.path().join(to)).expect("a sample");
    }
    let commands = commands_of(page);
    assert!(commands.len() >= 3, "{page}: {commands:?}");
    for line in commands {
        let (variables, rest) = line.split_once("fanfare").expect("its name");
        let arguments: Vec<&str> = rest.split_whitespace().collect();
        let mut command: Command = fanfare(&arguments);
        command.current_dir(folder.path());
        command.envs(variables.split_whitespace().filter_map(|pair| pair.split_once('=')));
        let serves = arguments.first().is_none_or(|first| *first == "serve");
        if serves {
            // The last flag wins over what the page and the files say.
            command.args(["--set", "server.bind=127.0.0.1:0", "--set", "metrics.bind="]);
            Process::spawn(command).listening();
        } else {
            let finished = Process::spawn(command).finish();
            assert_eq!(finished.code, Some(0), "{page}: {line}: {finished:?}");
        }
    }
}

#[test]
fn the_commands_of_the_pages_work() {
    check_page("soketi.md", &[("soketi.json", "soketi.json")]);
    check_page("reverb.md", &[("laravel.env", ".env")]);
    check_page("pusher.md", &[("pusher.env", ".env")]);
    check_page("sockudo.md", &[("sockudo.json", "config.json")]);
}
