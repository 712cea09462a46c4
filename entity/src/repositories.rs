//! What repositories know of the tables: their names in errors, and what each role may do
//! with their rows. The rules about a row's values are `aura-db`'s, whose repositories are
//! the way to write these tables.

use aura_orm::{RepositoryEntity, Scope};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait,
};

use crate::access::{Action, Resource};
use crate::types::Role;
use crate::{agents, executions, logs, plugins, users, workflows};

impl RepositoryEntity for users::Entity {
    fn name() -> &'static str {
        "user"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        allowed(role, action, Resource::User).map(|_| Scope::Any)
    }
}

impl RepositoryEntity for plugins::Entity {
    fn name() -> &'static str {
        "plugin"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        allowed(role, action, Resource::Plugin).map(|_| Scope::Any)
    }
}

impl RepositoryEntity for workflows::Entity {
    fn name() -> &'static str {
        "workflow"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        allowed(role, action, Resource::Workflow)
    }
}

impl RepositoryEntity for agents::Entity {
    fn name() -> &'static str {
        "agent"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        allowed(role, action, Resource::Agent)
    }
}

impl RepositoryEntity for executions::Entity {
    fn name() -> &'static str {
        "execution"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        allowed(role, action, Resource::Execution)
    }

    fn own_rows(user: i64) -> Option<Condition> {
        Some(of_workflows_of(executions::Column::WorkflowId, user))
    }
}

impl RepositoryEntity for logs::Entity {
    fn name() -> &'static str {
        "log entry"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        allowed(role, action, Resource::Execution)
    }

    fn own_rows(user: i64) -> Option<Condition> {
        Some(of_workflows_of(logs::Column::WorkflowId, user))
    }
}

/// Returns whose rows a role may do this with, by AURA's permission matrix.
fn allowed(role: &str, action: Action, resource: Resource) -> Option<Scope> {
    Role::try_from_value(&role.to_owned())
        .ok()?
        .scope(action, resource)
}

/// Returns the condition of the rows whose workflow belongs to a user.
fn of_workflows_of(workflow_id: impl ColumnTrait, user: i64) -> Condition {
    let own = workflows::Entity::find()
        .select_only()
        .column(workflows::Column::Id)
        .filter(workflows::Column::OwnerId.eq(user));
    Condition::all().add(workflow_id.in_subquery(own.into_query()))
}
