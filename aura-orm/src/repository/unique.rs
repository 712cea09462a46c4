//! Columns that are unique together, as the entity declares them.

use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DbBackend, ExprTrait, IdenStatic, Iterable,
    QueryFilter, QuerySelect, QueryTrait, Schema,
};

use super::entity::EntityPlan;
use super::key::Key;
use super::row::own;
use super::{Repository, RepositoryEntity, RepositoryError};
use crate::error::{Error, sorted};

/// Returns the columns that the entity declares to be unique: by `unique`, or together by
/// `unique_key`.
pub(super) fn declared<E: RepositoryEntity>() -> Vec<Vec<E::Column>> {
    let alone = E::Column::iter().filter(|column| column.def().is_unique());
    let mut all: Vec<_> = alone.map(|column| vec![column]).collect();
    let schema = Schema::new(DbBackend::Sqlite);
    for index in schema.create_index_from_entity(E::default()) {
        if !index.is_unique_key() {
            continue;
        }
        let names = index.get_index_spec().get_column_names();
        let columns = names
            .iter()
            .filter_map(|name| E::Column::iter().find(|column| column.as_str() == name));
        all.push(columns.collect());
    }
    all
}

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Returns the conflict of a row with another that has the same values in columns that
    /// are unique together, also with one that is soft-deleted. `changed` says which columns
    /// are written.
    pub(super) async fn conflict(
        &self,
        row: &E::ActiveModel,
        key: Option<&Key>,
        changed: impl Fn(E::Column) -> bool,
    ) -> Result<Option<Error>, X> {
        let plan = self.plan;
        for columns in &plan.unique {
            if !columns.iter().any(|column| changed(*column)) {
                continue;
            }
            let values = columns.iter().map(|column| match row.get(*column) {
                // NULL is like no other.
                ActiveValue::Set(value) | ActiveValue::Unchanged(value) => {
                    (value != value.as_null()).then(|| column.save_as(Expr::val(value)))
                }
                ActiveValue::NotSet => Some(present(plan, key?, *column)),
            });
            let Some(values) = values.collect::<Option<Vec<SimpleExpr>>>() else {
                continue;
            };
            let mut other = E::find();
            for (column, value) in columns.iter().zip(values) {
                other = other.filter(own(*column).eq(value));
            }
            if let Some(key) = key {
                other = other.filter(key.condition(plan).not());
            }
            let is_deleted = match plan.conventions.deleted_at {
                Some(deleted_at) => deleted_at.is_not_null(),
                None => Expr::val(false),
            };
            let reachable = other.clone().filter(self.reachable());
            let other = other.select_only().expr(is_deleted);
            if let Some(deleted) = self.executor.scalar::<bool, _>(other).await? {
                // Of a row that the user may not see no more is said than that it is there.
                let deleted =
                    deleted && (self.own.is_none() || self.executor.exists(reachable).await?);
                return Ok(Some(conflict_of::<E>(columns, deleted)));
            }
        }
        Ok(None)
    }

    /// Returns the conflict of a row that could not be inserted, with one that has the same
    /// values in columns that the entity declares unique, or the same key; `None` when there
    /// is none.
    pub(super) async fn insert_conflict(&self, row: &E::ActiveModel) -> Result<Option<Error>, X> {
        if let Some(conflict) = self.conflict(row, None, |_| true).await? {
            return Ok(Some(conflict));
        }
        let Some(key) = Key::of_row(self.plan, row) else {
            return Ok(None);
        };
        let there = E::find().filter(key.condition(self.plan));
        let there = self.executor.exists(there).await?;
        Ok(there.then(|| conflict_of::<E>(&self.plan.key, false)))
    }
}

/// Returns what a column of the row with this key has now.
fn present<E: RepositoryEntity>(plan: &EntityPlan<E>, key: &Key, column: E::Column) -> SimpleExpr {
    let row = E::find().select_only().column(column);
    let row = row.filter(key.condition(plan)).into_query();
    SimpleExpr::SubQuery(None, Box::new(row.into()))
}

/// Returns the conflict of these columns.
pub(super) fn conflict_of<E: RepositoryEntity>(columns: &[E::Column], deleted: bool) -> Error {
    let columns = columns.iter().map(|column| column.as_str().to_owned());
    Error::Conflict {
        table: E::default().table_name().to_owned(),
        columns: sorted(columns.collect()),
        deleted,
    }
}

impl<E: RepositoryEntity> EntityPlan<E> {
    /// Returns whether an insert reports a conflict by returning no row, so that it doesn't
    /// abort a transaction on PostgreSQL.
    pub(super) fn reports_conflicts(&self) -> bool {
        !self.unique.is_empty()
    }
}
