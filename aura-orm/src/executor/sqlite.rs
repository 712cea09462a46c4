//! The connections to a SQLite database.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use connection::{Config, Durability};

use crate::error::{Context, Error};
use crate::executor::Executor;
use crate::fetched::{DecodedRows, Decoding};
use crate::sqlite::{self, DatabaseFile, Options, Readers, Write, Writer};
use crate::statement::Statement;

/// The connections to a SQLite database.
#[derive(Debug, Clone)]
pub(crate) struct SqliteExecutor {
    /// `None` in memory, where reads take turns with the writes.
    pub(crate) readers: Option<Readers>,
    pub(crate) writer: Writer,
    pub(crate) file: DatabaseFile,
}

impl SqliteExecutor {
    /// Creates the connections to a file, which exists.
    pub(crate) fn on_file(config: &Config, path: &Path) -> Self {
        Self::new(config, DatabaseFile::new(path))
    }

    /// Creates the connections to the database in memory of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Other`] when it can't be opened.
    pub(crate) fn in_memory(config: &Config, name: &str) -> Result<Self, Error> {
        let file = DatabaseFile::memory(name).context("opening the database in memory")?;
        Ok(Self::new(config, file))
    }

    fn new(config: &Config, file: DatabaseFile) -> Self {
        let options = Options {
            file: file.clone(),
            durable: config.durability == Durability::Full,
            busy_timeout: connection::busy_timeout(config),
            statement_timeout: config.statement_timeout,
            max_readers: config.pool.max as usize,
            min_readers: config.pool.min as usize,
            idle_timeout: config.pool.idle_timeout,
            // The operating system divides the processors among them, as a server's
            // does. One connection is left for quick reads.
            blocking_reads: config.pool.max.saturating_sub(1).max(1) as usize,
            acquire_timeout: config.pool.connection_timeout,
        };
        Self {
            readers: (!file.is_memory()).then(|| Readers::new(options.clone())),
            writer: Writer::new(options),
            file,
        }
    }

    pub(crate) async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.close();
        }
        self.writer.close().await;
    }

    /// Checks that the file is still at its path.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when it is not.
    pub(crate) fn check_file(&self, context: &'static str) -> Result<(), Error> {
        self.file.check().context(context)
    }
}

impl<X> Executor<X> {
    /// Runs a statement that only reads, outside of a transaction.
    pub(super) async fn query_read(
        &self,
        sqlite: &SqliteExecutor,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<DecodedRows, Error> {
        let Some(readers) = &sqlite.readers else {
            return self.query_write(sqlite, statement, decoding).await;
        };
        let rows = readers.query(statement, decoding).await;
        Ok(rows.context("reading")??)
    }

    /// Runs a write outside of a transaction and reads its rows; again, with a commit of
    /// its own, when the commit of its batch failed. It is committed also when a row can't
    /// be read, as on a server.
    pub(super) async fn query_write(
        &self,
        sqlite: &SqliteExecutor,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<DecodedRows, Error> {
        let (context, writes) = (context(&statement), statement.writes());
        let statement = Arc::new(statement);
        for alone in [false, true] {
            let mut write = self.begin_write(sqlite, alone).await?;
            let rows = write.query(statement.clone(), decoding).await;
            if let Err(sqlite::Error::Reclaimed) = rows {
                continue;
            }
            let rows = rows.context(context)?;
            if committed(write).await? {
                return Ok(rows.map_err(|error| error.of_done(writes))?);
            }
        }
        Err(Error::Aborted)
    }

    /// As [`Executor::query_write`], for a statement without rows.
    pub(super) async fn execute_write(
        &self,
        sqlite: &SqliteExecutor,
        statement: Statement,
    ) -> Result<u64, Error> {
        let statement = Arc::new(statement);
        for alone in [false, true] {
            let mut write = self.begin_write(sqlite, alone).await?;
            let changed = write.execute(statement.clone()).await;
            if let Err(sqlite::Error::Reclaimed) = changed {
                continue;
            }
            let changed = changed.context("writing")?;
            if committed(write).await? {
                return Ok(changed);
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
        // A database in memory has no commits to be shared: each is cheap.
        let alone = alone || sqlite.file.is_memory();
        let waits = !sqlite.writer.is_idle();
        let begun = self.counted(waits, sqlite.writer.begin(alone)).await;
        begun.context("waiting for the writer")
    }

    /// Counts a wait for a connection, when there is one.
    pub(crate) async fn counted<T>(&self, waits: bool, wait: impl Future<Output = T>) -> T {
        if !waits {
            return wait.await;
        }
        let started = Instant::now();
        let done = wait.await;
        self.shared.stats.waited(started.elapsed());
        done
    }
}

/// Says what a statement does, for its errors.
pub(super) fn context(statement: &Statement) -> &'static str {
    if statement.writes() {
        "writing"
    } else {
        "reading"
    }
}

/// Commits. Returns `false` when the commit of the batch failed.
async fn committed(write: Write) -> Result<bool, Error> {
    match write.commit().await {
        Ok(()) => Ok(true),
        Err(sqlite::Error::BatchRolledBack | sqlite::Error::Reclaimed) => Ok(false),
        Err(error) => Err(Error::of_commit(error)),
    }
}
