//! The open database.

use std::ops::Deref;
use std::sync::Arc;

use aura_orm::{Clock, DatabaseStats, Isolation, OpenTransaction, TypedQuery};
use connection::Config;
use entity::UserId;
use sea_orm::Statement;
use secrecy::SecretString;

use crate::context::{Context, Executor};
use crate::error::Error;
use crate::repositories::sessions::{Issued, SessionRequest, Sessions};
use crate::repositories::users::{User, Users};
use crate::repositories::{
    agents::Agents, executions::Executions, logs::Logs, plugins::Plugins, workflows::Workflows,
};
use crate::{Repository, RepositoryEntity, SeaOrm};

/// An open database. Cloning it is cheap, and the clones share its pools.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) context: Context,
}

/// An open transaction, for the closure of [`Database::transaction`]. Cloning it
/// is cheap, and the clones are the same transaction. After its end each use
/// is [`Error::Ended`].
#[derive(Debug, Clone)]
pub struct Transaction {
    pub(crate) context: Context,
}

/// A transaction that its owner ends. From [`Database::begin`]. Dropped before
/// [`OwnedTransaction::commit`], it is rolled back.
#[derive(Debug)]
pub struct OwnedTransaction {
    transaction: Transaction,
    open: OpenTransaction<Error>,
}

impl Deref for OwnedTransaction {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

impl OwnedTransaction {
    /// Commits. `Ok` means that everything is committed.
    ///
    /// # Errors
    ///
    /// [`Error::Aborted`] when a statement in it failed before, and then nothing is
    /// committed; [`Error::OutcomeUnknown`] when the answer was lost; [`Error::Busy`] when
    /// it collided with another: begin anew.
    pub async fn commit(self) -> Result<(), Error> {
        self.open.end(true).await
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when the connection has ended, and the server rolls back.
    pub async fn rollback(self) -> Result<(), Error> {
        self.open.end(false).await
    }
}

/// The database as one user may use it. From [`Database::restricted_to`].
#[derive(Debug, Clone)]
pub struct Restricted {
    context: Context,
}

macro_rules! repositories {
    ($($handle:ident),+) => {
        $(impl $handle {
            /// People and their passwords.
            #[must_use]
            pub fn users(&self) -> Users {
                Users(self.context.clone())
            }

            /// Who is logged in.
            #[must_use]
            pub fn sessions(&self) -> Sessions {
                Sessions(self.context.clone())
            }

            /// Automations and their history.
            #[must_use]
            pub fn workflows(&self) -> Workflows {
                Workflows(self.context.clone())
            }

            /// What workflows are extended with.
            #[must_use]
            pub fn plugins(&self) -> Plugins {
                Plugins(self.context.clone())
            }

            /// Runs of workflows.
            #[must_use]
            pub fn executions(&self) -> Executions {
                Executions(self.context.clone())
            }

            /// What executions tell.
            #[must_use]
            pub fn logs(&self) -> Logs {
                Logs(self.context.clone())
            }

            /// Language models with instructions.
            #[must_use]
            pub fn agents(&self) -> Agents {
                Agents(self.context.clone())
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
        let context = Context::connect(config).await?;
        Ok(Self { context })
    }

    /// The same database with another source of time.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let executor = (*self.context).clone().with_clock(clock);
        Self {
            context: self.context.with(executor),
        }
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.context
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.context.config()
    }

    /// Returns SeaORM's own connections, for what only they can do.
    #[must_use]
    pub fn seaorm(&self) -> SeaOrm {
        self.context.seaorm()
    }

    /// Begins a transaction that its owner ends, for code that can't run twice. Otherwise
    /// take [`Database::transaction`], which runs again after a collision, and on SQLite
    /// shares commits. Dropped before [`OwnedTransaction::commit`], it is rolled back.
    ///
    /// On SQLite it is the only one that writes, and others wait; when it runs no
    /// statement for three quarters of `DB_POOL_CONNECTION_TIMEOUT` while others wait, it
    /// is rolled back.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when no connection is free within `DB_POOL_CONNECTION_TIMEOUT`, or
    /// another process keeps the file locked; [`Error::Unavailable`]. In the transaction
    /// [`Error::Busy`] says that it collided with another; begin anew.
    pub async fn begin(&self) -> Result<OwnedTransaction, Error> {
        self.begin_at(Isolation::Default).await
    }

    /// [`Database::begin`] that is kept further apart from others. On SQLite every
    /// transaction is serializable.
    ///
    /// # Errors
    ///
    /// As [`Database::begin`].
    pub async fn begin_at(&self, isolation: Isolation) -> Result<OwnedTransaction, Error> {
        let (executor, open) = self.context.begin_at(isolation).await?;
        let context = self.context.with(executor);
        Ok(OwnedTransaction {
            transaction: Transaction { context },
            open,
        })
    }

    /// Checks that the database answers.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and [`Error::Busy`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.context.check_file("pinging the database")?;
        let one = Statement::from_string(self.context.backend(), "SELECT 1");
        self.context
            .fetch_optional(TypedQuery::<()>::sql(one))
            .await?;
        Ok(())
    }

    /// Waits for statements under way and closes every connection, for all
    /// clones of this database.
    pub async fn close(self) {
        self.context.waiters().close().await;
        self.context.close().await;
    }

    /// The same database on behalf of a user, who is noted as `created_by` and
    /// `updated_by`. What the user may do is not asked: see
    /// [`Database::restricted_to`].
    #[must_use]
    pub fn acting_as(&self, user: UserId) -> Self {
        Self {
            context: self.context.acting_as(user),
        }
    }

    /// The database as this user may use it: every operation asks for the
    /// user's role, in its own transaction, so that a demotion counts at once,
    /// and is refused with [`Error::Forbidden`] when the role doesn't
    /// [allow](entity::Role::can) it. Editors and users reach only what they
    /// own: rows of others are hidden, as if they weren't there.
    #[must_use]
    pub fn restricted_to(&self, user: &User) -> Restricted {
        Restricted {
            context: self.context.restricted_to(user.id),
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
    /// short, hash passwords [before](crate::NewUser::hashed), and use `tx` inside
    /// and not `db`, which would wait for itself. On PostgreSQL, transactions that
    /// change the same rows in different orders wait for each other until the
    /// server finds the deadlock, after a second (`deadlock_timeout`): change rows
    /// in the order of their ids.
    ///
    /// The closure may run again, so it can't give away what it captures. Nothing
    /// has to be cloned for that: let it capture references, which are copied into
    /// each future. Code that wants to move its values takes [`Database::begin`].
    ///
    /// ```
    /// # use aura_db::{Error, NewUser, Role, UserChange, testing::TestDatabase};
    /// # #[tokio::main] async fn main() -> Result<(), Error> {
    /// # let db = TestDatabase::sqlite().await?;
    /// let new = NewUser::new("Ada", "ada@example.org", "a long secret").hashed().await?;
    /// let ada = db.users().create(new).await?;
    /// let others = vec![db.users().create(NewUser::new("Bob", "bob@example.org", "x")).await?.id];
    ///
    /// let (ada, others) = (&ada, &others);
    /// let promoted = db
    ///     .transaction(|tx| async move {
    ///         for id in others {
    ///             tx.users().set_role(*id, Role::Viewer).await?;
    ///         }
    ///         tx.users().set_role(ada.id, Role::Admin).await
    ///     })
    ///     .await?;
    /// assert_eq!(promoted.role, Role::Admin);
    ///
    /// // The same, once, with values that it owns.
    /// let change = UserChange::new().name("Bea");
    /// let tx = db.begin().await?;
    /// tx.users().update(others[0], change).await?;
    /// tx.commit().await?;
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
        let context = |executor| self.context.with(executor);
        self.context
            .transaction_at(isolation, |executor| {
                run(Transaction {
                    context: context(executor),
                })
            })
            .await
    }

    /// What the database did since it was opened, in numbers.
    #[must_use]
    pub fn stats(&self) -> DatabaseStats {
        self.context.stats()
    }
}

impl Transaction {
    /// The same transaction on behalf of a user.
    #[must_use]
    pub fn acting_as(&self, user: UserId) -> Self {
        Self {
            context: self.context.acting_as(user),
        }
    }

    /// The same transaction as this user may use it.
    #[must_use]
    pub fn restricted_to(&self, user: &User) -> Restricted {
        Restricted {
            context: self.context.restricted_to(user.id),
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
        let context = |executor| self.context.with(executor);
        self.context
            .transaction_at(Isolation::Default, |executor| {
                run(Self {
                    context: context(executor),
                })
            })
            .await
    }
}

impl Restricted {
    /// Returns the repository of an entity of your own, as the user may use it: each
    /// operation asks for the user's role and the entity's
    /// [policy](RepositoryEntity::policy).
    #[must_use]
    pub fn repository<E: RepositoryEntity>(&self) -> Repository<E> {
        self.context.rows()
    }

    /// [`Database::transaction`] in which everything is restricted. (Inside of
    /// one it is nested.)
    pub async fn transaction<T, E, F, Fut>(&self, run: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        let context = |executor| self.context.with(executor);
        self.context
            .transaction_at(Isolation::Default, |executor| {
                run(Self {
                    context: context(executor),
                })
            })
            .await
    }
}
