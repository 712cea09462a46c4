//! Who may do what with the rows of an entity.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::executor::Executor;

/// What is done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Make a new one.
    Create,
    /// Look at it.
    Read,
    /// Change it.
    Update,
    /// Delete, restore or purge it.
    Delete,
    /// Run it.
    Execute,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Execute => "execute",
        })
    }
}

/// Whose rows a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The rows that the user owns.
    Own,
    /// The rows of every user.
    Any,
}

/// Where the role of a user comes from.
#[async_trait]
pub trait RoleSource: fmt::Debug + Send + Sync {
    /// Returns the role of a user, in the transaction of the operation that it is for; `None`
    /// for a user who may do nothing, as one who is deleted. Before a write the answer must
    /// hold until the transaction ends: lock the row that it is in.
    ///
    /// # Errors
    ///
    /// Those of its statements.
    async fn role(&self, tx: &Executor, user: i64, writes: bool) -> Result<Option<String>, Error>;
}
