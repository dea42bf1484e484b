//! `fanfare doctor`: every hop with somebody at it who really misbehaves, and what is said of him.

mod at_home;
mod behind;
mod certificates;
mod credentials;
mod proxy;
mod way;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Broker, Finished, KEY, PASSWORD, Process, SECRET, fanfare, until};

use proxy::{Proxy, Rule};

/// Credentials of the app that most stories use.
const APP: [(&str, &str); 3] =
    [("FANFARE_APP_ID", "1"), ("FANFARE_APP_KEY", KEY), ("FANFARE_APP_SECRET", SECRET)];

/// What must be seen nowhere.
const SECRETS: [&str; 3] = [SECRET, PASSWORD, "wrong-secret"];

/// What the doctor has said, for programs.
struct Diagnosis {
    code: Option<i32>,
    report: Value,
}

impl Diagnosis {
    /// Has a public address looked at by a client of the usual app.
    #[track_caller]
    fn of(url: &str, arguments: &[&str]) -> Self {
        let hold = if arguments.contains(&"--hold-s") { &[][..] } else { &["--hold-s", "0"] };
        Self::by(&APP, &[&["--url", url], hold, arguments].concat())
    }

    /// Has something looked at, with this environment.
    #[track_caller]
    fn by(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let finished = ask(environment, &[&["--json"], arguments].concat());
        let report = serde_json::from_str(&finished.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {finished:?}"));
        Self { code: finished.code, report }
    }

    /// A check by its name.
    #[track_caller]
    fn check(&self, name: &str) -> &Value {
        let checks = self.report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {self}"))
    }

    /// Asserts that a check has come to this, and that what it says and advises has these parts.
    #[track_caller]
    fn expect(&self, name: &str, status: &str, parts: &[&str]) {
        let check = self.check(name);
        assert_eq!(check["status"], status, "{self}");
        let text = |field: &str| check[field].as_str().unwrap_or_default();
        for part in parts {
            assert!(text("detail").contains(part) || text("remedy").contains(part), "no {part:?}: {check:#}");
        }
        let has_remedy = !text("remedy").is_empty();
        assert_eq!(has_remedy, ["failed", "warning"].contains(&status), "{check:#}");
    }

    /// Asserts that this is the first hop that fails, and that what is said and advised has these parts.
    #[track_caller]
    fn expect_failure(&self, name: &str, parts: &[&str]) {
        let checks = self.report["checks"].as_array().expect("checks");
        let failed = checks.iter().find(|check| check["status"] == "failed");
        assert_eq!(failed.map(|check| &check["name"]), Some(&Value::from(name)), "{self}");
        self.expect(name, "failed", parts);
        assert_eq!((self.code, &self.report["ok"]), (Some(1), &Value::from(false)), "{self}");
        let detail = self.check(name)["detail"].as_str().expect("a detail").lines().next().expect("a line");
        let summary = self.report["summary"].as_str().expect("a sentence");
        assert!(summary.starts_with("It fails at ") && summary.ends_with(detail), "{summary}");
    }

    /// Asserts that everything that was looked at is well, perhaps with warnings.
    #[track_caller]
    fn expect_good(&self) {
        assert_eq!((self.code, &self.report["ok"]), (Some(0), &Value::from(true)), "{self}");
        for name in ["subscribe", "publish", "delivery", "large_event", "long_connection"] {
            self.expect(name, "ok", &[]);
        }
        let summary = self.report["summary"].as_str().expect("a sentence");
        assert!(summary.starts_with("What is published arrives."), "{summary}");
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}, {:#}", self.code, self.report)
    }
}

/// Runs the doctor, and sees to it that no secret is said.
#[track_caller]
fn ask(environment: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = fanfare(&["doctor"]);
    command.args(arguments).envs(environment.iter().copied());
    let finished = Process::spawn(command).finish();
    for secret in SECRETS {
        let is_said = finished.stdout.contains(secret) || finished.stderr.contains(secret);
        assert!(!is_said, "{secret}: {finished:?}");
    }
    finished
}

/// The public address of somebody on this machine.
fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// A configuration file of its own.
struct File {
    path: PathBuf,
    _folder: TempDir,
}

impl File {
    /// With the usual app, and no ports of others.
    fn new(settings: &str) -> Self {
        let app = format!("[[apps]]\nid = \"1\"\nkeys = [{{ key = \"{KEY}\", secret = \"{SECRET}\" }}]\n");
        let metrics = if settings.contains("metrics.bind") { "" } else { "metrics.bind = \"\"\n" };
        Self::exactly(&format!("{metrics}{settings}\n{app}"))
    }

    fn exactly(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fanfare.toml");
        std::fs::write(&path, text).expect("a file");
        Self { path, _folder: folder }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// Has this machine looked at.
    #[track_caller]
    fn diagnosis(&self, arguments: &[&str]) -> Diagnosis {
        Diagnosis::by(&[], &[&["--config", self.path(), "--hold-s", "0"], arguments].concat())
    }
}

#[test]
fn a_healthy_server_is_found_healthy() {
    let broker = Broker::start();
    let diagnosis = Diagnosis::of(&url(broker.address()), &[]);
    diagnosis.expect_good();
    diagnosis.expect("http", "ok", &["Fanfare answers"]);
    diagnosis.expect("tls", "skipped", &[]);
    for check in diagnosis.report["checks"].as_array().expect("checks") {
        assert!(check["elapsed_ms"].is_u64(), "{check}");
    }
    until("nothing is left behind", || broker.channels() == serde_json::json!({}));
}

#[test]
fn people_are_told_line_by_line_what_was_seen_and_what_to_do() {
    let broker = Broker::start();
    let address = url(broker.address());
    let finished = ask(&APP, &["--url", &address, "--hold-s", "0"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for line in
        ["ok       app key          key app-key is known", "ok       delivery         all 8 events arrived"]
    {
        assert!(finished.stdout.contains(line), "{}", finished.stdout);
    }
    assert!(finished.stdout.ends_with("\n\nWhat is published arrives.\n"), "{}", finished.stdout);

    let stranger = [APP[0], ("FANFARE_APP_KEY", "other"), APP[2]];
    let finished = ask(&stranger, &["--url", &address]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let (failed, remedy) =
        ("FAILED   app key          the server knows no key other (4001)\n", "-> compare the key");
    for part in [
        failed,
        remedy,
        "skipped  delivery",
        "\n\nIt fails at the app key: the server knows no key other (4001)\n",
    ] {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
    }
}

#[test]
fn a_prefix_before_the_paths_is_no_obstacle() {
    let broker = Broker::start();
    let stripping = Proxy::to(&[broker.address()], |head| Rule::Pass(head.replacen(" /hub/", " /", 1)));
    for address in [broker.address(), stripping.address()] {
        Diagnosis::of(&format!("http://{address}/hub/"), &[]).expect_good();
    }
}

#[test]
fn wrong_flags_are_told_from_wrong_configurations() {
    for arguments in
        [&["--url", "ws.example.com"][..], &["--url", "http://ann:wrong-secret@h"], &["--timeout-s", "0"]]
    {
        let finished = ask(&APP, arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
    }
    let file = File::new("server.bind = \"nowhere\"");
    let diagnosis = file.diagnosis(&[]);
    assert_eq!(diagnosis.code, Some(3), "{diagnosis}");
    diagnosis.expect("configuration", "failed", &["server.bind", "config check"]);
    let finished = ask(&[], &["--config", file.path()]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    assert!(finished.stdout.contains("FAILED   configuration"), "{finished:?}");
}
