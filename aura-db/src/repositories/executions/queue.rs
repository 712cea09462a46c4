//! Takes executions out of the queue, and puts back those whose lease ran out.

use std::sync::LazyLock;
use std::time::Duration;

use aura_orm::page::{MAX_PAGE, MAX_PAGE_BYTES};
use entity::{Action, ExecutionMode, executions};
use sea_orm::{DbBackend, Iterable, Value};

use super::lease::checked;
use super::{Execution, Executions, op, suspend};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::readable;
use crate::validate::Check;

/// How many executions are looked at first on PostgreSQL, when several are taken: those that
/// don't fit are locked for as long as those that do, and their documents are decompressed.
const FIRST_LOOK: u64 = 16;

/// SQL with the modes that this build knows in place of `{known}`. What was
/// queued with another is left to the workers of a newer build.
fn with_known_modes(sql: &str, taken: &str) -> String {
    let known: Vec<_> = ExecutionMode::iter()
        .map(|mode| format!("'{mode}'"))
        .collect();
    sql.replace("{known}", &known.join(", "))
        .replace("{taken}", taken)
}

/// Those that a claim has found.
const FOUND: &str = "SELECT id FROM due UNION ALL SELECT id FROM queued";

/// Of those that were found the first whose documents have at most `{bytes}` together, and the
/// first `{first}` however large they are. `octet_length` of a `json` decompresses it; of what
/// is stored compressed PostgreSQL knows no other size in text.
const FITTING_POSTGRES: &str = r"
    SELECT id FROM (
        SELECT id, row_number() OVER queue AS nth, sum(
            coalesce(octet_length(CAST(data AS text)), 0)
            + coalesce(octet_length(CAST(error AS text)), 0)) OVER queue AS bytes
        FROM executions WHERE id = ANY (ARRAY ({found}))
        WINDOW queue AS (ORDER BY wait_until, id)) AS sized
    WHERE bytes <= {bytes} OR nth <= {first}";

/// As [`FITTING_POSTGRES`]. `octet_length` reads the head of the row only.
const FITTING_SQLITE: &str = r"
    SELECT id FROM (
        SELECT id, row_number() OVER queue AS nth, sum(
            coalesce(octet_length(data), 0)
            + coalesce(octet_length(error), 0)) OVER queue AS bytes
        FROM executions WHERE id IN ({found})
        WINDOW queue AS (ORDER BY wait_until, id)) AS sized
    WHERE bytes <= {bytes} OR nth <= {first}";

fn fitting(sql: &str, found: &str, [bytes, first]: [&str; 2]) -> String {
    sql.replace("{found}", found)
        .replace("{bytes}", bytes)
        .replace("{first}", first)
}

/// The rows are locked where they are found, and those that another worker has
/// locked are passed over. None is locked that is not taken, because it would be
/// passed over by others, and none would have it: so the queue is only looked
/// at when nothing is due. (A limit that is computed, to take from both, is
/// planned as a tenth of the queue.) Of several, what doesn't fit is locked until the end of
/// the statement: see [`FIRST_LOOK`].
/// `ANY (ARRAY (…))`, because an `IN` may be run anew for each row, and would
/// lock others; the workflow is looked up by row and not joined, because a join
/// would read the whole queue.
const CLAIM_ON_POSTGRES: &str = r"
WITH due AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE status = 'waiting' AND is_suspended = FALSE
        AND wait_until <= $3
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
    ORDER BY wait_until, id LIMIT $4 FOR UPDATE OF e SKIP LOCKED
), queued AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE status = 'queued' AND is_suspended = FALSE
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
        AND (SELECT count(*) FROM due) = 0
    ORDER BY id LIMIT $4 FOR UPDATE OF e SKIP LOCKED
)
UPDATE executions SET status = 'running', worker_id = $1, lease_until = $2, wait_until = NULL,
    started_at = COALESCE(started_at, $3)
WHERE id = ANY (ARRAY ({taken}))";

/// SQLite has one writer, so a claim is alone. The `+` keeps it from
/// reading all that wait, because it takes equality for the narrower search.
const CLAIM_ON_SQLITE: &str = r"
WITH due AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE +status = 'waiting' AND is_suspended = FALSE
        AND wait_until <= ?3
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
    ORDER BY wait_until, id LIMIT ?4
), queued AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE status = 'queued' AND is_suspended = FALSE
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
        AND (SELECT count(*) FROM due) = 0
    ORDER BY id LIMIT ?4
)
UPDATE executions SET status = 'running', worker_id = ?1, lease_until = ?2, wait_until = NULL,
    started_at = COALESCE(started_at, ?3)
WHERE id IN ({taken})";

/// Claims one.
pub(super) static CLAIM_POSTGRES: LazyLock<String> =
    LazyLock::new(|| with_known_modes(CLAIM_ON_POSTGRES, FOUND));

pub(super) static CLAIM_SQLITE: LazyLock<String> =
    LazyLock::new(|| with_known_modes(CLAIM_ON_SQLITE, FOUND));

/// Claims several.
pub(super) static CLAIM_MANY_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_POSTGRES, FOUND, ["$5", "$6"]);
    with_known_modes(CLAIM_ON_POSTGRES, &fitting)
});

pub(super) static CLAIM_MANY_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_SQLITE, FOUND, ["?5", "?6"]);
    with_known_modes(CLAIM_ON_SQLITE, &fitting)
});

pub(super) static RECOVER_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_POSTGRES, "SELECT id FROM expired", ["$3", "$4"]);
    format!(
        r"
WITH expired AS MATERIALIZED (
    SELECT id FROM executions AS e
    WHERE status = 'running' AND (lease_until IS NULL OR lease_until <= $1)
    ORDER BY id LIMIT $2 FOR UPDATE OF e SKIP LOCKED
)
UPDATE executions SET status = 'queued', worker_id = NULL, lease_until = NULL
WHERE id = ANY (ARRAY ({fitting}))"
    )
});

pub(super) static RECOVER_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_SQLITE, "SELECT id FROM expired", ["?3", "?4"]);
    format!(
        r"
WITH expired AS MATERIALIZED (
    SELECT id FROM executions
    WHERE status = 'running' AND (lease_until IS NULL OR lease_until <= ?1)
    ORDER BY id LIMIT ?2
)
UPDATE executions SET status = 'queued', worker_id = NULL, lease_until = NULL
WHERE id IN ({fitting})"
    )
});

impl Executions {
    /// Takes an execution for this worker, until the lease runs out: the one
    /// whose waiting has been over for longest, or else the oldest in the queue.
    /// `None` when there is none. Each goes to one worker.
    ///
    /// One of a mode that this build doesn't know is left to a newer one. One that
    /// this build can't read is logged as an error (target `aura_db::unreadable`)
    /// and passed over; it stays taken until its lease runs out.
    ///
    /// Fails with [`Error::Validation`] when the worker has no name, or one of
    /// more than 64 characters, or the lease is empty or longer than a year.
    pub async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Execution>, Error> {
        Ok(self.claim_batch("claim", worker, lease, 1).await?.pop())
    }

    /// Takes up to `limit` executions at once (and 1,000): those whose waiting
    /// is over, or else the oldest in the queue. It may be fewer than there are, as
    /// where their documents would have more than
    /// [`MAX_PAGE_BYTES`] together; when it is none, there
    /// was nothing to take. Returned oldest first.
    ///
    /// Fails like [`Executions::claim`].
    pub async fn claim_many(
        &self,
        worker: &str,
        lease: Duration,
        limit: u64,
    ) -> Result<Vec<Execution>, Error> {
        self.claim_batch("claim_many", worker, lease, limit).await
    }

    async fn claim_batch(
        &self,
        name: &'static str,
        worker: &str,
        lease: Duration,
        limit: u64,
    ) -> Result<Vec<Execution>, Error> {
        let lease = checked(worker, Some(lease), Check::default())?;
        let sql: &str = match (self.0.backend(), limit) {
            (DbBackend::Postgres, ..=1) => &CLAIM_POSTGRES,
            (DbBackend::Postgres, _) => &CLAIM_MANY_POSTGRES,
            (_, ..=1) => &CLAIM_SQLITE,
            (_, _) => &CLAIM_MANY_SQLITE,
        };
        self.taking(name, limit, |h| async move {
            // None that can be read is no empty queue: what stands behind those that
            // can't is taken too. It ends, because each look takes some out of the queue.
            loop {
                let now = h.now();
                let values: [Value; 3] = [worker.into(), (now + lease).into(), now.into()];
                let (count, taken) = take(&h, sql, &values, limit, limit > 1).await?;
                if count == 0 || !taken.is_empty() {
                    return Ok(taken);
                }
            }
        })
        .await
    }

    /// Queues at most `limit` executions (and 1,000) whose workers let the
    /// lease run out, oldest first, and returns them; fewer where their documents would
    /// have more than [`MAX_PAGE_BYTES`] together. Of several
    /// who do this at once each gets others. One that this build can't read is queued as
    /// well, and logged as an error instead of returned.
    ///
    /// Outside of a transaction it also looks for executions of deleted workflows that
    /// workers pass over, and puts them aside; deleting a workflow does so too, unless it
    /// was done with SQL or was interrupted.
    pub async fn requeue_expired(&self, limit: u64) -> Result<Vec<Execution>, Error> {
        let sql: &str = match self.0.backend() {
            DbBackend::Postgres => &RECOVER_POSTGRES,
            _ => &RECOVER_SQLITE,
        };
        let requeued = self
            .taking("requeue_expired", limit, |h| async move {
                let values: [Value; 1] = [h.now().into()];
                Ok(take(&h, sql, &values, limit, true).await?.1)
            })
            .await?;
        suspend::sweep(&self.0, op("requeue_expired", Action::Execute)).await?;
        Ok(requeued)
    }

    /// Runs an operation that takes this many executions. What it takes with several
    /// statements is returned, or not taken.
    async fn taking<F, Fut>(
        &self,
        name: &'static str,
        limit: u64,
        run: F,
    ) -> Result<Vec<Execution>, Error>
    where
        F: Fn(Context) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Vec<Execution>, Error>> + Send,
    {
        let op = op(name, Action::Execute);
        let mut taken = if self.0.backend() == DbBackend::Postgres && limit > FIRST_LOOK {
            self.0.atomic(op, run).await?
        } else {
            self.0.write(op, run).await?
        };
        // `RETURNING` promises no order.
        taken.sort_by_key(|execution| execution.id);
        Ok(taken)
    }
}

/// Runs a statement that takes at most `limit` executions, and returns how many it took, and
/// those of them that can be read. Where it is bounded, it takes no more than a page may have.
async fn take(
    h: &Context,
    sql: &str,
    values: &[Value],
    limit: u64,
    is_bounded: bool,
) -> Result<(u64, Vec<Execution>), Error> {
    let limit = limit.min(MAX_PAGE);
    let (mut count, mut taken) = (0, Vec::new());
    let (mut left, mut largest) = (MAX_PAGE_BYTES, None);
    loop {
        let room = limit - count;
        let ask = match (h.backend(), largest) {
            (DbBackend::Postgres, None) => room.min(FIRST_LOOK),
            (DbBackend::Postgres, Some(largest)) => {
                let fitting = left.checked_div(largest).unwrap_or(usize::MAX);
                room.min(fitting as u64)
            }
            _ => room,
        };
        if ask == 0 {
            return Ok((count, taken));
        }
        let mut values = values.to_vec();
        values.push(integer(ask));
        if is_bounded {
            values.extend([integer(left as u64), integer(u64::from(count == 0))]);
        }
        let rows = h.sql_returning::<executions::Entity>(sql, values).await?;
        let found = rows.len() as u64;
        count += found;
        for execution in readable(rows) {
            let documents = [&execution.data, &execution.error];
            let documents = documents.into_iter().flatten();
            let bytes: usize = documents.map(|json| json.as_str().len()).sum();
            left = left.saturating_sub(bytes);
            largest = largest.max(Some(bytes));
            taken.push(execution);
        }
        if found < ask {
            return Ok((count, taken));
        }
    }
}

fn integer(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}
