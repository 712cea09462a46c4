//! Takes executions out of the queue, and puts back those whose lease ran out.

use std::time::Duration;

use aura_orm::TypedQuery;
use aura_orm::page::{MAX_PAGE, MAX_PAGE_BYTES};
use chrono::{DateTime, Utc};
use entity::{Action, executions};
use sea_orm::{DbBackend, Statement, Value};

use super::lease::{LONGEST_LEASE, checked, micros};
use super::sql::{
    BURY_SQLITE, CLAIM_MANY_POSTGRES, CLAIM_MANY_SQLITE, CLAIM_POSTGRES, CLAIM_SQLITE, LATE_SQLITE,
    RECOVER_POSTGRES, RECOVER_SQLITE,
};
use super::{Execution, Executions, op, suspend};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::readable;
use crate::validate::Check;

/// How many executions are looked at first on PostgreSQL, when several are taken: those that
/// don't fit are locked for as long as those that do, and their documents are decompressed.
const FIRST_LOOK: u64 = 16;

impl Executions {
    /// Takes an execution for this worker, until the lease runs out: the one
    /// whose waiting has been over for longest, or else one whose worker let its lease run
    /// out, or else the oldest in the queue. `None` when there is none. Each goes to one
    /// worker, and this counts as an attempt. What ran out with its last attempt is dead, and
    /// noted so: at most 100 at a time.
    ///
    /// One of a mode that this build doesn't know is left to a newer one. One that
    /// this build can't read is logged as an error (target `aura_db::unreadable`)
    /// and passed over; it stays taken until its lease runs out, and after as many leases as it
    /// has attempts it is dead: [`retry`](Executions::retry) it with a build that can.
    ///
    /// Fails with [`Error::Validation`] when the worker has no name, or one of
    /// more than 64 characters, or the lease is empty or longer than 24 hours.
    pub async fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Execution>, Error> {
        Ok(self.claim_batch("claim", worker, lease, 1).await?.pop())
    }

    /// Takes up to `limit` executions at once (and 1,000): those whose waiting
    /// is over, or else those whose lease ran out, or else the oldest in the queue. It may be
    /// fewer than there are, as where their documents would have more than [`MAX_PAGE_BYTES`]
    /// together; when it is none, there was nothing to take. Returned oldest first.
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
