//! Why a statement fails on SQLite.

use std::time::Duration;

use rusqlite::ErrorCode;

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused the statement.
    #[error("SQLite refused the statement")]
    Refused(#[source] rusqlite::Error),
    /// SQLite refused the statement, because of a constraint of a table that it doesn't
    /// name.
    #[error("SQLite refused the statement")]
    Violated {
        /// The table.
        table: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The statement took longer than the statement timeout.
    #[error("the statement took longer than {0:?}")]
    TimedOut(Duration),
    /// The writer wasn't free in time. A task that holds a transaction and writes
    /// beside it waits for itself.
    #[error("another transaction of this process held the writer for {0:?}")]
    WriterBusy(Duration),
    /// No connection was free in time, or no permit to block.
    #[error("other reads of this process held all connections for {0:?}")]
    ReadersBusy(Duration),
    /// A value of this type can't be bound.
    #[error("SQLite has no {0}")]
    Unsupported(String),
    /// The commit of the batch failed, and rolled back every write of it; alone each
    /// may succeed.
    #[error("the commit that was shared with other writes failed")]
    BatchRolledBack,
    /// The file that was opened, or its WAL, is no longer at its path. What was
    /// committed last is lost when the process ends.
    #[error("the database file was moved, replaced or removed while it was open")]
    Moved,
    /// The commit gave no answer, because the task that made it is gone.
    #[error("the commit was not answered, so it may have been made")]
    Unanswered,
    /// The closure that ran the statement panicked.
    #[error("the code around the statement panicked")]
    Panicked,
    /// A transaction that may share its commit ran no statement while others waited, and
    /// was rolled back. Try it again exclusively.
    #[error("the transaction was in the way of others")]
    Reclaimed,
    /// An exclusive transaction ran no statement for this long while others waited, and
    /// was rolled back.
    #[error("the transaction ran no statement for {0:?} while others waited for it")]
    IdleTimeout(Duration),
    /// The transaction has ended, or a failed statement ended it.
    #[error("the transaction has ended")]
    Ended,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error)
    }
}

impl Error {
    /// Returns SQLite's extended result code (<https://sqlite.org/rescode.html>).
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused(source) | Self::Violated { source, .. } => extended_code(source),
            _ => None,
        }
    }

    /// Creates the error of a result code.
    pub(super) fn refused(code: Option<i32>) -> Self {
        let error = rusqlite::ffi::Error::new(code.unwrap_or_default());
        Self::Refused(rusqlite::Error::SqliteFailure(error, None))
    }

    /// Returns the table whose constraint refused the statement, where SQLite's own words
    /// don't name it.
    pub(crate) fn table(&self) -> Option<&str> {
        match self {
            Self::Violated { table, .. } => Some(table),
            _ => None,
        }
    }

    /// Returns whether a lock of another connection or process was in the way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Refused(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ),
            _ => false,
        }
    }

    /// Returns whether the disk failed.
    pub(crate) fn is_io(&self) -> bool {
        self.code().is_some_and(|code| code & 0xff == 10)
    }

    /// Returns whether the statement is to be tried again where it may block.
    pub(super) fn exceeded_budget(&self) -> bool {
        self.is_interrupted() || self.is_busy()
    }

    /// Returns whether the statement was interrupted at its deadline.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Refused(error)
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }
}

/// Returns SQLite's extended result code of an error.
pub(super) fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            Some(error.extended_code)
        }
        _ => None,
    }
}
