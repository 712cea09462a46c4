//! Who works on an execution, and until when.

use std::time::Duration;

use aura_orm::{CachedSql, ModelOf, TypedQuery};
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use entity::{Action, Document, ExecutionId, ExecutionLimitId, ExecutionStatus, executions};
use sea_orm::sea_query::{CaseStatement, Expr, Query, SimpleExpr, UpdateStatement};
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, ExprTrait, QueryFilter, Value};

use super::attempts::note;
use super::clock::{after, ended_at, moment};
use super::outcome::{End, pause};
use super::{Claim, Execution, Executions, Outcome, limits, missing, op};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::{clamp_timestamp, set_json};
use crate::validate::Check;

/// The longest lease. Who works longer extends it. A later end is one of a clock that was
/// wrong, and counts as passed.
pub(super) const LONGEST_LEASE: Duration = Duration::from_hours(24);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_hours(366 * 24);

impl Executions {
    /// Keeps an execution for longer: the lease runs from now.
    ///
    /// Fails with [`Error::LeaseLost`] when the claim doesn't hold it any
    /// more, or not since the lease ran out; with [`Error::NotFound`] and
    /// [`Error::Validation`].
    pub async fn extend(
        &self,
        claim: impl Into<Claim> + Send,
        lease: Duration,
    ) -> Result<Execution, Error> {
        let claim = &claim.into();
        let lease = checked(&claim.worker, Some(lease), Check::default())?;
        self.0
            .write(op("extend", Action::Execute), |h| async move {
                let (now, longest) = (moment(h.shared_now()), micros(LONGEST_LEASE));
                let mut update = held(claim);
                update
                    .value(executions::Column::LeaseUntil, after(&h, lease))
                    .and_where(Expr::col(executions::Column::LeaseUntil).gt(now))
                    .and_where(Expr::col(executions::Column::LeaseUntil).lte(after(&h, longest)));
                update_as_holder(&h, claim, update).await
            })
            .await
    }

    /// Ends an attempt and writes its result. Only its holder can, also after
    /// the lease ran out, as long as no other took it. A result that can't be
    /// stored (U+0000, more than 16 MiB) ends the execution with an error that says so
    /// (`"code": "result_not_storable"`), and the beginning of its text.
    ///
    /// Fails with [`Error::LeaseLost`] when the claim doesn't hold it any
    /// more: it was recovered, canceled, or finished before. Fails with
    /// [`Error::NotFound`] and [`Error::Validation`].
    pub async fn finish(
        &self,
        claim: impl Into<Claim> + Send,
        outcome: Outcome,
    ) -> Result<Execution, Error> {
        let claim = &claim.into();
        let mut check = Check::default();
        if let End::Retryable(Some(pause)) = outcome.end
            && pause > LONGEST_PAUSE
        {
            check.refuse("after", "must be at most a year");
        }
        checked(&claim.worker, None, check)?;
        let outcome = &outcome.storable();
        let pause = match outcome.end {
            End::Retryable(pause_set) => {
                pause_set.unwrap_or_else(|| pause(claim.attempt, rand::random()))
            }
            End::Success | End::Error => Duration::ZERO,
        };
        let op = op("finish", Action::Execute);
        let run = |h: Context| async move {
            let End::Retryable(_) = outcome.end else {
                return end(&h, claim, outcome).await;
            };
            let mut update = held(claim);
            update.value(executions::Column::LeaseUntil, no_time());
            retry_or_bury(&h, &mut update, micros(pause));
            outcome.set_documents(&mut update);
            let ended = update_as_holder(&h, claim, update).await?;
            if let Some(error) = &outcome.error {
                note(&h, &ended, &claim.worker, error).await?;
            }
            Ok(ended)
        };
        let ended = match outcome.end {
            // What is kept of the attempt goes with its end.
            End::Retryable(_) => self.0.atomic(op, run).await?,
            End::Success | End::Error => self.0.write(op, run).await?,
        };
        limits::unpark(&self.0, op, &ended).await?;
        Ok(ended)
    }

    /// Lets an execution rest until a time, or without one until
    /// [`Executions::resume`]; the worker gives it up, and `data` replaces what
    /// it had when there is some. It doesn't count as an attempt. A time that is finer than a
    /// microsecond is rounded up.
    ///
    /// Fails like [`Executions::finish`].
    pub async fn wait(
        &self,
        claim: impl Into<Claim> + Send,
        until: Option<DateTime<Utc>>,
        data: Option<Document>,
    ) -> Result<Execution, Error> {
        let claim = &claim.into();
        let mut check = Check::default();
        check.document("data", data.as_ref());
        if until.is_some_and(|until| !(1..=9999).contains(&until.year())) {
            check.refuse("until", "must be in the years from 1 to 9999");
        }
        let until = until.map(clamp_timestamp);
        checked(&claim.worker, None, check)?;
        let data = &data;
        let op = op("wait", Action::Execute);
        let run = |h: Context| async move {
            let mut update = given_up(claim, ExecutionStatus::Waiting);
            update.value(executions::Column::WaitUntil, until);
            if let Some(data) = data {
                set_json(&mut update, executions::Column::Data, Some(data));
            }
            update_as_holder(&h, claim, update).await
        };
        let waits = self.0.write(op, run).await?;
        limits::unpark(&self.0, op, &waits).await?;
        Ok(waits)
    }

    /// Gives an execution back to the queue, as a worker does that stops. It doesn't count as
    /// an attempt.
    ///
    /// Fails like [`Executions::finish`].
    pub async fn release(&self, claim: impl Into<Claim> + Send) -> Result<Execution, Error> {
        let claim = &claim.into();
        checked(&claim.worker, None, Check::default())?;
        let op = op("release", Action::Execute);
        let run = |h: Context| async move {
            let mut update = given_up(claim, ExecutionStatus::Queued);
            update.value(executions::Column::LimitId, no_limit());
            let queued = update_as_holder(&h, claim, update).await?;
            h.notify_queued([queued.queue.as_str()]);
            Ok(queued)
        };
        self.0.write(op, run).await
    }
}

/// Has what failed wait for its next attempt, unless this was the last.
fn retry_or_bury(h: &Context, update: &mut UpdateStatement, pause: TimeDelta) {
    use executions::Column;
    let is_left = || Expr::col(Column::Attempts).lt(Expr::col(Column::MaxAttempts));
    let either = |left: SimpleExpr, last: SimpleExpr| -> SimpleExpr {
        CaseStatement::new()
            .case(is_left(), left)
            .finally(last)
            .into()
    };
    let no_time = || Expr::val(no_time());
    let status = either(
        Expr::val(ExecutionStatus::Waiting),
        Expr::val(ExecutionStatus::Dead),
    );
    let worker = either(
        Expr::val(Option::<String>::None),
        Expr::col(Column::WorkerId),
    );
    update
        .value(Column::Status, status)
        .value(Column::WorkerId, worker)
        .value(Column::WaitUntil, either(after(h, pause), no_time()))
        .value(
            Column::FinishedAt,
            either(no_time(), ended_at(h.backend(), h.shared_now())),
        );
}

pub(super) fn no_time() -> Option<DateTime<Utc>> {
    None
}

/// What is queued waits for no limit yet.
pub(super) fn no_limit() -> Option<ExecutionLimitId> {
    None
}

/// Returns a time to the microsecond, as columns have it.
pub(super) fn micros(time: Duration) -> TimeDelta {
    TimeDelta::microseconds(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn checked(
    worker: &str,
    lease: Option<Duration>,
    mut check: Check,
) -> Result<TimeDelta, Error> {
    check.name("worker", worker, 64);
    if lease.is_some_and(|lease| lease < Duration::from_micros(1) || lease > LONGEST_LEASE) {
        check.refuse("lease", "must be more than nothing and at most 24 hours");
    }
    check.done()?;
    Ok(micros(lease.unwrap_or_default()))
}

pub(super) fn only(id: ExecutionId) -> UpdateStatement {
    Query::update()
        .table(executions::Entity)
        .and_where(executions::COLUMN.id.eq(id))
        .take()
}

/// The execution, if this claim holds it.
fn held(claim: &Claim) -> UpdateStatement {
    let mine: SimpleExpr = executions::COLUMN.worker_id.eq(claim.worker.as_str());
    only(claim.execution)
        .and_where(executions::COLUMN.status.eq(ExecutionStatus::Running))
        .and_where(executions::COLUMN.claim_no.eq(claim.number))
        .and_where(Expr::expr(mine))
        .take()
}

/// The execution, if this claim holds it, without its worker and this attempt.
fn given_up(claim: &Claim, status: ExecutionStatus) -> UpdateStatement {
    use executions::Column;
    held(claim)
        .value(Column::Status, status)
        .value(Column::WorkerId, Option::<String>::None)
        .value(Column::LeaseUntil, no_time())
        .value(
            Column::Attempts,
            CaseStatement::new()
                .case(
                    executions::COLUMN.attempts.gt(0),
                    Expr::col(Column::Attempts).sub(1),
                )
                .finally(0),
        )
        .take()
}

/// Ends an execution for good. Its statement is the same but for its values, which documents
/// there are, and whether a test has set the clock.
async fn end(h: &Context, claim: &Claim, outcome: &Outcome) -> Result<Execution, Error> {
    static END: [CachedSql; 8] = [const { CachedSql::new() }; 8];
    let now = h.shared_now();
    let update = || {
        let mut update = held(claim);
        update
            .value(executions::Column::LeaseUntil, no_time())
            .value(executions::Column::Status, outcome.status())
            .value(executions::Column::FinishedAt, ended_at(h.backend(), now));
        outcome.set_documents(&mut update);
        Ok(TypedQuery::<ModelOf<executions::Entity>>::update(update))
    };
    let nows = match h.backend() {
        DbBackend::Postgres => 1,
        _ => 2,
    };
    let mut values = vec![no_time().into(), outcome.status().into()];
    values.extend(now.into_iter().cycle().take(nows).map(Value::from));
    let documents = [&outcome.data, &outcome.error];
    values.extend(
        documents
            .into_iter()
            .flatten()
            .map(|json| json.clone().into()),
    );
    values.push(claim.execution.into());
    values.push(ExecutionStatus::Running.into());
    values.push(claim.number.into());
    values.push(claim.worker.as_str().into());
    let parts = [
        outcome.data.is_some(),
        outcome.error.is_some(),
        now.is_some(),
    ];
    let which = parts
        .iter()
        .fold(0, |bits, part| bits << 1 | usize::from(*part));
    let ended = h.fetch_optional(END[which].with(values, update)).await?;
    of_holder(h, claim, ended).await
}

async fn update_as_holder(
    h: &Context,
    claim: &Claim,
    update: UpdateStatement,
) -> Result<Execution, Error> {
    let updated = h.update_returning::<executions::Entity>(update).await?;
    of_holder(h, claim, updated.into_iter().next()).await
}

/// Returns what its holder has changed, or why it didn't.
async fn of_holder(
    h: &Context,
    claim: &Claim,
    changed: Option<Execution>,
) -> Result<Execution, Error> {
    if let Some(execution) = changed {
        return Ok(execution);
    }
    let there = executions::Entity::find().filter(executions::COLUMN.id.eq(claim.execution));
    if h.exists(there).await? {
        Err(Error::LeaseLost {
            execution: claim.execution,
            worker: claim.worker.clone(),
        })
    } else {
        Err(missing(claim.execution))
    }
}
