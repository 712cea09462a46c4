//! What is refused before it becomes a statement, with the same error on both backends.

use sea_orm::sea_query::OptionEnum;
use sea_orm::{DbBackend, Value};
use serde_json::Value as Json;

use crate::error::Error;

/// The most values of a statement on SQLite (`SQLITE_MAX_VARIABLE_NUMBER`).
pub(super) const MAX_VALUES: usize = 32_766;

/// And on PostgreSQL, whose protocol counts them in 16 bits.
const MAX_VALUES_POSTGRES: usize = 65_535;

/// Checks that a statement can be sent with these values.
///
/// # Errors
///
/// [`Error::Validation`] for a text or JSON with U+0000, and for more values than the
/// database takes.
pub(super) fn ensure_sendable(values: &[Value], backend: DbBackend) -> Result<(), Error> {
    let (database, most) = match backend {
        DbBackend::Postgres => ("PostgreSQL", MAX_VALUES_POSTGRES),
        _ => ("SQLite", MAX_VALUES),
    };
    if values.len() > most {
        let problem = format!(
            "must have at most {most} values on {database}, and has {}; insert rows with \
             `insert_many` of the database or transaction, which cuts them, and split a long \
             list of keys",
            values.len()
        );
        return Err(Error::field("statement", problem));
    }
    ensure_storable(values)
}

/// Checks that both databases can store these values.
///
/// # Errors
///
/// [`Error::Validation`] for a text or JSON with U+0000.
pub(super) fn ensure_storable(values: &[Value]) -> Result<(), Error> {
    let Some(at) = values.iter().position(holds_nul) else {
        return Ok(());
    };
    let problem = format!(
        "must not bind a text with the character U+0000, as its value {} is, which PostgreSQL \
         can't store; remove it",
        at + 1
    );
    Err(Error::field("statement", problem))
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(Some(text)) => text.contains('\0'),
        Value::Char(character) => *character == Some('\0'),
        Value::Enum(OptionEnum::Some(word)) => word.value.contains('\0'),
        Value::Json(Some(json)) => json_holds_nul(json),
        Value::Array(_, Some(elements)) => elements.iter().any(holds_nul),
        _ => false,
    }
}

fn json_holds_nul(json: &Json) -> bool {
    match json {
        Json::String(text) => text.contains('\0'),
        Json::Array(elements) => elements.iter().any(json_holds_nul),
        Json::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || json_holds_nul(value)),
        _ => false,
    }
}

/// Returns about how many bytes a value has on its way.
pub(super) fn size_of(value: &Value) -> usize {
    match value {
        Value::String(Some(text)) => text.len(),
        Value::Bytes(Some(bytes)) => bytes.len(),
        Value::Json(Some(json)) => json_size(json),
        Value::Array(_, Some(elements)) => elements.iter().map(size_of).sum(),
        _ => 8,
    }
}

fn json_size(json: &Json) -> usize {
    match json {
        Json::String(text) => text.len() + 2,
        Json::Array(elements) => elements.iter().map(|element| json_size(element) + 1).sum(),
        Json::Object(members) => members
            .iter()
            .map(|(name, value)| name.len() + json_size(value) + 4)
            .sum(),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_zero_character_is_found_wherever_it_is() {
        let json = |json| Value::Json(Some(Box::new(json)));
        for value in [
            Value::from("a\0"),
            Value::Char(Some('\0')),
            json(json!("\0")),
            json(json!({ "a": [1, { "b": "x\0y" }] })),
            json(json!({ "a\0": 1 })),
        ] {
            let values = [Value::from(1_i64), value];
            let error = ensure_storable(&values).expect_err("refused").to_string();
            assert!(
                error.contains("U+0000") && error.contains("value 2"),
                "{error}"
            );
        }
        let fine = [
            Value::from("a\\u0000"),
            Value::String(None),
            Value::Bytes(Some(vec![0])),
            json(json!({ "a": ["\\u0000"] })),
        ];
        assert!(ensure_storable(&fine).is_ok());
    }

    #[test]
    fn more_values_than_a_database_takes_are_refused() {
        let values = vec![Value::from(1_i64); 65_535];
        assert!(ensure_sendable(&values, DbBackend::Postgres).is_ok());
        let error = ensure_sendable(&values, DbBackend::Sqlite).expect_err("refused");
        assert!(error.to_string().contains("`insert_many`"), "{error}");
        assert!(ensure_sendable(&values[..MAX_VALUES], DbBackend::Sqlite).is_ok());
    }
}
