//! `fanfare app`: apps of files and of the store, by command.
//!
//! Not here: how a file is edited (`file`), tables and SQL (`store`).

mod file;
mod place;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::{Value, json};
use thiserror::Error;

use crate::app::App;
use crate::cli::{EXIT_CONFIG, EXIT_FAILED, Settings, fail, say};
use crate::config::{Loaded, Masked, set_app};
use crate::store::{Pair, Record, StoreError};

use file::Part;
use place::Place;
use show::{list, show};

const EXAMPLES: &str = "\
Examples:
  fanfare app create --config fanfare.toml --client-events
  fanfare app create --config fanfare.toml --id 7 --set connections_max=500
  fanfare app rotate 7 --config fanfare.toml             a second pair, until every backend has it
  fanfare app rotate 7 --config fanfare.toml --drop-old  the newest pair alone
  FANFARE_STORE_URL=postgres://… fanfare app list        with store.url set the store's apps are meant
  fanfare app create --config fanfare.toml --set store.apps_file=apps.toml  a file with apps alone

A running server takes changes of the file on SIGHUP or as it watches it, those of the store within
store.cache_ttl_s. Apps that are new to the store are served at once.
Exit codes: 0 done, 1 not done, 2 wrong flags, 3 wrong configuration.";

/// Apps, in the configuration file, in the one that store.apps_file names, or in the store.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum AppCommand {
    /// Make an app with a new key and secret, and print them: once. --set takes any setting of an app.
    #[command(after_help = EXAMPLES)]
    Create {
        /// Its id; the next free number if left out
        #[arg(long)]
        id: Option<String>,
        /// Let clients send client- events
        #[arg(long)]
        client_events: bool,
        /// Tell subscribers how many they are
        #[arg(long)]
        subscription_counts: bool,
        /// Most connections at a time
        #[arg(long, value_name = "COUNT")]
        connections_max: Option<usize>,
        /// A page that may connect, as in https://app.example; may be given several times
        #[arg(long, value_name = "ORIGIN")]
        origin: Vec<String>,
        /// A receiver of webhooks; may be given several times
        #[arg(long, value_name = "URL")]
        webhook: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List the apps.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show an app: its keys and what differs from the defaults.
    Show {
        /// The app's id
        id: String,
        /// Show secrets too
        #[arg(long)]
        secrets: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Add a new key and secret; the old ones go on until they are dropped.
    Rotate {
        /// The app's id
        id: String,
        /// Drop all pairs but the newest, and add none
        #[arg(long)]
        drop_old: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Serve an app again.
    Enable {
        /// The app's id
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Stop serving an app; its connections are closed with 4003.
    Disable {
        /// The app's id
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Delete an app; its connections are closed with 4001.
    Delete {
        /// The app's id
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Default, Args)]
pub(super) struct Common {
    #[command(flatten)]
    settings: Settings,
    /// The apps of files, even if there is a store
    #[arg(long, conflicts_with = "store")]
    file: bool,
    /// The apps of the store (store.url)
    #[arg(long)]
    store: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Why a command was not carried out, with the remedy.
#[derive(Debug, Error)]
enum AppError {
    #[error("The configuration is wrong:\n{0}")]
    Config(String),
    #[error("there is no app {id} in {place}: fanfare app list shows those there are")]
    NoApp { id: String, place: String },
    #[error("the id {0} is taken: leave out --id for the next free number")]
    IdTaken(String),
    #[error("--set {0}: expected KEY=VALUE, as in --set connections_max=500")]
    NoPair(String),
    #[error(
        "--set {0}: settings of an app are for fanfare app create; those of the configuration have a dot"
    )]
    NotHere(String),
    #[error("the app cannot be made: {0}")]
    Setting(String),
    #[error("app {0} has one pair of key and secret only: fanfare app rotate {0} adds one first")]
    OnePair(String),
    #[error("name the configuration file, as in --config fanfare.toml, or set store.url")]
    NoPlace,
    #[error("--store: there is no store: set store.url, as in --set store.url=sqlite:apps.db")]
    NoStore,
    #[error("{path}: {problem}")]
    File { path: String, problem: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Row(String),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl AppError {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            _ => EXIT_FAILED,
        }
    }
}

/// What was done, to be told to people or as JSON.
struct Done {
    text: String,
    json: Value,
}

/// Runs a command.
pub(super) fn run(command: AppCommand) -> ExitCode {
    let json = command.common().json;
    match carry_out(command) {
        Ok(done) if json => say(&format!("{}\n", done.json)),
        Ok(done) => say(&done.text),
        Err(error) => return fail(error.code(), &error.to_string()),
    }
    ExitCode::SUCCESS
}

impl AppCommand {
    fn common(&self) -> &Common {
        match self {
            Self::Create { common, .. }
            | Self::List { common }
            | Self::Show { common, .. }
            | Self::Rotate { common, .. }
            | Self::Enable { common, .. }
            | Self::Disable { common, .. }
            | Self::Delete { common, .. } => common,
        }
    }
}

fn carry_out(command: AppCommand) -> Result<Done, AppError> {
    let common = command.common();
    // Settings of the configuration have a dot in their names, those of an app have none.
    let (of_config, of_app): (Vec<String>, Vec<String>) = common
        .settings
        .set
        .iter()
        .cloned()
        .partition(|pair| pair.split('=').next().unwrap_or_default().contains('.'));
    if let (Some(pair), false) = (of_app.first(), matches!(command, AppCommand::Create { .. })) {
        return Err(AppError::NotHere(pair.clone()));
    }
    let mut place = open(common, Settings { set: of_config, ..common.settings.clone() })?;
    match command {
        AppCommand::Create {
            id,
            client_events,
            subscription_counts,
            connections_max,
            origin,
            webhook,
            ..
        } => {
            let settings = [
                ("client_events", client_events.then(|| true.to_string())),
                ("subscription_counts", subscription_counts.then(|| true.to_string())),
                ("connections_max", connections_max.map(|max| max.to_string())),
                ("allowed_origins", (!origin.is_empty()).then(|| origin.join(","))),
                ("webhooks", (!webhook.is_empty()).then(|| webhook.join(","))),
            ];
            let given = settings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            let mut settings: Vec<(String, String)> = given.collect();
            for pair in of_app {
                let (key, value) = pair.split_once('=').ok_or_else(|| AppError::NoPair(pair.clone()))?;
                settings.push((key.to_owned(), value.to_owned()));
            }
            create(&mut place, id, &settings)
        }
        AppCommand::List { .. } => list(&place),
        AppCommand::Show { id, secrets, .. } => Ok(show(&find(&place, &id)?, secrets)),
        AppCommand::Rotate { id, drop_old, .. } => rotate(&mut place, &id, drop_old),
        AppCommand::Enable { id, .. } => switch(&mut place, &id, true),
        AppCommand::Disable { id, .. } => switch(&mut place, &id, false),
        AppCommand::Delete { id, .. } => {
            let record = find(&place, &id)?;
            let name = place.name_for(&id);
            place.delete(&record)?;
            let text = format!("App {id} is deleted from {name}.\n{}", place.takes_effect());
            Ok(Done { text, json: json!({ "id": id, "deleted": true }) })
        }
    }
}

/// The place of the apps: the store if there is one, files if not.
fn open(common: &Common, settings: Settings) -> Result<Place, AppError> {
    let layers = settings.layers().map_err(AppError::Config)?;
    // A file that is not there yet is made by the first app.
    let mut there = layers.clone();
    there.file = there.file.filter(|path| path.exists());
    // An empty file of apps, if there is none: so the demo app is nobody's reason to refuse the first app.
    let apps_file = layers.apps_file().filter(|path| path.exists()).unwrap_or_else(|| "/dev/null".into());
    let Loaded { config, .. } = Part::Apps
        .replaced(&there, &apps_file)
        .load()
        .map_err(|error| AppError::Config(error.to_string()))?;
    let has_store = !config.store.url.expose().is_empty();
    if common.store && !has_store {
        return Err(AppError::NoStore);
    }
    if has_store && !common.file { Place::store(config) } else { Place::files(layers) }
}

fn find(place: &Place, id: &str) -> Result<Record, AppError> {
    let no_app = || AppError::NoApp { id: id.to_owned(), place: place.name() };
    let mut broken = None;
    for record in place.records()? {
        match record {
            Ok(record) if record.id == id => return Ok(record),
            Ok(_) => {}
            Err(reason) if reason.starts_with(&format!("app {id}: ")) => broken = Some(reason),
            Err(_) => {}
        }
    }
    Err(broken.map_or_else(no_app, AppError::Row))
}

fn create(place: &mut Place, id: Option<String>, settings: &[(String, String)]) -> Result<Done, AppError> {
    let mut app = App::default();
    for (key, value) in settings {
        if ["id", "keys"].contains(&&**key) {
            return Err(AppError::Setting(format!(
                "{key} is no setting to choose here: use --id, or rotate for keys"
            )));
        }
        set_app(&mut app, key, value).map_err(AppError::Setting)?;
    }
    let taken = place.ids()?;
    let id = match id {
        Some(id) if taken.contains(&id) => return Err(AppError::IdTaken(id)),
        Some(id) => id,
        None => next_free(&taken),
    };
    let pair = new_pair()?;
    let record = Record::new(id.clone(), vec![pair.clone()], &app);
    record.app().map_err(AppError::Setting)?;
    place.insert(&record)?;
    let (key, secret) = (&pair.key, pair.secret.expose());
    let text = format!(
        "App {id} is made, in {}.\n\n  PUSHER_APP_ID={id}\n  PUSHER_APP_KEY={key}\n  PUSHER_APP_SECRET={secret}\n\n\
         Paste these lines into the environment of your backend; pages get the key alone.\n{}",
        place.name_for(&id),
        place.takes_effect()
    );
    Ok(Done { text, json: json!({ "id": id, "key": key, "secret": secret }) })
}

/// One more than the highest number in use.
fn next_free(taken: &[String]) -> String {
    let highest = taken.iter().filter_map(|id| id.parse::<u64>().ok()).max().unwrap_or_default();
    highest.saturating_add(1).to_string()
}

/// A key and a secret that nobody can guess.
fn new_pair() -> Result<Pair, AppError> {
    let mut bytes = [0; 26];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| AppError::Random(error.to_string()))?;
    let (key, secret) = bytes.split_at(10);
    Ok(Pair { key: hex::encode(key), secret: Masked::new(hex::encode(secret)) })
}

fn rotate(place: &mut Place, id: &str, drop_old: bool) -> Result<Done, AppError> {
    let mut record = find(place, id)?;
    if drop_old {
        let newest = record.keys.pop().ok_or_else(|| AppError::OnePair(id.to_owned()))?;
        if record.keys.is_empty() {
            return Err(AppError::OnePair(id.to_owned()));
        }
        let dropped: Vec<String> = record.keys.drain(..).map(|pair| pair.key).collect();
        record.keys.push(newest.clone());
        place.update(&record)?;
        let text = format!(
            "App {id} has the key {} alone; dropped: {}.\n{}",
            newest.key,
            dropped.join(", "),
            place.takes_effect()
        );
        return Ok(Done { text, json: json!({ "id": id, "key": newest.key, "dropped": dropped }) });
    }
    let pair = new_pair()?;
    record.keys.push(pair.clone());
    place.update(&record)?;
    let (key, secret) = (&pair.key, pair.secret.expose());
    let text = format!(
        "App {id} has a new pair, beside those before:\n\n  PUSHER_APP_KEY={key}\n  PUSHER_APP_SECRET={secret}\n\n\
         Once every backend and page has it, drop the old: fanfare app rotate {id} --drop-old\n{}",
        place.takes_effect()
    );
    Ok(Done { text, json: json!({ "id": id, "key": key, "secret": secret }) })
}

fn switch(place: &mut Place, id: &str, enabled: bool) -> Result<Done, AppError> {
    let mut record = find(place, id)?;
    record.enabled = enabled;
    place.update(&record)?;
    let word = if enabled { "enabled" } else { "disabled" };
    let text = format!("App {id} is {word}.\n{}", place.takes_effect());
    Ok(Done { text, json: json!({ "id": id, "enabled": enabled }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_id_is_one_more_than_the_highest_number() {
        assert_eq!(next_free(&[]), "1");
        assert_eq!(next_free(&["9".into(), "app".into(), "10".into()]), "11");
    }

    #[test]
    fn pairs_are_long_and_never_the_same() {
        let (one, other) = (new_pair().expect("random"), new_pair().expect("random"));
        assert_eq!((one.key.len(), one.secret.expose().len()), (20, 32));
        assert_ne!(one.key, other.key);
    }
}
