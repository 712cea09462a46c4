//! Workflows.

use aura_db::{
    Action, Document, NewWorkflow, PluginId, Resource, UserId, Workflow, WorkflowGraph, WorkflowId,
    WorkflowSort, WorkflowStatus,
};
use serde_json::{Value, json};

use super::check::{Check, holds, set};
use super::list::{page, visible, whole, without};
use super::{Allowed, Answer, Ctx, Model, amend};
use crate::outcome::{Failed, json_of};
use crate::steps::workflows::{Call, Query};

const DOCUMENTS: [&str; 5] = [
    "deleted_with_owner",
    "settings",
    "connections",
    "nodes",
    "metadata",
];

impl Model {
    pub(super) fn workflows(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Workflow);
        match call {
            Call::Create(new) => {
                let owner = storable(new, ctx)?;
                may(Action::Create)?.owned(owner)?;
                self.user(owner)?;
                Ok(json_of(self.add_workflow(ctx, new, owner)))
            }
            Call::Find(id) => {
                let allowed = may(Action::Read)?;
                match self.workflow(*id) {
                    Ok(row) if allowed.shows(row.owner_id) => Ok(json_of(row)),
                    _ => Ok(Value::Null),
                }
            }
            Call::Get(id) => Ok(json_of(self.own_workflow(may(Action::Read)?, *id)?)),
            Call::GetDetails(id) => self.details(ctx, *id),
            Call::List(query, pages) => {
                let rows = self.fitting(may(Action::Read), query)?;
                let tell = |row: &Workflow| without(json_of(row), &DOCUMENTS);
                page(
                    rows,
                    |row| key(row, query.sort),
                    query.descending,
                    *pages,
                    tell,
                )
            }
            Call::ListFull(query, pages) => {
                let rows = self.fitting(may(Action::Read), query)?;
                page(
                    rows,
                    |row| key(row, query.sort),
                    query.descending,
                    *pages,
                    whole,
                )
            }
            Call::Attach(id, plugin) => {
                self.own_workflow(may(Action::Update)?, *id)?;
                self.plugin(*plugin)?;
                let new = self.attached.insert((id.0, plugin.0));
                self.note(ctx, *id, new)
            }
            Call::Detach(id, plugin) => {
                self.own_workflow(may(Action::Update)?, *id)?;
                let gone = self.attached.remove(&(id.0, plugin.0));
                self.note(ctx, *id, gone)
            }
            Call::Duplicate(id, name) => self.duplicate(ctx, *id, name.as_ref()),
            Call::Delete(id) => {
                self.own_workflow(may(Action::Delete)?, *id)?;
                let now = self.now;
                self.amended(ctx, *id, |row| {
                    (row.deleted_at, row.deleted_with_owner) = (Some(now), false);
                })?;
                Ok(Value::Null)
            }
            Call::Restore(id) => {
                let row = self.any_workflow(may(Action::Delete)?, *id)?;
                if row.deleted_at.is_none() {
                    return Ok(json_of(row));
                }
                if self.user(row.owner_id).is_err() {
                    return Err(state(*id));
                }
                self.amended(ctx, *id, |row| {
                    (row.deleted_at, row.deleted_with_owner) = (None, false);
                })
            }
            Call::Purge(id) => {
                let row = self.any_workflow(may(Action::Delete)?, *id)?;
                if row.deleted_at.is_none() {
                    return Err(state(*id));
                }
                self.drop_workflow(id.0);
                Ok(Value::Null)
            }
            Call::Check(id) => {
                let row = self.own_workflow(may(Action::Read)?, *id)?;
                Ok(json_of(graph(row)))
            }
            Call::SetStatus(id, status) => self.set_status(ctx, *id, *status, false),
            Call::Activate(id) => self.set_status(ctx, *id, WorkflowStatus::Active, false),
            Call::ActivateIfSound(id) => self.set_status(ctx, *id, WorkflowStatus::Active, true),
            Call::Deactivate(id) => self.set_status(ctx, *id, WorkflowStatus::Draft, false),
        }
    }

    fn details(&self, ctx: Ctx, id: WorkflowId) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Workflow);
        let row = self.own_workflow(may(Action::Read)?, id)?;
        let plugins = self.plugins.rows.values();
        let mut plugins: Vec<_> = plugins
            .filter(|plugin| plugin.deleted_at.is_none())
            .filter(|plugin| self.attached.contains(&(id.0, plugin.id.0)))
            .collect();
        plugins.sort_by(|left, right| left.name.cmp(&right.name));
        let owner = self.user(row.owner_id)?;
        let readable = |resource| self.enter(ctx, Action::Read, resource).is_ok();
        let owner = readable(Resource::User).then_some(owner);
        let plugins = readable(Resource::Plugin).then_some(plugins);
        Ok(json!({"workflow": row, "owner": owner, "plugins": plugins}))
    }

    fn duplicate(&mut self, ctx: Ctx, id: WorkflowId, name: Option<&String>) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Workflow);
        let row = self.own_workflow(may(Action::Create)?, id)?;
        let copied = NewWorkflow::new(name.cloned().unwrap_or_else(|| {
            let start: String = row.name.chars().take(153).collect();
            start + " (copy)"
        }));
        let owner = ctx.actor.unwrap_or(row.owner_id);
        let new = copied
            .owner(owner)
            .description(row.description.clone())
            .settings(row.settings.clone())
            .connections(row.connections.clone())
            .nodes(row.nodes.clone())
            .metadata(row.metadata.clone());
        storable(&new, ctx)?;
        self.user(owner)?;
        let copy = self.add_workflow(ctx, &new, owner);
        let plugins = self
            .attached
            .iter()
            .filter(|(workflow, _)| *workflow == id.0);
        let plugins: Vec<_> = plugins.map(|(_, plugin)| (copy.id.0, *plugin)).collect();
        self.attached.extend(plugins);
        Ok(json_of(copy))
    }

    /// A workflow that is not deleted.
    pub(super) fn workflow(&self, id: WorkflowId) -> Result<&Workflow, Failed> {
        self.workflows
            .rows
            .get(&id.0)
            .filter(|row| row.deleted_at.is_none())
            .ok_or_else(|| Failed::not_found("workflow", &id))
    }

    /// The same, that may be reached.
    pub(super) fn own_workflow(
        &self,
        allowed: Allowed,
        id: WorkflowId,
    ) -> Result<&Workflow, Failed> {
        let row = self.any_workflow(allowed, id)?;
        self.workflow(row.id)
    }

    /// Deleted or not.
    fn any_workflow(&self, allowed: Allowed, id: WorkflowId) -> Result<&Workflow, Failed> {
        let row = self.workflows.rows.get(&id.0);
        row.filter(|row| allowed.shows(row.owner_id))
            .ok_or_else(|| Failed::not_found("workflow", &id))
    }

    fn add_workflow(&mut self, ctx: Ctx, new: &NewWorkflow, owner: UserId) -> Workflow {
        let (now, new) = (self.now, new.as_ref());
        self.workflows.insert(|id| Workflow {
            id: WorkflowId(id),
            name: set(&new.name),
            description: set(&new.description),
            status: *new.status.as_ref(),
            version: 1,
            owner_id: owner,
            deleted_with_owner: false,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            created_by: ctx.actor,
            updated_by: ctx.actor,
            settings: set(&new.settings),
            connections: set(&new.connections),
            nodes: set(&new.nodes),
            metadata: set(&new.metadata),
        })
    }

    pub(super) fn amended(
        &mut self,
        ctx: Ctx,
        id: WorkflowId,
        change: impl FnOnce(&mut Workflow),
    ) -> Answer {
        let now = self.now;
        let row = self.workflows.rows.get_mut(&id.0);
        let row = row.ok_or_else(|| Failed::not_found("workflow", &id))?;
        change(row);
        amend!(row, ctx, now);
        Ok(json_of(&*row))
    }

    fn note(&mut self, ctx: Ctx, id: WorkflowId, changed: bool) -> Answer {
        if changed {
            self.amended(ctx, id, |_| {})?;
        }
        Ok(json!(changed))
    }

    fn set_status(
        &mut self,
        ctx: Ctx,
        id: WorkflowId,
        status: WorkflowStatus,
        strict: bool,
    ) -> Answer {
        let allowed = self.enter(ctx, Action::Update, Resource::Workflow)?;
        let graph = graph(self.own_workflow(allowed, id)?);
        let active = status == WorkflowStatus::Active;
        if strict && !graph.is_sound() {
            return Err(Failed::Unsound {
                workflow: id,
                problems: graph.problems,
            });
        }
        let warnings = if active { graph.problems } else { Vec::new() };
        let workflow = self.amended(ctx, id, |row| row.status = status)?;
        Ok(json!({"workflow": workflow, "warnings": warnings}))
    }

    fn fitting(
        &self,
        allowed: Result<Allowed, Failed>,
        query: &Query,
    ) -> Result<Vec<&Workflow>, Failed> {
        let mut check = Check::default();
        check.optional("name", query.name.as_ref(), 160);
        check.optional("text", query.text.as_ref(), 200);
        check.done()?;
        let allowed = allowed?;
        let uses = |row: &Workflow, plugin: PluginId| self.attached.contains(&(row.id.0, plugin.0));
        let fits = |row: &&Workflow| {
            allowed.shows(row.owner_id)
                && visible(query.deleted, row.deleted_at.is_some())
                && query.owner.is_none_or(|owner| row.owner_id == owner)
                && query.status.is_none_or(|status| row.status == status)
                && query.plugin.is_none_or(|plugin| uses(row, plugin))
                && query.name.as_ref().is_none_or(|name| row.name == *name)
                && (!query.scheduled || scheduled(row))
                && query.text.as_ref().is_none_or(|text| {
                    let description = row.description.as_ref();
                    holds(&row.name, text)
                        || description.is_some_and(|description| holds(description, text))
                })
        };
        Ok(self.workflows.rows.values().filter(fits).collect())
    }
}

fn state(id: WorkflowId) -> Failed {
    Failed::State {
        what: "workflow".to_owned(),
        id: id.0,
    }
}

fn key(row: &Workflow, sort: WorkflowSort) -> (String, i64) {
    let key = match sort {
        WorkflowSort::Id => String::new(),
        WorkflowSort::Name => row.name.clone(),
        WorkflowSort::CreatedAt => row.created_at.timestamp_micros().to_string(),
        WorkflowSort::UpdatedAt => row.updated_at.timestamp_micros().to_string(),
    };
    (key, row.id.0)
}

fn storable(new: &NewWorkflow, ctx: Ctx) -> Result<UserId, Failed> {
    let new = new.as_ref();
    let mut check = Check::default();
    check.name("name", &set(&new.name), 160);
    check.optional("description", set(&new.description).as_ref(), usize::MAX);
    check.container("settings", set(&new.settings).as_ref());
    check.container("connections", set(&new.connections).as_ref());
    check.container("nodes", set(&new.nodes).as_ref());
    check.container("metadata", set(&new.metadata).as_ref());
    let owner = new.owner_id.try_as_ref().copied().or(ctx.actor);
    check.refuse("owner", owner.is_none());
    check.done()?;
    owner.ok_or(Failed::Aborted)
}

fn graph(row: &Workflow) -> WorkflowGraph {
    WorkflowGraph::read(row.nodes.as_ref(), row.connections.as_ref())
}

/// Active, with a member `schedule` that is not null in its settings, or a node whose
/// `type` speaks of a schedule or of cron.
fn scheduled(row: &Workflow) -> bool {
    let json = |document: &Document| document.json().expect("JSON");
    let settings = row.settings.as_ref().map(json);
    let schedule = settings.as_ref().and_then(|json| json.get("schedule"));
    let speaks = |node: &Value| {
        let kind = node.get("type").filter(|kind| !kind.is_null());
        let kind = kind.map(|kind| {
            kind.as_str()
                .map_or_else(|| kind.to_string(), str::to_owned)
        });
        kind.is_some_and(|kind| holds(&kind, "schedule") || holds(&kind, "cron"))
    };
    let nodes = match row.nodes.as_ref().map(json) {
        Some(Value::Array(nodes)) => nodes.iter().any(speaks),
        Some(Value::Object(nodes)) => nodes.values().any(speaks),
        _ => false,
    };
    row.status == WorkflowStatus::Active
        && (nodes || schedule.is_some_and(|schedule| !schedule.is_null()))
}
