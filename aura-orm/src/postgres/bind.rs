//! Values on the way to PostgreSQL, in its binary format.

use std::error::Error as StdError;
use std::fmt;

use bytes::{BufMut, BytesMut};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};
use sea_orm::Value;
use sea_orm::sea_query::{ArrayType, OptionEnum};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use super::error::Error;
use crate::value;

/// A value as the driver takes it. The driver writes values to its log, so `Debug` has the
/// kind only.
pub(super) struct Bound<'a>(pub(super) &'a Value);

impl fmt::Debug for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.array_type())
    }
}

/// Returns the types of values, which are declared with the statement. Left to the server, it
/// would take those of the columns, and a text for an enum.
pub(super) fn types(values: &[Value]) -> Result<Vec<Type>, Error> {
    values.iter().map(type_of).collect()
}

fn type_of(value: &Value) -> Result<Type, Error> {
    match value {
        Value::BigUnsigned(Some(number)) if i64::try_from(*number).is_err() => {
            Err(Error::Unsupported("integers beyond 63 bits".to_owned()))
        }
        // The kind of an enum is a copy of its name.
        Value::Enum(_) => Ok(Type::TEXT),
        Value::Array(kind, elements) => {
            if !cfg!(feature = "postgres-array") {
                return Err(unsupported(value::ARRAY));
            }
            let (element, array) = types_of(kind)?;
            for value in elements.iter().flat_map(|elements| &**elements) {
                if type_of(value)? != element {
                    let other = format!("array of {kind:?} with a {:?}", value.array_type());
                    return Err(Error::Unsupported(other));
                }
            }
            Ok(array)
        }
        value => Ok(types_of(&value.array_type())?.0),
    }
}

/// Returns the type of a kind of values, and the type of its arrays.
fn types_of(kind: &ArrayType) -> Result<(Type, Type), Error> {
    Ok(match kind {
        ArrayType::Bool => (Type::BOOL, Type::BOOL_ARRAY),
        ArrayType::TinyInt | ArrayType::SmallInt | ArrayType::TinyUnsigned => {
            (Type::INT2, Type::INT2_ARRAY)
        }
        ArrayType::Int | ArrayType::SmallUnsigned => (Type::INT4, Type::INT4_ARRAY),
        ArrayType::BigInt | ArrayType::Unsigned | ArrayType::BigUnsigned => {
            (Type::INT8, Type::INT8_ARRAY)
        }
        ArrayType::Float => (Type::FLOAT4, Type::FLOAT4_ARRAY),
        ArrayType::Double => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        ArrayType::String | ArrayType::Char | ArrayType::Enum(_) => (Type::TEXT, Type::TEXT_ARRAY),
        ArrayType::Bytes => (Type::BYTEA, Type::BYTEA_ARRAY),
        ArrayType::Json => (Type::JSONB, Type::JSONB_ARRAY),
        ArrayType::ChronoDate => (Type::DATE, Type::DATE_ARRAY),
        ArrayType::ChronoTime => (Type::TIME, Type::TIME_ARRAY),
        ArrayType::ChronoDateTime => (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
        ArrayType::ChronoDateTimeUtc
        | ArrayType::ChronoDateTimeLocal
        | ArrayType::ChronoDateTimeWithTimeZone => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        #[cfg(feature = "with-time")]
        ArrayType::TimeDate => (Type::DATE, Type::DATE_ARRAY),
        #[cfg(feature = "with-time")]
        ArrayType::TimeTime => (Type::TIME, Type::TIME_ARRAY),
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTime => (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTimeWithTimeZone => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        #[cfg(feature = "with-uuid")]
        ArrayType::Uuid => (Type::UUID, Type::UUID_ARRAY),
        #[cfg(feature = "with-rust_decimal")]
        ArrayType::Decimal => (Type::NUMERIC, Type::NUMERIC_ARRAY),
        #[allow(
            unreachable_patterns,
            reason = "SeaORM has other kinds with other features"
        )]
        other => return Err(unsupported(&format!("{other:?}"))),
    })
}

fn unsupported(kind: &str) -> Error {
    Error::Unsupported(format!("parameter for a {kind}{}", value::hint(kind)))
}

type Written = Result<IsNull, Box<dyn StdError + Sync + Send>>;

impl ToSql for Bound<'_> {
    fn to_sql(&self, declared: &Type, out: &mut BytesMut) -> Written {
        fn fixed<const N: usize>(out: &mut BytesMut, bytes: Option<[u8; N]>) -> IsNull {
            slice(out, bytes.as_ref().map(<[u8; N]>::as_slice))
        }
        fn slice(out: &mut BytesMut, bytes: Option<&[u8]>) -> IsNull {
            match bytes {
                None => IsNull::Yes,
                Some(bytes) => {
                    out.put_slice(bytes);
                    IsNull::No
                }
            }
        }
        let time = |out: &mut BytesMut, time: Option<DateTime<Utc>>| {
            fixed(out, time.map(|time| micros(time.naive_utc()).to_be_bytes()))
        };
        Ok(match self.0 {
            Value::Bool(value) => fixed(out, value.map(|value| [u8::from(value)])),
            Value::TinyInt(value) => fixed(out, value.map(|value| i16::from(value).to_be_bytes())),
            Value::SmallInt(value) => fixed(out, value.map(i16::to_be_bytes)),
            Value::Int(value) => fixed(out, value.map(i32::to_be_bytes)),
            Value::BigInt(value) => fixed(out, value.map(i64::to_be_bytes)),
            Value::TinyUnsigned(value) => {
                fixed(out, value.map(|value| i16::from(value).to_be_bytes()))
            }
            Value::SmallUnsigned(value) => {
                fixed(out, value.map(|value| i32::from(value).to_be_bytes()))
            }
            Value::Unsigned(value) => fixed(out, value.map(|value| i64::from(value).to_be_bytes())),
            Value::BigUnsigned(value) => fixed(out, value.map(u64::to_be_bytes)),
            Value::Float(value) => fixed(out, value.map(f32::to_be_bytes)),
            Value::Double(value) => fixed(out, value.map(f64::to_be_bytes)),
            Value::String(value) => slice(out, value.as_deref().map(str::as_bytes)),
            Value::Enum(OptionEnum::None(_)) => IsNull::Yes,
            Value::Enum(OptionEnum::Some(word)) => slice(out, Some(word.value.as_bytes())),
            Value::Char(value) => {
                let mut buffer = [0; 4];
                let text = value.map(|value| &*value.encode_utf8(&mut buffer));
                slice(out, text.map(str::as_bytes))
            }
            Value::Bytes(value) => slice(out, value.as_deref()),
            Value::Json(None) => IsNull::Yes,
            Value::Json(Some(value)) => {
                // The version of the format.
                out.put_u8(1);
                serde_json::to_writer(out.writer(), value)?;
                IsNull::No
            }
            Value::ChronoDate(value) => {
                let days = value.map(|date| i32::try_from((date - epoch()).num_days()));
                fixed(out, days.transpose()?.map(i32::to_be_bytes))
            }
            Value::ChronoTime(value) => fixed(
                out,
                value.map(|time| {
                    let seconds = i64::from(time.num_seconds_from_midnight());
                    (seconds * 1_000_000 + i64::from(time.nanosecond() / 1_000)).to_be_bytes()
                }),
            ),
            Value::ChronoDateTime(value) => {
                fixed(out, value.map(|time| micros(time).to_be_bytes()))
            }
            Value::ChronoDateTimeUtc(value) => time(out, *value),
            Value::ChronoDateTimeLocal(value) => time(out, value.map(|time| time.to_utc())),
            Value::ChronoDateTimeWithTimeZone(value) => time(out, value.map(|time| time.to_utc())),
            #[cfg(feature = "with-time")]
            Value::TimeDate(_)
            | Value::TimeTime(_)
            | Value::TimeDateTime(_)
            | Value::TimeDateTimeWithTimeZone(_) => {
                let value = value::time::to_chrono(self.0).ok_or("a year beyond PostgreSQL's")?;
                Bound(&value).to_sql(declared, out)?
            }
            Value::Array(_, None) => IsNull::Yes,
            Value::Array(_, Some(elements)) => {
                array(declared, elements, out)?;
                IsNull::No
            }
            #[cfg(feature = "with-uuid")]
            Value::Uuid(value) => fixed(out, value.map(uuid_bytes)),
            #[cfg(feature = "with-rust_decimal")]
            Value::Decimal(None) => IsNull::Yes,
            #[cfg(feature = "with-rust_decimal")]
            Value::Decimal(Some(value)) => {
                numeric(out, &value.to_string());
                IsNull::No
            }
            #[allow(unreachable_patterns, reason = "`type_of` has refused it")]
            other => return Err(format!("no parameter for a {:?}", other.array_type()).into()),
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Writes an array of one dimension (`array_recv` in src/backend/utils/adt/arrayfuncs.c).
fn array(
    declared: &Type,
    elements: &[Value],
    out: &mut BytesMut,
) -> Result<(), Box<dyn StdError + Sync + Send>> {
    let Kind::Array(element) = declared.kind() else {
        return Err(format!("an array where {declared} is needed").into());
    };
    out.put_i32(1);
    // Flags, which the server sets.
    out.put_i32(0);
    out.put_u32(element.oid());
    out.put_i32(i32::try_from(elements.len())?);
    // The first index.
    out.put_i32(1);
    for value in elements {
        let at = out.len();
        // The length, which is -1 of NULL.
        out.put_i32(-1);
        if let IsNull::No = Bound(value).to_sql(element, out)? {
            let length = i32::try_from(out.len() - at - 4)?;
            out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(())
}

/// PostgreSQL counts from there (src/include/datatype/timestamp.h).
fn epoch() -> NaiveDate {
    NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default()
}

/// Returns microseconds since the year 2000; no time of chrono's is beyond them.
fn micros(time: NaiveDateTime) -> i64 {
    let since = time - epoch().and_time(NaiveTime::MIN);
    since.num_microseconds().unwrap_or(i64::MAX)
}

#[cfg(feature = "with-uuid")]
fn uuid_bytes(id: sea_orm::prelude::Uuid) -> [u8; 16] {
    *id.as_bytes()
}

/// Writes decimal digits as a `numeric` (`numeric_recv` in
/// src/backend/utils/adt/numeric.c).
#[cfg(feature = "with-rust_decimal")]
fn numeric(out: &mut BytesMut, digits: &str) {
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let pad = |text: String, right: bool| {
        let zeros = "0".repeat((4 - text.len() % 4) % 4);
        if right { text + &zeros } else { zeros + &text }
    };
    let whole = pad(whole.trim_start_matches('0').to_owned(), false);
    let groups = whole.clone() + &pad(decimals.to_owned(), true);
    let short = |number: usize| i16::try_from(number).unwrap_or(i16::MAX);
    out.put_i16(short(groups.len() / 4));
    out.put_i16(short(whole.len() / 4) - 1);
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_i16(short(decimals.len()));
    for group in groups.as_bytes().chunks(4) {
        let number = group.iter().fold(0, |number: i16, digit| {
            number * 10 + i16::from(digit - b'0')
        });
        out.put_i16(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::postgres::value as read;

    fn values() -> Vec<Value> {
        let time: DateTime<Utc> = "1969-07-20T20:17:40.123456Z".parse().expect("a time");
        vec![
            Value::Bool(Some(true)),
            Value::TinyInt(Some(-7)),
            Value::SmallInt(Some(i16::MIN)),
            Value::Int(Some(i32::MAX)),
            Value::BigInt(Some(i64::MIN)),
            Value::TinyUnsigned(Some(u8::MAX)),
            Value::SmallUnsigned(Some(u16::MAX)),
            Value::Unsigned(Some(u32::MAX)),
            Value::BigUnsigned(Some(7)),
            Value::Float(Some(0.5)),
            Value::Double(Some(-0.1)),
            Value::String(Some("é".to_owned())),
            Value::Char(Some('é')),
            Value::Bytes(Some(vec![0, 255])),
            Value::Json(Some(Box::new(serde_json::json!({ "a": [1, null] })))),
            Value::ChronoDate(Some(time.date_naive())),
            Value::ChronoTime(Some(time.time())),
            Value::ChronoDateTime(Some(time.naive_utc())),
            Value::ChronoDateTimeUtc(Some(time)),
            Value::ChronoDateTimeWithTimeZone(Some(time.into())),
            #[cfg(feature = "with-uuid")]
            Value::Uuid(Some(sea_orm::prelude::Uuid::from_u128(7))),
            Value::BigInt(None),
            Value::String(None),
        ]
    }

    fn written(value: &Value) -> (Type, Option<BytesMut>) {
        let declared = type_of(value).expect("a type");
        let mut out = BytesMut::new();
        let null = Bound(value).to_sql(&declared, &mut out).expect("written");
        (declared, matches!(null, IsNull::No).then_some(out))
    }

    /// What is written is read back the same.
    #[test]
    fn values_come_back() {
        for value in values() {
            let (declared, bytes) = written(&value);
            let read = read(declared.oid(), bytes.as_deref(), &value.array_type());
            assert_eq!(read.expect("readable"), Some(value));
        }
    }

    #[cfg(feature = "with-time")]
    #[test]
    fn times_of_the_other_crate_come_back() {
        for value in values() {
            let Some(time) = value::time::from_chrono(&value) else {
                continue;
            };
            let (declared, bytes) = written(&time);
            assert_eq!((declared.clone(), bytes.clone()), written(&value));
            let read = read(declared.oid(), bytes.as_deref(), &time.array_type());
            assert_eq!(read.expect("readable"), Some(time));
        }
    }

    #[cfg(feature = "postgres-array")]
    #[test]
    fn arrays_come_back() {
        use crate::row::array::value as read;
        for value in values() {
            let kind = value.array_type();
            let both = vec![value.clone(), value.as_null()];
            for elements in [None, Some(vec![]), Some(vec![value]), Some(both)] {
                let value = Value::Array(kind.clone(), elements.map(Box::new));
                let (_, bytes) = written(&value);
                let read = read(bytes.as_deref(), &kind);
                assert_eq!(read.expect("readable"), Some(value));
            }
        }
        let mixed = vec![Value::Int(Some(1)), Value::String(None)];
        let mixed = Value::Array(ArrayType::Int, Some(Box::new(mixed)));
        assert!(matches!(type_of(&mixed), Err(Error::Unsupported(_))));
    }

    #[cfg(not(feature = "postgres-array"))]
    #[test]
    fn arrays_need_their_feature() {
        let error = type_of(&Value::Array(ArrayType::Int, None)).expect_err("not compiled");
        assert!(error.to_string().contains("`postgres-array`"), "{error}");
        let error = crate::row::array::value(None, &ArrayType::Int).expect_err("not compiled");
        assert!(error.to_string().contains("`postgres-array`"), "{error}");
    }

    #[test]
    fn no_value_is_shown() {
        let secret = Value::String(Some("canary".to_owned()));
        assert_eq!(format!("{:?}", Bound(&secret)), "String");
        assert_eq!(secret.array_type(), ArrayType::String);
        let large = Value::BigUnsigned(Some(u64::MAX));
        assert!(matches!(type_of(&large), Err(Error::Unsupported(_))));
    }

    #[cfg(feature = "with-rust_decimal")]
    #[test]
    fn decimals_come_back() {
        for digits in [
            "0",
            "1",
            "-1.5",
            "10000.00001",
            "0.0001",
            "-123456789.987654321",
        ] {
            let number: sea_orm::prelude::Decimal = digits.parse().expect("a number");
            let value = Value::Decimal(Some(number));
            let (declared, bytes) = written(&value);
            let read = read(declared.oid(), bytes.as_deref(), &value.array_type());
            assert_eq!(read.expect("readable"), Some(value), "{digits}");
        }
    }
}
