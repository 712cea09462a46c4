//! The connection that writes, and the transaction that a batch shares.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{self, CHECKPOINT, Deadline, Options};
use super::error::Error;
use super::file::{DatabaseFile, Identity};
use super::free_pages::Freed;

/// The most writes that share one commit, so that none waits for long.
const MAX_BATCH: usize = 128;

/// The answer to a write: whether its commit succeeded.
pub(super) type Acknowledgement = oneshot::Sender<Result<(), Error>>;

/// The connection, and the transaction that a batch of writes shares.
#[derive(Debug, Default)]
pub(super) struct WriterConnection {
    connection: Option<(Connection, Arc<Deadline>)>,
    /// The WAL that the connection writes to.
    pub(super) wal_file: Identity,
    /// A transaction is open.
    pub(super) open: bool,
    /// No other write may join the batch.
    pub(super) full: bool,
    /// A write of the batch may have changed many rows.
    pub(super) bulk: bool,
    /// Pages in the WAL that may not be in the file yet.
    pub(super) wal_pages: i32,
    /// Whether pages may have become free.
    pub(super) freed: Freed,
    /// The finished writes of the batch.
    pub(super) batch: Vec<Acknowledgement>,
}

/// The outcome of a commit, and the writes that wait for it.
pub(super) struct Committed {
    outcome: Result<(), Error>,
    batch: Vec<Acknowledgement>,
}

impl Committed {
    /// Answers each write of the batch. After a failure a write that was alone gets
    /// the error; of several it isn't known which is at fault, so each is tried again,
    /// unless it may be there all the same. A caller that has gone needs no answer.
    pub(super) fn acknowledge(mut self) {
        if self.batch.len() == 1 {
            let _ = self.batch.pop().map(|only| only.send(self.outcome));
            return;
        }
        for acknowledgement in self.batch {
            let _ = acknowledgement.send(match self.outcome {
                Ok(()) => Ok(()),
                Err(Error::Moved) => Err(Error::Moved),
                Err(ref error) if error.is_io() => Err(Error::refused(error.code())),
                Err(_) => Err(Error::BatchRolledBack),
            });
        }
    }
}

impl WriterConnection {
    pub(super) fn is_full(&self) -> bool {
        self.full || self.batch.len() >= MAX_BATCH
    }

    /// Returns whether SQLite has no transaction open.
    pub(super) fn is_outside_transaction(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(|(connection, _)| connection.is_autocommit())
    }

    /// Returns the connection; opens it at the first call.
    pub(super) fn get(&mut self, options: &Options) -> Result<&(Connection, Arc<Deadline>), Error> {
        if self.connection.is_none() {
            let opened = connection::writer(options)?;
            self.freed = Freed::at_open(&opened.0);
            self.wal_file = options.file.wal();
            options.file.check()?;
            self.connection = Some(opened);
        }
        self.connection.as_ref().ok_or(Error::Closed)
    }

    pub(super) fn execute(&self, sql: &str) -> Result<(), Error> {
        let (connection, deadline) = self.connection.as_ref().ok_or(Error::Closed)?;
        deadline.set(None);
        connection.prepare_cached(sql)?.raw_execute()?;
        Ok(())
    }

    /// Commits the batch, or rolls all of it back. `None` when a reader is in the way, as
    /// in memory; with `busy_timeout` it is waited for.
    pub(super) fn commit(
        &mut self,
        file: &DatabaseFile,
        busy_timeout: Duration,
    ) -> Option<Committed> {
        let mut outcome = self.execute("COMMIT");
        if matches!(&outcome, Err(error) if error.is_busy()) {
            if busy_timeout.is_zero() {
                return None;
            }
            outcome = self.commit_waiting(busy_timeout);
        }
        self.wal_pages = connection::wal_pages();
        if self.bulk {
            self.freed.note();
        }
        if outcome.is_ok() {
            outcome = file.check_with_wal(self.wal_file);
        } else {
            self.rollback();
        }
        self.reset();
        Some(Committed {
            outcome,
            batch: std::mem::take(&mut self.batch),
        })
    }

    fn commit_waiting(&self, busy_timeout: Duration) -> Result<(), Error> {
        let (connection, _) = self.connection.as_ref().ok_or(Error::Closed)?;
        connection.busy_timeout(busy_timeout)?;
        let outcome = self.execute("COMMIT");
        connection.busy_timeout(Duration::ZERO)?;
        outcome
    }

    /// Leaves no transaction open.
    pub(super) fn rollback(&mut self) {
        if let Some((connection, _)) = &self.connection
            && !connection.is_autocommit()
            && self.execute("ROLLBACK").is_err()
        {
            // In an unknown state: the next use opens another.
            self.connection = None;
        }
        self.reset();
    }

    /// Forgets the transaction, which has ended.
    fn reset(&mut self) {
        self.open = false;
        self.full = false;
        self.bulk = false;
    }

    /// Copies a long WAL into the file. When that fails the WAL keeps everything, and
    /// the next commit tries again.
    pub(super) fn checkpoint(&mut self) {
        if self.wal_pages >= CHECKPOINT {
            self.freed.note();
            let _ = self.copy_wal();
        }
    }

    /// Copies the WAL into the file, as far as no reader needs what is there, and returns
    /// whether that is all of it; then the file is cut to its pages.
    pub(super) fn copy_wal(&mut self) -> Result<bool, Error> {
        let (connection, deadline) = self.connection.as_ref().ok_or(Error::Closed)?;
        deadline.set(None);
        let is_whole = |row: &rusqlite::Row<'_>| {
            let (busy, pages, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(busy == 0 && pages == copied)
        };
        let whole = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], is_whole)?;
        if whole {
            self.wal_pages = 0;
        }
        Ok(whole)
    }

    /// Returns a number that SQLite keeps.
    pub(super) fn pragma(&self, sql: &str) -> Result<i64, Error> {
        let (connection, deadline) = self.connection.as_ref().ok_or(Error::Closed)?;
        deadline.set(None);
        Ok(connection
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))?)
    }

    /// Fails the batch after SQLite has rolled back the transaction. No write of it
    /// was acknowledged, so each can be tried again.
    pub(super) fn fail_batch(&mut self) {
        self.rollback();
        for acknowledgement in self.batch.drain(..) {
            let _ = acknowledgement.send(Err(Error::BatchRolledBack));
        }
    }

    /// Rolls back the write that is under way, and keeps the rest of the batch.
    pub(super) fn rollback_member(&mut self) {
        if self.batch.is_empty() {
            self.rollback();
        } else if self.execute("ROLLBACK TO member").is_err()
            || self.execute("RELEASE member").is_err()
        {
            self.fail_batch();
        }
    }
}
