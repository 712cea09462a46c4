//! SeaORM's own connections.

use std::ops::Deref;
use std::sync::Arc;

use aura_orm::sqlite::WriteLock;
use connection::{Config, Connections};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use tokio::sync::OnceCell;

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::executor::context::Backend;

const BEGINNING: &str = "beginning a transaction";

/// SeaORM's own connections to the same database, for what only they can do: migrations
/// of an application, and code that takes a `ConnectionTrait`.
///
/// What [`Database`](crate::Database) promises of its own statements doesn't hold for
/// theirs: a failed or dropped statement doesn't spoil their transaction, a collision isn't
/// retried, `DB_STATEMENT_TIMEOUT` isn't kept on SQLite, a rotated password isn't read
/// again, statements are named also with `DB_PREPARED_STATEMENTS=false`, nothing is counted,
/// soft-deleted rows are not hidden, and on SQLite times are written with 0, 3 or 6 digits
/// of fraction, which sort with those of the database and don't equal them. They are slower,
/// and on PostgreSQL they come on top of `DB_POOL_MAX`: as many again to read, and as many
/// to write.
#[derive(Debug, Clone)]
pub struct SeaOrm {
    executor: Executor,
}

/// A connection that may write. On SQLite it keeps all other writes out until it is
/// dropped: don't use the database for writes meanwhile, which would wait for it.
#[derive(Debug)]
pub struct SeaOrmWriter {
    connection: DatabaseConnection,
    _lock: Option<WriteLock>,
}

impl Deref for SeaOrmWriter {
    type Target = DatabaseConnection;

    fn deref(&self) -> &DatabaseConnection {
        &self.connection
    }
}

/// A transaction that may write. On SQLite it keeps all other writes out until it ends.
#[derive(Debug)]
pub struct SeaOrmTransaction {
    transaction: DatabaseTransaction,
    lock: Option<WriteLock>,
}

impl Deref for SeaOrmTransaction {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.transaction
    }
}

impl SeaOrmTransaction {
    /// Commits.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when the answer was lost, and what the database says.
    /// PostgreSQL rolls back without an error when a statement failed before.
    pub async fn commit(self) -> Result<(), Error> {
        let committed = self.transaction.commit().await;
        committed.map_err(|error| Error::of_sent("committing", error))?;
        match self.lock {
            Some(lock) => lock.check().map_err(Error::of_commit),
            None => Ok(()),
        }
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn rollback(self) -> Result<(), Error> {
        self.transaction
            .rollback()
            .await
            .context("undoing a transaction")
    }
}

impl SeaOrm {
    pub(crate) fn new(executor: Executor) -> Self {
        Self { executor }
    }

    /// Returns a connection for reads. On SQLite it can only read.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn reader(self) -> Result<DatabaseConnection, Error> {
        Ok(self.connections().await?.reader.clone())
    }

    /// Waits its turn, and returns a connection that may write.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when on SQLite others write for longer than
    /// `DB_POOL_CONNECTION_TIMEOUT`; [`Error::Unavailable`].
    pub async fn writer(self) -> Result<SeaOrmWriter, Error> {
        let lock = self.lock().await?;
        let connection = self.connections().await?.writer.clone();
        Ok(SeaOrmWriter {
            connection,
            _lock: lock,
        })
    }

    /// Waits its turn, and begins a transaction that may write. On SQLite it is
    /// IMMEDIATE: the usual deferred one fails with "database is locked" when it reads
    /// before it writes, whatever the busy timeout.
    ///
    /// # Errors
    ///
    /// As [`SeaOrm::writer`], and when another process keeps the file locked.
    pub async fn begin(self) -> Result<SeaOrmTransaction, Error> {
        let lock = self.lock().await?;
        let connection = self.connections().await?.writer.clone();
        let transaction = begin(connection, SqliteTransactionMode::Immediate).await?;
        Ok(SeaOrmTransaction { transaction, lock })
    }

    async fn connections(&self) -> Result<&Connections, Error> {
        let shared = &self.executor.shared;
        shared.seaorm.get(&shared.config).await
    }

    async fn lock(&self) -> Result<Option<WriteLock>, Error> {
        let Backend::Sqlite(sqlite) = &self.executor.shared.backend else {
            return Ok(None);
        };
        let waits = !sqlite.writer.is_idle();
        let locked = self.executor.counted(waits, sqlite.writer.lock()).await;
        let locked = locked.map_err(|error| Error::of_sqlite(BEGINNING, error));
        locked.map(Some)
    }
}

/// `SeaORM`'s connections, which are opened at their first use.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeaOrmConnections(Arc<OnceCell<Connections>>);

impl SeaOrmConnections {
    /// Wraps connections that are open already.
    pub(crate) fn of(connections: Connections) -> Self {
        Self(Arc::new(OnceCell::new_with(Some(connections))))
    }

    async fn get(&self, config: &Config) -> Result<&Connections, Error> {
        let open = || async { Ok(connection::connect(config).await?) };
        self.0.get_or_try_init(open).await
    }

    /// Closes those that were opened.
    pub(crate) async fn close(&self) {
        if let Some(connections) = self.0.get() {
            connections.clone().close().await;
        }
    }
}

/// Begins a transaction in a task of its own: a `begin` that is dropped halfway would
/// return a PostgreSQL connection to the pool inside a transaction, where the next write
/// would be acknowledged and lost. A transaction whose caller has gone is rolled back.
async fn begin(
    connection: DatabaseConnection,
    sqlite_transaction_mode: SqliteTransactionMode,
) -> Result<DatabaseTransaction, Error> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(sqlite_transaction_mode),
        ..TransactionOptions::default()
    };
    let begun = tokio::spawn(async move { connection.begin_with_options(options).await });
    begun
        .await
        .map_err(|source| Error::unavailable(BEGINNING, source))?
        .context(BEGINNING)
}
