//! The engine of a SQLite file, as the settings want it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aura_orm::sqlite::{DatabaseFile, Options, Readers, Write, Writer};
use aura_orm::{Statement, StatementKind};
use connection::{Config, Connections, Durability, Target};
use sea_orm::DbErr;

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::executor::row::RowReader;
use crate::executor::tx_connection::reading;

/// The engine. Only for files: what is in memory lives in one connection.
#[derive(Debug, Clone)]
pub(crate) struct SqliteExecutor {
    pub(crate) readers: Readers,
    pub(crate) writer: Writer,
    pub(crate) file: DatabaseFile,
    _abandoned: Arc<Abandoned>,
    /// Every statement is logged.
    logging: bool,
    /// Statements that take so long are.
    slow: Option<Duration>,
}

/// Leaves the driver's connections to a file that is gone open for as long as the
/// process lives. The last to be closed would remove the WAL by its name, which may
/// be another database's by now.
#[derive(Debug)]
struct Abandoned {
    file: DatabaseFile,
    connections: Connections,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if self.file.is_moved() {
            std::mem::forget(self.connections.clone());
        }
    }
}

impl SqliteExecutor {
    pub(crate) fn of(config: &Config, connections: &Connections) -> Option<Self> {
        let Target::Sqlite { path } = &config.target else {
            return None;
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let file = DatabaseFile::new(path);
        let options = Options {
            file: file.clone(),
            durable: config.durability == Durability::Full,
            busy_timeout: connection::busy_timeout(config),
            statement_timeout: config.statement_timeout,
            max_readers: config.pool.max as usize,
            min_readers: config.pool.min as usize,
            idle_timeout: config.pool.idle_timeout,
            // They compute; more than there are cores only wait for each other.
            blocking_reads: cores.min(config.pool.max as usize),
            acquire_timeout: config.pool.connection_timeout,
        };
        Some(Self {
            readers: Readers::new(options.clone()),
            writer: Writer::new(options),
            _abandoned: Arc::new(Abandoned {
                file: file.clone(),
                connections: connections.clone(),
            }),
            file,
            logging: config.logging,
            slow: config.slow_query,
        })
    }

    pub(crate) async fn close(&self) {
        self.readers.close();
        self.writer.close().await;
    }

    /// Looks whether the file is still where it was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when it is not.
    pub(crate) fn check_file(&self, context: &'static str) -> Result<(), Error> {
        let there = self.file.check();
        there.map_err(|error| Error::of_sqlite(context, error))
    }

    /// Notes a statement for the log, when somebody may want it there.
    pub(super) fn begin(&self, statement: &Statement) -> Option<Logged> {
        (self.logging || self.slow.is_some()).then(|| Logged {
            sql: statement.sql().clone(),
            started: Instant::now(),
            rows: 0,
            logging: self.logging,
            slow: self.slow,
        })
    }
}

/// A statement that is logged when it ends, however it ends. As the driver does
/// it: under the same name, so that one filter is for both, and never with the
/// values.
pub(super) struct Logged {
    sql: Cow<'static, str>,
    started: Instant,
    rows: u64,
    logging: bool,
    slow: Option<Duration>,
}

impl Logged {
    pub(super) fn rows(&mut self, rows: u64) {
        self.rows = rows;
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let (sql, rows) = (&*self.sql, self.rows);
        if let Some(threshold) = self.slow.filter(|slow| elapsed >= *slow) {
            tracing::warn!(
                target: "sqlx::query",
                statement = sql,
                rows,
                ?elapsed,
                slow_threshold = ?threshold,
                "slow statement: execution time exceeded alert threshold"
            );
        } else if self.logging {
            tracing::info!(target: "sqlx::query", statement = sql, rows, ?elapsed);
        }
    }
}

impl Executor {
    /// Runs a write of its own and reads its rows; again, alone, when the commit
    /// that it shared with others failed.
    pub(super) async fn query_write<T, R>(
        &self,
        sqlite: &SqliteExecutor,
        statement: Statement,
        kind: StatementKind,
        read: R,
    ) -> Result<Vec<T>, Error>
    where
        R: Fn(&mut RowReader<'_>) -> Result<T, DbErr> + Clone + Send + 'static,
        T: Send + 'static,
    {
        for alone in [false, true] {
            let mut write = self.begin_write(sqlite, alone).await?;
            let rows = write.query(statement.clone(), kind, reading(read.clone()));
            let rows = rows.await.context("writing")?;
            if committed(write).await? {
                return Ok(rows);
            }
        }
        Err(Error::Aborted)
    }

    /// The same with a statement that has no rows.
    pub(super) async fn execute_write(
        &self,
        sqlite: &SqliteExecutor,
        statement: Statement,
        kind: StatementKind,
    ) -> Result<u64, Error> {
        for alone in [false, true] {
            let mut write = self.begin_write(sqlite, alone).await?;
            let touched = write.execute(statement.clone(), kind).await;
            let touched = touched.map_err(|error| Error::of_sqlite("writing", error))?;
            if committed(write).await? {
                return Ok(touched);
            }
        }
        Err(Error::Aborted)
    }

    /// Waits for the engine's writer.
    pub(super) async fn begin_write(
        &self,
        sqlite: &SqliteExecutor,
        alone: bool,
    ) -> Result<Write, Error> {
        let begun = self.waiting(sqlite, sqlite.writer.begin(alone)).await;
        begun.map_err(|error| Error::of_sqlite("waiting for the writer", error))
    }

    /// Counts the wait for the engine's writer, if there is one.
    pub(super) async fn waiting<T>(
        &self,
        sqlite: &SqliteExecutor,
        wait: impl Future<Output = T>,
    ) -> T {
        self.counted(!sqlite.writer.is_idle(), wait).await
    }

    /// Counts a wait for a connection, when there is one.
    pub(super) async fn counted<T>(&self, waits: bool, wait: impl Future<Output = T>) -> T {
        if !waits {
            return wait.await;
        }
        let started = Instant::now();
        let done = wait.await;
        self.shared.stats.waited(started.elapsed());
        done
    }

    /// Notes a statement for the log: the engine's, because the driver logs its
    /// own.
    pub(super) fn logged(&self, statement: &Statement) -> Option<Logged> {
        let driver = self
            .scope
            .as_ref()
            .is_some_and(|scope| scope.open.on_driver);
        let sqlite = self.shared.sqlite.as_ref().filter(|_| !driver)?;
        sqlite.begin(statement)
    }
}

/// Commits; `false` when it is to be tried again alone.
async fn committed(write: Write) -> Result<bool, Error> {
    match write.commit().await {
        Ok(()) => Ok(true),
        Err(aura_orm::sqlite::Error::BatchRolledBack) => Ok(false),
        Err(error) => Err(Error::of_commit(error)),
    }
}
