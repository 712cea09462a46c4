//! The connections to a PostgreSQL server.
//!
//! The driver's pool asks the server for a sign of life whenever a connection
//! comes back, which costs as much as a query. So a connection that was just
//! used waits here for whoever comes next. It goes back to the pool when nobody
//! came for a moment, when something about it is in doubt, and now and then.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use aura_orm::Statement;
use connection::{Config, Connections, Target};
use futures_util::TryStreamExt;
use sea_orm::sea_query::Values;
use sea_orm::{DbErr, QueryResult, RuntimeErr};
use sea_query_sqlx::SqlxValues;
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor};

use crate::error::{Error, is_outdated_plan};
use crate::executor::row::{Row, RowReader};
use crate::executor::transaction::Isolation;

/// Who waits for longer goes back to the pool, which closes those that are idle
/// for too long.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// After so many uses a connection goes through the pool, which closes it at
/// its greatest age, and gives it to whoever waits there.
const MAX_USES: u32 = 64;

/// A connection that doesn't answer for so long is given up by the pool.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// So long may a connection be on its way back before another is opened.
const RETURN_WAIT: Duration = Duration::from_millis(10);

/// The connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPool(Arc<PoolInner>);

struct PoolInner {
    config: Config,
    pool: PgPool,
    /// A server that has been silent for so long will not answer any more.
    response_timeout: Option<Duration>,
    /// Where connections are given back, also by who is outside of it.
    runtime: tokio::runtime::Handle,
    idle: Mutex<IdleConnections>,
}

#[derive(Default)]
struct IdleConnections {
    /// The last used is the last.
    connections: Vec<IdleConnection>,
    /// Somebody gives back those who wait for too long.
    watched: bool,
    closed: bool,
}

struct IdleConnection {
    connection: PoolConnection<Postgres>,
    uses: u32,
    since: Instant,
}

/// The server ends statements at `DB_STATEMENT_TIMEOUT`, and has so long to say
/// so. Where a cable was pulled nothing else would ever end them.
const GRACE: Duration = Duration::from_millis(500);

/// What the last statement said about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Healthy,
    /// The server didn't answer.
    TimedOut,
    /// It has ended.
    Closed,
    /// It leads to a server that takes no writes (any more).
    ReadOnly,
}

/// A connection in use.
pub(crate) struct PooledConnection {
    pool: Arc<PoolInner>,
    connection: Option<PoolConnection<Postgres>>,
    uses: u32,
    /// A statement was given up or has failed: the pool looks after it.
    needs_check: bool,
    /// A transaction was begun in it, and its end is not known.
    open: bool,
    /// It is closed when its user has finished.
    discard: bool,
    /// How it looks from here.
    state: ConnectionState,
}

impl fmt::Debug for PoolInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolInner").finish_non_exhaustive()
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection").finish_non_exhaustive()
    }
}

impl PoolInner {
    /// A connection of the pool's. When the server refuses the password, the file
    /// that it stands in is read again: it may have been changed there too.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match self.pool.acquire().await {
            Err(error)
                if is_wrong_password(&error)
                    && connection::renew_password(&self.config, &self.pool).await =>
            {
                self.pool.acquire().await
            }
            acquired => acquired,
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives connections back to the pool, which asks the server for a sign of
    /// life and would wait for it for ever.
    fn return_to_pool(&self, idle: impl IntoIterator<Item = IdleConnection>) {
        let _runtime = self.runtime.enter();
        for mut waiting in idle {
            self.runtime.spawn(async move {
                tokio::time::timeout(PING_TIMEOUT, waiting.connection.return_to_pool()).await
            });
        }
    }

    /// Closes all idle connections.
    fn discard_idle(&self) {
        let waiting = std::mem::take(&mut self.idle().connections);
        let waiting = waiting.into_iter().map(|waiting| waiting.connection);
        let pooled = std::iter::from_fn(|| self.pool.try_acquire());
        let _runtime = self.runtime.enter();
        for mut connection in waiting.chain(pooled) {
            connection.close_on_drop();
        }
    }

    /// Keeps a connection for who comes next.
    fn keep(self: &Arc<Self>, waiting: IdleConnection) {
        let mut idle = self.idle();
        if idle.closed {
            drop(idle);
            return self.return_to_pool([waiting]);
        }
        idle.connections.push(waiting);
        if !std::mem::replace(&mut idle.watched, true) {
            self.runtime.spawn(watch(Arc::downgrade(self)));
        }
    }
}

/// Gives back those who wait for too long, until none is left.
async fn watch(pool: Weak<PoolInner>) {
    loop {
        tokio::time::sleep(MAX_IDLE).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let mut idle = pool.idle();
        let fresh = |waiting: &IdleConnection| waiting.since.elapsed() < MAX_IDLE;
        let stale = idle.connections.partition_point(|waiting| !fresh(waiting));
        let stale: Vec<_> = idle.connections.drain(..stale).collect();
        let done = idle.connections.is_empty();
        idle.watched = !done;
        drop(idle);
        pool.return_to_pool(stale);
        if done {
            return;
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        self.return_to_pool(idle.connections);
    }
}

impl PostgresPool {
    /// Takes its connections from `SeaORM`'s pool. Called inside of a runtime.
    pub(crate) fn of(config: &Config, connections: &Connections) -> Option<Self> {
        let Target::Postgres(postgres) = &config.target else {
            return None;
        };
        // Without start-up options the server has other limits.
        let limit = config.statement_timeout;
        let limit = limit.filter(|_| postgres.prepared_statements);
        Some(Self(Arc::new(PoolInner {
            config: config.clone(),
            pool: connections.writer.get_postgres_connection_pool().clone(),
            response_timeout: limit.map(|limit| limit + GRACE),
            runtime: tokio::runtime::Handle::current(),
            idle: Mutex::default(),
        })))
    }

    /// A connection.
    pub(crate) async fn acquire(&self) -> Result<PooledConnection, DbErr> {
        let waiting = self.0.idle().connections.pop();
        let (connection, uses) = match waiting {
            Some(waiting) => (waiting.connection, waiting.uses),
            None => (self.0.acquire().await.map_err(failed)?, 0),
        };
        Ok(PooledConnection {
            pool: self.0.clone(),
            connection: Some(connection),
            uses: uses + 1,
            needs_check: false,
            open: false,
            discard: false,
            state: ConnectionState::Healthy,
        })
    }

    /// A connection in a transaction. One that had ended without anybody's
    /// noticing is replaced: nothing was done in it.
    pub(crate) async fn begin(&self, isolation: Isolation) -> Result<PooledConnection, DbErr> {
        let mut connection = self.acquire().await?;
        if let Err(error) = connection.begin(isolation).await {
            if connection.state != ConnectionState::Closed {
                return Err(error);
            }
            connection = self.acquire().await?;
            connection.begin(isolation).await?;
        }
        Ok(connection)
    }

    /// Waits for the connections that are on their way back to the pool, which
    /// would open others for who comes sooner.
    pub(crate) async fn wait_for_returns(&self) {
        let pool = &self.0.pool;
        let back = async {
            while pool.num_idle() < pool.size() as usize {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(RETURN_WAIT, back).await;
    }

    /// Gives back what nobody uses, for who goes to the pool itself.
    pub(crate) fn release_idle(&self) {
        let idle = std::mem::take(&mut self.0.idle().connections);
        self.0.return_to_pool(idle);
    }

    /// How many connections there are, and how many of them nobody uses.
    pub(crate) fn size(&self) -> (u32, usize) {
        let idle = self.0.idle().connections.len();
        (self.0.pool.size(), self.0.pool.num_idle() + idle)
    }

    /// Keeps nothing any more.
    pub(crate) fn close(&self) {
        let mut idle = self.0.idle();
        idle.closed = true;
        let connections = std::mem::take(&mut idle.connections);
        drop(idle);
        self.0.return_to_pool(connections);
    }
}

impl PooledConnection {
    /// Runs a statement and reads its rows as they arrive. The inner error is
    /// the first row's that can't be read.
    pub(crate) async fn query<T>(
        &mut self,
        statement: Statement,
        read: impl Fn(&mut RowReader<'_>) -> Result<T, DbErr>,
    ) -> Result<Result<Vec<T>, Error>, DbErr> {
        let mut read_all = Ok(Vec::new());
        let arrived = |row: QueryResult| {
            if let Ok(rows) = &mut read_all {
                match RowReader::read(Row::Driver(&row), &read) {
                    Ok(row) => rows.push(row),
                    Err(error) => read_all = Err(error),
                }
            }
        };
        self.rows(statement, arrived).await?;
        Ok(read_all)
    }

    /// Runs a statement and returns its rows.
    pub(crate) async fn fetch(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut all = Vec::new();
        self.rows(statement, |row| all.push(row)).await?;
        Ok(all)
    }

    async fn rows(
        &mut self,
        statement: Statement,
        mut arrived: impl FnMut(QueryResult),
    ) -> Result<(), DbErr> {
        let pool = self.kept_for_again(&statement);
        let done = self.rows_once(statement, &mut arrived).await;
        match self.again(done, pool).await? {
            Some(statement) => self.rows_once(statement, &mut arrived).await,
            None => Ok(()),
        }
    }

    async fn rows_once(
        &mut self,
        statement: Statement,
        arrived: &mut impl FnMut(QueryResult),
    ) -> Result<(), DbErr> {
        self.run(async |connection| {
            let mut rows = connection.fetch_many(bound(statement));
            while let Some(step) = rows.try_next().await? {
                if let Either::Right(row) = step {
                    arrived(row.into());
                }
            }
            Ok(())
        })
        .await
    }

    /// Runs a statement and says how many rows it touched.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64, DbErr> {
        let pool = self.kept_for_again(&statement);
        let mut touched = 0;
        let done = self.execute_once(statement, &mut touched).await;
        if let Some(statement) = self.again(done, pool).await? {
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

    /// The statement, where it may run once more by itself.
    fn kept_for_again(&self, statement: &Statement) -> Option<Statement> {
        (!self.open).then(|| statement.clone())
    }

    /// Returns the statement when it is to be run once more. The schema has changed
    /// since the connection prepared it, and the server refused it before it did
    /// anything: so nothing that was prepared is kept. A transaction has failed
    /// with it.
    async fn again(
        &mut self,
        done: Result<(), DbErr>,
        pool: Option<Statement>,
    ) -> Result<Option<Statement>, DbErr> {
        match done {
            Err(error) if is_outdated(&error) => {
                if pool.is_none() {
                    self.discard = true;
                    return Err(error);
                }
                self.run(async |connection| connection.clear_cached_statements().await)
                    .await?;
                Ok(pool)
            }
            done => done.map(|()| None),
        }
    }

    /// Works with savepoints.
    pub(crate) async fn execute_sql(&mut self, sql: &'static str) -> Result<(), DbErr> {
        self.run(async |connection| connection.execute(sql).await)
            .await
            .map(drop)
    }

    /// Begins a transaction. Given up halfway, it takes its connection with it.
    async fn begin(&mut self, isolation: Isolation) -> Result<(), DbErr> {
        self.open = true;
        self.execute_sql(match isolation {
            Isolation::Default => "BEGIN",
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        })
        .await
    }

    /// Ends the transaction. Given up halfway, or when it fails, it takes its
    /// connection with it.
    pub(crate) async fn end(&mut self, commit: bool) -> Result<(), DbErr> {
        if self.state == ConnectionState::TimedOut && !commit {
            // Its end is that of the connection; nobody waits for it again.
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
            // Whatever ended it may have ended the others; the pool asks them.
            ConnectionState::TimedOut | ConnectionState::Closed => {
                let idle = std::mem::take(&mut self.pool.idle().connections);
                self.pool.return_to_pool(idle);
            }
            // They lead to the same server, and would answer.
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
            // In the pool its next user would write into this transaction, or
            // wait as long, or be refused as well.
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

/// A statement with its values.
fn bound(statement: Statement) -> Query<'static, Postgres, SqlxValues> {
    let (sql, values) = statement.into_parts();
    sqlx::query_with(AssertSqlSafe(sql), SqlxValues(Values(values)))
}

fn is_wrong_password(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "28P01")
}

/// What an error says about the connection.
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

/// Whether a prepared statement's rows have changed, and it was refused for that.
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

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
