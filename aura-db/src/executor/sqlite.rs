//! The connections to a SQLite file.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use aura_orm::sqlite::{DatabaseFile, Options, Readers, Write, Writer};
use aura_orm::{Statement, StatementKind};
use connection::{Config, Durability, Target};
use sea_orm::DbErr;

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::executor::row::RowReader;
use crate::executor::tx_connection::reading;

/// The connections to a SQLite file. (A database in memory is one connection of
/// `SeaORM`'s.)
#[derive(Debug, Clone)]
pub(crate) struct SqliteExecutor {
    pub(crate) readers: Readers,
    pub(crate) writer: Writer,
    pub(crate) file: DatabaseFile,
    /// Log every statement (`DB_LOGGING`).
    logging: bool,
    /// Log statements that take longer (`DB_SLOW_QUERY`).
    slow: Option<Duration>,
}

impl SqliteExecutor {
    pub(crate) fn of(config: &Config) -> Option<Self> {
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
            // They are bound by the processor.
            blocking_reads: cores.min(config.pool.max as usize),
            acquire_timeout: config.pool.connection_timeout,
        };
        Some(Self {
            readers: Readers::new(options.clone()),
            writer: Writer::new(options),
            file,
            logging: config.logging,
            slow: config.slow_query,
        })
    }

    pub(crate) async fn close(&self) {
        self.readers.close();
        self.writer.close().await;
    }

    /// Checks that the file is still at its path.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when it is not.
    pub(crate) fn check_file(&self, context: &'static str) -> Result<(), Error> {
        let there = self.file.check();
        there.map_err(|error| Error::of_sqlite(context, error))
    }

    /// Starts the timer of a statement, if statements are logged.
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

/// Logs a statement at its end, under the target of the driver, so that one filter is
/// for both, and never with its values.
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
    /// Runs a write outside of a transaction and reads its rows; again, with a commit of
    /// its own, when the commit of its batch failed.
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

    /// As [`Executor::query_write`], for a statement without rows.
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

    /// Waits for the writer.
    pub(super) async fn begin_write(
        &self,
        sqlite: &SqliteExecutor,
        alone: bool,
    ) -> Result<Write, Error> {
        let begun = self.waiting(sqlite, sqlite.writer.begin(alone)).await;
        begun.map_err(|error| Error::of_sqlite("waiting for the writer", error))
    }

    /// Counts the wait for the writer, if there is one.
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

    /// Starts the timer of a statement that doesn't run on the driver, which logs its
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

/// Commits. Returns `false` when the commit of the batch failed.
async fn committed(write: Write) -> Result<bool, Error> {
    match write.commit().await {
        Ok(()) => Ok(true),
        Err(aura_orm::sqlite::Error::BatchRolledBack) => Ok(false),
        Err(error) => Err(Error::of_commit(error)),
    }
}
