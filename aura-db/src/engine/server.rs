//! The connections to a PostgreSQL server.
//!
//! The driver's pool asks the server for a sign of life whenever a connection
//! comes back, which costs as much as a query. So a connection that was just
//! used waits here for whoever comes next. It goes back to the pool when nobody
//! came for a moment, when something about it is in doubt, and now and then.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use connection::{Config, Connections, Target};
use futures_util::TryStreamExt;
use sea_orm::sea_query::Values;
use sea_orm::{DbErr, QueryResult, RuntimeErr};
use sea_query_sqlx::SqlxValues;
use sqlite_engine::Statement;
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor};

use crate::engine::row::{Cells, Row};
use crate::engine::transaction::Isolation;
use crate::error::{Error, is_outdated_plan};

/// Who waits for longer goes back to the pool, which closes those that are idle
/// for too long.
const KEPT: Duration = Duration::from_secs(1);

/// After so many uses a connection goes through the pool, which closes it at
/// its greatest age, and gives it to whoever waits there.
const USES: u32 = 64;

/// A connection that doesn't answer for so long is given up by the pool.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// So long may a connection be on its way back before another is opened.
const SETTLES: Duration = Duration::from_millis(10);

/// The connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Server(Arc<Kept>);

struct Kept {
    config: Config,
    pool: PgPool,
    /// A server that has been silent for so long will not answer any more.
    silence: Option<Duration>,
    /// Where connections are given back, also by who is outside of it.
    runtime: tokio::runtime::Handle,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The last used is the last.
    connections: Vec<Waiting>,
    /// Somebody gives back those who wait for too long.
    watched: bool,
    closed: bool,
}

struct Waiting {
    connection: PoolConnection<Postgres>,
    uses: u32,
    since: Instant,
}

/// The server ends statements at `DB_STATEMENT_TIMEOUT`, and has so long to say
/// so. Where a cable was pulled nothing else would ever end them.
const GRACE: Duration = Duration::from_millis(500);

/// What the last statement said about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Up,
    /// The server didn't answer.
    Silent,
    /// It has ended.
    Lost,
    /// It leads to a server that takes no writes (any more).
    ReadOnly,
}

/// A connection in use.
pub(crate) struct Lease {
    kept: Arc<Kept>,
    connection: Option<PoolConnection<Postgres>>,
    uses: u32,
    /// A statement was given up or has failed: the pool looks after it.
    doubtful: bool,
    /// A transaction was begun in it, and its end is not known.
    open: bool,
    /// It is closed when its user has finished.
    discard: bool,
    /// How it looks from here.
    line: Line,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Kept {
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

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives connections back to the pool, which asks the server for a sign of
    /// life and would wait for it for ever.
    fn give_back(&self, idle: impl IntoIterator<Item = Waiting>) {
        let _runtime = self.runtime.enter();
        for mut waiting in idle {
            self.runtime.spawn(async move {
                tokio::time::timeout(SIGN_OF_LIFE, waiting.connection.return_to_pool()).await
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
    fn keep(self: &Arc<Self>, waiting: Waiting) {
        let mut idle = self.idle();
        if idle.closed {
            drop(idle);
            return self.give_back([waiting]);
        }
        idle.connections.push(waiting);
        if !std::mem::replace(&mut idle.watched, true) {
            self.runtime.spawn(watch(Arc::downgrade(self)));
        }
    }
}

/// Gives back those who wait for too long, until none is left.
async fn watch(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(KEPT).await;
        let Some(kept) = kept.upgrade() else {
            return;
        };
        let mut idle = kept.idle();
        let fresh = |waiting: &Waiting| waiting.since.elapsed() < KEPT;
        let stale = idle.connections.partition_point(|waiting| !fresh(waiting));
        let stale: Vec<_> = idle.connections.drain(..stale).collect();
        let done = idle.connections.is_empty();
        idle.watched = !done;
        drop(idle);
        kept.give_back(stale);
        if done {
            return;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        self.give_back(idle.connections);
    }
}

impl Server {
    /// Takes its connections from `SeaORM`'s pool. Called inside of a runtime.
    pub(crate) fn of(config: &Config, connections: &Connections) -> Option<Self> {
        let Target::Postgres(postgres) = &config.target else {
            return None;
        };
        // Without start-up options the server has other limits.
        let limit = config.statement_timeout;
        let limit = limit.filter(|_| postgres.prepared_statements);
        Some(Self(Arc::new(Kept {
            config: config.clone(),
            pool: connections.writer.get_postgres_connection_pool().clone(),
            silence: limit.map(|limit| limit + GRACE),
            runtime: tokio::runtime::Handle::current(),
            idle: Mutex::default(),
        })))
    }

    /// A connection.
    pub(crate) async fn lease(&self) -> Result<Lease, DbErr> {
        let waiting = self.0.idle().connections.pop();
        let (connection, uses) = match waiting {
            Some(waiting) => (waiting.connection, waiting.uses),
            None => (self.0.acquire().await.map_err(failed)?, 0),
        };
        Ok(Lease {
            kept: self.0.clone(),
            connection: Some(connection),
            uses: uses + 1,
            doubtful: false,
            open: false,
            discard: false,
            line: Line::Up,
        })
    }

    /// A connection in a transaction. One that had ended without anybody's
    /// noticing is replaced: nothing was done in it.
    pub(crate) async fn begin(&self, isolation: Isolation) -> Result<Lease, DbErr> {
        let mut lease = self.lease().await?;
        if let Err(error) = lease.begin(isolation).await {
            if lease.line != Line::Lost {
                return Err(error);
            }
            lease = self.lease().await?;
            lease.begin(isolation).await?;
        }
        Ok(lease)
    }

    /// Waits for the connections that are on their way back to the pool, which
    /// would open others for who comes sooner.
    pub(crate) async fn settle(&self) {
        let pool = &self.0.pool;
        let back = async {
            while pool.num_idle() < pool.size() as usize {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(SETTLES, back).await;
    }

    /// Gives back what nobody uses, for who goes to the pool itself.
    pub(crate) fn yield_idle(&self) {
        let idle = std::mem::take(&mut self.0.idle().connections);
        self.0.give_back(idle);
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
        self.0.give_back(connections);
    }
}

impl Lease {
    /// Runs a statement and reads its rows as they arrive. The inner error is
    /// the first row's that can't be read.
    pub(crate) async fn query<T>(
        &mut self,
        statement: Statement,
        read: impl Fn(&mut Cells<'_>) -> Result<T, DbErr>,
    ) -> Result<Result<Vec<T>, Error>, DbErr> {
        let mut read_all = Ok(Vec::new());
        let arrived = |row: QueryResult| {
            if let Ok(rows) = &mut read_all {
                match Cells::read(Row::Driver(&row), &read) {
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
        let kept = self.kept_for_again(&statement);
        let done = self.rows_once(statement, &mut arrived).await;
        match self.again(done, kept).await? {
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

    /// Works with savepoints.
    pub(crate) async fn control(&mut self, sql: &'static str) -> Result<(), DbErr> {
        self.run(async |connection| connection.execute(sql).await)
            .await
            .map(drop)
    }

    /// Begins a transaction. Given up halfway, it takes its connection with it.
    async fn begin(&mut self, isolation: Isolation) -> Result<(), DbErr> {
        self.open = true;
        self.control(match isolation {
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
        if self.line == Line::Silent && !commit {
            // Its end is that of the connection; nobody waits for it again.
            return Ok(());
        }
        self.control(if commit { "COMMIT" } else { "ROLLBACK" })
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
        let before = std::mem::replace(&mut self.doubtful, true);
        let (line, done) = match self.kept.silence {
            None => (Line::Up, run(connection).await),
            Some(limit) => match tokio::time::timeout(limit, run(connection)).await {
                Ok(done) => (Line::Up, done),
                Err(_) => (Line::Silent, Err(silent(limit))),
            },
        };
        self.line = match &done {
            Err(error) if line == Line::Up => line_after(error),
            _ => line,
        };
        match self.line {
            Line::Up => {}
            // Whatever ended it may have ended the others; the pool asks them.
            Line::Silent | Line::Lost => {
                let idle = std::mem::take(&mut self.kept.idle().connections);
                self.kept.give_back(idle);
            }
            // They lead to the same server, and would answer.
            Line::ReadOnly => {
                self.discard = true;
                self.kept.discard_idle();
            }
        }
        let done = done.map_err(failed)?;
        self.doubtful = before;
        Ok(done)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.open || self.discard || self.line == Line::Silent {
            // In the pool its next user would write into this transaction, or
            // wait as long, or be refused as well.
            connection.close_on_drop();
            let _runtime = self.kept.runtime.enter();
            return drop(connection);
        }
        let waiting = Waiting {
            connection,
            uses: self.uses,
            since: Instant::now(),
        };
        if self.doubtful || self.uses >= USES {
            self.kept.give_back([waiting]);
        } else {
            self.kept.keep(waiting);
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
fn line_after(error: &sqlx::Error) -> Line {
    let code = match error {
        sqlx::Error::Io(_) => return Line::Lost,
        sqlx::Error::Database(error) => error.code().unwrap_or_default(),
        _ => return Line::Up,
    };
    match &*code {
        // read_only_sql_transaction: no transaction here is opened READ ONLY.
        "25006" => Line::ReadOnly,
        // idle_in_transaction_session_timeout
        "25P03" => Line::Lost,
        // operator_intervention, but for query_canceled
        code if code.starts_with("57P") => Line::Lost,
        _ => Line::Up,
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
        format!("the server hasn't answered for {} ms", limit.as_millis()),
    ))
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
