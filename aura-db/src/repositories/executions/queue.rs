//! Takes executions out of the queue, and puts back those whose lease ran out.

use std::sync::LazyLock;
use std::time::Duration;

use aura_orm::TypedQuery;
use aura_orm::page::{MAX_PAGE, MAX_PAGE_BYTES};
use chrono::{DateTime, Utc};
use entity::{Action, ExecutionMode, executions};
use sea_orm::{DbBackend, Iterable, Statement, Value};

use super::lease::{LONGEST_LEASE, checked, micros};
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
const FOUND: &str = "SELECT id FROM due UNION ALL SELECT id FROM expired \
     UNION ALL SELECT id FROM queued";

/// The most executions that one claim buries.
const BURIED: u64 = 100;

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

/// Whose lease ran out, in place of `{late}`. The `+` is for SQLite, as in [`CLAIM_ON_SQLITE`].
const LATE: &str = "{+}status = 'running' AND lease_until <= {now}";

/// As [`LATE`], and those of which nobody would wait for the end: a lease that ends later than
/// any may was written by a clock that was wrong. Workers don't look for these, which no index
/// has.
const STRAY: &str = "status = 'running' \
     AND (lease_until <= {now} OR lease_until > {longest} OR lease_until IS NULL)";

/// What is set where an attempt was the last, in place of `{bury}`.
const BURY: &str = r#"status = 'dead', lease_until = NULL, finished_at = {ended},
    error = {json}('{"code":"lease_expired","attempts":' || attempts || '}'{as_json})"#;

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
WITH buried AS (
    UPDATE executions SET {bury} WHERE id = ANY (ARRAY (
        SELECT id FROM executions AS e WHERE {late} AND attempts >= max_attempts
        ORDER BY lease_until, id LIMIT {most} FOR UPDATE OF e SKIP LOCKED))
), due AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE status = 'waiting' AND is_suspended = FALSE
        AND wait_until <= {now}
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
    ORDER BY wait_until, id LIMIT $4 FOR UPDATE OF e SKIP LOCKED
), expired AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE {late} AND attempts < max_attempts
        AND is_suspended = FALSE
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
        AND (SELECT count(*) FROM due) = 0
    ORDER BY lease_until, id LIMIT $4 FOR UPDATE OF e SKIP LOCKED
), queued AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE status = 'queued' AND is_suspended = FALSE
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
        AND (SELECT count(*) FROM due) = 0 AND (SELECT count(*) FROM expired) = 0
    ORDER BY id LIMIT $4 FOR UPDATE OF e SKIP LOCKED
)
UPDATE executions SET status = 'running', worker_id = $1,
    lease_until = {now} + $2 * interval '1 microsecond', wait_until = NULL,
    started_at = COALESCE(started_at, {now}),
    attempts = attempts + 1, claim_no = claim_no + 1
WHERE id = ANY (ARRAY ({taken}))";

/// SQLite has one writer, so a claim is alone. The `+` keeps it from
/// reading all that wait, because it takes equality for the narrower search.
const CLAIM_ON_SQLITE: &str = r"
WITH due AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE +status = 'waiting' AND is_suspended = FALSE
        AND wait_until <= {now}
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
    ORDER BY wait_until, id LIMIT ?4
), expired AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE {late} AND attempts < max_attempts
        AND is_suspended = FALSE
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
        AND (SELECT count(*) FROM due) = 0
    ORDER BY lease_until, id LIMIT ?4
), queued AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE status = 'queued' AND is_suspended = FALSE
        AND mode IN ({known})
        AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)
        AND (SELECT count(*) FROM due) = 0 AND (SELECT count(*) FROM expired) = 0
    ORDER BY id LIMIT ?4
)
UPDATE executions SET status = 'running', worker_id = ?1, lease_until = ?2, wait_until = NULL,
    started_at = COALESCE(started_at, {now}),
    attempts = attempts + 1, claim_no = claim_no + 1
WHERE id IN ({taken})";

/// SQLite can't do this and claim in one statement.
const BURY_ON_SQLITE: &str = r"
UPDATE executions SET {bury} WHERE id IN (
    SELECT id FROM executions WHERE {late} AND attempts >= max_attempts
    ORDER BY lease_until, id LIMIT {most})";

/// Puts the conditions of a statement in the place of their names. The present moment is the
/// parameter `now`; on PostgreSQL it is the server's where that is NULL. The end of the longest
/// lease is on SQLite the parameter `longest`.
fn with_moments(backend: DbBackend, sql: &str, now: &str, longest: &str) -> String {
    let is_postgres = backend == DbBackend::Postgres;
    let (now, longest) = if is_postgres {
        let micros = LONGEST_LEASE.as_micros();
        (
            format!("COALESCE({now}, statement_timestamp())"),
            format!("{{now}} + {micros} * interval '1 microsecond'"),
        )
    } else {
        (now.to_owned(), longest.to_owned())
    };
    let [plus, ended, cast, as_json] = if is_postgres {
        ["", "GREATEST({now}, started_at)", "CAST", " AS json"]
    } else {
        ["+", "max({now}, coalesce(started_at, {now}))", "", ""]
    };
    sql.replace("{late}", LATE)
        .replace("{stray}", STRAY)
        .replace("{bury}", BURY)
        .replace("{+}", plus)
        .replace("{ended}", ended)
        .replace("{json}", cast)
        .replace("{as_json}", as_json)
        .replace("{longest}", &longest)
        .replace("{now}", &now)
        .replace("{most}", &BURIED.to_string())
}

fn claim_sql(backend: DbBackend, taken: &str) -> String {
    let (sql, now) = match backend {
        DbBackend::Postgres => (CLAIM_ON_POSTGRES, "$3"),
        _ => (CLAIM_ON_SQLITE, "?3"),
    };
    with_moments(backend, &with_known_modes(sql, taken), now, "")
}

/// Claims one.
pub(super) static CLAIM_POSTGRES: LazyLock<String> =
    LazyLock::new(|| claim_sql(DbBackend::Postgres, FOUND));

pub(super) static CLAIM_SQLITE: LazyLock<String> =
    LazyLock::new(|| claim_sql(DbBackend::Sqlite, FOUND));

/// Claims several.
pub(super) static CLAIM_MANY_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_POSTGRES, FOUND, ["$5", "$6"]);
    claim_sql(DbBackend::Postgres, &fitting)
});

pub(super) static CLAIM_MANY_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_SQLITE, FOUND, ["?5", "?6"]);
    claim_sql(DbBackend::Sqlite, &fitting)
});

/// Buries, on SQLite, what a claim finds. The parameter is the present moment.
pub(super) static BURY_SQLITE: LazyLock<String> =
    LazyLock::new(|| with_moments(DbBackend::Sqlite, BURY_ON_SQLITE, "?1", ""));

/// Whether there is something to bury.
pub(super) static LATE_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let sql = "SELECT 1 FROM executions WHERE {late} AND attempts >= max_attempts LIMIT 1";
    with_moments(DbBackend::Sqlite, sql, "?1", "")
});

/// Puts what is late back into the queue, or buries it.
const RECOVER: &str = r#"
WITH late AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE {stray} ORDER BY id LIMIT {limit}
)
UPDATE executions SET
    status = CASE WHEN attempts < max_attempts THEN 'queued' ELSE 'dead' END,
    worker_id = CASE WHEN attempts < max_attempts THEN NULL ELSE worker_id END,
    finished_at = CASE WHEN attempts < max_attempts THEN NULL ELSE {ended} END,
    error = CASE WHEN attempts < max_attempts THEN error
        ELSE {json}('{"code":"lease_expired","attempts":' || attempts || '}'{as_json}) END,
    lease_until = NULL
WHERE id "#;

pub(super) static RECOVER_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_POSTGRES, "SELECT id FROM late", ["$3", "$4"]);
    let sql = format!("{RECOVER}= ANY (ARRAY ({fitting}))");
    let sql = sql.replace("{limit}", "$2 FOR UPDATE OF e SKIP LOCKED");
    with_moments(DbBackend::Postgres, &sql, "$1", "")
});

pub(super) static RECOVER_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_SQLITE, "SELECT id FROM late", ["?4", "?5"]);
    let sql = format!("{RECOVER}IN ({fitting})").replace("{limit}", "?2");
    with_moments(DbBackend::Sqlite, &sql, "?1", "?3")
});

impl Executions {
    /// Takes an execution for this worker, until the lease runs out: the one
    /// whose waiting has been over for longest, or else one whose worker let its lease run
    /// out, or else the oldest in the queue. `None` when there is none. Each goes to one
    /// worker, and this counts as an attempt. What ran out with its last attempt is dead, and
    /// noted so: at most 100 at a time.
    ///
    /// One of a mode that this build doesn't know is left to a newer one. One that
    /// this build can't read is logged as an error (target `aura_db::unreadable`)
    /// and passed over; it stays taken until its lease runs out.
    ///
    /// Fails with [`Error::Validation`] when the worker has no name, or one of
    /// more than 64 characters, or the lease is empty or longer than 24 hours.
    pub async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Execution>, Error> {
        Ok(self.claim_batch("claim", worker, lease, 1).await?.pop())
    }

    /// Takes up to `limit` executions at once (and 1,000): those whose waiting
    /// is over, or else those whose lease ran out, or else the oldest in the queue. It may be fewer than there are, as
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
            bury_on_sqlite(&h).await?;
            loop {
                let now = h.shared_now();
                let until: Value = match (h.backend(), now) {
                    (DbBackend::Postgres, _) | (_, None) => lease.num_microseconds().into(),
                    (_, Some(now)) => (now + lease).into(),
                };
                let values = [worker.into(), until, now.into()];
                let (count, taken) = take(&h, sql, &values, None, limit, limit > 1).await?;
                if count == 0 || !taken.is_empty() {
                    return Ok(taken);
                }
            }
        })
        .await
    }

    /// Queues at most `limit` executions (and 1,000) whose workers let the
    /// lease run out, oldest first, and returns them, with those that are dead now because it
    /// was their last attempt; fewer where their documents would
    /// have more than [`MAX_PAGE_BYTES`] together. Workers find them without it, except leases
    /// that end later than any may, as after a clock was wrong. Of several
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
                let longest = longest_lease(&h);
                let values = [h.shared_now().into()];
                Ok(take(&h, sql, &values, longest, limit, true).await?.1)
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
    longest: Option<DateTime<Utc>>,
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
        values.extend(longest.map(Value::from));
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

/// Returns the end of the longest lease that begins now, for SQLite.
fn longest_lease(h: &Context) -> Option<DateTime<Utc>> {
    let now = h.shared_now().filter(|_| h.backend() == DbBackend::Sqlite);
    now.map(|now| now + micros(LONGEST_LEASE))
}

/// Notes what ran out with its last attempt. On PostgreSQL a claim does so itself.
async fn bury_on_sqlite(h: &Context) -> Result<(), Error> {
    let Some(now) = h.shared_now().filter(|_| h.backend() == DbBackend::Sqlite) else {
        return Ok(());
    };
    let values: Vec<Value> = vec![now.into()];
    let late = Statement::from_sql_and_values(h.backend(), &**LATE_SQLITE, values.clone());
    if h.fetch_all(TypedQuery::<i64>::sql(late)).await?.is_empty() {
        return Ok(());
    }
    h.sql(&**BURY_SQLITE, values).await.map(drop)
}

fn integer(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}
