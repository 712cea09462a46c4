//! Whether a workflow runs, and whether it could.

use entity::{Action, WorkflowId, WorkflowStatus, workflows};
use sea_orm::ActiveValue::{Set, Unchanged};
use serde::Serialize;

use super::{Workflow, Workflows, load, op};
use crate::error::Error;
use crate::graph::{GraphProblem, WorkflowGraph};
use crate::repositories::ensure_valid_json;
use crate::repositories::owned::lock;

/// A workflow whose status was set.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StatusChange {
    /// As it is now.
    pub workflow: Workflow,
    /// What is wrong in its graph, when it was made active.
    pub warnings: Vec<GraphProblem>,
}

impl Workflows {
    /// Reads the graph of the workflow and reports what is wrong in it.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn check(&self, id: WorkflowId) -> Result<WorkflowGraph, Error> {
        graph(&self.get(id).await?)
    }

    /// Sets the status; the version stays. A workflow that is made active may
    /// have problems in its graph: they come back as warnings.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn set_status(
        &self,
        id: WorkflowId,
        status: WorkflowStatus,
    ) -> Result<StatusChange, Error> {
        self.change_status("set_status", id, status, false).await
    }

    /// Lets the workflow run: [`Workflows::set_status`] to active.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn activate(&self, id: WorkflowId) -> Result<StatusChange, Error> {
        self.change_status("activate", id, WorkflowStatus::Active, false)
            .await
    }

    /// Lets the workflow run if its graph is sound.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::Unsound`], which lists
    /// what is wrong, and the status stays.
    pub async fn activate_if_sound(&self, id: WorkflowId) -> Result<StatusChange, Error> {
        self.change_status("activate_if_sound", id, WorkflowStatus::Active, true)
            .await
    }

    /// Makes the workflow a draft again, which doesn't run.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn deactivate(&self, id: WorkflowId) -> Result<StatusChange, Error> {
        self.change_status("deactivate", id, WorkflowStatus::Draft, false)
            .await
    }

    async fn change_status(
        &self,
        name: &'static str,
        id: WorkflowId,
        status: WorkflowStatus,
        strict: bool,
    ) -> Result<StatusChange, Error> {
        let op = op(name, Action::Update);
        self.0
            .atomic(op, |h| async move {
                lock::<workflows::Entity>(&h, id.0).await?;
                let mut warnings = Vec::new();
                if status == WorkflowStatus::Active {
                    let graph = graph(&load(&h, id).await?)?;
                    if strict && !graph.is_sound() {
                        return Err(Error::Unsound {
                            workflow: id,
                            problems: graph.problems,
                        });
                    }
                    warnings = graph.problems;
                }
                let row = workflows::ActiveModel {
                    id: Unchanged(id),
                    status: Set(status),
                    ..Default::default()
                };
                let workflow = h.rows::<workflows::Entity>().update(row).await?;
                Ok(StatusChange { workflow, warnings })
            })
            .await
    }
}

/// What is wrong in valid JSON is the graph's to tell.
fn graph(workflow: &Workflow) -> Result<WorkflowGraph, Error> {
    let (nodes, connections) = (workflow.nodes.as_ref(), workflow.connections.as_ref());
    for (column, document) in [
        (workflows::Column::Nodes, nodes),
        (workflows::Column::Connections, connections),
    ] {
        if let Some(document) = document {
            ensure_valid_json(column, workflow.id.0, document)?;
        }
    }
    Ok(WorkflowGraph::read(nodes, connections))
}
