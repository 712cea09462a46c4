//! What can go wrong, split by what the caller can do about it.

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

/// An operation that failed.
///
/// `Display` says what happened and what to do; what the database or the driver
/// said is in `source()` and is not repeated. Neither `Display` nor `Debug`
/// shows a secret.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting can't be used, or the database refuses these settings. Trying
    /// again will not help.
    #[error(transparent)]
    Configuration(connection::Error),
    /// The database can't be reached; it may be later.
    #[error("{doing}: the database can't be reached; it may be later")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the connection or the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection was free, or somebody else held a lock, for too long.
    /// Worth another try.
    #[error(
        "{doing}: the database is busy (see DB_POOL_MAX and DB_POOL_CONNECTION_TIMEOUT); try again"
    )]
    Busy {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: DbErr,
    },
    /// A statement was cancelled by `DB_STATEMENT_TIMEOUT`.
    #[error("{doing}: cancelled, because it took longer than DB_STATEMENT_TIMEOUT")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: DbErr,
    },
    /// The schema is not the one that this build needs, or can't be migrated.
    #[error(transparent)]
    Schema(migration::Error),
    /// A password that can't be hashed.
    #[error(transparent)]
    Password(#[from] crate::password::PasswordError),
    /// A statement failed for a reason that is none of the above.
    #[error("{doing} failed")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: DbErr,
    },
}

connection::debug_as_display!(Error);

impl From<connection::Error> for Error {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::Unavailable { .. } => Self::Unavailable {
                doing: "connecting",
                source: Box::new(error),
            },
            _ => Self::Configuration(error),
        }
    }
}

impl From<migration::Error> for Error {
    fn from(error: migration::Error) -> Self {
        match error {
            migration::Error::Connection(error) => error.into(),
            error => Self::Schema(error),
        }
    }
}

impl Error {
    /// What a failure of the database means for who asked.
    pub(crate) fn of(doing: &'static str, source: DbErr) -> Self {
        let driver = match &source {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => error.clone(),
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => {
                return Self::Busy { doing, source };
            }
            DbErr::ConnectionAcquire(_) => {
                return Self::Unavailable {
                    doing,
                    source: Box::new(source),
                };
            }
            _ => return Self::Other { doing, source },
        };
        match &*driver {
            sqlx::Error::Database(error) => match error.code().as_deref() {
                // serialization_failure, deadlock_detected, lock_not_available
                Some("40001" | "40P01" | "55P03") => Self::Busy { doing, source },
                // query_canceled
                Some("57014") => Self::Timeout { doing, source },
                // connection_exception, operator_intervention
                Some(code) if code.starts_with("08") || code.starts_with("57P") => {
                    Self::Unavailable {
                        doing,
                        source: Box::new(source),
                    }
                }
                // SQLITE_BUSY and SQLITE_LOCKED, with their extended codes; an
                // SQLSTATE has five characters and these have at most three.
                Some(code) if is_sqlite_busy(code) => Self::Busy { doing, source },
                _ => Self::Other { doing, source },
            },
            sqlx::Error::PoolTimedOut => Self::Busy { doing, source },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable {
                doing,
                source: Box::new(source),
            },
            _ => Self::Other { doing, source },
        }
    }
}

fn is_sqlite_busy(code: &str) -> bool {
    code.len() < 5
        && code
            .parse::<i32>()
            .is_ok_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Attaches what was being done to a database error.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, DbErr> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::of(doing, source))
    }
}
