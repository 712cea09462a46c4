//! The versions of workflows.

use aura_db::sea_orm::ActiveValue::{self, Set};
use aura_db::workflows::{HISTORY, WorkflowVersion};
use aura_db::{Action, Document, Resource, WorkflowId, WorkflowVersionId};
use serde_json::json;

use super::check::{Check, given};
use super::list::{page, without};
use super::{Answer, Ctx, Model};
use crate::outcome::{Failed, json_of};
use crate::steps::history::{Call, Change};

impl Model {
    pub(super) fn history(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Workflow);
        match call {
            Call::Update(id, version, change) => {
                storable(change)?;
                self.own_workflow(may(Action::Update)?, *id)?;
                self.revise(ctx, *id, *version, change)
            }
            Call::History(id, pages) => {
                self.own_workflow(may(Action::Read)?, *id)?;
                let versions = self.versions.values();
                let versions = versions.filter(|row| row.workflow_id == *id).collect();
                let tell = |row: &WorkflowVersion| {
                    let columns = ["id", "workflow_id", "settings", "connections", "nodes"];
                    without(json_of(row), &columns)
                };
                page(versions, |row| ((), row.version), true, *pages, tell)
            }
            Call::Version(id, version) => {
                self.own_workflow(may(Action::Read)?, *id)?;
                self.earlier(*id, *version).map(json_of)
            }
            Call::RestoreVersion(id, read, version) => {
                let row = self.own_workflow(may(Action::Update)?, *id)?;
                stale(*id, *read, row.version)?;
                let earlier = self.earlier(*id, *version)?.clone();
                let change = Change {
                    name: Some(earlier.name),
                    description: Set(earlier.description),
                    settings: Set(earlier.settings),
                    connections: Set(earlier.connections),
                    nodes: Set(earlier.nodes),
                    metadata: ActiveValue::NotSet,
                };
                self.revise(ctx, *id, *read, &change)
            }
            Call::PruneHistory(id, keep) => {
                self.own_workflow(may(Action::Delete)?, *id)?;
                let keep = usize::try_from(*keep).unwrap_or(usize::MAX);
                Ok(json!(self.keep_versions(*id, keep)))
            }
        }
    }

    fn earlier(&self, id: WorkflowId, version: i64) -> Result<&WorkflowVersion, Failed> {
        self.versions.get(&(id.0, version)).ok_or_else(|| {
            Failed::not_found("earlier version", &format!("{version} of workflow {id}"))
        })
    }

    /// The state before goes into the history, of which the newest are kept.
    fn revise(&mut self, ctx: Ctx, id: WorkflowId, read: i64, change: &Change) -> Answer {
        let row = self.workflow(id)?;
        stale(id, read, row.version)?;
        let before = WorkflowVersion {
            id: WorkflowVersionId(0),
            workflow_id: id,
            version: row.version,
            name: row.name.clone(),
            description: row.description.clone(),
            created_at: row.updated_at,
            created_by: row.updated_by,
            settings: row.settings.clone(),
            connections: row.connections.clone(),
            nodes: row.nodes.clone(),
        };
        self.versions.insert((id.0, read), before);
        self.keep_versions(id, usize::try_from(HISTORY).unwrap_or(0));
        let set = |column: &mut Option<Document>, json: &ActiveValue<Option<Document>>| {
            if let Set(json) = json {
                column.clone_from(json);
            }
        };
        self.amended(ctx, id, |row| {
            row.version += 1;
            if let Some(name) = &change.name {
                row.name.clone_from(name);
            }
            if let Set(text) = &change.description {
                row.description.clone_from(text);
            }
            set(&mut row.settings, &change.settings);
            set(&mut row.connections, &change.connections);
            set(&mut row.nodes, &change.nodes);
            set(&mut row.metadata, &change.metadata);
        })
    }

    /// Forgets all but the newest, and says how many.
    fn keep_versions(&mut self, id: WorkflowId, keep: usize) -> usize {
        let keys = self.versions.keys().rev();
        let old = keys.filter(|(workflow, _)| *workflow == id.0).skip(keep);
        let old: Vec<_> = old.copied().collect();
        for key in &old {
            self.versions.remove(key);
        }
        old.len()
    }
}

fn stale(workflow: WorkflowId, read: i64, found: i64) -> Result<(), Failed> {
    if read == found {
        return Ok(());
    }
    Err(Failed::Stale {
        what: "workflow".to_owned(),
        id: workflow.0,
        read,
        found,
    })
}

fn storable(change: &Change) -> Result<(), Failed> {
    let mut check = Check::default();
    if let Some(name) = &change.name {
        check.name("name", name, 160);
    }
    let description = given(&change.description);
    check.optional("description", description, usize::MAX);
    let documents = [
        ("settings", &change.settings),
        ("connections", &change.connections),
        ("nodes", &change.nodes),
        ("metadata", &change.metadata),
    ];
    for (field, json) in documents {
        check.container(field, given(json));
    }
    check.done()
}
