//! Maps errors of the databases and their drivers to [`Error`].

use std::fmt;

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use sqlx::postgres::PgDatabaseError;

use crate::error::violation::violation;
use crate::error::{Cause, Error};
use crate::{postgres, sqlite};

/// A failure after which the same transaction could succeed when it is run again.
#[derive(Debug)]
struct Collision(Cause);

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Collision {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// What a database says of a failure.
#[derive(Default)]
pub(super) struct DatabaseFailure<'a> {
    /// The SQLSTATE, or SQLite's extended result code.
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    /// PostgreSQL's, which quotes values: for what can be read off it only.
    pub(super) detail: Option<&'a str>,
    pub(super) table: Option<&'a str>,
    pub(super) column: Option<&'a str>,
    pub(super) constraint: Option<&'a str>,
    /// The columns of the constraint, from PostgreSQL's catalog.
    pub(super) key: Option<&'a [String]>,
}

impl Error {
    /// Maps an error of PostgreSQL.
    pub(crate) fn of_postgres(context: &'static str, error: postgres::Error) -> Self {
        let error = match error {
            postgres::Error::Connect(error) => return Self::of_connect(context, error),
            error => error,
        };
        // A transaction that runs again prepares its statements anew.
        if error.is_outdated_plan() {
            return Self::Busy {
                context,
                source: Some(Box::new(Collision(Box::new(error)))),
            };
        }
        let Some(refused) = error.refusal() else {
            return match error {
                postgres::Error::StatementTimedOut(_) => Self::Timeout {
                    context,
                    source: Box::new(error),
                },
                postgres::Error::NotBegun(_) => Self::OutcomeUnknown {
                    context,
                    source: Box::new(error),
                },
                postgres::Error::Unsupported(_) => Self::Other {
                    context,
                    source: Box::new(error),
                },
                error => Self::unavailable(context, error),
            };
        };
        let (code, message) = (
            refused.code().code().to_owned(),
            refused.message().to_owned(),
        );
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        let (detail, column) = (text(refused.detail()), text(refused.column()));
        let constraint = text(refused.constraint());
        let (table, key) = (text(error.table()), error.key().map(<[String]>::to_vec));
        let failure = DatabaseFailure {
            code: &code,
            message: &message,
            detail: detail.as_deref(),
            table: table.as_deref(),
            column: column.as_deref(),
            constraint: constraint.as_deref(),
            key: key.as_deref(),
        };
        Self::of_code(context, &failure, Box::new(error))
    }

    /// Maps the failure of a statement that was sent and commits: a COMMIT, or a write
    /// outside of a transaction. [`Error::OutcomeUnknown`] unless the server refused it.
    pub(crate) fn of_postgres_sent(context: &'static str, error: postgres::Error) -> Self {
        if error.is_unanswered() {
            Self::OutcomeUnknown {
                context,
                source: Box::new(error),
            }
        } else {
            Self::of_postgres(context, error)
        }
    }

    /// Maps why there is no connection, at run time: what is refused now may be right
    /// again later, as a password that is being rotated.
    fn of_connect(context: &'static str, error: connection::Error) -> Self {
        let reason = match &error {
            connection::Error::Refused { .. } => {
                "the server refuses the connection, the role or its password (see DB_USER and DB_PASS_FILE)"
            }
            _ => return Self::unavailable(context, error),
        };
        Self::Unavailable {
            context,
            reason,
            source: Box::new(error),
        }
    }

    /// Maps an error of `SeaORM`'s driver.
    pub(crate) fn of(context: &'static str, source: DbErr) -> Self {
        let driver = match &source {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => error.clone(),
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => {
                return Self::Busy {
                    context,
                    source: Some(Box::new(source)),
                };
            }
            DbErr::ConnectionAcquire(_) => return Self::unavailable(context, source),
            _ => {
                return Self::Other {
                    context,
                    source: Box::new(source),
                };
            }
        };
        match &*driver {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                let postgres = error.try_downcast_ref::<PgDatabaseError>();
                let failure = DatabaseFailure {
                    code: &code,
                    message: error.message(),
                    detail: postgres.and_then(PgDatabaseError::detail),
                    table: error.table(),
                    column: postgres.and_then(PgDatabaseError::column),
                    constraint: error.constraint(),
                    key: None,
                };
                Self::of_code(context, &failure, Box::new(source))
            }
            sqlx::Error::PoolTimedOut => Self::Busy {
                context,
                source: Some(Box::new(source)),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::unavailable(context, source),
            _ => Self::Other {
                context,
                source: Box::new(source),
            },
        }
    }

    /// As [`Error::of_postgres_sent`], of `SeaORM`'s driver.
    pub(crate) fn of_sent(context: &'static str, source: DbErr) -> Self {
        if is_unanswered(&source) {
            let source = Box::new(source);
            Self::OutcomeUnknown { context, source }
        } else {
            Self::of(context, source)
        }
    }

    /// Maps a failed commit of the SQLite engine.
    pub(crate) fn of_commit(error: sqlite::Error) -> Self {
        const CONTEXT: &str = "committing";
        match error {
            sqlite::Error::Moved | sqlite::Error::Unanswered => Self::OutcomeUnknown {
                context: CONTEXT,
                source: Box::new(error),
            },
            // What the disk has of it may be recovered when the file is opened the next time.
            error if error.is_io() => Self::OutcomeUnknown {
                context: CONTEXT,
                source: Box::new(error),
            },
            error => Self::of_sqlite(CONTEXT, error),
        }
    }

    /// Maps an error of SQLite.
    pub(crate) fn of_sqlite(context: &'static str, error: sqlite::Error) -> Self {
        use sqlite::Error as Sqlite;
        match error {
            Sqlite::WriterBusy(_) | Sqlite::ReadersBusy(_) => Self::Busy {
                context,
                source: None,
            },
            // Alone it may take longer.
            Sqlite::Reclaimed => Self::Busy {
                context,
                source: Some(Box::new(Collision(Box::new(error)))),
            },
            Sqlite::TimedOut(_) => Self::Timeout {
                context,
                source: Box::new(error),
            },
            Sqlite::Ended | Sqlite::BatchRolledBack => Self::Aborted,
            Sqlite::IdleTimeout(_) => Self::Unavailable {
                context,
                reason: "the transaction did nothing for too long while others waited for it",
                source: Box::new(error),
            },
            Sqlite::Closed => Self::unavailable(context, error),
            Sqlite::Moved => Self::Unavailable {
                context,
                reason: "the file that was opened is no longer at DB_PATH; restart the service",
                source: Box::new(error),
            },
            error => {
                let code = error.code().map(|code| code.to_string());
                let message = match std::error::Error::source(&error) {
                    Some(cause) => cause.to_string(),
                    None => error.to_string(),
                };
                let table = error.table().map(ToOwned::to_owned);
                let failure = DatabaseFailure {
                    code: code.as_deref().unwrap_or_default(),
                    message: &message,
                    table: table.as_deref(),
                    ..DatabaseFailure::default()
                };
                let source = DbErr::Exec(RuntimeErr::Internal(message.clone()));
                Self::of_code(context, &failure, Box::new(source))
            }
        }
    }

    /// Maps an SQLSTATE or a result code of SQLite.
    fn of_code(context: &'static str, error: &DatabaseFailure<'_>, source: Cause) -> Self {
        if let Some(violation) = violation(error) {
            return violation;
        }
        match error.code {
            // serialization_failure, deadlock_detected
            "40001" | "40P01" => Self::Busy {
                context,
                source: Some(Box::new(Collision(source))),
            },
            // lock_not_available
            "55P03" => Self::Busy {
                context,
                source: Some(source),
            },
            // query_canceled
            "57014" => Self::Timeout { context, source },
            // in_failed_sql_transaction
            "25P02" => Self::Aborted,
            // read_only_sql_transaction
            "25006" => Self::Unavailable {
                context,
                reason: "the server is read-only (a standby, or default_transaction_read_only)",
                source,
            },
            // idle_in_transaction_session_timeout
            "25P03" => Self::Unavailable {
                context,
                reason: "the server ended a transaction that did nothing for too long",
                source,
            },
            // invalid_authorization_specification, invalid_password
            "28000" | "28P01" => Self::Unavailable {
                context,
                reason: "the server refuses the role or its password (see DB_USER, DB_PASS_FILE)",
                source,
            },
            // undefined_table, undefined_column
            "42P01" | "42703" => Self::Undefined { context, source },
            // SQLITE_ERROR has no other mark.
            "1" if error.message.starts_with("no such table: ")
                || error.message.starts_with("no such column: ")
                || error.message.contains(" has no column named ") =>
            {
                Self::Undefined { context, source }
            }
            // connection_exception, operator_intervention
            code if code.starts_with("08") || code.starts_with("57P") => {
                Self::unavailable(context, source)
            }
            // SQLITE_BUSY, SQLITE_LOCKED
            code if is_sqlite_code(code, &[5, 6]) => Self::Busy {
                context,
                source: Some(Box::new(Collision(source))),
            },
            code => match connection::trouble(code) {
                Some(trouble) => Self::Unavailable {
                    context,
                    reason: trouble.refusal,
                    source,
                },
                None => Self::Other { context, source },
            },
        }
    }

    /// Whether the same transaction could succeed when it is run again.
    pub(crate) fn is_serialization_failure(&self) -> bool {
        matches!(self, Self::Busy { source: Some(source), .. } if source.is::<Collision>())
    }
}

/// Whether a statement of `SeaORM`'s that was sent may have been done all the same: the
/// server didn't say that it refused it, or said it about the connection and not about
/// the statement; or SQLite's disk failed, which may have it.
pub(crate) fn is_unanswered(error: &DbErr) -> bool {
    let (DbErr::Query(RuntimeErr::SqlxError(error)) | DbErr::Exec(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    match &**error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            postgres::is_unanswered(&code) || is_sqlite_code(&code, &[10])
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether this is one of these result codes of SQLite, or an extended one of them. An
/// SQLSTATE has five characters and these have fewer.
fn is_sqlite_code(code: &str, primary: &[i32]) -> bool {
    code.len() < 5
        && code
            .parse::<i32>()
            .is_ok_and(|code| primary.contains(&(code & 0xff)))
}

/// Attaches what was being done to a database error.
pub(crate) trait Context<T> {
    fn context(self, context: &'static str) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, DbErr> {
    fn context(self, context: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::of(context, source))
    }
}

impl<T> Context<T> for Result<T, sqlite::Error> {
    fn context(self, context: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error::of_sqlite(context, error))
    }
}

impl<T> Context<T> for Result<T, postgres::Error> {
    fn context(self, context: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error::of_postgres(context, error))
    }
}
