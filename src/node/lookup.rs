//! Apps that the snapshot does not know: whoever keeps the others is asked.
//!
//! Known apps never come here. Without anybody to ask, an app that is not known does not exist.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::app::App;
use crate::node::Node;

/// What an app is asked for by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum AppName {
    /// As in `/apps/{id}`.
    Id(String),
    /// As in `/app/{key}`.
    Key(String),
}

/// A question. Once it is answered the snapshot holds the app, if there is one.
#[derive(Debug)]
pub struct Lookup {
    /// The app that is asked for.
    pub name: AppName,
    /// Told when the answer is known.
    pub answer: oneshot::Sender<Result<(), StoreAway>>,
}

/// Nobody can say at the moment whether there is such an app.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the store of apps is away")]
pub struct StoreAway;

/// Why an app is not served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoApp {
    /// There is none.
    Unknown,
    /// That cannot be told now.
    Away,
}

/// So many may wait for an answer; more are told that the store is away.
const WAITING_MAX: usize = 4096;

/// The way to whoever keeps the apps.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    keeper: OnceLock<mpsc::Sender<Lookup>>,
    away: AtomicBool,
}

impl Node {
    /// The questions about apps that nobody knows here, for whoever can answer them. To be taken once; none after that.
    pub fn take_lookups(&self) -> Option<mpsc::Receiver<Lookup>> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.lookups.keeper.set(sender).is_ok().then_some(receiver)
    }

    /// Whether there is anybody to ask about unknown apps.
    pub fn has_store(&self) -> bool {
        self.lookups.keeper.get().is_some()
    }

    /// Whether unknown apps cannot be looked up at the moment.
    pub fn store_is_away(&self) -> bool {
        self.lookups.away.load(Ordering::Relaxed)
    }

    /// The store has gone, or is back.
    pub fn set_store_away(&self, away: bool) {
        self.lookups.away.store(away, Ordering::Relaxed);
    }

    /// Asks for an app that the snapshot does not know. Afterwards it knows it, if there is one.
    ///
    /// # Errors
    /// When the question cannot be answered now.
    pub async fn look_up(&self, name: AppName) -> Result<(), StoreAway> {
        let Some(keeper) = self.lookups.keeper.get() else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        keeper.try_send(Lookup { name, answer }).map_err(|_| StoreAway)?;
        answered.await.unwrap_or(Err(StoreAway))
    }

    /// The app of `/app/{key}`. One that is known is found at once.
    ///
    /// # Errors
    /// When there is none, or that cannot be told.
    pub async fn app_by_key(&self, key: &str) -> Result<Arc<App>, NoApp> {
        if let Some(app) = self.apps().by_key(key) {
            return Ok(app.clone());
        }
        self.look_up(AppName::Key(key.to_owned())).await.map_err(|StoreAway| NoApp::Away)?;
        self.apps().by_key(key).cloned().ok_or(NoApp::Unknown)
    }
}
