//! How many statements a piece of code runs.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Database;

/// Runs a future and returns its output. Panics unless it ran this number of statements on
/// the database; with `<=`, when it ran more.
///
/// ```
/// use aura_db::{PageRequest, UserFilter, UserSort, assert_queries};
/// # use aura_db::{Error, testing::TestDatabase};
/// # #[tokio::main] async fn main() -> Result<(), Error> {
/// # let db = TestDatabase::sqlite().await?;
/// let ada = db.user("ada").await?;
/// assert_queries!(db, 1, async { db.users().get(ada.id).await })?;
/// assert_queries!(db, <= 2, async { db.users().find(ada.id).await })?;
/// # Ok(()) }
/// ```
///
/// Statements of repositories, own ones, and those of transactions count, on all clones of
/// this database; those of other databases, as of tests at the same time, don't. BEGIN, COMMIT
/// and savepoints don't count, nor does what runs on [`Database::seaorm`]'s connections.
/// Statements of a transaction that is run again count again.
#[macro_export]
macro_rules! assert_queries {
    ($db:expr, <= $most:expr, $body:expr $(,)?) => {{
        let count = $crate::testing::QueryCount::start(&$db);
        let output = $body.await;
        count.assert_at_most($most);
        output
    }};
    ($db:expr, $exactly:expr, $body:expr $(,)?) => {{
        let count = $crate::testing::QueryCount::start(&$db);
        let output = $body.await;
        count.assert_exactly($exactly);
        output
    }};
}

/// Counts the statements of a database from a moment on; what
/// [`assert_queries!`](crate::assert_queries) uses.
#[derive(Debug)]
pub struct QueryCount {
    db: Database,
    statements: BTreeMap<String, u64>,
    operations: BTreeMap<String, u64>,
}

impl QueryCount {
    /// Starts to count.
    #[must_use]
    pub fn start(db: &Database) -> Self {
        Self {
            db: db.clone(),
            statements: db.executor().statements(),
            operations: operations(db),
        }
    }

    /// Returns the number of statements since the start.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.statements().values().sum()
    }

    /// Checks the number of statements.
    ///
    /// # Panics
    ///
    /// When it is another; with a list of them.
    #[track_caller]
    pub fn assert_exactly(&self, expected: u64) {
        let count = self.get();
        assert!(
            count == expected,
            "{}",
            self.report(count, &format!("{expected}"))
        );
    }

    /// Checks that there were at most this number of statements.
    ///
    /// # Panics
    ///
    /// When there were more; with a list of them.
    #[track_caller]
    pub fn assert_at_most(&self, most: u64) {
        let count = self.get();
        assert!(
            count <= most,
            "{}",
            self.report(count, &format!("at most {most}"))
        );
    }

    fn statements(&self) -> BTreeMap<String, u64> {
        since(&self.statements, self.db.executor().statements())
    }

    fn report(&self, count: u64, expected: &str) -> String {
        let mut report = format!("expected {expected} statements, and {count} were run:");
        for (sql, times) in self.statements() {
            let _ = write!(report, "\n{times:>5} × {sql}");
        }
        report.push_str("\nin these operations:");
        for (name, times) in since(&self.operations, operations(&self.db)) {
            let _ = write!(report, "\n{times:>5} × {name}");
        }
        report
    }
}

fn operations(db: &Database) -> BTreeMap<String, u64> {
    let operations = db.stats().operations.into_iter();
    operations
        .map(|one| (format!("{}.{}", one.table, one.operation), one.count))
        .collect()
}

/// Returns what was added to these counts.
fn since(before: &BTreeMap<String, u64>, now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let added = now.into_iter().map(|(name, count)| {
        let added = count - before.get(&name).copied().unwrap_or_default();
        (name, added)
    });
    added.filter(|(_, count)| *count > 0).collect()
}
