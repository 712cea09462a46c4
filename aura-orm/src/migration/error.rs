//! What can go wrong with a schema, and what to do about it.

use connection::root_cause;
use sea_orm::{DbErr, RuntimeErr};

use super::{State, StepError};
use crate::error::is_unanswered;

/// A migration, or a look at the schema, that failed. Unless it says
/// otherwise, the database is as it was before.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be opened.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The schema is not the one that this build needs.
    #[error("{explanation}")]
    Schema {
        /// How it relates to this build.
        state: State,
        /// The state, and what to do next.
        explanation: String,
    },
    /// The steps can't be run, whatever the database: a name is there twice, for example.
    #[error("the migrations can't be used: {0}")]
    Invalid(String),
    /// A step failed; the transaction was rolled back.
    #[error(
        "migration {name} failed: {}. The whole run was rolled back; nothing was changed",
        root_cause(&**source)
    )]
    Step {
        /// The step.
        name: String,
        /// Why.
        source: StepError,
    },
    /// A step failed after others of the run were committed; its transaction was rolled back.
    #[error("migration {name} failed: {}. Its transaction was rolled back", root_cause(&**source))]
    LaterStep {
        /// The step.
        name: String,
        /// Why.
        source: StepError,
    },
    /// A step failed that runs outside of a transaction; what it had done stays.
    #[error(
        "migration {name} failed: {}. It runs outside of a transaction, so what it had done stays. Mend the cause and run it again, or note it with `resolve`",
        root_cause(source)
    )]
    StepOutside {
        /// The step.
        name: String,
        /// The database's error.
        source: DbErr,
    },
    /// The run ended early, after steps outside of a transaction: what came before is
    /// committed.
    #[error("the run stopped; these stay as they are now: {}. Run it again to go on", kept.join(", "))]
    Stopped {
        /// The steps that are committed.
        kept: Vec<String>,
        /// Why it stopped.
        source: Box<Error>,
    },
    /// A table lock wasn't granted within the limit, as often as it was tried.
    #[error(
        "a table lock wasn't granted in {attempts} attempts{blocker}. The transaction was rolled back. End that session, or raise --lock-timeout or --lock-attempts"
    )]
    LockTimeout {
        /// How often it was tried.
        attempts: u32,
        /// What it waited for, after a colon; empty when that isn't known.
        blocker: String,
        /// The error of the last attempt.
        source: Box<Error>,
    },
    /// A step outside of a transaction needs a session of its own, and the settings name a
    /// pooler.
    #[error(
        "migration {0} runs outside of a transaction and needs a direct connection; set DB_HOST and DB_PORT to the server, not to a pooler, and DB_PREPARED_STATEMENTS=true. Nothing was changed"
    )]
    PooledConnection(String),
    /// Tables of another schema refer to tables that the run would have dropped.
    #[error(
        "other tables refer to tables that would be dropped ({0}); drop those tables or their foreign keys first. Nothing was changed"
    )]
    Referenced(String),
    /// Rows refer to rows that the run would have removed; it was rolled back.
    #[error(
        "the run would leave rows without the row that they refer to ({0}), and was rolled back; nothing was changed"
    )]
    DanglingRows(String),
    /// Rows were written after fewer were confirmed to be deleted.
    #[error(
        "more would be deleted than was confirmed ({0}), because rows were written meanwhile. Nothing was changed; look again"
    )]
    MoreToLose(String),
    /// No step and no line of the history has this name.
    #[error(
        "there is no migration {name}, neither in this build nor in {history}; `status` lists them"
    )]
    UnknownStep {
        /// The name.
        name: String,
        /// The history.
        history: &'static str,
    },
    /// A step can't be noted as applied, because a table that it makes doesn't exist.
    #[error(
        "{step} can't be noted as applied, because its table {table} doesn't exist. Nothing was changed"
    )]
    NotThere {
        /// The step.
        step: String,
        /// The table.
        table: String,
    },
    /// The connection was lost while the run was committed.
    #[error(
        "whether the run was committed is not known, because the answer to COMMIT was lost; see `{tool} status`"
    )]
    Commit {
        /// The tool.
        tool: &'static str,
        /// The database's error.
        source: DbErr,
    },
    /// The database refused to commit the run; it was rolled back.
    #[error("{}", not_committed(source, *later))]
    NotCommitted {
        /// Others of the run were committed before.
        later: bool,
        /// The database's error.
        source: DbErr,
    },
    /// A statement around the steps failed.
    #[error("{context} failed: {}", root_cause(source))]
    Database {
        /// What was being done.
        context: &'static str,
        /// The database's error.
        source: DbErr,
    },
    /// The role lacks a right. The transaction was rolled back.
    #[error("this user lacks a right: {hint}")]
    MissingRight {
        /// The statement that grants it, or who has it.
        hint: String,
        /// What failed for want of it.
        source: Box<Error>,
    },
    /// There is nothing to look at.
    #[error("{target} does not exist yet; create it with `{tool} up`")]
    NoDatabase {
        /// The database.
        target: String,
        /// The tool.
        tool: &'static str,
    },
    /// There is no snapshot to compare with.
    #[error(
        "{0} has no snapshot of its schema; write one with `{0} snapshot` and pass it to RunnerBuilder::snapshots"
    )]
    NoSnapshot(&'static str),
    /// A snapshot is no schema.
    #[error("the snapshot of the schema can't be read; write it again with `{tool} snapshot`")]
    Snapshot {
        /// The tool.
        tool: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// There are no entities to compare the steps with.
    #[error("{0} has no entities; pass them to RunnerBuilder::entity")]
    NoEntities(&'static str),
    /// A step doesn't run on SQLite, where the steps are compared with the entities.
    #[error(
        "migration {name} doesn't run on an empty SQLite database in memory, where the steps are compared with the entities; give it statements for SQLite"
    )]
    Replay {
        /// The step.
        name: String,
        /// Why.
        source: StepError,
    },
    /// The runner has no folder to write files to.
    #[error("{0} has no folder for its files; pass one to RunnerBuilder::manifest_dir")]
    NoFolder(&'static str),
    /// A file of the steps can't be written.
    #[error("cannot write {path}")]
    Generate {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A new migration's name is not usable.
    #[error(
        "`{0}` can't be a migration's name: use lower-case letters, digits and `_`, and start with a letter"
    )]
    Name(String),
}

connection::debug_as_display!(Error);

impl Error {
    /// Maps the failure of a COMMIT.
    pub(super) fn of_commit(tool: &'static str, source: DbErr) -> Self {
        if code(&source).is_none() || is_unanswered(&source) {
            return Self::Commit { tool, source };
        }
        Self::NotCommitted {
            later: false,
            source,
        }
    }

    /// Says of a failed step no longer that nothing was changed.
    pub(super) fn after_commit(self) -> Self {
        match self {
            Self::Step { name, source } => Self::LaterStep { name, source },
            Self::NotCommitted { source, .. } => Self::NotCommitted {
                later: true,
                source,
            },
            other => other,
        }
    }

    /// Whether PostgreSQL gave up waiting for a lock, or broke a deadlock: a transaction
    /// that is run again may succeed.
    pub(super) fn is_lock_timeout(&self) -> bool {
        let code = self.database_error().map(|(code, _)| code);
        matches!(code.as_deref(), Some("55P03" | "40P01"))
    }

    /// Returns the code and the message of the database's error, if one is the cause.
    fn database_error(&self) -> Option<(String, String)> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<DbErr>()
                && let Some(code) = code(error)
            {
                return Some((code, message(error)));
            }
            next = error.source();
        }
        None
    }

    /// Says which right is missing, if that is why it failed.
    pub(super) fn with_missing_right(self, user: &str) -> Self {
        let Some((code, message)) = self.database_error() else {
            return self;
        };
        if code != INSUFFICIENT_PRIVILEGE {
            return self;
        }
        let hint = match message.rsplit_once("permission denied for schema ") {
            Some((_, schema)) => format!(
                "its owner, or a superuser, grants it: GRANT USAGE, CREATE ON SCHEMA \"{schema}\" TO \"{user}\" \
                 (since PostgreSQL 15 not everybody may create tables in public)"
            ),
            None if message.starts_with("must be owner of") => {
                format!(
                    "run it as the owner of the tables, or give them to \"{user}\": ALTER TABLE … OWNER TO \"{user}\""
                )
            }
            None => {
                format!("run it as the owner of the tables, or grant \"{user}\" what is missing")
            }
        };
        Self::MissingRight {
            hint,
            source: Box::new(self),
        }
    }
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Returns what the database said of an error.
fn message(error: &DbErr) -> String {
    let (DbErr::Exec(cause) | DbErr::Query(cause) | DbErr::Conn(cause)) = error else {
        return String::new();
    };
    let RuntimeErr::SqlxError(cause) = cause else {
        return String::new();
    };
    let cause = cause.as_database_error();
    cause.map_or_else(String::new, |cause| cause.message().to_owned())
}

/// Describes why a COMMIT was refused, and what is left.
fn not_committed(source: &DbErr, later: bool) -> String {
    let reason = match code(source).and_then(|code| connection::trouble(&code)) {
        Some(trouble) => format!(", because {} ({})", trouble.reason, trouble.action),
        None => String::new(),
    };
    let left = if later { "" } else { "; nothing was changed" };
    format!("the database refused to commit the run{reason}, and rolled it back{left}")
}

/// Returns the database's own code of an error.
pub(super) fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(error) | DbErr::Query(error) | DbErr::Conn(error)) = error else {
        return None;
    };
    let RuntimeErr::SqlxError(error) = error else {
        return None;
    };
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Attaches what was being done to a database error.
pub(super) trait Context<T> {
    fn context(self, context: &'static str) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, DbErr> {
    fn context(self, context: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Database { context, source })
    }
}
