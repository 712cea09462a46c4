//! Primary keys of any type.

use sea_orm::sea_query::{Expr, IntoValueTuple, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, EntityTrait, ExprTrait, ModelTrait,
    PrimaryKeyTrait, Value,
};

use super::RepositoryEntity;
use super::entity::EntityPlan;
use crate::error::Error;
use crate::value::display_key;

/// The type of an entity's primary key; a tuple for one of several columns.
pub type KeyOf<E> = <<E as EntityTrait>::PrimaryKey as PrimaryKeyTrait>::ValueType;

/// The values of a primary key, in the order of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) Vec<Value>);

impl Key {
    pub(super) fn of<E: RepositoryEntity>(key: impl Into<KeyOf<E>>) -> Self {
        Self(key.into().into_value_tuple().into_iter().collect())
    }

    pub(super) fn of_model<E: RepositoryEntity>(plan: &EntityPlan<E>, model: &E::Model) -> Self {
        Self(plan.key.iter().map(|column| model.get(*column)).collect())
    }

    /// Returns the key that a row is written by; `None` when a column of it isn't set.
    pub(super) fn of_row<E: RepositoryEntity>(
        plan: &EntityPlan<E>,
        row: &E::ActiveModel,
    ) -> Option<Self> {
        let value = |column: &E::Column| match row.get(*column) {
            ActiveValue::Set(value) | ActiveValue::Unchanged(value) => Some(value),
            ActiveValue::NotSet => None,
        };
        plan.key.iter().map(value).collect::<Option<_>>().map(Self)
    }

    /// Returns the condition of the row with this key.
    pub(super) fn condition<E: RepositoryEntity>(&self, plan: &EntityPlan<E>) -> Condition {
        let mut condition = Condition::all();
        for (column, value) in plan.key.iter().zip(&self.0) {
            condition = condition.add(column.eq(value.clone()));
        }
        condition
    }

    /// Returns the condition of the rows with one of these keys.
    pub(super) fn any<E: RepositoryEntity>(plan: &EntityPlan<E>, keys: &[Self]) -> SimpleExpr {
        let bind = |column: &E::Column, value: &Value| column.save_as(Expr::val(value.clone()));
        if let [column] = plan.key[..] {
            let values = keys.iter().flat_map(|key| &key.0);
            return columns([column]).is_in(values.map(|value| bind(&column, value)));
        }
        let keys = keys.iter().map(|key| {
            let cells = plan.key.iter().zip(&key.0);
            Expr::tuple(cells.map(|(column, value)| bind(column, value)))
        });
        columns(plan.key.iter().copied()).is_in(keys)
    }

    /// Returns the key as errors name it.
    pub(super) fn display(&self) -> String {
        display_key(&self.0)
    }
}

/// Returns columns as what is compared with keys.
pub(super) fn columns<C: ColumnTrait>(columns: impl IntoIterator<Item = C>) -> SimpleExpr {
    let mut columns: Vec<SimpleExpr> = columns
        .into_iter()
        .map(|column| Expr::col((column.entity_name(), column)))
        .collect();
    match columns.len() {
        1 => columns.remove(0),
        _ => Expr::tuple(columns),
    }
}

/// Returns that there is no row with a key.
pub(super) fn not_found<E: RepositoryEntity>(key: &Key) -> Error {
    Error::NotFound {
        what: E::name(),
        key: key.display(),
    }
}
