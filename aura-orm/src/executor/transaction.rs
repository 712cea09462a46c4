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

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::error::Error;
use crate::executor::context::Executor;
use crate::executor::transaction_state::{CloseLevel, TransactionScope, TransactionState};
use crate::executor::tx_connection::TxConnection;
use crate::postgres::Isolation;

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
