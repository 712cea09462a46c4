//! What the database and the driver said, as an [`Error`].

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use sqlx::error::DatabaseError;

use crate::error::Error;

impl Error {
    /// What a failure of the database means for who asked.
    pub(crate) fn of(doing: &'static str, source: DbErr) -> Self {
        let driver = match &source {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => error.clone(),
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => {
                return Self::Busy {
                    doing,
                    source: Some(source),
                };
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
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                let said = Said {
                    code: &code,
                    message: error.message(),
                    table: error.table(),
                    constraint: error.constraint(),
                };
                Self::said(doing, &said, source)
            }
            sqlx::Error::PoolTimedOut => Self::Busy {
                doing,
                source: Some(source),
            },
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

    /// What a failure of the engine means for who asked.
    pub(crate) fn of_engine(doing: &'static str, error: sqlite_engine::Error) -> Self {
        use sqlite_engine::Error as Engine;
        let source = |error: Engine| {
            let said = match std::error::Error::source(&error) {
                Some(cause) => cause.to_string(),
                None => error.to_string(),
            };
            DbErr::Exec(RuntimeErr::Internal(said))
        };
        match error {
            Engine::WriterHeld(_) | Engine::ReadersHeld(_) => Self::Busy {
                doing,
                source: None,
            },
            Engine::TimedOut(_) => Self::Timeout {
                doing,
                source: source(error),
            },
            Engine::Ended | Engine::Undone => Self::Aborted,
            Engine::Closed => Self::Unavailable {
                doing,
                source: Box::new(error),
            },
            error => {
                let code = error.code().map(|code| code.to_string());
                let source = source(error);
                let message = source.to_string();
                let said = Said {
                    code: code.as_deref().unwrap_or_default(),
                    message: &message,
                    table: None,
                    constraint: None,
                };
                Self::said(doing, &said, source)
            }
        }
    }

    /// What the database itself said.
    fn said(doing: &'static str, error: &Said<'_>, source: DbErr) -> Self {
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
                doing,
                source: Some(source),
            },
            // query_canceled
            "57014" => Self::Timeout { doing, source },
            // in_failed_sql_transaction
            "25P02" => Self::Aborted,
            // connection_exception, operator_intervention
            code if code.starts_with("08") || code.starts_with("57P") => Self::Unavailable {
                doing,
                source: Box::new(source),
            },
            code if is_sqlite_busy(code) => Self::Busy {
                doing,
                source: Some(source),
            },
            _ => Self::Other { doing, source },
        }
    }

    /// Whether the same transaction could succeed when it is run again.
    pub(crate) fn collided(&self) -> bool {
        let Self::Busy {
            source: Some(source),
            ..
        } = self
        else {
            return false;
        };
        match source {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => error
                .as_database_error()
                .and_then(DatabaseError::code)
                .is_some_and(|code| {
                    matches!(code.as_ref(), "40001" | "40P01") || is_sqlite_busy(&code)
                }),
            _ => false,
        }
    }
}

/// What a database says of a failure.
struct Said<'a> {
    /// The SQLSTATE, or SQLite's extended result code.
    code: &'a str,
    message: &'a str,
    table: Option<&'a str>,
    constraint: Option<&'a str>,
}

/// Which columns a unique index of ours is about. PostgreSQL tells its name,
/// `uq_table_column`; SQLite the columns, in the message.
fn unique(error: &Said<'_>) -> Error {
    if let (Some(table), Some(constraint)) = (error.table, error.constraint) {
        let columns = constraint
            .strip_prefix(&format!("uq_{table}_"))
            .unwrap_or(constraint);
        return Error::Conflict {
            table: table.to_owned(),
            columns: match columns {
                "owner_id_name" => vec!["owner_id".to_owned(), "name".to_owned()],
                "workflow_id_version" => vec!["workflow_id".to_owned(), "version".to_owned()],
                one => vec![one.to_owned()],
            },
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

/// `SQLITE_BUSY` and `SQLITE_LOCKED`, with their extended codes; an SQLSTATE has
/// five characters and these have at most three.
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
