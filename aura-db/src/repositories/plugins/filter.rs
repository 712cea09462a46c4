//! Which plugins, and in which order.

use entity::plugins;
use sea_orm::{Condition, EntityTrait, QueryFilter, Select};

use crate::error::Error;
use crate::page::{Deleted, MAX_SEARCH, Sorted, holds};
use crate::validate::Check;

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

    /// Those whose name or description holds this text, without ASCII case.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Deleted ones too, or only those.
    #[must_use]
    pub fn deleted(mut self, deleted: Deleted) -> Self {
        self.deleted = deleted;
        self
    }

    /// In this order.
    #[must_use]
    pub fn sort(mut self, sort: PluginSort) -> Self {
        self.sort = sort;
        self
    }

    /// In the opposite order.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

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
                        .add(holds(plugins::Column::Name, text))
                        .add(holds(plugins::Column::Description, text))
                })),
        );
        Ok(self.deleted.filter(select))
    }

    pub(super) fn sorted(&self) -> Sorted<plugins::Column> {
        Sorted {
            by: match self.sort {
                PluginSort::Name => plugins::Column::Name,
                PluginSort::Id => plugins::Column::Id,
                PluginSort::UpdatedAt => plugins::Column::UpdatedAt,
            },
            id: plugins::Column::Id,
            descending: self.descending,
        }
    }
}
