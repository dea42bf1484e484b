//! Commands to a server that runs: they talk to its admin API.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, StatusCode, Url, redirect};
use serde_json::{Value, json};
use tokio::runtime;
use tokio::time::sleep;

use crate::cli::show::{
    connection_text, connections_text, dead_letters_text, nodes_text, pretty, status_text,
};
use crate::cli::{EXIT_CONFIG, EXIT_FAILED, Settings, fail, say};
use crate::config::{Admin, Config};

/// For the whole answer; a reload may ask a database.
const TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a draining server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the admin API gives on one page.
const PAGE_MAX: usize = 1000;

/// What a running server is asked or told, through its admin API.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one for each process")]
pub(super) enum Remote {
    /// Say how a running server is.
    Status {
        #[command(flatten)]
        target: Target,
        /// As the admin API says it
        #[arg(long)]
        json: bool,
    },
    /// List the nodes of a cluster, as a running server sees them.
    Nodes {
        #[command(flatten)]
        target: Target,
        /// As the admin API says it
        #[arg(long)]
        json: bool,
    },
    /// Stop a running server: unready at once, connections closed over a time, then the end.
    Drain {
        #[command(flatten)]
        target: Target,
        /// Return when the server is gone
        #[arg(long)]
        wait: bool,
    },
    /// Have a running server read its configuration again.
    Reload {
        #[command(flatten)]
        target: Target,
    },
    /// List, show and close connections (list is the default).
    #[command(args_conflicts_with_subcommands = true)]
    Connections {
        #[command(subcommand)]
        command: Option<Connections>,
        #[command(flatten)]
        list: List,
    },
    /// Webhooks that could not be delivered.
    #[command(subcommand)]
    Webhooks(Webhooks),
}

#[derive(Debug, Subcommand)]
pub(super) enum Connections {
    /// List connections, by socket id.
    List(List),
    /// Show everything about one connection.
    Show {
        #[command(flatten)]
        target: Target,
        /// Its socket id
        id: String,
        /// As the admin API says it
        #[arg(long)]
        json: bool,
    },
    /// Close one connection. Its client reconnects at once.
    Close {
        #[command(flatten)]
        target: Target,
        /// Its socket id
        id: String,
        /// For good: its client does not come back by itself
        #[arg(long = "final")]
        is_final: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    target: Target,
    /// Of this app
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// Signed in as this user of the app
    #[arg(long, value_name = "ID", requires = "app")]
    user: Option<String>,
    /// Subscribed to this channel of the app
    #[arg(long, value_name = "NAME", requires = "app")]
    channel: Option<String>,
    /// Only those behind this socket id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// So many at most; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// As the admin API says it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Webhooks {
    /// List what could not be delivered, newest first.
    List {
        #[command(flatten)]
        target: Target,
        /// Of this app
        #[arg(long, value_name = "ID")]
        app: Option<String>,
        /// So many at most, up to 1000
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
        /// As the admin API says it, with the bodies
        #[arg(long)]
        json: bool,
    },
    /// Try to deliver again: one by its id, those of an app, or all.
    Replay {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// The one with this id
    id: Option<String>,
    /// Those of this app
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Where the server is.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Configuration file with the server's admin.bind and admin.token [env: FANFARE_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting, as in admin.bind=127.0.0.1:9602; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The admin API's address instead of admin.bind, as in http://10.0.0.1:9602
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The token instead of admin.token. Other users of this machine can see it here: FANFARE_ADMIN_TOKEN is safer
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

/// Why a command has failed.
struct Failure {
    exit: u8,
    message: String,
    /// Nobody listens there.
    is_gone: bool,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { exit: EXIT_FAILED, message: message.into(), is_gone: false }
    }

    fn of_config(message: impl Into<String>) -> Self {
        Self { exit: EXIT_CONFIG, ..Self::new(message) }
    }
}

/// Carries a command out.
pub(super) fn run(command: &Remote) -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(command)),
        Err(error) => Err(Failure::new(error.to_string())),
    };
    match outcome {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(Failure { exit, message, .. }) => fail(exit, &message),
    }
}

/// What to say in the end.
async fn carry_out(command: &Remote) -> Result<String, Failure> {
    match command {
        Remote::Status { target, json } => {
            let status = Api::of(target)?.get("status", &[]).await?;
            Ok(if *json { pretty(&status) } else { status_text(&status) })
        }
        Remote::Nodes { target, json } => {
            let nodes = Api::of(target)?.get("nodes", &[]).await?;
            Ok(if *json { pretty(&nodes) } else { nodes_text(&nodes) })
        }
        Remote::Drain { target, wait } => drain(&Api::of(target)?, *wait).await,
        Remote::Reload { target } => reload(&Api::of(target)?).await,
        Remote::Connections { command: None, list } => connections(list).await,
        Remote::Connections { command: Some(Connections::List(list)), .. } => connections(list).await,
        Remote::Connections { command: Some(Connections::Show { target, id, json }), .. } => {
            let path = format!("connections/{}", escaped(id));
            let connection = Api::of(target)?.get(&path, &[]).await?;
            Ok(if *json { pretty(&connection) } else { connection_text(&connection) })
        }
        Remote::Connections { command: Some(Connections::Close { target, id, is_final }), .. } => {
            let path = format!("connections/{}", escaped(id));
            let query = [("final", is_final.then(|| "true".to_owned()))];
            let closed = Api::of(target)?.call(Method::DELETE, &path, &query, None).await?;
            Ok(format!("Closed {id} with {}.\n", closed["code"]))
        }
        Remote::Webhooks(Webhooks::List { target, app, limit, json }) => {
            let query = [("app", app.clone()), ("limit", Some(limit.to_string()))];
            let letters = Api::of(target)?.get("webhooks/dead-letters", &query).await?;
            Ok(if *json { pretty(&letters) } else { dead_letters_text(&letters) })
        }
        Remote::Webhooks(Webhooks::Replay { target, which }) => {
            let which = match which {
                Which { id: Some(id), .. } => json!({ "id": id }),
                Which { app: Some(app), .. } => json!({ "app": app }),
                Which { .. } => json!({ "all": true }),
            };
            let path = "webhooks/dead-letters/replay";
            let replayed = Api::of(target)?.call(Method::POST, path, &[], Some(which)).await?;
            Ok(format!("{} being delivered again.\n", replayed["replayed"]))
        }
    }
}

async fn drain(api: &Api, wait: bool) -> Result<String, Failure> {
    api.call(Method::POST, "drain", &[], None).await?;
    if !wait {
        return Ok("The server is stopping.\n".to_owned());
    }
    loop {
        sleep(LOOK_EVERY).await;
        match api.get("status", &[]).await {
            // Somebody has started the next one at the same address already.
            Ok(status) if status["state"] == "serving" => break,
            Err(failure) if failure.is_gone => break,
            // It answers, or it is too busy with stopping.
            Ok(_) | Err(_) => {}
        }
    }
    Ok("The server has stopped.\n".to_owned())
}

async fn reload(api: &Api) -> Result<String, Failure> {
    let reloaded = api.call(Method::POST, "reload", &[], None).await?;
    let mut text = format!("The new configuration is in force: {} app(s).\n", reloaded["apps"]);
    for setting in reloaded["needs_restart"].as_array().into_iter().flatten() {
        text.push_str(&format!("Takes a restart: {}\n", setting.as_str().unwrap_or_default()));
    }
    Ok(text)
}

async fn connections(list: &List) -> Result<String, Failure> {
    let api = Api::of(&list.target)?;
    let limit = if list.limit == 0 { usize::MAX } else { list.limit };
    let mut all: Vec<Value> = Vec::new();
    let mut after = list.after.clone();
    loop {
        let query = [
            ("app", list.app.clone()),
            ("user", list.user.clone()),
            ("channel", list.channel.clone()),
            ("after", after),
            ("limit", Some((limit - all.len()).min(PAGE_MAX).to_string())),
        ];
        let page = api.get("connections", &query).await?;
        all.extend(page["connections"].as_array().into_iter().flatten().cloned());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || all.len() >= limit {
            break;
        }
    }
    Ok(match list.json {
        true => pretty(&json!({ "connections": all, "next": after })),
        false => connections_text(&all, after.as_deref()),
    })
}

/// The admin API of one server.
struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    fn of(target: &Target) -> Result<Self, Failure> {
        let (base, token) = match (&target.url, &target.token) {
            (Some(url), Some(token)) => (url.clone(), token.clone()),
            _ => target.configured()?,
        };
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !Url::parse(&base).is_ok_and(|url| is_http(&url)) {
            return Err(Failure::of_config("bad --url: expected an address, as in http://127.0.0.1:9602"));
        }
        let client = Client::builder()
            // The token is for this server and nobody in between.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Failure::new(innermost(&error)))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    async fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        self.call(Method::GET, path, query, None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, Option<String>)],
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let given = query.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let query: Vec<String> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let url = format!("{}/admin/v1/{path}?{}", self.base, query.join("&"));
        let mut request = self.client.request(method, url.trim_end_matches('?')).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        match serde_json::from_str::<Value>(&text) {
            Ok(answer) if status.is_success() => Ok(answer),
            Ok(answer) if answer["error"].is_string() => Err(refused(status, &answer)),
            _ => Err(Failure::new(format!("{} is no admin API of Fanfare: it answers {status}", self.base))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let message = format!(
            "the admin API at {} cannot be reached: {}\nIs the server running, and are its admin.bind and admin.token \
             those of this configuration?",
            self.base,
            innermost(error)
        );
        Failure { is_gone: error.is_connect(), ..Failure::new(message) }
    }
}

impl Target {
    /// Address and token by the configuration, unless flags say otherwise.
    fn configured(&self) -> Result<(String, String), Failure> {
        let settings = Settings { config: self.config.clone(), set: self.set.clone(), ..Settings::default() };
        let layers = settings.layers().map_err(Failure::of_config)?;
        let loaded = layers
            .load()
            .map_err(|error| Failure::of_config(format!("The configuration is wrong:\n{error}")))?;
        let Config { admin: Admin { bind, token }, .. } = loaded.config;
        let token = self.token.clone().unwrap_or_else(|| token.expose().to_owned());
        let off = "set admin.bind, as in \"127.0.0.1:9602\", and admin.token to at least 16 characters, as from \
                   openssl rand -hex 16, for the server and for this command";
        if token.is_empty() {
            return Err(Failure::of_config(format!("the admin API is off, for admin.token is empty: {off}")));
        }
        let base = match (&self.url, bind) {
            (Some(url), _) => url.clone(),
            (None, None) => {
                let message = format!("the admin API is off, for admin.bind is empty: {off}");
                return Err(Failure::of_config(message));
            }
            (None, Some(bind)) if bind.port() == 0 => {
                let message = "admin.bind has port 0: say with --url which one the server got";
                return Err(Failure::of_config(message));
            }
            (None, Some(mut bind)) => {
                // Everywhere is also here.
                match bind.ip() {
                    ip if !ip.is_unspecified() => {}
                    ip if ip.is_ipv4() => bind.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
                    _ => bind.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
                }
                format!("http://{bind}")
            }
        };
        Ok((base, token))
    }
}

fn refused(status: StatusCode, answer: &Value) -> Failure {
    if status == StatusCode::UNAUTHORIZED {
        return Failure::new(
            "the server refuses the token: give the admin.token of its configuration, with --config, \
             FANFARE_ADMIN_TOKEN or --token",
        );
    }
    let mut message = answer["error"].as_str().unwrap_or_default().to_owned();
    for problem in answer["problems"].as_array().into_iter().flatten() {
        message.push_str(&format!("\n{}", problem.as_str().unwrap_or_default()));
    }
    Failure::new(message)
}

/// What is behind an error: the outer ones say only that something went wrong.
pub(super) fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
