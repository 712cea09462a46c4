//! The pool: connections that were just used are kept beside the driver's pool.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ::connection::{Config, Connections, Target};
use sea_orm::DbErr;
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};
use tokio::sync::Semaphore;

use super::connection::{ConnectionState, PooledConnection, failed};
use crate::executor::transaction::Isolation;

/// Connections idle for longer than this return to the pool, which closes them after
/// `DB_POOL_IDLE_TIMEOUT`.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// Statements after which a connection returns to the pool, which closes it at its
/// maximum lifetime, and serves those that wait there.
pub(super) const MAX_USES: u32 = 64;

/// How long to wait for the ping at a return.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a returning connection before opening another.
const RETURN_WAIT: Duration = Duration::from_millis(10);

/// The connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPool(Arc<PoolInner>);

pub(super) struct PoolInner {
    config: Config,
    pool: PgPool,
    /// How long to wait for the answer to a statement.
    pub(super) response_timeout: Option<Duration>,
    /// In front of the pool, where waits are counted and limited.
    permits: Arc<Semaphore>,
    /// Where connections are returned, also from outside of it.
    pub(super) runtime: tokio::runtime::Handle,
    idle: Mutex<IdleConnections>,
}

#[derive(Default)]
pub(super) struct IdleConnections {
    /// The last used is the last of them.
    pub(super) connections: Vec<IdleConnection>,
    /// A task returns those that are idle for too long.
    watched: bool,
    closed: bool,
}

pub(super) struct IdleConnection {
    pub(super) connection: PoolConnection<Postgres>,
    pub(super) uses: u32,
    pub(super) since: Instant,
}

/// How long after `DB_STATEMENT_TIMEOUT` the client waits for the server's own error.
/// On a dead network nothing else would end the statement.
const GRACE: Duration = Duration::from_millis(500);

impl fmt::Debug for PoolInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolInner").finish_non_exhaustive()
    }
}

impl PoolInner {
    /// Acquires a connection from the pool. When the server refuses the password,
    /// `DB_PASS_FILE` is read again: it may have been rotated.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match self.pool.acquire().await {
            Err(error)
                if is_wrong_password(&error)
                    && ::connection::renew_password(&self.config, &self.pool).await =>
            {
                self.pool.acquire().await
            }
            acquired => acquired,
        }
    }

    pub(super) fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns connections to the pool, whose ping has no limit of its own.
    pub(super) fn return_to_pool(&self, idle: impl IntoIterator<Item = IdleConnection>) {
        let _runtime = self.runtime.enter();
        for mut waiting in idle {
            self.runtime.spawn(async move {
                tokio::time::timeout(PING_TIMEOUT, waiting.connection.return_to_pool()).await
            });
        }
    }

    /// Closes all idle connections.
    pub(super) fn discard_idle(&self) {
        let waiting = std::mem::take(&mut self.idle().connections);
        let waiting = waiting.into_iter().map(|waiting| waiting.connection);
        let pooled = std::iter::from_fn(|| self.pool.try_acquire());
        let _runtime = self.runtime.enter();
        for mut connection in waiting.chain(pooled) {
            connection.close_on_drop();
        }
    }

    /// Keeps a connection for the next statement.
    pub(super) fn keep(self: &Arc<Self>, waiting: IdleConnection) {
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

/// Returns connections that are idle for too long, until none is left.
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
    /// Creates the executor's view of `SeaORM`'s pool. Must be called within a runtime.
    pub(crate) fn of(config: &Config, connections: &Connections) -> Self {
        // Without start-up options the server has other limits.
        let limited = match &config.target {
            Target::Postgres(postgres) => postgres.prepared_statements,
            _ => true,
        };
        let limit = config.statement_timeout.filter(|_| limited);
        Self(Arc::new(PoolInner {
            permits: Arc::new(Semaphore::new(config.pool.max.max(1) as usize)),
            config: config.clone(),
            pool: connections.writer.get_postgres_connection_pool().clone(),
            response_timeout: limit.map(|limit| limit + GRACE),
            runtime: tokio::runtime::Handle::current(),
            idle: Mutex::default(),
        }))
    }

    /// Returns the semaphore with a permit for each connection.
    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.0.permits
    }

    /// Acquires a connection.
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

    /// Acquires a connection and begins a transaction. A connection that turns out to
    /// have ended is replaced: nothing was done in it.
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

    /// Waits for connections that are returning to the pool, which would otherwise open
    /// others.
    pub(crate) async fn wait_for_returns(&self) {
        let pool = &self.0.pool;
        let back = async {
            while pool.num_idle() < pool.size() as usize {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(RETURN_WAIT, back).await;
    }

    /// Returns the idle connections, for callers that use the pool itself.
    pub(crate) fn release_idle(&self) {
        let idle = std::mem::take(&mut self.0.idle().connections);
        self.0.return_to_pool(idle);
    }

    /// Returns the number of connections, and how many of them are idle.
    pub(crate) fn size(&self) -> (u32, usize) {
        let idle = self.0.idle().connections.len();
        (self.0.pool.size(), self.0.pool.num_idle() + idle)
    }

    /// Returns the idle connections, and keeps no others from now on.
    pub(crate) fn close(&self) {
        let mut idle = self.0.idle();
        idle.closed = true;
        let connections = std::mem::take(&mut idle.connections);
        drop(idle);
        self.0.return_to_pool(connections);
    }
}

fn is_wrong_password(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "28P01")
}
