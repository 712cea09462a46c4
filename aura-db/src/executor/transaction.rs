//! Transactions: begin, commit, savepoints, retries.
//!
//! What contains_ci, on both backends alike:
//!
//! * `Ok` means committed. PostgreSQL answers the COMMIT of a transaction in
//!   which a statement failed with ROLLBACK and no error, and the driver
//!   doesn't look; so a failed statement, and one that was given up halfway,
//!   marks the transaction here, and it is not committed.
//! * BEGIN and COMMIT run in tasks of their own: a caller who hangs up in the
//!   middle leaves no connection inside a transaction, and no commit half sent.
//! * A handle is good until its transaction ends, wherever it was carried.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, RwLock};

use crate::error::Error;
use crate::executor::context::Executor;
use crate::executor::tx_connection::{CommitError, TxConnection};

/// So often is a transaction run that collides with others, at least; and for as
/// long as a connection is waited for, because among many who want the same rows
/// somebody always has bad luck.
const ATTEMPTS: u32 = 10;
/// The first pause is at most so long, and each is up to twice the one before.
const PAUSE: Duration = Duration::from_millis(4);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How much a transaction is kept apart from others. SQLite's are always
/// serializable, because there is one writer at a time.
///
/// What the repositories promise about the work of others at the same moment
/// (no session outlives a change of the password, nobody is deleted who is
/// just given a workflow) rests on locks, and on statements that see what was
/// committed before they began. On PostgreSQL that is so at the default; a
/// transaction that looks at an older state locks a row and still doesn't see
/// what the last holder of the lock has written. So delete users and change
/// their passwords at the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// The database's default: on PostgreSQL read committed, where each
    /// statement sees what is committed when it starts.
    #[default]
    Default,
    /// Each statement sees what is committed when it starts, whatever the default.
    ReadCommitted,
    /// All statements see what was committed when the first started; a
    /// collision is retried.
    RepeatableRead,
    /// As if transactions ran one after the other; a collision is retried.
    Serializable,
}

/// Which pool a transaction takes its connection from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Reader,
    Writer,
    /// The writer, through the driver: its statements may be the caller's own,
    /// and wants its own rows.
    Caller,
}

/// Where in a transaction a handle stands.
#[derive(Debug, Clone)]
pub(crate) struct TransactionScope {
    pub(crate) open: Arc<TransactionState>,
    level: u64,
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct TransactionState {
    /// `None` when it has ended. Statements hold it for reading, so that the
    /// end waits for those under way.
    pub(crate) connection: RwLock<Option<TxConnection>>,
    /// It is not the engine's.
    pub(crate) on_driver: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The transaction itself and the savepoints in it; only the last may be
    /// used.
    levels: Vec<u64>,
    next: u64,
    failed: Option<Failure>,
    /// TypedQuery that its statements changed.
    changed: u64,
    /// Some of them are new log entries.
    appended: bool,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why a transaction can't be committed.
#[derive(Debug, Clone, Copy)]
struct Failure {
    /// It collided with another, so the same could succeed.
    collided: bool,
}

/// A statement under way. Dropped before [`StatementGuard::done`], it was given up, and
/// what became of it is not known.
pub(crate) struct StatementGuard<'a> {
    open: &'a TransactionState,
    ended: bool,
}

impl StatementGuard<'_> {
    /// It ended, and this is how many rows it changed.
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
    pub(super) fn new(connection: TxConnection, permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            on_driver: matches!(
                connection,
                TxConnection::Driver(..) | TxConnection::PostgresPool(_)
            ),
            connection: RwLock::new(Some(connection)),
            state: Mutex::new(State {
                levels: vec![0],
                next: 1,
                failed: None,
                changed: 0,
                appended: false,
                permit,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, collided: bool) {
        let mut state = self.state();
        // A collision stays one, whatever fails after it.
        let collided = collided || state.failed.is_some_and(|failure| failure.collided);
        state.failed = Some(Failure { collided });
    }

    pub(crate) fn note_appended(&self) {
        self.state().appended = true;
    }

    /// Whether a handle of this level may run a statement now.
    pub(crate) fn enter(&self, scope: &TransactionScope) -> Result<StatementGuard<'_>, Error> {
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

    /// Ends it: commits, unless a statement failed, or undoes everything.
    async fn end(&self, commit: bool) -> Result<(), Error> {
        let Some(connection) = self.connection.write().await.take() else {
            return Err(Error::Ended);
        };
        // Only now: another task's statement may have failed during the wait.
        let (permit, spoilt) = {
            let mut state = self.state();
            state.levels.clear();
            (state.permit.take(), state.failed.is_some())
        };
        let (wanted, commit) = (commit, commit && !spoilt);
        let end = async move {
            let _permit = permit;
            connection.end(commit).await
        };
        // The engine's goes on to its end by itself.
        let ended = if self.on_driver {
            tokio::spawn(end).await
        } else {
            Ok(end.await)
        };
        if wanted && spoilt {
            return Err(Error::Aborted);
        }
        let ended = ended.map_err(|source| Error::OutcomeUnknown {
            context: "committing",
            source: Box::new(source),
        })?;
        ended.map_err(|unfinished| match unfinished {
            CommitError::Failed(error) => error,
            CommitError::BatchRolledBack => {
                self.fail(true);
                Error::Aborted
            }
        })
    }
}

/// Undoes a transaction whose closure was given up, also when a handle of it
/// lives on elsewhere.
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

/// Undoes a savepoint's level when its closure was given up: what was done in
/// it can't be told from the rest any more, so all of it is undone.
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

impl Executor {
    /// Runs a closure in a transaction of its own, or in a savepoint when the
    /// handle is in one; again when it collided with others.
    pub(crate) async fn transact<T, E, F, Fut>(
        &self,
        pool: Pool,
        isolation: Isolation,
        run: F,
    ) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        if let Some(scope) = &self.scope {
            return self.nested(scope, run).await;
        }
        let stats = &self.shared.stats;
        let started = Instant::now();
        let patience = self.shared.config.pool.connection_timeout;
        for attempt in 1.. {
            let open = self.begin(pool, isolation, attempt > 1).await?;
            let mut undo = UndoOnDrop(Some(open.clone()));
            let scope = TransactionScope {
                open: open.clone(),
                level: 0,
            };
            let result = run(self.within(scope)).await;
            let ended = open.end(result.is_ok()).await;
            undo.0 = None;
            let failed = open.state().failed;
            let collided = failed.is_some_and(|failure| failure.collided);
            let (result, collided) = match (result, ended) {
                (Ok(value), Ok(())) => {
                    stats.commits.fetch_add(1, Ordering::Relaxed);
                    if open.state().appended {
                        self.shared.news.send_replace(());
                    }
                    return Ok(value);
                }
                (Ok(_), Err(error)) => {
                    let collided = collided || error.is_serialization_failure();
                    (error.into(), collided)
                }
                (Err(error), _) => (error, collided),
            };
            stats.rollbacks.fetch_add(1, Ordering::Relaxed);
            let enough = attempt >= ATTEMPTS && started.elapsed() >= patience;
            if !collided || enough {
                return Err(result);
            }
            stats.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(attempt)).await;
        }
        Err(Error::Aborted.into())
    }

    async fn nested<T, E, F, Fut>(&self, scope: &TransactionScope, run: F) -> Result<T, E>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        let open = &*scope.open;
        self.raw(scope, "SAVEPOINT aura_nested").await?;
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
        let result = run(self.within(inner)).await;
        let failed = open.state().failed;
        let keep = result.is_ok() && failed.is_none();
        if !keep {
            // A collision can't be undone in part.
            if failed.is_some_and(|failure| failure.collided) {
                guard.close();
                return result.and(Err(Error::Aborted.into()));
            }
            open.state().failed = None;
        }
        guard.close();
        if !keep {
            self.raw(scope, "ROLLBACK TO SAVEPOINT aura_nested").await?;
        }
        self.raw(scope, "RELEASE SAVEPOINT aura_nested").await?;
        match result {
            Ok(_) if !keep => Err(Error::Aborted.into()),
            result => result,
        }
    }

    async fn raw(&self, scope: &TransactionScope, sql: &'static str) -> Result<(), Error> {
        let guard = scope.open.connection.read().await;
        let connection = guard.as_ref().ok_or(Error::Ended)?;
        let running = scope.open.enter(scope)?;
        let result = connection.execute_sql(sql).await;
        running.done(result.as_ref().map(|()| 0));
        result
    }

    /// Runs a part of the transaction that the handle is in. When it fails
    /// after it wrote something, the whole transaction can't be committed any
    /// more.
    pub(crate) async fn together<T, F, Fut>(&self, run: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let Some(scope) = &self.scope else {
            return run(self.clone()).await;
        };
        let before = scope.open.state().changed;
        let result = run(self.clone()).await;
        if result.is_err() && scope.open.state().changed != before {
            scope.open.fail(false);
        }
        result
    }
}

/// A random pause that grows, so that those who collided don't meet again.
fn pause(attempt: u32) -> Duration {
    let most = LONGEST_PAUSE.min(PAUSE.saturating_mul(1 << attempt.min(16)));
    rand::rng().random_range(Duration::ZERO..=most)
}
