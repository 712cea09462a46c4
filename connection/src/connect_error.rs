//! Why there is no session on a server.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::refusal;

/// Why there is no session.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of the server leads nowhere.
    Unresolved(io::Error),
    /// The server or the network refused it.
    Failed(tokio_postgres::Error),
    /// There was no answer within this time.
    Silent(Duration),
}

impl ConnectError {
    /// Returns whether the server starts, restarts or is full for the moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unresolved(error) => refusal::io_may_pass(error),
            Self::Failed(error) => may_pass(error),
            Self::Silent(_) => true,
        }
    }

    /// Returns whether a server has said it.
    pub(crate) fn is_said(&self) -> bool {
        matches!(self, Self::Failed(error) if error.code().is_some())
    }

    /// Returns whether the server refused the password.
    #[must_use]
    pub fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Failed(error) if error.code() == Some(&SqlState::INVALID_PASSWORD))
    }
}

pub(crate) fn reason(error: &ConnectError) -> String {
    match error {
        ConnectError::Unresolved(error) => error.to_string(),
        ConnectError::Failed(error) => short(error),
        ConnectError::Silent(timeout) => format!("no answer within {} ms", timeout.as_millis()),
    }
}

/// Returns what the server says, or the innermost cause.
pub(crate) fn short(error: &tokio_postgres::Error) -> String {
    if let Some(refused) = error.as_db_error() {
        return refused.message().to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Returns whether a server starts, restarts or is full for the moment.
pub(crate) fn may_pass(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        return matches!(code.code(), "57P03" | "53300" | "57P01" | "57P02");
    }
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(error) = source.downcast_ref::<std::io::Error>() {
            return refusal::io_may_pass(error);
        }
        cause = source.source();
    }
    // As of a server that closes the connection while it starts.
    error.is_closed()
}
