//! Who works on an execution, and until when.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use entity::{Action, Document, ExecutionId, ExecutionMode, ExecutionStatus, executions};
use sea_orm::sea_query::{Expr, Query, SimpleExpr, UpdateStatement};
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, Iterable, QueryFilter};

use super::{ENDED, Execution, Executions, missing, op, run, suspend};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::{clamp_timestamp, readable, set_json};
use crate::validate::Check;
use aura_orm::page::MAX_PAGE;

/// The longest lease. Who works longer extends it.
const LONGEST_LEASE: Duration = Duration::from_hours(366 * 24);

/// How an execution ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    status: ExecutionStatus,
    data: Option<Document>,
    error: Option<Document>,
}

impl Outcome {
    /// It ended well, with this result; without one, its data stays.
    #[must_use]
    pub fn success(data: Option<Document>) -> Self {
        Self {
            status: ExecutionStatus::Success,
            data,
            error: None,
        }
    }

    /// It failed, and this is why.
    #[must_use]
    pub fn error(error: impl Into<Document>) -> Self {
        Self {
            status: ExecutionStatus::Error,
            data: None,
            error: Some(error.into()),
        }
    }

    /// With what it had done so far.
    #[must_use]
    pub fn data(mut self, json: impl Into<Document>) -> Self {
        self.data = Some(json.into());
        self
    }
}

/// SQL with the modes that this build knows in place of `{known}`. What was
/// queued with another is left to the workers of a newer build.
fn with_known_modes(sql: &str) -> String {
    let known: Vec<_> = ExecutionMode::iter()
        .map(|mode| format!("'{mode}'"))
        .collect();
    sql.replace("{known}", &known.join(", "))
}

/// The rows are locked where they are found, and those that another worker has
/// locked are passed over. None is locked that is not taken, because it would be
/// passed over by others, and nobody would have it: so the queue is only looked
/// at when nothing is due. (A limit that is computed, to take from both, is
/// planned as a tenth of the queue.)
/// `ANY (ARRAY (…))`, because an `IN` may be run anew for each row, and would
/// lock others; the workflow is looked up by row and not joined, because a join
/// would read the whole queue.
pub(super) static CLAIM_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    with_known_modes(
        r"
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
WHERE id = ANY (ARRAY (SELECT id FROM due UNION ALL SELECT id FROM queued))",
    )
});

/// SQLite has one writer, so whoever runs this is alone. The `+` keeps it from
/// reading all that wait, because it takes equality for the narrower search.
pub(super) static CLAIM_SQLITE: LazyLock<String> = LazyLock::new(|| {
    with_known_modes(
        r"
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
WHERE id IN (SELECT id FROM due UNION ALL SELECT id FROM queued)",
    )
});

pub(super) const RECOVER_POSTGRES: &str = r"
UPDATE executions SET status = 'queued', worker_id = NULL, lease_until = NULL
WHERE id = ANY (ARRAY (
    SELECT id FROM executions WHERE status = 'running' AND (lease_until IS NULL OR lease_until <= $1)
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))";

pub(super) const RECOVER_SQLITE: &str = r"
UPDATE executions SET status = 'queued', worker_id = NULL, lease_until = NULL
WHERE id IN (
    SELECT id FROM executions WHERE status = 'running' AND (lease_until IS NULL OR lease_until <= ?1)
    ORDER BY id LIMIT ?2)";

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
    /// is over, or else the oldest in the queue. It may be fewer than there are;
    /// when it is none, there was nothing to take. Returned oldest first.
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
        let limit = bounded(limit);
        self.0
            .write(op(name, Action::Execute), |h| async move {
                let sql = match h.backend() {
                    DbBackend::Postgres => &*CLAIM_POSTGRES,
                    _ => &*CLAIM_SQLITE,
                };
                // None that can be read is no empty queue: what stands behind
                // those that can't is taken too. It ends, because each look
                // takes some out of the queue.
                loop {
                    let now = h.now();
                    let values = vec![
                        worker.into(),
                        (now + lease).into(),
                        now.into(),
                        limit.into(),
                    ];
                    let taken = h.sql_returning::<executions::Entity>(sql, values).await?;
                    let none = taken.is_empty();
                    let readable = readable(taken);
                    if none || !readable.is_empty() {
                        return Ok(readable);
                    }
                }
            })
            .await
            .map(in_order)
    }

    /// Keeps an execution for longer: the lease runs from now.
    ///
    /// Fails with [`Error::LeaseLost`] when the worker doesn't hold it any
    /// more, or not since the lease ran out; with [`Error::NotFound`] and
    /// [`Error::Validation`].
    pub async fn extend(
        &self,
        id: ExecutionId,
        worker: &str,
        lease: Duration,
    ) -> Result<Execution, Error> {
        let lease = checked(worker, Some(lease), Check::default())?;
        self.0
            .write(op("extend", Action::Execute), |h| async move {
                let now = h.now();
                let mut update = held(id, worker);
                update
                    .value(executions::Column::LeaseUntil, now + lease)
                    .and_where(executions::COLUMN.lease_until.gt(now));
                update_as_holder(&h, id, worker, update).await
            })
            .await
    }

    /// Ends an execution and writes its result. Only its holder can, also after
    /// the lease ran out, as long as nobody else took it.
    ///
    /// Fails with [`Error::LeaseLost`] when the worker doesn't hold it any
    /// more: it was recovered, canceled, or finished before. Fails with
    /// [`Error::NotFound`] and [`Error::Validation`].
    pub async fn finish(
        &self,
        id: ExecutionId,
        worker: &str,
        outcome: Outcome,
    ) -> Result<Execution, Error> {
        let mut check = Check::default();
        check.document("data", outcome.data.as_ref());
        check.document("error", outcome.error.as_ref());
        checked(worker, None, check)?;
        let outcome = &outcome;
        self.0
            .write(op("finish", Action::Execute), |h| async move {
                let mut update = held(id, worker);
                update
                    .value(executions::Column::Status, outcome.status)
                    .value(executions::Column::FinishedAt, h.now())
                    .value(executions::Column::LeaseUntil, no_time());
                if let Some(data) = &outcome.data {
                    set_json(&mut update, executions::Column::Data, Some(data));
                }
                if let Some(error) = &outcome.error {
                    set_json(&mut update, executions::Column::Error, Some(error));
                }
                update_as_holder(&h, id, worker, update).await
            })
            .await
    }

    /// Lets an execution rest until a time, or without one until
    /// [`Executions::resume`]; the worker gives it up, and `data` replaces what
    /// it had when there is some. A time that is finer than a microsecond is
    /// rounded up.
    ///
    /// Fails like [`Executions::finish`].
    pub async fn wait(
        &self,
        id: ExecutionId,
        worker: &str,
        until: Option<DateTime<Utc>>,
        data: Option<Document>,
    ) -> Result<Execution, Error> {
        let mut check = Check::default();
        check.document("data", data.as_ref());
        if until.is_some_and(|until| !(1..=9999).contains(&until.year())) {
            check.refuse("until", "must be in the years from 1 to 9999");
        }
        let until = until.map(clamp_timestamp);
        checked(worker, None, check)?;
        let data = &data;
        self.0
            .write(op("wait", Action::Execute), |h| async move {
                let mut update = held(id, worker);
                update
                    .value(executions::Column::Status, ExecutionStatus::Waiting)
                    .value(executions::Column::WorkerId, Option::<String>::None)
                    .value(executions::Column::LeaseUntil, no_time())
                    .value(executions::Column::WaitUntil, until);
                if let Some(data) = data {
                    set_json(&mut update, executions::Column::Data, Some(data));
                }
                update_as_holder(&h, id, worker, update).await
            })
            .await
    }

    /// Queues an execution that waits, whatever it waits for.
    ///
    /// An event that comes before the worker has called [`Executions::wait`] is
    /// not kept: the error is for its sender, to try again.
    ///
    /// Fails with [`Error::State`] when it doesn't wait, and with
    /// [`Error::NotFound`].
    pub async fn resume(&self, id: ExecutionId) -> Result<Execution, Error> {
        let mut update = only(id);
        update
            .value(executions::Column::Status, ExecutionStatus::Queued)
            .value(executions::Column::WaitUntil, no_time())
            .and_where(executions::COLUMN.status.eq(ExecutionStatus::Waiting));
        let state = ("is not waiting", "only what waits can be resumed");
        self.by_anyone(run("resume"), id, update, state).await
    }

    /// Stops an execution that has not ended. Whoever works on it is told when
    /// extending or finishing.
    ///
    /// Fails with [`Error::State`] when it has ended, and with
    /// [`Error::NotFound`].
    pub async fn cancel(&self, id: ExecutionId) -> Result<Execution, Error> {
        let mut update = only(id);
        update
            .value(executions::Column::Status, ExecutionStatus::Canceled)
            .value(executions::Column::FinishedAt, self.0.now())
            .value(executions::Column::LeaseUntil, no_time())
            .value(executions::Column::WaitUntil, no_time())
            .and_where(executions::COLUMN.status.is_not_in(ENDED));
        let state = ("has ended", "there is nothing left to cancel");
        self.by_anyone(run("cancel"), id, update, state).await
    }

    async fn by_anyone(
        &self,
        op: Op,
        id: ExecutionId,
        update: UpdateStatement,
        (state, hint): (&'static str, &'static str),
    ) -> Result<Execution, Error> {
        let update = &update;
        self.0
            .write(op, |h| async move {
                let mut update = update.clone();
                update.cond_where(h.own_rows::<executions::Entity>());
                let changed = h.update_returning::<executions::Entity>(update);
                if let Some(execution) = changed.await?.pop() {
                    return Ok(execution);
                }
                let there = executions::Entity::find()
                    .filter(executions::COLUMN.id.eq(id))
                    .filter(h.own_rows::<executions::Entity>());
                if !h.exists(there).await? {
                    return Err(missing(id));
                }
                Err(Error::State {
                    what: "execution",
                    key: id.to_string(),
                    state,
                    hint,
                })
            })
            .await
    }

    /// Queues at most `limit` executions (and 1,000) whose workers let the
    /// lease run out, oldest first, and returns them. Of several who do this at
    /// once each gets others. One that this build can't read is queued as well, and
    /// logged as an error instead of returned.
    ///
    /// Outside of a transaction it also looks for executions of deleted workflows that
    /// workers pass over, and puts them aside; deleting a workflow does so too, unless it
    /// was done with SQL or was interrupted.
    pub async fn requeue_expired(&self, limit: u64) -> Result<Vec<Execution>, Error> {
        let limit = bounded(limit);
        let recovered = self
            .0
            .write(op("requeue_expired", Action::Execute), |h| async move {
                let sql = match h.backend() {
                    DbBackend::Postgres => RECOVER_POSTGRES,
                    _ => RECOVER_SQLITE,
                };
                let values = vec![h.now().into(), limit.into()];
                let recovered = h.sql_returning::<executions::Entity>(sql, values);
                Ok(readable(recovered.await?))
            })
            .await
            .map(in_order)?;
        suspend::sweep(&self.0, op("requeue_expired", Action::Execute)).await?;
        Ok(recovered)
    }
}

fn bounded(limit: u64) -> i64 {
    i64::try_from(limit.min(MAX_PAGE)).unwrap_or(i64::MAX)
}

/// `RETURNING` promises no order.
fn in_order(mut executions: Vec<Execution>) -> Vec<Execution> {
    executions.sort_by_key(|execution| execution.id);
    executions
}

fn no_time() -> Option<DateTime<Utc>> {
    None
}

fn checked(worker: &str, lease: Option<Duration>, mut check: Check) -> Result<TimeDelta, Error> {
    check.name("worker", worker, 64);
    if lease.is_some_and(|lease| lease < Duration::from_micros(1) || lease > LONGEST_LEASE) {
        check.refuse("lease", "must be more than nothing and at most a year");
    }
    check.done()?;
    // Columns have a resolution of microseconds.
    let micros = lease.and_then(|lease| i64::try_from(lease.as_micros()).ok());
    Ok(TimeDelta::microseconds(micros.unwrap_or_default()))
}

fn only(id: ExecutionId) -> UpdateStatement {
    Query::update()
        .table(executions::Entity)
        .and_where(executions::COLUMN.id.eq(id))
        .take()
}

/// The execution, if this worker holds it.
fn held(id: ExecutionId, worker: &str) -> UpdateStatement {
    let mine: SimpleExpr = executions::COLUMN.worker_id.eq(worker);
    only(id)
        .and_where(executions::COLUMN.status.eq(ExecutionStatus::Running))
        .and_where(Expr::expr(mine))
        .take()
}

async fn update_as_holder(
    h: &Context,
    id: ExecutionId,
    worker: &str,
    update: UpdateStatement,
) -> Result<Execution, Error> {
    if let Some(execution) = h
        .update_returning::<executions::Entity>(update)
        .await?
        .pop()
    {
        return Ok(execution);
    }
    let there = executions::Entity::find().filter(executions::COLUMN.id.eq(id));
    if h.exists(there).await? {
        Err(Error::LeaseLost {
            execution: id,
            worker: worker.to_owned(),
        })
    } else {
        Err(missing(id))
    }
}
