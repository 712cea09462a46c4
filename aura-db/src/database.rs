//! The open database.

use std::sync::Arc;

use connection::Config;
use entity::UserId;
use sea_orm::{DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, StatementBuilder};
use secrecy::SecretString;

use crate::clock::{Clock, SystemClock};
use crate::error::{Context, Error};
use crate::executor::acquire::begin;
use crate::executor::context::ConnectionLimits;
use crate::executor::postgres::PostgresPool;
use crate::executor::sqlite::SqliteExecutor;
use crate::executor::stats::DatabaseStats;
use crate::executor::transaction::{Isolation, Pool};
use crate::executor::typed_query::Fetch;
use crate::executor::{Executor, Shared};
use crate::repositories::sessions::{Issued, SessionRequest, Sessions};
use crate::repositories::users::{User, Users};
use crate::repositories::{
    agents::Agents, executions::Executions, logs::Logs, plugins::Plugins, workflows::Workflows,
};

/// An open database. Cloning it is cheap, and the clones share its pools.
#[derive(Debug, Clone)]
pub struct Database {
    executor: Executor,
}

/// An open transaction, for the closure of [`Database::transaction`]. Cloning it
/// is cheap, and the clones are the same transaction. After its end each use
/// is [`Error::Ended`].
#[derive(Debug, Clone)]
pub struct Transaction {
    executor: Executor,
}

/// The database as one user may use it. From [`Database::restricted_to`].
#[derive(Debug, Clone)]
pub struct Restricted {
    executor: Executor,
}

macro_rules! repositories {
    ($($handle:ident),+) => {
        $(impl $handle {
            /// People and their passwords.
            #[must_use]
            pub fn users(&self) -> Users {
                Users(self.executor.clone())
            }

            /// Who is logged in.
            #[must_use]
            pub fn sessions(&self) -> Sessions {
                Sessions(self.executor.clone())
            }

            /// Automations and their history.
            #[must_use]
            pub fn workflows(&self) -> Workflows {
                Workflows(self.executor.clone())
            }

            /// What workflows are extended with.
            #[must_use]
            pub fn plugins(&self) -> Plugins {
                Plugins(self.executor.clone())
            }

            /// Runs of workflows.
            #[must_use]
            pub fn executions(&self) -> Executions {
                Executions(self.executor.clone())
            }

            /// What executions tell.
            #[must_use]
            pub fn logs(&self) -> Logs {
                Logs(self.executor.clone())
            }

            /// Language models with instructions.
            #[must_use]
            pub fn agents(&self) -> Agents {
                Agents(self.executor.clone())
            }
        })+
    };
}

repositories!(Database, Transaction, Restricted);

impl Database {
    /// Connects as the `DB_*` variables and the `.env` file say; without any of
    /// them to the SQLite file `./data/aura.db`.
    ///
    /// Fails like [`Database::connect`], and with [`Error::Configuration`] that
    /// lists every bad variable.
    pub async fn from_env() -> Result<Self, Error> {
        Self::connect(Config::from_env()?).await
    }

    /// Connects, for a service: the schema must be the one that this build
    /// needs. With `synchronize` (`DB_SYNCHRONIZE=true`), and always for
    /// `:memory:`, pending migrations are applied first. A schema that is newer
    /// than this build is only warned about, because a rolling deploy makes it
    /// so.
    ///
    /// Fails with [`Error::Configuration`] or [`Error::Unavailable`] when there
    /// is no connection, and with [`Error::Schema`] when the schema is missing,
    /// behind, or somebody else's.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        for warning in config.warnings() {
            tracing::warn!(target: "aura_db::connection", "{warning}");
        }
        let db = Self::open(config).await?;
        let ready = db.prepare_schema().await;
        if ready.is_err() {
            db.clone().close().await;
        }
        ready.map(|()| db)
    }

    /// Connects without a look at the schema, for tools that report on it or
    /// change it.
    ///
    /// Fails with [`Error::Configuration`] or [`Error::Unavailable`].
    pub async fn open(config: Config) -> Result<Self, Error> {
        let connections = connection::connect(&config).await?;
        Ok(Self {
            executor: Executor::new(Shared {
                sqlite: SqliteExecutor::of(&config),
                postgres: PostgresPool::of(&config, &connections),
                appends: Arc::default(),
                limits: ConnectionLimits::of(&config),
                config: Arc::new(config),
                connections,
                clock: Arc::new(SystemClock),
                stats: Arc::default(),
                news: tokio::sync::watch::Sender::new(()),
            }),
        })
    }

    /// The same database with another source of time.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            clock,
            ..(*self.executor.shared).clone()
        };
        Self {
            executor: self.executor.sharing(shared),
        }
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.executor.shared.config
    }

    /// The present moment by the database's clock.
    #[must_use]
    pub fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.executor.now()
    }

    /// A plain SeaORM connection for queries of your own. On SQLite it can only
    /// read. It hides nothing: soft-deleted rows are left out by
    /// [`entity::Live::live`].
    #[must_use]
    pub fn reader(&self) -> &DatabaseConnection {
        &self.executor.connections().reader
    }

    /// A plain SeaORM connection for statements of your own that write. On
    /// SQLite it is the only one: while a transaction holds it, other writers
    /// wait. For a transaction use [`Database::transaction`].
    ///
    /// On SQLite it writes times with 0, 3 or 6 digits of fraction, as the driver
    /// does. They sort with the six digits that [`Database::execute`] and the
    /// repositories write, and don't equal them.
    #[must_use]
    pub fn writer(&self) -> &DatabaseConnection {
        &self.executor.connections().writer
    }

    /// Begins a plain SeaORM transaction that may write, for statements that
    /// [`Database::transaction`] can't run. What fails in it is not watched:
    /// look at every result before you commit. On SQLite it is IMMEDIATE: the
    /// usual deferred one fails with "database is locked" when it reads before
    /// it writes, whatever the busy timeout.
    ///
    /// Fails when no connection is free within the pool's timeout, or the file
    /// stays locked for longer than the lock timeout.
    pub async fn begin(&self) -> Result<DatabaseTransaction, Error> {
        begin(self.writer().clone(), SqliteTransactionMode::Immediate).await
    }

    /// Whether both connections answer.
    ///
    /// Fails when one doesn't.
    pub async fn ping(&self) -> Result<(), Error> {
        const PINGING: &str = "pinging the database";
        if let Some(sqlite) = &self.executor.shared.sqlite {
            sqlite.check_file(PINGING)?;
        }
        self.writer().ping().await.context(PINGING)?;
        self.reader().ping().await.context(PINGING)
    }

    /// Waits for statements under way and closes every connection, for all
    /// clones of this database.
    pub async fn close(self) {
        let shared = &*self.executor.shared;
        if let Some(postgres) = &shared.postgres {
            postgres.close();
        }
        // First: whoever leaves a SQLite file last folds its WAL back into it.
        if let Some(sqlite) = &shared.sqlite {
            sqlite.close().await;
        }
        shared.connections.clone().close().await;
    }

    /// The same database on behalf of a user, who is noted as `created_by` and
    /// `updated_by`. What the user may do is not asked: see
    /// [`Database::restricted_to`].
    #[must_use]
    pub fn acting_as(&self, user: UserId) -> Self {
        Self {
            executor: self.executor.acting_as(user),
        }
    }

    /// The database as this user may use it: every operation asks for the
    /// user's role, in its own transaction, so that a demotion counts at once,
    /// and is refused with [`Error::Forbidden`] when the role doesn't
    /// [allow](entity::Role::can) it. Editors and users reach only what they
    /// own.
    #[must_use]
    pub fn restricted_to(&self, user: &User) -> Restricted {
        Restricted {
            executor: self.executor.restricted_to(user.id),
        }
    }

    /// [`Users::login`].
    pub async fn login(
        &self,
        email: &str,
        password: impl Into<SecretString>,
        request: SessionRequest,
    ) -> Result<Issued, Error> {
        self.users().login(email, password, request).await
    }

    /// Runs a closure in a transaction that may write, and commits it when the
    /// closure returns `Ok`. `Ok` comes back only when it is committed.
    ///
    /// When it collides with others (a serialization failure, a deadlock, a
    /// busy file), all of it is run again, with random pauses, ten times and for
    /// as long as `DB_POOL_CONNECTION_TIMEOUT` at the least: the closure must
    /// not do anything that can't be done twice. When it
    /// returns an error, or is dropped, everything is undone. So is everything
    /// when a statement in it failed, even if the closure went on: that is
    /// [`Error::Aborted`]. A [nested](Transaction::transaction) one can be
    /// undone on its own.
    ///
    /// On SQLite it is the only one that writes, and others wait: keep it
    /// short, and use `tx` inside and not `db`, which would wait for itself.
    ///
    /// ```
    /// # use aura_db::{Error, NewUser, Role, testing::TestDatabase};
    /// # #[tokio::main] async fn main() -> Result<(), Error> {
    /// # let db = TestDatabase::sqlite().await?;
    /// let ada = db
    ///     .transaction(|tx| async move {
    ///         let ada = tx.users().create(NewUser::new("Ada", "ada@example.org", "secret")).await?;
    ///         tx.users().set_role(ada.id, Role::Admin).await
    ///     })
    ///     .await?;
    /// assert_eq!(ada.role, Role::Admin);
    /// # Ok(()) }
    /// ```
    pub async fn transaction<T, E, F, Fut>(&self, run: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        self.transaction_at(Isolation::Default, run).await
    }

    /// [`Database::transaction`] that is kept further apart from others. On
    /// SQLite every transaction is serializable.
    pub async fn transaction_at<T, E, F, Fut>(&self, isolation: Isolation, run: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        self.executor
            .transact(Pool::Caller, isolation, |executor| {
                run(Transaction { executor })
            })
            .await
    }

    /// What the database did since it was opened, in numbers.
    #[must_use]
    pub fn stats(&self) -> DatabaseStats {
        self.executor.shared.stats.snapshot()
    }
}

impl Transaction {
    /// The same transaction on behalf of a user.
    #[must_use]
    pub fn acting_as(&self, user: UserId) -> Self {
        Self {
            executor: self.executor.acting_as(user),
        }
    }

    /// The same transaction as this user may use it.
    #[must_use]
    pub fn restricted_to(&self, user: &User) -> Restricted {
        Restricted {
            executor: self.executor.restricted_to(user.id),
        }
    }

    /// Runs a closure in a part of the transaction that can be undone on its
    /// own (a savepoint). While it runs, only the handle that it is given may
    /// be used. If its future is dropped halfway, the whole transaction is
    /// undone.
    pub async fn transaction<T, E, F, Fut>(&self, run: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        self.executor
            .transact(Pool::Caller, Isolation::Default, |executor| {
                run(Self { executor })
            })
            .await
    }
}

impl Restricted {
    /// [`Database::transaction`] in which everything is restricted. (Inside of
    /// one it is nested.)
    pub async fn transaction<T, E, F, Fut>(&self, run: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        self.executor
            .transact(Pool::Caller, Isolation::Default, |executor| {
                run(Self { executor })
            })
            .await
    }
}

macro_rules! queries {
    ($($handle:ident),+) => {
        $(impl $handle {
            /// Every row of a query of your own.
            ///
            /// ```
            /// use aura_db::entity::{Live, Role, users};
            /// use aura_db::sea_orm::{ColumnTrait, QueryFilter, QueryOrder};
            ///
            /// # async fn example(db: aura_db::Database) -> Result<(), aura_db::Error> {
            /// let admins = users::Entity::live()
            ///     .filter(users::COLUMN.role.eq(Role::Admin))
            ///     .order_by_asc(users::Column::Name);
            /// let admins: Vec<aura_db::User> = db.fetch_all(admins).await?;
            /// # Ok(()) }
            /// ```
            pub async fn fetch_all<Q: Fetch>(&self, query: Q) -> Result<Vec<Q::Row>, Error> {
                self.executor.fetch_all(query).await
            }

            /// The first row of a query of your own, if there is one.
            pub async fn fetch_optional<Q: Fetch>(
                &self,
                query: Q,
            ) -> Result<Option<Q::Row>, Error> {
                Ok(self.executor.fetch_all(query).await?.into_iter().next())
            }

            /// The first row of a query of your own.
            ///
            /// Fails with [`Error::NotFound`] when there is none.
            pub async fn fetch_one<Q: Fetch>(&self, query: Q) -> Result<Q::Row, Error> {
                self.fetch_optional(query)
                    .await?
                    .ok_or_else(|| Error::not_found("row", "of the query"))
            }

            /// Runs an `INSERT`, `UPDATE` or `DELETE` of your own and says how
            /// many rows it touched.
            pub async fn execute<S: StatementBuilder + Send>(
                &self,
                statement: S,
            ) -> Result<u64, Error> {
                self.executor.execute(statement).await
            }
        })+
    };
}

queries!(Database, Transaction);
