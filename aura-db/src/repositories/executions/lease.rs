//! Who works on an execution, and until when.

use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use entity::{Action, Document, ExecutionId, ExecutionStatus, executions};
use sea_orm::sea_query::{Expr, Query, SimpleExpr, UpdateStatement};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{ENDED, Execution, Executions, missing, op, run};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::{clamp_timestamp, set_json};
use crate::validate::Check;

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

impl Executions {
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
}

fn no_time() -> Option<DateTime<Utc>> {
    None
}

pub(super) fn checked(
    worker: &str,
    lease: Option<Duration>,
    mut check: Check,
) -> Result<TimeDelta, Error> {
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
