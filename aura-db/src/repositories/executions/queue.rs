//! Takes executions out of the queue.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aura_orm::page::MAX_PAGE;
use aura_orm::{CommitHook, TypedQuery};
use chrono::TimeDelta;
use entity::Action;
use sea_orm::{DbBackend, Statement, Value};
use serde::Serialize;

use super::front::values;
use super::lease::checked;
use super::sql::{self, LIMITED_SQLITE, LOOK_SQLITE, MAINTAIN_SQLITE, MOST_DUE, MOST_LATE, Scope};
use super::taking::Taking;
use super::turn::{Range, last_of};
use super::{Execution, Executions, Worker, limits, limits_claim, op};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::unbuilt;

/// How often a claim looks, at most. It ends also where others queue and it parks without an
/// end, and the next goes on from there.
const MOST_ROUNDS: u32 = 1_000;

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
    /// [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) together, or 16 where there are
    /// [limits](Executions::set_concurrency_limit); when it is none, there was
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
        let (op, worker) = (op(name, Action::Execute), &worker);
        let scope = if self.0.in_transaction() {
            Scope::Own(limit)
        } else {
            Scope::All
        };
        // Where there are limits, one transaction takes all that is taken, also when the last
        // of them is removed meanwhile.
        let at_first = self.0.turns().has_limits();
        let most = Taking::in_one_statement(self.0.backend());
        let in_one_statement = limit.min(MAX_PAGE) <= most || at_first;
        let now = self.0.now();
        let needs_sweep = limit > 0 && !self.0.is_restricted() && self.0.turns().needs_sweep(now);
        if needs_sweep && limits::sweep(&self.0, op).await? {
            self.0.turns().swept(now);
        }
        let mut taken = self
            .taking(op, in_one_statement, |h| async move {
                let turns = h.turns();
                if limit > 0 && turns.needs_maintenance(h.now()) {
                    maintain(&h, op, worker, scope).await?;
                }
                // It may have missed what others do meanwhile; and none that can be read is no
                // empty queue: what stands behind those that can't is taken too. It ends,
                // because each look takes some out of the way.
                let mut found = if limit == 0 {
                    Found::Nothing
                } else {
                    Found::More
                };
                for _ in 0..MOST_ROUNDS {
                    let ranges = turns.ranges(&worker.queues);
                    let has_limits = at_first || turns.has_limits();
                    let mut taking = Taking::new(h.backend(), limit);
                    // Where there are limits it must not pass over the first that has one:
                    // others would always come before it.
                    if limit <= 1 || !has_limits {
                        claim(&h, worker, lease, limit, &ranges, &mut taking).await?;
                    }
                    let has_parked = has_limits
                        && limits_claim::claim(&h, op, worker, lease, &ranges, &mut taking).await?;
                    let (last, turns) = (last_of(&ranges, &taking.taken), turns.clone());
                    if !last.is_empty() {
                        let advance: CommitHook = Arc::new(move |_| turns.taken(last.clone()));
                        h.after_commit(&advance, &BTreeSet::new());
                    }
                    if !taking.taken.is_empty() {
                        return Ok(taking.taken);
                    }
                    // What was let go and is parked again would be let go again.
                    let is_settled = match found {
                        Found::Nothing => !has_parked,
                        Found::Freed => has_parked,
                        Found::More => false,
                    };
                    if taking.count == 0 && is_settled {
                        break;
                    }
                    if !has_parked {
                        found = maintain(&h, op, worker, scope).await?;
                    }
                }
                Ok(Vec::new())
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
    taking: &mut Taking,
) -> Result<(), Error> {
    let now = h.shared_now();
    let is_postgres = h.backend() == DbBackend::Postgres;
    let until: Value = if is_postgres {
        lease.num_microseconds().into()
    } else {
        now.map(|now| now + lease).into()
    };
    let several = limit > 1;
    while let Some(ask) = taking.ask() {
        let mut sql = sql::claim(h.backend(), several, ranges.len());
        let name = worker.name.as_str();
        let mut given = vec![name.into(), until.clone(), now.into()];
        given.extend(taking.bounds(several));
        if several && is_postgres {
            sql = sql.replace("{limit}", &ask.to_string()).into();
        } else if several {
            given.push(ask.into());
        }
        given.extend(values(ranges));
        let kind = Taking::claim_kind(several);
        if taking.take(h, kind, &sql, given).await? < ask {
            break;
        }
    }
    Ok(())
}

/// What there may be after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// What a limit has let go, and another may not.
    Freed,
    More,
}

/// What a look after the queues did.
#[derive(Debug, Default)]
struct Done {
    late: u64,
    due: u64,
    parked: u64,
    has_limits: bool,
    /// Whether something waits for a limit.
    has_held: bool,
    /// How many were queued, by their queue.
    queued: BTreeMap<String, u64>,
}

impl Done {
    fn add(&mut self, what: &str, queue: String, count: u64) {
        match what {
            "due" => self.due += count,
            "parked" => self.parked += count,
            "limited" => self.has_limits = true,
            "held" => self.has_held = true,
            _ => self.late += count,
        }
        if ["due", "queued"].contains(&what) {
            *self.queued.entry(queue).or_default() += count;
        }
    }
}

/// Puts back what lost its worker, queues what is due, and puts aside what stands in this
/// worker's way. Returns what there may be for it now. What is left of many is
/// found by the next look, which then comes at once.
async fn maintain(h: &Context, op: Op, worker: &Worker, scope: Scope) -> Result<Found, Error> {
    let at = h.now();
    let done = if h.backend() == DbBackend::Postgres {
        maintain_on_postgres(h, worker, scope).await?
    } else {
        let name = "maintain";
        h.atomic(Op { name, ..op }, |h| async move {
            maintain_on_sqlite(&h, worker, scope).await
        })
        .await?
    };
    let is_full = done.late >= MOST_LATE || done.due >= MOST_DUE || done.parked >= MOST_DUE;
    if scope == Scope::All && !is_full {
        h.turns().maintained(at);
    }
    let queued = done.queued.iter();
    let each = queued.flat_map(|(queue, count)| (0..*count).map(move |_| queue.as_str()));
    h.notify_queued(each);
    // In a transaction it would keep all who are under these limits.
    let freed =
        done.has_held && scope == Scope::All && limits::maintain(h, op, &worker.queues).await?;
    let is_own = |queue: &String| done.queued.contains_key(queue);
    let is_news = h.turns().set_has_limits(done.has_limits);
    Ok(
        if done.parked > 0 || is_news || worker.queues.iter().any(is_own) {
            Found::More
        } else if freed {
            Found::Freed
        } else {
            Found::Nothing
        },
    )
}

async fn maintain_on_postgres(h: &Context, worker: &Worker, scope: Scope) -> Result<Done, Error> {
    let ranges = h.turns().ranges(&worker.queues);
    let mut given: Vec<Value> = vec![h.shared_now().into()];
    if let Scope::Own(_) = scope {
        given.push(as_json(&worker.queues)?.into());
    }
    given.extend(values(&ranges));
    let sql = sql::maintain_postgres(scope, ranges.len());
    let statement = Statement::from_sql_and_values(h.backend(), sql, given);
    let rows = h.fetch_all(TypedQuery::<(String, String, i64)>::sql(statement));
    let mut done = Done::default();
    for (what, queue, count) in rows.await? {
        done.add(&what, queue, count.unsigned_abs());
    }
    Ok(done)
}

async fn maintain_on_sqlite(h: &Context, worker: &Worker, scope: Scope) -> Result<Done, Error> {
    let now: Value = h.shared_now().into();
    let look = [now.clone()];
    let look = Statement::from_sql_and_values(h.backend(), LOOK_SQLITE.as_str(), look);
    let found = h.fetch_all(TypedQuery::<bool>::sql(look)).await?;
    let mut done = Done::default();
    if found.contains(&true) {
        let mut given = vec![now];
        let statements = match scope {
            Scope::All => Cow::Borrowed(&*MAINTAIN_SQLITE),
            Scope::Own(_) => {
                given.push(as_json(&worker.queues)?.into());
                Cow::Owned(sql::maintain_sqlite(scope))
            }
        };
        let [trim, note, recover, promote] = &*statements;
        h.sql(trim.clone(), given.clone()).await?;
        h.sql(note.clone(), given.clone()).await?;
        for (sql, is_due) in [(recover, false), (promote, true)] {
            let statement = Statement::from_sql_and_values(h.backend(), sql, given.clone());
            let rows = h.fetch_all(TypedQuery::<(String, String)>::sql(statement));
            for (status, queue) in rows.await? {
                done.add(if is_due { "due" } else { &status }, queue, 1);
            }
        }
    }
    let limited = Statement::from_string(h.backend(), LIMITED_SQLITE);
    for found in h
        .fetch_all(TypedQuery::<(bool, bool)>::sql(limited))
        .await?
    {
        (done.has_limits, done.has_held) = found;
    }
    let ranges = h.turns().ranges(&worker.queues);
    let park = sql::park_sqlite(ranges.len());
    done.parked = h.sql(park, values(&ranges).collect()).await?;
    Ok(done)
}

pub(super) fn as_json(list: &(impl Serialize + ?Sized)) -> Result<String, Error> {
    Ok(serde_json::to_string(list).map_err(unbuilt)?)
}
