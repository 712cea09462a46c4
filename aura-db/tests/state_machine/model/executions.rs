//! Executions.

use std::collections::BTreeMap;
use std::time::Duration;

use aura_db::{
    Action, Document, Execution, ExecutionId, ExecutionMode, ExecutionStatus, Resource, WorkflowId,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::check::Check;
use super::leases::{DAY, ended, give_up, leased};
use super::list::{page, whole, without};
use super::{Allowed, Answer, Ctx, Model};
use crate::outcome::{Failed, json_of};
use crate::steps::executions::{Call, Query};

const ENDED: [ExecutionStatus; 4] = [
    ExecutionStatus::Success,
    ExecutionStatus::Error,
    ExecutionStatus::Canceled,
    ExecutionStatus::Dead,
];

impl Model {
    pub(super) fn executions(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        match call {
            Call::Enqueue(workflow, mode, attempts, data, place) => {
                self.enqueue(ctx, *workflow, *mode, *attempts, data.as_ref(), place)
            }
            Call::EnqueueOnce(workflow, mode, data, key) => {
                self.enqueue_once(ctx, *workflow, *mode, data.as_ref(), key)
            }
            Call::Find(id) => match self.execution(may(Action::Read)?, *id) {
                Err(Failed::NotFound { .. }) => Ok(Value::Null),
                found => found.map(json_of),
            },
            Call::Get(id) => self.execution(may(Action::Read)?, *id).map(json_of),
            Call::GetWithLogs(id, entries) => {
                if *entries > 1_000 {
                    return Err(Failed::validation(&["entries"]));
                }
                let row = self.execution(may(Action::Read)?, *id)?;
                let logs = self.logs.rows.values().rev();
                let logs = logs.filter(|log| log.execution_id == Some(*id));
                let newest = logs.take(usize::try_from(*entries).unwrap_or(0));
                Ok(json!([row, newest.collect::<Vec<_>>()]))
            }
            Call::List(query, pages) => {
                let rows = self.executed(may(Action::Read)?, query)?;
                let tell = |row: &Execution| {
                    without(
                        json_of(row),
                        &[
                            "is_suspended",
                            "limit_id",
                            "owner_id",
                            "claim_no",
                            "idempotency_key",
                            "input_hash",
                            "data",
                            "error",
                        ],
                    )
                };
                page(
                    rows,
                    |row| ((), row.id.0),
                    !query.oldest_first,
                    *pages,
                    tell,
                )
            }
            Call::ListFull(query, pages) => {
                let rows = self.executed(may(Action::Read)?, query)?;
                page(
                    rows,
                    |row| ((), row.id.0),
                    !query.oldest_first,
                    *pages,
                    whole,
                )
            }
            Call::Prune(before, limit) => self.prune(ctx, *before, *limit),
            Call::Claim(worker, lease) => Ok(json_of(self.claim(ctx, worker, *lease, 1)?.pop())),
            Call::ClaimMany(worker, lease, limit) => {
                Ok(json_of(self.claim(ctx, worker, *lease, *limit)?))
            }
            Call::Attempts(id) => {
                self.execution(may(Action::Read)?, *id)?;
                let attempts = self.attempts.get(&id.0);
                Ok(json_of(attempts.cloned().unwrap_or_default()))
            }
            Call::Extend(held, lease) => self.extend(ctx, held, *lease),
            Call::Finish(held, end) => self.finish(ctx, held, end),
            Call::Wait(held, until, data) => self.wait(ctx, held, *until, data.as_ref()),
            Call::Release(held) => {
                leased(&held.worker, None, Check::default())?;
                may(Action::Execute)?;
                let row = self.held(held)?;
                give_up(row, ExecutionStatus::Queued);
                Ok(json_of(&*row))
            }
            Call::Resume(_) | Call::Cancel(_) | Call::Retry(_) | Call::Discard(_) => {
                self.intervene(ctx, call)
            }
            Call::SetConcurrencyLimit(of, limit) => self.set_limit(ctx, *of, *limit),
            Call::ConcurrencyLimit(of) => self.limit(ctx, *of),
            Call::RequeueExpired(limit) => self.requeue_expired(ctx, *limit),
            Call::Stats(query) => Ok(stats(&self.executed(may(Action::Read)?, query)?)),
        }
    }

    /// What people do with executions.
    fn intervene(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        let may_run = || self.enter(ctx, Action::Execute, Resource::Workflow);
        match call {
            Call::Resume(id) => {
                let status = self.execution(may_run()?, *id)?.status;
                let row = self.executions.rows.get_mut(&id.0);
                match row.filter(|_| status == ExecutionStatus::Waiting) {
                    Some(row) => {
                        row.status = ExecutionStatus::Queued;
                        row.wait_until = None;
                        Ok(json_of(&*row))
                    }
                    None => Err(state(*id)),
                }
            }
            Call::Cancel(id) => {
                let status = self.execution(may_run()?, *id)?.status;
                let now = self.now;
                let row = self.executions.rows.get_mut(&id.0);
                match row.filter(|_| !ENDED.contains(&status)) {
                    Some(row) => {
                        row.status = ExecutionStatus::Canceled;
                        row.finished_at = Some(ended(row, now));
                        (row.lease_until, row.wait_until) = (None, None);
                        let canceled = json_of(&*row);
                        if row.worker_id.is_some() {
                            self.unpark(id.0);
                        }
                        Ok(canceled)
                    }
                    None => Err(state(*id)),
                }
            }
            Call::Retry(id) => {
                let status = self.execution(may_run()?, *id)?.status;
                let row = self.executions.rows.get_mut(&id.0);
                match row.filter(|_| status == ExecutionStatus::Dead) {
                    Some(row) => {
                        row.status = ExecutionStatus::Queued;
                        row.attempts = 0;
                        (row.worker_id, row.finished_at, row.error) = (None, None, None);
                        Ok(json_of(&*row))
                    }
                    None => Err(state(*id)),
                }
            }
            Call::Discard(id) => {
                let found = self.execution(may(Action::Delete)?, *id)?.clone();
                if found.status != ExecutionStatus::Dead {
                    return Err(state(*id));
                }
                self.executions.rows.remove(&id.0);
                self.logs
                    .rows
                    .retain(|_, log| log.execution_id != Some(*id));
                Ok(json_of(found))
            }
            other => panic!("{other:?}"),
        }
    }

    fn enqueue(
        &mut self,
        ctx: Ctx,
        workflow: WorkflowId,
        mode: ExecutionMode,
        attempts: Option<i64>,
        data: Option<&Document>,
        (queue, priority): &(String, i64),
    ) -> Answer {
        let may_run = || self.enter(ctx, Action::Execute, Resource::Workflow);
        let mut check = Check::default();
        check.json("data", data);
        check.refuse(
            "max_attempts",
            attempts.is_some_and(|n| !(1..=1_000).contains(&n)),
        );
        check.name("queue", queue, 64);
        check.refuse("priority", !(-1_000..=1_000).contains(priority));
        check.done()?;
        let found = self.own_workflow(may_run()?, workflow)?;
        let (version, owner_id) = (found.version, found.owner_id);
        let now = self.now;
        Ok(json_of(self.executions.insert(|id| Execution {
            id: ExecutionId(id),
            workflow_id: workflow,
            workflow_version: version,
            mode,
            status: ExecutionStatus::Queued,
            worker_id: None,
            lease_until: None,
            wait_until: None,
            started_at: None,
            finished_at: None,
            created_at: now,
            is_suspended: false,
            limit_id: None,
            attempts: 0,
            max_attempts: attempts.unwrap_or(if mode == ExecutionMode::Manual { 1 } else { 3 }),
            claim_no: 0,
            idempotency_key: None,
            input_hash: None,
            queue: queue.clone(),
            owner_id,
            priority: *priority,
            data: data.cloned(),
            error: None,
        })))
    }

    fn enqueue_once(
        &mut self,
        ctx: Ctx,
        workflow: WorkflowId,
        mode: ExecutionMode,
        data: Option<&Document>,
        key: &str,
    ) -> Answer {
        let mut check = Check::default();
        check.json("data", data);
        check.name("key", key, 200);
        check.done()?;
        let allowed = self.enter(ctx, Action::Execute, Resource::Workflow)?;
        let mut hash = Sha256::new();
        hash.update(format!("{mode}\n{}", data.map_or("", Document::as_str)));
        let bytes = hash.finalize();
        let bytes = bytes.iter().take(16);
        let number = bytes.fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        let hash = format!("{number:032x}");
        let workflows = &self.workflows.rows;
        let shown = workflows.get(&workflow.0);
        let is_shown = shown.is_some_and(|workflow| allowed.shows(workflow.owner_id));
        let now = self.now;
        let mut rows = self.executions.rows.values_mut();
        let before = rows.find(|row| {
            is_shown && row.workflow_id == workflow && row.idempotency_key.as_deref() == Some(key)
        });
        if let Some(before) = before {
            if before.finished_at.is_none_or(|at| at > now - DAY) {
                return if before.input_hash.as_ref() == Some(&hash) {
                    Ok(json!([&*before, false]))
                } else {
                    let columns = ["idempotency_key", "workflow_id"];
                    Err(Failed::conflict("executions", &columns, false))
                };
            }
            (before.idempotency_key, before.input_hash) = (None, None);
        }
        let place = ("default".to_owned(), 0);
        let queued = self.enqueue(ctx, workflow, mode, None, data, &place)?;
        let id = queued["id"].as_i64().unwrap_or_default();
        let row = self.executions.rows.get_mut(&id);
        let row = row.ok_or_else(|| Failed::not_found("execution", &id))?;
        (row.idempotency_key, row.input_hash) = (Some(key.to_owned()), Some(hash));
        Ok(json!([&*row, true]))
    }

    fn prune(&mut self, ctx: Ctx, before: DateTime<Utc>, limit: u64) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        may(Action::Delete)?;
        let now = self.now;
        let rows = self.executions.rows.values();
        let old = rows.filter(|row| {
            ENDED.contains(&row.status)
                && row.finished_at.is_some_and(|at| {
                    at < before && (row.idempotency_key.is_none() || at <= now - DAY)
                })
        });
        let mut old: Vec<_> = old.map(|row| (row.finished_at, row.id)).collect();
        old.sort_by_key(|(finished_at, id)| (*finished_at, id.0));
        old.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let old: Vec<_> = old.into_iter().map(|(_, id)| id).collect();
        for id in &old {
            self.executions.rows.remove(&id.0);
            self.logs
                .rows
                .retain(|_, log| log.execution_id != Some(*id));
        }
        Ok(json!(old.len()))
    }

    /// An execution of a workflow that may be reached, deleted or not.
    fn execution(&self, allowed: Allowed, id: ExecutionId) -> Result<&Execution, Failed> {
        let row = self.executions.rows.get(&id.0);
        let workflow = |row: &Execution| self.workflows.rows.get(&row.workflow_id.0);
        row.filter(|row| workflow(row).is_none_or(|workflow| allowed.shows(workflow.owner_id)))
            .ok_or_else(|| Failed::not_found("execution", &id))
    }

    fn executed(&self, allowed: Allowed, query: &Query) -> Result<Vec<&Execution>, Failed> {
        let mut check = Check::default();
        check.optional("worker", query.worker.as_ref(), 64);
        check.optional("queue", query.queue.as_ref(), 64);
        check.done()?;
        let owner = |row: &Execution| self.workflows.rows.get(&row.workflow_id.0);
        let rows = self.executions.rows.values().filter(|row| {
            owner(row).is_some_and(|workflow| allowed.shows(workflow.owner_id))
                && query.workflow.is_none_or(|id| row.workflow_id == id)
                && (query.statuses.is_empty() || query.statuses.contains(&row.status))
                && query.mode.is_none_or(|mode| row.mode == mode)
                && query.queue.as_ref().is_none_or(|queue| row.queue == *queue)
                && query
                    .worker
                    .as_ref()
                    .is_none_or(|id| row.worker_id.as_ref() == Some(id))
                && query.from.is_none_or(|from| row.created_at >= from)
                && query.until.is_none_or(|until| row.created_at < until)
        });
        Ok(rows.collect())
    }
}

fn state(id: ExecutionId) -> Failed {
    Failed::State {
        what: "execution".to_owned(),
        id: id.0,
    }
}

fn stats(rows: &[&Execution]) -> Value {
    let mut by_status = BTreeMap::<u8, (ExecutionStatus, u64)>::new();
    let mut days = BTreeMap::<_, [u64; 4]>::new();
    let mut times = Vec::new();
    for row in rows {
        by_status
            .entry(row.status as u8)
            .or_insert((row.status, 0))
            .1 += 1;
        let day = days.entry(row.created_at.date_naive()).or_default();
        day[0] += 1;
        day[1] += u64::from(row.status == ExecutionStatus::Success);
        day[2] += u64::from(row.status == ExecutionStatus::Error);
        day[3] += u64::from(row.status == ExecutionStatus::Dead);
        if let (Some(start), Some(end)) = (row.started_at, row.finished_at) {
            let micros = (end - start).num_microseconds().unwrap_or(0);
            times.push(u64::try_from(micros).unwrap_or(0));
        }
    }
    times.sort_unstable();
    let sum: u64 = times.iter().sum();
    let average = sum
        .checked_div(times.len() as u64)
        .map(Duration::from_micros);
    // The nearest rank is the smallest that 95 of 100 don't exceed.
    let rank = (times.len() * 95).div_ceil(100);
    let p95 = rank
        .checked_sub(1)
        .map(|index| Duration::from_micros(times[index]));
    let days = days.iter().map(|(day, [total, success, error, dead])| {
        json!({"day": day, "total": total, "success": success, "error": error, "dead": dead})
    });
    json!({
        "total": rows.len(),
        "by_status": by_status.values().collect::<Vec<_>>(),
        "other": 0,
        "average": average,
        "p95": p95,
        "per_day": days.collect::<Vec<_>>(),
    })
}
