//! Transactions: begin, commit, savepoints, retries.
//!
//! What holds on both backends:
//!
//! * `Ok` means committed. PostgreSQL answers the COMMIT of a transaction in
//!   which a statement failed with ROLLBACK and no error, and the driver
//!   ignores the tag; so a failed statement, and one that was dropped halfway,
//!   marks the transaction here, and it is not committed.
//! * On PostgreSQL, BEGIN goes out together with the first statement. The connection of a
//!   caller that is dropped halfway, also in its COMMIT, is closed and not returned.
//! * A handle is valid until its transaction ends, in whatever task it is.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::RwLock;

use crate::error::Error;
use crate::executor::context::{CommitHook, Executor};
use crate::executor::tx_connection::{CommitError, TxConnection};
use crate::postgres::Isolation;
use crate::sqlite::Owner;

/// Minimum attempts on a serialization failure. Attempts go on for at least
/// `DB_POOL_CONNECTION_TIMEOUT`, because one of many transactions that want the same rows
/// loses again and again.
const ATTEMPTS: u32 = 10;
/// Upper bound of the first pause; each bound is twice the one before.
const PAUSE: Duration = Duration::from_millis(4);
/// Upper bound of every pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    /// It may write.
    pub(crate) writes: bool,
    pub(crate) isolation: Isolation,
}

impl Begin {
    /// Begins a transaction that may write.
    pub(crate) const fn writing(isolation: Isolation) -> Self {
        Self {
            writes: true,
            isolation,
        }
    }
}

/// The transaction of a handle, and the savepoint that it may use.
#[derive(Debug, Clone)]
pub(crate) struct TransactionScope {
    pub(crate) open: Arc<TransactionState>,
    level: u64,
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct TransactionState {
    /// `None` after the end. Statements hold a read lock, so that the end waits for
    /// those in flight.
    connection: RwLock<Option<TxConnection>>,
    /// Of a write to SQLite.
    owner: Option<Owner>,
    state: Mutex<State>,
}

struct State {
    /// The transaction itself and the savepoints in it; only the last may be
    /// used.
    levels: Vec<u64>,
    next: u64,
    failed: Option<Failure>,
    /// Rows that its statements changed.
    changed: u64,
    /// Run after the commit.
    hooks: Vec<(CommitHook, BTreeSet<i64>)>,
}

/// Why a transaction can't be committed.
#[derive(Debug, Clone, Copy)]
struct Failure {
    /// A serialization failure, so running it again may succeed.
    collided: bool,
}

/// A statement in flight. Dropped before [`StatementGuard::done`], its outcome isn't
/// known, and the transaction fails.
pub(crate) struct StatementGuard<'a> {
    open: &'a TransactionState,
    ended: bool,
}

impl StatementGuard<'_> {
    /// Notes the end of the statement, with the number of rows that it changed.
    pub(crate) fn done(mut self, result: Result<u64, &Error>) {
        self.ended = true;
        match result {
            Ok(changed) => self.open.state().changed += changed,
            Err(error) => self.open.fail(error.is_serialization_failure()),
        }
    }
}

impl Drop for StatementGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.open.fail(false);
        }
    }
}

impl TransactionState {
    pub(super) fn new(connection: TxConnection) -> Arc<Self> {
        Arc::new(Self {
            owner: connection.owner(),
            connection: RwLock::new(Some(connection)),
            state: Mutex::new(State {
                levels: vec![0],
                next: 1,
                failed: None,
                changed: 0,
                hooks: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, collided: bool) {
        let mut state = self.state();
        // A serialization failure stays one, whatever fails after it.
        let collided = collided || state.failed.is_some_and(|failure| failure.collided);
        state.failed = Some(Failure { collided });
    }

    pub(crate) fn after_commit(&self, hook: &CommitHook, keys: &BTreeSet<i64>) {
        let mut state = self.state();
        let mut hooks = state.hooks.iter_mut();
        match hooks.find(|(known, _)| Arc::ptr_eq(known, hook)) {
            Some((_, known)) => known.extend(keys),
            None => state.hooks.push((hook.clone(), keys.clone())),
        }
    }

    /// Checks that a handle of this level may run a statement.
    fn enter(&self, scope: &TransactionScope) -> Result<StatementGuard<'_>, Error> {
        let state = self.state();
        if state.levels.last() != Some(&scope.level) {
            return Err(Error::Ended);
        }
        if state.failed.is_some() {
            return Err(Error::Aborted);
        }
        Ok(StatementGuard {
            open: self,
            ended: false,
        })
    }

    /// Commits, unless a statement failed, or rolls back.
    async fn end(&self, commit: bool) -> Result<(), Error> {
        let Some(connection) = self.connection.write().await.take() else {
            return Err(Error::Ended);
        };
        // Only now: another task's statement may have failed during the wait.
        let spoilt = {
            let mut state = self.state();
            state.levels.clear();
            state.failed.is_some()
        };
        let (wanted, commit) = (commit, commit && !spoilt);
        let ended = connection.end(commit).await;
        if wanted && spoilt {
            return Err(Error::Aborted);
        }
        ended.map_err(|unfinished| match unfinished {
            CommitError::Failed(error) => error,
            CommitError::BatchRolledBack => {
                self.fail(true);
                Error::Aborted
            }
        })
    }
}

impl TransactionScope {
    fn of(open: &Arc<TransactionState>) -> Self {
        Self {
            open: open.clone(),
            level: 0,
        }
    }

    /// Runs a statement on the transaction's connection. `changed` says how many rows it
    /// has changed.
    pub(super) async fn run<T>(
        &self,
        run: impl AsyncFnOnce(&TxConnection) -> Result<T, Error>,
        changed: impl FnOnce(&T) -> u64,
    ) -> Result<T, Error> {
        let guard = self.open.connection.read().await;
        let connection = guard.as_ref().ok_or(Error::Ended)?;
        let running = self.open.enter(self)?;
        let done = run(connection).await;
        running.done(done.as_ref().map(changed));
        done
    }
}

/// A transaction that its owner ends. Dropped before, it is rolled back.
#[derive(Debug)]
pub struct OpenTransaction<X = Error> {
    executor: Executor<X>,
    undo: UndoOnDrop,
}

impl<X: From<Error> + Send + 'static> OpenTransaction<X> {
    /// Commits, unless a statement failed, or rolls back.
    ///
    /// # Errors
    ///
    /// [`Error::Aborted`] when a statement in it failed before, and then nothing is
    /// committed; [`Error::OutcomeUnknown`] when the answer was lost; [`Error::Busy`] when
    /// it collided with another.
    pub async fn end(mut self, commit: bool) -> Result<(), X> {
        let Some(open) = &self.undo.0 else {
            return Err(Error::Ended.into());
        };
        let open = open.clone();
        let ended = open.end(commit).await;
        self.undo.0 = None;
        if commit && ended.is_ok() {
            self.executor.note_commit(&open);
        } else {
            let stats = &self.executor.shared.stats;
            stats.rollbacks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(ended?)
    }
}

/// Rolls back a transaction whose closure was dropped, also when another task still
/// has a handle of it.
#[derive(Debug)]
struct UndoOnDrop(Option<Arc<TransactionState>>);

impl Drop for UndoOnDrop {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else {
            return;
        };
        open.fail(false);
        open.state().levels.clear();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = open.end(false).await;
            });
        }
    }
}

/// Fails the transaction when the closure of a savepoint was dropped: its statements
/// can't be separated from the others any more.
struct CloseLevel<'a> {
    open: &'a TransactionState,
    level: u64,
    closed: bool,
}

impl CloseLevel<'_> {
    fn close(&mut self) {
        let mut state = self.open.state();
        if let Some(at) = state.levels.iter().position(|level| *level == self.level) {
            state.levels.truncate(at);
        }
        self.closed = true;
    }
}

impl Drop for CloseLevel<'_> {
    fn drop(&mut self) {
        if !self.closed {
            self.open.fail(false);
            self.close();
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("levels", &self.levels)
            .field("failed", &self.failed)
            .field("changed", &self.changed)
            .finish_non_exhaustive()
    }
}

/// The closure of an operation or a transaction, as what runs it sees it: its result is kept
/// elsewhere, and it says whether that is `Ok`. So these are compiled once and not for each
/// closure; and boxed, transactions inside each other need no deep stack.
pub(super) type Work<'a, X> = dyn Fn(Executor<X>) -> Working<'a> + Send + Sync + 'a;

pub(super) type Working<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Where the result of [`Work`] is kept.
pub(super) struct Kept<R>(Mutex<Option<R>>);

impl<T: Send, E: Send> Kept<Result<T, E>> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns a closure as work.
    pub(super) fn work<'a, X, F, Fut>(&'a self, run: &'a F) -> impl Fn(Executor<X>) -> Working<'a>
    where
        F: Fn(Executor<X>) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        move |executor| {
            let running = run(executor);
            Box::pin(async move {
                let result = running.await;
                let is_ok = result.is_ok();
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                is_ok
            })
        }
    }

    /// Returns the result of the work, or the error of what ran it.
    pub(super) fn finish<X: From<Error>>(self, ended: Result<bool, X>) -> Result<T, E>
    where
        E: From<X>,
    {
        let result = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (ended, result) {
            (Ok(_), Some(result)) => result,
            (Err(error), _) => Err(error.into()),
            (Ok(_), None) => Err(X::from(Error::Aborted).into()),
        }
    }
}

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Runs a closure in a transaction that may write, and commits it when the closure
    /// returns `Ok`; inside of a transaction, in a savepoint. It runs again after a
    /// serialization failure.
    ///
    /// # Errors
    ///
    /// What the closure returns; [`Error::Aborted`] when a statement in it failed and the
    /// closure went on; as [`Executor::begin_at`] and [`OpenTransaction::end`].
    pub async fn transaction_at<T, E, F, Fut>(&self, isolation: Isolation, run: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<X> + Send,
        T: Send,
    {
        self.transact(Begin::writing(isolation), run).await
    }

    /// Runs a closure in a new transaction, or in a savepoint of the present one; again
    /// after a serialization failure.
    pub(crate) async fn transact<T, E, F, Fut>(&self, begin: Begin, run: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<X> + Send,
        T: Send,
    {
        let kept = Kept::new();
        let work = kept.work(&run);
        let ended = match &self.scope {
            Some(scope) => self.nested(scope, &work).await,
            None => self.attempt(begin, &work).await,
        };
        drop(work);
        kept.finish::<X>(ended)
    }

    /// Runs the work of a transaction until it is committed or rolled back for good. `Ok` says
    /// that its own result stands, and whether that is `Ok`.
    async fn attempt(&self, begin: Begin, work: &Work<'_, X>) -> Result<bool, X> {
        let stats = &self.shared.stats;
        let started = Instant::now();
        let patience = self.shared.config.pool.connection_timeout;
        for attempt in 1.. {
            let open = self.begin(begin, attempt > 1).await?;
            let mut undo = UndoOnDrop(Some(open.clone()));
            let running = work(self.within(TransactionScope::of(&open)));
            let is_ok = match &open.owner {
                Some(owner) => owner.run(running).await,
                None => running.await,
            };
            let ended = open.end(is_ok).await;
            undo.0 = None;
            let failed = open.state().failed;
            let collided = failed.is_some_and(|failure| failure.collided);
            let (result, collided) = match (is_ok, ended) {
                (true, Ok(())) => {
                    self.note_commit(&open);
                    return Ok(true);
                }
                (true, Err(error)) => {
                    let collided = collided || error.is_serialization_failure();
                    (Err(error.into()), collided)
                }
                (false, _) => (Ok(false), collided),
            };
            stats.rollbacks.fetch_add(1, Ordering::Relaxed);
            let enough = attempt >= ATTEMPTS && started.elapsed() >= patience;
            if !collided || enough {
                return result;
            }
            stats.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(attempt)).await;
        }
        Err(Error::Aborted.into())
    }

    /// Runs work in a savepoint, as [`Executor::attempt`].
    async fn nested(&self, scope: &TransactionScope, work: &Work<'_, X>) -> Result<bool, X> {
        let open = &*scope.open;
        self.savepoint(scope, "SAVEPOINT aura_nested").await?;
        let level = {
            let mut state = open.state();
            let level = state.next;
            state.next += 1;
            state.levels.push(level);
            level
        };
        let mut guard = CloseLevel {
            open,
            level,
            closed: false,
        };
        let inner = TransactionScope {
            open: scope.open.clone(),
            level,
        };
        let is_ok = work(self.within(inner)).await;
        let failed = open.state().failed;
        let keep = is_ok && failed.is_none();
        if !keep {
            // A savepoint can't undo a serialization failure.
            if failed.is_some_and(|failure| failure.collided) {
                guard.close();
                return if is_ok {
                    Err(Error::Aborted.into())
                } else {
                    Ok(false)
                };
            }
            open.state().failed = None;
        }
        guard.close();
        if !keep {
            self.savepoint(scope, "ROLLBACK TO SAVEPOINT aura_nested")
                .await?;
        }
        self.savepoint(scope, "RELEASE SAVEPOINT aura_nested")
            .await?;
        if is_ok && !keep {
            return Err(Error::Aborted.into());
        }
        Ok(is_ok)
    }

    async fn savepoint(&self, scope: &TransactionScope, sql: &'static str) -> Result<(), X> {
        let run = async |connection: &TxConnection| connection.execute_sql(sql).await;
        Ok(scope.run(run, |()| 0).await?)
    }

    fn note_commit(&self, open: &TransactionState) {
        self.shared.stats.commits.fetch_add(1, Ordering::Relaxed);
        let hooks = std::mem::take(&mut open.state().hooks);
        for (hook, keys) in hooks {
            hook(&keys);
        }
    }

    /// Begins a transaction that ends with [`OpenTransaction::end`], and returns its
    /// executor.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when no connection is free within `DB_POOL_CONNECTION_TIMEOUT`;
    /// [`Error::Unavailable`].
    pub async fn begin_at(&self, isolation: Isolation) -> Result<(Self, OpenTransaction<X>), X> {
        let open = self.begin(Begin::writing(isolation), true).await?;
        let executor = self.within(TransactionScope::of(&open));
        let transaction = OpenTransaction {
            executor: self.clone(),
            undo: UndoOnDrop(Some(open)),
        };
        Ok((executor, transaction))
    }

    /// Runs an operation of several statements that are committed together: in the present
    /// transaction, which fails when it fails after it changed rows, or in one of its own.
    pub(super) async fn together(&self, begin: Begin, work: &Work<'_, X>) -> Result<bool, X> {
        let Some(scope) = &self.scope else {
            return self.attempt(begin, work).await;
        };
        let before = scope.open.state().changed;
        let is_ok = work(self.clone()).await;
        if !is_ok && scope.open.state().changed != before {
            scope.open.fail(false);
        }
        Ok(is_ok)
    }
}

/// Returns a random pause with exponential backoff.
fn pause(attempt: u32) -> Duration {
    let most = LONGEST_PAUSE.min(PAUSE.saturating_mul(1 << attempt.min(16)));
    rand::rng().random_range(Duration::ZERO..=most)
}
