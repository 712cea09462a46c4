//! What a database returns, with handles instead of its ids.

use aura_db::entity::{agents, plugins};
use aura_db::executions::{Execution, ExecutionAttempt, ExecutionSummary};
use aura_db::logs::Log;
use aura_db::sessions::Authenticated;
use aura_db::workflows::{StatusChange, Workflow, WorkflowVersion, WorkflowVersionSummary};
use aura_db::{
    AgentSummary, Document, PluginSummary, Session, User, UserId, WorkflowDetails, WorkflowSummary,
    WorkflowVersionId,
};
use serde_json::Value;

use crate::ids::Ids;
use crate::notes::{self, NoteId};

/// Something with ids in it.
pub(crate) trait Logical {
    #[must_use]
    fn logical(self, ids: &Ids) -> Self;
}

fn of(user: Option<UserId>, ids: &Ids) -> Option<UserId> {
    user.map(|id| ids.handle(id))
}

impl Logical for User {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = ids.handle(self.id);
        self.created_by = of(self.created_by, ids);
        self.updated_by = of(self.updated_by, ids);
        self
    }
}

impl Logical for Session {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = ids.handle(self.id);
        self.user_id = ids.handle(self.user_id);
        self
    }
}

impl Logical for Authenticated {
    fn logical(mut self, ids: &Ids) -> Self {
        self.user = self.user.logical(ids);
        self.session = self.session.logical(ids);
        self
    }
}

macro_rules! owned {
    ($($row:ty),+) => {
        $(impl Logical for $row {
            fn logical(mut self, ids: &Ids) -> Self {
                self.id = ids.handle(self.id);
                self.owner_id = ids.handle(self.owner_id);
                self.created_by = of(self.created_by, ids);
                self.updated_by = of(self.updated_by, ids);
                self
            }
        })+
    };
}

owned!(Workflow, WorkflowSummary, agents::Model, AgentSummary);

macro_rules! common {
    ($($row:ty),+) => {
        $(impl Logical for $row {
            fn logical(mut self, ids: &Ids) -> Self {
                self.id = ids.handle(self.id);
                self.created_by = of(self.created_by, ids);
                self.updated_by = of(self.updated_by, ids);
                self
            }
        })+
    };
}

common!(plugins::Model, PluginSummary);

impl Logical for notes::Model {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = ids.handle(NoteId(self.id)).0;
        self.owner_id = ids.handle(self.owner_id);
        self.created_by = of(self.created_by, ids);
        self.updated_by = of(self.updated_by, ids);
        self
    }
}

impl Logical for WorkflowDetails {
    fn logical(mut self, ids: &Ids) -> Self {
        self.workflow = self.workflow.logical(ids);
        self.owner = self.owner.map(|owner| owner.logical(ids));
        self.plugins = self.plugins.map(|plugins| plugins.logical(ids));
        self
    }
}

impl Logical for StatusChange {
    fn logical(mut self, ids: &Ids) -> Self {
        self.workflow = self.workflow.logical(ids);
        self
    }
}

impl Logical for WorkflowVersion {
    fn logical(mut self, ids: &Ids) -> Self {
        // Nobody is given it to ask with.
        self.id = WorkflowVersionId(0);
        self.workflow_id = ids.handle(self.workflow_id);
        self.created_by = of(self.created_by, ids);
        self
    }
}

impl Logical for WorkflowVersionSummary {
    fn logical(mut self, ids: &Ids) -> Self {
        self.created_by = of(self.created_by, ids);
        self
    }
}

impl Logical for ExecutionSummary {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = ids.handle(self.id);
        self.workflow_id = ids.handle(self.workflow_id);
        self
    }
}

impl Logical for Execution {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = ids.handle(self.id);
        self.workflow_id = ids.handle(self.workflow_id);
        self.owner_id = ids.handle(self.owner_id);
        // Marks for speed, which may come late.
        self.is_suspended = false;
        self.limit_id = None;
        self
    }
}

impl Logical for ExecutionAttempt {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = 0.into();
        self.execution_id = ids.handle(self.execution_id);
        self
    }
}

impl Logical for Log {
    fn logical(mut self, ids: &Ids) -> Self {
        self.id = ids.handle(self.id);
        self.workflow_id = ids.handle(self.workflow_id);
        self.execution_id = self.execution_id.map(|id| ids.handle(id));
        // PostgreSQL sorts the members of what it can search.
        self.metadata = self.metadata.as_ref().map(sorted);
        self
    }
}

/// With the members of every object in order, and no blanks.
pub(crate) fn sorted(document: &Document) -> Document {
    in_order(document.json().expect("JSON")).into()
}

fn in_order(json: Value) -> Value {
    match json {
        Value::Array(values) => values.into_iter().map(in_order).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .into_iter()
                .map(|(name, value)| (name, in_order(value)))
                .collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Object(members.into_iter().collect())
        }
        value => value,
    }
}

impl<T: Logical> Logical for Vec<T> {
    fn logical(self, ids: &Ids) -> Self {
        self.into_iter().map(|row| row.logical(ids)).collect()
    }
}

impl<T: Logical> Logical for Option<T> {
    fn logical(self, ids: &Ids) -> Self {
        self.map(|row| row.logical(ids))
    }
}

impl<A: Logical, B: Logical> Logical for (A, B) {
    fn logical(self, ids: &Ids) -> Self {
        (self.0.logical(ids), self.1.logical(ids))
    }
}

macro_rules! plain {
    ($($plain:ty),+) => {
        $(impl Logical for $plain {
            fn logical(self, _: &Ids) -> Self {
                self
            }
        })+
    };
}

plain!(
    (),
    bool,
    u32,
    u64,
    aura_db::WorkflowGraph,
    aura_db::ExecutionStats,
    aura_db::LogStats
);
