//! Where apps are kept: files or a database, with the same commands for both.

use tokio::runtime::Runtime;

use crate::cli::app::AppError;
use crate::cli::app::file::{AppsFile, Part};
use crate::config::{Config, Layers};
use crate::store::{Record, Store};

/// Apps that can be listed and changed.
#[allow(clippy::large_enum_variant, reason = "there is one for each process")]
pub(super) enum Place {
    /// The file that new apps go to, and another one with apps.
    Files {
        home: AppsFile,
        other: Option<AppsFile>,
    },
    Store {
        store: Store,
        runtime: Runtime,
        file_ids: Vec<String>,
        cache_ttl_s: u64,
    },
}

impl Place {
    /// The configuration file of `layers`, and the one that they name for apps, if they do.
    pub(super) fn files(layers: Layers) -> Result<Self, AppError> {
        let main = layers.file.clone().map(|path| AppsFile::open(path, Part::Configuration, layers.clone()));
        let main = main.transpose()?;
        match layers.apps_file() {
            Some(path) => Ok(Self::Files { home: AppsFile::open(path, Part::Apps, layers)?, other: main }),
            None => Ok(Self::Files { home: main.ok_or(AppError::NoPlace)?, other: None }),
        }
    }

    /// The store of a configuration.
    pub(super) fn store(config: Config) -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(Store::open(&config.store))?;
        let file_ids = config.apps.iter().map(|app| app.id.to_string()).collect();
        Ok(Self::Store { store, runtime, file_ids, cache_ttl_s: config.store.cache_ttl_s })
    }

    /// As people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Files { home, other: None } => home.name(),
            Self::Files { home, other: Some(other) } => format!("{} or {}", home.name(), other.name()),
            Self::Store { store, .. } => store.url().to_owned(),
        }
    }

    /// The file or store that an app is in, or would be.
    pub(super) fn name_for(&self, id: &str) -> String {
        match self {
            Self::Files { other: Some(other), .. } if other.has(id) => other.name(),
            Self::Files { home, .. } => home.name(),
            Self::Store { .. } => self.name(),
        }
    }

    /// When a running server will know of a change.
    pub(super) fn takes_effect(&self) -> String {
        match self {
            Self::Files { .. } => {
                "A running server takes it when it watches the file, or on SIGHUP.\n".to_owned()
            }
            Self::Store { cache_ttl_s, .. } => {
                format!("Running servers take it within {cache_ttl_s} s, or on SIGHUP.\n")
            }
        }
    }

    /// Every app; what makes none is told why.
    pub(super) fn records(&self) -> Result<Vec<Result<Record, String>>, AppError> {
        match self {
            Self::Files { home, other } => {
                let other = other.as_ref().map(AppsFile::records).unwrap_or_default();
                Ok(other.into_iter().chain(home.records()).collect())
            }
            Self::Store { store, runtime, .. } => Ok(runtime.block_on(store.records())?),
        }
    }

    /// Ids that are in use, here or where they would be in the way.
    pub(super) fn ids(&self) -> Result<Vec<String>, AppError> {
        let broken = |reason: String| {
            reason.strip_prefix("app ").and_then(|rest| rest.split_once(": ")).map(|(id, _)| id.to_owned())
        };
        let ids = self.records()?.into_iter().filter_map(|record| match record {
            Ok(record) => Some(record.id),
            Err(reason) => broken(reason),
        });
        let others = match self {
            Self::Files { .. } => &[][..],
            Self::Store { file_ids, .. } => file_ids,
        };
        Ok(ids.chain(others.iter().cloned()).collect())
    }

    /// Adds an app.
    pub(super) fn insert(&mut self, record: &Record) -> Result<(), AppError> {
        match self {
            Self::Files { home, .. } => home.insert(record),
            Self::Store { store, runtime, .. } => Ok(runtime.block_on(store.insert(record))?),
        }
    }

    /// Takes over keys and whether it is enabled.
    pub(super) fn update(&mut self, record: &Record) -> Result<(), AppError> {
        match self {
            Self::Files { home, other } => file_with(&record.id, home, other).update(record),
            Self::Store { store, runtime, .. } => {
                Self::found(runtime.block_on(store.update(record))?, store, record)
            }
        }
    }

    /// Deletes an app.
    pub(super) fn delete(&mut self, record: &Record) -> Result<(), AppError> {
        match self {
            Self::Files { home, other } => file_with(&record.id, home, other).delete(record),
            Self::Store { store, runtime, .. } => {
                Self::found(runtime.block_on(store.delete(&record.id))?, store, record)
            }
        }
    }

    /// It may have gone since it was read.
    fn found(found: bool, store: &Store, record: &Record) -> Result<(), AppError> {
        if found {
            Ok(())
        } else {
            Err(AppError::NoApp { id: record.id.clone(), place: store.url().to_owned() })
        }
    }
}

/// The file that an app stands in.
fn file_with<'a>(id: &str, home: &'a mut AppsFile, other: &'a mut Option<AppsFile>) -> &'a mut AppsFile {
    other.as_mut().filter(|file| file.has(id)).unwrap_or(home)
}
