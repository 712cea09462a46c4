//! Where statements go, who acts, and what the actor may do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aura_orm::Batcher;
use aura_orm::postgres::Pool;
use chrono::{DateTime, Utc};
use connection::{Config, Target};
use entity::{Action, Reach, Resource, Role, UserId, users};
use sea_orm::sea_query::LockType;
use sea_orm::{ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QuerySelect};
use tracing::Instrument;

use crate::clock::Clock;
use crate::error::Error;
use crate::executor::sqlite::SqliteExecutor;
use crate::executor::stats::Stats;
use crate::executor::transaction::{Begin, Isolation, TransactionScope};
use crate::repositories::logs::{Appended, LogEntry};
use crate::seaorm::SeaOrmConnections;

/// The state that all handles of a database share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) seaorm: SeaOrmConnections,
    pub(crate) backend: Backend,
    /// Log entries that are appended to PostgreSQL in one statement.
    pub(crate) appends: Arc<Batcher<LogEntry, Appended>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    /// Wakes the followers of the log when entries were appended in this process.
    pub(crate) news: tokio::sync::watch::Sender<()>,
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
    /// Connects. Returns the connections, and those of `SeaORM`, which on PostgreSQL are
    /// opened at their first use. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] and [`Error::Unavailable`].
    pub(crate) async fn connect(config: &Config) -> Result<(Self, SeaOrmConnections), Error> {
        if let Target::Postgres(_) = config.target {
            let pool = Pool::connect(config).await?;
            return Ok((Self::Postgres(pool), SeaOrmConnections::default()));
        }
        let connections = connection::connect(config).await?;
        let sqlite = SqliteExecutor::new(config, &connections)?;
        Ok((Self::Sqlite(sqlite), SeaOrmConnections::of(connections)))
    }
}

impl Shared {
    pub(crate) fn sqlite(&self) -> Option<&SqliteExecutor> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Some(sqlite),
            Backend::Postgres(_) => None,
        }
    }

    pub(crate) fn postgres(&self) -> Option<&Pool> {
        match &self.backend {
            Backend::Sqlite(_) => None,
            Backend::Postgres(postgres) => Some(postgres),
        }
    }
}

/// An operation of a repository, as spans and numbers name it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    pub(crate) needs: (Action, Resource),
}

/// How an operation accesses the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessMode {
    /// Reads.
    Read,
    /// Reads, at READ COMMITTED whatever the server's default.
    ReadCommitted,
    /// Writes with one statement.
    Write,
    /// Writes with several statements that are committed together.
    Atomic,
}

impl AccessMode {
    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Atomic)
    }
}

/// Where statements go and who acts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Option<TransactionScope>,
    pub(crate) actor: Option<UserId>,
    /// The actor's role is checked in each operation.
    pub(crate) restricted: bool,
    /// Limits the operation to rows of this owner. Set by the check of the role.
    own: Option<UserId>,
    /// The role that the check found.
    role: Option<Role>,
    /// Counts the rows that the operation's statements read and wrote.
    rows: Option<Arc<AtomicU64>>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("target", &self.shared.config.target)
            .field("in_transaction", &self.scope.is_some())
            .field("actor", &self.actor)
            .field("restricted", &self.restricted)
            .finish_non_exhaustive()
    }
}

impl Executor {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            scope: None,
            actor: None,
            restricted: false,
            own: None,
            role: None,
            rows: None,
        }
    }

    pub(crate) fn count_rows(&self, rows: u64) {
        if let Some(counter) = &self.rows {
            counter.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// Returns a copy with another shared state.
    pub(crate) fn sharing(self, shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            ..self
        }
    }

    pub(crate) fn acting_as(&self, user: UserId) -> Self {
        Self {
            actor: Some(user),
            ..self.clone()
        }
    }

    pub(crate) fn restricted_to(&self, user: UserId) -> Self {
        Self {
            actor: Some(user),
            restricted: true,
            ..self.clone()
        }
    }

    pub(crate) fn within(&self, scope: TransactionScope) -> Self {
        Self {
            scope: Some(scope),
            ..self.clone()
        }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.shared.clock.now()
    }

    /// Wakes the followers of the log; inside a transaction after its commit.
    pub(crate) fn appended(&self) {
        match &self.scope {
            Some(scope) => scope.open.note_appended(),
            None => self.shared.news.send_replace(()),
        }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        match self.shared.backend {
            Backend::Postgres(_) => DbBackend::Postgres,
            Backend::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    /// Runs an operation that only reads.
    pub(crate) async fn read<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.observe(op, AccessMode::Read, run).await
    }

    /// Runs an operation that only reads, at READ COMMITTED whatever the server's
    /// default.
    pub(crate) async fn read_committed<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.observe(op, AccessMode::ReadCommitted, run).await
    }

    /// Runs an operation that writes with a single statement.
    pub(crate) async fn write<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.observe(op, AccessMode::Write, run).await
    }

    /// Runs an operation whose statements are committed together or not at all.
    pub(crate) async fn atomic<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.observe(op, AccessMode::Atomic, run).await
    }

    /// Runs an operation that is a single statement on PostgreSQL, and several on SQLite
    /// that are committed together.
    pub(crate) async fn atomic_on_sqlite<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let touch = match self.backend() {
            DbBackend::Postgres => AccessMode::Write,
            _ => AccessMode::Atomic,
        };
        self.observe(op, touch, run).await
    }

    async fn observe<T, F, Fut>(&self, op: Op, touch: AccessMode, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let span = tracing::debug_span!(
            target: "aura_db::operation",
            "operation",
            table = op.table,
            operation = op.name,
            rows = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        let timer = self.shared.stats.start(op);
        // Recorded once, because subscribers write each record of a field.
        let rows = Arc::<AtomicU64>::default();
        let executor = Self {
            rows: Some(rows.clone()),
            ..self.clone()
        };
        let result = executor
            .framed(op, touch, run)
            .instrument(span.clone())
            .await;
        span.record("rows", rows.load(Ordering::Relaxed));
        if let Err(error) = &result {
            span.record("error", tracing::field::display(error));
        }
        timer.stop(result.is_ok());
        result
    }

    async fn framed<T, F, Fut>(&self, op: Op, touch: AccessMode, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        if !self.restricted && touch != AccessMode::Atomic {
            return run(self.clone()).await;
        }
        let run = &run;
        let checked =
            |executor: Self| async move { run(executor.authorize(op, touch).await?).await };
        if self.scope.is_some() {
            return self.together(checked).await;
        }
        let begin = Begin {
            writes: touch.writes(),
            isolation: if touch == AccessMode::ReadCommitted {
                Isolation::ReadCommitted
            } else {
                Isolation::Default
            },
        };
        self.transact(begin, checked).await
    }

    /// Checks the actor's role in the transaction of the operation, so that a demotion
    /// takes effect at once: before a write, PostgreSQL locks the user's row until the
    /// end; SQLite has one writer.
    async fn authorize(mut self, op: Op, touch: AccessMode) -> Result<Self, Error> {
        if !self.restricted {
            return Ok(self);
        }
        let Some(user) = self.actor else {
            return Err(self.forbidden(op));
        };
        let mut role = users::Entity::find()
            .select_only()
            .column(users::Column::Role)
            .filter(users::COLUMN.id.eq(user))
            .filter(users::COLUMN.is_active.eq(true))
            .filter(users::COLUMN.deleted_at.is_null());
        if touch.writes() && self.backend() == DbBackend::Postgres {
            role = role.lock(LockType::Share);
        }
        let asking = Self {
            rows: None,
            ..self.clone()
        };
        let role = asking.scalar::<Role, _>(role).await?;
        let (action, resource) = op.needs;
        match role.and_then(|role| role.reach(action, resource)) {
            None => Err(self.forbidden(op)),
            Some(reach) => {
                self.own = (reach == Reach::Own).then_some(user);
                self.role = role;
                // Operations that this one calls are part of it.
                self.restricted = false;
                Ok(self)
            }
        }
    }

    /// Returns whether the actor's role also allows this, within an operation.
    pub(crate) fn is_allowed(&self, op: Op) -> bool {
        let (action, resource) = op.needs;
        self.role.is_none_or(|role| role.can(action, resource))
    }

    pub(crate) fn forbidden(&self, op: Op) -> Error {
        let (action, resource) = op.needs;
        Error::Forbidden {
            user: self.actor.unwrap_or(UserId(0)),
            action,
            resource,
        }
    }

    /// Returns the condition that limits rows to those of the actor, where the role
    /// reaches only own rows.
    pub(crate) fn own_rows<C: ColumnTrait>(&self, owner: C) -> Condition {
        Condition::all().add_option(self.own.map(|user| owner.eq(user)))
    }

    /// Returns the user to whose rows the operation is limited.
    pub(crate) fn limited_to(&self) -> Option<UserId> {
        self.own
    }

    /// Fails with [`Error::Forbidden`] for a row of another owner, where the role reaches
    /// only own rows.
    pub(crate) fn ensure_owner(&self, op: Op, owner: UserId) -> Result<(), Error> {
        match self.own {
            Some(user) if user != owner => Err(self.forbidden(op)),
            _ => Ok(()),
        }
    }
}
