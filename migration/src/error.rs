//! What can go wrong with a schema, and what to do about it.

use sea_orm::DbErr;

use crate::state::State;

/// A migration, or a look at the schema, that failed. Unless it says
/// otherwise, the database is as it was before.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be opened.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The schema is not the one that this build needs.
    #[error("{0}")]
    Schema(State),
    /// A step failed; the whole run was rolled back.
    #[error("migration {name} failed and the whole run was rolled back; nothing was changed")]
    Step {
        /// The step.
        name: String,
        /// The database's error.
        source: DbErr,
    },
    /// Tables that are not ours refer to tables that the run would have dropped.
    #[error(
        "other tables refer to tables that would be dropped ({0}); drop those tables or their foreign keys first. Nothing was changed"
    )]
    Referenced(String),
    /// Rows refer to rows that the run would have removed; it was rolled back.
    #[error(
        "the run would leave rows without the row that they refer to ({0}), and was rolled back; nothing was changed"
    )]
    DanglingRows(String),
    /// Rows were written after the person had agreed to lose fewer.
    #[error(
        "more would be deleted than was agreed to ({0}): somebody is writing. Nothing was changed; look again"
    )]
    MoreToLose(String),
    /// The connection was lost while the run was committed.
    #[error(
        "whether the run was committed is not known, because the answer to COMMIT was lost; see `cargo run -p migration -- status`"
    )]
    Commit(#[source] DbErr),
    /// A statement around the steps failed.
    #[error("{doing} failed")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The database's error.
        source: DbErr,
    },
    /// There is nothing to look at.
    #[error("{0} does not exist yet; create it with `cargo run -p migration -- up`")]
    NoDatabase(String),
    /// A file of the migration crate can't be written.
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

/// Attaches what was being done to a database error.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, DbErr> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Database { doing, source })
    }
}
