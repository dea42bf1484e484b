//! A look at the database that changes nothing there: what an operator wants to know before the server does it.

use std::str::FromStr;

use sqlx::sqlite::SqliteConnectOptions;

use crate::config::{self, StoreSchema};
use crate::store::error::StoreError;
use crate::store::{Store, migrations, quoted};

/// What is found in the database.
#[derive(Debug)]
pub struct Inspection {
    /// Where it is, without what nobody should see.
    pub url: String,
    /// How the tables are.
    pub tables: Tables,
    /// The apps' table, if it is there and understood.
    pub store: Option<Store>,
}

/// How the tables are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tables {
    /// As this version needs them.
    Ready,
    /// Not there: the server makes them when it starts.
    Missing,
    /// Of an older version: the server brings them up to date when it starts.
    Older {
        /// Of the tables.
        found: i64,
        /// The newest we know.
        known: i64,
    },
}

impl Inspection {
    /// Connects, and reads of which version the tables are and whether they are understood.
    ///
    /// # Errors
    /// When the server could not use the database.
    pub async fn make(settings: &config::Store) -> Result<Self, StoreError> {
        let url = super::shown(settings.url.expose());
        if is_still_to_come(settings) {
            return Ok(Self { url, tables: Tables::Missing, store: None });
        }
        let store = Store::connected(settings, true).await?;
        let found = store.timed(store.database.columns(&store.table)).await?;
        if settings.schema == StoreSchema::Soketi {
            let store = store.understood(&settings.table, found)?;
            return Ok(Self { url, tables: Tables::Ready, store: Some(store) });
        }
        let names = quoted(&store.database, &settings.table, "_migrations")?;
        let version = store.timed(migrations::version(&store.database, &names)).await?;
        let tables = match version {
            0 if found.is_none() => return Ok(Self { url, tables: Tables::Missing, store: None }),
            migrations::KNOWN => Tables::Ready,
            newer if newer > migrations::KNOWN => {
                return Err(StoreError::Newer { found: newer, known: migrations::KNOWN });
            }
            found => Tables::Older { found, known: migrations::KNOWN },
        };
        let store = store.understood(&settings.table, found)?;
        Ok(Self { url, tables, store: Some(store) })
    }
}

/// A file that the server makes.
fn is_still_to_come(settings: &config::Store) -> bool {
    settings.schema == StoreSchema::Fanfare
        && settings.url.expose().starts_with("sqlite:")
        && SqliteConnectOptions::from_str(settings.url.expose()).is_ok_and(|options| {
            options.get_filename().parent().is_none_or(|folder| {
                (folder.as_os_str().is_empty() || folder.is_dir()) && !options.get_filename().exists()
            })
        })
}
