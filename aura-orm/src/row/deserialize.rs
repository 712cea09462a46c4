//! Reads rows as any type that is deserialized, by the names of the columns.

use std::fmt::Display;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use sea_orm::DbErr;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Error as _, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::array::{elements, is_array};
use super::postgres::{self, BOOL, BYTEA, DATE, FLOAT4, FLOAT8, NUMERIC, TIME};
use super::postgres::{INT2, INT4, INT8, JSON, JSONB, OID, TIMESTAMP, TIMESTAMPTZ, UUID};
use super::{Cells, RowDecoder, RowReader, raw_cell};
use crate::sqlite::ValueRef;
use crate::value::{ARRAY, unreadable};

/// Reads a row as any type that is deserialized: its fields are the columns of these
/// names. JSON is read into the field's type.
#[derive(Debug)]
pub struct Deserialized<T>(PhantomData<T>);

impl<T: DeserializeOwned + Send + 'static> RowDecoder for Deserialized<T> {
    type Row = T;

    fn decode(cells: &mut RowReader<'_>) -> Result<T, DbErr> {
        let last = std::cell::Cell::new(0);
        let row = {
            let cells = &*cells;
            let last = &last;
            let entries = (0..cells.len()).map(|index| {
                let name = cells.name(index).unwrap_or("");
                (name, At::Column { cells, index, last })
            });
            T::deserialize(MapDeserializer::new(entries))
        };
        row.map_err(|error| {
            // Past the cell, as errors expect it.
            cells.next = last.get() + 1;
            DbErr::Type(error.0)
        })
    }
}

/// Why a row isn't of the type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mismatch(String);

impl serde::de::Error for Mismatch {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }

    /// Without the value, which may be a secret.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("{} where {expected} is needed", kind_of(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

fn kind_of(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number with decimals",
        Unexpected::Str(_) | Unexpected::Char(_) => "text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "NULL",
        _ => "another type",
    }
}

/// Why JSON isn't of the field's type, without the value.
fn json_mismatch(error: &serde_json::Error) -> Mismatch {
    Mismatch(format!(
        "JSON of another type at line {} column {}",
        error.line(),
        error.column()
    ))
}

/// Where a value stands.
enum At<'a, 'r> {
    /// In a column.
    Column {
        cells: &'a RowReader<'r>,
        index: usize,
        /// The last cell that was read.
        last: &'a std::cell::Cell<usize>,
    },
    /// In an array.
    Element(Option<postgres::Cell<'r>>),
}

impl<'a> IntoDeserializer<'a, Mismatch> for At<'a, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// What a cell holds.
enum Cell<'r> {
    Null,
    Bool(bool),
    Integer(i64),
    Double(f64),
    /// Digits, with decimals.
    Decimal(String),
    Text(&'r str),
    /// A time, a date, or an id, as serde has them.
    Written(String),
    Bytes(&'r [u8]),
    Json(&'r str),
    Array(Vec<Option<postgres::Cell<'r>>>),
}

impl<'r> At<'_, 'r> {
    fn cell(&self) -> Result<Cell<'r>, Mismatch> {
        let (row, at) = match self {
            Self::Column { cells, index, last } => {
                last.set(*index);
                (*cells, *index)
            }
            Self::Element(None) => return Ok(Cell::Null),
            Self::Element(Some(element)) => {
                let cell = of_postgres(*element);
                return cell.ok_or_else(|| Mismatch("an element of another type".to_owned()));
            }
        };
        let cell = match row.cells {
            Cells::Sqlite(sqlite) => {
                let json = || is_json(row, at);
                match sqlite.get_ref(at).map_err(Mismatch::custom)? {
                    ValueRef::Null => Some(Cell::Null),
                    ValueRef::Integer(number) => Some(Cell::Integer(number)),
                    ValueRef::Real(number) => Some(Cell::Double(number)),
                    ValueRef::Blob(bytes) => Some(Cell::Bytes(bytes)),
                    ValueRef::Text(text) => match std::str::from_utf8(text) {
                        Ok(text) if json() => Some(Cell::Json(text)),
                        Ok(text) => Some(Cell::Text(text)),
                        Err(_) => None,
                    },
                }
            }
            Cells::Postgres(postgres) => match raw_cell(postgres, at).map_err(Mismatch::custom)? {
                (_, None) => Some(Cell::Null),
                (_, Some(bytes)) if is_array(postgres, at) => array(bytes)?,
                (oid, Some(bytes)) => of_postgres(postgres::Cell { oid, bytes }),
            },
        };
        cell.ok_or_else(|| {
            let name = row.name(at).unwrap_or("");
            Mismatch(row.mismatch(at, &format!("value of {name}")).to_string())
        })
    }
}

/// Returns whether a column of SQLite is declared as JSON.
fn is_json(row: &RowReader<'_>, at: usize) -> bool {
    let Cells::Sqlite(sqlite) = row.cells else {
        return false;
    };
    let json = row.columns.json.get_or_init(|| {
        let columns = sqlite.as_ref().columns();
        let declared = columns.iter().map(|column| column.decl_type());
        declared
            .map(|declared| declared.is_some_and(|name| name.to_ascii_lowercase().contains("json")))
            .collect()
    });
    json.get(at).copied().unwrap_or(false)
}

fn array(bytes: &[u8]) -> Result<Option<Cell<'_>>, Mismatch> {
    if !cfg!(feature = "postgres-array") {
        return Err(Mismatch::custom(unreadable(ARRAY)));
    }
    Ok(elements(bytes).map(|(oid, elements)| {
        let cell = |bytes| postgres::Cell { oid, bytes };
        let elements = elements.into_iter().map(|bytes| bytes.map(cell));
        Cell::Array(elements.collect())
    }))
}

fn of_postgres(cell: postgres::Cell<'_>) -> Option<Cell<'_>> {
    let written = |time: Option<DateTime<Utc>>| time.map(|time| time.to_rfc3339());
    Some(match cell.oid {
        BOOL => Cell::Bool(cell.bool()?),
        INT2 | INT4 | INT8 | OID => Cell::Integer(cell.integer()?),
        FLOAT4 | FLOAT8 => Cell::Double(cell.double()?),
        NUMERIC => Cell::Decimal(cell.numeric()?),
        BYTEA => Cell::Bytes(cell.bytes),
        JSON | JSONB => Cell::Json(cell.json()?),
        DATE => Cell::Written(cell.date()??.to_string()),
        TIME => Cell::Written(cell.time_of_day()?.to_string()),
        TIMESTAMPTZ => Cell::Written(written(cell.timestamp(TIMESTAMPTZ)?)?),
        TIMESTAMP => {
            let time = cell.timestamp(TIMESTAMP)??.naive_utc();
            Cell::Written(time.format("%FT%T%.f").to_string())
        }
        UUID => Cell::Written(hyphenated(cell.bytes)?),
        _ => Cell::Text(cell.text()?),
    })
}

/// Says why digits aren't the integer that is needed, without them.
fn no_integer(digits: &str, expected: &dyn Expected) -> Mismatch {
    let found = if digits.contains('.') {
        "a number with decimals"
    } else {
        "another number"
    };
    Mismatch(format!("{found} where {expected} is needed"))
}

/// Returns whether a text is a time in SQLite's own form, `2026-01-31 12:00:00`; serde's
/// has a T.
fn is_spaced_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    at(4) == Some(b'-') && at(7) == Some(b'-') && at(10) == Some(b' ') && at(13) == Some(b':')
}

/// Returns the text of a UUID.
fn hyphenated(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    Some(parts.join("-"))
}

macro_rules! numbers {
    ($($method:ident: $type:ty),+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.cell()? {
                Cell::Decimal(digits) => match digits.parse::<$type>() {
                    Ok(number) => number.into_deserializer().deserialize_any(visitor),
                    Err(_) => Err(no_integer(&digits, &visitor)),
                },
                cell => any(cell, visitor),
            }
        })+
    };
}

impl<'de> Deserializer<'de> for At<'de, '_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            Cell::Json(json) => serde_json::Deserializer::from_str(json)
                .deserialize_any(visitor)
                .map_err(|error| json_mismatch(&error)),
            cell => any(cell, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            // SQLite has no other.
            Cell::Integer(number) => visitor.visit_bool(number != 0),
            cell => any(cell, visitor),
        }
    }

    numbers!(
        deserialize_i8: i64,
        deserialize_i16: i64,
        deserialize_i32: i64,
        deserialize_i64: i64,
        deserialize_u8: i64,
        deserialize_u16: i64,
        deserialize_u32: i64,
        deserialize_u64: u64,
        deserialize_i128: i128,
        deserialize_u128: u128,
        deserialize_f32: f64,
        deserialize_f64: f64
    );

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            Cell::Json(text) => visitor.visit_str(text),
            Cell::Decimal(digits) => visitor.visit_string(digits),
            // `String` asks for a string: this is another type that is written as text.
            Cell::Text(text) if is_spaced_time(text) => {
                visitor.visit_string(text.replacen(' ', "T", 1))
            }
            // A UUID, which SQLite has as its bytes.
            Cell::Bytes(bytes) => match hyphenated(bytes) {
                Some(text) => visitor.visit_string(text),
                None => visitor.visit_bytes(bytes),
            },
            cell => any(cell, visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            Cell::Text(text) => visitor.visit_str(text),
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            Cell::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            Cell::Text(word) => {
                let word: StrDeserializer<'_, Mismatch> = word.into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            Cell::Json(json) => serde_json::Deserializer::from_str(json)
                .deserialize_enum(name, variants, visitor)
                .map_err(|error| json_mismatch(&error)),
            cell => any(cell, visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            // So that it can be read as text, too.
            Cell::Json(json) => serde_json::Deserializer::from_str(json)
                .deserialize_newtype_struct(name, visitor)
                .map_err(|error| json_mismatch(&error)),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cell()? {
            Cell::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            _ => self.deserialize_any(visitor),
        }
    }

    /// Types of the crate time are tuples of numbers to serde.
    #[cfg(feature = "with-time")]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let parts = match self.cell()? {
            Cell::Text(text) => time_parts(text, len),
            Cell::Written(text) => time_parts(&text, len),
            _ => None,
        };
        match parts {
            Some(parts) => visitor.visit_seq(SeqDeserializer::new(parts.into_iter())),
            None => self.deserialize_any(visitor),
        }
    }

    #[cfg(not(feature = "with-time"))]
    forward_to_deserialize_any! { tuple }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple_struct map struct
        identifier ignored_any
    }
}

/// Returns the numbers of a date (2), a time (4), both (6) or with an offset (9), as the
/// crate time deserializes them.
#[cfg(feature = "with-time")]
fn time_parts(text: &str, len: usize) -> Option<Vec<i64>> {
    use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
    use sea_orm::Value;
    use sea_orm::sea_query::ArrayType;
    let kind = match len {
        2 => ArrayType::ChronoDate,
        4 => ArrayType::ChronoTime,
        6 => ArrayType::ChronoDateTime,
        9 => ArrayType::ChronoDateTimeWithTimeZone,
        _ => return None,
    };
    let date = |date: NaiveDate| [date.year().into(), date.ordinal().into()];
    let time = |time: NaiveTime| {
        [time.hour(), time.minute(), time.second(), time.nanosecond()].map(i64::from)
    };
    let both = |both: NaiveDateTime| [&date(both.date())[..], &time(both.time())].concat();
    Some(
        match crate::sqlite::value(ValueRef::Text(text.as_bytes()), &kind).ok()?? {
            Value::ChronoDate(found) => date(found?).to_vec(),
            Value::ChronoTime(found) => time(found?).to_vec(),
            Value::ChronoDateTime(found) => both(found?),
            Value::ChronoDateTimeWithTimeZone(found) => {
                let seconds = i64::from(found?.offset().local_minus_utc());
                let offset = [seconds / 3600, seconds / 60 % 60, seconds % 60];
                [&both(found?.naive_local())[..], &offset].concat()
            }
            _ => return None,
        },
    )
}

/// Hands over what a cell holds, but for JSON.
fn any<'de, 'r: 'de, V: Visitor<'de>>(cell: Cell<'r>, visitor: V) -> Result<V::Value, Mismatch> {
    match cell {
        Cell::Null => visitor.visit_unit(),
        Cell::Bool(yes) => visitor.visit_bool(yes),
        Cell::Integer(number) => visitor.visit_i64(number),
        Cell::Double(number) => visitor.visit_f64(number),
        Cell::Text(text) | Cell::Json(text) => visitor.visit_str(text),
        // As `sum` is: to a type that takes any number, an integer on both backends.
        Cell::Decimal(digits) => match digits.parse() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => visitor.visit_string(digits),
        },
        Cell::Written(text) => visitor.visit_string(text),
        Cell::Bytes(bytes) => visitor.visit_bytes(bytes),
        Cell::Array(elements) => {
            visitor.visit_seq(SeqDeserializer::new(elements.into_iter().map(At::Element)))
        }
    }
}
