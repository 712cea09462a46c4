//! Claims of what has a limit.
//!
//! What has no limit is claimed by one statement. What has one is claimed by a transaction
//! that finds it, locks the limits of what it found, and counts what runs only then, in
//! a statement that sees what those before it have committed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use aura_orm::TypedQuery;
use chrono::TimeDelta;
use entity::{UserId, WorkflowId};
use sea_orm::{DbBackend, Statement, Value};

use super::Worker;
use super::front::values;
use super::limits::{Limit, LimitOf, find, keys, learn};
use super::limits_sql as sql;
use super::queue::as_json;
use super::taking::Taking;
use super::turn::Range;
use crate::context::{Context, Op};
use crate::error::Error;

/// The most executions that one claim takes where there are limits: all that it looks at are
/// locked until its end.
const MOST_AT_ONCE: i64 = 16;

/// What may be claimed, if the limits leave room for it.
struct Candidate {
    id: i64,
    of: [LimitOf; 2],
}

/// Takes what the limits leave room for, and parks what they don't. Returns whether something
/// was parked.
pub(super) async fn claim(
    h: &Context,
    op: Op,
    worker: &Worker,
    lease: TimeDelta,
    ranges: &[Range],
    taking: &mut Taking,
) -> Result<bool, Error> {
    let Some(ask) = taking.ask().map(|ask| ask.min(MOST_AT_ONCE)) else {
        return Ok(false);
    };
    let op = Op {
        name: "claim_limited",
        ..op
    };
    let rest = &taking.rest();
    let run = |h: Context| async move {
        let mut taking = rest.rest();
        let (candidates, mut limits) = look(&h, ranges, ask).await?;
        learn(
            &h,
            limits.values().map(|limit| (limit.of, limit.id)).collect(),
        );
        let mut fitting = Vec::new();
        let mut full = BTreeMap::<LimitOf, BTreeSet<LimitOf>>::new();
        for candidate in candidates {
            let has_room = |of| limits.get(of).is_none_or(|it| it.running < it.max_running);
            if let Some(of) = candidate.of.iter().find(|of| !has_room(of)) {
                let others = candidate.of.iter().filter(|other| *other != of);
                full.entry(*of).or_default().extend(others);
                continue;
            }
            for of in candidate.of {
                if let Some(limit) = limits.get_mut(&of) {
                    limit.running += 1;
                }
            }
            fitting.push(candidate.id);
        }
        if !fitting.is_empty() {
            take(&h, worker, lease, &fitting, &mut taking).await?;
        }
        if taking.count < fitting.len() as u64 {
            // Those that were too large leave their room to others.
            full.clear();
        }
        let mut parked = Vec::new();
        for (of, others) in full {
            let Some(limit) = limits.get(&of) else {
                continue;
            };
            let mut count = park(&h, ranges, limit).await?;
            for other in others.iter().filter_map(|other| limits.get(other)) {
                count += follow(&h, limit, other).await?;
            }
            if count > 0 {
                parked.push(limit.id);
            }
        }
        if !parked.is_empty() {
            let mark = sql::by_backend(h.backend(), sql::MARK);
            h.sql(mark.into_owned(), vec![as_json(&parked)?.into()])
                .await?;
        }
        Ok((taking, !parked.is_empty()))
    };
    let (taken, has_parked) = h.atomic(op, run).await?;
    taking.add(taken);
    Ok(has_parked)
}

/// Finds what is next, and locks it and the limits that it is under.
async fn look(
    h: &Context,
    ranges: &[Range],
    ask: i64,
) -> Result<(Vec<Candidate>, HashMap<LimitOf, Limit>), Error> {
    type Row = (i64, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    let (mut rows, mut locked) = (Vec::new(), Vec::new());
    let look = sql::look(h.backend(), ranges.len()).replace("{limit}", &ask.to_string());
    let look = Statement::from_sql_and_values(h.backend(), look, values(ranges));
    for row in h.fetch_all(TypedQuery::<Row>::sql(look)).await? {
        match row {
            (id, Some(workflow), Some(owner), priority, nth) => {
                rows.push((nth, owner, Reverse(priority), id, workflow));
            }
            (id, ..) => locked.push(id),
        }
    }
    rows.sort_unstable();
    let candidates: Vec<_> = rows
        .iter()
        .map(|&(_, owner, _, id, workflow)| Candidate {
            id,
            of: keys(WorkflowId(workflow), UserId(owner)),
        })
        .collect();
    let limits = if h.backend() == DbBackend::Postgres {
        find(h, sql::LIMITS_BY_ID, &[as_json(&locked)?]).await?
    } else {
        let ids = |of: fn(&Candidate) -> i64| {
            let ids: BTreeSet<i64> = candidates.iter().map(of).collect();
            as_json(&ids)
        };
        let keys = [
            ids(|found| found.of[0].column().1)?,
            ids(|found| found.of[1].column().1)?,
        ];
        find(h, sql::LIMITS_BY_KEY, &keys).await?
    };
    let limits = limits.into_iter().map(|limit| (limit.of, limit));
    Ok((candidates, limits.collect()))
}

async fn take(
    h: &Context,
    worker: &Worker,
    lease: TimeDelta,
    fitting: &[i64],
    taking: &mut Taking,
) -> Result<(), Error> {
    let now = h.shared_now();
    let until: Value = match h.backend() {
        DbBackend::Postgres => lease.num_microseconds().into(),
        _ => now.map(|now| now + lease).into(),
    };
    let several = fitting.len() > 1;
    let mut values = vec![worker.name.as_str().into(), until, now.into()];
    values.push(as_json(fitting)?.into());
    values.extend(taking.bounds(several));
    let claim = sql::claim(h.backend(), several);
    let kind = Taking::claim_kind(several);
    taking.take(h, kind, claim, values).await.map(drop)
}

/// Has what waits for the other limit wait for this one, which has no room for it: otherwise it
/// would be let go and parked one by one.
async fn follow(h: &Context, limit: &Limit, other: &Limit) -> Result<u64, Error> {
    let (column, key) = limit.of.column();
    let sql = sql::MOVE.replace("{column}", column);
    let sql = sql::by_backend(h.backend(), &sql).into_owned();
    let values = vec![limit.id.into(), key.into(), other.id.into()];
    h.sql(sql, values).await
}

/// Parks what stands before this worker and has no room under a limit.
async fn park(h: &Context, ranges: &[Range], limit: &Limit) -> Result<u64, Error> {
    let (column, key) = limit.of.column();
    let park = sql::park(h.backend(), column, ranges.len());
    let given: [Value; 2] = [limit.id.into(), key.into()];
    let values = given.into_iter().chain(values(ranges)).collect();
    h.sql(park, values).await
}
