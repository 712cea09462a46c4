//! Places in a list.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rusqlite::types::{Value as Stored, ValueRef};
use sea_orm::Value;
use sea_orm::sea_query::{ArrayType, Expr, SimpleExpr};
use sea_orm::{DbBackend, ExprTrait};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::row::unreadable;
use crate::sqlite;

/// A place in a list, to hand to a client and take back. What is in it may
/// change; one that was made for another list or order is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Cursor {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// The longest cursor that is read, in bytes.
const MAX_CURSOR: usize = 8_192;

/// What a cursor says: the list's order, and what the row that it stands at has in its
/// columns.
#[derive(Serialize, Deserialize)]
pub(super) struct Place(pub(super) String, pub(super) Vec<Json>);

impl Cursor {
    /// Returns the cursor; `None` for one that would be too long to be read again.
    pub(super) fn encode(place: &Place) -> Option<Self> {
        let text = BASE64.encode(serde_json::to_vec(place).ok()?);
        (text.len() <= MAX_CURSOR).then_some(Self(text))
    }

    pub(super) fn decode(&self) -> Option<Place> {
        if self.0.len() > MAX_CURSOR {
            return None;
        }
        serde_json::from_slice(&BASE64.decode(&self.0).ok()?).ok()
    }
}

/// Converts a value to what a cursor holds: the form in which SQLite stores it. `None` for
/// one that has no order, as a number that is none.
pub(super) fn to_json(value: &Value) -> Option<Json> {
    Some(match sqlite::stored(value)? {
        Stored::Null => Json::Null,
        Stored::Integer(number) => number.into(),
        Stored::Real(number) => serde_json::Number::from_f64(number)?.into(),
        Stored::Text(text) => text.into(),
        Stored::Blob(bytes) => BASE64.encode(bytes).into(),
    })
}

/// Converts what a cursor holds to a value of this kind.
pub(super) fn from_json(json: &Json, kind: &ArrayType) -> Option<Value> {
    let read = |cell| sqlite::value(cell, kind).ok().flatten();
    match json {
        Json::Null => read(ValueRef::Null),
        Json::Number(number) => match number.as_i64() {
            Some(number) => read(ValueRef::Integer(number)),
            None => read(ValueRef::Real(number.as_f64()?)),
        },
        // PostgreSQL can't compare with it.
        Json::String(text) if text.contains('\0') => None,
        Json::String(text) if is_binary(kind) => read(ValueRef::Blob(&BASE64.decode(text).ok()?)),
        Json::String(text) => read(ValueRef::Text(text.as_bytes())),
        _ => None,
    }
}

fn is_binary(kind: &ArrayType) -> bool {
    #[cfg(feature = "with-uuid")]
    if *kind == ArrayType::Uuid {
        return true;
    }
    *kind == ArrayType::Bytes
}

/// A cell of another kind than its column, as it is stored. Between such cells rows are in an
/// order too, and a list goes on behind them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Misfit {
    Integer(i64),
    Real(f64),
    Text(String),
    /// A text of other bytes than text has, in base64.
    Bytes(String),
    Blob(String),
}

impl Misfit {
    /// Returns what a cursor holds; `None` for NULL, and for a number that is none.
    pub(super) fn to_json(stored: unreadable::Stored) -> Option<Json> {
        use unreadable::Stored;
        let misfit = match stored {
            Stored::Null => return None,
            Stored::Integer(number) => Self::Integer(number),
            Stored::Real(number) => Self::Real(number),
            Stored::Text(bytes) => match String::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => Self::Text(text),
                Ok(text) => Self::Bytes(BASE64.encode(text)),
                Err(error) => Self::Bytes(BASE64.encode(error.as_bytes())),
            },
            Stored::Blob(bytes) => Self::Blob(BASE64.encode(bytes)),
        };
        serde_json::to_value(misfit).ok()
    }

    /// Returns what a column of this kind compares with.
    pub(super) fn bind(json: &Json, kind: &ArrayType, backend: DbBackend) -> Option<SimpleExpr> {
        let misfit: Self = Self::deserialize(json).ok()?;
        if backend == DbBackend::Postgres {
            return misfit.bind_postgres(kind);
        }
        Some(match misfit {
            Self::Integer(number) => Expr::val(number),
            Self::Real(number) => Expr::val(number),
            Self::Text(text) => Expr::val(text),
            Self::Bytes(bytes) => Expr::val(BASE64.decode(bytes).ok()?).cast_as("text"),
            Self::Blob(bytes) => Expr::val(BASE64.decode(bytes).ok()?),
        })
    }

    /// Only what the server can read as the type.
    fn bind_postgres(self, kind: &ArrayType) -> Option<SimpleExpr> {
        let text = match self {
            Self::Integer(number) if is_number(kind) => return Some(Expr::val(number)),
            Self::Text(text) => text,
            _ => return None,
        };
        let infinity = matches!(&*text, "infinity" | "-infinity");
        let (is_word, name) = match kind {
            ArrayType::ChronoDate => (infinity, "date"),
            ArrayType::ChronoTime => (text == "24:00:00", "time"),
            ArrayType::ChronoDateTime => (infinity, "timestamp"),
            ArrayType::ChronoDateTimeUtc
            | ArrayType::ChronoDateTimeLocal
            | ArrayType::ChronoDateTimeWithTimeZone => (infinity, "timestamptz"),
            #[cfg(feature = "with-time")]
            ArrayType::TimeDate => (infinity, "date"),
            #[cfg(feature = "with-time")]
            ArrayType::TimeTime => (text == "24:00:00", "time"),
            #[cfg(feature = "with-time")]
            ArrayType::TimeDateTime => (infinity, "timestamp"),
            #[cfg(feature = "with-time")]
            ArrayType::TimeDateTimeWithTimeZone => (infinity, "timestamptz"),
            ArrayType::Char => (!text.contains('\0'), "text"),
            _ => (is_number(kind) && is_numeric(&text), "numeric"),
        };
        is_word.then(|| Expr::val(text).cast_as(name))
    }
}

fn is_number(kind: &ArrayType) -> bool {
    match kind {
        ArrayType::TinyInt
        | ArrayType::SmallInt
        | ArrayType::Int
        | ArrayType::BigInt
        | ArrayType::TinyUnsigned
        | ArrayType::SmallUnsigned
        | ArrayType::Unsigned
        | ArrayType::BigUnsigned
        | ArrayType::Float
        | ArrayType::Double => true,
        #[cfg(feature = "with-rust_decimal")]
        ArrayType::Decimal => true,
        _ => false,
    }
}

/// Returns whether it is a number as PostgreSQL writes a `numeric`.
fn is_numeric(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.bytes().filter(|byte| *byte == b'.').count() < 2
        && digits.bytes().any(|byte| byte.is_ascii_digit());
    is_number || matches!(text, "NaN" | "Infinity" | "-Infinity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_the_type_are_bound_on_a_server() {
        let text = |text: &str| serde_json::json!({ "text": text });
        let integer = serde_json::json!({ "integer": 70_000 });
        let utc = ArrayType::ChronoDateTimeUtc;
        for (cell, kind, is_bound) in [
            (text("infinity"), &utc, true),
            (text("-infinity"), &ArrayType::ChronoDate, true),
            (text("24:00:00"), &ArrayType::ChronoTime, true),
            (text("24:00:00"), &utc, false),
            (text("yesterday"), &utc, false),
            (text("NaN"), &ArrayType::BigInt, true),
            (text("-12.50"), &ArrayType::Int, true),
            (text("1.2.3"), &ArrayType::Int, false),
            (text("-"), &ArrayType::Int, false),
            (text(""), &ArrayType::Int, false),
            (text("12"), &ArrayType::String, false),
            (text("many"), &ArrayType::Char, true),
            (integer.clone(), &ArrayType::SmallInt, true),
            (integer, &utc, false),
            (
                serde_json::json!({ "blob": "AAAA" }),
                &ArrayType::Int,
                false,
            ),
            (serde_json::json!({ "sql": "1" }), &ArrayType::Int, false),
            (serde_json::json!([1]), &ArrayType::Int, false),
        ] {
            let bound = Misfit::bind(&cell, kind, DbBackend::Postgres);
            assert_eq!(bound.is_some(), is_bound, "{cell} of {kind:?}");
        }
    }
}
