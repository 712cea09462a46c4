//! Values as SQLite stored them, on the way back.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use rusqlite::types::ValueRef;
use sea_orm::Value;
use sea_orm::sea_query::ArrayType;

/// What a cell holds as a value of this kind; `None` when it is none, or a kind
/// that is never bound.
#[must_use]
pub fn value(cell: ValueRef<'_>, kind: &ArrayType) -> Option<Value> {
    read(cell, kind).ok()
}

fn read(cell: ValueRef<'_>, kind: &ArrayType) -> Result<Value, Other> {
    Ok(match kind {
        ArrayType::Bool => Value::Bool(integer(cell)?.map(|number| number != 0)),
        ArrayType::TinyInt => Value::TinyInt(narrow(cell)?),
        ArrayType::SmallInt => Value::SmallInt(narrow(cell)?),
        ArrayType::Int => Value::Int(narrow(cell)?),
        ArrayType::BigInt => Value::BigInt(integer(cell)?),
        ArrayType::TinyUnsigned => Value::TinyUnsigned(narrow(cell)?),
        ArrayType::SmallUnsigned => Value::SmallUnsigned(narrow(cell)?),
        ArrayType::Unsigned => Value::Unsigned(narrow(cell)?),
        ArrayType::BigUnsigned => Value::BigUnsigned(narrow(cell)?),
        ArrayType::Double => Value::Double(match cell {
            ValueRef::Null => None,
            ValueRef::Real(number) => Some(number),
            _ => return Err(Other),
        }),
        ArrayType::String => Value::String(text(cell)?.map(Into::into)),
        ArrayType::Bytes => Value::Bytes(match cell {
            ValueRef::Null => None,
            ValueRef::Blob(bytes) => Some(bytes.into()),
            _ => return Err(Other),
        }),
        ArrayType::Json => Value::Json(parsed(cell, |json| serde_json::from_str(json).ok())?),
        ArrayType::ChronoDate => Value::ChronoDate(parsed(cell, |date| {
            NaiveDate::parse_from_str(date, "%F").ok()
        })?),
        ArrayType::ChronoTime => Value::ChronoTime(parsed(cell, |time| {
            NaiveTime::parse_from_str(time, "%T%.f").ok()
        })?),
        ArrayType::ChronoDateTime => {
            Value::ChronoDateTime(parsed(cell, |time| Some(moment(time)?.naive_utc()))?)
        }
        ArrayType::ChronoDateTimeUtc => Value::ChronoDateTimeUtc(parsed(cell, moment)?),
        _ => return Err(Other),
    })
}

/// It holds something else.
struct Other;

fn integer(cell: ValueRef<'_>) -> Result<Option<i64>, Other> {
    match cell {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(number) => Ok(Some(number)),
        _ => Err(Other),
    }
}

fn narrow<T: TryFrom<i64>>(cell: ValueRef<'_>) -> Result<Option<T>, Other> {
    let number = integer(cell)?;
    number.map(T::try_from).transpose().map_err(|_| Other)
}

fn text(cell: ValueRef<'_>) -> Result<Option<&str>, Other> {
    match cell {
        ValueRef::Null => Ok(None),
        ValueRef::Text(_) => cell.as_str().map(Some).map_err(|_| Other),
        _ => Err(Other),
    }
}

fn parsed<T>(cell: ValueRef<'_>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Other> {
    match text(cell)? {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or(Other),
    }
}

/// A time, as sqlx and SQLite's own functions write it.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let with_zone = DateTime::parse_from_str(text, "%F %T%.f%:z").map(|time| time.to_utc());
    with_zone.ok().or_else(|| {
        ["%F %T%.f", "%FT%T%.f", "%F %R", "%FT%R"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .map(|time| time.and_utc())
    })
}
