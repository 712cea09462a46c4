//! The open database.

use std::sync::Arc;

use connection::{Config, Connections, Target};
use migration::{Runner, State};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};

use crate::clock::{Clock, SystemClock};
use crate::error::{Doing, Error};

/// An open database. Cloning it is cheap, and the clones share its pools.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) config: Arc<Config>,
    pub(crate) connections: Connections,
    pub(crate) clock: Arc<dyn Clock>,
}

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
            db.connections.clone().close().await;
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
            config: Arc::new(config),
            connections,
            clock: Arc::new(SystemClock),
        })
    }

    /// The same database with another source of time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    async fn prepare_schema(&self) -> Result<(), Error> {
        let state = self.schema_state().await?;
        if state == State::Current {
            return Ok(());
        }
        match self.config.target {
            // Another connection would be another database.
            Target::Memory => {
                Runner::default()
                    .up_in_memory(self.writer(), migration::log)
                    .await?;
            }
            _ if self.config.synchronize && !matches!(state, State::Ahead { .. }) => {
                migration::up(&self.config).await?;
            }
            _ => {}
        }
        Ok(self.schema_state().await?.require()?)
    }

    /// How the schema relates to the one that this build knows.
    ///
    /// Fails when the database can't be read.
    pub async fn schema_state(&self) -> Result<State, Error> {
        Ok(migration::state(self.reader()).await?)
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The present moment by the database's clock.
    #[must_use]
    pub fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.clock.now()
    }

    /// A plain SeaORM connection for queries of your own. On SQLite it can only
    /// read. It hides nothing: soft-deleted rows are left out by
    /// [`entity::Live::live`].
    #[must_use]
    pub fn reader(&self) -> &DatabaseConnection {
        &self.connections.reader
    }

    /// A plain SeaORM connection for statements of your own that write. On
    /// SQLite it is the only one: while a transaction holds it, other writers
    /// wait. For a transaction use [`Database::begin`].
    #[must_use]
    pub fn writer(&self) -> &DatabaseConnection {
        &self.connections.writer
    }

    /// Begins a transaction that may write. On SQLite it is IMMEDIATE: the
    /// usual deferred one fails with "database is locked" when it reads before
    /// it writes, whatever the busy timeout.
    ///
    /// Fails when no connection is free within the pool's timeout, or the file
    /// stays locked for longer than the lock timeout.
    pub async fn begin(&self) -> Result<DatabaseTransaction, Error> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        // In a task of its own: a `begin` that is dropped halfway would put a
        // PostgreSQL connection back into the pool inside of a transaction,
        // where the next write would be acknowledged and lost. A transaction
        // that arrives for nobody is rolled back.
        let writer = self.writer().clone();
        let begun = tokio::spawn(async move { writer.begin_with_options(options).await });
        begun
            .await
            .map_err(|source| Error::Unavailable {
                doing: "beginning a transaction",
                source: Box::new(source),
            })?
            .doing("beginning a transaction")
    }

    /// Whether both connections answer.
    ///
    /// Fails when one doesn't.
    pub async fn ping(&self) -> Result<(), Error> {
        self.writer().ping().await.doing("pinging the database")?;
        self.reader().ping().await.doing("pinging the database")
    }

    /// Waits for statements under way and closes every connection, for all
    /// clones of this database.
    pub async fn close(self) {
        self.connections.close().await;
    }
}
