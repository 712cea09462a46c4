//! What a repository fills in and checks before a row is written.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{ArrayType, Expr, Query, UpdateStatement};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DbErr, ExprTrait, IdenStatic, Iterable, ModelTrait,
    Value,
};

use super::{Repository, RepositoryEntity, RepositoryError};
use crate::error::{Context, Error, FieldError};

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Fills in the columns of the conventions that aren't set.
    pub(super) fn fill(&self, row: &mut E::ActiveModel) -> Result<(), X> {
        let conventions = &self.plan.conventions;
        let actor = self.executor.actor();
        let now = self.executor.now();
        let mut values: Vec<(E::Column, Value)> = Vec::new();
        let times = [conventions.created_at, conventions.updated_at];
        values.extend(
            times
                .into_iter()
                .flatten()
                .map(|at| (at, time::<E>(at, now))),
        );
        let authors = [conventions.created_by, conventions.updated_by];
        values.extend(authors.into_iter().flatten().map(|by| (by, actor.into())));
        if let (Some(owner), Some(actor)) = (conventions.owner_id, actor) {
            values.push((owner, actor.into()));
        }
        if let Some(version) = conventions.version {
            values.push((version, 1_i64.into()));
        }
        for (column, value) in values {
            if row.is_not_set(column) {
                set::<E>(row, column, value)?;
            }
        }
        Ok(())
    }

    /// Checks the values that are set.
    pub(super) fn check(&self, row: &E::ActiveModel) -> Result<(), X> {
        let mut wrong = Vec::new();
        for (column, length) in &self.plan.lengths {
            if let ActiveValue::Set(Value::String(Some(text))) = row.get(*column) {
                let characters = text.chars().count();
                if characters > *length {
                    let problem =
                        format!("must have at most {length} characters, and has {characters}");
                    wrong.push(FieldError::new(column.as_str(), problem));
                }
            }
        }
        wrong.extend(E::validate(row));
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Validation(wrong).into())
        }
    }

    /// Returns the columns that are set, but for the key and the lock.
    pub(super) fn changes(&self, row: &E::ActiveModel) -> Vec<(E::Column, Value)> {
        let plan = self.plan;
        let fixed = plan.key.iter().copied().chain(plan.conventions.version);
        let changes = E::Column::iter().filter_map(|column| match row.get(column) {
            ActiveValue::Set(value) => Some((column, value)),
            _ => None,
        });
        changes
            .filter(|(column, _)| fixed.clone().all(|fixed| fixed.as_str() != column.as_str()))
            .collect()
    }

    /// Returns the version that a row was read at.
    pub(super) fn read_version(&self, row: &E::ActiveModel) -> Result<Option<i64>, X> {
        let Some(version) = self.plan.conventions.version else {
            return Ok(None);
        };
        match row.get(version) {
            ActiveValue::Set(Value::BigInt(Some(read)))
            | ActiveValue::Unchanged(Value::BigInt(Some(read))) => Ok(Some(read)),
            _ => {
                let problem = "must be the version that was read";
                Err(Error::field(version.as_str(), problem).into())
            }
        }
    }

    /// Returns an update that sets these columns, and when and by whom the row is written.
    pub(super) fn stamped(&self, changes: Vec<(E::Column, Value)>) -> UpdateStatement {
        let conventions = &self.plan.conventions;
        let mut update = Query::update().table(E::default().table_ref()).take();
        let is_set = |column: E::Column| {
            changes
                .iter()
                .any(|(set, _)| set.as_str() == column.as_str())
        };
        if let Some(at) = conventions.updated_at.filter(|at| !is_set(*at)) {
            update.value(at, time::<E>(at, self.executor.now()));
        }
        if let Some(by) = conventions.updated_by.filter(|by| !is_set(*by)) {
            update.value(by, Value::from(self.executor.actor()));
        }
        if let Some(version) = conventions.version {
            update.value(version, own(version).add(1));
        }
        for (column, value) in changes {
            update.value(column, column.save_as(Expr::val(value)));
        }
        update
    }
}

/// Returns a time as a value of the column's kind.
pub(super) fn time<E: RepositoryEntity>(column: E::Column, time: DateTime<Utc>) -> Value {
    match <E::Model as ModelTrait>::get_value_type(column) {
        ArrayType::ChronoDateTimeWithTimeZone => Value::from(time.fixed_offset()),
        _ => Value::from(time),
    }
}

pub(super) fn set<E: RepositoryEntity>(
    row: &mut E::ActiveModel,
    column: E::Column,
    value: Value,
) -> Result<(), Error> {
    row.try_set(column, value)
        .map_err(|error| DbErr::Type(format!("{}: {error}", column.as_str())))
        .context("filling in a row")
}

/// Returns the present value of a column in an update or an upsert, where other tables
/// have columns of this name.
pub(super) fn own<C: ColumnTrait>(column: C) -> Expr {
    Expr::col((column.entity_name(), column))
}
