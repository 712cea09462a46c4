//! An open transaction, on either driver.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, Value};
use sqlite_engine::{Exclusion, Pace, Snapshot, Statement as Prepared, Write};
use tokio::sync::Mutex;

use crate::engine::build::driven;
use crate::engine::row::{Cells, Row};
use crate::engine::server::Lease;
use crate::error::{Doing, Error};

/// An open transaction. Statements of several tasks follow one another in it.
#[derive(Debug)]
pub(crate) enum Session {
    /// `SeaORM`'s. On a SQLite file nobody writes through the engine meanwhile.
    Driver(DatabaseTransaction, Option<Exclusion>),
    /// On a PostgreSQL server.
    Server(Mutex<Lease>),
    /// The engine's, for reading.
    Snapshot(Mutex<Snapshot>),
    /// The engine's, for writing.
    Write(Mutex<Write>),
}

/// Why a transaction is not committed.
pub(super) enum Unfinished {
    /// This went wrong.
    Failed(Error),
    /// The commit that it shared with others failed; alone it may succeed.
    Undone,
}

/// Why the engine has no rows.
#[derive(Debug)]
pub(super) enum Failure {
    Engine(sqlite_engine::Error),
    Row(Box<Error>),
}

impl From<sqlite_engine::Error> for Failure {
    fn from(error: sqlite_engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl sqlite_engine::AsEngine for Failure {
    fn as_engine(&self) -> Option<&sqlite_engine::Error> {
        match self {
            Self::Engine(error) => Some(error),
            Self::Row(_) => None,
        }
    }
}

impl<T> Doing<T> for Result<T, Failure> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|failure| match failure {
            Failure::Engine(error) => Error::of_engine(doing, error),
            Failure::Row(error) => *error,
        })
    }
}

/// How the engine reads a row of its.
pub(super) fn reading<T>(
    read: impl Fn(&mut Cells<'_>) -> Result<T, DbErr>,
) -> impl Fn(&sqlite_engine::Row<'_>) -> Result<T, Failure> {
    move |row| Cells::read(Row::Embedded(row), &read).map_err(|error| Failure::Row(Box::new(error)))
}

/// Reads the rows of the driver.
pub(crate) fn read_all<T>(
    rows: &[QueryResult],
    read: impl Fn(&mut Cells<'_>) -> Result<T, DbErr>,
) -> Result<Vec<T>, Error> {
    rows.iter()
        .map(|row| Cells::read(Row::Driver(row), &read))
        .collect()
}

impl Session {
    /// Runs a statement and reads its rows.
    pub(super) async fn query<T, R>(
        &self,
        statement: Prepared,
        pace: Pace,
        read: R,
    ) -> Result<Vec<T>, Error>
    where
        R: Fn(&mut Cells<'_>) -> Result<T, DbErr> + Send + 'static,
        T: Send + 'static,
    {
        let doing = doing(pace);
        match self {
            Self::Driver(transaction, _) => {
                let statement = driven(statement, transaction.get_database_backend());
                let rows = transaction.query_all_raw(statement).await.doing(doing)?;
                read_all(&rows, read)
            }
            Self::Server(lease) => {
                let rows = lease.lock().await.query(statement, read).await;
                rows.doing(doing)?
            }
            Self::Snapshot(snapshot) => {
                let mut snapshot = snapshot.lock().await;
                let rows = snapshot.query(statement, reading(read)).await;
                rows.doing(doing)
            }
            Self::Write(write) => {
                let mut write = write.lock().await;
                let rows = write.query(statement, pace, reading(read)).await;
                rows.doing(doing)
            }
        }
    }

    /// Runs a query of the caller's, which the driver alone can read.
    pub(super) async fn fetch(&self, statement: Prepared) -> Result<Vec<QueryResult>, Error> {
        match self {
            Self::Driver(transaction, _) => {
                let statement = driven(statement, transaction.get_database_backend());
                transaction.query_all_raw(statement).await.doing("reading")
            }
            Self::Server(lease) => {
                let rows = lease.lock().await.fetch(statement).await;
                rows.doing("reading")
            }
            // No transaction of the caller's is on the engine.
            Self::Snapshot(_) | Self::Write(_) => Err(Error::Ended),
        }
    }

    /// Runs a statement and says how many rows it touched.
    pub(super) async fn execute(&self, statement: Prepared, pace: Pace) -> Result<u64, Error> {
        match self {
            Self::Driver(transaction, _) => {
                let statement = driven(statement, transaction.get_database_backend());
                let done = transaction.execute_raw(statement).await.doing("writing")?;
                Ok(done.rows_affected())
            }
            Self::Server(lease) => {
                let done = lease.lock().await.execute(statement).await;
                done.doing("writing")
            }
            Self::Snapshot(_) => Err(Error::Other {
                doing: "writing",
                source: DbErr::Custom("this transaction only reads".to_owned()),
            }),
            Self::Write(write) => {
                let done = write.lock().await.execute(statement, pace).await;
                done.map_err(|error| Error::of_engine("writing", error))
            }
        }
    }

    /// Whether [`Session::insert`] works.
    pub(super) fn takes_bulk(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    /// Runs an insert for each row of values, and says how many it made.
    pub(super) async fn insert(&self, sql: String, rows: Vec<Vec<Value>>) -> Result<u64, Error> {
        let Self::Write(write) = self else {
            return Err(Error::Ended);
        };
        let done = write.lock().await.execute_each(sql, rows).await;
        done.map_err(|error| Error::of_engine("writing", error))
    }

    /// Works with a savepoint.
    pub(super) async fn control(&self, sql: &'static str) -> Result<(), Error> {
        const DOING: &str = "working with a savepoint";
        let done = match self {
            Self::Driver(transaction, _) => {
                return transaction
                    .execute_unprepared(sql)
                    .await
                    .doing(DOING)
                    .map(|_| ());
            }
            Self::Server(lease) => return lease.lock().await.control(sql).await.doing(DOING),
            Self::Snapshot(snapshot) => snapshot.lock().await.control(sql),
            Self::Write(write) => write.lock().await.control(sql).await,
        };
        done.map_err(|error| Error::of_engine(DOING, error))
    }

    /// Ends it.
    pub(super) async fn end(self, commit: bool) -> Result<(), Unfinished> {
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
                        there.map_err(|error| Unfinished::Failed(Error::of_commit(error)))
                    }
                    _ => Ok(()),
                }
            }
            Self::Server(lease) => {
                let ended = lease.into_inner().end(commit).await;
                ended.map_err(|error| unfinished(error, commit))
            }
            Self::Write(write) if commit => {
                write
                    .into_inner()
                    .commit()
                    .await
                    .map_err(|error| match error {
                        sqlite_engine::Error::Undone => Unfinished::Undone,
                        error => Unfinished::Failed(Error::of_commit(error)),
                    })
            }
            Self::Snapshot(_) | Self::Write(_) => Ok(()),
        }
    }
}

/// What it means that the driver failed to end a transaction.
fn unfinished(error: DbErr, commit: bool) -> Unfinished {
    Unfinished::Failed(if commit {
        Error::of_sent("committing", error)
    } else {
        Error::of("undoing a transaction", error)
    })
}

pub(super) fn doing(pace: Pace) -> &'static str {
    if pace == Pace::Read {
        "reading"
    } else {
        "writing"
    }
}
