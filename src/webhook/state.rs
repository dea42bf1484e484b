//! What survives a restart: leaves not told yet, deliveries, dead letters.
//!
//! The file holds what was to be posted and the URLs, and is for its owner alone. It has no secrets and no headers:
//! both are taken from the configuration when it is read. It is read once: whoever starts takes it over.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::app::Apps;
use crate::hub::Leavers;
use crate::metrics::Dropped;
use crate::node::{AppName, Node, StoreAway};
use crate::protocol::ChannelName;
use crate::webhook::dead_letters::Dead;
use crate::webhook::delivery::{Delivery, DeliveryId, Endpoint, Now};
use crate::webhook::queue::{EVENT_OVERHEAD, Queue};

/// Tells the file from others.
const FORMAT: &str = "fanfare webhooks";
const VERSION: u64 = 1;

/// Why the state file cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The system does not let us read it.
    #[error("webhooks.state_file: {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system does not let us write it.
    #[error("webhooks.state_file: {path} cannot be written: {source}; its folder must exist and be writable")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else, or is damaged.
    #[error(
        "webhooks.state_file: {path} holds no state of webhooks ({problem}): move it away to start without it, or name another file"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another version has written it.
    #[error(
        "webhooks.state_file: {path} is of format version {version}, this fanfare knows {VERSION}: start the fanfare that wrote it, or move it away to start without it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        version: u64,
    },
    /// It tells of apps of the store, and nobody can say whether there are any such.
    #[error(
        "webhooks.state_file: {path} tells of apps of the store, which does not answer: start again when it does"
    )]
    StoreAway {
        /// The file.
        path: PathBuf,
    },
}

/// Apps looked up at a time.
const LOOKED_UP: usize = 256;

/// Where state is kept over a restart.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

#[derive(Deserialize, Serialize)]
struct State {
    format: String,
    version: u64,
    leavers: Vec<Left>,
    deliveries: Vec<Letter>,
    dead_letters: Vec<Letter>,
}

#[derive(Deserialize, Serialize)]
struct Left {
    app: String,
    channel: String,
    vacated: bool,
    members: Vec<String>,
}

/// A delivery or dead letter.
#[derive(Deserialize, Serialize)]
struct Letter {
    id: String,
    app: String,
    url: String,
    /// Which of the app's receivers with this URL.
    #[serde(default)]
    place: usize,
    time_ms: u64,
    /// As a text, so that it stays as it is to the byte.
    events: String,
    count: usize,
    channels: Vec<String>,
    attempts: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    error: String,
}

impl StateFile {
    /// The file of the configuration, if one is named.
    ///
    /// # Errors
    /// When it could not be written in the end.
    pub(super) fn open(path: &str) -> Result<Option<Self>, StateError> {
        if path.is_empty() {
            return Ok(None);
        }
        let file = Self { path: PathBuf::from(path) };
        let draft = file.draft();
        create(&draft).and_then(|_| fs::remove_file(&draft)).map_err(|source| file.unwritable(source))?;
        Ok(Some(file))
    }

    /// Takes over what is in the file.
    pub(super) async fn restore(
        &self,
        node: &Arc<Node>,
        queue: &mut Queue,
        now: impl Fn() -> Now,
    ) -> Result<(), StateError> {
        let Some(state) = self.read()? else { return Ok(()) };
        let away = |StoreAway| StateError::StoreAway { path: self.path.clone() };
        look_up(node, state.apps()).await.map_err(away)?;
        let (apps, now) = (node.apps(), now());
        let mut gone = 0;
        let (leavers, deliveries, dead) =
            (state.leavers.len(), state.deliveries.len(), state.dead_letters.len());
        for left in state.leavers {
            restore_leavers(node, &apps, left, now.at);
        }
        for letter in state.deliveries {
            match delivery(&apps, &letter, now.at) {
                Some((endpoint, delivery)) => queue.restore(endpoint, delivery, now),
                None => gone += letter.count,
            }
        }
        for letter in state.dead_letters {
            queue.restore_dead(dead_letter(letter));
        }
        fs::remove_file(&self.path).map_err(|source| self.unwritable(source))?;
        tracing::info!(
            channels = leavers,
            deliveries,
            dead_letters = dead,
            "webhooks of the last run are taken over"
        );
        if gone > 0 {
            node.metrics().webhooks.dropped(Dropped::ReceiverGone, gone);
            tracing::warn!(events = gone, "events for webhooks were dropped, their receivers are gone");
        }
        Ok(())
    }

    /// Writes everything down, all of it or nothing.
    pub(super) fn save(&self, leavers: &[Leavers], queue: &Queue) -> Result<(), StateError> {
        let state = State {
            format: FORMAT.to_owned(),
            version: VERSION,
            leavers: leavers.iter().map(left).collect(),
            deliveries: queue.deliveries().map(|(endpoint, delivery)| letter(endpoint, delivery)).collect(),
            dead_letters: queue.dead().all().map(dead).collect(),
        };
        self.write(&state).map_err(|source| self.unwritable(source))
    }

    fn read(&self) -> Result<Option<State>, StateError> {
        let path = || self.path.clone();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path: path(), source }),
        };
        let foreign =
            |error: serde_json::Error| StateError::Foreign { path: path(), problem: error.to_string() };
        let head: Head = serde_json::from_slice(&text).map_err(foreign)?;
        if head.format != FORMAT {
            return Err(StateError::Foreign { path: path(), problem: "its format is another".to_owned() });
        }
        if head.version != VERSION {
            return Err(StateError::Version { path: path(), version: head.version });
        }
        serde_json::from_slice(&text).map(Some).map_err(foreign)
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let draft = self.draft();
        let mut file = create(&draft)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // So that the new name, too, is on the disk. Not every file system can say so.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        Ok(())
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    fn unwritable(&self, source: io::Error) -> StateError {
        StateError::Write { path: self.path.clone(), source }
    }
}

impl State {
    /// The apps for which something is to be done now. Those of dead letters are looked for when they are replayed.
    fn apps(&self) -> BTreeSet<&str> {
        let leavers = self.leavers.iter().map(|left| &*left.app);
        leavers.chain(self.deliveries.iter().map(|letter| &*letter.app)).collect()
    }
}

/// Has the node know apps of the store, which it does only of those that somebody has asked for.
async fn look_up(node: &Arc<Node>, apps: BTreeSet<&str>) -> Result<(), StoreAway> {
    let unknown: Vec<_> = apps.into_iter().filter(|app| node.apps().by_id(app).is_none()).collect();
    for some in unknown.chunks(LOOKED_UP) {
        // All at once, so that one query finds them.
        let asked = some.iter().map(|app| {
            let (node, name) = (node.clone(), AppName::Id((*app).to_owned()));
            actix_rt::spawn(async move { node.look_up(name).await })
        });
        for answer in asked.collect::<Vec<_>>() {
            answer.await.unwrap_or(Err(StoreAway))?;
        }
    }
    Ok(())
}

/// A fresh file that nobody else can read.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn restore_leavers(node: &Node, apps: &Apps, left: Left, now: Instant) {
    let Some(app) = apps.by_id(&left.app).filter(|app| !app.webhooks.is_empty()) else { return };
    let Ok(channel) = ChannelName::parse(&left.channel, usize::MAX) else { return };
    let members = left.members.into_iter().map(String::into_boxed_str).collect();
    node.restore(app, &Leavers { app: app.id.clone(), channel, vacated: left.vacated, members }, now);
}

/// None if its app has no such receiver any more.
fn delivery(apps: &Apps, letter: &Letter, now: Instant) -> Option<(Endpoint, Delivery)> {
    let delivery = Delivery {
        id: DeliveryId::parse(&letter.id)?,
        app: apps.by_id(&letter.app)?.clone(),
        time_ms: letter.time_ms,
        events: letter.events.clone(),
        count: letter.count,
        channels: channels(&letter.channels),
        weight: weight(letter),
        until: now,
        attempts: letter.attempts,
        // The file is not for nodes of a cluster.
        again: false,
        receipts: Vec::new(),
    };
    Some((endpoint(letter).now_in(apps)?, delivery))
}

fn dead_letter(letter: Letter) -> Dead {
    Dead {
        // It gets its headers when it is replayed.
        endpoint: Arc::new(endpoint(&letter)),
        id: DeliveryId::parse(&letter.id).unwrap_or(DeliveryId(0)),
        time_ms: letter.time_ms,
        count: letter.count,
        channels: channels(&letter.channels),
        attempts: letter.attempts,
        again: false,
        weight: weight(&letter),
        error: letter.error,
        events: letter.events,
    }
}

fn endpoint(letter: &Letter) -> Endpoint {
    let app = letter.app.as_str().into();
    Endpoint { app, url: letter.url.clone(), place: letter.place, headers: Vec::new() }
}

fn channels(names: &[String]) -> Vec<ChannelName> {
    names.iter().filter_map(|name| ChannelName::parse(name, usize::MAX).ok()).collect()
}

fn weight(letter: &Letter) -> usize {
    letter.count * EVENT_OVERHEAD + letter.events.len()
}

fn left(leavers: &Leavers) -> Left {
    Left {
        app: leavers.app.to_string(),
        channel: leavers.channel.to_string(),
        vacated: leavers.vacated,
        members: leavers.members.iter().map(ToString::to_string).collect(),
    }
}

fn letter(endpoint: &Endpoint, delivery: &Delivery) -> Letter {
    Letter {
        id: delivery.id.to_string(),
        app: endpoint.app.to_string(),
        url: endpoint.url.clone(),
        place: endpoint.place,
        time_ms: delivery.time_ms,
        events: delivery.events.clone(),
        count: delivery.count,
        channels: delivery.channels.iter().map(ToString::to_string).collect(),
        attempts: delivery.attempts,
        error: String::new(),
    }
}

fn dead(dead: &Dead) -> Letter {
    Letter {
        id: dead.id.to_string(),
        app: dead.endpoint.app.to_string(),
        url: dead.endpoint.url.clone(),
        place: dead.endpoint.place,
        time_ms: dead.time_ms,
        events: dead.events.clone(),
        count: dead.count,
        channels: dead.channels.iter().map(ToString::to_string).collect(),
        attempts: dead.attempts,
        error: dead.error.clone(),
    }
}
