//! How many executions run at once.

use std::collections::{BTreeMap, BTreeSet};

use aura_db::{Action, Execution, ExecutionStatus, LimitOf, Resource};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{Answer, Ctx, Model};
use crate::outcome::Failed;

/// What is stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    /// How many, and whether something waits for it.
    of: BTreeMap<LimitOf, (u32, bool)>,
    /// Executions, and what they wait for.
    parked: BTreeMap<i64, LimitOf>,
}

impl Limits {
    pub(super) fn is_parked(&self, id: i64) -> bool {
        self.parked.contains_key(&id)
    }

    pub(super) fn has_parked(&self) -> bool {
        self.of.values().any(|(_, has_parked)| *has_parked)
    }

    pub(super) fn are_there(&self) -> bool {
        !self.of.is_empty()
    }

    /// As with the workflow or the user.
    pub(super) fn drop(&mut self, of: LimitOf) {
        self.of.remove(&of);
    }
}

/// What a process knows, whatever is rolled back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(super) has_limits: bool,
    keys: BTreeSet<LimitOf>,
    /// What the open transaction has found, and has removed.
    inside: Vec<(LimitOf, bool)>,
    /// When it last looked for what waits for limits that are gone.
    swept: Option<DateTime<Utc>>,
}

impl Known {
    /// After the commit.
    pub(super) fn commit(&mut self) {
        for (of, is_there) in self.inside.drain(..) {
            if is_there {
                self.keys.insert(of);
            } else {
                self.keys.remove(&of);
            }
        }
    }

    /// At the end of a transaction that is rolled back, or of a part of one.
    pub(super) fn roll_back(&mut self, is_part: bool) {
        if !is_part {
            self.inside.clear();
        }
    }
}

fn keys(row: &Execution) -> [LimitOf; 2] {
    [row.workflow_id.into(), row.owner_id.into()]
}

impl Model {
    pub(super) fn set_limit(&mut self, ctx: Ctx, of: LimitOf, limit: Option<u32>) -> Answer {
        self.enter(ctx, Action::Execute, Resource::Execution)?;
        let Some(limit) = limit else {
            if self.limits.of.remove(&of).is_none() {
                self.sweep_limits();
            } else {
                self.note_limit(of, false);
                let rows = &self.executions.rows;
                self.limits.parked.retain(|id, waits_for| {
                    *waits_for != of
                        || rows
                            .get(id)
                            .is_none_or(|row| row.status != ExecutionStatus::Queued)
                });
            }
            return Ok(json!(null));
        };
        match of {
            LimitOf::Workflow(id) => {
                let workflow = self.workflows.rows.get(&id.0);
                let workflow = workflow.filter(|workflow| workflow.deleted_at.is_none());
                workflow.ok_or_else(|| Failed::not_found("workflow", &id))?;
            }
            LimitOf::Owner(id) => drop(self.user(id)?),
        }
        self.limits.of.entry(of).or_insert((0, false)).0 = limit;
        self.learn([of]);
        Ok(json!(null))
    }

    pub(super) fn limit(&self, ctx: Ctx, of: LimitOf) -> Answer {
        let allowed = self.enter(ctx, Action::Read, Resource::Execution)?;
        let is_shown = match of {
            LimitOf::Owner(id) => allowed.shows(id),
            LimitOf::Workflow(id) => {
                let workflow = self.workflows.rows.get(&id.0);
                allowed.own.is_none()
                    || workflow.is_some_and(|workflow| allowed.shows(workflow.owner_id))
            }
        };
        let limit = self.limits.of.get(&of).filter(|_| is_shown);
        Ok(json!(limit.map(|(limit, _)| limit)))
    }

    fn known_limits(&mut self) -> &mut Known {
        &mut self.turns.known
    }

    pub(super) fn learn(&mut self, found: impl IntoIterator<Item = LimitOf>) {
        for of in found {
            self.known_limits().has_limits = true;
            self.note_limit(of, true);
        }
    }

    /// Is known after the commit.
    fn note_limit(&mut self, of: LimitOf, is_there: bool) {
        let is_inside = self.in_transaction;
        let known = self.known_limits();
        known.inside.push((of, is_there));
        if !is_inside {
            known.commit();
        }
    }

    /// Each minute before a claim.
    pub(super) fn sweep_limits_at_times(&mut self) {
        let (now, last) = (self.now, self.turns.known.swept);
        let is_old = |last| now < last || now - last >= TimeDelta::minutes(1);
        if !self.in_transaction && last.is_none_or(is_old) {
            self.sweep_limits();
            self.known_limits().swept = Some(now);
        }
    }

    /// Finds what waits for limits that don't know it.
    pub(super) fn sweep_limits(&mut self) {
        if self.in_transaction {
            return;
        }
        let rows = &self.executions.rows;
        let is_queued = |id: &i64| {
            let row = rows.get(id);
            row.is_some_and(|row: &Execution| row.status == ExecutionStatus::Queued)
        };
        let Limits { of, parked } = &mut self.limits;
        parked.retain(|id, waits_for| of.contains_key(waits_for) || !is_queued(id));
        for (id, waits_for) in parked {
            if is_queued(id)
                && let Some((_, has_parked)) = of.get_mut(waits_for)
            {
                *has_parked = true;
            }
        }
    }

    /// What is deleted waits for no limit.
    pub(super) fn unpark_deleted(&mut self) {
        let (rows, workflows) = (&self.executions.rows, &self.workflows.rows);
        self.limits.parked.retain(|id, _| {
            let workflow = rows
                .get(id)
                .and_then(|row| workflows.get(&row.workflow_id.0));
            workflow.is_some_and(|workflow| workflow.deleted_at.is_none())
        });
    }

    /// What counts for a limit.
    fn running(&self, of: LimitOf) -> u32 {
        let rows = self.executions.rows.values();
        let running = rows.filter(|row| row.status == ExecutionStatus::Running);
        let count = running.filter(|row| keys(row).contains(&of)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The limits that an execution is under.
    pub(super) fn limits_of(&self, row: &Execution) -> Vec<LimitOf> {
        let mut keys = keys(row).to_vec();
        keys.retain(|of| self.limits.of.contains_key(of));
        keys
    }

    /// The limit that has no room for an execution.
    pub(super) fn full(&self, row: &Execution) -> Option<LimitOf> {
        let limits = self.limits_of(row).into_iter();
        let mut full = limits.filter(|of| self.running(*of) >= self.limits.of[of].0);
        full.next()
    }

    /// Has what stands in these queues wait for a limit. Returns whether there was any.
    pub(super) fn park(&mut self, of: LimitOf, ready: &[i64]) -> bool {
        let mut found = false;
        for id in ready {
            let row = &self.executions.rows[id];
            let is_ready = row.status == ExecutionStatus::Queued && !self.limits.is_parked(*id);
            if is_ready && keys(row).contains(&of) {
                self.limits.parked.insert(*id, of);
                found = true;
            }
        }
        if let Some(limit) = self.limits.of.get_mut(&of) {
            limit.1 |= found;
        }
        found
    }

    /// Has what waits for the other limit wait for this one, when it is under both.
    pub(super) fn follow(&mut self, of: LimitOf, other: LimitOf) -> bool {
        let rows = &self.executions.rows;
        let mut found = false;
        for (id, waits_for) in &mut self.limits.parked {
            let row = rows.get(id);
            let row = row.filter(|row| row.status == ExecutionStatus::Queued);
            if *waits_for == other && row.is_some_and(|row| keys(row).contains(&of)) {
                *waits_for = of;
                found = true;
            }
        }
        if let Some(limit) = self.limits.of.get_mut(&of) {
            limit.1 |= found;
        }
        found
    }

    /// After an attempt has ended.
    pub(super) fn unpark(&mut self, id: i64) {
        let row = &self.executions.rows[&id];
        let queue = row.queue.clone();
        let known = &self.turns.known.keys;
        let known: Vec<_> = keys(row)
            .into_iter()
            .filter(|of| known.contains(of))
            .collect();
        for of in known {
            self.let_some_go(of, &queue, 1);
        }
    }

    fn waiting(&self, of: LimitOf) -> impl Iterator<Item = &Execution> {
        let parked = self.limits.parked.iter();
        let parked = parked.filter(move |(_, waits_for)| **waits_for == of);
        let rows = parked.filter_map(|(id, _)| self.executions.rows.get(id));
        rows.filter(|row| row.status == ExecutionStatus::Queued)
    }

    /// Returns how many.
    fn let_some_go(&mut self, of: LimitOf, queue: &str, most: usize) -> usize {
        let waiting = self.waiting(of).filter(|row| row.queue == queue);
        let mut waiting: Vec<_> = waiting.map(|row| (-row.priority, row.id.0)).collect();
        waiting.sort_unstable();
        waiting.truncate(most);
        for (_, id) in &waiting {
            self.limits.parked.remove(id);
        }
        waiting.len()
    }

    /// As many of these queues as there is room for. Returns whether there were any.
    fn let_go(&mut self, of: LimitOf, queues: &[String]) -> bool {
        let room = self.limits.of[&of].0.saturating_sub(self.running(of));
        let mut room = room.min(1_000) as usize;
        if room == 0 {
            return false;
        }
        let before = room;
        for queue in queues {
            room -= self.let_some_go(of, queue, room);
        }
        if room > 0 && self.waiting(of).next().is_none() {
            self.limits.of.insert(of, (self.limits.of[&of].0, false));
        }
        room < before
    }

    /// Lets go what there is room for. Returns whether there was any.
    pub(super) fn maintain_limits(&mut self, queues: &[String]) -> bool {
        let limits = self.limits.of.iter();
        let held = limits.filter(|(_, (_, has_parked))| *has_parked);
        let held: Vec<_> = held.map(|(of, _)| *of).collect();
        self.learn(held.iter().copied());
        let mut any = false;
        for of in held {
            any |= self.let_go(of, queues);
        }
        any
    }
}
