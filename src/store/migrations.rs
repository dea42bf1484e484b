//! Our own tables, made and brought up to date step by step.
//!
//! A step is never changed once it was released; what is new is a further step. Nodes that start together do it one
//! after the other, and one whose user may not change tables starts if there is nothing to do.

use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::store::database::{Database, is_missing, with_pool};
use crate::store::error::StoreError;

/// What each step does. A step that was interrupted is done again from its beginning.
const STEPS: [&[&str]; 1] = [&[
    // Settings are what differs from the defaults, so a new setting needs no column.
    "CREATE TABLE IF NOT EXISTS {apps} (
        id VARCHAR(255) NOT NULL PRIMARY KEY,
        enabled SMALLINT NOT NULL DEFAULT 1,
        {keys_column} {text} NOT NULL,
        settings {text} NOT NULL,
        created_at VARCHAR(32) NOT NULL,
        updated_at VARCHAR(32) NOT NULL
    ){options}",
    "CREATE TABLE IF NOT EXISTS {keys} (
        app_key VARCHAR(255) NOT NULL PRIMARY KEY,
        app_id VARCHAR(255) NOT NULL,
        FOREIGN KEY (app_id) REFERENCES {apps} (id) ON DELETE CASCADE
    ){options}",
]];

/// The newest version we know.
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// Of which version the tables are; 0 if there are none.
pub(super) async fn version(database: &Database, migrations: &str) -> Result<i64, sqlx::Error> {
    let sql = format!("SELECT {} FROM {migrations}", as_text(database));
    match database.rows(sql, &[]).await {
        Ok(rows) => Ok(number(rows.into_iter().flatten().next().flatten())),
        Err(error) if is_missing(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Brings the tables up to date. All names are quoted.
pub(super) async fn run(
    database: &Database,
    apps: &str,
    keys: &str,
    migrations: &str,
) -> Result<(), StoreError> {
    let version = format!("SELECT {} FROM {migrations}", as_text(database));
    let filled = |sql: &str| {
        let (text, options) = match database {
            Database::MySql(_) => {
                ("MEDIUMTEXT", " ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            }
            Database::Sqlite(_) | Database::Postgres(_) => ("TEXT", ""),
        };
        sql.replace("{apps}", apps)
            .replace("{keys}", keys)
            .replace("{migrations}", migrations)
            .replace("{keys_column}", &database.quoted("keys"))
            .replace("{text}", text)
            .replace("{options}", options)
    };
    let (lock, unlock): (&[&'static str], &[&'static str]) = match database {
        Database::Sqlite(_) => (&["BEGIN IMMEDIATE"], &["COMMIT"]),
        // The numbers are ours alone, as far as one can tell.
        Database::Postgres(_) => (&["BEGIN", "SELECT pg_advisory_xact_lock(1701, 70346)"], &["COMMIT"]),
        // Its tables are no part of a transaction.
        Database::MySql(_) => {
            (&["SELECT GET_LOCK('fanfare_migrations', 60)"], &["SELECT RELEASE_LOCK('fanfare_migrations')"])
        }
    };
    with_pool!(database, pool => {
        let mut connection = pool.acquire().await?.detach();
        let current = match connection.fetch_one(AssertSqlSafe(version.clone())).await {
            Ok(row) => number(row.try_get(0)?),
            Err(error) if is_missing(&error) => 0,
            Err(error) => return Err(error.into()),
        };
        if current == KNOWN {
            connection.close().await?;
            return Ok(());
        }
        for sql in lock {
            connection.execute(*sql).await?;
        }
        connection.execute(AssertSqlSafe(filled(
            "CREATE TABLE IF NOT EXISTS {migrations} (version INTEGER NOT NULL PRIMARY KEY)",
        ))).await?;
        // Another node may have been faster.
        let current = number(connection.fetch_one(AssertSqlSafe(version)).await?.try_get(0)?);
        if current > KNOWN {
            return Err(StoreError::Newer { found: current, known: KNOWN });
        }
        for (number, step) in (1..).zip(STEPS) {
            if number <= current {
                continue;
            }
            for sql in step {
                connection.execute(AssertSqlSafe(filled(sql))).await?;
            }
            let sql = filled(&format!("INSERT INTO {{migrations}} (version) VALUES ({number})"));
            connection.execute(AssertSqlSafe(sql)).await?;
            tracing::info!(version = number, "tables of the store are up to date");
        }
        for sql in unlock {
            connection.execute(*sql).await?;
        }
        // Also ends the lock, had something failed before: then the connection was dropped.
        connection.close().await?;
        Ok(())
    })
}

fn as_text(database: &Database) -> &'static str {
    match database {
        Database::MySql(_) => "CAST(COALESCE(MAX(version), 0) AS CHAR)",
        Database::Sqlite(_) | Database::Postgres(_) => "CAST(COALESCE(MAX(version), 0) AS TEXT)",
    }
}

fn number(text: Option<String>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
