//! New workflows and changes of them.

use entity::{UserId, WorkflowStatus, workflows};
use sea_orm::ActiveValue::Set;

use crate::repositories::filter::setters;
use crate::validate::Check;
use crate::{IntoDocument, IntoText};

/// A workflow to be created. A draft may be unfinished: its documents are only
/// asked to be objects or arrays within the limits.
#[derive(Debug, Clone)]
pub struct NewWorkflow(pub(super) workflows::ActiveModel);

impl NewWorkflow {
    /// Creates an empty draft. The name has at most 160 characters, and need not be unique.
    pub fn new(name: impl Into<String>) -> Self {
        Self(workflows::ActiveModel {
            name: Set(name.into()),
            status: Set(WorkflowStatus::Draft),
            version: Set(1),
            ..Default::default()
        })
    }
}

setters!(NewWorkflow of workflows {
    /// Sets the description, of at most 1 MiB.
    description(text: impl IntoText) => 0.description = Set(text.into_text()),
    /// Sets the user whom it belongs to: the actor, unless it is set.
    owner(owner: UserId) => 0.owner_id = Set(owner),
    /// Sets the status.
    status(status: WorkflowStatus) => 0.status = Set(status),
    /// Sets how it runs. A member `schedule` that is not null makes it
    /// [scheduled](super::WorkflowFilter::scheduled).
    settings(json: impl IntoDocument) => 0.settings = Set(json.into_document()),
    /// Sets how its nodes are connected.
    connections(json: impl IntoDocument) => 0.connections = Set(json.into_document()),
    /// Sets what it does.
    nodes(json: impl IntoDocument) => 0.nodes = Set(json.into_document()),
    /// Sets what an imported document holds beside these.
    metadata(json: impl IntoDocument) => 0.metadata = Set(json.into_document()),
});

/// What changes about a workflow; what isn't set stays.
#[derive(Debug, Clone, Default)]
pub struct WorkflowChange(pub(super) workflows::ActiveModel);

impl WorkflowChange {
    /// Creates a change of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

setters!(WorkflowChange of workflows {
    /// Sets the name.
    name(name: impl Into<String>) => 0.name = Set(name.into()),
    /// Sets the description, or removes it.
    description(text: impl IntoText) => 0.description = Set(text.into_text()),
    /// Sets the settings, or removes them.
    settings(json: impl IntoDocument) => 0.settings = Set(json.into_document()),
    /// Sets the connections, or removes them.
    connections(json: impl IntoDocument) => 0.connections = Set(json.into_document()),
    /// Sets the nodes, or removes them.
    nodes(json: impl IntoDocument) => 0.nodes = Set(json.into_document()),
    /// Sets the metadata, or removes them. The history doesn't keep them.
    metadata(json: impl IntoDocument) => 0.metadata = Set(json.into_document()),
});

/// Checks what is set.
pub(super) fn check(row: &workflows::ActiveModel) -> Check {
    let mut check = Check::default();
    check.set_name("name", &row.name, 160);
    check.set_long_text("description", &row.description);
    check.set_container("settings", &row.settings);
    check.set_container("connections", &row.connections);
    check.set_container("nodes", &row.nodes);
    check.set_container("metadata", &row.metadata);
    check
}
