//! How many executions run at once.

use std::collections::{BTreeMap, BTreeSet};

use aura_db::{Action, Execution, ExecutionStatus, LimitOf, Resource};
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
    /// What the open transaction has found.
    inside: BTreeSet<LimitOf>,
}

impl Known {
    /// After the commit.
    pub(super) fn commit(&mut self) {
        self.keys.append(&mut self.inside);
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
            if self.limits.of.remove(&of).is_some() {
                self.known_limits().keys.remove(&of);
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
        if self.limits.of[&of].1 {
            self.let_go(of);
        }
        Ok(json!(null))
    }

    pub(super) fn limit(&self, ctx: Ctx, of: LimitOf) -> Answer {
        self.enter(ctx, Action::Read, Resource::Execution)?;
        Ok(json!(self.limits.of.get(&of).map(|(limit, _)| limit)))
    }

    fn known_limits(&mut self) -> &mut Known {
        &mut self.turns.known
    }

    pub(super) fn learn(&mut self, found: impl IntoIterator<Item = LimitOf>) {
        let is_inside = self.in_transaction;
        let known = self.known_limits();
        for of in found {
            known.has_limits = true;
            known.inside.insert(of);
        }
        if !is_inside {
            known.commit();
        }
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
        if found && let Some(limit) = self.limits.of.get_mut(&of) {
            limit.1 = true;
        }
        found
    }

    /// After an attempt has ended.
    pub(super) fn unpark(&mut self, id: i64) {
        let row = &self.executions.rows[&id];
        let known = &self.turns.known.keys;
        let known: Vec<_> = keys(row)
            .into_iter()
            .filter(|of| known.contains(of))
            .collect();
        for of in known {
            self.let_some_go(of, 1);
        }
    }

    fn waiting(&self, of: LimitOf) -> impl Iterator<Item = &Execution> {
        let parked = self.limits.parked.iter();
        let parked = parked.filter(move |(_, waits_for)| **waits_for == of);
        let rows = parked.filter_map(|(id, _)| self.executions.rows.get(id));
        rows.filter(|row| row.status == ExecutionStatus::Queued)
    }

    /// Returns the queues of those.
    fn let_some_go(&mut self, of: LimitOf, most: usize) -> Vec<String> {
        let is_live = |row: &&Execution| {
            let workflow = self.workflows.rows.get(&row.workflow_id.0);
            workflow.is_some_and(|workflow| workflow.deleted_at.is_none())
        };
        let waiting = self.waiting(of).filter(is_live);
        let mut waiting: Vec<_> = waiting.map(|row| (-row.priority, row.id.0)).collect();
        waiting.sort_unstable();
        waiting.truncate(most);
        let mut queues = Vec::new();
        for (_, id) in waiting {
            self.limits.parked.remove(&id);
            queues.push(self.executions.rows[&id].queue.clone());
        }
        queues
    }

    /// As many as there is room for.
    fn let_go(&mut self, of: LimitOf) -> Vec<String> {
        let room = self.limits.of[&of].0.saturating_sub(self.running(of));
        let room = room.min(1_000) as usize;
        if room == 0 {
            return Vec::new();
        }
        let queues = self.let_some_go(of, room);
        if queues.len() < room && self.waiting(of).next().is_none() {
            self.limits.of.insert(of, (self.limits.of[&of].0, false));
        }
        queues
    }

    /// Lets go what there is room for. Returns the queues of those.
    pub(super) fn maintain_limits(&mut self) -> Vec<String> {
        let limits = self.limits.of.iter();
        let held = limits.filter(|(_, (_, has_parked))| *has_parked);
        let held: Vec<_> = held.map(|(of, _)| *of).collect();
        self.learn(held.iter().copied());
        held.into_iter().flat_map(|of| self.let_go(of)).collect()
    }
}
