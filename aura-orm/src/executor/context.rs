//! Where statements go, and in which transaction.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use connection::{Config, Target};
use sea_orm::DbBackend;
use tracing::{Instrument, Span};

use crate::clock::{Clock, SystemClock};
use crate::error::{Context as _, Error};
use crate::executor::sqlite::SqliteExecutor;
use crate::executor::stats::{DatabaseStats, OWN_STATEMENTS, Stats};
use crate::executor::transaction::{Begin, Kept, Work};
use crate::executor::transaction_state::TransactionScope;
use crate::postgres::{Isolation, Listener, Pool};
use crate::seaorm::{SeaOrm, SeaOrmConnections};

/// The state that all handles of a database share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) seaorm: SeaOrmConnections,
    pub(crate) backend: Backend,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
}

/// The connections of a database.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// To a file, or to a database in memory.
    Sqlite(SqliteExecutor),
    /// To a server.
    Postgres(Pool),
}

impl Backend {
    /// Connects. Returns the connections, and those of `SeaORM`, which are opened at their
    /// first use.
    async fn connect(config: &Config) -> Result<(Self, SeaOrmConnections), Error> {
        match &config.target {
            Target::Sqlite { path } => {
                connection::prepare_sqlite(path).await?;
                let sqlite = SqliteExecutor::on_file(config, path);
                Ok((Self::Sqlite(sqlite), SeaOrmConnections::default()))
            }
            Target::Memory => {
                let name = connection::memory_name();
                let sqlite = SqliteExecutor::in_memory(config, &name)?;
                Ok((Self::Sqlite(sqlite), SeaOrmConnections::to_memory(name)))
            }
            _ => {
                let pool = Pool::connect(config).await?;
                Ok((Self::Postgres(pool), SeaOrmConnections::default()))
            }
        }
    }
}

impl Shared {
    pub(crate) fn sqlite(&self) -> Option<&SqliteExecutor> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Some(sqlite),
            Backend::Postgres(_) => None,
        }
    }
}

/// An operation, as spans and statistics name it.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// The table.
    pub table: &'static str,
    /// The method.
    pub name: &'static str,
}

/// How an operation accesses the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    begin: Begin,
    atomic: bool,
}

impl Access {
    /// Reads, statement by statement.
    pub const READ: Self = Self {
        begin: Begin {
            writes: false,
            isolation: Isolation::Default,
        },
        atomic: false,
    };
    /// Reads, and where it is a transaction, at READ COMMITTED whatever the server's
    /// default.
    pub const READ_COMMITTED: Self = Self {
        begin: Begin {
            writes: false,
            isolation: Isolation::ReadCommitted,
        },
        atomic: false,
    };
    /// Writes with one statement.
    pub const WRITE: Self = Self {
        begin: Begin::writing(Isolation::Default),
        atomic: false,
    };
    /// Writes with several statements that are committed together.
    pub const ATOMIC: Self = Self::WRITE.in_transaction();

    /// Returns the access whose statements run in one transaction.
    #[must_use]
    pub const fn in_transaction(self) -> Self {
        Self {
            atomic: true,
            ..self
        }
    }

    /// Returns whether it writes.
    #[must_use]
    pub const fn writes(self) -> bool {
        self.begin.writes
    }
}

/// Runs after a commit, in the committing task, with the keys that it was registered with.
pub type CommitHook = Arc<dyn Fn(&BTreeSet<i64>) + Send + Sync>;

/// The numbers of a pool of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSizes {
    /// Open connections.
    pub size: usize,
    /// Those of them that are idle.
    pub idle: usize,
    /// The most that are opened.
    pub max: usize,
}

/// Runs the statements of a database, or of an open transaction. Cheap to clone; the
/// clones share connections, statistics and clock.
///
/// `X` is the error of the layer above, into which the errors of this one convert, so that
/// what is built on it has one type of error.
pub struct Executor<X = Error> {
    pub(crate) shared: Arc<Shared>,
    /// The open transaction; `None` outside of one.
    pub(crate) scope: Option<TransactionScope>,
    /// The key of the user on whose behalf rows are written.
    actor: Option<i64>,
    /// Counts the rows that the operation's statements read and wrote.
    rows: Option<Arc<AtomicU64>>,
    error: PhantomData<fn() -> X>,
}

impl<X> Clone for Executor<X> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            scope: self.scope.clone(),
            actor: self.actor,
            rows: self.rows.clone(),
            error: PhantomData,
        }
    }
}

impl<X> fmt::Debug for Executor<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("target", &self.shared.config.target)
            .field("in_transaction", &self.scope.is_some())
            .field("actor", &self.actor)
            .finish_non_exhaustive()
    }
}

impl<X> Executor<X> {
    fn sharing(self, shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            ..self
        }
    }

    /// Returns the same executor with another source of time.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            clock,
            ..(*self.shared).clone()
        };
        self.sharing(shared)
    }

    /// Returns the same executor on behalf of a user, by the user's key.
    #[must_use]
    pub fn acting_as(&self, actor: i64) -> Self {
        Self {
            actor: Some(actor),
            ..self.clone()
        }
    }

    /// Returns the same executor whose statements count for no operation.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self {
            rows: None,
            ..self.clone()
        }
    }

    /// Returns the same executor with another type of errors.
    #[must_use]
    pub fn with_errors<Y>(&self) -> Executor<Y> {
        Executor {
            shared: self.shared.clone(),
            scope: self.scope.clone(),
            actor: self.actor,
            rows: self.rows.clone(),
            error: PhantomData,
        }
    }

    pub(crate) fn within(&self, scope: TransactionScope) -> Self {
        Self {
            scope: Some(scope),
            ..self.clone()
        }
    }

    /// Counts rows for the operation that another executor's statement read or wrote.
    pub fn count_rows(&self, rows: u64) {
        if let Some(counter) = &self.rows {
            counter.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// Returns the settings that the database was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Returns the present moment by the database's clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.shared.clock.now()
    }

    /// Returns the present moment where all processes see the same time: `None` for the
    /// server's, or what the database's clock says on SQLite and when it was injected.
    #[must_use]
    pub fn shared_now(&self) -> Option<DateTime<Utc>> {
        let clock = &self.shared.clock;
        let is_server = matches!(self.shared.backend, Backend::Postgres(_)) && clock.is_system();
        (!is_server).then(|| clock.now())
    }

    /// Returns the key of the user on whose behalf rows are written.
    #[must_use]
    pub fn actor(&self) -> Option<i64> {
        self.actor
    }

    /// Returns the kind of database.
    #[must_use]
    pub fn backend(&self) -> DbBackend {
        match self.shared.backend {
            Backend::Postgres(_) => DbBackend::Postgres,
            Backend::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    /// Returns whether it is a transaction's.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.scope.is_some()
    }

    /// Returns what the database did since it was opened, in numbers.
    #[must_use]
    pub fn stats(&self) -> DatabaseStats {
        self.shared.stats.snapshot()
    }

    /// Returns SeaORM's own connections.
    #[must_use]
    pub fn seaorm(&self) -> SeaOrm<X> {
        SeaOrm::new(self.clone())
    }

    /// Runs a hook when the transaction is committed; outside of one, now. The same hook
    /// runs once for a transaction, with the keys of all calls.
    pub fn after_commit(&self, hook: &CommitHook, keys: &BTreeSet<i64>) {
        match &self.scope {
            Some(scope) => scope.open.after_commit(hook, keys),
            None => hook(keys),
        }
    }

    /// Listens to a channel of notifications, on a connection of its own. `None` where there is
    /// none to listen to: on SQLite, behind a pooler, and when it is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn listen(&self, channel: &'static str) -> Result<Option<Listener>, Error> {
        match &self.shared.backend {
            Backend::Sqlite(_) => Ok(None),
            Backend::Postgres(postgres) => postgres.listen(channel).await.context("listening"),
        }
    }

    /// Returns the sizes of the pools that reads and writes use; on PostgreSQL it is one
    /// pool.
    #[must_use]
    pub fn pool_sizes(&self) -> [PoolSizes; 2] {
        let max = self.shared.config.pool.max as usize;
        match &self.shared.backend {
            Backend::Sqlite(sqlite) => {
                let idle = usize::from(sqlite.writer.is_idle());
                let writer = PoolSizes {
                    size: 1,
                    idle,
                    max: 1,
                };
                let reader = sqlite.readers.as_ref().map_or(writer, |readers| {
                    let (size, idle) = readers.size();
                    PoolSizes { size, idle, max }
                });
                [reader, writer]
            }
            Backend::Postgres(postgres) => {
                let (size, idle) = postgres.size();
                let size = size as usize;
                [PoolSizes { size, idle, max }; 2]
            }
        }
    }

    /// Waits for statements under way and closes every connection, for all clones.
    pub async fn close(&self) {
        match &self.shared.backend {
            // First: the connection that leaves a file last copies the WAL into it.
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Postgres(postgres) => postgres.close().await,
        }
        self.shared.seaorm.close().await;
    }
}

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Opens the database of the settings. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] and [`Error::Unavailable`].
    pub async fn connect(config: Config) -> Result<Self, X> {
        let (backend, seaorm) = Backend::connect(&config).await?;
        let shared = Shared {
            backend,
            seaorm,
            config: Arc::new(config),
            clock: Arc::new(SystemClock),
            stats: Arc::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            scope: None,
            actor: None,
            rows: None,
            error: PhantomData,
        })
    }

    /// Checks that the file of a SQLite database is still at its path. Reads nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when it is not.
    pub fn check_file(&self, context: &'static str) -> Result<(), X> {
        match self.shared.sqlite() {
            Some(sqlite) => Ok(sqlite.check_file(context)?),
            None => Ok(()),
        }
    }

    /// Runs an operation in a span, counts it, and puts its statements into a transaction
    /// where its access asks for one. Inside of a transaction it belongs to that; inside of
    /// another operation it is a part of it, and is neither traced nor counted.
    ///
    /// # Errors
    ///
    /// What the operation returns, and as [`Executor::transaction_at`].
    pub async fn operate<T, F, Fut>(
        &self,
        operation: Operation,
        access: Access,
        run: F,
    ) -> Result<T, X>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, X>> + Send,
        T: Send,
        X: fmt::Display,
    {
        let kept = Kept::new();
        let work = kept.work(&run);
        let (ended, span) = self.operate_on(operation, access, &work).await;
        drop(work);
        let result = kept.finish::<X>(ended);
        if let Err(error) = &result {
            span.record("error", tracing::field::display(error));
        }
        result
    }

    /// Runs the work of an operation, and returns whether its result is `Ok` and its span.
    async fn operate_on(
        &self,
        operation: Operation,
        access: Access,
        work: &Work<'_, X>,
    ) -> (Result<bool, X>, Span) {
        if self.rows.is_some() {
            return (self.framed(access, work).await, Span::none());
        }
        let span = tracing::debug_span!(
            target: "aura_orm::operation",
            "operation",
            table = operation.table,
            operation = operation.name,
            rows = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        let timer = self.shared.stats.start(operation);
        // Recorded once, because subscribers write each record of a field.
        let rows = Arc::<AtomicU64>::default();
        let executor = Self {
            rows: Some(rows.clone()),
            ..self.clone()
        };
        let ended = executor.framed(access, work).instrument(span.clone()).await;
        span.record("rows", rows.load(Ordering::Relaxed));
        timer.stop(matches!(ended, Ok(true)));
        (ended, span)
    }

    /// Runs a statement of an application's own and counts it, under [`OWN_STATEMENTS`] and
    /// this name.
    ///
    /// # Errors
    ///
    /// What the statement returns.
    pub async fn count_own<T>(
        &self,
        name: &'static str,
        run: impl Future<Output = Result<T, X>>,
    ) -> Result<T, X> {
        let timer = self.shared.stats.start(Operation {
            table: OWN_STATEMENTS,
            name,
        });
        let result = run.await;
        timer.stop(result.is_ok());
        result
    }

    async fn framed(&self, access: Access, work: &Work<'_, X>) -> Result<bool, X> {
        if access.atomic {
            self.together(access.begin, work).await
        } else {
            Ok(work(self.clone()).await)
        }
    }
}
