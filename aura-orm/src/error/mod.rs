//! What can go wrong, split by what the caller can do about it.

mod classify;
mod violation;

use sea_orm::DbErr;
use serde::Serialize;

pub(crate) use classify::{Context, is_unanswered};
pub(crate) use violation::expression_index;

use crate::policy::Action;
use crate::row::RowError;

/// Any error's source.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A statement or transaction that failed.
///
/// `Display` says what happened and what to do; what the database or the driver said is
/// in `source()` and is not repeated. Neither `Display` nor `Debug` shows a value.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The query has no row.
    #[error("the query has no row")]
    NoRow,
    /// There is no such row, or it is soft-deleted.
    #[error("there is no {what} {key}, or it is deleted")]
    NotFound {
        /// What was looked for, in a word: `user`.
        what: &'static str,
        /// Its key, name or address.
        key: String,
    },
    /// Another row has the same values in columns that are unique together.
    #[error("{}", conflict(table, columns, *deleted))]
    Conflict {
        /// The table.
        table: String,
        /// The columns that must be unique together, in alphabetical order; the index where
        /// it is of an expression.
        columns: Vec<String>,
        /// The other row is soft-deleted: restore it, or purge it.
        deleted: bool,
    },
    /// The row was changed since it was read. Read it again and decide whose change
    /// counts.
    #[error(
        "{what} {key} is at version {found}, and the change was made to version {read}: read it \
         again"
    )]
    Stale {
        /// What it is, in a word.
        what: &'static str,
        /// Its key.
        key: String,
        /// The version that the caller had read.
        read: i64,
        /// The version that it has now.
        found: i64,
    },
    /// The row is not in a state that allows this.
    #[error("{what} {key} {state}: {hint}")]
    State {
        /// What it is, in a word.
        what: &'static str,
        /// Its key.
        key: String,
        /// The state that it is in.
        state: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A row refers to one that doesn't exist.
    #[error("{table} refers to a row that doesn't exist ({constraint})")]
    ForeignKey {
        /// The table.
        table: String,
        /// The constraint, or what is known about it.
        constraint: String,
    },
    /// A column that must have a value got none.
    #[error("{table}.{column} must have a value, and got none; set it")]
    NotNull {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A row doesn't pass a CHECK.
    #[error("a row of {table} doesn't pass the check {constraint}; correct its values")]
    Check {
        /// The table.
        table: String,
        /// The name of the constraint; on SQLite the expression of one without a name.
        constraint: String,
    },
    /// A text is longer than its column takes: `varchar(n)` on PostgreSQL, and on SQLite
    /// `CHECK (length(column) <= n)` without a name.
    #[error("a text is longer than its column in {table} takes{}; shorten it", at_most(*limit))]
    TooLong {
        /// The table.
        table: String,
        /// The most characters, when the database says it.
        limit: Option<u64>,
    },
    /// The input can't be used. Every field that is wrong, at once.
    #[error("{}", fields(.0))]
    Validation(Vec<FieldError>),
    /// The user's role doesn't allow this.
    #[error("user {user} may not {action} this {what}")]
    Forbidden {
        /// The user's key.
        user: i64,
        /// What the user asked for.
        action: Action,
        /// What it was to be done with, in a word.
        what: &'static str,
    },
    /// A statement of the transaction failed before, so nothing of it is kept.
    #[error("the transaction is undone, because a statement in it failed before")]
    Aborted,
    /// The transaction's handle was used after its end, or while one that is nested in it
    /// was open.
    #[error("this transaction is not open (any more): use the handle of the innermost one")]
    Ended,
    /// A write was sent, and its answer was lost: it may have been done, and nothing here
    /// repeats it.
    #[error("{context}: the answer was lost, so it may have been done; look before doing it again")]
    OutcomeUnknown {
        /// What was being done.
        context: &'static str,
        /// What the connection or the driver said.
        source: Cause,
    },
    /// A setting can't be used, or the database refuses these settings. Trying again will
    /// not help.
    #[error(transparent)]
    Configuration(connection::Error),
    /// The database can't be reached, or takes no writes; it may later. Nothing was done.
    #[error("{context}: {reason}; try again later")]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// Why, as a rest of a sentence.
        reason: &'static str,
        /// What the connection or the driver said.
        source: Cause,
    },
    /// No connection was free, or another transaction held a lock, for too long; or
    /// transactions kept colliding. Worth another try.
    #[error("{context}: the database is busy")]
    Busy {
        /// What was being done.
        context: &'static str,
        /// What the database said.
        source: Option<Cause>,
    },
    /// A statement was cancelled by `DB_STATEMENT_TIMEOUT`.
    #[error("{context}: cancelled, because it took longer than DB_STATEMENT_TIMEOUT")]
    Timeout {
        /// What was being done.
        context: &'static str,
        /// What the database said.
        source: Cause,
    },
    /// A row holds what can't be read as the type.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The statement names a table or a column that the database lacks.
    #[error(
        "{context}: the database lacks a table or column; apply the migrations, or correct the \
         statement"
    )]
    Undefined {
        /// What was being done.
        context: &'static str,
        /// What the database said, which names it.
        source: Cause,
    },
    /// A statement failed for a reason that is none of the above.
    #[error("{context} failed")]
    Other {
        /// What was being done.
        context: &'static str,
        /// What the database said.
        source: Cause,
    },
}

connection::debug_as_display!(Error);

/// Returns the limit of [`Error::TooLong`] as a part of its sentence.
#[must_use]
pub fn at_most(limit: Option<u64>) -> String {
    limit.map_or_else(String::new, |limit| {
        format!(", which is {limit} characters")
    })
}

/// What is wrong with one field of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, as a rest of a sentence.
    pub problem: String,
}

impl FieldError {
    /// Creates it; `problem` is the rest of a sentence that begins with the field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// Describes the fields of an input that are wrong.
#[must_use]
pub fn fields(errors: &[FieldError]) -> String {
    let list: Vec<_> = errors.iter().map(ToString::to_string).collect();
    format!("not valid: {}", list.join("; "))
}

/// Returns the columns of a conflict in the order that they have in errors: an entity doesn't
/// say in which an index has them.
pub(crate) fn sorted(mut columns: Vec<String>) -> Vec<String> {
    columns.sort_unstable();
    columns
}

/// Describes a conflict.
#[must_use]
pub fn conflict(table: &str, columns: &[String], deleted: bool) -> String {
    if columns.is_empty() {
        return format!("another row of {table} has the same values in columns that are unique");
    }
    let columns = columns.join(", ");
    if deleted {
        format!(
            "a deleted row of {table} has this {columns}: restore it, or purge it to use it again"
        )
    } else if columns == "id" {
        format!(
            "another row of {table} has this id; where rows were imported with their ids, set the \
             sequence of {table}.id behind them"
        )
    } else {
        format!("another row of {table} has this {columns}")
    }
}

impl From<connection::Error> for Error {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::Unavailable { .. } => Self::unavailable("connecting", error),
            _ => Self::Configuration(error),
        }
    }
}

/// For code that calls `SeaORM` itself. It doesn't say whether the statement writes, so one
/// whose answer was lost is [`Error::OutcomeUnknown`], a read too.
impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::of_sent("running a statement", error)
    }
}

impl Error {
    /// The database can't be reached.
    pub(crate) fn unavailable(context: &'static str, source: impl Into<Cause>) -> Self {
        Self::Unavailable {
            context,
            reason: "the database can't be reached",
            source: source.into(),
        }
    }

    /// Creates the error of one field that is wrong; `problem` is the rest of a sentence that
    /// begins with it.
    #[must_use]
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Validation(vec![FieldError::new(field, problem)])
    }
}
