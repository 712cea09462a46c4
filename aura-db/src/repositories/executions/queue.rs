//! Takes executions out of the queue.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::time::Duration;

use aura_orm::TypedQuery;
use aura_orm::page::MAX_PAGE;
use chrono::TimeDelta;
use entity::Action;
use sea_orm::{DbBackend, Statement, Value};

use super::lease::checked;
use super::sql::{
    CLAIM_MANY_POSTGRES, CLAIM_MANY_SQLITE, CLAIM_POSTGRES, CLAIM_SQLITE, LOOK_SQLITE,
    MAINTAIN_POSTGRES, MAINTAIN_SQLITE, MOST_DUE, MOST_LATE, PARK_SQLITE,
};
use super::taking::Taking;
use super::turn::Range;
use super::{Execution, Executions, Worker, op};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::unbuilt;

impl Executions {
    /// Takes an execution for this worker, until the lease runs out. `None` when there is
    /// none. Each goes to one worker, and this counts as an attempt.
    ///
    /// It is one of the first of the worker's queues that has any. Owners of workflows take
    /// turns, whatever others have queued; of an owner's the highest priority comes first, and
    /// the oldest of that. What has waited until its time, and what has lost its worker, takes
    /// its place in the queue again; what lost its worker in its last attempt is
    /// dead. Both are looked for each second, and whenever there is nothing else.
    ///
    /// One of a mode that this build doesn't know is left to a newer one. One that
    /// this build can't read is logged as an error (target `aura_db::unreadable`)
    /// and passed over; it stays taken until its lease runs out, and after as many leases as it
    /// has attempts it is dead: [`retry`](Executions::retry) it with a build that can.
    ///
    /// Fails with [`Error::Validation`] when the worker has no name, or one of
    /// more than 64 characters, or no queue or more than 16, or the lease is empty or longer
    /// than 24 hours.
    pub async fn claim(
        &self,
        worker: impl Into<Worker> + Send,
        lease: Duration,
    ) -> Result<Option<Execution>, Error> {
        let taken = self.claim_batch("claim", worker.into(), lease, 1);
        Ok(taken.await?.pop())
    }

    /// Takes up to `limit` executions at once (and 1,000), as [`Executions::claim`] takes one.
    /// It may be fewer than there are, as where their documents would have more than
    /// [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) together; when it is none, there was
    /// nothing to take. Returned with the highest priority first, and then the oldest.
    ///
    /// Fails like [`Executions::claim`].
    pub async fn claim_many(
        &self,
        worker: impl Into<Worker> + Send,
        lease: Duration,
        limit: u64,
    ) -> Result<Vec<Execution>, Error> {
        self.claim_batch("claim_many", worker.into(), lease, limit)
            .await
    }

    async fn claim_batch(
        &self,
        name: &'static str,
        worker: Worker,
        lease: Duration,
        limit: u64,
    ) -> Result<Vec<Execution>, Error> {
        let lease = checked(&worker.name, Some(lease), worker.check())?;
        // What a transaction did may be rolled back, and is not remembered.
        let (worker, is_alone) = (&worker, !self.0.in_transaction());
        let mut taken = self
            .taking(op(name, Action::Execute), limit, |h| async move {
                let turns = h.turns();
                if is_alone && limit > 0 && turns.needs_maintenance(h.now()) {
                    maintain(&h, &turns.ranges(&worker.queues), is_alone).await?;
                }
                // None that can be read, or that isn't of a deleted workflow, is no empty
                // queue: what stands behind those is taken too. It ends, because each look
                // takes some out of the queue.
                loop {
                    let ranges = turns.ranges(&worker.queues);
                    let taking = claim(&h, worker, lease, limit, &ranges).await?;
                    if is_alone {
                        turns.taken(&ranges, &taking.taken);
                    }
                    let is_short = taking.count < limit.min(MAX_PAGE);
                    let has_changed = is_short && maintain(&h, &ranges, is_alone).await?;
                    if !taking.taken.is_empty() || taking.count == 0 && !has_changed {
                        return Ok(taking.taken);
                    }
                }
            })
            .await?;
        // `RETURNING` promises no order.
        taken.sort_by_key(|execution| (Reverse(execution.priority), execution.id));
        Ok(taken)
    }
}

async fn claim(
    h: &Context,
    worker: &Worker,
    lease: TimeDelta,
    limit: u64,
    ranges: &[Range],
) -> Result<Taking, Error> {
    let now = h.shared_now();
    let name: Value = worker.name.as_str().into();
    let several = limit > 1;
    let mut taking = Taking::new(h.backend(), limit);
    if h.backend() == DbBackend::Postgres {
        let ranges = as_json(ranges)?;
        while let Some(ask) = taking.ask() {
            let sql = if several {
                Cow::Owned(CLAIM_MANY_POSTGRES.replace("{limit}", &ask.to_string()))
            } else {
                Cow::Borrowed(CLAIM_POSTGRES.as_str())
            };
            let micros = lease.num_microseconds();
            let mut values = vec![name.clone(), micros.into(), now.into()];
            values.push(ranges.as_str().into());
            values.extend(taking.bounds(several));
            if taking.take(h, &sql, values).await? < ask {
                break;
            }
        }
        return Ok(taking);
    }
    let sql: &str = if several {
        &CLAIM_MANY_SQLITE
    } else {
        &CLAIM_SQLITE
    };
    for range in ranges {
        let Some(ask) = taking.ask() else { break };
        let until = now.map(|now| now + lease);
        let mut values = vec![name.clone(), until.into(), now.into(), ask.into()];
        values.extend(of_range(range));
        values.extend(taking.bounds(several));
        taking.take(h, sql, values).await?;
    }
    Ok(taking)
}

/// Puts back what lost its worker, queues what is due, and puts aside what stands in the way of
/// these ranges. Returns whether it found any. What is left of many is found by the next look,
/// which then comes at once.
async fn maintain(h: &Context, ranges: &[Range], is_alone: bool) -> Result<bool, Error> {
    let (now, at) = (h.shared_now(), h.now());
    let [late, due, parked] = if h.backend() == DbBackend::Postgres {
        let values = [Value::from(now), as_json(ranges)?.into()];
        let sql = &**MAINTAIN_POSTGRES;
        let counts = Statement::from_sql_and_values(h.backend(), sql, values);
        let counts = h.fetch_all(TypedQuery::<(i64, i64, i64)>::sql(counts));
        let counts = counts.await?.pop().unwrap_or_default();
        [counts.0, counts.1, counts.2].map(i64::unsigned_abs)
    } else {
        maintain_sqlite(h, now.unwrap_or(at).into(), ranges).await?
    };
    if is_alone && late < MOST_LATE && due < MOST_DUE && parked < MOST_DUE {
        h.turns().maintained(at);
    }
    // Its caller takes one of them, if it can.
    let others = (late + due).saturating_sub(1);
    h.notify_found(i64::try_from(others).unwrap_or(0));
    Ok(late + due + parked > 0)
}

async fn maintain_sqlite(h: &Context, now: Value, ranges: &[Range]) -> Result<[u64; 3], Error> {
    let values = vec![now];
    let look = Statement::from_sql_and_values(h.backend(), &**LOOK_SQLITE, values.clone());
    let found = h.fetch_all(TypedQuery::<bool>::sql(look)).await?;
    let (mut late, mut due, mut parked) = (0, 0, 0);
    if found.contains(&true) {
        let [trim, note, recover, promote] = &*MAINTAIN_SQLITE;
        h.sql(trim.as_str(), values.clone()).await?;
        h.sql(note.as_str(), values.clone()).await?;
        late = h.sql(recover.as_str(), values.clone()).await?;
        due = h.sql(promote.as_str(), values).await?;
    }
    for range in ranges {
        parked += h.sql(&**PARK_SQLITE, of_range(range).to_vec()).await?;
    }
    Ok([late, due, parked])
}

fn of_range(range: &Range) -> [Value; 3] {
    [
        range.queue.as_str().into(),
        range.low.into(),
        range.high.into(),
    ]
}

fn as_json(ranges: &[Range]) -> Result<String, Error> {
    Ok(serde_json::to_string(ranges).map_err(unbuilt)?)
}
