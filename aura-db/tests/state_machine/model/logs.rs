//! Log entries.

use std::collections::{BTreeMap, BTreeSet};

use aura_db::{Action, Log, LogId, LogLevel, NewLog, Resource};
use serde_json::{Value, json};

use super::check::{Check, holds};
use super::list::{page, whole};
use super::{Allowed, Answer, Ctx, Model};
use crate::logical::sorted;
use crate::outcome::{Failed, json_of};
use crate::steps::logs::{Begin, Call, Query};

impl Model {
    pub(super) fn logs(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| of_log(self.enter(ctx, action, Resource::Execution));
        match call {
            Call::Append(new) => {
                storable(new)?;
                may(Action::Update)?;
                self.appendable(std::slice::from_ref(new))?;
                Ok(json_of(self.append(new)))
            }
            Call::AppendMany(entries) => {
                for entry in entries {
                    storable(entry)?;
                }
                may(Action::Update)?;
                self.appendable(entries)?;
                for entry in entries {
                    self.append(entry);
                }
                Ok(json!(entries.len()))
            }
            Call::Find(id) => match self.log(may(Action::Read)?, *id) {
                Err(Failed::NotFound { .. }) => Ok(Value::Null),
                found => found.map(json_of),
            },
            Call::Get(id) => self.log(may(Action::Read)?, *id).map(json_of),
            Call::List(query, pages) => {
                let rows = self.logged(may(Action::Read)?, query)?;
                page(
                    rows,
                    |row| ((), row.id.0),
                    !query.oldest_first,
                    *pages,
                    whole,
                )
            }
            Call::Prune(before, limit) => {
                may(Action::Delete)?;
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let rows = self.logs.rows.values();
                let mut old: Vec<_> = rows.filter(|row| row.created_at < *before).collect();
                old.sort_by_key(|row| (row.created_at, row.id));
                let old: Vec<_> = old.iter().take(limit).map(|row| row.id.0).collect();
                self.logs.rows.retain(|id, _| !old.contains(id));
                Ok(json!(old.len()))
            }
            Call::Stats(query) => {
                let rows = self.logged(may(Action::Read)?, query)?;
                let mut by_level = BTreeMap::<u8, (LogLevel, u64)>::new();
                let mut days = BTreeMap::<_, u64>::new();
                for row in &rows {
                    by_level.entry(row.level as u8).or_insert((row.level, 0)).1 += 1;
                    *days.entry(row.created_at.date_naive()).or_default() += 1;
                }
                let days = days
                    .iter()
                    .map(|(day, total)| json!({"day": day, "total": total}));
                Ok(json!({
                    "total": rows.len(),
                    "by_level": by_level.values().collect::<Vec<_>>(),
                    "other": 0,
                    "per_day": days.collect::<Vec<_>>(),
                }))
            }
            Call::Tail(query, begin) => {
                if self.in_transaction {
                    return Err(Failed::validation(&["tail"]));
                }
                let rows = self.logged(may(Action::Read)?, query)?;
                let after = match (begin, &self.tail) {
                    (Begin::Start, _) => 0,
                    (Begin::After, Some((_, _, after))) => *after,
                    _ => self.logs.count(),
                };
                let rows = json_of(
                    rows.iter()
                        .filter(|row| row.id.0 > after)
                        .collect::<Vec<_>>(),
                );
                let here = (ctx, query.clone(), self.logs.count());
                // A restricted one is not looked at again: its role may change.
                self.tail = (!ctx.restricted).then_some(here);
                Ok(rows)
            }
            Call::Look => {
                let Some((ctx, query, after)) = self.tail.clone() else {
                    return Err(Failed::Aborted);
                };
                let allowed = of_log(self.enter(ctx, Action::Read, Resource::Execution))?;
                let rows = self.logged(allowed, &query)?;
                let rows = json_of(
                    rows.iter()
                        .filter(|row| row.id.0 > after)
                        .collect::<Vec<_>>(),
                );
                self.tail = Some((ctx, query, self.logs.count()));
                Ok(rows)
            }
        }
    }

    /// Refuses the first workflow that doesn't exist, then the first execution
    /// that is not of its workflow.
    fn appendable(&self, entries: &[NewLog]) -> Result<(), Failed> {
        let workflows: BTreeSet<_> = entries.iter().map(|entry| entry.workflow).collect();
        for id in workflows {
            if !self.workflows.rows.contains_key(&id.0) {
                return Err(Failed::not_found("workflow", &id));
            }
        }
        let pairs = entries
            .iter()
            .filter_map(|entry| Some((entry.execution?, entry.workflow)));
        for (execution, workflow) in pairs.collect::<BTreeSet<_>>() {
            let row = self.executions.rows.get(&execution.0);
            if row.is_none_or(|row| row.workflow_id != workflow) {
                let key = format!("{execution} of that workflow");
                return Err(Failed::not_found("execution", &key));
            }
        }
        Ok(())
    }

    fn append(&mut self, new: &NewLog) -> Log {
        let now = self.now;
        let metadata = new.metadata.clone();
        self.logs.insert(|id| Log {
            id: LogId(id),
            level: new.level,
            message: new.message.clone(),
            workflow_id: new.workflow,
            execution_id: new.execution,
            created_at: now,
            metadata: metadata.as_ref().map(sorted),
        })
    }

    /// An entry about a workflow that may be reached.
    fn log(&self, allowed: Allowed, id: LogId) -> Result<&Log, Failed> {
        let row = self.logs.rows.get(&id.0);
        let workflow = |row: &Log| self.workflows.rows.get(&row.workflow_id.0);
        row.filter(|row| workflow(row).is_none_or(|workflow| allowed.shows(workflow.owner_id)))
            .ok_or_else(|| Failed::not_found("log entry", &id))
    }

    fn logged(&self, allowed: Allowed, query: &Query) -> Result<Vec<&Log>, Failed> {
        let mut check = Check::default();
        check.optional("text", query.text.as_ref(), 200);
        check.done()?;
        let workflow = |row: &Log| self.workflows.rows.get(&row.workflow_id.0);
        // A workflow stands for its executions.
        let execution = query.execution.filter(|_| query.workflow.is_none());
        let rows = self.logs.rows.values().filter(|row| {
            workflow(row).is_some_and(|workflow| allowed.shows(workflow.owner_id))
                && query.workflow.is_none_or(|id| row.workflow_id == id)
                && execution.is_none_or(|id| row.execution_id == Some(id))
                && query.level.is_none_or(|level| row.level == level)
                && query
                    .at_least
                    .is_none_or(|least| row.level as u8 >= least as u8)
                && query.from.is_none_or(|from| row.created_at >= from)
                && query.until.is_none_or(|until| row.created_at < until)
                && query
                    .text
                    .as_ref()
                    .is_none_or(|text| holds(&row.message, text))
        });
        Ok(rows.collect())
    }
}

fn storable(new: &NewLog) -> Result<(), Failed> {
    let mut check = Check::default();
    check.optional("message", Some(&new.message), usize::MAX);
    check.json("metadata", new.metadata.as_ref());
    check.done()
}

/// A refusal about an entry, which names it.
fn of_log<T>(result: Result<T, Failed>) -> Result<T, Failed> {
    result.map_err(|failed| match failed {
        Failed::Forbidden { user, action, .. } => Failed::Forbidden {
            user,
            action,
            what: "log entry",
        },
        other => other,
    })
}
