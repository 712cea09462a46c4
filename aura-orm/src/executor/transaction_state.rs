//! An open transaction: its connection, its savepoints, and whether it can be committed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::RwLock;

use crate::error::Error;
use crate::executor::context::CommitHook;
use crate::executor::tx_connection::{CommitError, TxConnection};
use crate::sqlite::Owner;

/// The transaction of a handle, and the savepoint that it may use.
#[derive(Debug, Clone)]
pub(crate) struct TransactionScope {
    pub(crate) open: Arc<TransactionState>,
    pub(super) level: u64,
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct TransactionState {
    /// `None` after the end. Statements hold a read lock, so that the end waits for
    /// those in flight.
    connection: RwLock<Option<TxConnection>>,
    /// Of a write to SQLite.
    pub(super) owner: Option<Owner>,
    state: Mutex<State>,
}

pub(super) struct State {
    /// The transaction itself and the savepoints in it; only the last may be
    /// used.
    pub(super) levels: Vec<u64>,
    pub(super) next: u64,
    pub(super) failed: Option<Failure>,
    /// Rows that its statements changed.
    pub(super) changed: u64,
    /// Run after the commit.
    pub(super) hooks: Vec<(CommitHook, BTreeSet<i64>)>,
}

/// Why a transaction can't be committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    /// A serialization failure, so running it again may succeed.
    pub(super) collided: bool,
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, collided: bool) {
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
    pub(super) async fn end(&self, commit: bool) -> Result<(), Error> {
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
    pub(super) fn of(open: &Arc<TransactionState>) -> Self {
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

/// Fails the transaction when the closure of a savepoint was dropped: its statements
/// can't be separated from the others any more.
pub(super) struct CloseLevel<'a> {
    pub(super) open: &'a TransactionState,
    pub(super) level: u64,
    pub(super) closed: bool,
}

impl CloseLevel<'_> {
    pub(super) fn close(&mut self) {
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
