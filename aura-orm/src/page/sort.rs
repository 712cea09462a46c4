//! The order of a list.

use std::fmt;

use sea_orm::sea_query::{ArrayType, Expr, NullOrdering, Order, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, ExprTrait, IdenStatic, Iterable, ModelTrait,
    PrimaryKeyToColumn, QueryOrder, Select, Value,
};

use super::SortableRow;
use super::cursor::{Cursor, Misfit, Place, from_json, to_json};
use crate::error::Error;
use crate::row::unreadable::{FailedRow, Stored};

/// The most columns that a list is sorted by, besides its key.
pub const MAX_SORT_COLUMNS: usize = 3;

/// The order of a list: columns, and the primary key for rows that are the same in them.
/// NULL comes last in either direction, on both databases. Text is in the order of the
/// column's collation: on SQLite that of code points, on PostgreSQL where the column has
/// `COLLATE "C"`.
///
/// A list is as fast at its end as at its start when an index begins with its filter's
/// columns and has these next.
pub struct Sort<E: EntityTrait> {
    columns: Vec<(E::Column, Direction)>,
    /// The key's; `None` when the columns are unique.
    key: Option<Direction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

impl Direction {
    fn reverse(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

impl<E: EntityTrait> Clone for Sort<E> {
    fn clone(&self) -> Self {
        Self {
            columns: self.columns.clone(),
            key: self.key,
        }
    }
}

impl<E: EntityTrait> fmt::Debug for Sort<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sort").field(&self.name()).finish()
    }
}

/// By the primary key, ascending.
impl<E: EntityTrait> Default for Sort<E> {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            key: Some(Direction::Ascending),
        }
    }
}

impl<E: EntityTrait> Sort<E> {
    /// Sorts by a column, ascending.
    #[must_use]
    pub fn asc(column: E::Column) -> Self {
        Self::default().then_asc(column)
    }

    /// Sorts by a column, descending.
    #[must_use]
    pub fn desc(column: E::Column) -> Self {
        Self::default().then_desc(column)
    }

    /// Sorts rows that are the same so far by another column, ascending.
    #[must_use]
    pub fn then_asc(self, column: E::Column) -> Self {
        self.then(column, Direction::Ascending)
    }

    /// Sorts rows that are the same so far by another column, descending.
    #[must_use]
    pub fn then_desc(self, column: E::Column) -> Self {
        self.then(column, Direction::Descending)
    }

    fn then(mut self, column: E::Column, direction: Direction) -> Self {
        self.columns.push((column, direction));
        // So that one index answers both.
        self.key = Some(direction);
        self
    }

    /// Leaves out the primary key: no two rows of the list are the same in these columns.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.key = None;
        self
    }

    /// Returns the opposite order, in which NULL comes last too.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        for (_, direction) in &mut self.columns {
            *direction = direction.reverse();
        }
        self.key = self.key.map(Direction::reverse);
        self
    }

    /// Returns whether it is the order of the key alone.
    pub(super) fn is_by_key(&self) -> bool {
        self.columns.iter().all(|(column, _)| is_key::<E>(*column))
    }

    /// Returns whether the key is descending.
    pub(super) fn is_descending(&self) -> bool {
        self.key == Some(Direction::Descending)
    }

    /// Returns the table and columns, as cursors name them.
    pub(super) fn name(&self) -> String {
        let mut name = E::default().table_name().to_owned();
        for key in self.keys() {
            name.push(if key.descending { '-' } else { '+' });
            name += key.column.as_str();
        }
        name
    }

    fn keys(&self) -> Vec<SortKey<E::Column>> {
        let mut keys: Vec<SortKey<E::Column>> = Vec::new();
        let by_key = self.key.into_iter().flat_map(|direction| {
            E::PrimaryKey::iter().map(move |key| (key.into_column(), direction))
        });
        for (column, direction) in self.columns.iter().copied().chain(by_key) {
            if keys
                .iter()
                .any(|key| key.column.as_str() == column.as_str())
            {
                continue;
            }
            keys.push(SortKey {
                column,
                descending: direction == Direction::Descending,
                nullable: column.def().is_null(),
                kind: <E::Model as ModelTrait>::get_value_type(column),
            });
        }
        keys
    }

    /// Returns the columns that the rows of a list are sorted by, for one walk through it.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for too many columns, and for one that has no order.
    pub(super) fn plan(&self, backwards: bool) -> Result<SortPlan<E::Column>, Error> {
        if self.columns.len() > MAX_SORT_COLUMNS {
            let problem = format!("must have at most {MAX_SORT_COLUMNS} columns");
            return Err(Error::field("sort", problem));
        }
        let keys = self.keys();
        for key in &keys {
            let column = key.column.def();
            let array = matches!(column.get_column_type(), sea_orm::ColumnType::Array(_));
            if array || is_document::<E>(key.column) {
                let problem = format!("{} has no order", key.column.as_str());
                return Err(Error::field("sort", problem));
            }
        }
        let name = self.name();
        Ok(SortPlan {
            keys,
            name,
            backwards,
        })
    }
}

/// Returns whether a column holds JSON, which the databases don't compare alike.
pub(crate) fn is_document<E: EntityTrait>(column: E::Column) -> bool {
    use sea_orm::ColumnType::{Json, JsonBinary};
    matches!(column.def().get_column_type(), Json | JsonBinary)
        || <E::Model as ModelTrait>::get_value_type(column) == ArrayType::Json
}

fn is_key<E: EntityTrait>(column: E::Column) -> bool {
    E::PrimaryKey::iter().any(|key| key.into_column().as_str() == column.as_str())
}

/// A column that a list is sorted by.
struct SortKey<C> {
    column: C,
    descending: bool,
    nullable: bool,
    kind: ArrayType,
}

/// What a column is compared with.
struct Limit {
    bound: SimpleExpr,
    is_null: bool,
}

/// A walk through a sorted list.
pub(super) struct SortPlan<C> {
    keys: Vec<SortKey<C>>,
    name: String,
    /// From a place towards the start.
    backwards: bool,
}

impl<C: ColumnTrait> SortPlan<C> {
    /// Sorts a select.
    pub(super) fn order<E: EntityTrait>(&self, mut select: Select<E>) -> Select<E> {
        for key in &self.keys {
            let order = if key.descending == self.backwards {
                Order::Asc
            } else {
                Order::Desc
            };
            select = match (key.nullable, self.backwards) {
                (false, _) => select.order_by(key.column, order),
                (true, false) => select.order_by_with_nulls(key.column, order, NullOrdering::Last),
                (true, true) => select.order_by_with_nulls(key.column, order, NullOrdering::First),
            };
        }
        select
    }

    /// Returns the columns whose stored text the places need: SQLite compares the text of
    /// a time, of which several forms mean the same.
    pub(super) fn texts(&self, backend: DbBackend) -> Vec<C> {
        let texts = self.keys.iter().filter(|key| key.is_text(backend));
        texts.map(|key| key.column).collect()
    }

    /// Returns the cursor of a row; `texts` are the stored texts of [`SortPlan::texts`].
    ///
    /// # Errors
    ///
    /// [`Error::Other`] for a row whose values can't stand in one.
    pub(super) fn cursor<T: SortableRow<C>>(
        &self,
        row: &T,
        texts: &[Option<String>],
        backend: DbBackend,
    ) -> Result<Cursor, Error> {
        let mut texts = texts.iter();
        let cell = |key: &SortKey<C>| {
            if key.is_text(backend) {
                return Some(texts.next()?.clone().into());
            }
            to_json(&row.cell(key.column))
        };
        self.encode(self.keys.iter().map(cell).collect())
    }

    /// Returns the cursor of a row that can't be read, by its cells.
    ///
    /// # Errors
    ///
    /// As [`SortPlan::cursor`].
    pub(super) fn cursor_at(&self, row: &FailedRow, backend: DbBackend) -> Result<Cursor, Error> {
        let cell = |key: &SortKey<C>| {
            let cell = row.cell(key.column.as_str())?;
            let stored = cell.stored();
            match (cell.value(&key.kind), stored) {
                // As it is stored.
                (Some(_), Some(Stored::Text(text))) if key.is_text(backend) => {
                    Some(String::from_utf8(text).ok()?.into())
                }
                (Some(value), _) if key.nullable || value != value.as_null() => to_json(&value),
                (_, stored) => Misfit::to_json(stored?),
            }
        };
        self.encode(self.keys.iter().map(cell).collect())
    }

    fn encode(&self, cells: Option<Vec<serde_json::Value>>) -> Result<Cursor, Error> {
        let cursor = cells.and_then(|cells| Cursor::encode(&Place(self.name.clone(), cells)));
        cursor.ok_or_else(|| Error::Other {
            context: "marking a place in a list",
            source: format!("a row has no place in the order {}", self.name).into(),
        })
    }

    /// Returns the condition of the rows behind a place; `None` for a cursor of another
    /// list.
    pub(super) fn beyond(&self, cursor: &Cursor, backend: DbBackend) -> Option<Condition> {
        let Place(order, cells) = cursor.decode()?;
        if order != self.name || cells.len() != self.keys.len() {
            return None;
        }
        let values = self.keys.iter().zip(&cells);
        let values = values.map(|(key, cell)| key.limit(cell, backend));
        let values: Vec<Limit> = values.collect::<Option<_>>()?;
        let first = self.keys.first()?;
        let alike = |key: &SortKey<C>| !key.nullable && key.descending == first.descending;
        if self.keys.iter().all(alike) {
            return Some(Condition::all().add(self.beyond_row(first, &values)));
        }
        let mut places = Condition::any();
        for (index, (key, value)) in self.keys.iter().zip(&values).enumerate() {
            let Some(beyond) = self.beyond_cell(key, value) else {
                continue;
            };
            let mut place = Condition::all();
            for (key, value) in self.keys.iter().zip(&values).take(index) {
                place = place.add(key.equal(value));
            }
            places = places.add(place.add(beyond));
        }
        // For the index: the alternatives alone are none of its ranges.
        let start = (!first.nullable).then(|| {
            let (column, value) = (first.expr(), values[0].bound.clone());
            if first.descending == self.backwards {
                column.gte(value)
            } else {
                column.lte(value)
            }
        });
        Some(Condition::all().add_option(start).add(places))
    }

    /// Compares whole rows, of columns that are all sorted alike.
    fn beyond_row(&self, first: &SortKey<C>, values: &[Limit]) -> SimpleExpr {
        let bound = values.iter().map(|value| value.bound.clone());
        let (left, right) = if let ([key], [value]) = (&self.keys[..], values) {
            (key.expr(), value.bound.clone())
        } else {
            (
                Expr::tuple(self.keys.iter().map(SortKey::expr)),
                Expr::tuple(bound),
            )
        };
        if first.descending == self.backwards {
            left.gt(right)
        } else {
            left.lt(right)
        }
    }

    /// Returns the condition of what is behind a value in one column; `None` when nothing
    /// is.
    fn beyond_cell(&self, key: &SortKey<C>, value: &Limit) -> Option<Condition> {
        let column = || key.expr();
        if value.is_null {
            // Forwards NULL is last.
            return self
                .backwards
                .then(|| Condition::all().add(column().is_not_null()));
        }
        let limit = value.bound.clone();
        let beyond = if key.descending == self.backwards {
            column().gt(limit)
        } else {
            column().lt(limit)
        };
        let nulls = (key.nullable && !self.backwards).then(|| column().is_null());
        Some(Condition::any().add(beyond).add_option(nulls))
    }
}

impl<C: ColumnTrait> SortKey<C> {
    fn expr(&self) -> SimpleExpr {
        Expr::col((self.column.entity_name(), self.column))
    }

    fn equal(&self, value: &Limit) -> SimpleExpr {
        if value.is_null {
            self.expr().is_null()
        } else {
            self.expr().eq(value.bound.clone())
        }
    }

    /// Returns what a cursor holds as the column compares with it: an enum of PostgreSQL's
    /// needs a cast.
    fn limit(&self, cell: &serde_json::Value, backend: DbBackend) -> Option<Limit> {
        let bound = |value: Value| Limit {
            is_null: value == value.as_null(),
            bound: self.column.save_as(Expr::val(value)),
        };
        match (from_json(cell, &self.kind), cell) {
            // As it is stored.
            (Some(_), serde_json::Value::String(text)) if self.is_text(backend) => {
                Some(bound(Value::from(text.as_str())))
            }
            (Some(value), _) => Some(bound(value)),
            (None, cell) => Some(Limit {
                bound: Misfit::bind(cell, &self.kind, backend)?,
                is_null: false,
            }),
        }
    }

    /// Returns whether it is a time that is stored as text.
    fn is_text(&self, backend: DbBackend) -> bool {
        let is_time = match self.kind {
            ArrayType::ChronoDate
            | ArrayType::ChronoTime
            | ArrayType::ChronoDateTime
            | ArrayType::ChronoDateTimeUtc
            | ArrayType::ChronoDateTimeLocal
            | ArrayType::ChronoDateTimeWithTimeZone => true,
            #[cfg(feature = "with-time")]
            ArrayType::TimeDate
            | ArrayType::TimeTime
            | ArrayType::TimeDateTime
            | ArrayType::TimeDateTimeWithTimeZone => true,
            _ => false,
        };
        backend == DbBackend::Sqlite && is_time
    }
}
