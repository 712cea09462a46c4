//! Deletes.

use sea_orm::sea_query::{LockType, Query, UpdateStatement};
use sea_orm::{ColumnTrait, DbBackend, QueryFilter, QuerySelect, Value};

use super::key::{Key, KeyOf};
use super::row::time;
use super::{Filter, Repository, RepositoryEntity, RepositoryError};
use crate::error::Error;
use crate::executor::Access;
use crate::policy::Action;

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Deletes the row with this key: softly where the entity has a column `deleted_at`, so
    /// that it can be restored, and else for good.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; as [`Repository::insert`].
    pub async fn delete(&self, key: impl Into<KeyOf<E>> + Send) -> Result<(), X> {
        let key = &Key::of::<E>(key);
        self.operate(
            "delete",
            Action::Delete,
            Self::row_access(),
            |repository| async move {
                let condition = key.condition(repository.plan).add(repository.reachable());
                let row = repository.before_delete(key, false).await?;
                let deleted = if let Some((mut update, deleted_at)) = repository.soft_delete() {
                    update.cond_where(condition).and_where(deleted_at.is_null());
                    repository.executor.update(&update).await?
                } else {
                    let mut delete = Query::delete();
                    delete
                        .from_table(E::default().table_ref())
                        .cond_where(condition);
                    // Its children may go with it.
                    repository.executor.delete_many(&delete).await?
                };
                if deleted == 0 {
                    return Err(repository.out_of_reach(Action::Delete, key).await?.into());
                }
                repository.after_delete(row).await
            },
        )
        .await
    }

    /// Deletes all rows of a filter, as [`Repository::delete`] does, and returns their
    /// number. It is one statement, which ends with `DB_STATEMENT_TIMEOUT`. Hooks are not
    /// called.
    ///
    /// # Errors
    ///
    /// As [`Repository::insert`].
    pub async fn delete_where(&self, filter: impl Filter<E>) -> Result<u64, X> {
        let rows = &filter.into_rows();
        self.operate(
            "delete_where",
            Action::Delete,
            Access::WRITE,
            |repository| async move {
                let these = repository.these(rows.clone());
                if let Some((mut update, _)) = repository.soft_delete() {
                    update.cond_where(these);
                    repository.executor.update_many(&update).await
                } else {
                    let mut delete = Query::delete();
                    delete
                        .from_table(E::default().table_ref())
                        .cond_where(these);
                    repository.executor.delete_many(&delete).await
                }
            },
        )
        .await
    }

    /// Restores a soft-deleted row and returns it. One that isn't deleted is returned as it
    /// is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::State`] where the entity has no soft deletes; as
    /// [`Repository::insert`].
    pub async fn restore(&self, key: impl Into<KeyOf<E>> + Send) -> Result<E::Model, X> {
        let key = &Key::of::<E>(key);
        self.operate(
            "restore",
            Action::Delete,
            Self::row_access(),
            |repository| async move {
                let plan = repository.plan;
                let Some(deleted_at) = plan.conventions.deleted_at else {
                    return Err(never_deleted::<E>(key).into());
                };
                let mut update = repository.stamped(Vec::new());
                let not_deleted = time::<E>(deleted_at, repository.executor.now()).as_null();
                update
                    .value(deleted_at, not_deleted)
                    .cond_where(key.condition(plan))
                    .cond_where(repository.reachable())
                    .and_where(deleted_at.is_not_null());
                let restored = repository.executor.update_returning::<E>(update).await?;
                let Some(restored) = restored.into_iter().next() else {
                    let present = E::find()
                        .filter(key.condition(plan))
                        .filter(repository.reachable());
                    return match repository.executor.fetch_optional(present).await? {
                        Some(present) => Ok(present),
                        None => Err(repository.out_of_reach(Action::Delete, key).await?.into()),
                    };
                };
                if let Some(hooks) = E::hooks() {
                    hooks.after_update(&repository.tx(), &restored).await?;
                }
                Ok(restored)
            },
        )
        .await
    }

    /// Deletes a soft-deleted row for good.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::State`] when it isn't deleted, and where the entity has
    /// no soft deletes; [`Error::ForeignKey`] when another row needs it; as
    /// [`Repository::insert`].
    pub async fn purge(&self, key: impl Into<KeyOf<E>> + Send) -> Result<(), X> {
        let key = &Key::of::<E>(key);
        self.operate(
            "purge",
            Action::Delete,
            Self::row_access(),
            |repository| async move {
                let plan = repository.plan;
                let Some(deleted_at) = plan.conventions.deleted_at else {
                    return Err(never_deleted::<E>(key).into());
                };
                let row = repository.before_delete(key, true).await?;
                let mut delete = Query::delete();
                delete
                    .from_table(E::default().table_ref())
                    .cond_where(key.condition(plan))
                    .cond_where(repository.reachable())
                    .and_where(deleted_at.is_not_null());
                if repository.executor.delete_many(&delete).await? > 0 {
                    return repository.after_delete(row).await;
                }
                let present = E::find()
                    .filter(key.condition(plan))
                    .filter(repository.reachable());
                if !repository.executor.exists(present).await? {
                    return Err(repository.out_of_reach(Action::Delete, key).await?.into());
                }
                let state = Error::State {
                    what: E::name(),
                    key: key.display(),
                    state: "is not deleted",
                    hint: "only what is deleted can be purged",
                };
                Err(state.into())
            },
        )
        .await
    }

    /// Returns the update that deletes rows softly, where the entity has that.
    fn soft_delete(&self) -> Option<(UpdateStatement, E::Column)> {
        let deleted_at = self.plan.conventions.deleted_at?;
        let now = self.executor.now();
        let deleted: Vec<(E::Column, Value)> = vec![(deleted_at, time::<E>(deleted_at, now))];
        Some((self.stamped(deleted), deleted_at))
    }

    /// Locks the row and calls the hook, where the entity has hooks.
    async fn before_delete(&self, key: &Key, deleted: bool) -> Result<Option<E::Model>, X> {
        let Some(hooks) = E::hooks() else {
            return Ok(None);
        };
        let mut row = E::find()
            .filter(key.condition(self.plan))
            .filter(self.reachable());
        if let Some(deleted_at) = self.plan.conventions.deleted_at {
            row = row.filter(if deleted {
                deleted_at.is_not_null()
            } else {
                deleted_at.is_null()
            });
        }
        if self.executor.backend() == DbBackend::Postgres {
            row = row.lock(LockType::Update);
        }
        let row = self.executor.fetch_optional(row).await?;
        if let Some(row) = &row {
            hooks.before_delete(&self.tx(), row).await?;
        }
        Ok(row)
    }

    async fn after_delete(&self, row: Option<E::Model>) -> Result<(), X> {
        if let (Some(hooks), Some(row)) = (E::hooks(), row) {
            hooks.after_delete(&self.tx(), &row).await?;
        }
        Ok(())
    }
}

fn never_deleted<E: RepositoryEntity>(key: &Key) -> Error {
    Error::State {
        what: E::name(),
        key: key.display(),
        state: "is never soft-deleted, because its table has no column for it",
        hint: "use `delete`, which deletes for good",
    }
}
