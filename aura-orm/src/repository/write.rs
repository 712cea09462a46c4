//! Writes.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ExprTrait, IdenStatic, Insert, Iterable, QueryFilter,
    QuerySelect, QueryTrait, Select,
};

use super::filter::Rows;
use super::key::{Key, KeyOf, columns};
use super::row::{own, time};
use super::unique::conflict_of;
use super::{Filter, Repository, RepositoryEntity, RepositoryError};
use crate::error::Error;
use crate::executor::{Access, Executor};
use crate::policy::Action;

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Returns how a row is written: in a transaction where the entity has hooks.
    pub(super) fn row_access() -> Access {
        if E::hooks().is_some() {
            Access::ATOMIC
        } else {
            Access::WRITE
        }
    }

    /// Returns the transaction as hooks see it.
    pub(super) fn tx(&self) -> Executor {
        self.executor.with_errors()
    }

    /// Inserts a row and returns it as it is stored. Of the columns of [`Conventions`],
    /// those that aren't set are filled in.
    ///
    /// [`Conventions`]: super::Conventions
    ///
    /// # Errors
    ///
    /// [`Error::Validation`], also where a user who reaches own rows only sets a key that the
    /// database chooses: a conflict would say that another's row has it.
    /// [`Error::Conflict`] and [`Error::ForeignKey`]; where another table says whose a row is,
    /// [`Error::Forbidden`] for both a row of another's and one that refers to none.
    /// [`Error::OutcomeUnknown`]; as [`Executor::fetch_all`].
    pub async fn insert(&self, row: E::ActiveModel) -> Result<E::Model, X> {
        let row = &row;
        self.operate(
            "insert",
            Action::Create,
            Self::row_access(),
            |repository| async move { repository.insert_row(row.clone()).await },
        )
        .await
    }

    async fn insert_row(&self, row: E::ActiveModel) -> Result<E::Model, X> {
        // An insert writes what is unchanged, too.
        let mut row = row.reset_all();
        self.ensure_key_is_unset(&row)?;
        self.fill(&mut row)?;
        if let Some(hooks) = E::hooks() {
            hooks.before_insert(&self.tx(), &mut row).await?;
        }
        self.check(&row)?;
        self.ensure_own(Action::Create, &row)?;
        let insert = || {
            let insert = Insert::one(row.clone());
            if self.plan.reports_conflicts() {
                insert.on_conflict(OnConflict::new().do_nothing().to_owned())
            } else {
                insert
            }
        };
        let executor = self.executor.with_errors::<Error>();
        let inserted = match self.plan.insert_of(&row) {
            Some(kept) => {
                let values = E::Column::iter().filter_map(|column| row.get(column).into_value());
                let insert = kept.with(values.collect(), || Ok(insert()));
                executor.fetch_optional(insert).await
            }
            None => executor.fetch_optional(insert()).await,
        };
        let inserted = inserted.map_err(|error| self.hiding_parents(Action::Create, error))?;
        let inserted = match inserted {
            Some(inserted) => inserted,
            None => self.insert_again(row).await?,
        };
        self.ensure_own_by_relation(Action::Create, &inserted)
            .await?;
        if let Some(hooks) = E::hooks() {
            hooks.after_insert(&self.tx(), &inserted).await?;
        }
        Ok(inserted)
    }

    /// Says why a row could not be inserted. Where that can't be found out, the row is inserted
    /// as it is, and the database says it; or the other row is gone.
    async fn insert_again(&self, row: E::ActiveModel) -> Result<E::Model, X> {
        if let Some(conflict) = self.insert_conflict(&row).await? {
            return Err(conflict.into());
        }
        let executor = self.executor.with_errors::<Error>();
        let inserted = executor.fetch_optional(Insert::one(row)).await;
        let inserted = inserted.map_err(|error| self.hiding_parents(Action::Create, error))?;
        Ok(inserted.ok_or(Error::NoRow)?)
    }

    /// Inserts any number of rows, all or none, and returns their number: in statements of at
    /// most 1,000 rows, 8 MiB and as many values as the database takes. Columns are filled in
    /// as by [`Repository::insert`]. Hooks are not called.
    ///
    /// # Errors
    ///
    /// As [`Repository::insert`].
    pub async fn insert_many<R>(&self, rows: R) -> Result<u64, X>
    where
        R: IntoIterator<Item = E::ActiveModel> + Send,
    {
        let rows: Vec<E::ActiveModel> = rows.into_iter().collect();
        let rows = &rows;
        let (action, access) = (Action::Create, Access::ATOMIC);
        self.operate("insert_many", action, access, |repository| async move {
            repository.ensure_bulk(action)?;
            let mut filled = Vec::with_capacity(rows.len());
            for row in rows {
                let mut row = row.clone().reset_all();
                repository.ensure_key_is_unset(&row)?;
                repository.fill(&mut row)?;
                repository.check(&row)?;
                repository.ensure_own(action, &row)?;
                filled.push(row);
            }
            repository.executor.insert_many(filled).await
        })
        .await
    }

    /// Writes the columns of a row that are set, and returns the row as it is stored. With
    /// none set it returns the row as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also for a row that is soft-deleted; [`Error::Stale`] when the
    /// entity has an optimistic lock and the row was changed since it was read;
    /// [`Error::Validation`], also when the key or the lock isn't set; as
    /// [`Repository::insert`].
    pub async fn update(&self, row: E::ActiveModel) -> Result<E::Model, X> {
        let row = &row;
        self.operate(
            "update",
            Action::Update,
            Self::row_access(),
            |repository| async move { repository.update_row(row.clone()).await },
        )
        .await
    }

    async fn update_row(&self, mut row: E::ActiveModel) -> Result<E::Model, X> {
        let plan = self.plan;
        if let Some(hooks) = E::hooks() {
            hooks.before_update(&self.tx(), &mut row).await?;
        }
        self.check(&row)?;
        self.ensure_own(Action::Update, &row)?;
        let Some(key) = Key::of_row(plan, &row) else {
            return Err(Error::field("key", "must be set").into());
        };
        let read = self.read_version(&row)?;
        let changes = self.changes(&row);
        if changes.is_empty() {
            return match self.find_by_key(&key).await? {
                Some(found) => Ok(found),
                None => Err(self.out_of_reach(Action::Update, &key).await?.into()),
            };
        }
        let is_changed = |column: E::Column| {
            changes
                .iter()
                .any(|(written, _)| written.as_str() == column.as_str())
        };
        // What comes in between the database refuses.
        if let Some(conflict) = self.conflict(&row, Some(&key), is_changed).await? {
            // A row that isn't there conflicts with none.
            let there = E::find().filter(key.condition(plan));
            let there = self.executor.exists(there.filter(self.writable())).await?;
            return Err(if there {
                conflict.into()
            } else {
                self.missed(&key, read).await?.into()
            });
        }
        let mut update = self.stamped(changes);
        update
            .cond_where(key.condition(plan))
            .cond_where(self.writable());
        if let (Some(version), Some(read)) = (plan.conventions.version, read) {
            update.and_where(version.eq(read));
        }
        let executor = self.executor.with_errors::<Error>();
        let updated = executor.update_returning::<E>(update).await;
        let updated = updated.map_err(|error| self.hiding_parents(Action::Update, error))?;
        let Some(updated) = updated.into_iter().next() else {
            return Err(self.missed(&key, read).await?.into());
        };
        self.ensure_own_by_relation(Action::Update, &updated)
            .await?;
        if let Some(hooks) = E::hooks() {
            hooks.after_update(&self.tx(), &updated).await?;
        }
        Ok(updated)
    }

    /// Returns why a write found no row with this key that isn't deleted.
    async fn missed(&self, key: &Key, read: Option<i64>) -> Result<Error, X> {
        let conventions = &self.plan.conventions;
        let (Some(version), Some(read)) = (conventions.version, read) else {
            return self.out_of_reach(Action::Update, key).await;
        };
        let present = self.visible(Rows::Where(key.condition(self.plan)));
        let present = present.select_only().column(version);
        match self.executor.scalar(present).await? {
            Some(found) => Ok(Error::Stale {
                what: E::name(),
                key: key.display(),
                read,
                found,
            }),
            None => self.out_of_reach(Action::Update, key).await,
        }
    }

    /// Writes the columns that are set to all rows of a filter that aren't deleted, and
    /// returns their number. It is one statement, which ends with `DB_STATEMENT_TIMEOUT`;
    /// an optimistic lock is not checked, and adds 1.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`]; as [`Repository::insert`].
    pub async fn update_where(
        &self,
        filter: impl Filter<E>,
        changes: E::ActiveModel,
    ) -> Result<u64, X> {
        let (rows, changes) = (&filter.into_rows(), &changes);
        self.operate(
            "update_where",
            Action::Update,
            Access::WRITE,
            |repository| async move {
                repository.ensure_bulk(Action::Update)?;
                repository.check(changes)?;
                repository.ensure_own(Action::Update, changes)?;
                let changes = repository.changes(changes);
                if changes.is_empty() {
                    return Ok(0);
                }
                let mut update = repository.stamped(changes);
                update.cond_where(repository.these(rows.clone()));
                repository.executor.update_many(&update).await
            },
        )
        .await
    }

    /// Returns the condition of the rows of a filter that may be written.
    pub(super) fn these(&self, rows: Rows<E>) -> Condition {
        let these = match rows {
            Rows::Where(condition) => condition,
            Rows::Select(select) => {
                let key = &self.plan.key;
                let select = Select::<E>::select_only(*select).columns(key.iter().copied());
                let these = columns(key.iter().copied()).in_subquery(select.into_query());
                Condition::all().add(these)
            }
        };
        // Never added to the filter's own, which may be of alternatives.
        Condition::all().add(these).add(self.writable())
    }

    /// Inserts a row, or updates the one that has the same values in these columns, which
    /// must be unique together, and returns it as it is stored. What an update writes is
    /// what is set, but for the key, the owner, and when and by whom the row was inserted.
    /// Hooks are not called.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when the other row is soft-deleted, and for other columns;
    /// [`Error::Validation`]; as [`Repository::insert`].
    pub async fn upsert(&self, row: E::ActiveModel, unique: &[E::Column]) -> Result<E::Model, X> {
        let row = &row;
        self.operate(
            "upsert",
            Action::Update,
            Access::WRITE,
            |repository| async move {
                let conventions = &repository.plan.conventions;
                repository.ensure_bulk(Action::Update)?;
                repository.check(&row.clone().reset_all())?;
                let mut conflict = OnConflict::columns(unique.iter().copied());
                let kept = [
                    conventions.created_at,
                    conventions.created_by,
                    conventions.owner_id,
                    conventions.updated_at,
                    conventions.updated_by,
                ];
                let kept: Vec<_> = kept
                    .into_iter()
                    .flatten()
                    .chain(unique.iter().copied())
                    .collect();
                let is_kept =
                    |column: &E::Column| kept.iter().any(|kept| kept.as_str() == column.as_str());
                let mut changes = repository.changes(row);
                changes.retain(|(column, _)| !is_kept(column));
                conflict.update_columns(changes.into_iter().map(|(column, _)| column));
                // With nothing to write the row is written as it is, or it would not be returned.
                conflict.update_columns(unique.iter().copied());
                if let Some(at) = conventions.updated_at {
                    conflict.value(at, time::<E>(at, repository.executor.now()));
                }
                if let Some(by) = conventions.updated_by {
                    conflict.value(by, repository.executor.actor());
                }
                if let Some(version) = conventions.version {
                    conflict.value(version, own(version).add(1));
                }
                let writable = repository.writable();
                if !writable.is_empty() {
                    conflict.action_cond_where(writable);
                }
                let mut row = row.clone().reset_all();
                repository.ensure_key_is_unset(&row)?;
                repository.fill(&mut row)?;
                repository.ensure_own(Action::Update, &row)?;
                let creates = repository.allowed(Action::Create)?;
                creates.ensure_bulk(Action::Create)?;
                creates.ensure_own(Action::Create, &row)?;
                let written = repository.executor.insert_or(row, conflict).await?;
                // The other row is hidden, because it is deleted or another user's.
                let hidden = || conflict_of::<E>(unique, repository.own.is_none());
                Ok(written.ok_or_else(hidden)?)
            },
        )
        .await
    }

    /// Adds to a number in a row, and returns the row as it is stored: additions at the same
    /// moment are all counted. NULL stays NULL.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Validation`] for a column of the key, the owner or the
    /// lock; as [`Repository::insert`].
    pub async fn increment(
        &self,
        key: impl Into<KeyOf<E>> + Send,
        column: E::Column,
        by: i64,
    ) -> Result<E::Model, X> {
        let key = &Key::of::<E>(key);
        let conventions = &self.plan.conventions;
        let fixed = [conventions.owner_id, conventions.version];
        let mut fixed = self
            .plan
            .key
            .iter()
            .copied()
            .chain(fixed.into_iter().flatten());
        if fixed.any(|fixed| fixed.as_str() == column.as_str()) {
            let problem = format!(
                "must not be {}, which is no number to add to",
                column.as_str()
            );
            return Err(Error::field("column", problem).into());
        }
        self.operate(
            "increment",
            Action::Update,
            Self::row_access(),
            |repository| async move {
                let plan = repository.plan;
                let mut update = repository.stamped(Vec::new());
                update
                    .value(column, own(column).add(Expr::val(by)))
                    .cond_where(key.condition(plan))
                    .cond_where(repository.writable());
                let executor = repository.executor.with_errors::<Error>();
                let updated = executor.update_returning::<E>(update).await;
                let updated =
                    updated.map_err(|error| repository.hiding_parents(Action::Update, error))?;
                let Some(updated) = updated.into_iter().next() else {
                    return Err(repository.out_of_reach(Action::Update, key).await?.into());
                };
                repository
                    .ensure_own_by_relation(Action::Update, &updated)
                    .await?;
                if let Some(hooks) = E::hooks() {
                    hooks.after_update(&repository.tx(), &updated).await?;
                }
                Ok(updated)
            },
        )
        .await
    }

    /// Inserts a row without a key, and updates one with a key, which is inserted where
    /// there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where a user who reaches own rows only sets a key that the database
    /// chooses, and which no own row has. As [`Repository::insert`] and [`Repository::update`].
    pub async fn save(&self, row: E::ActiveModel) -> Result<E::Model, X> {
        let row = &row;
        self.operate(
            "save",
            Action::Update,
            Access::ATOMIC,
            |repository| async move {
                let plan = repository.plan;
                let insert = async |row| repository.allowed(Action::Create)?.insert_row(row).await;
                let Some(key) = Key::of_row(plan, row) else {
                    return insert(row.clone()).await;
                };
                let there = E::find()
                    .filter(key.condition(plan))
                    .filter(repository.reachable());
                if repository.executor.exists(there).await? {
                    repository.update_row(row.clone()).await
                } else if repository.own.is_some() && plan.key_is_generated() {
                    Err(repository.out_of_reach(Action::Update, &key).await?.into())
                } else {
                    insert(row.clone().reset_all()).await
                }
            },
        )
        .await
    }
}
