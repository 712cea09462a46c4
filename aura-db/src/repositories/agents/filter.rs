//! Which agents, and in which order.

use aura_orm::projection;
use chrono::{DateTime, Utc};
use entity::{AgentId, UserId, agents};
use sea_orm::ColumnTrait;
use serde::Serialize;

use crate::repositories::filter::{ListFilter, managed_filter};

projection! {
    /// An agent without its settings.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[non_exhaustive]
    pub struct AgentSummary of agents {
        /// The key.
        pub id: AgentId = Id,
        /// What it is called.
        pub name: String = Name,
        /// What it is for.
        pub description: Option<String> = Description,
        /// Which language model.
        pub model: String = Model,
        /// Whether workflows may use it.
        pub is_enabled: bool = IsEnabled,
        /// Whose it is.
        pub owner_id: UserId = OwnerId,
        /// When it was created.
        pub created_at: DateTime<Utc> = CreatedAt,
        /// When it was last changed.
        pub updated_at: DateTime<Utc> = UpdatedAt,
        /// When it was deleted.
        pub deleted_at: Option<DateTime<Utc>> = DeletedAt,
        /// Who created it.
        pub created_by: Option<UserId> = CreatedBy,
        /// Who changed it last.
        pub updated_by: Option<UserId> = UpdatedBy,
    }
}

/// Which agents, and in which order: by id, unless it is set.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter(pub(super) ListFilter<agents::Entity>);

managed_filter! {
    AgentFilter of agents by AgentSort {
        /// The id: the order in which they were created.
        Id,
        /// The name, by code point.
        Name,
        /// When they were last changed.
        UpdatedAt,
    }, text in [agents::Column::Name, agents::Column::Description], "name or description"
}

impl AgentFilter {
    /// Creates a filter of those of a user.
    #[must_use]
    pub fn owner(owner: UserId) -> Self {
        Self(ListFilter::default().and(agents::COLUMN.owner_id.eq(owner)))
    }

    /// Filters those that are enabled, or that are not.
    #[must_use]
    pub fn enabled(self, enabled: bool) -> Self {
        Self(self.0.and(agents::COLUMN.is_enabled.eq(enabled)))
    }
}
