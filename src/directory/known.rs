//! The apps of the file, and those of the store that somebody asked for; together they are what is served.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::app::{App, AppId, Apps};
use crate::node::Node;
use crate::store::Row;

/// An app of the store that nobody uses is forgotten after so long; the next one who does has it looked up again.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// What is known.
pub(super) struct Known {
    files: Vec<App>,
    /// By id, so that of two apps with one key it is always the same that has it.
    stored: BTreeMap<AppId, Stored>,
    /// The file has them no longer; perhaps the store does.
    moved: BTreeMap<AppId, App>,
    /// What is wrong with an app of the store, said once.
    said: HashMap<AppId, String>,
    changed: bool,
}

struct Stored {
    app: App,
    /// When it was last seen to be of use.
    used: Instant,
}

impl Known {
    pub(super) fn new(files: Vec<App>) -> Self {
        let (stored, moved) = (BTreeMap::new(), BTreeMap::new());
        Self { files, stored, moved, said: HashMap::new(), changed: false }
    }

    /// The file's apps are others. With a store, those that are gone may have moved there.
    pub(super) fn set_files(&mut self, files: Vec<App>, has_store: bool) {
        let before = std::mem::replace(&mut self.files, files);
        let now: HashSet<&str> = self.files.iter().map(|app| &*app.id).collect();
        self.moved.retain(|id, _| !now.contains(&**id));
        let gone = before.into_iter().filter(|app| has_store && !now.contains(&*app.id));
        let gone = gone.filter(|app| !self.stored.contains_key(&app.id));
        self.moved.extend(gone.map(|app| (app.id.clone(), app)));
        self.changed = true;
    }

    /// The store has been asked for an app that the file had.
    pub(super) fn has_moved(&mut self, id: &AppId) {
        self.changed |= self.moved.remove(id).is_some();
    }

    /// The store cannot say what it has: what the file says holds.
    pub(super) fn has_moved_nothing(&mut self) {
        self.changed |= !self.moved.is_empty();
        self.moved.clear();
    }

    /// How many there are of the store.
    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    /// The ids of those that the store is to be asked for.
    pub(super) fn ids(&self) -> impl Iterator<Item = AppId> {
        self.stored.keys().chain(self.moved.keys()).cloned()
    }

    /// Takes a row. False if it makes no app; one that was served before goes on as it was then.
    pub(super) fn learn(&mut self, row: Row, now: Instant) -> bool {
        let Row { id, app, warnings } = row;
        let id = AppId::from(id);
        match app {
            Ok(app) => {
                if warnings.is_empty() {
                    self.said.remove(&id);
                } else {
                    self.say(&id, warnings.join("; "), "not everything of an app of the store is served");
                }
                match self.stored.get_mut(&id) {
                    Some(stored) if stored.app == app => {}
                    Some(stored) => {
                        stored.app = app;
                        self.changed = true;
                        tracing::info!(app = &*id, "app changed in the store");
                    }
                    None => {
                        tracing::debug!(app = &*id, "app of the store");
                        self.stored.insert(id, Stored { app, used: now });
                        self.changed = true;
                    }
                }
                true
            }
            Err(reason) => {
                let message = if self.stored.contains_key(&id) {
                    "a row of the store makes no app any more: it goes on as it was"
                } else {
                    "a row of the store makes no app and is skipped"
                };
                self.say(&id, reason, message);
                false
            }
        }
    }

    /// The store has it no longer.
    pub(super) fn forget(&mut self, id: &AppId) {
        self.said.remove(id);
        if self.stored.remove(id).is_some() {
            self.changed = true;
            tracing::info!(app = &**id, "app deleted from the store");
        }
    }

    /// Lets go of apps that nobody has used for long.
    pub(super) fn forget_idle(&mut self, used: &HashSet<AppId>, now: Instant) {
        let before = self.stored.len();
        self.stored.retain(|id, stored| {
            if used.contains(id) {
                stored.used = now;
            }
            now.saturating_duration_since(stored.used) < IDLE_MAX
        });
        self.changed |= self.stored.len() != before;
    }

    /// Has the node serve what is known, if that is not what it serves already.
    pub(super) fn publish(&mut self, node: &Node) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut ids: HashSet<&str> = self.files.iter().map(|app| &*app.id).collect();
        let key_of = |app: &App, taken: &HashSet<String>| {
            app.keys.iter().find(|pair| taken.contains(&pair.key)).map(|pair| pair.key.clone())
        };
        let mut keys: HashSet<String> =
            self.files.iter().flat_map(|app| &app.keys).map(|pair| pair.key.clone()).collect();
        let mut all = self.files.clone();
        let mut twins = Vec::new();
        let stored = self.stored.iter().map(|(id, stored)| (id, &stored.app));
        for (id, app) in stored.chain(&self.moved) {
            if !ids.insert(id) {
                twins.push((id.clone(), "the configuration has an app with this id".to_owned()));
            } else if let Some(key) = key_of(app, &keys) {
                twins.push((id.clone(), format!("the key {key} belongs to another app")));
            } else {
                keys.extend(app.keys.iter().map(|pair| pair.key.clone()));
                all.push(app.clone());
            }
        }
        twins.retain(|(id, _)| !self.moved.contains_key(id));
        for (id, reason) in twins {
            self.say(&id, reason, "an app of the store is not served");
        }
        match Apps::new(all) {
            Ok(apps) => node.replace_apps(apps),
            // The file's have been checked by whoever read it, the store's just now.
            Err(error) => tracing::error!(%error, "the apps cannot be served together"),
        }
    }

    fn say(&mut self, id: &AppId, reason: String, message: &'static str) {
        if self.said.get(id) != Some(&reason) {
            tracing::warn!(app = &**id, %reason, "{message}");
            self.said.insert(id.clone(), reason);
        }
    }
}
