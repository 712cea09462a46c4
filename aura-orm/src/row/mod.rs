//! Reads the rows of either database.
//!
//! A row is read cell by cell. The kind of each cell comes from the Rust type that it
//! is read as, so a column of another type is an error and never converted silently.
//!
//! * [`ModelOf`]: the models of an entity; [`JoinedModels`], [`TwoRequiredModels`] and
//!   [`RelatedModels`]: of several.
//! * Tuples and single values: by position.
//! * [`Deserialized`]: any other type, by column name.

pub(crate) mod array;
mod deserialize;
mod model;
pub(crate) mod postgres;
pub(crate) mod unreadable;

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sea_orm::sea_query::{ArrayType, ColumnType, Nullable, ValueType};
use sea_orm::{ColumnTrait, DbErr, IdenStatic, ModelTrait, Value};
use tokio_postgres::Row as PgRow;
use tokio_postgres::types::{FromSql, Type};

use crate::sqlite;
pub use deserialize::Deserialized;
pub use model::{EntityModel, JoinedModels, ModelOf, RelatedModels, TwoRequiredModels};

/// Reads a row as a type.
pub trait RowDecoder: 'static {
    /// The type of a row.
    type Row: Send + 'static;

    /// Whether [`consolidate`](Self::consolidate) merges rows, so that also a caller of the
    /// first needs all of them.
    const CONSOLIDATES: bool = false;

    /// Reads the next cells of a row.
    ///
    /// # Errors
    ///
    /// [`DbErr::Type`] for a cell that holds something else; [`DbErr::Custom`] when no row of
    /// the statement can be read, as without a column.
    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr>;

    /// Merges the rows of a result that are of the same model.
    #[must_use]
    fn consolidate(rows: Vec<Self::Row>) -> Vec<Self::Row> {
        rows
    }
}

/// Reads the cells of a row, from the first to the last.
pub struct RowReader<'r> {
    cells: Cells<'r>,
    columns: &'r Columns,
    next: usize,
    /// The table whose cells are read, for errors.
    table: &'static str,
    /// The first cell of that table.
    first: usize,
}

/// A row of either driver.
#[derive(Clone, Copy)]
pub(crate) enum Cells<'r> {
    Sqlite(&'r sqlite::Row<'r>),
    Postgres(&'r PgRow),
}

impl Cells<'_> {
    /// Returns the bytes of the row's values; on SQLite of those that were read.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Sqlite(row) => row.bytes(),
            Self::Postgres(row) => row.raw_size_bytes(),
        }
    }
}

/// What is known of the columns of a result after its first row.
#[derive(Debug, Default)]
pub struct Columns {
    /// Where the columns of the entities stand: of one alone, and of each of a join.
    positions: [OnceCell<model::Positions>; model::SIDES],
    /// Which columns hold JSON, on SQLite.
    json: OnceCell<Vec<bool>>,
}

/// A row that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{}", unreadable(table, column.as_deref(), *id, *written))]
pub struct RowError {
    /// The table, or "a query".
    pub table: String,
    /// The column, when it is known.
    pub column: Option<String>,
    /// The row, when it has an id.
    pub id: Option<i64>,
    /// Whether the statement wrote the row, and that was committed all the same. Never in a
    /// transaction, which fails.
    pub written: bool,
    /// What can't be read.
    pub source: Box<DbErr>,
}

impl RowError {
    /// Notes that a statement outside of a transaction is done, also when it wrote.
    pub(crate) fn of_done(self, writes: bool) -> Self {
        Self {
            written: writes,
            ..self
        }
    }
}

fn unreadable(table: &str, column: Option<&str>, id: Option<i64>, written: bool) -> String {
    let column = column.map(|name| format!(".{name}")).unwrap_or_default();
    let row = id
        .map(|id| format!(" of the row with id {id}"))
        .unwrap_or_default();
    let done = if written {
        "; the write is done, don't repeat it"
    } else {
        ""
    };
    format!("{table}{column}{row} holds what this build can't read{done}")
}

impl<'r> RowReader<'r> {
    /// Begins to read a row. `columns` is the same for all rows of a result.
    pub(crate) fn new(cells: Cells<'r>, columns: &'r Columns) -> Self {
        Self {
            cells,
            columns,
            next: 0,
            table: "a query",
            first: 0,
        }
    }

    /// Begins the columns of a table, the key first.
    pub fn begin_table(&mut self, table: &'static str) {
        self.table = table;
        self.first = self.next;
    }

    /// Reads the next cell.
    ///
    /// # Errors
    ///
    /// [`DbErr::Type`] for a cell that holds something else.
    pub fn next_value<T: ValueType>(&mut self) -> Result<T, DbErr> {
        let at = self.next;
        self.next += 1;
        let declared = || (T::column_type(), T::type_name());
        self.read_cell(at, &T::array_type(), declared, |value| {
            T::try_from(value).ok()
        })
    }

    /// Reads a cell as what `take` makes of its value of this kind, or of an array of this
    /// kind. `declared` is the type of what it is read into, and its name.
    fn read_cell<T>(
        &self,
        at: usize,
        kind: &ArrayType,
        declared: impl FnOnce() -> (ColumnType, String),
        mut take: impl FnMut(Value) -> Option<T>,
    ) -> Result<T, DbErr> {
        let value = self.value(at, kind)?;
        let is_kind = value.is_some();
        if let Some(taken) = value.and_then(&mut take) {
            return Ok(taken);
        }
        // The kind of an array is that of its elements, and few columns are arrays, so
        // others don't wait until this is known.
        let (declared, name) = declared();
        if let Some(array) = self.array(at, kind, &declared)? {
            // `Vec<T>` of sea-query panics at an element that isn't of `T`'s, as a word that
            // an enum hasn't.
            let taken = catch_unwind(AssertUnwindSafe(|| take(array)));
            return taken.ok().flatten().ok_or_else(|| self.mismatch(at, &name));
        }
        Err(if is_kind {
            self.mismatch(at, &name)
        } else {
            self.mismatch(at, &format!("{kind:?}"))
        })
    }

    /// Reads the next cell as the value of an entity's column.
    pub(crate) fn next_column<E: EntityModel>(
        &mut self,
        column: E::Column,
    ) -> Result<Value, DbErr> {
        let at = self.next;
        self.next += 1;
        let kind = <E::Model as ModelTrait>::get_value_type(column);
        let declared = || {
            let declared = column.def().get_column_type().clone();
            (declared, format!("{}'s type", column.as_str()))
        };
        self.read_cell(at, &kind, declared, Some)
    }

    /// Skips this number of cells.
    pub fn skip(&mut self, cells: usize) {
        self.next += cells;
    }

    /// Converts an error of the last cell.
    #[must_use]
    pub fn error(&self, source: DbErr) -> RowError {
        let at = self.next.saturating_sub(1);
        let keyed = self.name(self.first) == Some("id");
        let id = keyed.then(|| self.value(self.first, &ArrayType::BigInt));
        RowError {
            table: self.table.to_owned(),
            column: self.name(at).map(ToOwned::to_owned),
            id: match id {
                Some(Ok(Some(Value::BigInt(id)))) => id,
                _ => None,
            },
            written: false,
            source: source.into(),
        }
    }

    /// Returns the number of cells.
    fn len(&self) -> usize {
        match self.cells {
            Cells::Sqlite(row) => row.as_ref().column_count(),
            Cells::Postgres(row) => row.len(),
        }
    }

    /// Returns the name of a column.
    fn name(&self, at: usize) -> Option<&'r str> {
        match self.cells {
            Cells::Sqlite(row) => {
                let statement: &'r _ = row.as_ref();
                statement.column_name(at).ok()
            }
            Cells::Postgres(row) => row.columns().get(at).map(tokio_postgres::Column::name),
        }
    }

    /// Returns what a cell holds as a value of this kind. `None` when it holds something
    /// else.
    fn value(&self, at: usize, kind: &ArrayType) -> Result<Option<Value>, DbErr> {
        match self.cells {
            Cells::Sqlite(row) => {
                let cell = row.get_ref(at);
                let cell = cell.map_err(|error| DbErr::Type(error.to_string()))?;
                sqlite::value(cell, kind)
            }
            Cells::Postgres(row) => {
                let (oid, bytes) = raw_cell(row, at)?;
                postgres::value(oid, bytes, kind)
            }
        }
    }

    fn is_null(&self, at: usize) -> bool {
        match self.cells {
            Cells::Sqlite(row) => matches!(row.get_ref(at), Ok(sqlite::ValueRef::Null)),
            Cells::Postgres(row) => matches!(raw_cell(row, at), Ok((_, None))),
        }
    }

    /// Describes the type of a cell, not its content, which may be a secret.
    fn mismatch(&self, at: usize, wanted: &str) -> DbErr {
        let found = match self.cells {
            Cells::Sqlite(row) => match row.get_ref(at) {
                Ok(sqlite::ValueRef::Null) => None,
                Ok(cell) => Some(cell.data_type().to_string()),
                Err(error) => Some(error.to_string()),
            },
            Cells::Postgres(_) if self.is_null(at) => None,
            Cells::Postgres(row) => {
                let column = row.columns().get(at);
                column.map(|column| column.type_().name().to_owned())
            }
        };
        DbErr::Type(match found {
            None => format!("NULL where a {wanted} is needed"),
            Some(found) => format!("{found} that is no {wanted}"),
        })
    }
}

/// The bytes of a cell, in PostgreSQL's binary format.
struct Raw<'r>(Option<&'r [u8]>);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(
        _: &Type,
        bytes: &'r [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(bytes)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Returns the type and the bytes of a cell, which has none when it is NULL.
fn raw_cell(row: &PgRow, at: usize) -> Result<(u32, Option<&[u8]>), DbErr> {
    let raw: Result<Raw<'_>, _> = row.try_get(at);
    let raw = raw.map_err(|error| DbErr::Type(error.to_string()))?;
    let oid = row
        .columns()
        .get(at)
        .map_or(0, |column| column.type_().oid());
    Ok((oid, raw.0))
}

/// Reads nothing, for statements without rows.
impl RowDecoder for () {
    type Row = ();

    fn decode(_: &mut RowReader<'_>) -> Result<(), DbErr> {
        Ok(())
    }
}

/// A type of the standard library, or of a library that `SeaORM` knows.
trait Standard: ValueType {}

macro_rules! standard {
    ($($(#[$when:meta])* $type:ty),+ $(,)?) => {
        $(
            $(#[$when])*
            impl Standard for $type {}

            $(#[$when])*
            impl RowDecoder for $type {
                type Row = Self;

                fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
                    cells.next_value()
                }
            }
        )+
    };
}

standard!(
    bool,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
    f32,
    f64,
    char,
    String,
    Vec<u8>,
    serde_json::Value,
    chrono::NaiveDate,
    chrono::NaiveTime,
    chrono::NaiveDateTime,
    chrono::DateTime<chrono::Utc>,
    chrono::DateTime<chrono::Local>,
    chrono::DateTime<chrono::FixedOffset>,
    #[cfg(feature = "with-time")]
    sea_orm::prelude::TimeDate,
    #[cfg(feature = "with-time")]
    sea_orm::prelude::TimeTime,
    #[cfg(feature = "with-time")]
    sea_orm::prelude::TimeDateTime,
    #[cfg(feature = "with-time")]
    sea_orm::prelude::TimeDateTimeWithTimeZone,
    #[cfg(feature = "with-uuid")]
    sea_orm::prelude::Uuid,
    #[cfg(feature = "with-rust_decimal")]
    sea_orm::prelude::Decimal,
);

impl<T: Standard + Nullable + Send + 'static> RowDecoder for Option<T> {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        cells.next_value()
    }
}

macro_rules! tuples {
    ($(($($part:ident),+)),+ $(,)?) => {
        $(impl<$($part: ValueType + Send + 'static),+> RowDecoder for ($($part,)+) {
            type Row = Self;

            fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
                Ok(($(cells.next_value::<$part>()?,)+))
            }
        })+
    };
}

tuples!(
    (A),
    (A, B),
    (A, B, C),
    (A, B, C, D),
    (A, B, C, D, E),
    (A, B, C, D, E, F),
    (A, B, C, D, E, F, G),
    (A, B, C, D, E, F, G, H),
    (A, B, C, D, E, F, G, H, I),
    (A, B, C, D, E, F, G, H, I, J),
    (A, B, C, D, E, F, G, H, I, J, K),
    (A, B, C, D, E, F, G, H, I, J, K, L),
);
