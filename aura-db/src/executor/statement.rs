//! Statements: their rows' types, and the way from `SeaORM`'s form to the drivers'.

use std::marker::PhantomData;

use aura_orm::Statement as Prepared;
use aura_orm::sqlite::time_as_text;
use sea_orm::sea_query::{
    InsertStatement, Query, SelectStatement, UpdateStatement, WithClause, WithQuery,
};
use sea_orm::{
    DbBackend, EntityTrait, Iterable, QueryTrait, Select, Statement, StatementBuilder, Value,
    Values,
};

use crate::error::Error;
use crate::executor::row::FromRow;

/// Converts a statement for either driver.
pub(super) fn built(statement: Statement) -> Prepared {
    let values = statement.values.map(|values| values.0).unwrap_or_default();
    Prepared::new(statement.sql, values)
}

/// Converts a statement for `SeaORM`'s driver, on SQLite with its times in the form in
/// which they are stored.
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

/// A statement whose rows have a type.
pub(crate) trait TypedStatement: Send {
    /// The type of a row.
    type Row: FromRow;

    /// Builds the statement for a backend.
    fn statement(self, backend: DbBackend) -> Result<Prepared, Error>;
}

impl<E: EntityTrait> TypedStatement for Select<E>
where
    E::Model: FromRow,
{
    type Row = E::Model;

    fn statement(self, backend: DbBackend) -> Result<Prepared, Error> {
        Ok(built(select(&self.into_query(), backend)))
    }
}

/// A statement with the columns of `S`.
pub(crate) struct TypedQuery<S> {
    query: Source,
    shape: PhantomData<fn() -> S>,
}

enum Source {
    Select(Box<SelectStatement>),
    Insert(Box<InsertStatement>),
    With(Box<WithQuery>),
    Sql(Statement),
}

impl<S: FromRow> TypedQuery<S> {
    /// Wraps a select, whose columns are in the order of `S`.
    pub(crate) fn of(select: SelectStatement) -> Self {
        Self {
            query: Source::Select(Box::new(select)),
            shape: PhantomData,
        }
    }

    /// Wraps an insert, which returns columns in the order of `S`.
    pub(crate) fn inserted(insert: InsertStatement) -> Self {
        Self {
            query: Source::Insert(Box::new(insert)),
            shape: PhantomData,
        }
    }

    /// Wraps an update of an entity with common table expressions, for PostgreSQL.
    pub(crate) fn updated<E: EntityTrait<Model = S>>(
        mut update: UpdateStatement,
        with: WithClause,
    ) -> Self {
        update.returning(Query::returning().columns(E::Column::iter()));
        Self {
            query: Source::With(Box::new(update.with(with))),
            shape: PhantomData,
        }
    }

    /// Wraps SQL, whose columns are in the order of `S`.
    pub(crate) fn sql(statement: Statement) -> Self {
        Self {
            query: Source::Sql(statement),
            shape: PhantomData,
        }
    }
}

impl<S: FromRow> TypedStatement for TypedQuery<S> {
    type Row = S;

    fn statement(self, backend: DbBackend) -> Result<Prepared, Error> {
        Ok(built(match self.query {
            Source::Select(query) => select(&query, backend),
            Source::Insert(insert) => StatementBuilder::build(&*insert, &backend),
            Source::With(query) => StatementBuilder::build(&*query, &backend),
            Source::Sql(statement) => statement,
        }))
    }
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
