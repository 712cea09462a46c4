//! Statements that are committed together or not at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sea_orm::Value;
use tokio::sync::oneshot;

use super::bind;
use super::connection::{CancelOnDrop, INLINE_BUDGET, Options};
use super::error::Error;
use super::writer::{LOOK, WriterGuard};
use crate::fetched::{DecodedRows, Decoding};
use crate::{RowError, Statement, StatementKind};

/// How long a write that may share its commit may run no statement while others wait.
/// It is long for a closure that only calls the database, and short for those that wait.
const SHARED_IDLE: Duration = Duration::from_millis(5);

/// How long a write that got the connection, or the lock of another process, may take to go on
/// while others wait. When it is too slow, as on a busy machine, it has only lost its turn, and
/// waits once more.
const HANDED_IDLE: Duration = Duration::from_millis(100);

/// Statements that are committed together or not at all. Dropped before
/// [`Write::commit`], they are rolled back.
#[derive(Debug)]
pub struct Write {
    parked: Arc<Parked>,
    exclusive: bool,
    /// No statement has run yet.
    fresh: bool,
}

/// The connection between two statements of a write. From there it is reclaimed when
/// the write runs no statement for too long while others wait.
#[derive(Debug)]
pub(super) struct Parked {
    state: Mutex<State>,
    /// How long the connection may be parked while others wait.
    limit: Duration,
    /// The thread that polls the owner's future at this moment, or 0.
    polled_on: AtomicU64,
}

/// The future that a write belongs to. From [`Write::owner`].
#[derive(Debug, Clone)]
pub struct Owner(Arc<Parked>);

impl Owner {
    /// Runs the future. While it is polled, nothing inside it reclaims its own write: it
    /// would wait for itself, and gets [`Error::WriterBusy`].
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            let outer = self.0.polled_on.swap(this_thread(), Ordering::Relaxed);
            let poll = future.as_mut().poll(context);
            self.0.polled_on.store(outer, Ordering::Relaxed);
            poll
        })
        .await
    }
}

/// Returns a number that no other thread has.
fn this_thread() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    }
    NUMBER.with(|number| *number)
}

#[derive(Debug)]
enum State {
    /// In the queue for the connection.
    Waiting,
    /// It was handed the connection at this moment, and has run nothing.
    Handed(WriterGuard, Instant),
    /// Since this moment.
    Parked(WriterGuard, Instant),
    /// A statement is under way.
    InUse,
    /// The write has ended.
    Ended,
    Reclaimed,
}

impl Parked {
    /// Creates the place for the connection of a write that waits for it.
    pub(super) fn new(exclusive: bool, options: &Options) -> Arc<Self> {
        let limit = if exclusive {
            // Less than what the others wait.
            options.acquire_timeout.mul_f32(0.75)
        } else {
            SHARED_IDLE
        };
        Arc::new(Self {
            state: Mutex::new(State::Waiting),
            limit,
            polled_on: AtomicU64::new(0),
        })
    }

    /// Puts the connection there for the write that waits.
    pub(super) fn hand(&self, guard: WriterGuard) {
        *self.state() = State::Handed(guard, Instant::now());
    }

    /// Takes what was handed, unless it was reclaimed.
    pub(super) fn take_handed(&self) -> Option<WriterGuard> {
        let mut state = self.state();
        if let State::Handed(guard, _) = std::mem::replace(&mut *state, State::InUse) {
            return Some(guard);
        }
        *state = State::Waiting;
        None
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection for a statement, and leaves this state.
    fn take(&self, next: State) -> Result<WriterGuard, Error> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, next) {
            State::Parked(guard, _) => Ok(guard),
            State::Reclaimed => {
                *state = State::Reclaimed;
                Err(if self.limit == SHARED_IDLE {
                    Error::Reclaimed
                } else {
                    Error::IdleTimeout(self.limit)
                })
            }
            State::Waiting | State::Handed(..) | State::InUse | State::Ended => {
                *state = State::Ended;
                Err(Error::Ended)
            }
        }
    }

    fn park(&self, guard: WriterGuard) {
        *self.state() = State::Parked(guard, Instant::now());
    }

    /// Rolls the write back and hands the connection to the next in the queue, when it
    /// has run no statement for too long.
    pub(super) fn reclaim(&self) {
        if self.polled_on.load(Ordering::Relaxed) == this_thread() {
            return;
        }
        let mut state = self.state();
        let next = match &*state {
            State::Parked(_, since) if since.elapsed() >= self.limit => State::Reclaimed,
            State::Handed(_, since) if since.elapsed() >= HANDED_IDLE => State::Waiting,
            _ => return,
        };
        let parked = std::mem::replace(&mut *state, next);
        drop(state);
        drop(parked);
    }
}

impl Write {
    /// Begins a write on the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Reclaimed`] when it waited for another process, and then did nothing while
    /// others of this one waited.
    pub(super) async fn begin(
        parked: Arc<Parked>,
        guard: WriterGuard,
        exclusive: bool,
    ) -> Result<Self, Error> {
        // As when it was handed over: while it does nothing, others may have it.
        let guard = begin(&parked, guard, Parked::hand, |parked| {
            parked.take_handed().ok_or(Error::Reclaimed)
        });
        parked.park(guard.await?);
        Ok(Self {
            parked,
            exclusive,
            fresh: true,
        })
    }

    /// Returns the owner, to mark the future that the write belongs to.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner(self.parked.clone())
    }

    /// Runs a statement and reads its rows. The inner error is of the first row that can't be
    /// read. A row may be read twice.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; [`Error::TimedOut`] when it takes longer than
    /// [`Options::statement_timeout`](super::Options::statement_timeout);
    /// [`Error::Ended`] when an earlier failure has rolled everything back;
    /// [`Error::Reclaimed`] and [`Error::IdleTimeout`].
    pub async fn query(
        &mut self,
        statement: impl Into<Arc<Statement>>,
        decoding: Decoding,
    ) -> Result<Result<DecodedRows, RowError>, Error> {
        let statement = statement.into();
        self.run(statement.kind, move |connection| {
            bind::query(&statement, connection, decoding)
        })
        .await
    }

    /// Runs a statement and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// As [`Write::query`].
    pub async fn execute(&mut self, statement: impl Into<Arc<Statement>>) -> Result<u64, Error> {
        let statement = statement.into();
        self.run(statement.kind, move |connection| {
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
        // Not quick, so not to be tried within the budget.
        self.fresh = false;
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

    async fn run<T, F>(&mut self, kind: StatementKind, run: F) -> Result<T, Error>
    where
        F: Fn(&Connection) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        // As in `Readers::query`.
        tokio::task::coop::consume_budget().await;
        let mut guard = self.parked.take(State::InUse)?;
        if guard.is_rolled_back() {
            self.parked.park(guard);
            return Err(Error::Ended);
        }
        let timeout = guard.shared.options.statement_timeout;
        let reads = kind == StatementKind::Read;
        let fresh = std::mem::replace(&mut self.fresh, false);
        // Interrupting a read rolls nothing back, interrupting a write the whole
        // transaction (https://sqlite.org/c3ref/interrupt.html): that is of no account
        // for the first statement of a transaction without others.
        let repeatable = reads || fresh && guard.is_alone();
        if repeatable || kind != StatementKind::BulkWrite {
            let quick = reads || kind == StatementKind::BulkWrite;
            let budget = if quick { Some(INLINE_BUDGET) } else { timeout };
            match run_within(&mut guard, budget, &run) {
                Err(error) if quick && error.exceeded_budget() => {}
                done => {
                    self.parked.park(guard);
                    return within(timeout, done);
                }
            }
            if !reads {
                guard.rollback();
                let take = |parked: &Parked| parked.take(State::InUse);
                guard = begin(&self.parked, guard, Parked::park, take).await?;
            }
        }
        if kind == StatementKind::BulkWrite {
            guard.set_bulk();
        }
        // Ends with its caller. Interrupting a write rolls back the whole transaction; the
        // others of its batch run again.
        let (_, deadline) = guard.connection()?;
        let cancel = CancelOnDrop::new(deadline, timeout);
        let parked = self.parked.clone();
        // In the closure, so that the connection can be reclaimed from a future that is
        // no longer polled.
        let run =
            move |guard: &mut WriterGuard| -> Result<T, Error> { run(&guard.connection()?.0) };
        let done = tokio::task::spawn_blocking(move || {
            let done = run(&mut guard);
            parked.park(guard);
            done
        });
        let done = done.await.map_err(|_| Error::Panicked)?;
        drop(cancel);
        within(timeout, done)
    }

    /// Commits, in a batch with others unless the write is exclusive. Returns after
    /// the commit.
    ///
    /// # Errors
    ///
    /// Nothing is committed after [`Error::Refused`], [`Error::Ended`],
    /// [`Error::IdleTimeout`], [`Error::Reclaimed`] and [`Error::BatchRolledBack`], which
    /// is for a batch whose commit failed: try it again exclusively. After [`Error::Moved`] what was committed
    /// will be lost, and after [`Error::Unanswered`] the outcome isn't known.
    pub async fn commit(self) -> Result<(), Error> {
        let guard = self.parked.take(State::Ended)?;
        let shared = guard.shared.clone();
        let (acknowledgement, mut committed) = oneshot::channel();
        guard.finish(self.exclusive, acknowledgement)?;
        loop {
            match tokio::time::timeout(LOOK, &mut committed).await {
                Ok(done) => return done.unwrap_or(Err(Error::Unanswered)),
                // The next write of the batch may do nothing, and no other may wait.
                Err(_) => shared.reclaim_idle(),
            }
        }
    }
}

/// Names the timeout when a statement was interrupted.
fn within<T>(timeout: Option<Duration>, done: Result<T, Error>) -> Result<T, Error> {
    match (done, timeout) {
        (Err(error), Some(timeout)) if error.is_interrupted() => Err(Error::TimedOut(timeout)),
        (done, _) => done,
    }
}

/// Begins a write, and waits where it may block when another process holds the file's lock.
/// Then the connection can be reclaimed from a future that is no longer polled: between
/// `leave` and `take`.
async fn begin(
    parked: &Arc<Parked>,
    mut guard: WriterGuard,
    leave: fn(&Parked, WriterGuard),
    take: fn(&Parked) -> Result<WriterGuard, Error>,
) -> Result<WriterGuard, Error> {
    match guard.begin() {
        Err(error) if error.is_busy() => {
            let waits = parked.clone();
            let begun = tokio::task::spawn_blocking(move || {
                let begun = begin_waiting(&mut guard);
                leave(&waits, guard);
                begun
            });
            let begun = begun.await.map_err(|_| Error::Panicked)?;
            let taken = take(parked);
            begun?;
            taken
        }
        begun => begun.map(|()| guard),
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

fn run_within<T>(
    guard: &mut WriterGuard,
    budget: Option<Duration>,
    run: impl Fn(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    let (connection, deadline) = guard.connection()?;
    deadline.set(budget);
    run(connection)
}
