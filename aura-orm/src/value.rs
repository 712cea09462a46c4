//! Kinds of values.

use sea_orm::sea_query::ArrayType;
use sea_orm::{DbErr, Value};

#[cfg(feature = "with-time")]
pub(crate) mod time;

/// The name of arrays of any kind in errors.
pub(crate) const ARRAY: &str = "Array";

/// Returns the error for a kind of values that `SeaORM` has and this crate hasn't.
pub(crate) fn not_compiled(kind: &ArrayType) -> DbErr {
    unreadable(&format!("{kind:?}"))
}

/// As [`not_compiled`], by name.
pub(crate) fn unreadable(kind: &str) -> DbErr {
    DbErr::Custom(format!("a {kind} can't be read{}", hint(kind)))
}

/// Returns what to do to have a kind of values, where a feature adds it.
pub(crate) fn hint(kind: &str) -> &'static str {
    match kind {
        ARRAY => "; enable the cargo feature `postgres-array`",
        "Decimal" => "; enable the cargo feature `with-rust_decimal`",
        "TimeDate" | "TimeTime" | "TimeDateTime" | "TimeDateTimeWithTimeZone" => {
            "; enable the cargo feature `with-time`"
        }
        "Uuid" => "; enable the cargo feature `with-uuid`",
        _ => "",
    }
}

/// Returns the values of a key as errors name it.
pub(crate) fn display_key(values: &[Value]) -> String {
    let cells = values.iter().map(|value| match value {
        Value::String(Some(text)) => text.clone(),
        #[cfg(feature = "with-uuid")]
        Value::Uuid(Some(id)) => id.to_string(),
        value => value.to_string().trim_matches('\'').to_owned(),
    });
    cells.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_feature() {
        let features = [
            (ARRAY, "`postgres-array`"),
            ("Decimal", "`with-rust_decimal`"),
            ("TimeDateTime", "`with-time`"),
            ("Uuid", "`with-uuid`"),
        ];
        for (kind, feature) in features {
            let error = unreadable(kind).to_string();
            assert!(error.ends_with(feature), "{error}");
        }
        let error = not_compiled(&ArrayType::Int).to_string();
        assert!(error.ends_with("can't be read"), "{error}");
    }
}
