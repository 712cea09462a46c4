//! Statements, from `SeaORM`'s form to the drivers'.

use aura_orm::Statement as Prepared;
use aura_orm::sqlite::time_as_text;
use sea_orm::sea_query::SelectStatement;
use sea_orm::{DbBackend, Statement, StatementBuilder, Value, Values};

/// A statement for either driver.
pub(super) fn built(statement: Statement) -> Prepared {
    let values = statement.values.map(|values| values.0).unwrap_or_default();
    Prepared::new(statement.sql, values)
}

/// A statement for `SeaORM`'s driver, on SQLite with its times as the engine writes
/// them.
pub(super) fn driven(statement: Prepared, backend: DbBackend) -> Statement {
    let (sql, mut values) = statement.into_parts();
    if backend == DbBackend::Sqlite {
        for value in &mut values {
            if let Some(time) = time_as_text(value) {
                *value = time.into();
            }
        }
    }
    Statement::from_sql_and_values(backend, sql, values)
}

/// A query. Its LIMIT is a literal on PostgreSQL, which takes an unknown one
/// for a tenth of the rows, finds the general plan dear beside one for the real
/// limit, and so would plan anew at each call (`preprocess_limit` in
/// src/backend/optimizer/plan/planner.c, `choose_custom_plan` in
/// src/backend/utils/cache/plancache.c). SQLite keeps what it has prepared.
pub(super) fn select(query: &SelectStatement, backend: DbBackend) -> Statement {
    let mut statement = StatementBuilder::build(query, &backend);
    if backend == DbBackend::Postgres
        && let Some(Values(values)) = &mut statement.values
        && let Some(Value::BigUnsigned(Some(limit))) = values.last()
        && let Some(query) = statement
            .sql
            .strip_suffix(&format!(" LIMIT ${}", values.len()))
    {
        statement.sql = format!("{query} LIMIT {limit}");
        values.pop();
    }
    statement
}

#[cfg(test)]
mod tests {
    use entity::logs;
    use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, QueryTrait};

    use super::*;

    fn of(select: sea_orm::Select<logs::Entity>, backend: DbBackend) -> (String, usize) {
        let select = select.select_only().column(logs::Column::Id);
        let statement = super::select(&select.into_query(), backend);
        (
            statement.sql,
            statement.values.map_or(0, |values| values.0.len()),
        )
    }

    #[test]
    fn a_limit_is_a_literal_on_postgresql() {
        let some = || logs::Entity::find().filter(logs::COLUMN.id.gt(7)).limit(50);
        let (sql, values) = of(some(), DbBackend::Postgres);
        assert!(sql.ends_with(r#""id" > $1 LIMIT 50"#), "{sql}");
        assert_eq!(values, 1);
        let (sql, values) = of(some(), DbBackend::Sqlite);
        assert!(sql.ends_with("LIMIT ?"), "{sql}");
        assert_eq!(values, 2);
        // Not the offset, nor a number at the end that is none.
        let (sql, values) = of(some().offset(3), DbBackend::Postgres);
        assert!(sql.ends_with("LIMIT $2 OFFSET $3"), "{sql}");
        assert_eq!(values, 3);
        let (sql, values) = of(
            logs::Entity::find().filter(logs::COLUMN.id.gt(7)),
            DbBackend::Postgres,
        );
        assert!(sql.ends_with(r#""id" > $1"#), "{sql}");
        assert_eq!(values, 1);
    }
}
