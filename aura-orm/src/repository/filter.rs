//! Which rows an operation is about.

use sea_orm::sea_query::Expr;
use sea_orm::{Condition, EntityTrait, QueryFilter, Select};

/// Which rows of an entity an operation is about: an expression such as
/// `credentials::COLUMN.name.eq("x")`, a condition, a whole [`Select`] of the entity with
/// joins and an order of its own, or `()` for all.
pub trait Filter<E: EntityTrait>: Send {
    /// Returns the rows.
    fn into_rows(self) -> Rows<E>;
}

/// The rows of a filter.
#[derive(Debug, Clone)]
pub enum Rows<E: EntityTrait> {
    /// Those that meet a condition.
    Where(Condition),
    /// Those of a select.
    Select(Box<Select<E>>),
}

impl<E: EntityTrait> Rows<E> {
    pub(super) fn into_select(self) -> Select<E> {
        match self {
            Self::Where(condition) => E::find().filter(condition),
            Self::Select(select) => *select,
        }
    }
}

impl<E: EntityTrait> Filter<E> for () {
    fn into_rows(self) -> Rows<E> {
        Rows::Where(Condition::all())
    }
}

impl<E: EntityTrait> Filter<E> for Expr {
    fn into_rows(self) -> Rows<E> {
        Rows::Where(Condition::all().add(self))
    }
}

impl<E: EntityTrait> Filter<E> for Condition {
    fn into_rows(self) -> Rows<E> {
        Rows::Where(self)
    }
}

impl<E: EntityTrait> Filter<E> for Select<E> {
    fn into_rows(self) -> Rows<E> {
        Rows::Select(Box::new(self))
    }
}

/// Whether soft-deleted rows are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deleted {
    /// Only rows that are not deleted.
    #[default]
    Hidden,
    /// All rows.
    Included,
    /// Only deleted rows.
    Only,
}
