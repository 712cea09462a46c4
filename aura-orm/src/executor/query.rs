//! Runs statements and reads rows.
//!
//! Every statement is run here: reads on a reader, writes on the writer, both on the
//! connection of a transaction inside one. Every failure becomes an [`Error`] here.

use std::borrow::Cow;
use std::sync::Arc;

use sea_orm::sea_query::{
    DeleteStatement, InsertStatement, OnConflict, SelectStatement, UpdateStatement, ValueType,
};
use sea_orm::{
    ActiveModelTrait, DbErr, EntityTrait, IdenStatic, Insert, Iterable, QueryTrait, Select,
    StatementBuilder, Value,
};

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::executor::check::ensure_sendable;
use crate::executor::context::Backend;
use crate::executor::tx_connection::TxConnection;
use crate::fetched::{DecodedRows, Decoding, Fetched, Limit};
use crate::page::MAX_PAGE_BYTES;
use crate::postgres::{Pool, PooledConnection};
use crate::row::{EntityModel, ModelOf, RowDecoder, RowError, RowReader};
use crate::statement::{Statement, StatementKind};
use crate::typed_statement::{RowOf, TypedQuery, TypedStatement, distinct, returning, select};

/// No limit of rows but those that the statement has.
pub(crate) const ALL: usize = usize::MAX;

const BUILDING: &str = "building a statement";

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Runs a statement, reads its rows within a limit and consolidates them.
    pub(super) async fn rows<D: RowDecoder>(
        &self,
        statement: Statement,
        limit: impl Into<Limit> + Send,
    ) -> Result<Fetched<D::Row>, X> {
        let read = self.read(statement, Decoding::of::<D>(limit)).await?;
        let mut fetched = read.into_rows::<D>().context("reading")?;
        fetched.rows = D::consolidate(fetched.rows);
        Ok(fetched)
    }

    /// Runs a statement and reads its rows.
    async fn read(&self, statement: Statement, decoding: Decoding) -> Result<DecodedRows, Error> {
        ensure_sendable(&statement.values, self.backend())?;
        let mut logged = self.logged(&statement);
        let rows = if let Some(scope) = &self.scope {
            let writes = statement.writes();
            let changed = |rows: &DecodedRows| if writes { rows.count() as u64 } else { 0 };
            let run = async |connection: &TxConnection| connection.query(statement, decoding).await;
            scope.run(run, changed).await?
        } else {
            match &self.shared.backend {
                Backend::Sqlite(sqlite) if statement.writes() => {
                    self.query_write(sqlite, statement, decoding).await?
                }
                Backend::Sqlite(sqlite) => self.query_read(sqlite, statement, decoding).await?,
                // Boxed, so that the future of a read on SQLite stays small.
                Backend::Postgres(postgres) => {
                    Box::pin(self.query_on_server(postgres, statement, decoding)).await?
                }
            }
        };
        let count = rows.count() as u64;
        if let Some(logged) = &mut logged {
            logged.rows(count);
        }
        self.count_rows(count);
        Ok(rows)
    }

    async fn query_on_server(
        &self,
        postgres: &Pool,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<DecodedRows, Error> {
        if !statement.short {
            return self.query_alone(postgres, statement, decoding).await;
        }
        let statement = Arc::new(statement);
        let shared = postgres.query_shared(&statement, decoding).await;
        if let Some(rows) = shared.context("reading")? {
            return Ok(rows?);
        }
        let _counted = postgres.count_unshared();
        let statement = Arc::unwrap_or_clone(statement);
        self.query_alone(postgres, statement, decoding).await
    }

    async fn query_alone(
        &self,
        postgres: &Pool,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<DecodedRows, Error> {
        let (kind, may_write) = (statement.kind(), statement.may_write);
        let writes = statement.writes();
        let run =
            async |connection: &mut PooledConnection| connection.query(statement, decoding).await;
        let rows = self.on_server(postgres, kind, may_write, run).await?;
        rows.map_err(|error| error.of_done(writes).into())
    }

    /// Runs a statement and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn execute(&self, statement: Statement) -> Result<u64, X> {
        ensure_sendable(&statement.values, self.backend())?;
        let mut logged = self.logged(&statement);
        let changed = if let Some(scope) = &self.scope {
            let run = async |connection: &TxConnection| connection.execute(statement).await;
            scope.run(run, |changed| *changed).await?
        } else {
            match &self.shared.backend {
                Backend::Sqlite(sqlite) => self.execute_write(sqlite, statement).await?,
                Backend::Postgres(postgres) => {
                    let (kind, may_write) = (statement.kind(), statement.may_write);
                    let run = async |connection: &mut PooledConnection| {
                        connection.execute(statement).await
                    };
                    Box::pin(self.on_server(postgres, kind, may_write, run)).await?
                }
            }
        };
        if let Some(logged) = &mut logged {
            logged.rows(changed);
        }
        self.count_rows(changed);
        Ok(changed)
    }

    /// Runs a statement and returns all its rows, however large they are.
    ///
    /// # Errors
    ///
    /// [`Error::Row`] for a row that can't be read as the type, which says whether it is
    /// written all the same; [`Error::Timeout`] when the
    /// statement takes longer than `DB_STATEMENT_TIMEOUT`; [`Error::Busy`],
    /// [`Error::Unavailable`]; [`Error::OutcomeUnknown`] when it writes and its answer was
    /// lost; [`Error::Conflict`], [`Error::ForeignKey`], [`Error::NotNull`],
    /// [`Error::Check`], [`Error::TooLong`], and what else the database says of the
    /// statement; [`Error::Validation`] for a text or JSON with U+0000, and for more values
    /// than a statement can have, before it is sent.
    pub async fn fetch_all<Q: TypedStatement>(&self, query: Q) -> Result<Vec<RowOf<Q>>, X> {
        let statement = query.build(self.backend()).context(BUILDING)?;
        Ok(self.rows::<Q::Decoder>(statement, ALL).await?.rows)
    }

    /// Returns the rows of a statement, with an error in place of a row that can't be
    /// read. Of one that only reads, the first with at most [`MAX_PAGE_BYTES`] of values.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn fetch_results<Q: TypedStatement>(
        &self,
        query: Q,
    ) -> Result<Fetched<Result<RowOf<Q>, RowError>>, X> {
        let statement = query.build(self.backend()).context(BUILDING)?;
        let limit = page_limit(&statement, ALL);
        self.rows::<Result<Q::Decoder, RowError>>(statement, limit)
            .await
    }

    /// Returns the first row, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn fetch_optional<Q: TypedStatement>(&self, query: Q) -> Result<Option<RowOf<Q>>, X> {
        let statement = query.build_first(self.backend()).context(BUILDING)?;
        let limit = if Q::Decoder::CONSOLIDATES { ALL } else { 1 };
        let fetched = self.rows::<Q::Decoder>(statement, limit).await?;
        Ok(fetched.rows.into_iter().next())
    }

    /// Runs a statement and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn execute_typed<Q: TypedStatement>(&self, query: Q) -> Result<u64, X> {
        let statement = query.build(self.backend()).context(BUILDING)?;
        self.execute(statement).await
    }

    /// Returns the first rows of a select of an entity, read by a decoder: at most `rows`,
    /// and at most [`MAX_PAGE_BYTES`] of values.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub(crate) async fn read_rows<E: EntityTrait, D: RowDecoder>(
        &self,
        query: SelectStatement,
        rows: usize,
    ) -> Result<Fetched<D::Row>, X> {
        let mut statement = select(&query, self.backend());
        distinct::compare_json::<E>(&mut statement, self.backend());
        let limit = page_limit(&statement, rows);
        self.rows::<D>(statement, limit).await
    }

    /// Returns the first column of the first row, unless it is NULL.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn scalar<T, E>(&self, query: Select<E>) -> Result<Option<T>, X>
    where
        T: Send + 'static,
        Option<T>: ValueType,
        E: EntityTrait,
    {
        let statement = select(&query.into_query(), self.backend());
        let mut found = self.rows::<ScalarOf<E, T>>(statement, 1).await?;
        Ok(found.rows.pop().flatten())
    }

    /// Returns whether a query has a row.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn exists<E: EntityTrait>(&self, query: Select<E>) -> Result<bool, X> {
        use sea_orm::QuerySelect;
        use sea_orm::sea_query::Expr;
        let query = query.select_only().expr(Expr::val(1_i64)).limit(1);
        Ok(self.scalar::<i64, _>(query).await?.is_some())
    }

    /// Inserts a row and returns it as it is stored.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn insert<A>(&self, row: A) -> Result<<A::Entity as EntityTrait>::Model, X>
    where
        A: ActiveModelTrait<Entity: EntityModel> + Send,
    {
        let row = self.fetch_optional(Insert::one(row)).await?;
        Ok(row.ok_or_else(|| Error::Other {
            context: "writing",
            source: DbErr::RecordNotInserted.into(),
        })?)
    }

    /// Inserts a row, unless another has the same values in these columns, which are
    /// unique together. A conflict of another constraint is an error.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn insert_unless_taken<A>(
        &self,
        row: A,
        unique: &[<A::Entity as EntityTrait>::Column],
    ) -> Result<Option<<A::Entity as EntityTrait>::Model>, X>
    where
        A: ActiveModelTrait<Entity: EntityModel> + Send,
    {
        let unique = unique.iter().copied();
        let conflict = OnConflict::columns(unique).do_nothing().to_owned();
        self.insert_or(row, conflict).await
    }

    /// Inserts a row or resolves the conflict, and returns the inserted or updated row;
    /// `None` when the conflict's condition doesn't hold.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn insert_or<A>(
        &self,
        row: A,
        conflict: OnConflict,
    ) -> Result<Option<<A::Entity as EntityTrait>::Model>, X>
    where
        A: ActiveModelTrait<Entity: EntityModel> + Send,
    {
        let mut insert = Insert::one(row).into_query();
        insert.on_conflict(conflict);
        self.insert_returning::<A::Entity>(insert).await
    }

    /// Inserts at most one row and returns it.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn insert_returning<E: EntityModel>(
        &self,
        mut insert: InsertStatement,
    ) -> Result<Option<E::Model>, X> {
        insert.returning(returning::<E>(self.backend()));
        self.fetch_optional(TypedQuery::<ModelOf<E>>::insert(insert))
            .await
    }

    /// Updates rows and returns them as they are stored now.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn update_returning<E: EntityModel>(
        &self,
        update: UpdateStatement,
    ) -> Result<Vec<E::Model>, X> {
        self.fetch_all(TypedQuery::<ModelOf<E>>::update(update))
            .await
    }

    /// Updates a few rows and returns their number.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn update(&self, update: &UpdateStatement) -> Result<u64, X> {
        self.execute(self.built(StatementKind::Write, update)).await
    }

    /// Updates any number of rows and returns their number.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn update_many(&self, update: &UpdateStatement) -> Result<u64, X> {
        self.execute(self.built(StatementKind::BulkWrite, update))
            .await
    }

    /// Deletes a few rows and returns their number.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn delete(&self, delete: &DeleteStatement) -> Result<u64, X> {
        self.execute(self.built(StatementKind::Write, delete)).await
    }

    /// Deletes any number of rows, also in other tables by cascade, and returns their
    /// number.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn delete_many(&self, delete: &DeleteStatement) -> Result<u64, X> {
        self.execute(self.built(StatementKind::BulkWrite, delete))
            .await
    }

    /// Runs an insert of a few rows and returns their number.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn insert_rows(&self, insert: &InsertStatement) -> Result<u64, X> {
        self.execute(self.built(StatementKind::Write, insert)).await
    }

    fn built(&self, kind: StatementKind, statement: &impl StatementBuilder) -> Statement {
        Statement::of(kind, statement.build(&self.backend()))
    }

    /// Runs SQL that writes and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn sql(
        &self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: Vec<Value>,
    ) -> Result<u64, X> {
        self.execute(Statement::new(StatementKind::BulkWrite, sql, values))
            .await
    }

    /// Runs SQL that writes to an entity's table and returns the written rows, with an
    /// error in place of a row that can't be read, and was written all the same.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn sql_returning<E: EntityModel>(
        &self,
        kind: StatementKind,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Result<E::Model, RowError>>, X> {
        // By name: `*` is in the table's order, which a migration may change.
        let columns: Vec<_> = E::Column::iter().map(|column| column.as_str()).collect();
        let sql = format!("{sql}\nRETURNING \"{}\"", columns.join("\", \""));
        let statement = Statement::new(kind, sql, values);
        let written = self.rows::<Result<ModelOf<E>, RowError>>(statement, ALL);
        Ok(written.await?.rows)
    }
}

/// Returns the limit of a read that collects rows. A statement that may write is read to its
/// end.
fn page_limit(statement: &Statement, rows: usize) -> Limit {
    Limit {
        rows,
        bytes: if statement.may_write {
            usize::MAX
        } else {
            MAX_PAGE_BYTES
        },
    }
}

/// Reads one value of an entity's table.
pub(super) struct ScalarOf<E, T>(std::marker::PhantomData<(E, T)>);

impl<E: EntityTrait, T: Send + 'static> RowDecoder for ScalarOf<E, T>
where
    Option<T>: ValueType,
{
    type Row = Option<T>;

    fn decode(cells: &mut RowReader<'_>) -> Result<Option<T>, DbErr> {
        cells.begin_table(E::default().table_name());
        cells.next_value()
    }
}
