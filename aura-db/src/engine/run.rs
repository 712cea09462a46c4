//! The narrow waist: what runs statements and reads rows.
//!
//! Repositories describe (entities, typed columns), and this runs: reads on the
//! reader, writes on the writer, both on the transaction's connection inside
//! one. Everything that a statement can end with becomes an [`Error`] here.

use sea_orm::sea_query::{
    DeleteStatement, InsertStatement, OnConflict, Query, SelectStatement, UpdateStatement,
};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, FromQueryResult, Insert,
    Iterable, QueryResult, QueryTrait, RuntimeErr, Select, Selector, SelectorRaw, SelectorTrait,
    Statement, StatementBuilder, TryGetable, Value,
};

use crate::engine::Handle;
use crate::engine::json::as_written;
use crate::error::{Doing, Error};

/// A query whose rows have a type: [`Select`] of an entity,
/// `.into_model::<M>()` and `.into_tuple::<T>()` of one, and the same of raw
/// SQL with bound values.
pub trait Fetch: Send {
    /// What a row is read as.
    type Row: Send;

    /// The statement for this backend.
    fn statement(self, backend: DbBackend) -> Statement;

    /// Reads a row.
    fn decode(row: QueryResult) -> Result<Self::Row, Error>;
}

impl<E: EntityTrait> Fetch for Select<E>
where
    E::Model: Send,
{
    type Row = E::Model;

    fn statement(self, backend: DbBackend) -> Statement {
        self.build(backend)
    }

    fn decode(row: QueryResult) -> Result<E::Model, Error> {
        entity_row::<E>(&row)
    }
}

impl<S> Fetch for Selector<S>
where
    S: SelectorTrait + Send,
    S::Item: Send,
{
    type Row = S::Item;

    fn statement(self, backend: DbBackend) -> Statement {
        self.into_statement(backend)
    }

    fn decode(row: QueryResult) -> Result<S::Item, Error> {
        let id = row.try_get("", "id").ok();
        S::from_raw_query_result(row).map_err(|source| undecoded("a query", None, id, source))
    }
}

impl<S> Fetch for SelectorRaw<S>
where
    S: SelectorTrait + Send,
    S::Item: Send,
{
    type Row = S::Item;

    fn statement(self, _: DbBackend) -> Statement {
        self.into_statement()
    }

    fn decode(row: QueryResult) -> Result<S::Item, Error> {
        <Selector<S> as Fetch>::decode(row)
    }
}

/// A select of chosen columns into a type of this crate.
pub(crate) struct Rows<M> {
    pub(crate) table: &'static str,
    pub(crate) query: SelectStatement,
    pub(crate) row: std::marker::PhantomData<fn() -> M>,
}

impl<M> Rows<M> {
    pub(crate) fn of(table: &'static str, query: SelectStatement) -> Self {
        Self {
            table,
            query,
            row: std::marker::PhantomData,
        }
    }
}

/// A row of this crate's own shape.
pub(crate) trait Shape: Sized + Send {
    fn read(row: &QueryResult) -> Result<Self, DbErr>;
}

impl<M: Shape> Rows<M> {
    fn decode(table: &'static str, row: &QueryResult) -> Result<M, Error> {
        M::read(row).map_err(|source| undecoded(table, None, row.try_get("", "id").ok(), source))
    }
}

impl Handle {
    /// Runs a statement that returns rows.
    async fn rows(&self, statement: Statement, writes: bool) -> Result<Vec<QueryResult>, Error> {
        let doing = if writes { "writing" } else { "reading" };
        let rows = if let Some(scope) = &self.scope {
            let guard = scope.open.transaction.read().await;
            let transaction = guard.as_ref().ok_or(Error::Ended)?;
            let running = scope.open.enter(scope)?;
            let result = transaction.query_all_raw(statement).await.doing(doing);
            let changed = |rows: &Vec<QueryResult>| if writes { rows.len() as u64 } else { 0 };
            running.done(result.as_ref().map(changed));
            result?
        } else {
            let (connection, gate) = self.pool(writes);
            let _place = self.place(gate).await?;
            connection.query_all_raw(statement).await.doing(doing)?
        };
        self.count_rows(rows.len() as u64);
        Ok(rows)
    }

    /// Runs a statement that says how many rows it touched.
    pub(super) async fn count_touched(&self, statement: Statement) -> Result<u64, Error> {
        let touched = if let Some(scope) = &self.scope {
            let guard = scope.open.transaction.read().await;
            let transaction = guard.as_ref().ok_or(Error::Ended)?;
            let running = scope.open.enter(scope)?;
            let result = transaction.execute_raw(statement).await.doing("writing");
            running.done(result.as_ref().map(sea_orm::ExecResult::rows_affected));
            result?
        } else {
            let (connection, gate) = self.pool(true);
            let _place = self.place(gate).await?;
            connection.execute_raw(statement).await.doing("writing")?
        };
        let touched = touched.rows_affected();
        self.count_rows(touched);
        Ok(touched)
    }

    pub(crate) fn pool(
        &self,
        writes: bool,
    ) -> (
        &sea_orm::DatabaseConnection,
        &std::sync::Arc<tokio::sync::Semaphore>,
    ) {
        let shared = &*self.shared;
        if writes {
            (&shared.connections.writer, &shared.gates.writer)
        } else {
            (&shared.connections.reader, &shared.gates.reader)
        }
    }

    /// Every row of a query.
    pub(crate) async fn fetch_all<Q: Fetch>(&self, query: Q) -> Result<Vec<Q::Row>, Error> {
        let rows = self.rows(query.statement(self.backend()), false).await?;
        rows.into_iter().map(Q::decode).collect()
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional<Q: Fetch>(&self, query: Q) -> Result<Option<Q::Row>, Error> {
        let rows = self.rows(query.statement(self.backend()), false).await?;
        rows.into_iter().next().map(Q::decode).transpose()
    }

    /// Every row of a select, not yet read.
    pub(crate) async fn read_rows(
        &self,
        query: SelectStatement,
    ) -> Result<Vec<QueryResult>, Error> {
        let statement = StatementBuilder::build(&query, &self.backend());
        self.rows(statement, false).await
    }

    /// Every row of a query, in a shape of this crate's.
    pub(crate) async fn shaped<M: Shape>(&self, query: Rows<M>) -> Result<Vec<M>, Error> {
        let statement = StatementBuilder::build(&query.query, &self.backend());
        let rows = self.rows(statement, false).await?;
        rows.iter()
            .map(|row| Rows::<M>::decode(query.table, row))
            .collect()
    }

    /// The first column of the first row.
    pub(crate) async fn scalar<T, E>(&self, query: Select<E>) -> Result<Option<T>, Error>
    where
        T: TryGetable + Send,
        E: EntityTrait,
    {
        self.scalar_of(E::default().table_name(), query.into_query())
            .await
    }

    /// The first column of the first row, which may be NULL.
    pub(crate) async fn scalar_of<T>(
        &self,
        table: &'static str,
        query: SelectStatement,
    ) -> Result<Option<T>, Error>
    where
        T: TryGetable + Send,
    {
        let statement = StatementBuilder::build(&query, &self.backend());
        let rows = self.rows(statement, false).await?;
        let value = rows
            .first()
            .map(|row| row.try_get_by_index::<Option<T>>(0))
            .transpose()
            .map_err(|source| undecoded(table, None, None, source))?;
        Ok(value.flatten())
    }

    /// How many rows a query has.
    pub(crate) async fn count<E: EntityTrait>(&self, query: Select<E>) -> Result<u64, Error> {
        use sea_orm::sea_query::Expr;
        use sea_orm::{ExprTrait, QuerySelect};
        let query = query
            .select_only()
            .expr(Expr::col(sea_orm::sea_query::Asterisk).count());
        let count: Option<i64> = self.scalar(query).await?;
        Ok(count
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0))
    }

    /// Whether a query has a row.
    pub(crate) async fn exists<E: EntityTrait>(&self, query: Select<E>) -> Result<bool, Error> {
        use sea_orm::QuerySelect;
        use sea_orm::sea_query::Expr;
        let query = query.select_only().expr(Expr::val(1_i64)).limit(1);
        Ok(self.scalar::<i64, _>(query).await?.is_some())
    }

    /// Inserts a row and returns it as it is stored.
    pub(crate) async fn insert<A>(&self, row: A) -> Result<<A::Entity as EntityTrait>::Model, Error>
    where
        A: ActiveModelTrait + Send,
    {
        let mut rows = self.inserted::<A>(Insert::one(row).into_query()).await?;
        rows.pop().ok_or_else(nothing_returned)
    }

    /// Inserts a row unless another has its unique columns.
    pub(crate) async fn insert_unless_taken<A>(
        &self,
        row: A,
    ) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
    where
        A: ActiveModelTrait + Send,
    {
        let mut insert = Insert::one(row).into_query();
        insert.on_conflict(OnConflict::new().do_nothing().to_owned());
        Ok(self.inserted::<A>(insert).await?.pop())
    }

    /// Inserts a row, or does what is said when another has its unique columns,
    /// and returns the one or the other; nothing when that is not to be done.
    pub(crate) async fn insert_or<A>(
        &self,
        row: A,
        conflict: OnConflict,
    ) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
    where
        A: ActiveModelTrait + Send,
    {
        let mut insert = Insert::one(row).into_query();
        insert.on_conflict(conflict);
        Ok(self.inserted::<A>(insert).await?.pop())
    }

    async fn inserted<A>(
        &self,
        mut insert: InsertStatement,
    ) -> Result<Vec<<A::Entity as EntityTrait>::Model>, Error>
    where
        A: ActiveModelTrait,
    {
        insert.returning(Query::returning().columns(<A::Entity as EntityTrait>::Column::iter()));
        let statement = StatementBuilder::build(&insert, &self.backend());
        self.returned::<A::Entity>(statement).await
    }

    /// Inserts what a select finds, at most one row.
    pub(crate) async fn insert_selected<E: EntityTrait>(
        &self,
        mut insert: InsertStatement,
    ) -> Result<Option<E::Model>, Error> {
        insert.returning(Query::returning().columns(E::Column::iter()));
        let statement = StatementBuilder::build(&insert, &self.backend());
        Ok(self.returned::<E>(statement).await?.pop())
    }

    /// Updates rows and returns them as they are now.
    pub(crate) async fn update_returning<E: EntityTrait>(
        &self,
        mut update: UpdateStatement,
    ) -> Result<Vec<E::Model>, Error> {
        update.returning(Query::returning().columns(E::Column::iter()));
        let statement = StatementBuilder::build(&update, &self.backend());
        self.returned::<E>(statement).await
    }

    async fn returned<E: EntityTrait>(&self, statement: Statement) -> Result<Vec<E::Model>, Error> {
        let rows = self.rows(as_written(statement), true).await?;
        rows.iter().map(entity_row::<E>).collect()
    }

    /// Updates rows and returns how many.
    pub(crate) async fn update(&self, update: &UpdateStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(update, &self.backend());
        self.count_touched(as_written(statement)).await
    }

    /// Deletes rows and returns how many.
    pub(crate) async fn delete(&self, delete: &DeleteStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(delete, &self.backend());
        self.count_touched(statement).await
    }

    /// Runs a statement of the caller's and returns how many rows it touched.
    pub(crate) async fn execute<S: StatementBuilder + Send>(
        &self,
        statement: S,
    ) -> Result<u64, Error> {
        self.count_touched(statement.build(&self.backend())).await
    }

    /// Runs a statement of this crate's own SQL, and returns how many rows it
    /// touched.
    pub(crate) async fn sql(&self, sql: &'static str, values: Vec<Value>) -> Result<u64, Error> {
        self.count_touched(Statement::from_sql_and_values(self.backend(), sql, values))
            .await
    }

    /// Runs a statement of this crate's own SQL that writes, and returns its
    /// rows.
    pub(crate) async fn sql_returning<E: EntityTrait>(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<E::Model>, Error> {
        self.returned::<E>(Statement::from_sql_and_values(self.backend(), sql, values))
            .await
    }
}

fn nothing_returned() -> Error {
    Error::Other {
        doing: "writing",
        source: DbErr::RecordNotInserted,
    }
}

pub(crate) fn entity_row<E: EntityTrait>(row: &QueryResult) -> Result<E::Model, Error> {
    entity_part::<E>(row, "")
}

/// One entity of a row that has several, each with a prefix.
pub(crate) fn entity_part<E: EntityTrait>(
    row: &QueryResult,
    prefix: &str,
) -> Result<E::Model, Error> {
    E::Model::from_query_result(row, prefix).map_err(|source| {
        let column = broken_column::<E>(row, prefix, &source);
        let id = row.try_get(prefix, "id").ok();
        undecoded(E::default().table_name(), column, id, source)
    })
}

/// A row that can't be read.
pub(crate) fn undecoded(
    table: &'static str,
    column: Option<String>,
    id: Option<i64>,
    source: DbErr,
) -> Error {
    Error::Inconsistent {
        table: table.to_owned(),
        column,
        id,
        source,
    }
}

/// Which column a row's error is about. The driver names it; an enum's error
/// only quotes the word that it doesn't know.
fn broken_column<E: EntityTrait>(row: &QueryResult, prefix: &str, error: &DbErr) -> Option<String> {
    use sea_orm::{ColumnTrait, Iden};
    if let DbErr::Query(RuntimeErr::SqlxError(error)) = error
        && let sqlx::Error::ColumnDecode { index, .. } = &**error
    {
        let name = index.trim_matches('"');
        return Some(name.strip_prefix(prefix).unwrap_or(name).to_owned());
    }
    let message = error.to_string();
    E::Column::iter().find_map(|column| {
        let word: String = row.try_get(prefix, &column.to_string()).ok()?;
        let closed_set = column.def().get_column_type().is_closed_set();
        (closed_set && message.contains(&word)).then(|| column.to_string())
    })
}

/// Whether a column holds one of our words.
trait ClosedSet {
    fn is_closed_set(&self) -> bool;
}

impl ClosedSet for sea_orm::ColumnType {
    fn is_closed_set(&self) -> bool {
        matches!(self, Self::String(sea_orm::sea_query::StringLen::N(16)))
    }
}
