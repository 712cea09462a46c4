//! A connection in use, and what its errors say about it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aura_orm::row::Columns;
use aura_orm::{RowDecoder, RowError, RowReader, Statement};
use futures_util::TryStreamExt;
use sea_orm::sea_query::Values;
use sea_orm::{DbErr, RuntimeErr};
use sea_query_sqlx::SqlxValues;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor};

use super::pool::{IdleConnection, MAX_USES, PoolInner};
use crate::error::is_outdated_plan;
use crate::executor::transaction::Isolation;

/// The state of a connection after its last statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionState {
    Healthy,
    /// The server gave no answer.
    TimedOut,
    /// The connection has ended.
    Closed,
    /// The server is read-only.
    ReadOnly,
}

/// A connection in use.
pub(crate) struct PooledConnection {
    pub(super) pool: Arc<PoolInner>,
    pub(super) connection: Option<PoolConnection<Postgres>>,
    pub(super) uses: u32,
    /// A statement was dropped or has failed: the pool checks it.
    pub(super) needs_check: bool,
    /// A transaction was begun, and its end is not known.
    pub(super) open: bool,
    /// It is closed instead of returned.
    pub(super) discard: bool,
    pub(super) state: ConnectionState,
}

/// The rows of a statement, read as they arrive.
struct Rows<D: RowDecoder> {
    limit: usize,
    columns: Columns,
    read: Result<Vec<D::Row>, RowError>,
}

impl<D: RowDecoder> Rows<D> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            columns: Columns::default(),
            read: Ok(Vec::new()),
        }
    }

    fn arrived(&mut self, row: &PgRow) {
        let Some(rows) = self
            .read
            .as_mut()
            .ok()
            .filter(|rows| rows.len() < self.limit)
        else {
            return;
        };
        match RowReader::postgres(row, &self.columns).read(D::decode) {
            Ok(row) => rows.push(row),
            Err(error) => self.read = Err(error),
        }
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection").finish_non_exhaustive()
    }
}

impl PooledConnection {
    /// Runs a statement and reads at most `limit` rows as they arrive. The inner error
    /// is the first row's that can't be read.
    pub(crate) async fn query<D: RowDecoder>(
        &mut self,
        statement: Statement,
        limit: usize,
    ) -> Result<Result<Vec<D::Row>, RowError>, DbErr> {
        let kept = self.kept_for_again(&statement);
        let mut rows = Rows::<D>::new(limit);
        let done = self.rows_once(statement, &mut rows).await;
        if let Some(statement) = self.again(done, kept).await? {
            self.rows_once(statement, &mut rows).await?;
        }
        Ok(rows.read)
    }

    async fn rows_once<D: RowDecoder>(
        &mut self,
        statement: Statement,
        rows: &mut Rows<D>,
    ) -> Result<(), DbErr> {
        self.run(async |connection| {
            let mut steps = connection.fetch_many(bound(statement));
            while let Some(step) = steps.try_next().await? {
                if let Either::Right(row) = step {
                    rows.arrived(&row);
                }
            }
            Ok(())
        })
        .await
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64, DbErr> {
        let kept = self.kept_for_again(&statement);
        let mut touched = 0;
        let done = self.execute_once(statement, &mut touched).await;
        if let Some(statement) = self.again(done, kept).await? {
            self.execute_once(statement, &mut touched).await?;
        }
        Ok(touched)
    }

    async fn execute_once(&mut self, statement: Statement, touched: &mut u64) -> Result<(), DbErr> {
        self.run(async |connection| {
            let done = connection.execute(bound(statement)).await?;
            *touched = done.rows_affected();
            Ok(())
        })
        .await
    }

    /// Returns a copy of a statement that may run again: not in a transaction.
    fn kept_for_again(&self, statement: &Statement) -> Option<Statement> {
        (!self.open).then(|| statement.clone())
    }

    /// Returns the statement when it is to be run again: the schema has changed since the
    /// connection prepared it, and the server refused it before it did anything. The
    /// connection's prepared statements are dropped. In a transaction the connection is
    /// closed at its end.
    async fn again(
        &mut self,
        done: Result<(), DbErr>,
        kept: Option<Statement>,
    ) -> Result<Option<Statement>, DbErr> {
        match done {
            Err(error) if is_outdated(&error) => {
                if kept.is_none() {
                    self.discard = true;
                    return Err(error);
                }
                self.run(async |connection| connection.clear_cached_statements().await)
                    .await?;
                Ok(kept)
            }
            done => done.map(|()| None),
        }
    }

    /// Runs SQL without values or rows, as for savepoints.
    pub(crate) async fn execute_sql(&mut self, sql: &'static str) -> Result<(), DbErr> {
        self.run(async |connection| connection.execute(sql).await)
            .await
            .map(drop)
    }

    /// Begins a transaction. Dropped halfway, the connection is closed.
    pub(super) async fn begin(&mut self, isolation: Isolation) -> Result<(), DbErr> {
        self.open = true;
        self.execute_sql(match isolation {
            Isolation::Default => "BEGIN",
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        })
        .await
    }

    /// Ends the transaction. Dropped halfway, or after a failure, the connection is
    /// closed.
    pub(crate) async fn end(&mut self, commit: bool) -> Result<(), DbErr> {
        if self.state == ConnectionState::TimedOut && !commit {
            // The connection is closed, without another wait.
            return Ok(());
        }
        self.execute_sql(if commit { "COMMIT" } else { "ROLLBACK" })
            .await?;
        self.open = false;
        Ok(())
    }

    async fn run<T>(
        &mut self,
        run: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, DbErr> {
        let connection = self
            .connection
            .as_mut()
            .ok_or_else(|| failed(sqlx::Error::PoolClosed))?;
        let before = std::mem::replace(&mut self.needs_check, true);
        let (state, done) = match self.pool.response_timeout {
            None => (ConnectionState::Healthy, run(connection).await),
            Some(limit) => match tokio::time::timeout(limit, run(connection)).await {
                Ok(done) => (ConnectionState::Healthy, done),
                Err(_) => (ConnectionState::TimedOut, Err(silent(limit))),
            },
        };
        self.state = match &done {
            Err(error) if state == ConnectionState::Healthy => state_after(error),
            _ => state,
        };
        match self.state {
            ConnectionState::Healthy => {}
            // The others may have ended too: the pool pings them.
            ConnectionState::TimedOut | ConnectionState::Closed => {
                let idle = std::mem::take(&mut self.pool.idle().connections);
                self.pool.return_to_pool(idle);
            }
            // The others lead to the same server, which answers pings.
            ConnectionState::ReadOnly => {
                self.discard = true;
                self.pool.discard_idle();
            }
        }
        let done = done.map_err(failed)?;
        self.needs_check = before;
        Ok(done)
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.open || self.discard || self.state == ConnectionState::TimedOut {
            // Returned, its next user would write into this transaction, or wait as
            // long, or be refused as well.
            connection.close_on_drop();
            let _runtime = self.pool.runtime.enter();
            return drop(connection);
        }
        let waiting = IdleConnection {
            connection,
            uses: self.uses,
            since: Instant::now(),
        };
        if self.needs_check || self.uses >= MAX_USES {
            self.pool.return_to_pool([waiting]);
        } else {
            self.pool.keep(waiting);
        }
    }
}

/// Binds the values of a statement.
fn bound(statement: Statement) -> Query<'static, Postgres, SqlxValues> {
    let (sql, values) = statement.into_parts();
    sqlx::query_with(AssertSqlSafe(sql), SqlxValues(Values(values)))
}

/// Derives the state of the connection from an error.
fn state_after(error: &sqlx::Error) -> ConnectionState {
    let code = match error {
        sqlx::Error::Io(_) => return ConnectionState::Closed,
        sqlx::Error::Database(error) => error.code().unwrap_or_default(),
        _ => return ConnectionState::Healthy,
    };
    match &*code {
        // read_only_sql_transaction: no transaction here is opened READ ONLY.
        "25006" => ConnectionState::ReadOnly,
        // idle_in_transaction_session_timeout
        "25P03" => ConnectionState::Closed,
        // operator_intervention, but for query_canceled
        code if code.starts_with("57P") => ConnectionState::Closed,
        _ => ConnectionState::Healthy,
    }
}

/// Returns whether a statement was refused because the schema has changed since it was
/// prepared.
fn is_outdated(error: &DbErr) -> bool {
    let DbErr::Query(RuntimeErr::SqlxError(error)) = error else {
        return false;
    };
    error.as_database_error().is_some_and(is_outdated_plan)
}

fn silent(limit: Duration) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("the postgres hasn't answered for {} ms", limit.as_millis()),
    ))
}

pub(super) fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
