//! Statements that belong together.

use std::time::Duration;

use rusqlite::{Connection, Row};
use sea_orm::Value;
use tokio::sync::oneshot;

use crate::bind::{self, Statement};
use crate::connection::{BUDGET, GiveUp};
use crate::error::{AsEngine, Error};
use crate::writer::Held;

/// How long a statement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It only reads: it is begun anew where it may block when it is over its
    /// budget, and has a limit.
    Read,
    /// It writes a few rows.
    Quick,
    /// It may write many, so it runs where it may block.
    Long,
}

/// Statements that are done together or not at all. Dropped before
/// [`Write::commit`], they are undone.
#[derive(Debug)]
pub struct Write {
    held: Option<Held>,
    alone: bool,
}

impl Write {
    pub(crate) async fn begin(mut held: Held, alone: bool) -> Result<Self, Error> {
        match held.enter() {
            // Another process has the file.
            Err(error) if error.is_busy() => {
                let entered;
                (held, entered) = blocking(held, enter_waiting).await?;
                entered?;
            }
            entered => entered?,
        }
        Ok(Self {
            held: Some(held),
            alone,
        })
    }

    /// Runs a statement, and reads its rows. `read` may see a row twice.
    ///
    /// Fails with [`Error::Refused`], with [`Error::TimedOut`] when it only reads
    /// and takes longer than statements may, with what `read` fails with, and
    /// with [`Error::Ended`] when the failure of a statement, or one that was
    /// given up, has undone everything.
    pub async fn query<T, E, R>(
        &mut self,
        statement: Statement,
        pace: Pace,
        read: R,
    ) -> Result<Vec<T>, E>
    where
        R: Fn(&Row<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsEngine + Send + 'static,
    {
        self.run(pace, move |connection| statement.query(connection, &read))
            .await
    }

    /// Runs a statement, and says how many rows it touched.
    ///
    /// Fails like [`Write::query`].
    pub async fn execute(&mut self, statement: Statement, pace: Pace) -> Result<u64, Error> {
        self.run(pace, move |connection| statement.execute(connection))
            .await
    }

    /// Runs SQL once for each row of values, where it may block, and says how
    /// many rows it touched.
    ///
    /// Fails like [`Write::query`].
    pub async fn execute_each(&mut self, sql: String, rows: Vec<Vec<Value>>) -> Result<u64, Error> {
        self.run(Pace::Long, move |connection| {
            bind::execute_each(connection, &sql, &rows)
        })
        .await
    }

    /// Runs SQL of the caller's own: savepoints.
    ///
    /// Fails like [`Write::query`].
    pub async fn control(&mut self, sql: &'static str) -> Result<(), Error> {
        self.run(Pace::Quick, move |connection| {
            Ok(connection.execute_batch(sql)?)
        })
        .await
    }

    async fn run<T, E, F>(&mut self, pace: Pace, run: F) -> Result<T, E>
    where
        F: Fn(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsEngine + Send + 'static,
    {
        // As who reads in a loop: see `Readers::query`.
        tokio::task::coop::consume_budget().await;
        let held = self.held.as_mut().ok_or(Error::Ended)?;
        if held.is_lost() {
            return Err(Error::Ended.into());
        }
        if pace != Pace::Long {
            let budget = (pace == Pace::Read).then_some(BUDGET);
            match limited(held, budget, &run) {
                // A statement that only reads undoes nothing when it is
                // interrupted (https://sqlite.org/c3ref/interrupt.html).
                Err(error) if pace == Pace::Read && error.over_budget() => {}
                done => return done,
            }
        }
        let mut held = self.held.take().ok_or(Error::Ended)?;
        if pace == Pace::Long {
            held.takes_long();
        }
        let most = held.shared.options.statement_timeout;
        let most = most.filter(|_| pace == Pace::Read);
        // What writes goes on to its end, because to interrupt it would undo
        // others' work; a read would only keep the connection from them.
        let (_, limit) = held.connection()?;
        let give_up = if pace == Pace::Read {
            Some(GiveUp::of(limit, most))
        } else {
            limit.set(None);
            None
        };
        let run = move |held: &mut Held| -> Result<T, E> { run(&held.connection()?.0) };
        let (held, done) = blocking(held, run).await?;
        drop(give_up);
        self.held = Some(held);
        match (done, most) {
            (Err(error), Some(most)) if error.interrupted() => Err(Error::TimedOut(most).into()),
            (done, _) => done,
        }
    }

    /// Commits, together with others unless it is alone.
    ///
    /// Fails with [`Error::Refused`] and [`Error::Ended`], and then nothing is
    /// committed; and with [`Error::Undone`] when the commit that it shared with
    /// others failed, so that each is to be tried again alone. With
    /// [`Error::Unanswered`] it may be committed.
    pub async fn commit(mut self) -> Result<(), Error> {
        let held = self.held.take().ok_or(Error::Ended)?;
        let (told, committed) = oneshot::channel();
        held.finish(self.alone, told)?;
        committed.await.unwrap_or(Err(Error::Unanswered))
    }
}

/// Begins when other processes let go of the file.
fn enter_waiting(held: &mut Held) -> Result<(), Error> {
    let patience = held.shared.options.busy_timeout;
    held.connection()?.0.busy_timeout(patience)?;
    let entered = held.enter();
    held.connection()?.0.busy_timeout(Duration::ZERO)?;
    entered
}

/// Runs something on the connection where it may block. It is run to its end
/// also when the caller hangs up, and then undone.
async fn blocking<T: Send + 'static>(
    mut held: Held,
    run: impl FnOnce(&mut Held) -> T + Send + 'static,
) -> Result<(Held, T), Error> {
    let done = tokio::task::spawn_blocking(move || {
        let done = run(&mut held);
        (held, done)
    });
    done.await.map_err(|_| Error::Panicked)
}

fn limited<T, E: From<Error>>(
    held: &mut Held,
    most: Option<Duration>,
    run: impl Fn(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let (connection, limit) = held.connection()?;
    limit.set(most);
    run(connection)
}
