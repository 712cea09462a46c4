//! The log of statements.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::executor::Executor;
use crate::statement::Statement;

/// Logs a statement at its end, under the target of the driver, so that one filter is
/// for both, and never with its values.
pub(super) struct Logged {
    sql: Cow<'static, str>,
    started: Instant,
    rows: u64,
    logging: bool,
    slow: Option<Duration>,
}

impl Logged {
    pub(super) fn rows(&mut self, rows: u64) {
        self.rows = rows;
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let (sql, rows) = (&*self.sql, self.rows);
        if let Some(threshold) = self.slow.filter(|slow| elapsed >= *slow) {
            tracing::warn!(
                target: "sqlx::query",
                statement = sql,
                rows,
                ?elapsed,
                slow_threshold = ?threshold,
                "slow statement: execution time exceeded alert threshold"
            );
        } else if self.logging {
            tracing::info!(target: "sqlx::query", statement = sql, rows, ?elapsed);
        }
    }
}

impl<X> Executor<X> {
    /// Counts a statement, and starts its timer if statements are logged (`DB_LOGGING`), or
    /// those that take longer (`DB_SLOW_QUERY`).
    pub(super) fn logged(&self, statement: &Statement) -> Option<Logged> {
        self.shared.stats.count_statement(&statement.sql);
        let config = &self.shared.config;
        (config.logging || config.slow_query.is_some()).then(|| Logged {
            sql: statement.sql().clone(),
            started: Instant::now(),
            rows: 0,
            logging: config.logging,
            slow: config.slow_query,
        })
    }

    /// Returns how often each statement was run since the database was opened, by its SQL,
    /// over all clones. BEGIN, COMMIT and savepoints don't count, nor does what runs on
    /// [`SeaOrm`](crate::SeaOrm)'s connections; an insert that SQLite runs for each of
    /// several rows counts once.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn statements(&self) -> std::collections::BTreeMap<String, u64> {
        self.shared.stats.statements()
    }
}
