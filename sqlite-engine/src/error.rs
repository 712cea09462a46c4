//! What can go wrong.

use std::time::Duration;

use rusqlite::ErrorCode;

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused it.
    #[error("SQLite refused the statement")]
    Refused(#[source] rusqlite::Error),
    /// It took longer than a statement may.
    #[error("the statement took longer than {0:?}")]
    TimedOut(Duration),
    /// The writer was not free in time. Whoever holds a transaction and writes
    /// beside it waits for itself.
    #[error("another transaction of this process held the writer for {0:?}")]
    WriterHeld(Duration),
    /// A value of this type can't be bound.
    #[error("SQLite has no {0}")]
    Unsupported(&'static str),
    /// All connections that may block were in use.
    #[error("other long reads of this process kept all places for {0:?}")]
    ReadersHeld(Duration),
    /// The commit that it shared with others failed; alone it may succeed.
    #[error("the commit that was shared with others failed")]
    Undone,
    /// The file that was opened, or its WAL, is no longer at its path. What was
    /// committed in it last is lost when the process ends.
    #[error("the database file was moved, replaced or removed while it was open")]
    Moved,
    /// The commit gave no answer, because the task that made it is gone.
    #[error("the commit was not answered, so it may have been made")]
    Unanswered,
    /// The code that ran the statement panicked.
    #[error("the code around the statement panicked")]
    Panicked,
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
    /// SQLite's extended result code (<https://sqlite.org/rescode.html>).
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused(rusqlite::Error::SqliteFailure(error, _)) => Some(error.extended_code),
            _ => None,
        }
    }

    /// Whether somebody else's lock was in the way, so that it may succeed when
    /// it is tried again.
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

    pub(crate) fn is_interrupt(&self) -> bool {
        matches!(self, Self::Refused(error)
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    }
}

/// An error that may be one of the engine's.
pub trait AsEngine {
    /// The engine's error, if it is one.
    fn as_engine(&self) -> Option<&Error>;

    /// It ran out of its time.
    fn interrupted(&self) -> bool {
        self.as_engine().is_some_and(Error::is_interrupt)
    }

    /// It may be tried where it may block.
    fn over_budget(&self) -> bool {
        self.as_engine()
            .is_some_and(|error| error.is_interrupt() || error.is_busy())
    }
}

impl AsEngine for Error {
    fn as_engine(&self) -> Option<&Error> {
        Some(self)
    }
}
