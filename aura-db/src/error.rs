//! What can go wrong, split by what the caller can do about it.

pub use aura_orm::FieldError;
use aura_orm::{Cause, RowError, at_most};
use entity::{Action, ExecutionId, UserId, WorkflowId};
use sea_orm::DbErr;

use crate::password::PasswordError;

/// An operation that failed.
///
/// `Display` says what happened and what to do; what the database or the driver
/// said is in `source()` and is not repeated. Neither `Display` nor `Debug`
/// shows a secret.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such row, or it is soft-deleted.
    #[error("there is no {what} {key}, or it is deleted")]
    NotFound {
        /// What was looked for, in a word: `user`.
        what: &'static str,
        /// Its key, name or address.
        key: String,
    },
    /// Another row has the same values in columns that are unique together.
    #[error("{}", aura_orm::error::conflict(table, columns, *deleted))]
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
    #[error("{}", aura_orm::error::fields(.0))]
    Validation(Vec<FieldError>),
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
    /// The worker doesn't hold this execution any more: its lease ran out, or
    /// somebody stopped it. Its result was not written.
    #[error("execution {execution} is not held by worker {worker}: drop its result")]
    LeaseLost {
        /// The execution.
        execution: ExecutionId,
        /// Who asked.
        worker: String,
    },
    /// The user owns workflows or agents; deleting needs a decision.
    #[error(
        "user {user} owns {workflows} workflows and {agents} agents: transfer them, or delete \
         them too"
    )]
    OwnsRows {
        /// The user.
        user: UserId,
        /// Workflows that are not deleted.
        workflows: u64,
        /// Agents that are not deleted.
        agents: u64,
    },
    /// The e-mail address or the password is wrong, or the account may not log
    /// in. Which of them is not told, on purpose.
    #[error("the e-mail address or the password is wrong, or the account is not active")]
    Credentials,
    /// The user's role doesn't allow this.
    #[error("user {user} may not {action} this {what}")]
    Forbidden {
        /// The user.
        user: UserId,
        /// What the user asked for.
        action: Action,
        /// What it was to be done with, in a word.
        what: &'static str,
    },
    /// The workflow's graph has problems, and the caller asked to be strict.
    #[error("workflow {workflow} is not sound: {} problems in its graph", problems.len())]
    Unsound {
        /// The workflow.
        workflow: WorkflowId,
        /// What is wrong.
        problems: Vec<crate::graph::GraphProblem>,
    },
    /// A statement of the transaction failed before, so nothing of it is kept.
    #[error("the transaction is undone, because a statement in it failed before")]
    Aborted,
    /// The transaction's handle was used after its end, or while one that is
    /// nested in it was open.
    #[error("this transaction is not open (any more): use the handle of the innermost one")]
    Ended,
    /// A write was sent, and its answer was lost: the connection broke, or the
    /// server was silent for too long. It may have been done, and nothing here
    /// repeats it. Look for what it writes before doing it again, or write what
    /// may be done twice.
    #[error("{context}: the answer was lost, so it may have been done; look before doing it again")]
    OutcomeUnknown {
        /// What was being done.
        context: &'static str,
        /// What the connection or the driver said.
        source: Cause,
    },
    /// A setting can't be used, or the database refuses these settings. Trying
    /// again will not help.
    #[error(transparent)]
    Configuration(connection::Error),
    /// The database can't be reached, or takes no writes; it may later. Nothing
    /// was done.
    #[error("{context}: {reason}; try again later")]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// Why, as a rest of a sentence.
        reason: &'static str,
        /// What the connection or the driver said.
        source: Cause,
    },
    /// No connection was free, or somebody else held a lock, for too long; or
    /// transactions kept colliding; or too many passwords are being hashed. Worth
    /// another try.
    #[error("{context}: {}", busy(source.as_ref()))]
    Busy {
        /// What was being done.
        context: &'static str,
        /// What the database said; a [`PasswordError`] when too many passwords are being
        /// hashed.
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
    /// The schema is not the one that this build needs, or can't be migrated.
    #[error(transparent)]
    Schema(migration::Error),
    /// A password that can't be hashed.
    #[error(transparent)]
    Password(PasswordError),
    /// A row holds what this build can't read: it was written by something
    /// else, or by a newer version.
    #[error(transparent)]
    Inconsistent(#[from] RowError),
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

impl From<aura_orm::Error> for Error {
    fn from(error: aura_orm::Error) -> Self {
        use aura_orm::Error as Orm;
        match error {
            Orm::NoRow => Self::not_found("row", "of the query"),
            Orm::NotFound { what, key } => Self::NotFound { what, key },
            Orm::Conflict {
                table,
                columns,
                deleted,
            } => Self::Conflict {
                table,
                columns,
                deleted,
            },
            Orm::Stale {
                what,
                key,
                read,
                found,
            } => Self::Stale {
                what,
                key,
                read,
                found,
            },
            Orm::State {
                what,
                key,
                state,
                hint,
            } => Self::State {
                what,
                key,
                state,
                hint,
            },
            Orm::ForeignKey { table, constraint } => Self::ForeignKey { table, constraint },
            Orm::NotNull { table, column } => Self::NotNull { table, column },
            Orm::Check { table, constraint } => Self::Check { table, constraint },
            Orm::TooLong { table, limit } => Self::TooLong { table, limit },
            Orm::Validation(fields) => Self::Validation(fields),
            Orm::Forbidden { user, action, what } => Self::Forbidden {
                user: UserId(user),
                action,
                what,
            },
            Orm::Aborted => Self::Aborted,
            Orm::Ended => Self::Ended,
            Orm::OutcomeUnknown { context, source } => Self::OutcomeUnknown { context, source },
            Orm::Configuration(error) => Self::Configuration(error),
            Orm::Unavailable {
                context,
                reason,
                source,
            } => Self::Unavailable {
                context,
                reason,
                source,
            },
            Orm::Busy { context, source } => Self::Busy { context, source },
            Orm::Timeout { context, source } => Self::Timeout { context, source },
            Orm::Row(error) => Self::Inconsistent(error),
            // One of this crate's, which a hook returned.
            Orm::Other { context, source } => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::Other { context, source },
            },
            Orm::Undefined { context, source } => Self::Undefined { context, source },
            error => Self::Other {
                context: "running a statement",
                source: Box::new(error),
            },
        }
    }
}

/// For hooks: from the operation that called it, the error comes out as it was.
impl From<Error> for aura_orm::Error {
    fn from(error: Error) -> Self {
        Self::Other {
            context: "running a hook",
            source: Box::new(error),
        }
    }
}

impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Busy {
                context: "hashing a password",
                source: Some(Box::new(error)),
            },
            error => Self::Password(error),
        }
    }
}

/// Says what is busy, and what to do.
fn busy(source: Option<&Cause>) -> String {
    match source.and_then(|source| source.downcast_ref::<PasswordError>()) {
        Some(error) => error.to_string(),
        None => "the database is busy (see DB_POOL_MAX and DB_POOL_CONNECTION_TIMEOUT; inside a \
                 transaction use its own handle); try again"
            .to_owned(),
    }
}

impl From<connection::Error> for Error {
    fn from(error: connection::Error) -> Self {
        aura_orm::Error::from(error).into()
    }
}

/// For code that calls `SeaORM` itself. It doesn't say whether the statement writes, so one
/// whose answer was lost is [`Error::OutcomeUnknown`], a read too.
impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        aura_orm::Error::from(error).into()
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
    /// Creates the error of one field that is wrong; `problem` is the rest of a sentence that
    /// begins with it.
    #[must_use]
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Validation(vec![FieldError::new(field, problem)])
    }

    /// A row that isn't there.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an id or a text, whichever the caller has"
    )]
    pub(crate) fn not_found(what: &'static str, key: impl ToString) -> Self {
        Self::NotFound {
            what,
            key: key.to_string(),
        }
    }
}
