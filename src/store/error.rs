//! What an operator is told when the store fails.

use std::time::Duration;

use thiserror::Error;

/// Why apps cannot be read or written. Never names a password.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The URL is of no database we know.
    #[error(
        "store.url: expected sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE"
    )]
    Scheme,
    /// The table's name could not be quoted.
    #[error(
        "store.table {0:?}: expected a name of letters, digits and underscores, perhaps after a schema and a dot"
    )]
    TableName(String),
    /// No connection.
    #[error("the database {url} (store.url) cannot be used: {}", reason(source))]
    Open {
        /// Without password.
        url: String,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// No answer.
    #[error("the database {url} (store.url) gave no answer within {} s (store.timeout_s)", limit.as_secs())]
    Late {
        /// Without password.
        url: String,
        /// How long it had.
        limit: Duration,
    },
    /// A query failed.
    #[error("the database {url} (store.url) failed: {}", reason(source))]
    Query {
        /// Without password.
        url: String,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// The table is not there, or is another one.
    #[error("the database {url} (store.url) cannot be used: {message}")]
    Table {
        /// Without password.
        url: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The table was brought up to date by a version of the server that we know nothing of.
    #[error("the tables are of a newer fanfare (version {found}, this one knows {known}): use that one")]
    Newer {
        /// Of the tables.
        found: i64,
        /// The newest we know.
        known: i64,
    },
    /// An id or key is in use.
    #[error("an app with this id, or with one of these keys, exists already")]
    Taken,
    /// soketi's table is not ours to write.
    #[error("soketi's table is only read (store.schema): change its apps as you did before")]
    ReadOnly,
}

/// The driver's words, without its prefix.
fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::PoolTimedOut => "no connection could be had in time".to_owned(),
        error => error.to_string(),
    }
}

impl StoreError {
    /// The error of a database that did not know its URL.
    pub(super) fn at(self, at: &str) -> Self {
        match self {
            Self::Query { source, .. } => Self::Query { url: at.to_owned(), source },
            error => error,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        Self::Query { url: String::new(), source }
    }
}
