//! The engine of a SQLite file, as the settings want it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use connection::{Config, Durability, Target};
use sqlite_engine::{Options, Readers, Statement, Writer};

/// The engine. Only for files: what is in memory lives in one connection.
#[derive(Debug, Clone)]
pub(crate) struct Embedded {
    pub(crate) readers: Readers,
    pub(crate) writer: Writer,
    /// Every statement is logged.
    logging: bool,
    /// Statements that take so long are.
    slow: Option<Duration>,
}

impl Embedded {
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let Target::Sqlite { path } = &config.target else {
            return None;
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options = Options {
            path: path.clone(),
            durable: config.durability == Durability::Full,
            busy_timeout: connection::busy_timeout(config),
            statement_timeout: config.statement_timeout,
            // They compute; more than there are cores only wait for each other.
            blocking_reads: cores.min(config.pool.max as usize),
            patience: config.pool.connection_timeout,
        };
        Some(Self {
            readers: Readers::new(options.clone()),
            writer: Writer::new(options),
            logging: config.logging,
            slow: config.slow_query,
        })
    }

    pub(crate) async fn close(&self) {
        self.readers.close();
        self.writer.close().await;
    }

    /// Notes a statement for the log, when somebody may want it there.
    pub(super) fn begin(&self, statement: &Statement) -> Option<Logged> {
        (self.logging || self.slow.is_some()).then(|| Logged {
            sql: statement.sql().clone(),
            started: Instant::now(),
            rows: 0,
            logging: self.logging,
            slow: self.slow,
        })
    }
}

/// A statement that is logged when it ends, however it ends. As the driver does
/// it: under the same name, so that one filter is for both, and never with the
/// values.
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
