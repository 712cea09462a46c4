//! Values that a client sends.

use sea_orm::sea_query::ArrayType;
use sea_orm::{ActiveModelTrait, ColumnTrait, ColumnType, ModelTrait, Value};
use serde_json::Value as Json;

use super::RepositoryEntity;
use crate::sqlite::{self, ValueRef};

/// Converts what a client sent to a value of a column, or says what it must be.
pub(super) fn value_of<E: RepositoryEntity>(
    column: E::Column,
    json: &Json,
) -> Result<Value, String> {
    let kind = <E::Model as ModelTrait>::get_value_type(column);
    let is_array = matches!(column.def().get_column_type(), ColumnType::Array(_));
    let found = if is_array { None } else { read(json, &kind) };
    // What the column's own type doesn't take, as a word that an enum hasn't.
    let fits = |value: &Value| {
        let mut row = <E::ActiveModel as ActiveModelTrait>::default();
        row.try_set(column, value.clone()).is_ok()
    };
    found.filter(fits).ok_or_else(|| {
        let needed = match &kind {
            _ if is_array => "nothing: lists can't be compared",
            ArrayType::Bool => "true or false",
            ArrayType::Float | ArrayType::Double => "a number",
            ArrayType::TinyInt
            | ArrayType::SmallInt
            | ArrayType::Int
            | ArrayType::BigInt
            | ArrayType::TinyUnsigned
            | ArrayType::SmallUnsigned
            | ArrayType::Unsigned
            | ArrayType::BigUnsigned => "an integer",
            ArrayType::String | ArrayType::Enum(_) | ArrayType::Char => "one of its texts",
            ArrayType::ChronoDate => "a date, as 2026-11-27",
            ArrayType::ChronoTime => "a time of day, as 12:30:00",
            ArrayType::ChronoDateTime
            | ArrayType::ChronoDateTimeUtc
            | ArrayType::ChronoDateTimeLocal
            | ArrayType::ChronoDateTimeWithTimeZone => "a time, as 2026-11-27T12:30:00Z",
            _ => "of the column's type, which may be one that can't be compared",
        };
        format!("needs {needed}")
    })
}

fn read(json: &Json, kind: &ArrayType) -> Option<Value> {
    let read = |cell| sqlite::value(cell, kind).ok().flatten();
    match (json, kind) {
        (_, ArrayType::Json | ArrayType::Bytes) | (Json::Number(_), ArrayType::Bool) => None,
        (Json::Bool(is), ArrayType::Bool) => Some(Value::Bool(Some(*is))),
        (Json::String(text), ArrayType::Bool) => Some(Value::Bool(Some(text.parse().ok()?))),
        (Json::Number(number), _) => match number.as_i64() {
            Some(number) => read(ValueRef::Integer(number)),
            None => read(ValueRef::Real(number.as_f64()?)),
        },
        (Json::String(text), _) if text.contains('\0') => None,
        (Json::String(text), _) => read(ValueRef::Text(text.as_bytes())).or_else(|| {
            let integer = text
                .parse()
                .ok()
                .and_then(|number| read(ValueRef::Integer(number)));
            let number = || {
                text.parse().ok().and_then(|number: f64| {
                    read(ValueRef::Real(number)).filter(|_| number.is_finite())
                })
            };
            integer.or_else(number)
        }),
        _ => None,
    }
}
