//! What an application does around the writes of a row.

use async_trait::async_trait;

use super::RepositoryEntity;
use crate::error::Error;
use crate::executor::Executor;

/// Runs around each write of a single row, inside its transaction: an error undoes the
/// write, and a transaction of the caller's that it is in. `tx` is the transaction, with [`Executor::repository`], `fetch_*` and `execute`.
/// A transaction that collides with another is run again, and its hooks with it.
///
/// Writes of many rows by one statement (`insert_many`, `update_where`, `delete_where`)
/// don't call them.
#[async_trait]
#[allow(unused_variables, reason = "the names are what an implementation sees")]
pub trait Hooks<E: RepositoryEntity>: Sync {
    /// Runs before a row is inserted, and may change it.
    ///
    /// # Errors
    ///
    /// What is to undo the write.
    async fn before_insert(&self, tx: &Executor, row: &mut E::ActiveModel) -> Result<(), Error> {
        Ok(())
    }

    /// Runs after a row was inserted.
    ///
    /// # Errors
    ///
    /// What is to undo the write.
    async fn after_insert(&self, tx: &Executor, row: &E::Model) -> Result<(), Error> {
        Ok(())
    }

    /// Runs before a row is updated, and may change what is set.
    ///
    /// # Errors
    ///
    /// What is to undo the write.
    async fn before_update(&self, tx: &Executor, row: &mut E::ActiveModel) -> Result<(), Error> {
        Ok(())
    }

    /// Runs after a row was updated, incremented or restored.
    ///
    /// # Errors
    ///
    /// What is to undo the write.
    async fn after_update(&self, tx: &Executor, row: &E::Model) -> Result<(), Error> {
        Ok(())
    }

    /// Runs before a row is deleted or purged, with the row as it is locked.
    ///
    /// # Errors
    ///
    /// What is to undo the write.
    async fn before_delete(&self, tx: &Executor, row: &E::Model) -> Result<(), Error> {
        Ok(())
    }

    /// Runs after a row was deleted or purged.
    ///
    /// # Errors
    ///
    /// What is to undo the write.
    async fn after_delete(&self, tx: &Executor, row: &E::Model) -> Result<(), Error> {
        Ok(())
    }
}
