//! New agents and changes of them.

use entity::{Document, UserId};
use sea_orm::ActiveValue::{self, Set};

/// An agent to be created.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// At most 120 characters, and unique among its owner's.
    pub name: String,
    /// Anything, up to 1 MiB.
    pub description: Option<String>,
    /// Which language model; at most 120 characters.
    pub model: String,
    /// Its settings: an object or an array.
    pub config: Option<Document>,
    /// Whose it is; without one, who acts.
    pub owner: Option<UserId>,
}

impl NewAgent {
    /// An agent without settings.
    pub fn new(name: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            model: model.into(),
            config: None,
            owner: None,
        }
    }

    /// With a description.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// With settings.
    #[must_use]
    pub fn config(mut self, json: impl Into<Document>) -> Self {
        self.config = Some(json.into());
        self
    }

    /// That belongs to this user.
    #[must_use]
    pub fn owner(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self
    }
}

/// What changes about an agent; what isn't mentioned stays.
#[derive(Debug, Clone, Default)]
pub struct AgentChange {
    pub(super) name: Option<String>,
    pub(super) description: ActiveValue<Option<String>>,
    pub(super) model: Option<String>,
    pub(super) config: ActiveValue<Option<Document>>,
}

impl AgentChange {
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

    /// Another language model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Other settings, or none.
    #[must_use]
    pub fn config(mut self, json: Option<Document>) -> Self {
        self.config = Set(json);
        self
    }
}
