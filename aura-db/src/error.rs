//! What can go wrong, split by what the caller can do about it.

use sea_orm::DbErr;

/// An operation that failed.
///
/// `Display` says what happened and what to do; what the database or the driver
/// said is in `source()` and is not repeated. No variant shows a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting can't be used, or the database refuses these settings. Trying
    /// again will not help.
    #[error(transparent)]
    Configuration(connection::Error),
    /// The database can't be reached now; it may be later.
    #[error(transparent)]
    Unavailable(connection::Error),
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

impl From<connection::Error> for Error {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::Unavailable { .. } => Self::Unavailable(error),
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

/// Attaches what was being done to a database error.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, DbErr> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Other { doing, source })
    }
}
