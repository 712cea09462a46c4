//! Why a statement fails on PostgreSQL.

use std::fmt;
use std::time::Duration;

use connection::ConnectError;
use tokio_postgres::error::{DbError, SqlState};

/// Why a statement has no result. Neither `Display` nor `Debug` nor a source shows the
/// server's detail, which quotes values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection. Nothing was sent.
    #[error(transparent)]
    Connect(connection::Error),
    /// The server refused the statement, or the connection broke.
    #[error(transparent)]
    Failed(Failure),
    /// The server gave no answer within this time.
    #[error("the server hasn't answered for {0:?}")]
    TimedOut(Duration),
    /// The statement took longer than the statement timeout, which is the client's where
    /// the server has none.
    #[error("the statement took longer than {0:?}")]
    StatementTimedOut(Duration),
    /// The server refused to begin the transaction of a statement, and ran the statement
    /// outside of it, or didn't say whether it did.
    #[error("the server refused to begin a transaction, and may have run its first statement")]
    NotBegun(Failure),
    /// A value of this kind can't be sent. Nothing was sent.
    #[error("PostgreSQL has no {0}")]
    Unsupported(String),
    /// The pool was closed. Nothing was sent.
    #[error("the database is closed")]
    Closed,
}

/// An error of the driver.
pub struct Failure {
    error: tokio_postgres::Error,
    /// What the server doesn't say: the table of the statement, and the columns of the
    /// constraint.
    table: Option<String>,
    key: Option<Vec<String>>,
}

impl Failure {
    fn new(error: tokio_postgres::Error) -> Self {
        Self {
            error,
            table: None,
            key: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.as_db_error() {
            Some(refused) => f.write_str(refused.message()),
            None => self.error.fmt(f),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = std::error::Error::source(&self.error);
        cause.filter(|_| self.error.as_db_error().is_none())
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(Failure::new(error))
    }
}

impl Error {
    pub(super) fn of_connect(connector: &connection::Connector, error: ConnectError) -> Self {
        Self::Connect(connector.explain(error, 0))
    }

    pub(super) fn not_begun(error: tokio_postgres::Error) -> Self {
        Self::NotBegun(Failure::new(error))
    }

    /// Returns what the server refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&DbError> {
        match self {
            Self::Failed(failure) => failure.error.as_db_error(),
            _ => None,
        }
    }

    /// Returns the SQLSTATE, or an empty text.
    #[must_use]
    pub fn code(&self) -> &str {
        self.refusal().map_or("", |refused| refused.code().code())
    }

    /// Returns the table that the statement failed at, when the server or the statement
    /// says it.
    pub(crate) fn table(&self) -> Option<&str> {
        let Self::Failed(failure) = self else {
            return None;
        };
        let said = self.refusal().and_then(DbError::table);
        said.or(failure.table.as_deref())
    }

    /// Returns the columns of the constraint, when they were looked up.
    pub(crate) fn key(&self) -> Option<&[String]> {
        match self {
            Self::Failed(failure) => failure.key.as_deref(),
            _ => None,
        }
    }

    /// Notes the table of the statement, for a failure of which the server names none.
    pub(super) fn set_table(&mut self, table: Option<String>) {
        if let Self::Failed(failure) = self {
            failure.table = table;
        }
    }

    /// Notes the columns of the constraint.
    pub(super) fn set_key(&mut self, key: Option<Vec<String>>) {
        if let Self::Failed(failure) = self {
            failure.key = key;
        }
    }

    /// Returns whether a statement that was sent may have been done all the same: the
    /// server didn't refuse it, or spoke about the connection and not about the statement.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::StatementTimedOut(_) | Self::NotBegun(_) => true,
            Self::Failed(_) => self.refusal().is_none() || is_unanswered(self.code()),
            Self::Connect(_) | Self::Unsupported(_) | Self::Closed => false,
        }
    }

    /// Returns whether a prepared statement was refused because its rows have changed since
    /// ("cached plan must not change result type"), or because the session has lost it, as
    /// after DEALLOCATE. Nothing was done.
    #[must_use]
    pub fn is_outdated_plan(&self) -> bool {
        self.refusal().is_some_and(|refused| {
            *refused.code() == SqlState::INVALID_SQL_STATEMENT_NAME
                || *refused.code() == SqlState::FEATURE_NOT_SUPPORTED
                    && refused.routine() == Some("RevalidateCachedQuery")
        })
    }

    /// Returns whether the connection ended: the network broke, or the server said so.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Failed(Failure { error, .. }) => match error.as_db_error() {
                // idle_in_transaction_session_timeout
                Some(refused) => {
                    let code = refused.code().code();
                    code == "25P03" || ends_connection(code)
                }
                None => error.is_closed() || is_io(error),
            },
            _ => false,
        }
    }
}

/// Returns whether an SQLSTATE is about the connection: `connection_exception`, and
/// `operator_intervention` but for `query_canceled`.
pub(super) fn ends_connection(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P")
}

/// Returns whether a refusal with this SQLSTATE leaves open whether the statement was done:
/// one about the connection, and `statement_completion_unknown`.
pub(crate) fn is_unanswered(code: &str) -> bool {
    ends_connection(code) || code == "40003"
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        if source.is::<std::io::Error>() {
            return true;
        }
        cause = source.source();
    }
    false
}
