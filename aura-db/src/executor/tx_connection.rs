//! The connection of an open transaction.

use aura_orm::sqlite::{Snapshot, Write, WriteLock};
use aura_orm::{Statement as Prepared, StatementKind};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, Value};
use tokio::sync::Mutex;

use crate::error::{Context, Error};
use crate::executor::postgres::PooledConnection;
use crate::executor::row::{Row, RowReader};
use crate::executor::statement::driven;

/// The connection of an open transaction. Statements of several tasks run one after
/// the other.
#[derive(Debug)]
pub(crate) enum TxConnection {
    /// `SeaORM`'s; on a SQLite file with the lock that keeps other writes out.
    Driver(DatabaseTransaction, Option<WriteLock>),
    /// To a PostgreSQL server.
    PostgresPool(Mutex<PooledConnection>),
    /// To a SQLite file, for reading.
    Snapshot(Mutex<Snapshot>),
    /// To a SQLite file, for writing.
    Write(Mutex<Write>),
}

/// Why a transaction is not committed.
pub(super) enum CommitError {
    /// With this error.
    Failed(Error),
    /// The commit of its batch failed; alone it may succeed.
    BatchRolledBack,
}

/// Why SQLite returns no rows.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(aura_orm::sqlite::Error),
    Row(Box<Error>),
}

impl From<aura_orm::sqlite::Error> for Failure {
    fn from(error: aura_orm::sqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl aura_orm::sqlite::AsSqliteError for Failure {
    fn as_sqlite(&self) -> Option<&aura_orm::sqlite::Error> {
        match self {
            Self::Sqlite(error) => Some(error),
            Self::Row(_) => None,
        }
    }
}

impl<T> Context<T> for Result<T, Failure> {
    fn context(self, context: &'static str) -> Result<T, Error> {
        self.map_err(|failure| match failure {
            Failure::Sqlite(error) => Error::of_sqlite(context, error),
            Failure::Row(error) => *error,
        })
    }
}

/// Adapts a reader of rows to SQLite's.
pub(super) fn reading<T>(
    read: impl Fn(&mut RowReader<'_>) -> Result<T, DbErr>,
) -> impl Fn(&aura_orm::sqlite::Row<'_>) -> Result<T, Failure> {
    move |row| {
        RowReader::read(Row::SqliteExecutor(row), &read)
            .map_err(|error| Failure::Row(Box::new(error)))
    }
}

/// Reads the rows of `SeaORM`'s driver.
pub(crate) fn read_all<T>(
    rows: &[QueryResult],
    read: impl Fn(&mut RowReader<'_>) -> Result<T, DbErr>,
) -> Result<Vec<T>, Error> {
    rows.iter()
        .map(|row| RowReader::read(Row::Driver(row), &read))
        .collect()
}

impl TxConnection {
    /// Runs a statement and reads its rows.
    pub(super) async fn query<T, R>(
        &self,
        statement: Prepared,
        kind: StatementKind,
        read: R,
    ) -> Result<Vec<T>, Error>
    where
        R: Fn(&mut RowReader<'_>) -> Result<T, DbErr> + Send + 'static,
        T: Send + 'static,
    {
        let context = context(kind);
        match self {
            Self::Driver(transaction, _) => {
                let statement = driven(statement, transaction.get_database_backend());
                let rows = transaction
                    .query_all_raw(statement)
                    .await
                    .context(context)?;
                read_all(&rows, read)
            }
            Self::PostgresPool(connection) => {
                let rows = connection.lock().await.query(statement, read).await;
                rows.context(context)?
            }
            Self::Snapshot(snapshot) => {
                let mut snapshot = snapshot.lock().await;
                let rows = snapshot.query(statement, reading(read)).await;
                rows.context(context)
            }
            Self::Write(write) => {
                let mut write = write.lock().await;
                let rows = write.query(statement, kind, reading(read)).await;
                rows.context(context)
            }
        }
    }

    /// Runs a query whose rows only `SeaORM` can read.
    pub(super) async fn fetch(&self, statement: Prepared) -> Result<Vec<QueryResult>, Error> {
        match self {
            Self::Driver(transaction, _) => {
                let statement = driven(statement, transaction.get_database_backend());
                transaction
                    .query_all_raw(statement)
                    .await
                    .context("reading")
            }
            Self::PostgresPool(connection) => {
                let rows = connection.lock().await.fetch(statement).await;
                rows.context("reading")
            }
            // An application's transactions run on the driver.
            Self::Snapshot(_) | Self::Write(_) => Err(Error::Ended),
        }
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(super) async fn execute(
        &self,
        statement: Prepared,
        kind: StatementKind,
    ) -> Result<u64, Error> {
        match self {
            Self::Driver(transaction, _) => {
                let statement = driven(statement, transaction.get_database_backend());
                let done = transaction
                    .execute_raw(statement)
                    .await
                    .context("writing")?;
                Ok(done.rows_affected())
            }
            Self::PostgresPool(connection) => {
                let done = connection.lock().await.execute(statement).await;
                done.context("writing")
            }
            Self::Snapshot(_) => Err(Error::Other {
                context: "writing",
                source: DbErr::Custom("this transaction only reads".to_owned()),
            }),
            Self::Write(write) => {
                let done = write.lock().await.execute(statement, kind).await;
                done.map_err(|error| Error::of_sqlite("writing", error))
            }
        }
    }

    /// Returns whether [`TxConnection::insert`] works.
    pub(super) fn takes_bulk(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    /// Runs an insert for each row of values and returns the number of rows.
    pub(super) async fn insert(&self, sql: String, rows: Vec<Vec<Value>>) -> Result<u64, Error> {
        let Self::Write(write) = self else {
            return Err(Error::Ended);
        };
        let done = write.lock().await.execute_each(sql, rows).await;
        done.map_err(|error| Error::of_sqlite("writing", error))
    }

    /// Runs SQL without values or rows, as for savepoints.
    pub(super) async fn execute_sql(&self, sql: &'static str) -> Result<(), Error> {
        const DOING: &str = "working with a savepoint";
        let done = match self {
            Self::Driver(transaction, _) => {
                return transaction
                    .execute_unprepared(sql)
                    .await
                    .context(DOING)
                    .map(|_| ());
            }
            Self::PostgresPool(connection) => {
                return connection
                    .lock()
                    .await
                    .execute_sql(sql)
                    .await
                    .context(DOING);
            }
            Self::Snapshot(snapshot) => snapshot.lock().await.execute_sql(sql),
            Self::Write(write) => write.lock().await.execute_sql(sql).await,
        };
        done.map_err(|error| Error::of_sqlite(DOING, error))
    }

    /// Commits or rolls back.
    pub(super) async fn end(self, commit: bool) -> Result<(), CommitError> {
        match self {
            Self::Driver(transaction, excluded) => {
                let ended = if commit {
                    transaction.commit().await
                } else {
                    transaction.rollback().await
                };
                ended.map_err(|error| unfinished(error, commit))?;
                match excluded {
                    Some(excluded) if commit => {
                        let there = excluded.check();
                        there.map_err(|error| CommitError::Failed(Error::of_commit(error)))
                    }
                    _ => Ok(()),
                }
            }
            Self::PostgresPool(connection) => {
                let ended = connection.into_inner().end(commit).await;
                ended.map_err(|error| unfinished(error, commit))
            }
            Self::Write(write) if commit => {
                write
                    .into_inner()
                    .commit()
                    .await
                    .map_err(|error| match error {
                        aura_orm::sqlite::Error::BatchRolledBack => CommitError::BatchRolledBack,
                        error => CommitError::Failed(Error::of_commit(error)),
                    })
            }
            Self::Snapshot(_) | Self::Write(_) => Ok(()),
        }
    }
}

/// Maps a failure of the driver to end a transaction.
fn unfinished(error: DbErr, commit: bool) -> CommitError {
    CommitError::Failed(if commit {
        Error::of_sent("committing", error)
    } else {
        Error::of("undoing a transaction", error)
    })
}

pub(super) fn context(kind: StatementKind) -> &'static str {
    if kind == StatementKind::Read {
        "reading"
    } else {
        "writing"
    }
}
