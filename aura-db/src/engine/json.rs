//! JSON documents on their way to PostgreSQL. Only for statements that this
//! crate builds: in somebody's own `WHERE` a cast to `json` would have no
//! operator.

use sea_orm::{DbBackend, Statement, Value};

/// Binds JSON as text that is cast to `json`, which keeps it as it was written.
/// The driver would bind it as `jsonb`, which sorts the members, and drops
/// those of the same name.
pub(crate) fn as_written(mut statement: Statement) -> Statement {
    let Some(values) = &mut statement.values else {
        return statement;
    };
    let is_json = |value: &Value| matches!(value, Value::Json(_));
    if statement.db_backend != DbBackend::Postgres || !values.0.iter().any(is_json) {
        return statement;
    }
    let json: Vec<bool> = values.0.iter().map(is_json).collect();
    for value in &mut values.0 {
        if let Value::Json(document) = value {
            *value = Value::String(document.take().map(|json| json.to_string()));
        }
    }
    statement.sql = cast(&statement.sql, &json);
    statement
}

/// The SQL with casts around those placeholders.
fn cast(sql: &str, json: &[bool]) -> String {
    let mut cast = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '\'', '"']) {
        let (before, special) = rest.split_at(at);
        cast.push_str(before);
        let end = match special.strip_prefix('$') {
            Some(digits) => digits
                .find(|c: char| !c.is_ascii_digit())
                .map_or(special.len(), |end| end + 1),
            // Quoted: a doubled quote begins another quoted part.
            None => special[1..]
                .find(&special[..1])
                .map_or(special.len(), |end| end + 2),
        };
        let (token, after) = special.split_at(end);
        let number = token
            .strip_prefix('$')
            .and_then(|n| n.parse::<usize>().ok());
        if number.is_some_and(|n| n > 0 && json.get(n - 1) == Some(&true)) {
            cast.push_str("CAST(");
            cast.push_str(token);
            cast.push_str(" AS json)");
        } else {
            cast.push_str(token);
        }
        rest = after;
    }
    cast.push_str(rest);
    cast
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_placeholders_of_json_are_cast() {
        let sql = r#"INSERT INTO "a$1" VALUES ($1, '$2 ''$2', $2, $10) -- $2"#;
        let mut json = [false; 10];
        json[1] = true;
        assert_eq!(
            cast(sql, &json),
            r#"INSERT INTO "a$1" VALUES ($1, '$2 ''$2', CAST($2 AS json), $10) -- CAST($2 AS json)"#
        );
        assert_eq!(cast("$", &json), "$");
        assert_eq!(cast("'open $2", &json), "'open $2");
    }

    #[test]
    fn members_keep_their_order() {
        let json: serde_json::Value = serde_json::json!({"b": 1, "a": 2});
        let insert = "INSERT INTO t VALUES ($1, $2)";
        let statement = |backend| {
            let values = [Value::from(json.clone()), Value::Json(None)];
            as_written(Statement::from_sql_and_values(backend, insert, values))
        };
        let postgres = statement(DbBackend::Postgres);
        assert_eq!(
            postgres.sql,
            "INSERT INTO t VALUES (CAST($1 AS json), CAST($2 AS json))"
        );
        assert_eq!(
            postgres.values.map(|values| values.0),
            Some(vec![r#"{"b":1,"a":2}"#.into(), Value::String(None)])
        );
        assert_eq!(statement(DbBackend::Sqlite).sql, insert);
    }
}
