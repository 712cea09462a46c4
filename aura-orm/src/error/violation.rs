//! Which constraint a row violates, by what the database says of it.

use crate::error::classify::DatabaseFailure;
use crate::error::{Error, sorted};

/// Returns the violation of a constraint, if it is one.
pub(super) fn violation(failure: &DatabaseFailure<'_>) -> Option<Error> {
    Some(match failure.code {
        // unique_violation; SQLite's unique, primary key and rowid.
        "23505" | "2067" | "1555" | "2579" => unique(failure),
        // foreign_key_violation; SQLite's doesn't say which.
        "23503" | "787" => Error::ForeignKey {
            table: failure.table.unwrap_or("the row").to_owned(),
            constraint: failure.constraint.unwrap_or("foreign key").to_owned(),
        },
        // not_null_violation
        "23502" => Error::NotNull {
            table: failure.table.unwrap_or("a table").to_owned(),
            column: failure.column.unwrap_or("a column").to_owned(),
        },
        "1299" => {
            let (table, column) = columns(failure.message)
                .next()
                .unwrap_or(("a table", "a column"));
            Error::NotNull {
                table: table.to_owned(),
                column: column.to_owned(),
            }
        }
        // check_violation
        "23514" | "275" => check(failure),
        // string_data_right_truncation
        "22001" => Error::TooLong {
            table: failure.table.unwrap_or("a table").to_owned(),
            limit: type_limit(failure.message),
        },
        // untranslatable_character, character_not_in_repertoire
        "22P05" | "22021" => Error::field("statement", NO_NUL),
        _ => return None,
    })
}

/// Why a text can't be stored that the check of values doesn't see, as the escape
/// `\u0000` in JSON that is bound as text.
const NO_NUL: &str = "must not bind a text or a JSON document with the character U+0000, which \
                      PostgreSQL can't store; remove it";

/// Names the columns of a unique index, or the index where it is of an expression.
/// PostgreSQL says them in the detail, unless the role may not read the table; SQLite in
/// the message.
fn unique(failure: &DatabaseFailure<'_>) -> Error {
    if let (Some(table), Some(constraint)) = (failure.table, failure.constraint) {
        let key = failure.key.map(<[String]>::to_vec);
        let key = key.or_else(|| failure.detail.and_then(key_columns));
        return Error::Conflict {
            table: table.to_owned(),
            columns: sorted(key.unwrap_or_else(|| vec![constraint.to_owned()])),
            deleted: false,
        };
    }
    if let Some(index) = expression_index(failure.message) {
        return Error::Conflict {
            table: failure.table.unwrap_or("a table").to_owned(),
            columns: vec![index.to_owned()],
            deleted: false,
        };
    }
    let pairs: Vec<_> = columns(failure.message).collect();
    Error::Conflict {
        table: pairs
            .first()
            .map_or("a table", |(table, _)| table)
            .to_owned(),
        columns: sorted(
            pairs
                .iter()
                .map(|(_, column)| (*column).to_owned())
                .collect(),
        ),
        deleted: false,
    }
}

/// Returns the columns at the end of SQLite's `UNIQUE constraint failed: keys.a, keys.b`.
fn columns(message: &str) -> impl Iterator<Item = (&str, &str)> {
    let list = message.rsplit(": ").next().unwrap_or(message);
    list.split(", ").filter_map(|pair| pair.split_once('.'))
}

/// Returns the index in SQLite's `UNIQUE constraint failed: index 'mine'`, which it names
/// where a key is an expression.
pub(crate) fn expression_index(message: &str) -> Option<&str> {
    let (_, index) = message.split_once(": index '")?;
    index.strip_suffix('\'')
}

/// Returns the columns in `Key (owner_id, name)=(1, x) already exists.`, of which only the
/// first part is in the same words in every language of the server's. `None` where one is
/// an expression.
fn key_columns(detail: &str) -> Option<Vec<String>> {
    let (before, _) = detail.split_once(")=(")?;
    let (_, columns) = before.split_once('(')?;
    if columns.contains('(') {
        return None;
    }
    let names = columns.split(", ").map(|name| name.trim_matches('"'));
    Some(names.map(ToOwned::to_owned).collect())
}

fn check(failure: &DatabaseFailure<'_>) -> Error {
    let table = failure.table.unwrap_or("a table").to_owned();
    let said = || {
        failure
            .message
            .split_once(": ")
            .map(|(_, constraint)| constraint)
    };
    let constraint = failure.constraint.or_else(said).unwrap_or("of the table");
    if let Some(limit) = length_limit(constraint) {
        return Error::TooLong {
            table,
            limit: Some(limit),
        };
    }
    Error::Check {
        table,
        constraint: constraint.to_owned(),
    }
}

/// Returns the limit of a CHECK such as `length("name") <= 120`, by which SQLite calls one
/// without a name.
fn length_limit(check: &str) -> Option<u64> {
    const LENGTH: &str = "length(";
    let function = check.get(..LENGTH.len())?;
    let rest = check.get(LENGTH.len()..)?;
    let (_, limit) = rest.split_once(')')?;
    let limit = limit.trim().strip_prefix("<=")?;
    let is_length = function.eq_ignore_ascii_case(LENGTH);
    limit.trim().parse().ok().filter(|_| is_length)
}

/// Returns the limit in `value too long for type character varying(16)`, of which only the
/// type is in the same words in every language of the server's.
fn type_limit(message: &str) -> Option<u64> {
    let (_, limit) = message.rsplit_once('(')?;
    let (limit, _) = limit.split_once(')')?;
    limit.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_off_the_detail() {
        let names = |detail: &str| key_columns(detail).map(|names| names.join("|"));
        let pair = "Key (owner_id, \"left\")=(1, a)=(b) already exists.";
        assert_eq!(names(pair).as_deref(), Some("owner_id|left"));
        assert_eq!(names("Key (lower(name))=(x) already exists."), None);
        assert_eq!(
            names("Key (COALESCE(a, ''::text), b)=(, 1) already exists."),
            None
        );
        assert_eq!(names("something else"), None);
    }

    #[test]
    fn limits_are_read_off_the_message() {
        let type_of = "value too long for type character varying(16)";
        assert_eq!(type_limit(type_of), Some(16));
        assert_eq!(type_limit("value too long"), None);
        assert_eq!(length_limit(r#"length("name") <= 120"#), Some(120));
        assert_eq!(length_limit("LENGTH(name)<=3"), Some(3));
        for other in [
            "length(name) <= 3 AND name <> ''",
            "size <= 3",
            "é",
            "length(a) > 3",
        ] {
            assert_eq!(length_limit(other), None, "{other}");
        }
    }
}
