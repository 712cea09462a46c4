//! What an operation runs with: the executor, who acts, and what the actor may do.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use aura_orm::{Access, Batcher, CommitHook, Operation, RoleSource};
use connection::Config;
use entity::{Action, Resource, Role, Scope, UserId, WorkflowId, logs, users};
use sea_orm::sea_query::LockType;
use sea_orm::{ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QuerySelect};

use crate::error::Error;
use crate::repositories::executions::{Turns, Waiters};
use crate::repositories::logs::{Appended, Followers, LogEntry};
use crate::{Repository, RepositoryEntity};

/// The executor, with errors of this crate.
pub(crate) type Executor = aura_orm::Executor<Error>;

/// An operation of a repository, as spans and statistics name it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    pub(crate) needs: (Action, Resource),
}

/// What the handles of a database share beside the connections.
struct Shared {
    /// Log entries that are appended to PostgreSQL in one statement.
    appends: Arc<Batcher<LogEntry, Appended>>,
    /// Those who follow the log.
    followers: Arc<Followers>,
    /// Wakes those who follow the workflows with these keys.
    notify_appended: CommitHook,
    /// Whose executions are taken next.
    turns: Arc<Turns>,
    /// The workers that wait.
    waiters: Arc<Waiters>,
    /// Wakes them for what was queued.
    notify_queued: CommitHook,
}

/// What an operation runs with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    executor: Executor,
    shared: Arc<Shared>,
    /// Whether the actor's role is asked before each operation.
    restricted: bool,
    /// The user to whose rows the operation is limited.
    own: Option<UserId>,
    /// The role that was found, within a restricted operation.
    role: Option<Role>,
}

/// Finds the role of a user who is active and not deleted. Before a write PostgreSQL locks
/// the user's row until the end of the transaction; SQLite has one writer.
async fn role_of<X>(
    tx: &aura_orm::Executor<X>,
    user: UserId,
    writes: bool,
) -> Result<Option<Role>, X>
where
    X: From<aura_orm::Error> + Send + 'static,
{
    let mut role = users::Entity::find()
        .select_only()
        .column(users::Column::Role)
        .filter(users::COLUMN.id.eq(user))
        .filter(users::COLUMN.is_active.eq(true))
        .filter(users::COLUMN.deleted_at.is_null());
    if writes && tx.backend() == DbBackend::Postgres {
        role = role.lock(LockType::Share);
    }
    tx.scalar(role).await
}

/// The roles of the table `users`.
#[derive(Debug)]
pub(crate) struct UserRoles;

#[async_trait]
impl RoleSource for UserRoles {
    async fn role(
        &self,
        tx: &aura_orm::Executor,
        user: i64,
        writes: bool,
    ) -> Result<Option<String>, aura_orm::Error> {
        let role = role_of(tx, UserId(user), writes).await?;
        Ok(role.map(|role| role.as_str().to_owned()))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("executor", &self.executor)
            .field("restricted", &self.restricted)
            .finish_non_exhaustive()
    }
}

impl Deref for Context {
    type Target = Executor;

    fn deref(&self) -> &Executor {
        &self.executor
    }
}

impl Context {
    /// Opens the database of the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] and [`Error::Unavailable`].
    pub(crate) async fn connect(config: Config) -> Result<Self, Error> {
        let executor = Executor::connect(config).await?;
        let followers = Arc::<Followers>::default();
        let waiters = Arc::new(Waiters::new(executor.clone()));
        let shared = Shared {
            waiters: waiters.clone(),
            notify_queued: Arc::new(move |keys| waiters.queued(keys)),
            appends: Arc::default(),
            followers: followers.clone(),
            notify_appended: Arc::new(move |workflows| followers.notify(workflows)),
            turns: Arc::default(),
        };
        Ok(Self {
            executor,
            shared: Arc::new(shared),
            restricted: false,
            own: None,
            role: None,
        })
    }

    /// Returns whose executions are taken next.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.shared.turns
    }

    /// Returns the workers that wait.
    pub(crate) fn waiters(&self) -> &Arc<Waiters> {
        &self.shared.waiters
    }

    /// Wakes a worker for each execution that was queued, by its queue; inside a transaction
    /// after its commit.
    pub(crate) fn notify_queued<'a>(&self, queues: impl IntoIterator<Item = &'a str>) {
        let waiters = &self.shared.waiters;
        let keys = queues.into_iter().map(|queue| waiters.key(queue));
        self.after_commit(&self.shared.notify_queued, &keys.collect());
    }

    /// Returns the same context with another executor of the same database.
    pub(crate) fn with(&self, executor: Executor) -> Self {
        Self {
            executor,
            ..self.clone()
        }
    }

    pub(crate) fn acting_as(&self, user: UserId) -> Self {
        self.with(self.executor.acting_as(user.0))
    }

    pub(crate) fn restricted_to(&self, user: UserId) -> Self {
        Self {
            restricted: true,
            ..self.acting_as(user)
        }
    }

    /// Returns the user on whose behalf this acts.
    pub(crate) fn actor(&self) -> Option<UserId> {
        self.executor.actor().map(UserId)
    }

    /// Returns the log entries that are appended in one statement.
    pub(crate) fn appends(&self) -> &Arc<Batcher<LogEntry, Appended>> {
        &self.shared.appends
    }

    /// Returns what those who follow the log share.
    pub(crate) fn followers(&self) -> &Arc<Followers> {
        &self.shared.followers
    }

    /// Wakes those who follow the log of these workflows; inside a transaction after its
    /// commit.
    pub(crate) fn notify_appended(&self, workflows: impl IntoIterator<Item = WorkflowId>) {
        let keys: BTreeSet<i64> = workflows.into_iter().map(|workflow| workflow.0).collect();
        self.after_commit(&self.shared.notify_appended, &keys);
    }

    /// Returns whether it may do only what its user may.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Returns the same context without limits, for what depends on no user.
    pub(crate) fn unrestricted(&self) -> Self {
        Self {
            restricted: false,
            own: None,
            role: None,
            ..self.clone()
        }
    }

    /// Runs an operation that only reads.
    pub(crate) async fn read<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.operate(op, Access::READ, run).await
    }

    /// Runs an operation that only reads, at READ COMMITTED whatever the server's
    /// default.
    pub(crate) async fn read_committed<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.operate(op, Access::READ_COMMITTED, run).await
    }

    /// Runs an operation that writes with a single statement.
    pub(crate) async fn write<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.operate(op, Access::WRITE, run).await
    }

    /// Runs an operation whose statements are committed together or not at all.
    pub(crate) async fn atomic<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        self.operate(op, Access::ATOMIC, run).await
    }

    /// Runs an operation that is a single statement on PostgreSQL, and several on SQLite
    /// that are committed together.
    pub(crate) async fn atomic_on_sqlite<T, F, Fut>(&self, op: Op, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let access = match self.backend() {
            DbBackend::Postgres => Access::WRITE,
            _ => Access::ATOMIC,
        };
        self.operate(op, access, run).await
    }

    async fn operate<T, F, Fut>(&self, op: Op, access: Access, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let operation = Operation {
            table: op.table,
            name: op.name,
        };
        if !self.restricted {
            let run = |executor| run(self.with(executor));
            return self.executor.operate(operation, access, run).await;
        }
        let run = &run;
        let checked = |executor| {
            let context = self.with(executor);
            async move { run(context.authorize(op, access).await?).await }
        };
        let access = access.in_transaction();
        self.executor.operate(operation, access, checked).await
    }

    /// Checks the actor's role in the transaction of the operation, so that a demotion
    /// takes effect at once.
    async fn authorize(mut self, op: Op, access: Access) -> Result<Self, Error> {
        let Some(user) = self.actor() else {
            return Err(self.forbidden(op));
        };
        let role = role_of(&self.uncounted(), user, access.writes()).await?;
        let (action, resource) = op.needs;
        match role.and_then(|role| role.scope(action, resource)) {
            None => Err(self.forbidden(op)),
            Some(scope) => {
                self.own = (scope == Scope::Own).then_some(user);
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
            user: self.actor().unwrap_or(UserId(0)),
            action,
            what: match op.table {
                "logs" => logs::Entity::name(),
                _ => resource.as_str(),
            },
        }
    }

    /// Returns the repository of an entity, as far as the actor may use it.
    pub(crate) fn rows<E: RepositoryEntity>(&self) -> Repository<E> {
        let rows = self.executor.repository();
        match self.role {
            _ if self.restricted => rows.restricted(Arc::new(UserRoles)),
            Some(role) => rows.with_role(role.as_str()),
            None => rows,
        }
    }

    /// Returns the condition of the rows of an entity that are the actor's own through other
    /// tables, where the role reaches no others.
    pub(crate) fn own_rows<E: RepositoryEntity>(&self) -> Condition {
        let own = self.own.and_then(|user| E::own_rows(user.0));
        own.unwrap_or_else(Condition::all)
    }

    /// Returns the user to whose rows the operation is limited.
    pub(crate) fn limited_to(&self) -> Option<UserId> {
        self.own
    }

    /// Returns whether the rows of an owner are within the operation's reach.
    pub(crate) fn reaches(&self, owner: UserId) -> bool {
        self.own.is_none_or(|user| user == owner)
    }
}
