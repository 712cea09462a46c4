//! New workflows and changes of them.

use entity::{Document, UserId, WorkflowStatus};
use sea_orm::ActiveValue::{self, Set};

use crate::error::Error;
use crate::validate::Check;

/// A workflow to be created. A draft may be unfinished: its documents are only
/// asked to be objects or arrays within the limits.
#[derive(Debug, Clone)]
pub struct NewWorkflow {
    /// At most 160 characters; need not be unique.
    pub name: String,
    /// Anything, up to 1 MiB.
    pub description: Option<String>,
    /// Whose it is; without one, who acts.
    pub owner: Option<UserId>,
    /// A draft, unless said otherwise.
    pub status: WorkflowStatus,
    /// How it runs. A member `schedule` that is not null makes it
    /// [scheduled](super::WorkflowFilter::scheduled).
    pub settings: Option<Document>,
    /// How its nodes are connected.
    pub connections: Option<Document>,
    /// What it does.
    pub nodes: Option<Document>,
    /// What an imported document holds beside these.
    pub metadata: Option<Document>,
}

impl NewWorkflow {
    /// An empty draft.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            owner: None,
            status: WorkflowStatus::Draft,
            settings: None,
            connections: None,
            nodes: None,
            metadata: None,
        }
    }

    /// With a description.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// That belongs to this user.
    #[must_use]
    pub fn owner(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// With this status.
    #[must_use]
    pub fn status(mut self, status: WorkflowStatus) -> Self {
        self.status = status;
        self
    }

    /// With settings.
    #[must_use]
    pub fn settings(mut self, json: impl Into<Document>) -> Self {
        self.settings = Some(json.into());
        self
    }

    /// With connections.
    #[must_use]
    pub fn connections(mut self, json: impl Into<Document>) -> Self {
        self.connections = Some(json.into());
        self
    }

    /// With nodes.
    #[must_use]
    pub fn nodes(mut self, json: impl Into<Document>) -> Self {
        self.nodes = Some(json.into());
        self
    }

    /// With metadata.
    #[must_use]
    pub fn metadata(mut self, json: impl Into<Document>) -> Self {
        self.metadata = Some(json.into());
        self
    }

    /// Whose it is, when everything about it can be stored.
    pub(super) fn checked(&self, actor: Option<UserId>) -> Result<UserId, Error> {
        let mut check = Check::default();
        check.name("name", &self.name, 160);
        if let Some(text) = &self.description {
            check.long_text("description", text);
        }
        check.container("settings", self.settings.as_ref());
        check.container("connections", self.connections.as_ref());
        check.container("nodes", self.nodes.as_ref());
        check.container("metadata", self.metadata.as_ref());
        let owner = self.owner.or(actor);
        if owner.is_none() {
            check.refuse("owner", "must be given, or use `acting_as`");
        }
        check.done()?;
        owner.ok_or(Error::Ended)
    }
}

/// What changes about a workflow; what isn't mentioned stays.
#[derive(Debug, Clone, Default)]
pub struct WorkflowChange {
    pub(super) name: Option<String>,
    pub(super) description: ActiveValue<Option<String>>,
    pub(super) settings: ActiveValue<Option<Document>>,
    pub(super) connections: ActiveValue<Option<Document>>,
    pub(super) nodes: ActiveValue<Option<Document>>,
    pub(super) metadata: ActiveValue<Option<Document>>,
}

impl WorkflowChange {
    /// No change yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Another description, or none.
    #[must_use]
    pub fn description(mut self, text: Option<String>) -> Self {
        self.description = Set(text);
        self
    }

    /// Other settings, or none.
    #[must_use]
    pub fn settings(mut self, json: Option<Document>) -> Self {
        self.settings = Set(json);
        self
    }

    /// Other connections, or none.
    #[must_use]
    pub fn connections(mut self, json: Option<Document>) -> Self {
        self.connections = Set(json);
        self
    }

    /// Other nodes, or none.
    #[must_use]
    pub fn nodes(mut self, json: Option<Document>) -> Self {
        self.nodes = Set(json);
        self
    }

    /// Other metadata, or none. The history doesn't keep it.
    #[must_use]
    pub fn metadata(mut self, json: Option<Document>) -> Self {
        self.metadata = Set(json);
        self
    }

    pub(super) fn checked(&self) -> Result<(), Error> {
        let mut check = Check::default();
        if let Some(name) = &self.name {
            check.name("name", name, 160);
        }
        if let Set(Some(text)) = &self.description {
            check.long_text("description", text);
        }
        for (field, document) in [
            ("settings", &self.settings),
            ("connections", &self.connections),
            ("nodes", &self.nodes),
            ("metadata", &self.metadata),
        ] {
            if let Set(document) = document {
                check.container(field, document.as_ref());
            }
        }
        check.done()
    }
}
