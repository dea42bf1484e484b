//! The command line: `serve`, `healthcheck`, `doctor`, `config check | show | default | convert`, `app create | list | …`,
//! `completions`, `man`, and what is asked of a running server.

mod app;
mod completions;
mod convert;
mod doctor;
mod healthcheck;
mod man;
mod remote;
mod show;

mod activation;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::cluster::servers;
use crate::config::{Config, DEMO_KEY, DEMO_SECRET, Layers, Loaded, LogFormat, LogLevel, Note, default_toml};
use crate::metrics::Metrics;
use crate::server::{self, Listening};
use crate::tls::Certificates;

/// What the shell learns when the server cannot start.
const EXIT_FAILED: u8 = 1;
/// The configuration is wrong. Clap's own 2 is for wrong flags.
const EXIT_CONFIG: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  fanfare                                   try it out: a demo app on 127.0.0.1:6001
  fanfare serve --config fanfare.toml       serve the apps of a file
  fanfare serve --set log.level=debug       any setting as a flag
  FANFARE_APP_KEY=… FANFARE_APP_SECRET=… FANFARE_SERVER_BIND=0.0.0.0:6001 fanfare
  fanfare config check --config fanfare.toml
  fanfare config default > fanfare.toml     every setting with its default and meaning
  fanfare config convert soketi.json --out fanfare.toml
  fanfare serve --config soketi.json        soketi's configuration as it is
  fanfare app create --config fanfare.toml  an app with a key and a secret of its own
  fanfare doctor --url https://ws.example.com --config fanfare.toml   why do events not arrive?
  fanfare status --config fanfare.toml      how a running server is; also drain, reload, connections, webhooks

Settings: file < SOKETI_, REVERB_ and PUSHER_APP_ names in the environment < FANFARE_SECTION_KEY in the environment < flags.
Exit codes: 0 done, or stopped by SIGTERM or SIGINT; 1 cannot start, or refused; 2 wrong flags; 3 wrong configuration.";

/// A self-hosted Pusher Channels server.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, about, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Settings,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one for each process")]
enum Command {
    /// Serve clients and backends (the default).
    #[command(after_help = EXAMPLES)]
    Serve(Settings),
    /// Ask a running server how it is, and exit: 0 if it is well, 1 if not. For containers.
    Healthcheck(healthcheck::Healthcheck),
    /// Find out why events do not arrive, hop by hop, and say what to do.
    Doctor(doctor::Doctor),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make, list and change apps.
    #[command(subcommand)]
    App(app::AppCommand),
    #[command(flatten)]
    Remote(remote::Remote),
    /// Print the script by which a shell completes this command line.
    Completions(completions::Completions),
    /// Print the manual, or write its pages to a folder.
    Man(man::Manual),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration and exit: 0 if it is good, 3 if not.
    Check(Settings),
    /// Print every setting in force. Secrets are masked.
    Show {
        #[command(flatten)]
        settings: Settings,
        /// Say where each value is from.
        #[arg(long)]
        origin: bool,
    },
    /// Print a configuration file with every setting, its default and its meaning.
    Default,
    /// Write another server's configuration as Fanfare's, with its secrets.
    Convert(convert::Convert),
}

#[derive(Clone, Debug, Default, Args)]
struct Settings {
    /// Configuration file, TOML or soketi's JSON [env: FANFARE_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port for clients and the HTTP API, as in 0.0.0.0:6001
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any setting, as in connection.ping_after_s=30; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the command that `args` ask for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(settings) => serve(&settings),
        Command::Healthcheck(healthcheck) => healthcheck.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Config(ConfigCommand::Check(settings)) => with_config(&settings, |loaded| {
            if let Err(error) = Certificates::load(&loaded.config.tls, &Metrics::new().doors) {
                return fail(EXIT_CONFIG, &format!("The configuration is wrong:\n{error}"));
            }
            if let Err(error) = servers::check(&loaded.config.redis) {
                return fail(EXIT_CONFIG, &format!("The configuration is wrong:\n{error}"));
            }
            let store =
                if loaded.config.store.url.expose().is_empty() { "" } else { ", and those of the store" };
            say(&format!("The configuration is good: {} app(s){store}.\n", loaded.config.apps.len()));
            loaded.notes.iter().for_each(|note| say(&format!("{}: {}\n", note.name, note.message)));
            ExitCode::SUCCESS
        }),
        Command::Config(ConfigCommand::Show { settings, origin }) => with_config(&settings, |mut loaded| {
            say(&loaded.show(origin));
            ExitCode::SUCCESS
        }),
        Command::App(command) => app::run(command),
        Command::Config(ConfigCommand::Default) => {
            say(&default_toml());
            ExitCode::SUCCESS
        }
        Command::Remote(command) => remote::run(&command),
        Command::Config(ConfigCommand::Convert(convert)) => convert.run(),
        Command::Completions(completions) => completions.run(Cli::command()),
        Command::Man(manual) => manual.run(Cli::command()),
    }
}

fn with_config(settings: &Settings, then: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    let layers = match settings.layers() {
        Ok(layers) => layers,
        Err(message) => return fail(EXIT_CONFIG, &message),
    };
    match layers.load() {
        Ok(loaded) => then(loaded),
        Err(error) => fail(EXIT_CONFIG, &format!("The configuration is wrong:\n{error}")),
    }
}

fn serve(settings: &Settings) -> ExitCode {
    with_config(settings, |loaded| {
        start_log(&loaded.config);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        loaded.notes.iter().for_each(tell);
        let demo = loaded.config.has_demo_app();
        let inherited = match activation::inherited(&loaded.config) {
            Ok(inherited) => inherited,
            Err(message) => return fail(EXIT_FAILED, &message),
        };
        match server::run(loaded.config, loaded.layers, inherited, |listening| announce(listening, demo)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILED, &error.to_string()),
        }
    })
}

/// Says what became of a foreign name.
fn tell(note: &Note) {
    let Note { name, message, warn } = note;
    if *warn {
        tracing::warn!(name, meaning = message, "a foreign setting needs a look");
    } else {
        tracing::info!(name, meaning = message, "foreign setting");
    }
}

impl Settings {
    fn layers(&self) -> Result<Layers, String> {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let environment: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect();
        let of_environment = environment.iter().find(|variable| variable.0 == "FANFARE_CONFIG");
        let mut flags = Vec::new();
        for (flag, key, value) in [
            ("--bind", "server.bind", &self.bind),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ] {
            if let Some(value) = value {
                flags.push((flag.to_owned(), key.to_owned(), value.clone()));
            }
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                format!("--set {pair}: expected KEY=VALUE, as in --set connection.ping_after_s=30")
            })?;
            flags.push((format!("--set {key}"), key.to_owned(), value.to_owned()));
        }
        let file = self.config.clone().or_else(|| of_environment.map(|variable| PathBuf::from(&variable.1)));
        Ok(Layers { file, environment, flags })
    }
}

/// Begins to write log lines to standard error.
fn start_log(config: &Config) {
    // Of the libraries underneath only what someone must act on.
    let filter =
        Targets::new().with_default(LevelFilter::WARN).with_target("fanfare", level(config.log.level));
    let lines = fmt::layer().with_writer(io::stderr);
    let log = tracing_subscriber::registry();
    match config.log.format {
        LogFormat::Text => {
            log.with(lines.with_ansi(io::stderr().is_terminal()).with_filter(filter)).init();
        }
        LogFormat::Json => log.with(lines.json().flatten_event(true).with_filter(filter)).init(),
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Says on standard output where the server listens, and, for the demo app, what to paste into an app.
fn announce(listening: Listening, demo: bool) {
    let mut text = String::new();
    if let Some(metrics) = listening.metrics {
        text.push_str(&format!("fanfare: metrics on http://{metrics}/metrics\n"));
    }
    if let Some(admin) = listening.admin {
        text.push_str(&format!("fanfare: admin API on http://{admin}/admin/v1\n"));
    }
    if let Some(plain) = listening.plain {
        text.push_str(&format!("fanfare: without TLS on http://{plain}\n"));
    }
    let scheme = if listening.tls { "https" } else { "http" };
    text.push_str(&format!(
        "fanfare {} listening on {scheme}://{}\n",
        env!("CARGO_PKG_VERSION"),
        listening.clients
    ));
    if demo {
        let (host, port) = (listening.clients.ip(), listening.clients.port());
        let (tls, port_name) = (listening.tls, if listening.tls { "wssPort" } else { "wsPort" });
        text.push_str(&format!(
            r#"
This is the demo app, for this machine alone. Paste into a page:

  <script src="https://js.pusher.com/8.4/pusher.min.js"></script>
  <script>
    const pusher = new Pusher("{DEMO_KEY}", {{
      wsHost: "{host}", {port_name}: {port}, forceTLS: {tls}, enabledTransports: ["ws", "wss"], cluster: "",
    }});
    pusher.subscribe("my-channel").bind("my-event", (data) => console.log(data));
  </script>

and into a backend (Node: npm install pusher):

  const Pusher = require("pusher");
  const pusher = new Pusher({{
    appId: "1", key: "{DEMO_KEY}", secret: "{DEMO_SECRET}", host: "{host}", port: "{port}", useTLS: {tls},
  }});
  pusher.trigger("my-channel", "my-event", {{ hello: "world" }});

Your own apps: fanfare config default > fanfare.toml, then fanfare serve --config fanfare.toml
"#
        ));
    }
    say(&text);
}

/// Writes to standard output. Nobody listening there is no reason to stop.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "fanfare: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let set = vec!["log.level=debug".to_owned(), "broken".to_owned()];
        let settings = Settings { bind: Some("[::1]:1".into()), set, ..Settings::default() };
        assert!(settings.layers().expect_err("no pair").contains("expected KEY=VALUE"));
        let settings = Settings { set: vec!["log.level=debug".into()], ..settings };
        let flags = settings.layers().expect("pairs").flags;
        assert_eq!(flags[0], ("--bind".into(), "server.bind".into(), "[::1]:1".into()));
        assert_eq!(flags[1], ("--set log.level".into(), "log.level".into(), "debug".into()));
    }
}
