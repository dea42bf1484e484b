//! The three databases behind one face: every value goes in and comes out as text.
//!
//! Columns are cast to text by the database itself, so numbers, booleans and JSON of any width are read alike, and
//! a table that others made is read as it is.

use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Executor, Row, SqlSafeStr, Statement, TypeInfo,
};

/// The columns of a row; none where the database has NULL.
pub(super) type Texts = Vec<Option<String>>;

/// A pool of connections.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// The columns a table has: names, and whether each is text.
#[derive(Debug)]
pub(super) struct Columns(Vec<(String, bool)>);

impl Columns {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(column, _)| column.eq_ignore_ascii_case(name))
    }

    pub(super) fn is_text(&self, name: &str) -> bool {
        self.0.iter().any(|(column, is_text)| column.eq_ignore_ascii_case(name) && *is_text)
    }
}

/// The same code for each of the pools, which share no type.
macro_rules! with_pool {
    ($database:expr, $pool:ident => $body:expr) => {
        match $database {
            Database::Sqlite($pool) => $body,
            Database::Postgres($pool) => $body,
            Database::MySql($pool) => $body,
        }
    };
}
pub(super) use with_pool;

/// A statement with its values. Every one is another text, so there is nothing for a cache to keep.
macro_rules! statement {
    ($sql:expr, $values:expr) => {
        $values.iter().fold(sqlx::query(AssertSqlSafe($sql)).persistent(false), |query, value| {
            query.bind(value.clone())
        })
    };
}

impl Database {
    /// Connects once, so that what is wrong is told, and gives a pool that connects when it must.
    pub(super) async fn open(
        url: &str,
        connections_max: u32,
        limit: Duration,
        reads_only: bool,
    ) -> Result<Self, sqlx::Error> {
        macro_rules! pool {
            ($options:expr, $pool:ident) => {{
                let options = $options.disable_statement_logging();
                options.connect().await?.close().await?;
                // One query at a time is on its way, and a database that has been away is asked soon enough.
                $pool::new()
                    .max_connections(connections_max)
                    .acquire_timeout(limit)
                    .acquire_slow_threshold(limit * 2)
                    .connect_lazy_with(options)
            }};
        }
        match url.split(':').next().unwrap_or_default() {
            "sqlite" => {
                let options = SqliteConnectOptions::from_str(url)?
                    .busy_timeout(limit)
                    .create_if_missing(!reads_only)
                    .read_only(reads_only);
                Ok(Self::Sqlite(pool!(options, SqlitePoolOptions)))
            }
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(url)?.application_name("fanfare");
                Ok(Self::Postgres(pool!(options, PgPoolOptions)))
            }
            "mysql" | "mariadb" => {
                Ok(Self::MySql(pool!(MySqlConnectOptions::from_str(url)?, MySqlPoolOptions)))
            }
            _ => Err(sqlx::Error::Configuration("no URL of a database".into())),
        }
    }

    /// A name as SQL writes it. The name holds no quotes.
    pub(super) fn quoted(&self, name: &str) -> String {
        match self {
            Self::MySql(_) => format!("`{name}`"),
            Self::Sqlite(_) | Self::Postgres(_) => format!("\"{name}\""),
        }
    }

    /// A column, as text.
    pub(super) fn as_text(&self, column: &str) -> String {
        let column = self.quoted(column);
        match self {
            Self::MySql(_) => format!("CAST({column} AS CHAR)"),
            Self::Sqlite(_) | Self::Postgres(_) => format!("CAST({column} AS TEXT)"),
        }
    }

    /// Places for so many values, after others.
    pub(super) fn places(&self, after: usize, count: usize) -> String {
        let place = |at: usize| match self {
            Self::Postgres(_) => format!("${}", at + 1),
            Self::Sqlite(_) | Self::MySql(_) => "?".to_owned(),
        };
        (after..after + count).map(place).collect::<Vec<_>>().join(", ")
    }

    /// The columns of a table, if there is one.
    pub(super) async fn columns(&self, table: &str) -> Result<Option<Columns>, sqlx::Error> {
        let sql = AssertSqlSafe(format!("SELECT * FROM {table} WHERE 1 = 0")).into_sql_str();
        let is_text = |name: &str| {
            let name = name.to_ascii_uppercase();
            name.contains("CHAR") || name.contains("TEXT") || name == "NAME"
        };
        let columns = with_pool!(self, pool => pool.prepare(sql).await.map(|statement| {
            statement.columns().iter().map(|column| (column.name().to_owned(), is_text(column.type_info().name()))).collect()
        }));
        match columns {
            Ok(columns) => Ok(Some(Columns(columns))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a query finds.
    pub(super) async fn rows(&self, sql: String, values: &[String]) -> Result<Vec<Texts>, sqlx::Error> {
        with_pool!(self, pool => {
            let rows = statement!(sql, values).fetch_all(pool).await?;
            rows.iter()
                .map(|row| (0..row.len()).map(|at| row.try_get::<Option<String>, _>(at)).collect())
                .collect()
        })
    }

    /// Carries out all statements or none, and says how many rows the first changed.
    pub(super) async fn execute(&self, statements: Vec<(String, Vec<String>)>) -> Result<u64, sqlx::Error> {
        let begin = match self {
            // One that begins with reading cannot always go on to write.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) | Self::MySql(_) => "BEGIN",
        };
        with_pool!(self, pool => {
            let mut transaction = pool.begin_with(begin).await?;
            let mut changed = None;
            for (sql, values) in statements {
                let rows = statement!(sql, values).execute(&mut *transaction).await?.rows_affected();
                changed.get_or_insert(rows);
            }
            transaction.commit().await?;
            Ok(changed.unwrap_or_default())
        })
    }
}

/// Whether a table is not there.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    // PostgreSQL and MySQL have codes for it, SQLite has words.
    error.code().is_some_and(|code| code == "42P01" || code == "42S02")
        || error.message().starts_with("no such table")
}

/// Whether something exists already.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

/// Whether what a row refers to is not there.
pub(super) fn is_orphan(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_foreign_key_violation())
}
