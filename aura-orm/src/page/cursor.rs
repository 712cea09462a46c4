//! Places in a list.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rusqlite::types::{Value as Stored, ValueRef};
use sea_orm::Value;
use sea_orm::sea_query::ArrayType;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

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
