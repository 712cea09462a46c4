//! The connection of an open transaction.

use sea_orm::{DbErr, Value};
use tokio::sync::Mutex;

use crate::error::{Context, Error};
use crate::executor::sqlite::context;
use crate::fetched::{DecodedRows, Decoding};
use crate::postgres::PooledConnection;
use crate::sqlite::{self, Owner, Snapshot, Write};
use crate::statement::Statement;

/// The connection of an open transaction. Statements of several tasks run one after
/// the other.
#[derive(Debug)]
pub(crate) enum TxConnection {
    /// To a PostgreSQL server.
    Postgres(Mutex<PooledConnection>),
    /// To a SQLite file, for reading.
    Snapshot(Mutex<Snapshot>),
    /// To a SQLite database, for writing.
    Write(Mutex<Write>),
}

/// Why a transaction is not committed.
pub(super) enum CommitError {
    /// With this error.
    Failed(Error),
    /// Alone it may succeed: the commit of its batch failed, or it was in the way of
    /// others.
    BatchRolledBack,
}

impl TxConnection {
    /// Runs a statement and reads its rows.
    pub(super) async fn query(
        &self,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<DecodedRows, Error> {
        let context = context(&statement);
        let rows = match self {
            Self::Postgres(connection) => {
                let mut connection = connection.lock().await;
                // Boxed, so that the futures of SQLite stay small.
                let rows = Box::pin(connection.query(statement, decoding)).await;
                rows.context(context)?
            }
            Self::Snapshot(snapshot) => {
                let rows = snapshot.lock().await.query(statement, decoding).await;
                rows.context(context)?
            }
            Self::Write(write) => {
                let rows = write.lock().await.query(statement, decoding).await;
                rows.context(context)?
            }
        };
        Ok(rows?)
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(super) async fn execute(&self, statement: Statement) -> Result<u64, Error> {
        match self {
            Self::Postgres(connection) => {
                let mut connection = connection.lock().await;
                Box::pin(connection.execute(statement))
                    .await
                    .context("writing")
            }
            Self::Snapshot(_) => Err(Error::Other {
                context: "writing",
                source: DbErr::Custom("this transaction only reads".to_owned()).into(),
            }),
            Self::Write(write) => {
                let changed = write.lock().await.execute(statement).await;
                changed.context("writing")
            }
        }
    }

    /// Runs an insert for each row of values, on SQLite, and returns the number of rows.
    pub(super) async fn insert_each(
        &self,
        sql: String,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64, Error> {
        let Self::Write(write) = self else {
            return Err(Error::Ended);
        };
        let done = write.lock().await.execute_each(sql, rows).await;
        done.context("writing")
    }

    /// Runs SQL without values or rows, as for savepoints.
    pub(super) async fn execute_sql(&self, sql: &'static str) -> Result<(), Error> {
        const SAVEPOINT: &str = "working with a savepoint";
        let done = match self {
            Self::Postgres(connection) => {
                let done = connection.lock().await.execute_sql(sql).await;
                return done.context(SAVEPOINT);
            }
            Self::Snapshot(snapshot) => snapshot.lock().await.execute_sql(sql),
            Self::Write(write) => write.lock().await.execute_sql(sql).await,
        };
        done.context(SAVEPOINT)
    }

    /// Returns the owner of a write to SQLite.
    pub(super) fn owner(&self) -> Option<Owner> {
        match self {
            Self::Write(write) => write.try_lock().ok().map(|write| write.owner()),
            Self::Postgres(_) | Self::Snapshot(_) => None,
        }
    }

    /// Commits or rolls back.
    pub(super) async fn end(self, commit: bool) -> Result<(), CommitError> {
        match self {
            Self::Postgres(connection) => {
                let ended = connection.into_inner().end(commit).await;
                ended.map_err(|error| {
                    CommitError::Failed(if commit {
                        Error::of_postgres_sent("committing", error)
                    } else {
                        Error::of_postgres("undoing a transaction", error)
                    })
                })
            }
            Self::Write(write) if commit => {
                let ended = write.into_inner().commit().await;
                ended.map_err(|error| match error {
                    sqlite::Error::BatchRolledBack | sqlite::Error::Reclaimed => {
                        CommitError::BatchRolledBack
                    }
                    error => CommitError::Failed(Error::of_commit(error)),
                })
            }
            Self::Snapshot(_) | Self::Write(_) => Ok(()),
        }
    }
}
