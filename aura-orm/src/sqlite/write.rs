//! Statements that are committed together or not at all.

use std::time::Duration;

use rusqlite::{Connection, Row};
use sea_orm::Value;
use tokio::sync::oneshot;

use super::bind;
use super::connection::{CancelOnDrop, INLINE_BUDGET};
use super::error::{AsSqliteError, Error};
use super::writer::WriterGuard;
use crate::{Statement, StatementKind};

/// Statements that are committed together or not at all. Dropped before
/// [`Write::commit`], they are rolled back.
#[derive(Debug)]
pub struct Write {
    guard: Option<WriterGuard>,
    exclusive: bool,
}

impl Write {
    pub(super) async fn begin(mut guard: WriterGuard, exclusive: bool) -> Result<Self, Error> {
        match guard.begin() {
            // Another process holds the file's lock.
            Err(error) if error.is_busy() => {
                let begun;
                (guard, begun) = blocking(guard, begin_waiting).await?;
                begun?;
            }
            begun => begun?,
        }
        Ok(Self {
            guard: Some(guard),
            exclusive,
        })
    }

    /// Runs a statement and reads its rows. `read` may see a row twice.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; [`Error::TimedOut`] when a read takes longer than
    /// [`Options::statement_timeout`](super::Options::statement_timeout);
    /// [`Error::Ended`] when an earlier failure has rolled everything back; and what
    /// `read` returns.
    pub async fn query<T, E, R>(
        &mut self,
        statement: Statement,
        kind: StatementKind,
        read: R,
    ) -> Result<Vec<T>, E>
    where
        R: Fn(&Row<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsSqliteError + Send + 'static,
    {
        self.run(kind, move |connection| {
            bind::query(&statement, connection, &read)
        })
        .await
    }

    /// Runs a statement and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// As [`Write::query`].
    pub async fn execute(
        &mut self,
        statement: Statement,
        kind: StatementKind,
    ) -> Result<u64, Error> {
        self.run(kind, move |connection| {
            bind::execute(&statement, connection)
        })
        .await
    }

    /// Runs a statement once for each row of values, where it may block, and returns
    /// the number of rows that were changed in all.
    ///
    /// # Errors
    ///
    /// As [`Write::query`].
    pub async fn execute_each(&mut self, sql: String, rows: Vec<Vec<Value>>) -> Result<u64, Error> {
        self.run(StatementKind::BulkWrite, move |connection| {
            bind::execute_each(connection, &sql, &rows)
        })
        .await
    }

    /// Runs SQL without values or rows, as for savepoints.
    ///
    /// # Errors
    ///
    /// As [`Write::query`].
    pub async fn execute_sql(&mut self, sql: &'static str) -> Result<(), Error> {
        self.run(StatementKind::Write, move |connection| {
            Ok(connection.execute_batch(sql)?)
        })
        .await
    }

    async fn run<T, E, F>(&mut self, kind: StatementKind, run: F) -> Result<T, E>
    where
        F: Fn(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsSqliteError + Send + 'static,
    {
        // As in `Readers::query`.
        tokio::task::coop::consume_budget().await;
        let guard = self.guard.as_mut().ok_or(Error::Ended)?;
        if guard.is_rolled_back() {
            return Err(Error::Ended.into());
        }
        let reads = kind == StatementKind::Read;
        if kind != StatementKind::BulkWrite {
            let budget = reads.then_some(INLINE_BUDGET);
            match run_within(guard, budget, &run) {
                // Interrupting a statement that only reads rolls nothing back
                // (https://sqlite.org/c3ref/interrupt.html).
                Err(error) if reads && error.exceeded_budget() => {}
                done => return done,
            }
        }
        let mut guard = self.guard.take().ok_or(Error::Ended)?;
        if kind == StatementKind::BulkWrite {
            guard.set_bulk();
        }
        let timeout = guard.shared.options.statement_timeout.filter(|_| reads);
        // A write runs to its end, because interrupting it would roll back the
        // batch; a read would only keep the connection from others.
        let (_, deadline) = guard.connection()?;
        let cancel = if reads {
            Some(CancelOnDrop::new(deadline, timeout))
        } else {
            deadline.set(None);
            None
        };
        let run = move |guard: &mut WriterGuard| -> Result<T, E> { run(&guard.connection()?.0) };
        let (guard, done) = blocking(guard, run).await?;
        drop(cancel);
        self.guard = Some(guard);
        match (done, timeout) {
            (Err(error), Some(timeout)) if error.is_interrupted() => {
                Err(Error::TimedOut(timeout).into())
            }
            (done, _) => done,
        }
    }

    /// Commits, in a batch with others unless the write is exclusive. Returns after
    /// the commit.
    ///
    /// # Errors
    ///
    /// Nothing is committed after [`Error::Refused`], [`Error::Ended`], and
    /// [`Error::BatchRolledBack`], which is for a batch whose commit failed: try it
    /// again exclusively. After [`Error::Moved`] what was committed will be lost, and
    /// after [`Error::Unanswered`] the outcome isn't known.
    pub async fn commit(mut self) -> Result<(), Error> {
        let guard = self.guard.take().ok_or(Error::Ended)?;
        let (acknowledgement, committed) = oneshot::channel();
        guard.finish(self.exclusive, acknowledgement)?;
        committed.await.unwrap_or(Err(Error::Unanswered))
    }
}

/// Begins once other processes release the file's lock.
fn begin_waiting(guard: &mut WriterGuard) -> Result<(), Error> {
    let timeout = guard.shared.options.busy_timeout;
    guard.connection()?.0.busy_timeout(timeout)?;
    let begun = guard.begin();
    guard.connection()?.0.busy_timeout(Duration::ZERO)?;
    begun
}

/// Runs a closure with the connection where it may block. It runs to its end also
/// when the caller is gone, and is then rolled back.
async fn blocking<T: Send + 'static>(
    mut guard: WriterGuard,
    run: impl FnOnce(&mut WriterGuard) -> T + Send + 'static,
) -> Result<(WriterGuard, T), Error> {
    let done = tokio::task::spawn_blocking(move || {
        let done = run(&mut guard);
        (guard, done)
    });
    done.await.map_err(|_| Error::Panicked)
}

fn run_within<T, E: From<Error>>(
    guard: &mut WriterGuard,
    budget: Option<Duration>,
    run: impl Fn(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let (connection, deadline) = guard.connection()?;
    deadline.set(budget);
    run(connection)
}
