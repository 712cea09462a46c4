//! How a transaction gets its connection.

use std::sync::Arc;
use std::time::Instant;

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, IsolationLevel, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::handle::Handle;
use crate::engine::session::Session;
use crate::engine::transaction::{Isolation, Open, Pool};
use crate::error::{Doing, Error};

const BEGINNING: &str = "beginning a transaction";

impl Handle {
    /// Waits for a place in a pool.
    pub(crate) async fn place(&self, gate: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = gate.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let started = Instant::now();
        let limit = self.shared.config.pool.connection_timeout;
        let permit = tokio::time::timeout(limit, gate.clone().acquire_owned()).await;
        self.shared.stats.waited(started.elapsed());
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::Busy {
                doing: "waiting for a connection",
                source: None,
            }),
        }
    }

    pub(super) async fn begin(
        &self,
        pool: Pool,
        isolation: Isolation,
        alone: bool,
    ) -> Result<Arc<Open>, Error> {
        let engine = self.shared.engine.as_ref();
        let (session, permit) = match (engine, pool) {
            (Some(engine), Pool::Reader) => {
                let permit = self.place(&self.shared.gates.reader).await?;
                let snapshot = engine.readers.snapshot();
                let snapshot = snapshot.map_err(|error| Error::of_engine(BEGINNING, error))?;
                (Session::Snapshot(snapshot.into()), Some(permit))
            }
            (Some(engine), Pool::Writer) => {
                let write = self.begin_write(engine, alone).await?;
                (Session::Write(write.into()), None)
            }
            _ => self.begin_driver(pool, isolation).await?,
        };
        Ok(Open::new(session, permit))
    }

    async fn begin_driver(
        &self,
        pool: Pool,
        isolation: Isolation,
    ) -> Result<(Session, Option<OwnedSemaphorePermit>), Error> {
        let excluded = match &self.shared.engine {
            Some(engine) => {
                let excluded = self.waiting(engine, engine.writer.exclude()).await;
                Some(excluded.map_err(|error| Error::of_engine(BEGINNING, error))?)
            }
            None => None,
        };
        let (connection, gate) = self.pool(pool != Pool::Reader);
        let permit = self.place(gate).await?;
        let options = TransactionOptions {
            isolation_level: match isolation {
                _ if self.backend() == sea_orm::DbBackend::Sqlite => None,
                Isolation::Default => None,
                Isolation::ReadCommitted => Some(IsolationLevel::ReadCommitted),
                Isolation::RepeatableRead => Some(IsolationLevel::RepeatableRead),
                Isolation::Serializable => Some(IsolationLevel::Serializable),
            },
            // Deferred, SQLite's own default, fails at once with "database is
            // locked" when it reads before it writes.
            sqlite_transaction_mode: Some(match pool {
                Pool::Reader => SqliteTransactionMode::Deferred,
                _ => SqliteTransactionMode::Immediate,
            }),
            ..TransactionOptions::default()
        };
        let transaction = begin(connection.clone(), options).await?;
        Ok((Session::Driver(transaction, excluded), Some(permit)))
    }
}

/// Begins a transaction in a task of its own: a `begin` that is dropped halfway
/// would put a PostgreSQL connection back into the pool inside of a
/// transaction, where the next write would be acknowledged and lost. A
/// transaction that arrives for nobody is rolled back.
pub(crate) async fn begin(
    connection: DatabaseConnection,
    options: TransactionOptions,
) -> Result<DatabaseTransaction, Error> {
    let begun = tokio::spawn(async move { connection.begin_with_options(options).await });
    begun
        .await
        .map_err(|source| Error::Unavailable {
            doing: BEGINNING,
            source: Box::new(source),
        })?
        .doing(BEGINNING)
}
