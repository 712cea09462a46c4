//! Maps errors of the databases and their drivers to [`Error`].

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::error::Error;

impl Error {
    /// Maps an error of the driver.
    pub(crate) fn of(context: &'static str, source: DbErr) -> Self {
        let driver = match &source {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => error.clone(),
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => {
                return Self::Busy {
                    context,
                    source: Some(source),
                };
            }
            DbErr::ConnectionAcquire(_) => {
                return Self::unavailable(context, source);
            }
            _ => return Self::Other { context, source },
        };
        match &*driver {
            // A transaction that runs again prepares its statements anew.
            sqlx::Error::Database(error) if is_outdated_plan(&**error) => Self::Busy {
                context,
                source: Some(source),
            },
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                let failure = DatabaseFailure {
                    code: &code,
                    message: error.message(),
                    detail: error
                        .try_downcast_ref::<PgDatabaseError>()
                        .and_then(PgDatabaseError::detail),
                    table: error.table(),
                    constraint: error.constraint(),
                };
                Self::of_code(context, &failure, source)
            }
            sqlx::Error::PoolTimedOut => Self::Busy {
                context,
                source: Some(source),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::unavailable(context, source),
            _ => Self::Other { context, source },
        }
    }

    /// Maps the failure of a statement that was sent and commits: a COMMIT, or a write
    /// outside of a transaction. [`Error::OutcomeUnknown`] unless the server refused it.
    pub(crate) fn of_sent(context: &'static str, source: DbErr) -> Self {
        if is_unanswered(&source) {
            let source = Box::new(source);
            Self::OutcomeUnknown { context, source }
        } else {
            Self::of(context, source)
        }
    }

    /// Maps a failed commit of the SQLite engine.
    pub(crate) fn of_commit(error: aura_orm::sqlite::Error) -> Self {
        use aura_orm::sqlite::Error as Sqlite;
        const DOING: &str = "committing";
        match error {
            Sqlite::Moved | Sqlite::Unanswered => Self::OutcomeUnknown {
                context: DOING,
                source: Box::new(error),
            },
            error => Self::of_sqlite(DOING, error),
        }
    }

    /// Maps an error of SQLite.
    pub(crate) fn of_sqlite(context: &'static str, error: aura_orm::sqlite::Error) -> Self {
        use aura_orm::sqlite::Error as Sqlite;
        let source = |error: Sqlite| {
            let failure = match std::error::Error::source(&error) {
                Some(cause) => cause.to_string(),
                None => error.to_string(),
            };
            DbErr::Exec(RuntimeErr::Internal(failure))
        };
        match error {
            Sqlite::WriterBusy(_) | Sqlite::ReadersBusy(_) => Self::Busy {
                context,
                source: None,
            },
            Sqlite::TimedOut(_) => Self::Timeout {
                context,
                source: source(error),
            },
            Sqlite::Ended | Sqlite::BatchRolledBack => Self::Aborted,
            Sqlite::Reclaimed => Self::Busy {
                context,
                source: Some(DbErr::Custom(RECLAIMED.to_owned())),
            },
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
                let source = source(error);
                let message = source.to_string();
                let failure = DatabaseFailure {
                    code: code.as_deref().unwrap_or_default(),
                    message: &message,
                    detail: None,
                    table: None,
                    constraint: None,
                };
                Self::of_code(context, &failure, source)
            }
        }
    }

    /// Maps an SQLSTATE or a result code of SQLite.
    fn of_code(context: &'static str, error: &DatabaseFailure<'_>, source: DbErr) -> Self {
        match error.code {
            // unique_violation; SQLite's unique, primary key and rowid.
            "23505" | "2067" | "1555" | "2579" => unique(error),
            // foreign_key_violation; SQLite's doesn't say which.
            "23503" | "787" => Self::ForeignKey {
                table: error.table.unwrap_or("the row").to_owned(),
                constraint: error.constraint.unwrap_or("foreign key").to_owned(),
            },
            // serialization_failure, deadlock_detected, lock_not_available
            "40001" | "40P01" | "55P03" => Self::Busy {
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
                source: Box::new(source),
            },
            // idle_in_transaction_session_timeout
            "25P03" => Self::Unavailable {
                context,
                reason: "the server ended a transaction that did nothing for too long",
                source: Box::new(source),
            },
            // invalid_authorization_specification, invalid_password
            "28000" | "28P01" => Self::Unavailable {
                context,
                reason: "the server refuses the role or its password (see DB_USER, DB_PASS_FILE)",
                source: Box::new(source),
            },
            // connection_exception, operator_intervention
            code if code.starts_with("08") || code.starts_with("57P") => {
                Self::unavailable(context, source)
            }
            code if is_sqlite_busy(code) => Self::Busy {
                context,
                source: Some(source),
            },
            _ => Self::Other { context, source },
        }
    }

    /// Whether the same transaction could succeed when it is run again.
    pub(crate) fn is_serialization_failure(&self) -> bool {
        let Self::Busy {
            source: Some(source),
            ..
        } = self
        else {
            return false;
        };
        match source {
            DbErr::Custom(text) => text == RECLAIMED,
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => error
                .as_database_error()
                .and_then(DatabaseError::code)
                .is_some_and(|code| {
                    // 0A000 is only here what `is_outdated_plan` found.
                    matches!(code.as_ref(), "40001" | "40P01" | "0A000") || is_sqlite_busy(&code)
                }),
            _ => false,
        }
    }
}

/// Of a transaction that was rolled back because it was in the way of others; alone it
/// may take longer.
const RECLAIMED: &str = "the transaction was in the way of others";

/// Whether a statement that was sent may have been done all the same: the server
/// didn't say that it refused it, or said it about the connection and not about
/// the statement.
fn is_unanswered(error: &DbErr) -> bool {
    let (DbErr::Query(RuntimeErr::SqlxError(error)) | DbErr::Exec(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    match &**error {
        sqlx::Error::Database(error) => {
            // connection_exception, operator_intervention but for query_canceled
            let code = error.code().unwrap_or_default();
            code.starts_with("08") || code.starts_with("57P")
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether PostgreSQL refused a prepared statement because its rows have changed
/// since ("cached plan must not change result type"). Nothing was done.
pub(crate) fn is_outdated_plan(error: &dyn DatabaseError) -> bool {
    error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| {
            error.code() == "0A000" && error.routine() == Some("RevalidateCachedQuery")
        })
}

/// What a database says of a failure.
struct DatabaseFailure<'a> {
    /// The SQLSTATE, or SQLite's extended result code.
    code: &'a str,
    message: &'a str,
    /// PostgreSQL's, which quotes values: for what can be read off it only.
    detail: Option<&'a str>,
    table: Option<&'a str>,
    constraint: Option<&'a str>,
}

/// Which columns a unique index is about. PostgreSQL says so in the detail, unless
/// the role may not read the table; SQLite in the message.
fn unique(error: &DatabaseFailure<'_>) -> Error {
    if let (Some(table), Some(constraint)) = (error.table, error.constraint) {
        let columns = error.detail.and_then(key_columns);
        return Error::Conflict {
            table: table.to_owned(),
            columns: columns.unwrap_or_else(|| vec![constraint.to_owned()]),
            deleted: false,
        };
    }
    let message = error.message;
    let list = message.rsplit(": ").next().unwrap_or(message);
    let pairs: Vec<_> = list
        .split(", ")
        .filter_map(|pair| pair.split_once('.'))
        .collect();
    Error::Conflict {
        table: pairs
            .first()
            .map_or("a table", |(table, _)| table)
            .to_owned(),
        columns: pairs
            .iter()
            .map(|(_, column)| (*column).to_owned())
            .collect(),
        deleted: false,
    }
}

/// The columns in `Key (owner_id, name)=(1, x) already exists.`, of which only the
/// first part is in the same words in every language of the server's.
fn key_columns(detail: &str) -> Option<Vec<String>> {
    let (before, _) = detail.split_once(")=(")?;
    let (_, columns) = before.split_once('(')?;
    let names = columns.split(", ").map(|name| name.trim_matches('"'));
    Some(names.map(ToOwned::to_owned).collect())
}

/// `SQLITE_BUSY` and `SQLITE_LOCKED`, with their extended codes; an SQLSTATE has
/// five characters and these have at most three.
fn is_sqlite_busy(code: &str) -> bool {
    code.len() < 5
        && code
            .parse::<i32>()
            .is_ok_and(|code| matches!(code & 0xff, 5 | 6))
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
