//! Changes and deletes of any number of rows, in batches that commit by themselves.

use std::time::{Duration, Instant};

use crate::context::{Context, Op};
use crate::error::Error;

/// The rows of the first batch.
const FIRST: u64 = 100;
/// The most rows of a batch.
const MOST: u64 = 10_000;
/// After a batch that was shorter than this the next one is twice as large.
const SHORT: Duration = Duration::from_millis(50);
/// After a batch that took longer than this the next one is half as large: on SQLite no
/// other write runs meanwhile.
const LONG: Duration = Duration::from_millis(200);
/// What one batch is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    /// The most rows.
    pub(crate) size: u64,
    /// The last key of the batch before.
    pub(crate) after: i64,
}

impl Batch {
    /// Returns the most rows as a value of a statement.
    pub(crate) fn limit(self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX)
    }
}

/// What a batch has changed or deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed {
    count: u64,
    last: Option<i64>,
}

impl Changed {
    /// This number of rows.
    pub(crate) fn rows(count: u64) -> Self {
        Self { count, last: None }
    }

    /// The rows with these keys.
    pub(crate) fn keys(keys: &[i64]) -> Self {
        Self {
            count: keys.len() as u64,
            last: keys.iter().max().copied(),
        }
    }
}

impl Context {
    /// Changes or deletes at most `limit` rows and returns their number. `change` does so with
    /// those of one batch, with a statement; each batch is an operation that commits by
    /// itself, so what is done before a failure stays done, and the next call goes on. In a
    /// transaction it is one statement, which is committed with the rest.
    ///
    /// A batch that runs into the statement timeout is tried again with a quarter of its
    /// rows. After each the number of rows so far is logged at DEBUG, under the target
    /// `aura_db::progress`.
    ///
    /// # Errors
    ///
    /// Those of `change`.
    pub(crate) async fn in_batches<F, Fut>(
        &self,
        op: Op,
        limit: u64,
        change: F,
    ) -> Result<u64, Error>
    where
        F: Fn(Self, Batch) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Changed, Error>> + Send,
    {
        let (change, alone) = (&change, !self.in_transaction());
        let mut size = if alone { FIRST } else { limit };
        let (mut changed, mut after) = (0, i64::MIN);
        loop {
            let batch = Batch {
                size: size.min(limit - changed),
                after,
            };
            let started = Instant::now();
            match self.write(op, |h| change(h, batch)).await {
                Ok(done) => {
                    changed += done.count;
                    if done.count < batch.size || changed >= limit {
                        return Ok(changed);
                    }
                    after = done.last.unwrap_or(after);
                }
                Err(Error::Timeout { .. }) if alone && batch.size > 1 => {
                    size = (batch.size / 4).max(1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            size = match started.elapsed() {
                took if took < SHORT => (size * 2).min(MOST),
                took if took > LONG => (size / 2).max(1),
                _ => size,
            };
            tracing::debug!(
                target: "aura_db::progress",
                table = op.table,
                operation = op.name,
                rows = changed,
                "in batches"
            );
        }
    }
}
