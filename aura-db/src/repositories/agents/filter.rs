//! Which agents, and in which order.

use chrono::{DateTime, Utc};
use entity::{AgentId, UserId, agents};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, Select};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::repositories::filter::{MAX_SEARCH, listed, managed_filter};
use crate::repositories::summary::summary;
use crate::validate::Check;
use aura_orm::page::{Sort, contains_ci};
use aura_orm::repository::Deleted;

/// An agent without its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AgentSummary {
    /// The key.
    pub id: AgentId,
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Which language model.
    pub model: String,
    /// Whether workflows may use it.
    pub is_enabled: bool,
    /// Whose it is.
    pub owner_id: UserId,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Who created it.
    pub created_by: Option<UserId>,
    /// Who changed it last.
    pub updated_by: Option<UserId>,
}

summary!(AgentSummary of agents {
    id: Id, name: Name, description: Description, model: Model, is_enabled: IsEnabled, owner_id: OwnerId, created_at: CreatedAt, updated_at: UpdatedAt, deleted_at: DeletedAt, created_by: CreatedBy, updated_by: UpdatedBy,
});

/// Which agents, and in which order.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    owner: Option<UserId>,
    enabled: Option<bool>,
    text: Option<String>,
    deleted: Deleted,
    sort: AgentSort,
    descending: bool,
}

/// What agents are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentSort {
    /// The id: the order in which they were created.
    #[default]
    Id,
    /// The name, by code point.
    Name,
    /// When they were last changed.
    UpdatedAt,
}

impl AgentFilter {
    /// All agents that are not deleted, by id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this user.
    #[must_use]
    pub fn owner(owner: UserId) -> Self {
        Self {
            owner: Some(owner),
            ..Self::new()
        }
    }

    /// Those that are enabled, or that are not.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = Some(enabled);
        self
    }

    managed_filter!(AgentSort, "name or description");

    pub(super) fn select(&self, h: &Context) -> Result<Select<agents::Entity>, Error> {
        let mut check = Check::default();
        check.optional("text", self.text.as_deref(), MAX_SEARCH);
        check.done()?;
        let select = agents::Entity::find().filter(
            Condition::all()
                .add(h.own_rows(agents::Column::OwnerId))
                .add_option(self.owner.map(|owner| agents::COLUMN.owner_id.eq(owner)))
                .add_option(
                    self.enabled
                        .map(|enabled| agents::COLUMN.is_enabled.eq(enabled)),
                )
                .add_option(self.text.as_deref().map(|text| {
                    Condition::any()
                        .add(contains_ci(agents::Column::Name, text))
                        .add(contains_ci(agents::Column::Description, text))
                })),
        );
        Ok(listed(self.deleted, select))
    }

    pub(super) fn sorted(&self) -> Sort<agents::Entity> {
        let sort = Sort::asc(match self.sort {
            AgentSort::Id => agents::Column::Id,
            AgentSort::Name => agents::Column::Name,
            AgentSort::UpdatedAt => agents::Column::UpdatedAt,
        });
        if self.descending {
            sort.reverse()
        } else {
            sort
        }
    }
}
