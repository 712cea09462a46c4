//! Plain numbers about what the database does, for a metrics endpoint.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::executor::Operation;

/// The table under which statements of an application's own are counted
/// ([`Executor::count_own`](crate::Executor::count_own)): no table has this name.
pub const OWN_STATEMENTS: &str = "(own)";

/// What a database did since it was opened, summed over all its clones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DatabaseStats {
    /// Operations of the repositories, by table and name; and an application's own
    /// statements (`fetch_all`, `fetch_optional`, which is `fetch_one` too, `execute`,
    /// `insert_many`), under [`OWN_STATEMENTS`] and the
    /// method. One that is rolled back later counts.
    pub operations: Vec<OperationStats>,
    /// Transactions that were committed.
    pub commits: u64,
    /// Transactions that were undone.
    pub rollbacks: u64,
    /// Transactions that were run again because they collided with others.
    pub retries: u64,
    /// How often somebody had to wait for a connection.
    pub pool_waits: u64,
    /// How long they waited in all, in microseconds.
    pub pool_wait_micros: u64,
    /// The longest wait, in microseconds.
    pub pool_wait_max_micros: u64,
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperationStats {
    /// The table that it is about.
    pub table: &'static str,
    /// The method.
    pub operation: &'static str,
    /// How often it ended, well or not.
    pub count: u64,
    /// How often it failed: the statement, or what it was asked to do (a conflict, a
    /// role that may not). A cancelled operation counts; an empty answer doesn't, as a
    /// row that isn't found or, in AURA's tables, a wrong password: to watch for guessed
    /// passwords, compare the `login_lookup`s with the `login`s.
    pub errors: u64,
    /// How long all of them took, in microseconds.
    pub total_micros: u64,
    /// The longest, in microseconds.
    pub max_micros: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    count: u64,
    errors: u64,
    total: u64,
    max: u64,
}

/// Where the numbers are kept.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    operations: Mutex<BTreeMap<(&'static str, &'static str), Numbers>>,
    #[cfg(feature = "testing")]
    statements: Mutex<BTreeMap<String, u64>>,
    pub(crate) commits: AtomicU64,
    pub(crate) rollbacks: AtomicU64,
    pub(crate) retries: AtomicU64,
    waits: AtomicU64,
    wait_micros: AtomicU64,
    wait_max: AtomicU64,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Stats {
    pub(crate) fn start(&self, op: Operation) -> Timer<'_> {
        Timer {
            stats: self,
            op,
            started: Instant::now(),
            failed: true,
        }
    }

    /// Counts a statement that is sent to the database.
    pub(super) fn count_statement(&self, sql: &str) {
        #[cfg(feature = "testing")]
        {
            let mut statements = self
                .statements
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *statements.entry(sql.to_owned()).or_default() += 1;
        }
        #[cfg(not(feature = "testing"))]
        let _ = sql;
    }

    #[cfg(feature = "testing")]
    pub(crate) fn statements(&self) -> BTreeMap<String, u64> {
        let statements = self.statements.lock();
        statements.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn waited(&self, time: Duration) {
        let time = micros(time);
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.wait_micros.fetch_add(time, Ordering::Relaxed);
        self.wait_max.fetch_max(time, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> DatabaseStats {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let operations = self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        DatabaseStats {
            operations: operations
                .iter()
                .map(|((table, operation), numbers)| OperationStats {
                    table,
                    operation,
                    count: numbers.count,
                    errors: numbers.errors,
                    total_micros: numbers.total,
                    max_micros: numbers.max,
                })
                .collect(),
            commits: of(&self.commits),
            rollbacks: of(&self.rollbacks),
            retries: of(&self.retries),
            pool_waits: of(&self.waits),
            pool_wait_micros: of(&self.wait_micros),
            pool_wait_max_micros: of(&self.wait_max),
        }
    }
}

/// Counts an operation when it is dropped, so that one that is given up counts
/// too.
pub(crate) struct Timer<'a> {
    stats: &'a Stats,
    op: Operation,
    started: Instant,
    failed: bool,
}

impl Timer<'_> {
    pub(crate) fn stop(mut self, ok: bool) {
        self.failed = !ok;
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let time = micros(self.started.elapsed());
        let mut operations = self
            .stats
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let numbers = operations.entry((self.op.table, self.op.name)).or_default();
        numbers.count += 1;
        numbers.errors += u64::from(self.failed);
        numbers.total += time;
        numbers.max = numbers.max.max(time);
    }
}
