//! How often each method was called, and what it came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aura_db::OWN_STATEMENTS;

use crate::outcome::Outcome;
use crate::side::Side;
use crate::source::methods;
use crate::steps::{Step, What};

/// So often is each method called at least.
const LEAST: u64 = 50;

/// What each method must come to at least once: `ok`; `none` and `no` for those
/// that return an option or a truth; `none` for those that return nothing; and
/// every error that its documentation names.
const EXPECTED: &[(&str, &str)] = &[
    ("agents.create", "ok Validation NotFound Conflict"),
    ("agents.delete", "none NotFound"),
    ("agents.disable", "ok NotFound"),
    ("agents.enable", "ok NotFound"),
    ("agents.find", "ok none"),
    ("agents.get", "ok NotFound"),
    ("agents.list", "ok Validation"),
    ("agents.list_full", "ok Validation"),
    ("agents.purge", "none NotFound State"),
    ("agents.restore", "ok NotFound State"),
    ("agents.update", "ok Validation NotFound Conflict"),
    ("executions.attempts", "ok NotFound"),
    ("executions.cancel", "ok NotFound State Forbidden"),
    ("executions.claim", "ok none Validation"),
    ("executions.claim_many", "ok Validation"),
    ("executions.concurrency_limit", "ok none"),
    ("executions.discard", "ok NotFound State Forbidden"),
    ("executions.enqueue", "ok NotFound Validation Forbidden"),
    (
        "executions.enqueue_once",
        "ok NotFound Validation Conflict Forbidden",
    ),
    ("executions.extend", "ok NotFound Validation LeaseLost"),
    ("executions.find", "ok none Forbidden"),
    ("executions.finish", "ok NotFound Validation LeaseLost"),
    ("executions.get", "ok NotFound"),
    ("executions.get_with_logs", "ok NotFound Validation"),
    ("executions.list", "ok Validation"),
    ("executions.list_full", "ok Validation"),
    ("executions.prune", "ok"),
    ("executions.release", "ok NotFound Validation LeaseLost"),
    ("executions.requeue_expired", "ok"),
    ("executions.resume", "ok NotFound State"),
    ("executions.retry", "ok NotFound State"),
    ("executions.set_concurrency_limit", "none NotFound"),
    ("executions.stats", "ok Validation"),
    ("executions.wait", "ok NotFound Validation LeaseLost"),
    ("logs.append", "ok NotFound Validation"),
    ("logs.append_many", "ok NotFound Validation"),
    ("logs.find", "ok none"),
    ("logs.get", "ok NotFound"),
    ("logs.list", "ok Validation"),
    ("logs.prune", "ok"),
    ("logs.stats", "ok Validation"),
    ("logs.tail", "ok Validation"),
    ("notes.count", "ok Forbidden"),
    ("notes.delete", "none NotFound Forbidden"),
    ("notes.delete_where", "ok Forbidden"),
    ("notes.find", "ok none Forbidden"),
    ("notes.find_many", "ok"),
    ("notes.get", "ok NotFound"),
    ("notes.increment", "ok NotFound Forbidden"),
    (
        "notes.insert",
        "ok Validation Conflict ForeignKey NotNull Forbidden",
    ),
    (
        "notes.insert_many",
        "ok Validation Conflict ForeignKey NotNull",
    ),
    ("notes.list", "ok Validation"),
    ("notes.purge", "none NotFound State"),
    ("notes.restore", "ok NotFound"),
    ("notes.update", "ok Validation NotFound Conflict Stale"),
    ("notes.update_where", "ok Validation Conflict"),
    ("notes.upsert", "ok Validation Conflict ForeignKey"),
    ("plugins.delete", "none NotFound"),
    ("plugins.disable", "ok NotFound"),
    ("plugins.enable", "ok NotFound"),
    ("plugins.find", "ok none"),
    ("plugins.find_by_name", "ok none"),
    ("plugins.get", "ok NotFound"),
    ("plugins.get_by_name", "ok NotFound"),
    ("plugins.list", "ok Validation"),
    ("plugins.list_full", "ok Validation"),
    ("plugins.purge", "none NotFound State"),
    ("plugins.register", "ok Validation Forbidden"),
    ("plugins.restore", "ok NotFound"),
    ("plugins.validate_config", "ok NotFound Validation"),
    ("sessions.authenticate", "ok none"),
    ("sessions.authenticate_within", "ok none"),
    ("sessions.delete_expired", "ok"),
    ("sessions.issue", "ok NotFound Validation"),
    ("sessions.list", "ok Forbidden"),
    ("sessions.revoke", "ok no"),
    ("sessions.revoke_all", "ok"),
    ("sessions.rotate", "ok none"),
    ("sessions.touch", "ok no"),
    ("users.activate", "ok NotFound"),
    (
        "users.change_password",
        "none NotFound Validation Credentials",
    ),
    ("users.create", "ok Validation Conflict Forbidden"),
    ("users.deactivate", "ok NotFound"),
    ("users.delete", "none NotFound Validation Conflict OwnsRows"),
    ("users.email_exists", "ok no"),
    ("users.find", "ok none Forbidden"),
    ("users.find_by_email", "ok none"),
    ("users.get", "ok NotFound"),
    ("users.get_by_email", "ok NotFound"),
    ("users.list", "ok Validation"),
    ("users.login", "ok Validation Credentials"),
    ("users.purge", "none NotFound State"),
    ("users.reset_password", "none NotFound Validation"),
    ("users.restore", "ok NotFound"),
    ("users.set_role", "ok NotFound"),
    ("users.transfer", "ok NotFound Validation Conflict"),
    ("users.update", "ok NotFound Validation Conflict"),
    ("users.verify_password", "ok no NotFound"),
    ("workflows.activate", "ok NotFound"),
    ("workflows.activate_if_sound", "ok NotFound Unsound"),
    ("workflows.attach", "ok no NotFound"),
    ("workflows.check", "ok NotFound"),
    ("workflows.create", "ok NotFound Validation Forbidden"),
    ("workflows.deactivate", "ok NotFound"),
    ("workflows.delete", "none NotFound"),
    ("workflows.detach", "ok no NotFound"),
    ("workflows.duplicate", "ok NotFound Validation"),
    ("workflows.find", "ok none Forbidden"),
    ("workflows.get", "ok NotFound"),
    ("workflows.get_details", "ok NotFound"),
    ("workflows.history", "ok NotFound Validation"),
    ("workflows.list", "ok Validation"),
    ("workflows.list_full", "ok Validation"),
    ("workflows.prune_history", "ok NotFound"),
    ("workflows.purge", "none NotFound State"),
    ("workflows.restore", "ok NotFound State"),
    ("workflows.restore_version", "ok NotFound Stale"),
    ("workflows.set_status", "ok NotFound"),
    ("workflows.update", "ok NotFound Validation Stale Forbidden"),
    ("workflows.version", "ok NotFound"),
    // Calls that are no methods of a repository.
    ("transaction", "ok Chosen Aborted"),
    (".execute", "Conflict Aborted"),
    ("logs.look", "ok"),
];

/// Errors that are documented and need more than one caller.
const NOT_ALONE: &[(&str, &str)] = &[
    ("plugins.validate_config", "Busy"),
    ("users.change_password", "Busy"),
    ("users.create", "Busy"),
    ("users.login", "Busy"),
    ("users.reset_password", "Busy"),
    ("users.verify_password", "Busy"),
];

/// Operations that a method counts under another name.
const INNER: &[&str] = &[
    "users.login_lookup",
    // Executions of workflows that are deleted and restored.
    "executions.suspend",
    "executions.maintain",
    // Those that wait for a limit.
    "executions.claim_limited",
    "executions.maintain_limits",
    "executions.sweep_limits",
    "executions.unpark",
    "executions.unpark_all",
    "executions.resume_suspended",
    // What followers of the log share.
    "logs.tail_head",
    "sessions.forget_expired",
    "notes.find_by",
];

/// Calls by method and outcome.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, BTreeMap<String, u64>>);

impl Counts {
    pub(crate) fn count(&mut self, step: &Step, outcome: &Outcome) {
        let method = match &step.what {
            What::Call(call) => call.method(),
            What::Transaction { steps, .. } => {
                for (step, outcome) in steps.iter().zip(&outcome.inner) {
                    self.count(step, outcome);
                }
                "transaction".to_owned()
            }
        };
        *self
            .0
            .entry(method)
            .or_default()
            .entry(outcome.label())
            .or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (method, outcomes) in &other.0 {
            for (outcome, count) in outcomes {
                let all = self.0.entry(method.clone()).or_default();
                *all.entry(outcome.clone()).or_default() += count;
            }
        }
    }

    pub(crate) fn steps(&self) -> usize {
        let counts = self.0.values().flat_map(BTreeMap::values);
        usize::try_from(counts.sum::<u64>()).unwrap_or(0)
    }

    fn of(&self, method: &str, outcome: &str) -> u64 {
        let outcomes = self.0.get(method);
        outcomes
            .and_then(|outcomes| outcomes.get(outcome))
            .copied()
            .unwrap_or(0)
    }

    /// What is missing until every method was called, often enough, and came to
    /// all that it is documented to come to.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected: BTreeMap<&str, BTreeSet<&str>> = EXPECTED
            .iter()
            .map(|(method, outcomes)| (*method, outcomes.split(' ').collect()))
            .collect();
        for (method, errors) in methods() {
            let Some(outcomes) = expected.get(method.as_str()) else {
                wrong.push(format!("{method}: has no step"));
                continue;
            };
            for error in errors {
                let alone = !NOT_ALONE.contains(&(method.as_str(), error.as_str()));
                if alone && !outcomes.contains(error.as_str()) {
                    wrong.push(format!(
                        "{method}: documents {error}, which is not expected"
                    ));
                }
            }
        }
        for (method, outcomes) in &expected {
            let calls: u64 = self.0.get(*method).map_or(0, |of| of.values().sum());
            if calls < LEAST {
                wrong.push(format!("{method}: called {calls} times"));
            }
            for outcome in outcomes {
                if self.of(method, outcome) == 0 {
                    wrong.push(format!("{method}: never came to {outcome}"));
                }
            }
        }
        wrong
    }

    /// The databases saw no operation that has no step.
    pub(crate) fn check_stats(sides: &[Side; 2]) {
        for side in sides {
            for operation in side.db.stats().operations {
                if operation.table == OWN_STATEMENTS {
                    continue;
                }
                let name = format!("{}.{}", operation.table, operation.operation);
                let known = EXPECTED.iter().any(|(method, _)| *method == name);
                assert!(
                    known || INNER.contains(&name.as_str()),
                    "{name} has no step"
                );
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (method, outcomes) in &self.0 {
            let total: u64 = outcomes.values().sum();
            write!(f, "{method:32}{total:6}")?;
            for (outcome, count) in outcomes {
                write!(f, "  {outcome} {count}")?;
            }
            writeln!(f)?;
        }
        write!(f, "{:32}{:6}", "steps", self.steps())
    }
}
