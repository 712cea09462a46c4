//! How statements and transactions get their connection.

use std::sync::Arc;
use std::time::Instant;

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use sqlite_engine::Pace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::handle::Handle;
use crate::engine::server::{Lease, Server};
use crate::engine::session::{Session, doing};
use crate::engine::transaction::{Isolation, Open, Pool};
use crate::error::{Doing, Error};

const BEGINNING: &str = "beginning a transaction";

impl Handle {
    /// Runs a statement on a connection to the server, outside of a transaction.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] when it writes and its answer was lost.
    pub(crate) async fn on_server<T>(
        &self,
        server: &Server,
        pace: Pace,
        run: impl AsyncFnOnce(&mut Lease) -> Result<T, DbErr>,
    ) -> Result<T, Error> {
        let doing = doing(pace);
        let _place = self.place(&self.shared.gates.writer).await?;
        let mut lease = server.lease().await.doing(doing)?;
        run(&mut lease).await.map_err(|error| {
            if pace == Pace::Read {
                Error::of(doing, error)
            } else {
                Error::of_sent(doing, error)
            }
        })
    }

    /// The driver's connections, and the gate in front of them.
    pub(crate) fn pool(&self, writes: bool) -> (&DatabaseConnection, &Arc<Semaphore>) {
        let shared = &*self.shared;
        if writes {
            (&shared.connections.writer, &shared.gates.writer)
        } else {
            (&shared.connections.reader, &shared.gates.reader)
        }
    }

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
                let waits = engine.readers.is_full();
                let snapshot = self.counted(waits, engine.readers.snapshot()).await;
                let snapshot = snapshot.map_err(|error| Error::of_engine(BEGINNING, error))?;
                (Session::Snapshot(snapshot.into()), None)
            }
            (Some(engine), Pool::Writer) => {
                let write = self.begin_write(engine, alone).await?;
                (Session::Write(write.into()), None)
            }
            _ => match &self.shared.server {
                Some(server) => {
                    let permit = self.place(&self.shared.gates.writer).await?;
                    let lease = server.begin(isolation).await.doing(BEGINNING)?;
                    (Session::Server(lease.into()), Some(permit))
                }
                None => self.begin_driver(pool).await?,
            },
        };
        Ok(Open::new(session, permit))
    }

    /// Begins on SQLite, whose transactions are all serializable.
    async fn begin_driver(
        &self,
        pool: Pool,
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
        // Deferred, SQLite's own default, fails at once with "database is locked"
        // when it reads before it writes.
        let mode = match pool {
            Pool::Reader => SqliteTransactionMode::Deferred,
            _ => SqliteTransactionMode::Immediate,
        };
        let transaction = begin(connection.clone(), mode).await?;
        Ok((Session::Driver(transaction, excluded), Some(permit)))
    }
}

/// Begins a transaction in a task of its own: a `begin` that is dropped halfway
/// would put a PostgreSQL connection back into the pool inside of a
/// transaction, where the next write would be acknowledged and lost. A
/// transaction that arrives for nobody is rolled back.
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
        .doing(BEGINNING)
}
