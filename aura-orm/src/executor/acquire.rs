//! Acquires connections for statements and transactions.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Context, Error};
use crate::executor::context::{Backend, Executor};
use crate::executor::sqlite::SqliteExecutor;
use crate::executor::transaction::Begin;
use crate::executor::transaction_state::TransactionState;
use crate::executor::tx_connection::TxConnection;
use crate::postgres::{self, Pool, PooledConnection};
use crate::statement::StatementKind;

const BEGINNING: &str = "beginning a transaction";
const WAITING: &str = "waiting for a connection";

impl<X> Executor<X> {
    /// Runs a statement on a connection to the server, outside of a transaction.
    /// `may_write` is of a statement that reads as far as it shows, too.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when it writes and its answer was lost.
    pub(super) async fn on_server<T>(
        &self,
        postgres: &Pool,
        kind: StatementKind,
        may_write: bool,
        run: impl AsyncFnOnce(&mut PooledConnection) -> Result<T, postgres::Error>,
    ) -> Result<T, Error> {
        let reads = kind == StatementKind::Read;
        let context = if reads { "reading" } else { "writing" };
        let permit = self.acquire_permit(postgres.permits()).await?;
        let mut connection = postgres.acquire(permit).await.context(context)?;
        run(&mut connection).await.map_err(|error| {
            if may_write {
                Error::of_postgres_sent(context, error)
            } else {
                Error::of_postgres(context, error)
            }
        })
    }

    /// Waits for a permit to use a connection.
    async fn acquire_permit(
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
            Ok(Err(closed)) => Err(Error::unavailable(WAITING, closed)),
            Err(_) => Err(Error::Busy {
                context: WAITING,
                source: None,
            }),
        }
    }

    /// Begins a transaction. `alone` is for one that shares its commit with no other.
    pub(super) async fn begin(
        &self,
        begin: Begin,
        alone: bool,
    ) -> Result<Arc<TransactionState>, Error> {
        Ok(TransactionState::new(match &self.shared.backend {
            Backend::Sqlite(sqlite) => self.begin_on_sqlite(sqlite, begin, alone).await?,
            Backend::Postgres(postgres) => {
                let permit = self.acquire_permit(postgres.permits()).await?;
                let connection = postgres.begin(begin.isolation, permit).await;
                TxConnection::Postgres(connection.context(BEGINNING)?.into())
            }
        }))
    }

    async fn begin_on_sqlite(
        &self,
        sqlite: &SqliteExecutor,
        begin: Begin,
        alone: bool,
    ) -> Result<TxConnection, Error> {
        let (Some(readers), false) = (&sqlite.readers, begin.writes) else {
            let write = self.begin_write(sqlite, alone).await?;
            return Ok(TxConnection::Write(write.into()));
        };
        let snapshot = self.counted(readers.is_full(), readers.snapshot()).await;
        Ok(TxConnection::Snapshot(snapshot.context(BEGINNING)?.into()))
    }
}
