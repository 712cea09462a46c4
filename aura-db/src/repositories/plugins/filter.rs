//! Which plugins, and in which order.

use aura_orm::page::Sort;
use aura_orm::projection;
use chrono::{DateTime, Utc};
use entity::{PluginId, UserId, plugins};
use serde::Serialize;

use crate::repositories::filter::{ListFilter, managed_filter};

projection! {
    /// A plugin without the schema of its configs.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[non_exhaustive]
    pub struct PluginSummary of plugins {
        /// The key.
        pub id: PluginId = Id,
        /// What it is called.
        pub name: String = Name,
        /// What it does.
        pub description: String = Description,
        /// Its version.
        pub version: String = Version,
        /// Who made it.
        pub author: Option<String> = Author,
        /// Whether workflows may use it.
        pub is_enabled: bool = IsEnabled,
        /// When it was first registered.
        pub created_at: DateTime<Utc> = CreatedAt,
        /// When it was last changed.
        pub updated_at: DateTime<Utc> = UpdatedAt,
        /// When it was deleted.
        pub deleted_at: Option<DateTime<Utc>> = DeletedAt,
        /// Who registered it first.
        pub created_by: Option<UserId> = CreatedBy,
        /// Who changed it last.
        pub updated_by: Option<UserId> = UpdatedBy,
    }
}

/// Which plugins, and in which order: by name, unless it is set.
#[derive(Debug, Clone)]
pub struct PluginFilter(pub(super) ListFilter<plugins::Entity>);

impl Default for PluginFilter {
    fn default() -> Self {
        Self(ListFilter::sorted(Sort::asc(plugins::Column::Name)))
    }
}

managed_filter! {
    PluginFilter of plugins by PluginSort {
        /// The name, by code point.
        Name,
        /// The id: the order in which they were first registered.
        Id,
        /// When they were last changed.
        UpdatedAt,
    }, text in [plugins::Column::Name, plugins::Column::Description], "name or description"
}

impl PluginFilter {
    /// Filters those that are enabled, or that are not.
    #[must_use]
    pub fn enabled(self, enabled: bool) -> Self {
        Self(self.0.and(plugins::COLUMN.is_enabled.eq(enabled)))
    }

    /// Filters those of exactly this author.
    #[must_use]
    pub fn author(self, author: impl AsRef<str>) -> Self {
        let author = author.as_ref();
        Self(self.0.and_text("author", author, 160, |author| {
            plugins::COLUMN.author.eq(author)
        }))
    }
}
