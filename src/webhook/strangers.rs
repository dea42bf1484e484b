//! Apps that this node does not know, though it has to tell of them.
//!
//! In a cluster the node that tells what happens on a channel need not be one that the app's clients have come to, so it
//! may have to ask the store for the app first. Meanwhile the app's facts wait here, in their order, and what waits for
//! its receivers is left alone.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::app::AppId;
use crate::node::{AppName, Node, StoreAway, Told, Weighed};

/// Apps that the store has been asked for, or is to be asked for.
#[derive(Debug)]
pub(super) struct Strangers {
    node: Arc<Node>,
    all: HashMap<AppId, Stranger>,
    questions: JoinSet<(AppId, Result<(), StoreAway>)>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Stranger {
    facts: Vec<Told>,
    is_asked: bool,
}

/// The store has said whether there is an app: if so, the node knows it now.
#[derive(Debug)]
pub(super) struct Introduced {
    /// Which.
    pub(super) app: AppId,
    /// What has happened there.
    pub(super) facts: Vec<Told>,
}

impl Strangers {
    pub(super) fn new(node: &Arc<Node>) -> Self {
        Self { node: node.clone(), all: HashMap::new(), questions: JoinSet::new(), bytes: 0 }
    }

    /// Whether the store is still to say if there is such an app.
    pub(super) fn has(&self, app: &AppId) -> bool {
        self.all.contains_key(app)
    }

    /// What waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Something happened on a channel of an app that is not known.
    pub(super) fn add(&mut self, told: Told) {
        let app = told.occurrence.app.clone();
        self.meet(&app);
        self.bytes += told.weight();
        self.all.entry(app).or_default().facts.push(told);
    }

    /// Asks for an app, if that is not being done.
    pub(super) fn meet(&mut self, app: &AppId) {
        if !self.has(app) {
            self.ask(app.clone());
        }
    }

    /// Asks again for those that the store could not tell of. To be called now and then.
    pub(super) fn ask_again(&mut self) {
        let unasked = self.all.iter().filter(|(_, stranger)| !stranger.is_asked);
        let unasked: Vec<AppId> = unasked.map(|(app, _)| app.clone()).collect();
        unasked.into_iter().for_each(|app| self.ask(app));
    }

    /// Waits until the store has told of an app. None if it is not asked for any.
    pub(super) async fn next(&mut self) -> Option<Introduced> {
        while let Some(answer) = self.questions.join_next().await {
            let (app, found) = match answer {
                Ok(answer) => answer,
                // The app would be unknown for ever otherwise.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(_) => continue,
                },
            };
            if let (Err(StoreAway), Some(stranger)) = (found, self.all.get_mut(&app)) {
                stranger.is_asked = false;
                continue;
            }
            let facts = self.all.remove(&app).unwrap_or_default().facts;
            self.bytes -= facts.iter().map(Told::weight).sum::<usize>();
            return Some(Introduced { app, facts });
        }
        None
    }

    fn ask(&mut self, app: AppId) {
        self.all.entry(app.clone()).or_default().is_asked = true;
        let node = self.node.clone();
        self.questions.spawn_local(async move {
            let found = node.look_up(AppName::Id(app.to_string())).await;
            (app, found)
        });
    }
}
