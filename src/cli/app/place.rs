//! Where apps are kept: a file or a database, with the same commands for both.

use tokio::runtime::Runtime;

use crate::cli::app::AppError;
use crate::cli::app::file::AppsFile;
use crate::config::{Config, Layers};
use crate::store::{Record, Store};

/// Apps that can be listed and changed.
pub(super) enum Place {
    File(AppsFile),
    Store { store: Store, runtime: Runtime, file_ids: Vec<String>, cache_ttl_s: u64 },
}

impl Place {
    /// The configuration file of `layers`.
    pub(super) fn file(layers: Layers) -> Result<Self, AppError> {
        Ok(Self::File(AppsFile::open(layers)?))
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
            Self::File(file) => file.name(),
            Self::Store { store, .. } => store.url().to_owned(),
        }
    }

    /// When a running server will know of a change.
    pub(super) fn takes_effect(&self) -> String {
        match self {
            Self::File(_) => "A running server takes it when it watches the file, or on SIGHUP.\n".to_owned(),
            Self::Store { cache_ttl_s, .. } => {
                format!("Running servers take it within {cache_ttl_s} s, or on SIGHUP.\n")
            }
        }
    }

    /// Every app; what makes none is told why.
    pub(super) fn records(&self) -> Result<Vec<Result<Record, String>>, AppError> {
        match self {
            Self::File(file) => Ok(file.records()),
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
            Self::File(_) => &[][..],
            Self::Store { file_ids, .. } => file_ids,
        };
        Ok(ids.chain(others.iter().cloned()).collect())
    }

    /// Adds an app.
    pub(super) fn insert(&mut self, record: &Record) -> Result<(), AppError> {
        match self {
            Self::File(file) => file.insert(record),
            Self::Store { store, runtime, .. } => Ok(runtime.block_on(store.insert(record))?),
        }
    }

    /// Takes over keys and whether it is enabled.
    pub(super) fn update(&mut self, record: &Record) -> Result<(), AppError> {
        match self {
            Self::File(file) => file.update(record),
            Self::Store { store, runtime, .. } => {
                Self::found(runtime.block_on(store.update(record))?, store, record)
            }
        }
    }

    /// Deletes an app.
    pub(super) fn delete(&mut self, record: &Record) -> Result<(), AppError> {
        match self {
            Self::File(file) => file.delete(record),
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
