//! What was found: one line for each check while they are made, and one sentence in the end.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::cli::say;

/// What came of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// It does not work.
    Failed,
    /// Not looked at, for a reason.
    Skipped,
}

/// What a check finds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Finding {
    pub(super) status: Status,
    /// What was seen.
    pub(super) detail: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

/// A check that was made.
#[derive(Debug)]
struct Check {
    name: &'static str,
    finding: Finding,
    elapsed_ms: u128,
}

/// All checks so far, in their order.
#[derive(Debug)]
pub(super) struct Report {
    checks: Vec<Check>,
    /// Lines are written as checks are made.
    speaks: bool,
}

/// What a check is about, in the words of the last sentence.
const HOPS: &[(&str, &str)] = &[
    ("configuration", "the configuration"),
    ("file_limit", "the limit of open files"),
    ("memory", "the memory limit"),
    ("port_clients", "the port of server.bind"),
    ("port_plain", "the port of server.plain_bind"),
    ("port_metrics", "the port of metrics.bind"),
    ("port_admin", "the port of admin.bind"),
    ("certificate", "the certificate in tls.certificate"),
    ("redis", "Redis"),
    ("database", "the database"),
    ("ready", "the server's readiness"),
    ("credentials", "the app's credentials"),
    ("dns", "DNS, the name of the host"),
    ("tcp", "TCP, the connection to the host"),
    ("tls", "TLS"),
    ("http", "HTTP, spoken by a proxy or the server"),
    ("clock", "the clock"),
    ("upgrade", "the WebSocket upgrade, which a proxy has to pass on"),
    ("app_key", "the app key"),
    ("subscribe", "the subscription to a private channel"),
    ("api", "the signed HTTP API"),
    ("publish", "the publish through the API"),
    ("delivery", "the delivery of what was published"),
    ("large_event", "the delivery of a large event"),
    ("long_connection", "the long connection, which a proxy may cut"),
];

/// As wide as the longest name.
const NAME_WIDTH: usize = 15;

impl Finding {
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self { status: Status::Ok, detail: detail.into(), remedy: None }
    }

    pub(super) fn warning(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Warning, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn failed(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Failed, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { status: Status::Skipped, detail: why.into(), remedy: None }
    }

    /// Neither failed nor left out: what builds on it can be looked at.
    pub(super) fn holds(&self) -> bool {
        matches!(self.status, Status::Ok | Status::Warning)
    }

    /// The same as no more than a warning.
    pub(super) fn softened(mut self) -> Self {
        if self.status == Status::Failed {
            self.status = Status::Warning;
        }
        self
    }
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// A failure is seen at a glance.
    fn mark(self) -> &'static str {
        if self == Self::Failed { "FAILED" } else { self.word() }
    }
}

impl Report {
    pub(super) fn new(speaks: bool) -> Self {
        Self { checks: Vec::new(), speaks }
    }

    /// Makes a check. Gives whether what builds on it can be looked at.
    pub(super) async fn check(&mut self, name: &'static str, finding: impl Future<Output = Finding>) -> bool {
        let began = Instant::now();
        let finding = finding.await;
        self.add(name, finding, began)
    }

    /// Adds what was found since `began`.
    pub(super) fn add(&mut self, name: &'static str, finding: Finding, began: Instant) -> bool {
        let finding = Finding {
            detail: plain(&finding.detail),
            remedy: finding.remedy.as_deref().map(plain),
            ..finding
        };
        let check = Check { name, finding, elapsed_ms: began.elapsed().as_millis() };
        if self.speaks {
            say(&check.lines());
        }
        let holds = check.finding.holds();
        self.checks.push(check);
        holds
    }

    /// Leaves checks out.
    pub(super) fn skip(&mut self, names: &[&'static str], why: &str) {
        for name in names {
            self.add(name, Finding::skipped(why), Instant::now());
        }
    }

    /// Whether nothing has failed.
    pub(super) fn is_good(&self) -> bool {
        self.failed().is_none()
    }

    fn failed(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.finding.status == Status::Failed)
    }

    /// The last word.
    pub(super) fn sentence(&self) -> String {
        if let Some(check) = self.failed() {
            let detail = check.finding.detail.lines().next().unwrap_or_default();
            return format!("It fails at {}: {}", hop(check.name), detail);
        }
        let warnings = self.checks.iter().filter(|check| check.finding.status == Status::Warning).count();
        let delivered = self.checks.iter().any(|check| check.name == "delivery" && check.finding.holds());
        let what = match delivered {
            true => "What is published arrives",
            false => "Nothing has failed, but whether events arrive was not seen",
        };
        match warnings {
            0 => format!("{what}."),
            1 => format!("{what}. There is one warning."),
            _ => format!("{what}. There are {warnings} warnings."),
        }
    }

    /// All of it, for programs.
    pub(super) fn json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::json).collect();
        json!({ "ok": self.is_good(), "summary": self.sentence(), "checks": checks })
    }
}

impl Check {
    fn json(&self) -> Value {
        let Finding { status, detail, remedy } = &self.finding;
        let mut check = Map::new();
        check.insert("name".into(), json!(self.name));
        check.insert("status".into(), json!(status.word()));
        check.insert("detail".into(), json!(detail));
        if let Some(remedy) = remedy {
            check.insert("remedy".into(), json!(remedy));
        }
        check.insert("elapsed_ms".into(), json!(u64::try_from(self.elapsed_ms).unwrap_or(u64::MAX)));
        Value::Object(check)
    }

    fn lines(&self) -> String {
        let Finding { status, detail, remedy } = &self.finding;
        let name = self.name.replace('_', " ");
        let indent = " ".repeat(NAME_WIDTH + 11);
        let detail = detail.replace('\n', &format!("\n{indent}"));
        let mut text = format!("{:7}  {name:NAME_WIDTH$}  {detail}\n", status.mark());
        if let Some(remedy) = remedy {
            text.push_str(&format!("{indent}-> {}\n", remedy.replace('\n', &format!("\n{indent}   "))));
        }
        text
    }
}

/// What the check of this name is about.
fn hop(name: &str) -> &str {
    HOPS.iter().find(|hop| hop.0 == name).map_or(name, |hop| hop.1)
}

/// What others have said must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[(&'static str, Finding)]) -> Report {
        let mut report = Report::new(false);
        for (name, finding) in findings {
            report.add(name, finding.clone(), Instant::now());
        }
        report
    }

    #[test]
    fn the_first_failure_is_the_hop_that_is_named() {
        let report = report(&[
            ("dns", Finding::warning("one of two", "mend it")),
            ("tls", Finding::failed("expired\nfor years", "renew")),
            ("publish", Finding::failed("401", "sign")),
        ]);
        assert_eq!(report.sentence(), "It fails at TLS: expired");
        assert!(!report.is_good());
    }

    #[test]
    fn warnings_are_counted_and_no_failure() {
        let warning = || Finding::warning("slow", "hurry");
        let with = |warnings: usize| {
            let mut all = vec![("delivery", Finding::ok("it arrived"))];
            all.extend((0..warnings).map(|_| ("clock", warning())));
            let report = report(&all);
            assert!(report.is_good());
            report.sentence()
        };
        assert_eq!(with(0), "What is published arrives.");
        assert_eq!(with(1), "What is published arrives. There is one warning.");
        assert_eq!(with(2), "What is published arrives. There are 2 warnings.");
        let unseen = report(&[("delivery", Finding::skipped("not now"))]);
        assert!(unseen.sentence().starts_with("Nothing has failed, but"), "{}", unseen.sentence());
    }

    #[test]
    fn a_remedy_stands_below_what_was_seen() {
        let report = report(&[("file_limit", Finding::failed("64\n\u{1b}[2J", "more"))]);
        let lines = "FAILED   file limit       64\n                          \u{fffd}[2J\n                          -> more\n";
        assert_eq!(report.checks[0].lines(), lines);
        let json = report.json();
        assert_eq!(json["checks"][0]["remedy"], "more");
        assert_eq!(json["checks"][0]["status"], "failed");
        assert_eq!(json["ok"], false);
    }

    #[test]
    fn every_name_fits_its_column() {
        for (name, _) in HOPS.iter() {
            assert!(name.len() <= NAME_WIDTH, "{name}");
        }
    }
}
