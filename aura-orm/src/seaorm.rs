//! SeaORM's own connections.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use connection::{Config, Connections};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use tokio::sync::OnceCell;

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::executor::context::Backend;
use crate::sqlite::WriteLock;

const BEGINNING: &str = "beginning a transaction";

/// SeaORM's own connections to the same database, for what only they can do: migrations
/// of an application, and code that takes a `ConnectionTrait`.
///
/// What the [`Executor`] promises of its own statements doesn't hold for theirs: a failed or dropped statement doesn't spoil their transaction, a collision isn't
/// retried, `DB_STATEMENT_TIMEOUT` isn't kept on SQLite, a rotated password isn't read
/// again, statements are named also with `DB_PREPARED_STATEMENTS=false`, nothing is counted,
/// soft-deleted rows are not hidden, and on SQLite times are written with 0, 3 or 6 digits
/// of fraction, which sort with those of the database and don't equal them. On PostgreSQL
/// `infinity` in a column of times panics in their driver. They are slower,
/// and on PostgreSQL they come on top of `DB_POOL_MAX`: as many again to read, and as many
/// to write.
#[derive(Debug)]
pub struct SeaOrm<X = Error> {
    executor: Executor<X>,
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
pub struct SeaOrmTransaction<X = Error> {
    transaction: DatabaseTransaction,
    lock: Option<WriteLock>,
    error: PhantomData<fn() -> X>,
}

impl<X> Deref for SeaOrmTransaction<X> {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.transaction
    }
}

impl<X: From<Error>> SeaOrmTransaction<X> {
    /// Commits.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when the answer was lost, and what the database says.
    /// PostgreSQL rolls back without an error when a statement failed before.
    pub async fn commit(self) -> Result<(), X> {
        let committed = self.transaction.commit().await;
        committed.map_err(|error| Error::of_sent("committing", error))?;
        match self.lock {
            Some(lock) => Ok(lock.check().map_err(Error::of_commit)?),
            None => Ok(()),
        }
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn rollback(self) -> Result<(), X> {
        let undone = self.transaction.rollback().await;
        Ok(undone.context("undoing a transaction")?)
    }
}

impl<X> SeaOrm<X> {
    pub(crate) fn new(executor: Executor<X>) -> Self {
        Self { executor }
    }
}

impl<X: From<Error> + Send + 'static> SeaOrm<X> {
    /// Returns a connection for reads, which refuses to write; except in memory, and on
    /// PostgreSQL behind a pooler (`DB_PREPARED_STATEMENTS=false`), where no start-up option
    /// can say so.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn reader(self) -> Result<DatabaseConnection, X> {
        Ok(self.connections().await?.reader.clone())
    }

    /// Waits its turn, and returns a connection that may write.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when on SQLite others write for longer than
    /// `DB_POOL_CONNECTION_TIMEOUT`; [`Error::Unavailable`].
    pub async fn writer(self) -> Result<SeaOrmWriter, X> {
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
    pub async fn begin(self) -> Result<SeaOrmTransaction<X>, X> {
        let lock = self.lock().await?;
        let connection = self.connections().await?.writer.clone();
        let transaction = begin(connection, SqliteTransactionMode::Immediate).await?;
        Ok(SeaOrmTransaction {
            transaction,
            lock,
            error: PhantomData,
        })
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
pub(crate) struct SeaOrmConnections {
    opened: Arc<OnceCell<Connections>>,
    /// The name of a database in memory.
    memory: Option<String>,
}

impl SeaOrmConnections {
    /// Prepares connections to a database in memory.
    pub(crate) fn to_memory(name: String) -> Self {
        Self {
            memory: Some(name),
            ..Self::default()
        }
    }

    async fn get(&self, config: &Config) -> Result<&Connections, Error> {
        let open = || async {
            Ok(match &self.memory {
                Some(name) => connection::connect_memory(config, name).await?,
                None => connection::connect(config).await?,
            })
        };
        self.opened.get_or_try_init(open).await
    }

    /// Closes those that were opened.
    pub(crate) async fn close(&self) {
        if let Some(connections) = self.opened.get() {
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
