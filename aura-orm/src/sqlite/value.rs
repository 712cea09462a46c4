//! Values on the way back from SQLite.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use rusqlite::types::ValueRef;
use sea_orm::sea_query::{ArrayType, Enum, OptionEnum};
use sea_orm::{DbErr, Value};

/// Returns what a cell holds as a value of this kind. `None` when it holds something
/// else.
///
/// # Errors
///
/// [`DbErr::Type`] for kinds that aren't compiled in.
pub fn value(cell: ValueRef<'_>, kind: &ArrayType) -> Result<Option<Value>, DbErr> {
    match read(cell, kind) {
        Ok(value) => Ok(Some(value)),
        Err(Mismatch::Cell) => Ok(None),
        Err(Mismatch::Kind) => Err(crate::value::not_compiled(kind)),
    }
}

fn read(cell: ValueRef<'_>, kind: &ArrayType) -> Result<Value, Mismatch> {
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
        #[expect(clippy::cast_possible_truncation, reason = "as the type says")]
        ArrayType::Float => Value::Float(double(cell)?.map(|number| number as f32)),
        ArrayType::Double => Value::Double(double(cell)?),
        ArrayType::Char => Value::Char(parsed(cell, |text| text.parse().ok())?),
        ArrayType::Enum(name) => Value::Enum(match text(cell)? {
            None => OptionEnum::None((**name).clone()),
            Some(word) => OptionEnum::Some(Box::new(Enum {
                type_name: (**name).clone(),
                value: word.to_owned().into(),
            })),
        }),
        ArrayType::String => Value::String(text(cell)?.map(Into::into)),
        ArrayType::Bytes => Value::Bytes(match cell {
            ValueRef::Null => None,
            ValueRef::Blob(bytes) => Some(bytes.into()),
            _ => return Err(Mismatch::Cell),
        }),
        ArrayType::Json => Value::Json(parsed(cell, |json| serde_json::from_str(json).ok())?),
        ArrayType::ChronoDate => Value::ChronoDate(parsed(cell, |date| {
            NaiveDate::parse_from_str(date, "%F").ok()
        })?),
        ArrayType::ChronoTime => Value::ChronoTime(parsed(cell, |time| {
            NaiveTime::parse_from_str(time, "%T%.f").ok()
        })?),
        ArrayType::ChronoDateTime => {
            Value::ChronoDateTime(parsed(cell, |time| Some(parse_time(time)?.naive_utc()))?)
        }
        ArrayType::ChronoDateTimeUtc => Value::ChronoDateTimeUtc(parsed(cell, parse_time)?),
        ArrayType::ChronoDateTimeLocal => Value::ChronoDateTimeLocal(parsed(cell, |time| {
            Some(parse_time(time)?.with_timezone(&Local))
        })?),
        ArrayType::ChronoDateTimeWithTimeZone => {
            Value::ChronoDateTimeWithTimeZone(parsed(cell, |time| {
                DateTime::parse_from_rfc3339(time)
                    .ok()
                    .or_else(|| Some(parse_time(time)?.into()))
            })?)
        }
        #[cfg(feature = "with-time")]
        ArrayType::TimeDate => time(cell, &ArrayType::ChronoDate)?,
        #[cfg(feature = "with-time")]
        ArrayType::TimeTime => time(cell, &ArrayType::ChronoTime)?,
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTime => time(cell, &ArrayType::ChronoDateTime)?,
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTimeWithTimeZone => time(cell, &ArrayType::ChronoDateTimeWithTimeZone)?,
        #[cfg(feature = "with-uuid")]
        ArrayType::Uuid => Value::Uuid(match cell {
            ValueRef::Blob(bytes) => {
                let id = sea_orm::prelude::Uuid::from_slice(bytes);
                Some(id.map_err(|_| Mismatch::Cell)?)
            }
            cell => parsed(cell, |id| id.parse().ok())?,
        }),
        #[cfg(feature = "with-rust_decimal")]
        ArrayType::Decimal => Value::Decimal(match cell {
            ValueRef::Integer(number) => Some(number.into()),
            ValueRef::Real(number) => {
                let number = sea_orm::prelude::Decimal::try_from(number);
                Some(number.map_err(|_| Mismatch::Cell)?)
            }
            cell => parsed(cell, |digits| digits.parse().ok())?,
        }),
        #[allow(
            unreachable_patterns,
            reason = "SeaORM has other kinds with other features"
        )]
        _ => return Err(Mismatch::Kind),
    })
}

enum Mismatch {
    /// The cell holds something else.
    Cell,
    /// The kind isn't compiled in.
    Kind,
}

fn double(cell: ValueRef<'_>) -> Result<Option<f64>, Mismatch> {
    match cell {
        ValueRef::Null => Ok(None),
        ValueRef::Real(number) => Ok(Some(number)),
        // As of an expression; a REAL column has none.
        #[expect(clippy::cast_precision_loss, reason = "as SQLite converts it")]
        ValueRef::Integer(number) => Ok(Some(number as f64)),
        _ => Err(Mismatch::Cell),
    }
}

fn integer(cell: ValueRef<'_>) -> Result<Option<i64>, Mismatch> {
    match cell {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(number) => Ok(Some(number)),
        _ => Err(Mismatch::Cell),
    }
}

fn narrow<T: TryFrom<i64>>(cell: ValueRef<'_>) -> Result<Option<T>, Mismatch> {
    let number = integer(cell)?;
    number
        .map(T::try_from)
        .transpose()
        .map_err(|_| Mismatch::Cell)
}

fn text(cell: ValueRef<'_>) -> Result<Option<&str>, Mismatch> {
    match cell {
        ValueRef::Null => Ok(None),
        ValueRef::Text(_) => cell.as_str().map(Some).map_err(|_| Mismatch::Cell),
        _ => Err(Mismatch::Cell),
    }
}

fn parsed<T>(cell: ValueRef<'_>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Mismatch> {
    match text(cell)? {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or(Mismatch::Cell),
    }
}

/// Reads a value of the crate time as one of this kind of chrono's.
#[cfg(feature = "with-time")]
fn time(cell: ValueRef<'_>, kind: &ArrayType) -> Result<Value, Mismatch> {
    crate::value::time::from_chrono(&read(cell, kind)?).ok_or(Mismatch::Cell)
}

/// A time, as sqlx and SQLite's own functions write it.
fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    if let Some(time) = parse_canonical(text.as_bytes()) {
        return Some(time);
    }
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

/// A time in the one form that is written here, which is nearly every one:
/// `2026-01-31T12:00:00.123456+00:00` with as many decimals as there are, or
/// none. Five times as fast as parsing any form.
fn parse_canonical(text: &[u8]) -> Option<DateTime<Utc>> {
    let text = text.strip_suffix(b"+00:00")?;
    let (whole, decimals) = text.split_at_checked(19)?;
    let &[
        _,
        _,
        _,
        _,
        b'-',
        _,
        _,
        b'-',
        _,
        _,
        b'T',
        _,
        _,
        b':',
        _,
        _,
        b':',
        _,
        _,
    ] = whole
    else {
        return None;
    };
    let nanos = match decimals {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            let scale = 10_u32.pow(9 - u32::try_from(digits.len()).ok()?);
            number(digits)? * scale
        }
        _ => return None,
    };
    let year = i32::try_from(number(&whole[..4])?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(&whole[5..7])?, number(&whole[8..10])?)?;
    let (hour, minute) = (number(&whole[11..13])?, number(&whole[14..16])?);
    let time = date.and_hms_nano_opt(hour, minute, number(&whole[17..])?, nanos)?;
    Some(time.and_utc())
}

/// At most nine digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_times_are_read_like_any_other() {
        for text in [
            "2026-01-31T12:34:56+00:00",
            "2024-02-29T23:59:59.123+00:00",
            "0001-01-01T00:00:00.000001+00:00",
            "9999-12-31T23:59:59.999999999+00:00",
        ] {
            let any = DateTime::parse_from_rfc3339(text).expect(text).to_utc();
            assert_eq!(parse_canonical(text.as_bytes()), Some(any), "{text}");
        }
        for other in [
            "",
            "+00:00",
            "2026-01-31T12:34:56Z",
            "2026-01-31 12:34:56+00:00",
            "2026-01-31T12:34:56.+00:00",
            "2026-01-31T12:34:56.1234567890+00:00",
            "2026-13-31T12:34:56+00:00",
            "2026-02-30T12:34:56+00:00",
            "2026-01-31T24:34:56+00:00",
            "2026-01-31T12:34:5x+00:00",
            "-026-01-31T12:34:56+00:00",
            "2026-01-31T12:34:56+01:00",
        ] {
            assert_eq!(parse_canonical(other.as_bytes()), None, "{other}");
        }
    }
}
