//! Who we say we are, and what the server makes of it.

use super::{APP, Diagnosis, File, ask, url};
use crate::support::{Broker, KEY, SECRET};

/// The usual app, with other credentials in some places.
fn app<'a>(id: &'a str, key: &'a str, secret: &'a str) -> [(&'static str, &'a str); 3] {
    [("FANFARE_APP_ID", id), ("FANFARE_APP_KEY", key), ("FANFARE_APP_SECRET", secret)]
}

#[test]
fn wrong_credentials_are_told_apart() {
    let broker = Broker::start();
    let address = url(broker.address());
    let diagnosis = |id: &str, key: &str, secret: &str| {
        Diagnosis::by(&app(id, key, secret), &["--url", &address, "--hold-s", "0"])
    };
    diagnosis("1", "other", SECRET).expect_failure("app_key", &["no key other (4001)", "fanfare app list"]);
    let secret = diagnosis("1", KEY, "wrong-secret");
    secret.expect_failure("subscribe", &["the secret that belongs to key app-key is another one"]);
    secret.expect("api", "failed", &["the secret that belongs to key app-key is another one"]);
    secret.expect("publish", "skipped", &[]);
    let id = diagnosis("2", KEY, SECRET);
    id.expect("subscribe", "ok", &[]);
    id.expect_failure("api", &["the server has no app 2", "compare the app id"]);
}

#[test]
fn an_app_that_lets_nobody_in_says_why() {
    for (settings, hop, parts) in [
        ("enabled = false", "app_key", ["disabled (4003)", "enable it"]),
        ("tls_only = true", "app_key", ["for TLS only", "X-Forwarded-Proto"]),
        ("allowed_origins = [\"https://a.example\"]", "app_key", ["does not allow this origin", "--origin"]),
        ("subscriptions_max = 1\nchannel_name_max = 20", "subscribe", ["refused", "Invalid channel name"]),
        ("publishes_per_s = 1", "publish", ["429", "publishes_per_s"]),
    ] {
        let broker = Broker::with_app(settings);
        let diagnosis = Diagnosis::of(&url(broker.address()), &[]);
        let part = if hop == "publish" { "enough calls" } else { parts[0] };
        diagnosis.expect_failure(hop, &[part, parts[1]]);
    }
    let broker = Broker::with_app("allowed_origins = [\"https://a.example\"]");
    Diagnosis::of(&url(broker.address()), &["--origin", "https://a.example"]).expect_good();
}

#[test]
fn a_full_server_says_so() {
    for (settings, app, parts) in [
        ("server.connections_max = 1", "", ["(4100)", "server.connections_max"]),
        ("", "connections_max = 1", ["(4004)", "connections_max"]),
    ] {
        let broker = Broker::of(settings, app);
        let _guest = broker.subscriber("news");
        Diagnosis::of(&url(broker.address()), &[]).expect_failure("app_key", &parts);
    }
}

#[test]
fn a_small_limit_of_events_is_only_a_warning() {
    let broker = Broker::with_app("event_data_bytes_max = 1000");
    let diagnosis = Diagnosis::of(&url(broker.address()), &[]);
    diagnosis.expect("large_event", "warning", &["takes no event of 10000 bytes", "event_data_bytes_max"]);
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
    assert_eq!(diagnosis.report["summary"], "What is published arrives. There is one warning.");
}

#[test]
fn credentials_come_from_the_file_and_one_app_of_many_can_be_named() {
    let apps = "[[apps]]\nid = \"1\"\nkeys = [{ key = \"one\", secret = \"app-secret\" }]\n\
                [[apps]]\nid = \"2\"\nallowed_origins = [\"https://a.example\"]\n\
                keys = [{ key = \"old\", secret = \"gone\" }, { key = \"two\", secret = \"app-secret\" }]\n";
    let broker = Broker::with_apps("", apps);
    let file = File::exactly(apps);
    let address = url(broker.address());
    let look = |arguments: &[&str]| {
        let all = ["--url", &address, "--config", file.path(), "--hold-s", "0"];
        Diagnosis::by(&[], &[&all[..], arguments].concat())
    };
    let first = look(&[]);
    first.expect_good();
    first.expect("credentials", "ok", &["app 1, key one"]);
    let second = look(&["--app", "2"]);
    second.expect_good();
    second.expect("credentials", "ok", &["app 2, key two"]);
    look(&["--app", "3"]).expect_failure("credentials", &["there is no app 3", "--app"]);
    // What the environment says comes first.
    let given = Diagnosis::by(&APP, &["--url", &address, "--config", file.path()]);
    given.expect_failure("app_key", &["no key app-key"]);
}

#[test]
fn help_explains_itself_and_no_flag_takes_a_secret() {
    let help = ask(&[], &["--help"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    for part in
        ["--hold-s", "--timeout-s", "FANFARE_APP_SECRET", "private-fanfare-doctor", "Exit codes", "Examples"]
    {
        assert!(help.stdout.contains(part), "{part}: {}", help.stdout);
    }
    assert!(!help.stdout.contains("--secret"), "{}", help.stdout);
}
