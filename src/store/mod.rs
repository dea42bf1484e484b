//! Apps in a database: read, and in our own table written.
//!
//! SQLite, PostgreSQL, MySQL and MariaDB. Two tables are understood: our own, which `migrations` makes and brings up
//! to date, and soketi's, which is only read. A row that makes no valid app is reported, never guessed at.
//!
//! Not here: which apps are served, and when they are read again (`directory`).

mod database;
mod error;
mod inspection;
mod migrations;
mod record;
mod soketi;

use std::time::Duration;

use tokio::time::timeout;

use crate::app::App;
use crate::config::{self, StoreSchema};

pub use error::StoreError;
pub use inspection::{Inspection, Tables};
pub use record::{Pair, Record, is_name};

use database::{Columns, Database, Texts};

/// The apps' table in a database.
#[derive(Debug)]
pub struct Store {
    database: Database,
    schema: StoreSchema,
    /// Its name, quoted.
    table: String,
    /// The table of keys, quoted.
    keys_table: String,
    /// What is read of each row.
    columns: Vec<&'static str>,
    /// Whether ids are compared as they are: those that are no texts take a cast.
    id_is_text: bool,
    timeout: Duration,
    /// The URL, without what nobody should see.
    url: String,
}

/// A row of the table, as far as it makes an app.
#[derive(Debug)]
pub struct Row {
    /// The app's id.
    pub id: String,
    /// The app, or why there is none.
    pub app: Result<App, String>,
    /// What of the row is not served as it says.
    pub warnings: Vec<String>,
}

/// Columns of our own table.
const COLUMNS: [&str; 4] = ["id", "enabled", "keys", "settings"];

impl Store {
    /// Connects to the database and sees to it that the table is there and understood.
    ///
    /// # Errors
    /// When the database cannot be reached, or the table is not what the settings say it is.
    pub async fn open(settings: &config::Store) -> Result<Self, StoreError> {
        let reads_only = settings.schema == StoreSchema::Soketi;
        Self::connected(settings, reads_only).await?.prepared(&settings.table).await
    }

    /// Connects to the database, and looks at nothing.
    async fn connected(settings: &config::Store, reads_only: bool) -> Result<Self, StoreError> {
        let url = shown(settings.url.expose());
        let limit = Duration::from_secs(settings.timeout_s);
        let scheme = settings.url.expose().split(':').next().unwrap_or_default();
        if !["sqlite", "postgres", "postgresql", "mysql", "mariadb"].contains(&scheme) {
            return Err(StoreError::Scheme);
        }
        let opening = Database::open(settings.url.expose(), settings.connections_max, limit, reads_only);
        let database = match timeout(limit, opening).await {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(StoreError::Open { url, source: error }),
            Err(_) => return Err(StoreError::Late { url, limit }),
        };
        Ok(Self {
            table: quoted(&database, &settings.table, "")?,
            keys_table: quoted(&database, &settings.table, "_keys")?,
            database,
            schema: settings.schema,
            columns: Vec::new(),
            id_is_text: true,
            timeout: limit,
            url,
        })
    }

    /// Makes or checks the table.
    async fn prepared(self, name: &str) -> Result<Self, StoreError> {
        let found = self.timed(self.database.columns(&self.table)).await?;
        // What is somebody else's is left alone.
        let is_ours = found.as_ref().is_none_or(|found| COLUMNS.iter().all(|needed| found.has(needed)));
        if self.schema == StoreSchema::Fanfare && is_ours {
            let migrations = quoted(&self.database, name, "_migrations")?;
            migrations::run(&self.database, &self.table, &self.keys_table, &migrations)
                .await
                .map_err(|error| error.at(&self.url))?;
            let found = self.timed(self.database.columns(&self.table)).await?;
            return self.understood(name, found);
        }
        self.understood(name, found)
    }

    /// Checks the table by its columns.
    fn understood(mut self, name: &str, found: Option<Columns>) -> Result<Self, StoreError> {
        let wrong = |message: String| StoreError::Table { url: self.url.clone(), message };
        let needed: &[&'static str] = match self.schema {
            StoreSchema::Fanfare => &COLUMNS,
            StoreSchema::Soketi => &["id", "key", "secret"],
        };
        let Some(found) = found else {
            return Err(wrong(format!(
                "there is no table {name}: make it with soketi's schema, or set store.table or store.schema"
            )));
        };
        if let Some(missing) = needed.iter().find(|needed| !found.has(needed)) {
            let (is, other) = match self.schema {
                StoreSchema::Fanfare => ("fanfare's", "soketi"),
                StoreSchema::Soketi => ("soketi's", "fanfare"),
            };
            return Err(wrong(format!(
                "the table {name} is not {is}, since it has no column {missing}: set store.schema to \"{other}\" if \
                 it is {other}'s, or store.table to another name"
            )));
        }
        self.columns = match self.schema {
            StoreSchema::Fanfare => COLUMNS.to_vec(),
            StoreSchema::Soketi => soketi::COLUMNS.into_iter().filter(|name| found.has(name)).collect(),
        };
        self.id_is_text = found.is_text("id");
        Ok(self)
    }

    /// The URL, without what nobody should see.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether apps can be written, not only read.
    pub fn is_writable(&self) -> bool {
        self.schema == StoreSchema::Fanfare
    }

    /// The rows of these apps, by id or by one of their keys, in one query. What is not there is left out; what is
    /// found by id and by key comes twice.
    ///
    /// # Errors
    /// When the database does not answer, or not in time.
    pub async fn read(&self, ids: &[String], keys: &[String]) -> Result<Vec<Row>, StoreError> {
        let mut parts = Vec::new();
        if !ids.is_empty() {
            parts.push(format!("WHERE {} IN ({})", self.id(), self.database.places(0, ids.len())));
        }
        if !keys.is_empty() {
            let places = self.database.places(ids.len(), keys.len());
            parts.push(match self.schema {
                StoreSchema::Soketi => format!("WHERE {} IN ({places})", self.database.quoted("key")),
                StoreSchema::Fanfare => {
                    format!(
                        "WHERE id IN (SELECT app_id FROM {} WHERE app_key IN ({places}))",
                        self.keys_table
                    )
                }
            });
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let select = self.select();
        let sql = parts.iter().map(|part| format!("{select} {part}")).collect::<Vec<_>>().join(" UNION ALL ");
        let values: Vec<String> = ids.iter().chain(keys).cloned().collect();
        let rows = self.timed(self.database.rows(sql, &values)).await?;
        Ok(rows.into_iter().map(|row| self.row(row)).collect())
    }

    /// Every app of our own table, by id; of soketi's too, as it would be in ours.
    ///
    /// # Errors
    /// When the database does not answer, or a row cannot be read at all.
    pub async fn records(&self) -> Result<Vec<Result<Record, String>>, StoreError> {
        let rows = self.timed(self.database.rows(self.select(), &[])).await?;
        let mut records: Vec<(String, Result<Record, String>)> = rows
            .into_iter()
            .map(|row| {
                let (id, record, _) = self.record(row);
                (id.clone(), record.map_err(|reason| format!("app {id}: {reason}")))
            })
            .collect();
        // Numbers as numbers.
        records.sort_by_cached_key(|(id, _)| (id.parse::<u64>().unwrap_or(u64::MAX), id.clone()));
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// Adds an app.
    ///
    /// # Errors
    /// When its id or one of its keys is taken, or the database does not do it.
    pub async fn insert(&self, record: &Record) -> Result<(), StoreError> {
        let now = now();
        let sql = format!(
            "INSERT INTO {} (id, enabled, {}, settings, created_at, updated_at) VALUES ({})",
            self.table,
            self.database.quoted("keys"),
            // A number is written out: the databases differ in what they take for one.
            self.database.places(0, 5).replacen(", ", &format!(", {}, ", u8::from(record.enabled)), 1)
        );
        let values = vec![record.id.clone(), record.keys_text(), record.settings_text(), now.clone(), now];
        let mut statements = vec![(sql, values)];
        statements.extend(self.key_statements(record));
        self.write(statements).await.map(|_| ())
    }

    /// Puts an app in the place of the one with its id. False if there is none.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub async fn update(&self, record: &Record) -> Result<bool, StoreError> {
        let places: Vec<String> = (0..4).map(|at| self.database.places(at, 1)).collect();
        let sql = format!(
            "UPDATE {} SET enabled = {}, {} = {}, settings = {}, updated_at = {} WHERE id = {}",
            self.table,
            u8::from(record.enabled),
            self.database.quoted("keys"),
            places[0],
            places[1],
            places[2],
            places[3]
        );
        let values = vec![record.keys_text(), record.settings_text(), now(), record.id.clone()];
        let mut statements = vec![(sql, values), self.without_keys(&record.id)];
        statements.extend(self.key_statements(record));
        // The keys of an app that is not there have nothing to refer to, so nothing is written then.
        match self.write(statements).await {
            Ok(rows) => Ok(rows > 0),
            Err(StoreError::Query { source, .. }) if database::is_orphan(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an app. False if there is none.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let sql = format!("DELETE FROM {} WHERE id = {}", self.table, self.database.places(0, 1));
        // Its keys go with it.
        Ok(self.write(vec![(sql, vec![id.to_owned()])]).await? > 0)
    }

    fn without_keys(&self, id: &str) -> (String, Vec<String>) {
        let sql = format!("DELETE FROM {} WHERE app_id = {}", self.keys_table, self.database.places(0, 1));
        (sql, vec![id.to_owned()])
    }

    fn key_statements(&self, record: &Record) -> impl Iterator<Item = (String, Vec<String>)> {
        let sql = format!(
            "INSERT INTO {} (app_key, app_id) VALUES ({})",
            self.keys_table,
            self.database.places(0, 2)
        );
        record.keys.iter().map(move |pair| (sql.clone(), vec![pair.key.clone(), record.id.clone()]))
    }

    /// All or nothing; how many rows the first statement changed.
    async fn write(&self, statements: Vec<(String, Vec<String>)>) -> Result<u64, StoreError> {
        if !self.is_writable() {
            return Err(StoreError::ReadOnly);
        }
        match self.timed(self.database.execute(statements)).await {
            Err(StoreError::Query { source, .. }) if database::is_taken(&source) => Err(StoreError::Taken),
            done => done,
        }
    }

    fn select(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| self.database.as_text(name)).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.table)
    }

    fn id(&self) -> String {
        if self.id_is_text { self.database.quoted("id") } else { self.database.as_text("id") }
    }

    fn row(&self, texts: Texts) -> Row {
        let (id, record, mut warnings) = self.record(texts);
        let app = record.and_then(|record| {
            let (app, unknown) = record.app()?;
            warnings.extend(unknown.into_iter().map(|name| format!("{name} is no setting and is ignored")));
            Ok(app)
        });
        Row { id, app, warnings }
    }

    fn record(&self, texts: Texts) -> (String, Result<Record, String>, Vec<String>) {
        let named: Vec<(&str, Option<String>)> = self.columns.iter().copied().zip(texts).collect();
        let value = |name: &str| -> Option<&str> {
            named.iter().find(|(column, _)| *column == name).and_then(|(_, value)| value.as_deref())
        };
        let id = value("id").unwrap_or_default().to_owned();
        let mut warnings = Vec::new();
        let record = match self.schema {
            StoreSchema::Fanfare => Record::of_columns(&id, value),
            StoreSchema::Soketi => soketi::record(&id, value, &mut warnings),
        };
        (id, record, warnings)
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        match timeout(self.timeout, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(StoreError::Query { url: self.url.clone(), source }),
            Err(_) => Err(StoreError::Late { url: self.url.clone(), limit: self.timeout }),
        }
    }
}

/// `schema.table` or `table`, quoted, with an ending to its name.
fn quoted(database: &Database, name: &str, ending: &str) -> Result<String, StoreError> {
    let is_part = |part: &str| {
        (1..=48).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte))
    };
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_part(part)) {
        return Err(StoreError::TableName(name.to_owned()));
    }
    let quoted: Vec<String> = match parts.split_last() {
        Some((table, before)) => before
            .iter()
            .map(|part| database.quoted(part))
            .chain([database.quoted(&format!("{table}{ending}"))])
            .collect(),
        None => Vec::new(),
    };
    Ok(quoted.join("."))
}

/// A URL without its password and its parameters, which may hold one.
fn shown(url: &str) -> String {
    if let Some(file) = url.strip_prefix("sqlite:") {
        return format!("sqlite:{}", file.split('?').next().unwrap_or_default());
    }
    let Ok(mut url) = reqwest::Url::parse(url) else { return "store.url".to_owned() };
    if url.password().is_some() {
        let _ = url.set_password(Some("********"));
    }
    url.set_query(None);
    url.into()
}

fn now() -> String {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0);
    now.ok()
        .and_then(|now| now.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, seen) in [
            (
                "postgres://ann:hush@db:5432/apps?sslmode=require&password=hush",
                "postgres://ann:********@db:5432/apps",
            ),
            ("mysql://ann@db/apps", "mysql://ann@db/apps"),
            ("sqlite:apps.db?mode=rwc", "sqlite:apps.db"),
            ("hush", "store.url"),
        ] {
            assert_eq!(shown(url), seen);
        }
    }
}
