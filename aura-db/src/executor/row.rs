//! Reads rows of either driver by position.
//!
//! A row is read cell by cell, in the order in which its columns were selected; no
//! name is looked up. A type is read by its [`FromRow`].

use aura_orm::sqlite::ValueRef;
use chrono::{DateTime, Utc};
use sea_orm::sea_query::{ArrayType, Nullable, ValueType};
use sea_orm::{DbErr, QueryResult, TryGetable, Value};
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{Column as _, Row as _};

use crate::error::Error;

/// A row of either driver.
pub(crate) enum Row<'r> {
    /// `SeaORM`'s.
    Driver(&'r QueryResult),
    /// SQLite's, inside the process.
    SqliteExecutor(&'r aura_orm::sqlite::Row<'r>),
}

/// Reads the cells of a row, from the first to the last.
pub(crate) struct RowReader<'r> {
    row: Row<'r>,
    next: usize,
    /// The table whose cells are read, for errors.
    table: &'static str,
    /// The first cell of that table.
    first: usize,
}

/// A type that a row, or a part of one, can be read as.
pub(crate) trait FromRow: Sized + Send + 'static {
    /// Reads the value from the next cells.
    fn read(cells: &mut RowReader<'_>) -> Result<Self, DbErr>;
}

/// A type that one cell can be read as.
pub(crate) trait Scalar: ValueType + Nullable + TryGetable + Send + 'static {}

impl<'r> RowReader<'r> {
    /// Reads a row.
    ///
    /// # Errors
    ///
    /// [`Error::Inconsistent`] for a row that can't be read.
    pub(crate) fn read<T>(
        row: Row<'r>,
        read: impl Fn(&mut Self) -> Result<T, DbErr>,
    ) -> Result<T, Error> {
        let mut cells = Self {
            row,
            next: 0,
            table: "a query",
            first: 0,
        };
        read(&mut cells).map_err(|source| cells.unreadable(source))
    }

    /// Begins the columns of a table, the key first.
    pub(crate) fn of(&mut self, table: &'static str) {
        self.table = table;
        self.first = self.next;
    }

    /// Reads the next cell.
    pub(crate) fn next<T: ValueType + TryGetable>(&mut self) -> Result<T, DbErr> {
        let at = self.next;
        self.next += 1;
        match self.row {
            Row::Driver(row) => match row.try_as_pg_row().map(|row| postgres(row, at)) {
                Some(Some(read)) => read,
                _ => row.try_get_by_index(at),
            },
            Row::SqliteExecutor(row) => embedded(row, at),
        }
    }

    /// Skips this number of cells.
    pub(crate) fn skip(&mut self, cells: usize) {
        self.next += cells;
    }

    fn unreadable(&mut self, source: DbErr) -> Error {
        let at = self.next.saturating_sub(1);
        let name = |index: usize| match self.row {
            Row::Driver(row) => row.column_names().get(index).cloned(),
            Row::SqliteExecutor(row) => row.as_ref().column_name(index).ok().map(ToOwned::to_owned),
        };
        let column = name(at);
        let keyed = name(self.first).is_some_and(|name| name == "id");
        self.next = self.first;
        Error::Inconsistent {
            table: self.table.to_owned(),
            column,
            id: keyed.then(|| self.next().ok()).flatten(),
            source,
        }
    }
}

/// Reads a cell of PostgreSQL of the types that the tables have: the driver and `SeaORM`
/// would inspect it several times. `None` for other types, whose errors are theirs; but
/// a time that chrono can't hold is an error here, because the driver panics at it.
fn postgres<T: ValueType>(row: &PgRow, at: usize) -> Option<Result<T, DbErr>> {
    let cell = row.try_get_raw(at).ok()?;
    if cell.format() != PgValueFormat::Binary {
        return None;
    }
    let oid = row.try_column(at).ok()?.type_info().oid()?.0;
    let bytes = cell.as_bytes().ok();
    let text = |bytes: Option<&[u8]>| {
        let text = bytes.map(std::str::from_utf8).transpose().ok()?;
        Some(Value::String(text.map(Into::into)))
    };
    let number = |bytes: Option<&[u8]>| -> Option<Option<i64>> {
        let bytes = bytes.map(<[u8; 8]>::try_from).transpose().ok()?;
        Some(bytes.map(i64::from_be_bytes))
    };
    let value = match (oid, T::array_type()) {
        (INT8, ArrayType::BigInt) => Value::BigInt(number(bytes)?),
        (TEXT | VARCHAR | JSON, ArrayType::String) => text(bytes)?,
        // After the version of the format.
        (JSONB, ArrayType::String) => match bytes {
            Some([1, json @ ..]) => text(Some(json))?,
            Some(_) => return None,
            None => Value::String(None),
        },
        (BOOL, ArrayType::Bool) => Value::Bool(bytes.map(|bytes| bytes == [1])),
        (TIMESTAMPTZ, ArrayType::ChronoDateTimeUtc) => {
            let time = number(bytes)?.map(|micros| time(micros).ok_or_else(no_time));
            match time.transpose() {
                Ok(time) => Value::ChronoDateTimeUtc(time),
                Err(error) => return Some(Err(error)),
            }
        }
        _ => return None,
    };
    T::try_from(value).ok().map(Ok)
}

/// Converts a timestamp of PostgreSQL. `None` for `infinity` and for years that chrono
/// can't hold.
fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros.checked_add(YEAR_2000)?)
}

fn no_time() -> DbErr {
    DbErr::Type("a time beyond the years that can be read, as infinity is".to_owned())
}

/// Returns the first column of a row with a timestamp or date that chrono can't hold,
/// at which the driver panics.
pub(crate) fn beyond_time(row: &PgRow) -> Option<(&str, DbErr)> {
    let column = row.columns().iter().find(|column| {
        let oid = column.type_info().oid().map_or(0, |oid| oid.0);
        if !matches!(oid, TIMESTAMPTZ | TIMESTAMP | DATE) {
            return false;
        }
        let cell = row.try_get_raw(column.ordinal()).ok();
        let Some(bytes) = cell
            .as_ref()
            .filter(|cell| cell.format() == PgValueFormat::Binary)
            .and_then(|cell| cell.as_bytes().ok())
        else {
            return false;
        };
        let micros = match (<[u8; 8]>::try_from(bytes), <[u8; 4]>::try_from(bytes)) {
            (Ok(micros), _) => Some(i64::from_be_bytes(micros)),
            (_, Ok(days)) => i64::from(i32::from_be_bytes(days)).checked_mul(MICROS_PER_DAY),
            _ => return false,
        };
        micros.and_then(time).is_none()
    })?;
    Some((column.name(), no_time()))
}

// The object ids of PostgreSQL's own types (src/include/catalog/pg_type.dat).
const BOOL: u32 = 16;
const INT8: u32 = 20;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const JSONB: u32 = 3802;

/// PostgreSQL counts microseconds from there (src/include/datatype/timestamp.h).
const YEAR_2000: i64 = 946_684_800_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Reads a cell of SQLite.
fn embedded<T: ValueType>(row: &aura_orm::sqlite::Row<'_>, at: usize) -> Result<T, DbErr> {
    let cell = row
        .get_ref(at)
        .map_err(|error| DbErr::Type(error.to_string()))?;
    let value =
        aura_orm::sqlite::value(cell, &T::array_type()).ok_or_else(|| mismatch::<T>(cell))?;
    T::try_from(value).map_err(|_| mismatch::<T>(cell))
}

/// Describes the type of a cell, not its content, which may be a secret. (An unknown
/// word of a closed set is no secret, and helps.)
fn mismatch<T: ValueType>(cell: ValueRef<'_>) -> DbErr {
    DbErr::Type(match cell {
        ValueRef::Null => format!("NULL where a {} is needed", T::type_name()),
        cell => format!("{} that is no {}", cell.data_type(), T::type_name()),
    })
}

macro_rules! cells {
    ($($type:ty),+ $(,)?) => {
        $(
            impl Scalar for $type {}

            impl FromRow for $type {
                fn read(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
                    cells.next()
                }
            }
        )+
    };
}

cells!(
    bool,
    i64,
    String,
    chrono::DateTime<chrono::Utc>,
    entity::AgentId,
    entity::ExecutionId,
    entity::ExecutionStatus,
    entity::LogId,
    entity::LogLevel,
    entity::PasswordHash,
    entity::PluginId,
    entity::Role,
    entity::UserId,
    entity::WorkflowId,
);

impl<T: Scalar> FromRow for Option<T>
where
    Self: ValueType + TryGetable,
{
    fn read(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        cells.next()
    }
}

/// Reads a row or reports what is wrong with it, so that one unreadable row doesn't hide
/// the others.
impl<T: FromRow> FromRow for Result<T, Error> {
    fn read(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(T::read(cells).map_err(|source| cells.unreadable(source)))
    }
}

/// Reads nothing, for statements without rows.
impl FromRow for () {
    fn read(_: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(())
    }
}

macro_rules! tuples {
    ($(($($part:ident),+)),+) => {
        $(impl<$($part: FromRow),+> FromRow for ($($part,)+) {
            fn read(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
                Ok(($($part::read(cells)?,)+))
            }
        })+
    };
}

tuples!((A, B), (A, B, C), (A, B, C, D));

/// How structs are read: their fields in this order, as the columns are
/// selected. Says their names too, so that a test can compare the two.
macro_rules! shapes {
    ($($table:literal: $type:ty { $($field:ident),+ $(,)? })+) => {
        $(impl $crate::executor::row::FromRow for $type {
            fn read(cells: &mut $crate::executor::row::RowReader<'_>) -> Result<Self, sea_orm::DbErr> {
                cells.of($table);
                Ok(Self { $($field: cells.next()?,)+ })
            }
        })+

        /// Each type with its columns.
        #[cfg(test)]
        pub(crate) fn columns() -> Vec<(&'static str, Vec<&'static str>)> {
            vec![$(($table, vec![$(stringify!($field)),+])),+]
        }
    };
}
pub(crate) use shapes;

/// A part of a table's columns, in a type of its own: how they are selected,
/// and read.
macro_rules! summary {
    ($type:ident of $table:ident { $($field:ident: $column:ident),+ $(,)? }) => {
        impl $type {
            pub(super) fn columns(
                select: sea_orm::Select<$table::Entity>,
            ) -> sea_orm::Select<$table::Entity> {
                sea_orm::QuerySelect::columns(
                    sea_orm::QuerySelect::select_only(select),
                    [$($table::Column::$column),+],
                )
            }
        }

        impl $crate::executor::row::FromRow for $type {
            fn read(cells: &mut $crate::executor::row::RowReader<'_>) -> Result<Self, sea_orm::DbErr> {
                cells.of(stringify!($table));
                Ok(Self { $($field: cells.next()?,)+ })
            }
        }

        impl $crate::page::SortableRow<$table::Column> for $type {
            fn cell(&self, column: $table::Column) -> sea_orm::Value {
                match column {
                    $($table::Column::$column => self.$field.clone().into(),)+
                    _ => sea_orm::Value::Bool(None),
                }
            }
        }
    };
}
pub(crate) use summary;
