//! Which plugins, and in which order.

use chrono::{DateTime, Utc};
use entity::{PluginId, UserId, plugins};
use sea_orm::{Condition, EntityTrait, QueryFilter, Select};
use serde::Serialize;

use crate::error::Error;
use crate::repositories::filter::{MAX_SEARCH, listed, managed_filter};
use crate::repositories::summary::summary;
use crate::validate::Check;
use aura_orm::page::{Sort, contains_ci};
use aura_orm::repository::Deleted;

/// A plugin without the schema of its configs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PluginSummary {
    /// The key.
    pub id: PluginId,
    /// What it is called.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Its version.
    pub version: String,
    /// Who made it.
    pub author: Option<String>,
    /// Whether workflows may use it.
    pub is_enabled: bool,
    /// When it was first registered.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Who registered it first.
    pub created_by: Option<UserId>,
    /// Who changed it last.
    pub updated_by: Option<UserId>,
}

summary!(PluginSummary of plugins {
    id: Id, name: Name, description: Description, version: Version, author: Author, is_enabled: IsEnabled, created_at: CreatedAt, updated_at: UpdatedAt, deleted_at: DeletedAt, created_by: CreatedBy, updated_by: UpdatedBy,
});

/// Which plugins, and in which order.
#[derive(Debug, Clone, Default)]
pub struct PluginFilter {
    enabled: Option<bool>,
    author: Option<String>,
    text: Option<String>,
    deleted: Deleted,
    sort: PluginSort,
    descending: bool,
}

/// What plugins are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PluginSort {
    /// The name, by code point.
    #[default]
    Name,
    /// The id: the order in which they were first registered.
    Id,
    /// When they were last changed.
    UpdatedAt,
}

impl PluginFilter {
    /// All plugins that are not deleted, by name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those that are enabled, or that are not.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = Some(enabled);
        self
    }

    /// Those of exactly this author.
    #[must_use]
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    managed_filter!(PluginSort, "name or description");

    pub(super) fn select(&self) -> Result<Select<plugins::Entity>, Error> {
        let mut check = Check::default();
        check.optional("author", self.author.as_deref(), 160);
        check.optional("text", self.text.as_deref(), MAX_SEARCH);
        check.done()?;
        let select = plugins::Entity::find().filter(
            Condition::all()
                .add_option(
                    self.enabled
                        .map(|enabled| plugins::COLUMN.is_enabled.eq(enabled)),
                )
                .add_option(
                    self.author
                        .clone()
                        .map(|author| plugins::COLUMN.author.eq(author)),
                )
                .add_option(self.text.as_deref().map(|text| {
                    Condition::any()
                        .add(contains_ci(plugins::Column::Name, text))
                        .add(contains_ci(plugins::Column::Description, text))
                })),
        );
        Ok(listed(self.deleted, select))
    }

    pub(super) fn sorted(&self) -> Sort<plugins::Entity> {
        let sort = Sort::asc(match self.sort {
            PluginSort::Name => plugins::Column::Name,
            PluginSort::Id => plugins::Column::Id,
            PluginSort::UpdatedAt => plugins::Column::UpdatedAt,
        });
        if self.descending {
            sort.reverse()
        } else {
            sort
        }
    }
}
