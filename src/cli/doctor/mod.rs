//! `doctor`: finds out why events do not arrive, hop by hop, and says what to do.
//!
//! ```text
//!  this machine ─ configuration, files, memory, ports, certificate, Redis, database      (without --url)
//!  the way      ─ name ▶ TCP ▶ TLS ▶ HTTP, clock
//!  round trip   ─ upgrade ▶ app key ▶ subscribe ▶ API ▶ publish ▶ delivery ▶ a large event ▶ a long connection
//! ```
//!
//! Every check has a name, says what it has seen, and if that is not good, what to do. What builds on something that
//! failed is left out. Secrets are used and never said.
//!
//! Not here: what a server says of itself (`health`, `admin`).

mod backend;
mod backing;
mod machine;
mod place;
mod report;
mod round_trip;
mod socket;
mod trust;
mod upgrade;
mod way;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime;
use tokio::task::LocalSet;

use crate::app::App;
use crate::cli::doctor::place::{Credentials, Place};
use crate::cli::doctor::report::{Finding, Report};
use crate::cli::doctor::round_trip::RoundTrip;
use crate::cli::healthcheck::Question;
use crate::cli::{EXIT_CONFIG, EXIT_FAILED, Settings, fail, say};
use crate::cluster::servers;
use crate::config::{Config, Loaded};
use crate::metrics::Metrics;
use crate::tls::Certificates;

/// Shown below the help.
const EXAMPLES: &str = "\
Without --url it looks at this machine and its configuration (limit of open files, memory, ports, certificate, Redis, \
database) and then at the server that runs at the configured address. With --url it is a client and a backend of that \
address and nothing else, so it can run anywhere: it looks at DNS, TCP, TLS, the proxy, the clock, the WebSocket upgrade, \
the app key, a subscription to a private channel, the signed API, a publish, its delivery, a large event and a long \
connection. Everything that is not well comes with what to do about it, and the last line names the hop that fails.

Credentials are those of the configuration (its first app, or --app ID, also one of the database) or of FANFARE_APP_ID, \
FANFARE_APP_KEY and FANFARE_APP_SECRET in the environment. There is no flag for a secret: others could read it.

The channel is private-fanfare-doctor-RANDOM. No client notices it, but receivers of the app's webhooks are told of it \
(channel_occupied, channel_vacated), and its nine events count for the app's limits.

Examples:
  fanfare doctor --config fanfare.toml                     this machine, and the server that runs here
  fanfare doctor --url https://ws.example.com --config fanfare.toml
  FANFARE_APP_ID=1 FANFARE_APP_KEY=… FANFARE_APP_SECRET=… fanfare doctor --url https://ws.example.com
  fanfare doctor --url https://ws.example.com --hold-s 90  also finds proxies that cut silent connections
  fanfare doctor --json | jq -r '.checks[] | select(.status == \"failed\") | .remedy'

With --json: {\"ok\":bool,\"summary\":text,\"checks\":[{\"name\",\"status\":\"ok|warning|failed|skipped\",\"detail\",\"remedy\",\"elapsed_ms\"}]}
Exit codes: 0 all is well, perhaps with warnings; 1 a check failed; 2 wrong flags; 3 the configuration is wrong.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    /// Configuration file, TOML or soketi's JSON [env: FANFARE_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting, as in connection.ping_after_s=30; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Look at this public address alone, as in https://ws.example.com or http://10.0.0.1:6001/prefix
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// With the credentials of this app
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// Come from this site, as browsers say it; needed if the app has allowed_origins that are not known here
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// Say it for programs
    #[arg(long)]
    json: bool,
    /// Seconds that each step may take
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout_s: u64,
    /// Seconds to stay connected and silent
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    hold_s: u64,
}

/// Wrong flags, as clap says it.
const EXIT_USAGE: u8 = 2;

impl Doctor {
    pub(super) fn run(&self) -> ExitCode {
        // Not by the parser of flags, which repeats what was written: there may be a password in it.
        let public = match self.url.as_deref().map(Place::parse).transpose() {
            Ok(public) => public,
            Err(message) => return fail(EXIT_USAGE, &format!("bad --url: {message}")),
        };
        let mut report = Report::new(!self.json);
        let began = Instant::now();
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(message) => {
                let remedy = "correct it: fanfare config check says the same, fanfare config default lists all settings";
                report.add("configuration", Finding::failed(message, remedy), began);
                return self.end(&report, EXIT_CONFIG);
            }
        };
        report.add("configuration", configuration(&loaded), began);
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(EXIT_FAILED, &error.to_string()),
        };
        runtime.block_on(LocalSet::new().run_until(self.examine(&loaded, public, &mut report)));
        self.end(&report, EXIT_FAILED)
    }

    /// The configuration, as the server would take it; of a server elsewhere only what a client needs.
    fn load(&self) -> Result<Loaded, String> {
        let settings = Settings { config: self.config.clone(), set: self.set.clone(), ..Settings::default() };
        let loaded = settings.layers()?.load().map_err(|error| error.to_string())?;
        if self.url.is_none() {
            Certificates::load(&loaded.config.tls, &Metrics::new().doors)
                .map_err(|error| error.to_string())?;
            servers::check(&loaded.config.redis).map_err(|error| error.to_string())?;
        }
        Ok(loaded)
    }

    fn end(&self, report: &Report, failed: u8) -> ExitCode {
        match self.json {
            true => say(&format!("{:#}\n", report.json())),
            false => say(&format!("\n{}\n", report.sentence())),
        }
        if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(failed) }
    }

    async fn examine(&self, loaded: &Loaded, public: Option<Place>, report: &mut Report) {
        let config = &loaded.config;
        let limit = Duration::from_secs(self.timeout_s);
        let of_environment = |name: &str| {
            let variable = loaded.layers.environment.iter().find(|variable| variable.0 == name);
            variable.map(|variable| variable.1.as_str()).filter(|value| !value.is_empty())
        };
        let key = of_environment("FANFARE_APP_KEY").filter(|_| self.app.is_none());
        let id = self.app.as_deref().or(key.map(|_| of_environment("FANFARE_APP_ID").unwrap_or("1")));
        let mut app = backing::configured(config, id).cloned();
        let place = match public {
            Some(place) => Some(place),
            None => {
                let place = here(config, report);
                report.check("redis", backing::redis(&config.redis, limit)).await;
                let began = Instant::now();
                let wanted = id.filter(|_| app.is_none());
                let (finding, found) = backing::database(&config.store, wanted).await;
                report.add("database", finding, began);
                app = app.or(found);
                place
            }
        };
        if self.url.is_some() && app.is_none() && !config.store.url.expose().is_empty() {
            // It is only asked for what is not known otherwise.
            let began = Instant::now();
            let (finding, found) = backing::database(&config.store, id).await;
            report.add("database", finding, began);
            app = found;
        }
        let credentials = match credentials(app.as_ref(), key, id, config) {
            Ok(credentials) => credentials,
            Err(finding) => {
                report.add("credentials", finding, Instant::now());
                report.skip(&way::HOPS, "there are no credentials");
                report.skip(&round_trip::HOPS, "there are no credentials");
                return;
            }
        };
        report.add("credentials", of_whom(&credentials, config), Instant::now());
        let place = match place.ok_or("server.bind has port 0: name with --url the port that the server got")
        {
            Ok(place) => place,
            Err(why) => {
                report.skip(&way::HOPS, why);
                report.skip(&round_trip::HOPS, why);
                return;
            }
        };
        self.go(report, config, &place, &credentials, limit).await;
    }

    /// Goes to the server and back.
    async fn go(
        &self,
        report: &mut Report,
        config: &Config,
        place: &Place,
        credentials: &Credentials,
        limit: Duration,
    ) {
        if let Some(why) = unreachable_from_home(place, credentials, config) {
            report.skip(&way::HOPS, &why);
            report.skip(&round_trip::HOPS, &why);
            return;
        }
        let tolerance_s = config.api.timestamp_tolerance_s;
        let Some(way) = way::explore(report, place, credentials, limit, tolerance_s).await else {
            report.skip(&round_trip::HOPS, "there is no way to the server");
            return;
        };
        // What the configuration says of a server is known to be true of the one at home alone.
        let ping_after_s = self.url.is_none().then_some(config.connection.ping_after_s);
        let hold = Duration::from_secs(self.hold_s);
        let origin = self.origin.as_deref().or(credentials.origin());
        RoundTrip { way: &way, credentials, origin, hold, ping_after_s }.make(report).await;
    }
}

/// What the configuration says, in short.
fn configuration(loaded: &Loaded) -> Finding {
    let file = match &loaded.layers.file {
        Some(file) => file.display().to_string(),
        None => "no file, so defaults and the environment".to_owned(),
    };
    let detail = format!("{file}: {} app(s)", loaded.config.apps.len());
    match loaded.warnings.first() {
        None => Finding::ok(detail),
        Some(_) => Finding::warning(
            format!("{detail}; {}", loaded.warnings.join("\n")),
            "see whether that is meant: fanfare config show --origin",
        ),
    }
}

/// Looks at this machine. Gives where its server is, if that is known.
fn here(config: &Config, report: &mut Report) -> Option<Place> {
    let server = &config.server;
    let has_admin = !config.admin.token.expose().is_empty();
    let ports: Vec<(&'static str, &str, Option<SocketAddr>)> = vec![
        ("port_clients", "server.bind", Some(server.bind)),
        ("port_plain", "server.plain_bind", server.plain_bind),
        ("port_metrics", "metrics.bind", config.metrics.bind),
        ("port_admin", "admin.bind", config.admin.bind.filter(|_| has_admin)),
    ];
    let clients = machine::port(server.bind);
    let running = clients.server().cloned();
    let began = Instant::now();
    report.add("file_limit", machine::file_limit(config, running.as_ref()), began);
    report.add("memory", machine::memory(config), Instant::now());
    for (name, setting, bind) in ports {
        let began = Instant::now();
        let Some(bind) = bind else { continue };
        if bind.port() == 0 {
            report.add(name, Finding::skipped(format!("{setting} has port 0: a free one is taken")), began);
            continue;
        }
        let port = machine::port(bind);
        report.add(name, machine::judge_port(setting, bind, &port, running.is_some()), began);
        if name == "port_metrics" && port.is_held() && clients.is_held() {
            report.add("ready", ready(bind), Instant::now());
        }
    }
    if !config.tls.certificate.is_empty() {
        let began = Instant::now();
        report.add("certificate", trust::of_file(&config.tls.certificate), began);
    }
    (server.bind.port() != 0).then(|| Place::home(server.bind, !config.tls.certificate.is_empty()))
}

/// Whether the running server takes clients, in its own words.
fn ready(bind: SocketAddr) -> Finding {
    match Question::ready(bind).ask_until(Instant::now() + Duration::from_secs(3)) {
        Ok(()) => Finding::ok("the running server takes clients"),
        Err(why) => Finding::failed(
            why,
            "mend what it names, otherwise load balancers and Kubernetes send nobody here",
        ),
    }
}

/// Which app is used, and what may be odd about that.
fn of_whom(credentials: &Credentials, config: &Config) -> Finding {
    let Credentials { app, key, .. } = credentials;
    match config.is_demo() {
        true => Finding::ok("the demo app's, since no app is configured"),
        false => Finding::ok(format!("those of app {}, key {key}", app.id)),
    }
}

fn credentials(
    app: Option<&App>,
    key: Option<&str>,
    id: Option<&str>,
    config: &Config,
) -> Result<Credentials, Finding> {
    let remedy = "name one with --app, or give FANFARE_APP_ID, FANFARE_APP_KEY and FANFARE_APP_SECRET in the environment";
    match (app.and_then(|app| Credentials::of(app, key)), id) {
        (Some(credentials), _) => Ok(credentials),
        (None, Some(id)) => Err(Finding::failed(format!("there is no app {id}"), remedy)),
        (None, None) if !config.store.url.expose().is_empty() => {
            Err(Finding::failed("apps are in the database, and none is named", remedy))
        }
        (None, None) => Err(Finding::failed("there is no app", remedy)),
    }
}

/// Why the server of this machine cannot be asked without the proxy before it.
fn unreachable_from_home(place: &Place, credentials: &Credentials, config: &Config) -> Option<String> {
    if !place.is_home {
        return None;
    }
    let ip: IpAddr = place.host.parse().ok()?;
    let server = &config.server;
    if server.proxy_protocol && server.trusted_proxies.iter().any(|network| network.contains(&ip)) {
        return Some(
            "server.proxy_protocol: only the proxy can connect; look at its address with --url".to_owned(),
        );
    }
    let app = &credentials.app;
    (app.tls_only && !place.is_secure).then(|| {
        format!(
            "app {} is for TLS only, which a proxy speaks: look at its address with --url https://…",
            app.id
        )
    })
}
