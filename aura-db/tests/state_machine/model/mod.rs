//! What every call must come to, in memory and on one page each: written from
//! the documentation, not from the code.

mod agents;
mod check;
mod executions;
mod history;
mod leases;
mod limits;
mod list;
mod logs;
mod notes;
mod plugins;
mod sessions;
mod users;
mod workflows;

use std::collections::{BTreeMap, BTreeSet};

use aura_db::agents::Agent;
use aura_db::plugins::Plugin;
use aura_db::testing::TestClock;
use aura_db::workflows::WorkflowVersion;
use aura_db::{
    Action, Clock, Execution, ExecutionAttempt, LimitOf, Log, Resource, Scope, Session, User,
    UserId, Workflow,
};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::outcome::{Failed, Outcome};
use crate::steps::logs::Query;
use crate::steps::{Call, Who};

/// What a call returns.
type Answer = Result<Value, Failed>;

/// Rows by handle. Handles are counted, also those of rows that are gone.
#[derive(Debug, Clone)]
pub(crate) struct Rows<T> {
    pub(crate) rows: BTreeMap<i64, T>,
    count: i64,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<T: Clone> Rows<T> {
    pub(crate) fn count(&self) -> i64 {
        self.count
    }

    fn insert(&mut self, row: impl FnOnce(i64) -> T) -> T {
        self.count += 1;
        let row = row(self.count);
        self.rows.insert(self.count, row.clone());
        row
    }
}

/// Everything that is stored. Ids are handles; a user's password is kept as it
/// is where its hash would be, a session's token as its handle.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) now: DateTime<Utc>,
    pub(crate) users: Rows<User>,
    pub(crate) sessions: Rows<Session>,
    pub(crate) plugins: Rows<Plugin>,
    pub(crate) workflows: Rows<Workflow>,
    pub(crate) attached: BTreeSet<(i64, i64)>,
    versions: BTreeMap<(i64, i64), WorkflowVersion>,
    pub(crate) executions: Rows<Execution>,
    attempts: BTreeMap<i64, Vec<ExecutionAttempt>>,
    pub(crate) turns: leases::Turns,
    limits: limits::Limits,
    pub(crate) logs: Rows<Log>,
    pub(crate) agents: Rows<Agent>,
    pub(crate) notes: Rows<crate::notes::Model>,
    /// How many tokens were given out.
    pub(crate) tokens: usize,
    /// The open follower of the logs: who, what, and behind which entry.
    pub(crate) tail: Option<(Ctx, Query, i64)>,
    pub(crate) in_transaction: bool,
    /// A statement of the open transaction has failed.
    pub(crate) broken: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            now: TestClock::default().now(),
            users: Rows::default(),
            sessions: Rows::default(),
            plugins: Rows::default(),
            workflows: Rows::default(),
            attached: BTreeSet::new(),
            versions: BTreeMap::new(),
            executions: Rows::default(),
            attempts: BTreeMap::new(),
            turns: leases::Turns::default(),
            limits: limits::Limits::default(),
            logs: Rows::default(),
            agents: Rows::default(),
            notes: Rows::default(),
            tokens: 0,
            tail: None,
            in_transaction: false,
            broken: false,
        }
    }
}

/// On whose behalf a call is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ctx {
    pub(crate) actor: Option<UserId>,
    pub(crate) restricted: bool,
}

impl Ctx {
    pub(crate) fn with(self, who: Who) -> Self {
        match who {
            Who::Same => self,
            Who::Acting(user) => Self {
                actor: Some(user),
                ..self
            },
            Who::Restricted(user) => Self {
                actor: Some(user),
                restricted: true,
            },
        }
    }
}

/// What a call may reach.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    ctx: Ctx,
    needs: (Action, Resource),
    own: Option<UserId>,
}

impl Allowed {
    fn forbidden(&self) -> Failed {
        Failed::Forbidden {
            user: self.ctx.actor.unwrap_or(UserId(0)),
            action: self.needs.0,
            what: self.needs.1.as_str(),
        }
    }

    /// Refuses what is another's.
    fn owned(&self, owner: UserId) -> Result<(), Failed> {
        match self.own {
            Some(user) if user != owner => Err(self.forbidden()),
            _ => Ok(()),
        }
    }

    /// Whether lists show what belongs to this one.
    fn shows(&self, owner: UserId) -> bool {
        self.own.is_none_or(|user| user == owner)
    }
}

impl Model {
    /// What a call comes to, and what it changes.
    pub(crate) fn call(&mut self, ctx: Ctx, call: &Call) -> Outcome {
        if self.broken && !ctx.restricted && call.lists() {
            // A page that can't be used is refused before a statement is run.
            let mut whole = self.clone();
            whole.broken = false;
            if let Err(refused @ Failed::Validation(_)) = whole.answer(ctx, call) {
                return Outcome::of(Err(refused));
            }
        }
        let outcome = Outcome::of(self.answer(ctx, call));
        self.unpark_deleted();
        outcome
    }

    fn answer(&mut self, ctx: Ctx, call: &Call) -> Answer {
        match call {
            Call::Users(call) => self.users(ctx, call),
            Call::Sessions(call) => self.sessions(ctx, call),
            Call::Workflows(call) => self.workflows(ctx, call),
            Call::History(call) => self.history(ctx, call),
            Call::Executions(call) => self.executions(ctx, call),
            Call::Logs(call) => self.logs(ctx, call),
            Call::Plugins(call) => self.plugins(ctx, call),
            Call::Agents(call) => self.agents(ctx, call),
            Call::Notes(call) => self.notes(ctx, call),
            Call::Broken(_) if self.broken => Err(Failed::Aborted),
            Call::Broken(_) => {
                self.broken = true;
                Err(Failed::conflict("users", &["email"], false))
            }
        }
    }

    /// Lists of what [`Model`] has beside the big lists.
    pub(crate) fn rest(&self) -> Vec<Call> {
        use crate::steps::pages::Pages;
        use crate::steps::{history, sessions, workflows};
        let users = self.users.rows.values();
        let sessions = users.map(|user| Call::Sessions(sessions::Call::List(user.id)));
        let versions = self.versions.keys().map(|(workflow, version)| {
            Call::History(history::Call::Version((*workflow).into(), *version))
        });
        let workflows = self.workflows.rows.values().flat_map(|row| {
            [
                Call::History(history::Call::History(row.id, Pages::ALL)),
                Call::Workflows(workflows::Call::GetDetails(row.id)),
            ]
        });
        sessions.chain(versions).chain(workflows).collect()
    }

    /// Whether the call may be made at all: not in a transaction that is
    /// broken, and restricted only as the role allows.
    fn enter(&self, ctx: Ctx, action: Action, resource: Resource) -> Result<Allowed, Failed> {
        if self.broken {
            return Err(Failed::Aborted);
        }
        let mut allowed = Allowed {
            ctx,
            needs: (action, resource),
            own: None,
        };
        if !ctx.restricted {
            return Ok(allowed);
        }
        let user = ctx.actor.and_then(|id| self.able(id));
        match user.and_then(|user| user.role.scope(action, resource)) {
            None => Err(allowed.forbidden()),
            Some(reach) => {
                allowed.own = ctx.actor.filter(|_| reach == Scope::Own);
                Ok(allowed)
            }
        }
    }

    /// A user who is not deleted.
    fn user(&self, id: UserId) -> Result<&User, Failed> {
        self.users
            .rows
            .get(&id.0)
            .filter(|user| user.deleted_at.is_none())
            .ok_or_else(|| Failed::not_found("user", &id))
    }

    /// A user who may log in.
    fn able(&self, id: UserId) -> Option<&User> {
        self.user(id).ok().filter(|user| user.is_active)
    }

    /// What goes with a workflow that goes.
    fn drop_workflow(&mut self, id: i64) {
        self.workflows.rows.remove(&id);
        self.limits.drop(LimitOf::Workflow(id.into()));
        self.attached.retain(|(workflow, _)| *workflow != id);
        self.versions.retain(|(workflow, _), _| *workflow != id);
        self.executions
            .rows
            .retain(|_, row| row.workflow_id.0 != id);
        self.logs.rows.retain(|_, row| row.workflow_id.0 != id);
    }
}

/// Notes a change.
macro_rules! amend {
    ($row:expr, $ctx:expr, $now:expr) => {{
        $row.updated_at = $now;
        $row.updated_by = $ctx.actor;
    }};
}
use amend;
