//! Acquires connections for statements and transactions.

use std::sync::Arc;
use std::time::Instant;

use aura_orm::StatementKind;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Context, Error};
use crate::executor::context::Executor;
use crate::executor::postgres::{PooledConnection, PostgresPool};
use crate::executor::transaction::{Isolation, Pool, TransactionState};
use crate::executor::tx_connection::{TxConnection, context};

const BEGINNING: &str = "beginning a transaction";

impl Executor {
    /// Runs a statement on a connection to the server, outside of a transaction.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when it writes and its answer was lost.
    pub(crate) async fn on_server<T>(
        &self,
        postgres: &PostgresPool,
        kind: StatementKind,
        run: impl AsyncFnOnce(&mut PooledConnection) -> Result<T, DbErr>,
    ) -> Result<T, Error> {
        let context = context(kind);
        let _place = self.acquire_permit(&self.shared.limits.writer).await?;
        let mut connection = postgres.acquire().await.context(context)?;
        run(&mut connection).await.map_err(|error| {
            if kind == StatementKind::Read {
                Error::of(context, error)
            } else {
                Error::of_sent(context, error)
            }
        })
    }

    /// Returns the driver's connections, and the semaphore in front of them.
    pub(crate) fn pool(&self, writes: bool) -> (&DatabaseConnection, &Arc<Semaphore>) {
        let shared = &*self.shared;
        if writes {
            (&shared.connections.writer, &shared.limits.writer)
        } else {
            (&shared.connections.reader, &shared.limits.reader)
        }
    }

    /// Waits for a permit to use a connection.
    pub(crate) async fn acquire_permit(
        &self,
        permits: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let started = Instant::now();
        let limit = self.shared.config.pool.connection_timeout;
        let permit = tokio::time::timeout(limit, permits.clone().acquire_owned()).await;
        self.shared.stats.waited(started.elapsed());
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::Busy {
                context: "waiting for a connection",
                source: None,
            }),
        }
    }

    pub(super) async fn begin(
        &self,
        pool: Pool,
        isolation: Isolation,
        alone: bool,
    ) -> Result<Arc<TransactionState>, Error> {
        let sqlite = self.shared.sqlite.as_ref();
        let (connection, permit) = match (sqlite, pool) {
            (Some(sqlite), Pool::Reader) => {
                let waits = sqlite.readers.is_full();
                let snapshot = self.counted(waits, sqlite.readers.snapshot()).await;
                let snapshot = snapshot.map_err(|error| Error::of_sqlite(BEGINNING, error))?;
                (TxConnection::Snapshot(snapshot.into()), None)
            }
            (Some(sqlite), Pool::Writer) => {
                let write = self.begin_write(sqlite, alone).await?;
                (TxConnection::Write(write.into()), None)
            }
            _ => match &self.shared.postgres {
                Some(postgres) => {
                    let permit = self.acquire_permit(&self.shared.limits.writer).await?;
                    let connection = postgres.begin(isolation).await.context(BEGINNING)?;
                    (TxConnection::PostgresPool(connection.into()), Some(permit))
                }
                None => self.begin_driver(pool).await?,
            },
        };
        Ok(TransactionState::new(connection, permit))
    }

    /// Begins on SQLite, whose transactions are all serializable.
    async fn begin_driver(
        &self,
        pool: Pool,
    ) -> Result<(TxConnection, Option<OwnedSemaphorePermit>), Error> {
        let excluded = match &self.shared.sqlite {
            Some(sqlite) => {
                let excluded = self.waiting(sqlite, sqlite.writer.lock()).await;
                Some(excluded.map_err(|error| Error::of_sqlite(BEGINNING, error))?)
            }
            None => None,
        };
        let (connection, permits) = self.pool(pool != Pool::Reader);
        let permit = self.acquire_permit(permits).await?;
        // Deferred, SQLite's own default, fails at once with "database is locked"
        // when it reads before it writes.
        let mode = match pool {
            Pool::Reader => SqliteTransactionMode::Deferred,
            _ => SqliteTransactionMode::Immediate,
        };
        let transaction = begin(connection.clone(), mode).await?;
        Ok((TxConnection::Driver(transaction, excluded), Some(permit)))
    }
}

/// Begins a transaction in a task of its own: a `begin` that is dropped halfway
/// would put a PostgreSQL connection back into the pool inside of a
/// transaction, where the next write would be acknowledged and lost. A transaction
/// whose caller has gone is rolled back.
pub(crate) async fn begin(
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
