//! Statements whose rows have a type.

pub(crate) mod distinct;

use std::marker::PhantomData;

use sea_orm::sea_query::{
    InsertStatement, Query, ReturningClause, SelectStatement, UpdateStatement, WithClause,
    WithQuery,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbBackend, DbErr, DeleteMany, EntityTrait, FromQueryResult,
    Insert, Iterable, QueryTrait, Select, SelectFive, SelectFour, SelectGetableTuple, SelectModel,
    SelectSix, SelectThree, SelectTwo, SelectTwoMany, SelectTwoRequired, Selector, SelectorRaw,
    SelectorTrait, StatementBuilder, Topology, TryGetableMany, UpdateMany, Value, Values,
};
use serde::de::DeserializeOwned;

use crate::row::{
    Deserialized, EntityModel, JoinedModels, ModelOf, RelatedModels, RowDecoder, TwoRequiredModels,
};
use crate::{Statement, StatementKind};

/// A statement whose rows have a type.
///
/// * A [`Select`] of any entity returns its models; joined with others by
///   `find_also_related`, `find_also_linked` or `find_both_related`, the models of each.
///   With `distinct()`, documents are compared by their text. (In tuples and models of your
///   own PostgreSQL refuses a column of its type `json` there: cast it to text.)
/// * `find_with_related` and `find_with_linked` return each model once, with all that is
///   related to it, in the order of the statement. A LIMIT counts joined rows, as in
///   `SeaORM`. For the first model all rows are read: filter by its key.
/// * `.into_tuple::<(A, B)>()` returns tuples. For one column of a type of your own, as an
///   id, take `(A,)`.
/// * `.into_model::<T>()` and `.into_partial_model::<T>()` return any `T` that is also
///   deserialized by serde: its fields are the columns of these names.
/// * An insert, update or delete of an entity returns the models that it wrote.
/// * [`TypedQuery`] is for SQL.
///
/// A select of three and more entities that is grouped by `consolidate()` is none: only
/// `SeaORM` can build it.
#[diagnostic::on_unimplemented(
    message = "the rows of `{Self}` can't be read",
    note = "for a select with `consolidate()`, fetch the joined rows without it, or use \
            `find_with_related`",
    note = "for a type of your own behind `into_model`, derive `serde::Deserialize`"
)]
pub trait TypedStatement: Send {
    /// How a row is read.
    type Decoder: RowDecoder;

    /// Builds the statement for a backend.
    ///
    /// # Errors
    ///
    /// What can't be built for it.
    fn build(self, backend: DbBackend) -> Result<Statement, DbErr>;

    /// Builds the statement for a caller that reads the first row only.
    ///
    /// # Errors
    ///
    /// As [`TypedStatement::build`].
    fn build_first(self, backend: DbBackend) -> Result<Statement, DbErr>
    where
        Self: Sized,
    {
        self.build(backend)
    }
}

/// The type of a statement's rows.
pub type RowOf<Q> = <<Q as TypedStatement>::Decoder as RowDecoder>::Row;

/// Builds a query. Its LIMIT is a literal on PostgreSQL, which takes an unknown one
/// for a tenth of the rows, finds the general plan dear beside one for the real
/// limit, and so would plan anew at each call (`preprocess_limit` in
/// src/backend/optimizer/plan/planner.c, `choose_custom_plan` in
/// src/backend/utils/cache/plancache.c). SQLite keeps what it has prepared.
#[must_use]
pub fn select(query: &SelectStatement, backend: DbBackend) -> Statement {
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
    Statement::of(StatementKind::Read, statement)
}

/// Returns the RETURNING clause with all columns of an entity, in the order in which its
/// models are read.
#[must_use]
pub fn returning<E: EntityTrait>(backend: DbBackend) -> ReturningClause {
    let columns = E::Column::iter();
    Query::returning().exprs(columns.map(|column| {
        let expression = column.into_returning_expr(backend);
        column.select_as(expression)
    }))
}

macro_rules! selects {
    ($($select:ty, [$($entity:ident),+ $(; $topology:ident)?] => $decoder:ty;)+) => {
        $(impl<$($entity: EntityModel,)+ $($topology: Topology + Send)?> TypedStatement for $select {
            type Decoder = $decoder;

            fn build(self, backend: DbBackend) -> Result<Statement, DbErr> {
                let mut statement = select(&self.into_query(), backend);
                $(distinct::compare_json::<$entity>(&mut statement, backend);)+
                Ok(statement)
            }

            fn build_first(self, backend: DbBackend) -> Result<Statement, DbErr> {
                let mut query = self.into_query();
                if !<$decoder>::CONSOLIDATES {
                    query.reset_limit().limit(1);
                }
                let mut statement = select(&query, backend);
                $(distinct::compare_json::<$entity>(&mut statement, backend);)+
                Ok(statement)
            }
        })+
    };
}

selects! {
    Select<E>, [E] => ModelOf<E>;
    SelectTwo<E, F>, [E, F] => JoinedModels<(E, F)>;
    SelectTwoRequired<E, F>, [E, F] => TwoRequiredModels<E, F>;
    SelectTwoMany<E, F>, [E, F] => RelatedModels<E, F>;
    SelectThree<E, F, G, T>, [E, F, G; T] => JoinedModels<(E, F, G)>;
    SelectFour<E, F, G, H, T>, [E, F, G, H; T] => JoinedModels<(E, F, G, H)>;
    SelectFive<E, F, G, H, I, T>, [E, F, G, H, I; T] => JoinedModels<(E, F, G, H, I)>;
    SelectSix<E, F, G, H, I, J, T>, [E, F, G, H, I, J; T] => JoinedModels<(E, F, G, H, I, J)>;
}

/// How the rows are read that `SeaORM` reads through a selector.
pub trait SelectorRows: SelectorTrait {
    /// The decoder.
    type Decoder: RowDecoder;
}

impl<M: FromQueryResult + DeserializeOwned + Send + 'static> SelectorRows for SelectModel<M> {
    type Decoder = Deserialized<M>;
}

impl<T: TryGetableMany + RowDecoder> SelectorRows for SelectGetableTuple<T> {
    type Decoder = T;
}

impl<S: SelectorRows + Send> TypedStatement for Selector<S> {
    type Decoder = S::Decoder;

    fn build(self, backend: DbBackend) -> Result<Statement, DbErr> {
        let statement = self.into_statement(backend);
        Ok(Statement::of(StatementKind::Read, statement))
    }
}

impl<S: SelectorRows + Send> TypedStatement for SelectorRaw<S> {
    type Decoder = S::Decoder;

    fn build(self, _: DbBackend) -> Result<Statement, DbErr> {
        Ok(Statement::classify(self.into_statement()))
    }
}

macro_rules! writes {
    ($($write:ty, [$($parameters:tt)+], $entity:ty, $kind:ident;)+) => {
        $(impl<$($parameters)+> TypedStatement for $write {
            type Decoder = ModelOf<$entity>;

            fn build(self, backend: DbBackend) -> Result<Statement, DbErr> {
                let mut query = self.into_query();
                query.returning(returning::<$entity>(backend));
                let statement = StatementBuilder::build(&query, &backend);
                Ok(Statement::of(StatementKind::$kind, statement))
            }
        })+
    };
}

writes! {
    Insert<A>, [A: ActiveModelTrait<Entity: EntityModel> + Send], A::Entity, Write;
    UpdateMany<E>, [E: EntityModel], E, BulkWrite;
    DeleteMany<E>, [E: EntityModel], E, BulkWrite;
}

/// A statement with the columns that `D` reads.
pub struct TypedQuery<D> {
    query: Source,
    decoder: PhantomData<fn() -> D>,
}

enum Source {
    Select(Box<SelectStatement>),
    Insert(Box<InsertStatement>),
    Update(Box<UpdateStatement>, fn(DbBackend) -> ReturningClause),
    With(Box<WithQuery>),
    Sql(Statement),
}

impl<D: RowDecoder> TypedQuery<D> {
    fn new(query: Source) -> Self {
        Self {
            query,
            decoder: PhantomData,
        }
    }

    /// Wraps a select.
    #[must_use]
    pub fn of(select: SelectStatement) -> Self {
        Self::new(Source::Select(Box::new(select)))
    }

    /// Wraps an insert of a few rows, with its RETURNING.
    #[must_use]
    pub fn insert(insert: InsertStatement) -> Self {
        Self::new(Source::Insert(Box::new(insert)))
    }

    /// Wraps SQL: its first word says whether it writes.
    #[must_use]
    pub fn sql(statement: sea_orm::Statement) -> Self {
        Self::new(Source::Sql(Statement::classify(statement)))
    }
}

impl<E: EntityModel> TypedQuery<ModelOf<E>> {
    /// Wraps an update of a few rows, which returns them.
    #[must_use]
    pub fn update(update: UpdateStatement) -> Self {
        Self::new(Source::Update(Box::new(update), returning::<E>))
    }

    /// Wraps an update of a few rows with common table expressions, for PostgreSQL.
    #[must_use]
    pub fn update_with(mut update: UpdateStatement, with: WithClause) -> Self {
        update.returning(returning::<E>(DbBackend::Postgres));
        Self::new(Source::With(Box::new(update.with(with))))
    }
}

impl<D: RowDecoder> TypedStatement for TypedQuery<D> {
    type Decoder = D;

    fn build(self, backend: DbBackend) -> Result<Statement, DbErr> {
        let statement = match self.query {
            Source::Select(query) => return Ok(select(&query, backend)),
            Source::Insert(insert) => StatementBuilder::build(&*insert, &backend),
            Source::Update(mut update, returning) => {
                update.returning(returning(backend));
                StatementBuilder::build(&*update, &backend)
            }
            Source::With(query) => StatementBuilder::build(&*query, &backend),
            Source::Sql(statement) => return Ok(statement),
        };
        Ok(Statement::of(StatementKind::Write, statement))
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::entity::prelude::*;
    use sea_orm::{QueryFilter, QuerySelect, QueryTrait};

    use super::*;

    #[allow(unreachable_pub, reason = "the macro makes others")]
    mod note {
        use super::*;

        #[sea_orm::model]
        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "note")]
        pub struct Model {
            #[sea_orm(primary_key)]
            pub id: i64,
        }

        impl ActiveModelBehavior for ActiveModel {}
    }

    fn of(select: sea_orm::Select<note::Entity>, backend: DbBackend) -> (String, usize) {
        let statement = super::select(&select.into_query(), backend);
        (statement.sql.into_owned(), statement.values.len())
    }

    #[test]
    fn a_limit_is_a_literal_on_postgresql() {
        let some = || note::Entity::find().filter(note::COLUMN.id.gt(7)).limit(50);
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
        let unlimited = note::Entity::find().filter(note::COLUMN.id.gt(7));
        let (sql, values) = of(unlimited, DbBackend::Postgres);
        assert!(sql.ends_with(r#""id" > $1"#), "{sql}");
        assert_eq!(values, 1);
    }

    #[test]
    fn the_first_row_is_all_that_is_asked_for() {
        let many = note::Entity::find().limit(50);
        let statement = many.build_first(DbBackend::Postgres).expect("built");
        assert!(statement.sql.ends_with("LIMIT 1"), "{}", statement.sql);
    }

    #[test]
    fn a_write_names_the_columns_that_it_returns() {
        let update = note::Entity::update_many().col_expr(note::Column::Id, Expr::val(2_i64));
        let update = TypedStatement::build(update, DbBackend::Sqlite).expect("built");
        assert!(update.sql.ends_with(r#"RETURNING "id""#), "{}", update.sql);
        assert!(update.writes());
    }
}
