//! Who holds an execution, and how attempts end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aura_db::{
    Action, Document, Execution, ExecutionAttempt, ExecutionStatus, LimitOf, Resource, WorkflowId,
};
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde_json::json;

use super::check::{Check, micros};
use super::limits::Known;
use super::{Answer, Ctx, Model};
use crate::outcome::{Failed, json_of};
use crate::steps::executions::{End, Held, Taker};

/// Whose turn it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    /// By queue the owner whose execution was taken last.
    last: BTreeMap<String, i64>,
    /// The same of the open transaction.
    inside: Vec<(String, i64)>,
    maintained: Option<DateTime<Utc>>,
    pub(super) known: Known,
}

impl Turns {
    /// After the commit.
    pub(crate) fn commit(&mut self) {
        self.last.extend(self.inside.drain(..));
        self.known.commit();
    }

    /// What a rollback doesn't undo, of a part of a transaction or of a whole one.
    pub(crate) fn roll_back(&mut self, of: Self, is_part: bool) {
        if is_part {
            self.inside = of.inside;
        }
        self.known = of.known;
        self.known.roll_back(is_part);
    }
}

/// What there may be after a look.
enum Found {
    Nothing,
    /// What a limit has let go.
    Freed,
    More,
}

/// The longest lease.
pub(super) const DAY: TimeDelta = TimeDelta::hours(24);

impl Model {
    pub(super) fn finish(&mut self, ctx: Ctx, held: &Held, end: &End) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        let (status, error, data, pause) = match end.clone() {
            End::Success(data) => (ExecutionStatus::Success, None, data, None),
            End::Error(error, data) => (ExecutionStatus::Error, Some(error), data, None),
            End::Retryable(error, data, pause) => {
                (ExecutionStatus::Waiting, Some(error), data, Some(pause))
            }
        };
        let mut check = Check::default();
        let year = Duration::from_hours(366 * 24);
        check.refuse("after", pause.is_some_and(|pause| pause > year));
        leased(&held.worker, None, check)?;
        may(Action::Execute)?;
        let now = self.now;
        self.held(held)?;
        let refused = [("data", &data), ("error", &error)]
            .into_iter()
            .find_map(|(name, document)| not_storable(name, document.as_ref()?));
        if let (Some(_), None, Some(error)) = (pause, &refused, &error) {
            self.keep_attempt(held.id.0, error.as_str());
        }
        let row = self.held(held)?;
        row.lease_until = None;
        let is_last = row.attempts >= row.max_attempts;
        if let Some(why) = refused {
            row.status = ExecutionStatus::Error;
            row.finished_at = Some(ended(row, now));
            row.error = Some(why);
            let ended = json_of(&*row);
            self.unpark(held.id.0);
            return Ok(ended);
        }
        match pause {
            Some(pause) if !is_last => {
                row.status = ExecutionStatus::Waiting;
                row.worker_id = None;
                let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
                row.wait_until = Some(now + TimeDelta::microseconds(pause));
            }
            Some(_) => bury(row, now),
            None => {
                row.status = status;
                row.finished_at = Some(ended(row, now));
            }
        }
        row.data = data.or(row.data.take());
        row.error = error.or(row.error.take());
        let ended = json_of(&*row);
        self.unpark(held.id.0);
        Ok(ended)
    }

    pub(super) fn wait(
        &mut self,
        ctx: Ctx,
        held: &Held,
        until: Option<DateTime<Utc>>,
        data: Option<&Document>,
    ) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        let mut check = Check::default();
        let absurd = |until: DateTime<Utc>| !(1..=9999).contains(&until.year());
        check.refuse("until", until.is_some_and(absurd));
        check.json("data", data);
        leased(&held.worker, None, check)?;
        may(Action::Execute)?;
        let row = self.held(held)?;
        give_up(row, ExecutionStatus::Waiting);
        row.wait_until = until.map(micros);
        row.data = data.cloned().or(row.data.take());
        let waits = json_of(&*row);
        self.unpark(held.id.0);
        Ok(waits)
    }

    pub(super) fn requeue_expired(&mut self, ctx: Ctx, limit: u64) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        if self.takes_nothing(ctx, limit) {
            return Ok(json!([]));
        }
        may(Action::Execute)?;
        let now = self.now;
        let rows = self.executions.rows.values();
        let late = rows.filter(|row| is_late(row, now));
        let limit = usize::try_from((limit).min(1_000)).unwrap_or(0);
        let late: Vec<_> = late.take(limit).map(|row| row.id.0).collect();
        let requeued = late.into_iter().map(|id| self.recover(id));
        let requeued = json_of(requeued.collect::<Vec<_>>());
        self.sweep_limits();
        Ok(requeued)
    }

    /// Whether no statement is run, which would be refused.
    fn takes_nothing(&self, ctx: Ctx, limit: u64) -> bool {
        self.broken && !ctx.restricted && limit == 0
    }

    /// Queues what lost its worker, unless this was its last attempt.
    fn recover(&mut self, id: i64) -> Option<Execution> {
        let now = self.now;
        self.keep_attempt(id, r#"{"code":"lease_expired"}"#);
        let row = self.executions.rows.get_mut(&id)?;
        if row.attempts < row.max_attempts {
            row.status = ExecutionStatus::Queued;
            (row.worker_id, row.lease_until) = (None, None);
        } else {
            bury(row, now);
            row.error = Some(json!({"code": "lease_expired", "attempts": row.attempts}).into());
        }
        Some(row.clone())
    }

    /// Keeps how an attempt ended.
    fn keep_attempt(&mut self, id: i64, reason: &str) {
        let Some(row) = self.executions.rows.get(&id) else {
            return;
        };
        let attempts = self.attempts.entry(id).or_default();
        attempts.push(ExecutionAttempt {
            id: 0.into(),
            execution_id: row.id,
            claim_no: row.claim_no,
            attempt: row.attempts,
            worker_id: row.worker_id.clone(),
            ended_at: self.now,
            reason: reason[..reason.floor_char_boundary(2_048)].to_owned(),
        });
        if attempts.len() > 20 {
            attempts.remove(0);
        }
    }

    pub(super) fn extend(&mut self, ctx: Ctx, held: &Held, lease: Duration) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Execution);
        let lease = leased(&held.worker, Some(lease), Check::default())?;
        may(Action::Execute)?;
        let now = self.now;
        let row = self.held(held)?;
        if is_late(row, now) {
            return Err(lost(held));
        }
        row.lease_until = Some(now + lease);
        Ok(json_of(&*row))
    }

    /// An execution that this claim holds.
    pub(super) fn held(&mut self, held: &Held) -> Result<&mut Execution, Failed> {
        let row = self.executions.rows.get_mut(&held.id.0);
        let row = row.ok_or_else(|| Failed::not_found("execution", &held.id))?;
        let by = (row.worker_id.as_deref(), row.claim_no);
        if row.status == ExecutionStatus::Running && by == (Some(&held.worker), held.number) {
            Ok(row)
        } else {
            Err(lost(held))
        }
    }

    pub(super) fn claim(
        &mut self,
        ctx: Ctx,
        worker: &Taker,
        lease: Duration,
        limit: u64,
    ) -> Result<Vec<Execution>, Failed> {
        let mut check = Check::default();
        check.refuse("queues", !(1..=16).contains(&worker.queues.len()));
        for queue in &worker.queues {
            check.name("queues", queue, 64);
        }
        let lease = leased(&worker.name, Some(lease), check)?;
        if self.takes_nothing(ctx, limit) {
            return Ok(Vec::new());
        }
        self.enter(ctx, Action::Execute, Resource::Execution)?;
        let limit = usize::try_from(limit.min(1_000)).unwrap_or(0);
        if limit > 0 && !ctx.restricted {
            self.sweep_limits_at_times();
        }
        let last = self.turns.maintained;
        let is_fresh = |last| self.now >= last && self.now < last + TimeDelta::seconds(1);
        if limit > 0 && !last.is_some_and(is_fresh) {
            self.maintain(worker, limit);
        }
        let mut found = if limit == 0 {
            Found::Nothing
        } else {
            Found::More
        };
        loop {
            let (taken, has_parked) = self.take(worker, lease, limit);
            if !taken.is_empty() {
                return Ok(taken);
            }
            let is_settled = match found {
                Found::Nothing => !has_parked,
                Found::Freed => has_parked,
                Found::More => false,
            };
            if is_settled {
                return Ok(taken);
            }
            if !has_parked {
                found = self.maintain(worker, limit);
            }
        }
    }

    /// Looks for what lost its worker and what is due: in a transaction for so many of the
    /// worker's queues. Returns whether there was any in them.
    fn maintain(&mut self, worker: &Taker, limit: usize) -> Found {
        let (now, is_inside) = (self.now, self.in_transaction);
        let most = if is_inside {
            limit.clamp(1, 100)
        } else {
            1_000
        };
        let is_own = |row: &Execution| worker.queues.contains(&row.queue);
        let is_over = |until: Option<DateTime<Utc>>| until.is_some_and(|until| until <= now);
        let found = |row: &Execution, until| is_over(until) && (!is_inside || is_own(row));
        let rows = self.executions.rows.values();
        let late = rows.filter(|row| found(row, row.lease_until));
        let mut late: Vec<_> = late.map(|row| (row.lease_until, row.id.0)).collect();
        late.sort_unstable();
        late.truncate(most);
        let mut queued = Vec::new();
        for (_, id) in late {
            queued.extend(self.recover(id));
        }
        queued.retain(|row| row.status == ExecutionStatus::Queued);
        let workflows = &self.workflows.rows;
        let is_live = |id: WorkflowId| {
            let workflow = workflows.get(&id.0);
            workflow.is_some_and(|workflow| workflow.deleted_at.is_none())
        };
        let rows = self.executions.rows.values();
        let due = rows.filter(|row| found(row, row.wait_until) && is_live(row.workflow_id));
        let mut due: Vec<_> = due.map(|row| (row.wait_until, row.id.0)).collect();
        due.sort_unstable();
        due.truncate(most);
        for (_, id) in due {
            if let Some(row) = self.executions.rows.get_mut(&id) {
                row.status = ExecutionStatus::Queued;
                row.wait_until = None;
                queued.push(row.clone());
            }
        }
        if !is_inside {
            self.turns.maintained = Some(now);
        }
        let is_own = queued.iter().any(is_own);
        let freed = !is_inside && self.limits.has_parked() && self.maintain_limits(&worker.queues);
        let before = self.turns.known.has_limits;
        self.turns.known.has_limits = self.limits.are_there();
        let is_news = !before && self.turns.known.has_limits;
        if is_news || is_own {
            Found::More
        } else if freed {
            Found::Freed
        } else {
            Found::Nothing
        }
    }

    /// Takes what is next and has room, by queue, owner's turn, priority and age. Returns it, and
    /// whether others were parked.
    fn take(&mut self, worker: &Taker, lease: TimeDelta, limit: usize) -> (Vec<Execution>, bool) {
        let now = self.now;
        let has_limits = self.turns.known.has_limits;
        let workflows = &self.workflows.rows;
        let rows = self.executions.rows.values().filter(|row| {
            let workflow = workflows.get(&row.workflow_id.0);
            row.status == ExecutionStatus::Queued
                && !self.limits.is_parked(row.id.0)
                && workflow.is_some_and(|workflow| workflow.deleted_at.is_none())
        });
        let place = |row: &Execution| {
            let queue = worker.queues.iter().position(|queue| *queue == row.queue)?;
            let last = self.turns.last.get(&row.queue);
            let is_behind = last.is_some_and(|last| row.owner_id.0 <= *last);
            Some((queue, is_behind, row.owner_id.0, -row.priority, row.id.0))
        };
        let mut next: Vec<_> = rows.filter_map(place).collect();
        next.sort_unstable();
        let ready: Vec<_> = next.iter().map(|(.., id)| *id).collect();
        next.truncate(if has_limits { limit.min(16) } else { limit });
        let mut taken = Vec::new();
        let mut full = BTreeMap::<LimitOf, BTreeSet<LimitOf>>::new();
        for (queue, _, owner, _, id) in next {
            let row = &self.executions.rows[&id];
            let limits = self.limits_of(row);
            if !has_limits && !limits.is_empty() {
                continue;
            }
            if let Some(of) = self.full(row) {
                let others = limits.iter().copied().filter(|other| *other != of);
                full.entry(of).or_default().extend(others);
                self.learn(limits);
                continue;
            }
            self.learn(limits);
            let last = (worker.queues[queue].clone(), owner);
            self.turns.inside.push(last);
            let Some(row) = self.executions.rows.get_mut(&id) else {
                continue;
            };
            row.status = ExecutionStatus::Running;
            row.worker_id = Some(worker.name.clone());
            row.lease_until = Some(now + lease);
            row.wait_until = None;
            row.started_at = row.started_at.or(Some(now));
            row.attempts += 1;
            row.claim_no += 1;
            taken.push(row.clone());
        }
        let mut has_parked = false;
        for (of, others) in full {
            has_parked |= self.park(of, &ready);
            for other in others {
                has_parked |= self.follow(of, other);
            }
        }
        if !self.in_transaction {
            self.turns.commit();
        }
        taken.sort_by_key(|row| (-row.priority, row.id));
        (taken, has_parked)
    }
}

fn lost(held: &Held) -> Failed {
    Failed::LeaseLost {
        execution: held.id,
        worker: held.worker.clone(),
    }
}

/// Whether the lease has run out, or was written by a clock that was wrong.
fn is_late(row: &Execution, now: DateTime<Utc>) -> bool {
    let holds = |until| until > now && until <= now + DAY;
    row.status == ExecutionStatus::Running && !row.lease_until.is_some_and(holds)
}

pub(super) fn ended(row: &Execution, now: DateTime<Utc>) -> DateTime<Utc> {
    row.started_at.map_or(now, |started| started.max(now))
}

fn bury(row: &mut Execution, now: DateTime<Utc>) {
    row.status = ExecutionStatus::Dead;
    row.lease_until = None;
    row.finished_at = Some(ended(row, now));
}

/// Takes it from its worker, and the attempt with it.
pub(super) fn give_up(row: &mut Execution, status: ExecutionStatus) {
    row.status = status;
    (row.worker_id, row.lease_until) = (None, None);
    row.attempts = (row.attempts - 1).max(0);
}

/// What stands in the place of a result that can't be stored.
fn not_storable(name: &str, document: &Document) -> Option<Document> {
    let mut check = Check::default();
    check.json("it", Some(document));
    check.done().err()?;
    let text = document.as_str();
    let problem = if text.contains("\\u0000") {
        "must not hold the character U+0000, which PostgreSQL can't store"
    } else {
        "must be nested at most 127 deep"
    };
    let error = json!({
        "code": "result_not_storable",
        "problem": format!("{name} {problem}"),
        "bytes": text.len(),
        "text": text.replace("\\u0000", "\\ufffd"),
    });
    Some(error.into())
}

/// A lease of up to a day, to the microsecond.
pub(super) fn leased(
    worker: &str,
    lease: Option<Duration>,
    mut check: Check,
) -> Result<TimeDelta, Failed> {
    check.name("worker", worker, 64);
    let day = Duration::from_hours(24);
    let wrong = |lease: Duration| lease < Duration::from_micros(1) || lease > day;
    check.refuse("lease", lease.is_some_and(wrong));
    check.done()?;
    let micros = lease.map_or(0, |lease| i64::try_from(lease.as_micros()).unwrap_or(0));
    Ok(TimeDelta::microseconds(micros))
}
