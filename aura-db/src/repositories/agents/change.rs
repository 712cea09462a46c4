//! New agents and changes of them.

use entity::{UserId, agents};
use sea_orm::ActiveValue::Set;

use crate::repositories::filter::setters;
use crate::validate::Check;
use crate::{IntoDocument, IntoText};

/// An agent to be created, which is enabled.
#[derive(Debug, Clone)]
pub struct NewAgent(pub(super) agents::ActiveModel);

impl NewAgent {
    /// Creates one without settings. The name has at most 120 characters and is unique
    /// among its owner's; `model` is a language model's, of at most 120 characters.
    pub fn new(name: impl Into<String>, model: impl Into<String>) -> Self {
        Self(agents::ActiveModel {
            name: Set(name.into()),
            model: Set(model.into()),
            is_enabled: Set(true),
            ..Default::default()
        })
    }
}

setters!(NewAgent of agents {
    /// Sets the description, of at most 1 MiB.
    description(text: impl IntoText) => 0.description = Set(text.into_text()),
    /// Sets the settings: an object or an array.
    config(json: impl IntoDocument) => 0.config = Set(json.into_document()),
    /// Sets the user whom it belongs to: the actor, unless it is set.
    owner(owner: UserId) => 0.owner_id = Set(owner),
});

/// What changes about an agent; what isn't set stays.
#[derive(Debug, Clone, Default)]
pub struct AgentChange(pub(super) agents::ActiveModel);

impl AgentChange {
    /// Creates a change of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

setters!(AgentChange of agents {
    /// Sets the name.
    name(name: impl Into<String>) => 0.name = Set(name.into()),
    /// Sets the description, or removes it.
    description(text: impl IntoText) => 0.description = Set(text.into_text()),
    /// Sets the language model.
    model(name: impl Into<String>) => 0.model = Set(name.into()),
    /// Sets the settings, or removes them.
    config(json: impl IntoDocument) => 0.config = Set(json.into_document()),
});

/// Checks what is set.
pub(super) fn check(row: &agents::ActiveModel) -> Check {
    let mut check = Check::default();
    check.set_name("name", &row.name, 120);
    check.set_long_text("description", &row.description);
    check.set_name("model", &row.model, 120);
    check.set_container("config", &row.config);
    check
}
