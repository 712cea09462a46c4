//! Values on the way to SQLite.

use chrono::SecondsFormat;
#[cfg(feature = "with-time")]
use chrono::Timelike;
use rusqlite::ToSql;
use rusqlite::ffi::{
    SQLITE_CONSTRAINT_CHECK, SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_UNIQUE,
};
use rusqlite::types::{Null, ToSqlOutput, Value as Owned, ValueRef};
use sea_orm::Value;
use sea_orm::sea_query::OptionEnum;

use super::error::{Error, extended_code};
use super::row::Row;
use crate::error::expression_index;
use crate::fetched::{DecodedRows, Decoding};
use crate::row::Cells;
use crate::statement::written_table;
use crate::{RowError, Statement, value as kinds};

/// Runs a statement and reads its rows. The inner error is of the first row that can't be
/// read. One that writes is run to its end, where SQLite checks foreign keys.
pub(super) fn query(
    statement: &Statement,
    connection: &rusqlite::Connection,
    decoding: Decoding,
) -> Result<Result<DecodedRows, RowError>, Error> {
    let mut prepared = prepare(statement, connection)?;
    let mut rows = prepared.raw_query();
    let mut collector = decoding.collect();
    while (statement.writes() || !collector.is_full())
        && let Some(row) = rows
            .next()
            .map_err(|error| refused(connection, &statement.sql, error))?
    {
        collector.add(Cells::Sqlite(&Row::new(row)));
    }
    Ok(collector.finish())
}

/// Runs a statement and returns the number of rows that it changed.
pub(super) fn execute(
    statement: &Statement,
    connection: &rusqlite::Connection,
) -> Result<u64, Error> {
    let mut prepared = prepare(statement, connection)?;
    let changed = prepared.raw_execute();
    changed
        .map(|changed| changed as u64)
        .map_err(|error| refused(connection, &statement.sql, error))
}

/// Adds the table to the violation of a constraint, where SQLite names none: of a CHECK, of
/// a foreign key, and of a unique index of expressions.
fn refused(connection: &rusqlite::Connection, sql: &str, error: rusqlite::Error) -> Error {
    let table = match extended_code(&error) {
        Some(SQLITE_CONSTRAINT_CHECK) => written_table(sql),
        // A DELETE breaks the keys of another table.
        Some(SQLITE_CONSTRAINT_FOREIGNKEY) if !is_delete(sql) => written_table(sql),
        Some(SQLITE_CONSTRAINT_UNIQUE) => expression_index(&error.to_string()).and_then(|index| {
            let table = "SELECT tbl_name FROM sqlite_schema WHERE type = 'index' AND name = ?";
            connection.query_row(table, [index], |row| row.get(0)).ok()
        }),
        _ => None,
    };
    match table {
        Some(table) => Error::Violated {
            table,
            source: error,
        },
        None => error.into(),
    }
}

fn is_delete(sql: &str) -> bool {
    let word = sql.split_whitespace().next();
    word.is_some_and(|word| word.eq_ignore_ascii_case("DELETE"))
}

fn prepare<'c>(
    statement: &Statement,
    connection: &'c rusqlite::Connection,
) -> Result<rusqlite::CachedStatement<'c>, Error> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    bind(&mut prepared, &statement.values)?;
    Ok(prepared)
}

/// Runs SQL once for each row of values, and returns the number of rows that were
/// changed in all.
pub(super) fn execute_each(
    connection: &rusqlite::Connection,
    sql: &str,
    rows: &[Vec<Value>],
) -> Result<u64, Error> {
    let mut prepared = connection.prepare_cached(sql)?;
    let mut changed = 0;
    for values in rows {
        bind(&mut prepared, values)?;
        let row = prepared.raw_execute();
        changed += row.map_err(|error| refused(connection, sql, error))? as u64;
    }
    Ok(changed)
}

fn bind(prepared: &mut rusqlite::Statement<'_>, values: &[Value]) -> Result<(), Error> {
    for (index, value) in values.iter().enumerate() {
        prepared.raw_bind_parameter(index + 1, Bound::of(value)?)?;
    }
    Ok(())
}

/// Returns the text of a time as it is stored, always with six digits of fraction:
/// text with fewer sorts in the order of time too, and isn't equal. A time of the crate time
/// without a zone is stored in the form of sqlx, of which there is one for each time.
#[must_use]
pub fn time_as_text(value: &Value) -> Option<String> {
    const SIX: SecondsFormat = SecondsFormat::Micros;
    match value {
        Value::ChronoDateTime(time) => time.map(|time| time.format("%F %T%.6f").to_string()),
        Value::ChronoDateTimeUtc(time) => time.map(|time| time.to_rfc3339_opts(SIX, false)),
        // In UTC, as PostgreSQL keeps them: text of another offset isn't in the order of time.
        Value::ChronoDateTimeLocal(time) => {
            time.map(|time| time.to_utc().to_rfc3339_opts(SIX, false))
        }
        Value::ChronoDateTimeWithTimeZone(time) => {
            time.map(|time| time.to_utc().to_rfc3339_opts(SIX, false))
        }
        #[cfg(feature = "with-time")]
        Value::TimeTime(_)
        | Value::TimeDate(_)
        | Value::TimeDateTime(_)
        | Value::TimeDateTimeWithTimeZone(_) => match kinds::time::to_chrono(value)? {
            Value::ChronoDate(date) => date.map(|date| date.format("%F").to_string()),
            Value::ChronoTime(time) => {
                time.map(|time| with_fraction(time.format("%T"), time.nanosecond()))
            }
            Value::ChronoDateTime(time) => {
                time.map(|time| with_fraction(time.format("%F %T"), time.nanosecond()))
            }
            time => time_as_text(&time),
        },
        _ => None,
    }
}

/// Returns a time with as many digits of fraction as it has, at least one.
#[cfg(feature = "with-time")]
fn with_fraction(seconds: impl std::fmt::Display, nanos: u32) -> String {
    let digits = format!("{nanos:09}");
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    format!("{seconds}.{digits}")
}

/// Returns a value as SQLite stores it; `None` for a kind that it has no form for.
pub(crate) fn stored(value: &Value) -> Option<Owned> {
    Some(match Bound::of(value).ok()?.0 {
        ToSqlOutput::Owned(value) => value,
        ToSqlOutput::Borrowed(value) => value.try_into().ok()?,
        _ => return None,
    })
}

/// A value as SQLite stores it, in the forms of sqlx but for
/// [times](time_as_text), so that rows of both compare.
struct Bound<'a>(ToSqlOutput<'a>);

impl<'a> Bound<'a> {
    fn of(value: &'a Value) -> Result<Self, Error> {
        fn int<'a, T: Into<i64>>(value: Option<T>) -> ToSqlOutput<'a> {
            ToSqlOutput::Owned(value.map_or(Owned::Null, |value| Owned::Integer(value.into())))
        }
        fn real<'a, T: Into<f64>>(value: Option<T>) -> ToSqlOutput<'a> {
            ToSqlOutput::Owned(value.map_or(Owned::Null, |value| Owned::Real(value.into())))
        }
        fn text<'a>(value: Option<String>) -> ToSqlOutput<'a> {
            ToSqlOutput::Owned(value.map_or(Owned::Null, Owned::Text))
        }
        fn borrowed(value: Option<ValueRef<'_>>) -> ToSqlOutput<'_> {
            ToSqlOutput::Borrowed(value.unwrap_or(ValueRef::Null))
        }
        if let Some(time) = time_as_text(value) {
            return Ok(Self(text(Some(time))));
        }
        Ok(Self(match value {
            Value::Bool(value) => int(*value),
            Value::TinyInt(value) => int(*value),
            Value::SmallInt(value) => int(*value),
            Value::Int(value) => int(*value),
            Value::BigInt(value) => int(*value),
            Value::TinyUnsigned(value) => int(*value),
            Value::SmallUnsigned(value) => int(*value),
            Value::Unsigned(value) => int(*value),
            Value::BigUnsigned(value) => {
                let value = value.map(i64::try_from).transpose();
                int(value.map_err(|_| Error::Unsupported("integers beyond 63 bits".to_owned()))?)
            }
            Value::Float(value) => real(*value),
            Value::Double(value) => real(*value),
            Value::String(value) => {
                borrowed(value.as_ref().map(|text| ValueRef::Text(text.as_bytes())))
            }
            Value::Char(value) => text(value.map(String::from)),
            Value::Bytes(value) => borrowed(value.as_deref().map(ValueRef::Blob)),
            Value::Json(value) => text(value.as_ref().map(ToString::to_string)),
            Value::ChronoDate(value) => text(value.map(|date| date.format("%F").to_string())),
            Value::ChronoTime(value) => text(value.map(|time| time.format("%T%.f").to_string())),
            Value::ChronoDateTime(None)
            | Value::ChronoDateTimeUtc(None)
            | Value::ChronoDateTimeLocal(None)
            | Value::ChronoDateTimeWithTimeZone(None) => text(None),
            Value::Enum(OptionEnum::Some(word)) => {
                borrowed(Some(ValueRef::Text(word.value.as_bytes())))
            }
            Value::Enum(OptionEnum::None(_)) => text(None),
            #[cfg(feature = "with-time")]
            Value::TimeDate(None)
            | Value::TimeTime(None)
            | Value::TimeDateTime(None)
            | Value::TimeDateTimeWithTimeZone(None) => text(None),
            Value::Array(..) => {
                let problem = "arrays; store a list as JSON, or in a table of its own";
                return Err(Error::Unsupported(problem.to_owned()));
            }
            // As its bytes, like sqlx.
            #[cfg(feature = "with-uuid")]
            Value::Uuid(id) => borrowed(id.as_ref().map(|id| ValueRef::Blob(id.as_bytes()))),
            #[cfg(feature = "with-rust_decimal")]
            Value::Decimal(number) => text(number.map(|number| number.to_string())),
            #[allow(
                unreachable_patterns,
                reason = "SeaORM has other kinds with other features"
            )]
            other => {
                let kind = format!("{:?}", other.array_type());
                let problem = format!("column for a {kind}{}", kinds::hint(&kind));
                return Err(Error::Unsupported(problem));
            }
        }))
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            ToSqlOutput::Borrowed(value) => ToSqlOutput::Borrowed(*value),
            ToSqlOutput::Owned(value) => ToSqlOutput::Borrowed(value.into()),
            _ => Null.into(),
        })
    }
}
