//! Runs statements and reads rows.
//!
//! Every statement of this crate is run here: reads on a reader, writes on the writer,
//! both on the connection of a transaction inside one. Every failure becomes an
//! [`Error`] here.

use aura_orm::{Statement as Prepared, StatementKind};
use sea_orm::sea_query::{
    DeleteStatement, InsertStatement, OnConflict, Query, SelectStatement, UpdateStatement,
};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbErr, EntityTrait, IdenStatic, Insert, Iterable,
    QueryTrait, Select, Statement, StatementBuilder, Value,
};

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::executor::postgres::PooledConnection;
use crate::executor::row::{FromRow, RowReader};
use crate::executor::statement::{TypedQuery, TypedStatement, built, driven, select};
use crate::executor::tx_connection::{context, read_all, reading};
use crate::executor::typed_query::{Fetch, decode_all};

impl Executor {
    /// Runs a statement and reads its rows.
    async fn rows<T, R>(
        &self,
        statement: Prepared,
        kind: StatementKind,
        read: R,
    ) -> Result<Vec<T>, Error>
    where
        R: Fn(&mut RowReader<'_>) -> Result<T, DbErr> + Clone + Send + 'static,
        T: Send + 'static,
    {
        let mut logged = self.logged(&statement);
        let rows = if let Some(scope) = &self.scope {
            let guard = scope.open.connection.read().await;
            let connection = guard.as_ref().ok_or(Error::Ended)?;
            let running = scope.open.enter(scope)?;
            let rows = connection.query(statement, kind, read).await;
            let changed = |rows: &Vec<T>| {
                if kind == StatementKind::Read {
                    0
                } else {
                    rows.len() as u64
                }
            };
            running.done(rows.as_ref().map(changed));
            rows?
        } else if let Some(sqlite) = &self.shared.sqlite {
            if kind == StatementKind::Read {
                let rows = sqlite.readers.query(statement, reading(read));
                rows.await.context("reading")?
            } else {
                self.query_write(sqlite, statement, kind, read).await?
            }
        } else if let Some(postgres) = &self.shared.postgres {
            let rows = self.on_server(postgres, kind, async |connection: &mut PooledConnection| {
                connection.query(statement, read).await
            });
            // Boxed, so that the future of a read on SQLite stays small.
            Box::pin(rows).await??
        } else {
            let (connection, permits) = self.pool(kind != StatementKind::Read);
            let _place = self.acquire_permit(permits).await?;
            let statement = driven(statement, self.backend());
            let rows = connection.query_all_raw(statement).await;
            read_all(&rows.context(context(kind))?, read)?
        };
        if let Some(logged) = &mut logged {
            logged.rows(rows.len() as u64);
        }
        self.count_rows(rows.len() as u64);
        Ok(rows)
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(super) async fn execute_prepared(
        &self,
        statement: Prepared,
        kind: StatementKind,
    ) -> Result<u64, Error> {
        let mut logged = self.logged(&statement);
        let touched = if let Some(scope) = &self.scope {
            let guard = scope.open.connection.read().await;
            let connection = guard.as_ref().ok_or(Error::Ended)?;
            let running = scope.open.enter(scope)?;
            let touched = connection.execute(statement, kind).await;
            running.done(touched.as_ref().copied());
            touched?
        } else if let Some(sqlite) = &self.shared.sqlite {
            self.execute_write(sqlite, statement, kind).await?
        } else if let Some(postgres) = &self.shared.postgres {
            let touched =
                self.on_server(postgres, kind, async |connection: &mut PooledConnection| {
                    connection.execute(statement).await
                });
            Box::pin(touched).await?
        } else {
            let (connection, permits) = self.pool(true);
            let _place = self.acquire_permit(permits).await?;
            let statement = driven(statement, self.backend());
            let done = connection.execute_raw(statement).await.context("writing")?;
            done.rows_affected()
        };
        if let Some(logged) = &mut logged {
            logged.rows(touched);
        }
        self.count_rows(touched);
        Ok(touched)
    }

    /// Returns the rows of a query that only `SeaORM` can read.
    pub(crate) async fn fetch_all<Q: Fetch>(&self, query: Q) -> Result<Vec<Q::Row>, Error> {
        let statement = built(query.statement(self.backend()));
        let rows = if let Some(scope) = &self.scope {
            let guard = scope.open.connection.read().await;
            let connection = guard.as_ref().ok_or(Error::Ended)?;
            let running = scope.open.enter(scope)?;
            let rows = connection.fetch(statement).await;
            running.done(rows.as_ref().map(|_| 0));
            rows?
        } else if let Some(postgres) = &self.shared.postgres {
            let rows = self.on_server(
                postgres,
                StatementKind::Read,
                async |connection: &mut PooledConnection| connection.fetch(statement).await,
            );
            Box::pin(rows).await?
        } else {
            if let Some(sqlite) = &self.shared.sqlite {
                sqlite.check_file("reading")?;
            }
            let (connection, permits) = self.pool(false);
            let _place = self.acquire_permit(permits).await?;
            let statement = driven(statement, self.backend());
            connection
                .query_all_raw(statement)
                .await
                .context("reading")?
        };
        decode_all::<Q>(rows)
    }

    /// Returns the rows of a query.
    pub(crate) async fn all<Q: TypedStatement>(&self, query: Q) -> Result<Vec<Q::Row>, Error> {
        let statement = query.statement(self.backend())?;
        self.rows(statement, StatementKind::Read, Q::Row::read)
            .await
    }

    /// Returns the rows of a query, with an error in place of a row that can't be read.
    pub(crate) async fn all_or_report<Q: TypedStatement>(
        &self,
        query: Q,
    ) -> Result<Vec<Result<Q::Row, Error>>, Error> {
        let statement = query.statement(self.backend())?;
        self.rows(statement, StatementKind::Read, FromRow::read)
            .await
    }

    /// Runs a statement that writes a few rows, and returns its rows.
    pub(crate) async fn write_rows<Q: TypedStatement>(
        &self,
        query: Q,
    ) -> Result<Vec<Q::Row>, Error> {
        let statement = query.statement(self.backend())?;
        self.rows(statement, StatementKind::Write, Q::Row::read)
            .await
    }

    /// Runs a statement that writes a few rows, and returns the number of rows that it
    /// changed.
    pub(crate) async fn touch<Q: TypedStatement>(&self, query: Q) -> Result<u64, Error> {
        let statement = query.statement(self.backend())?;
        self.execute_prepared(statement, StatementKind::Write).await
    }

    /// Returns the first row, if there is one.
    pub(crate) async fn optional<Q: TypedStatement>(
        &self,
        query: Q,
    ) -> Result<Option<Q::Row>, Error> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// Returns the rows of a select, read by a closure.
    pub(crate) async fn read_rows<T, R>(
        &self,
        query: SelectStatement,
        read: R,
    ) -> Result<Vec<T>, Error>
    where
        R: Fn(&mut RowReader<'_>) -> Result<T, DbErr> + Clone + Send + 'static,
        T: Send + 'static,
    {
        let statement = select(&query, self.backend());
        self.rows(built(statement), StatementKind::Read, read).await
    }

    /// Returns the first column of the first row, unless it is NULL.
    pub(crate) async fn scalar<T, E>(&self, query: Select<E>) -> Result<Option<T>, Error>
    where
        Option<T>: FromRow,
        E: EntityTrait,
    {
        let table = E::default().table_name();
        let read = move |cells: &mut RowReader<'_>| {
            cells.of(table);
            <Option<T>>::read(cells)
        };
        let found = self.read_rows(query.into_query(), read).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// Returns the number of rows of a query.
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

    /// Returns whether a query has a row.
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
        <A::Entity as EntityTrait>::Model: FromRow,
    {
        let mut rows = self.inserted::<A>(Insert::one(row).into_query()).await?;
        rows.pop().ok_or_else(nothing_returned)
    }

    /// Inserts a row, unless another has the same values in these columns, which are
    /// unique together. A conflict of another constraint is an error.
    pub(crate) async fn insert_unless_taken<A>(
        &self,
        row: A,
        unique: &[<A::Entity as EntityTrait>::Column],
    ) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
    where
        A: ActiveModelTrait + Send,
        <A::Entity as EntityTrait>::Model: FromRow,
    {
        let mut insert = Insert::one(row).into_query();
        let unique = unique.iter().copied();
        insert.on_conflict(OnConflict::columns(unique).do_nothing().to_owned());
        Ok(self.inserted::<A>(insert).await?.pop())
    }

    /// Inserts a row or resolves the conflict, and returns the inserted or updated row;
    /// `None` when the conflict's condition doesn't hold.
    pub(crate) async fn insert_or<A>(
        &self,
        row: A,
        conflict: OnConflict,
    ) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
    where
        A: ActiveModelTrait + Send,
        <A::Entity as EntityTrait>::Model: FromRow,
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
        <A::Entity as EntityTrait>::Model: FromRow,
    {
        insert.returning(Query::returning().columns(<A::Entity as EntityTrait>::Column::iter()));
        let statement = StatementBuilder::build(&insert, &self.backend());
        self.returned::<A::Entity>(statement, StatementKind::Write)
            .await
    }

    /// Inserts what a select returns, at most one row.
    pub(crate) async fn insert_selected<E: EntityTrait>(
        &self,
        mut insert: InsertStatement,
    ) -> Result<Option<E::Model>, Error>
    where
        E::Model: FromRow,
    {
        insert.returning(Query::returning().columns(E::Column::iter()));
        Ok(self.write_rows(TypedQuery::inserted(insert)).await?.pop())
    }

    /// Updates rows and returns them as they are stored now.
    pub(crate) async fn update_returning<E: EntityTrait>(
        &self,
        mut update: UpdateStatement,
    ) -> Result<Vec<E::Model>, Error>
    where
        E::Model: FromRow,
    {
        update.returning(Query::returning().columns(E::Column::iter()));
        let statement = StatementBuilder::build(&update, &self.backend());
        self.returned::<E>(statement, StatementKind::Write).await
    }

    async fn returned<E: EntityTrait>(
        &self,
        statement: Statement,
        kind: StatementKind,
    ) -> Result<Vec<E::Model>, Error>
    where
        E::Model: FromRow,
    {
        self.rows(built(statement), kind, E::Model::read).await
    }

    /// Updates a few rows and returns their number.
    pub(crate) async fn update(&self, update: &UpdateStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(update, &self.backend());
        self.execute_prepared(built(statement), StatementKind::Write)
            .await
    }

    /// Updates any number of rows and returns their number.
    pub(crate) async fn update_many(&self, update: &UpdateStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(update, &self.backend());
        self.execute_prepared(built(statement), StatementKind::BulkWrite)
            .await
    }

    /// Deletes a few rows and returns their number.
    pub(crate) async fn delete(&self, delete: &DeleteStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(delete, &self.backend());
        self.execute_prepared(built(statement), StatementKind::Write)
            .await
    }

    /// Deletes any number of rows, also in other tables by cascade, and returns their
    /// number.
    pub(crate) async fn delete_many(&self, delete: &DeleteStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(delete, &self.backend());
        self.execute_prepared(built(statement), StatementKind::BulkWrite)
            .await
    }

    /// Runs a statement of an application and returns the number of rows that it changed.
    pub(crate) async fn execute<S: StatementBuilder + Send>(
        &self,
        statement: S,
    ) -> Result<u64, Error> {
        let statement = statement.build(&self.backend());
        self.execute_prepared(built(statement), StatementKind::BulkWrite)
            .await
    }

    /// Runs an insert and returns the number of rows.
    pub(crate) async fn insert_rows(&self, insert: &InsertStatement) -> Result<u64, Error> {
        let statement = StatementBuilder::build(insert, &self.backend());
        self.execute_prepared(built(statement), StatementKind::Write)
            .await
    }

    /// Runs SQL and returns the number of rows that it changed.
    pub(crate) async fn sql(&self, sql: &'static str, values: Vec<Value>) -> Result<u64, Error> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.execute_prepared(built(statement), StatementKind::BulkWrite)
            .await
    }

    /// Runs SQL that writes to an entity's table and returns the written rows, with an
    /// error in place of a row that can't be read, and was written all the same.
    pub(crate) async fn sql_returning<E: EntityTrait>(
        &self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Result<E::Model, Error>>, Error>
    where
        E::Model: FromRow,
    {
        // By name: `*` is in the table's order, which a migration may change.
        let columns: Vec<_> = E::Column::iter().map(|column| column.as_str()).collect();
        let sql = format!("{sql}\nRETURNING \"{}\"", columns.join("\", \""));
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        self.rows(built(statement), StatementKind::BulkWrite, FromRow::read)
            .await
    }
}

fn nothing_returned() -> Error {
    Error::Other {
        context: "writing",
        source: DbErr::RecordNotInserted,
    }
}
