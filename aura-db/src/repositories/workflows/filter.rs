//! Which workflows, and in which order.

use chrono::{DateTime, Utc};
use entity::{PluginId, UserId, WorkflowId, WorkflowStatus, workflow_plugins, workflows};
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::repositories::filter::{MAX_SEARCH, listed, managed_filter};
use crate::repositories::summary::summary;
use crate::validate::Check;
use aura_orm::page::{Sort, contains_ci};
use aura_orm::repository::Deleted;

/// A workflow without its documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkflowSummary {
    /// The key.
    pub id: WorkflowId,
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it runs.
    pub status: WorkflowStatus,
    /// Its version, from 1.
    pub version: i64,
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

summary!(WorkflowSummary of workflows {
    id: Id, name: Name, description: Description, status: Status, version: Version, owner_id: OwnerId, created_at: CreatedAt, updated_at: UpdatedAt, deleted_at: DeletedAt, created_by: CreatedBy, updated_by: UpdatedBy,
});

/// What workflows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkflowSort {
    /// The id: the order in which they were created.
    #[default]
    Id,
    /// The name, by code point.
    Name,
    /// When they were created.
    CreatedAt,
    /// When they were last changed.
    UpdatedAt,
}

/// Which workflows, and in which order.
#[derive(Debug, Clone, Default)]
pub struct WorkflowFilter {
    owner: Option<UserId>,
    status: Option<WorkflowStatus>,
    plugin: Option<PluginId>,
    name: Option<String>,
    text: Option<String>,
    scheduled: bool,
    deleted: Deleted,
    sort: WorkflowSort,
    descending: bool,
}

impl WorkflowFilter {
    /// All workflows that are not deleted, by id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this user.
    #[must_use]
    pub fn owner(owner: UserId) -> Self {
        Self::new().owned_by(owner)
    }

    /// Those that a scheduler has to run: active, and with a schedule. That is
    /// a member `schedule` of the settings that is not null, or a node whose
    /// `type` speaks of a schedule or of cron, as n8n's do.
    #[must_use]
    pub fn scheduled() -> Self {
        Self {
            scheduled: true,
            ..Self::new().status(WorkflowStatus::Active)
        }
    }

    /// Those of this user.
    #[must_use]
    pub fn owned_by(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Those with this status.
    #[must_use]
    pub fn status(mut self, status: WorkflowStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Those that use this plugin.
    #[must_use]
    pub fn plugin(mut self, plugin: PluginId) -> Self {
        self.plugin = Some(plugin);
        self
    }

    /// Those with exactly this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    managed_filter!(WorkflowSort, "name or description");

    pub(super) fn select(&self, h: &Context) -> Result<Select<workflows::Entity>, Error> {
        let mut check = Check::default();
        check.optional("name", self.name.as_deref(), 160);
        check.optional("text", self.text.as_deref(), MAX_SEARCH);
        check.done()?;
        let using = |plugin: PluginId| {
            let using = workflow_plugins::Entity::find()
                .select_only()
                .column(workflow_plugins::Column::WorkflowId)
                .filter(workflow_plugins::COLUMN.plugin_id.eq(plugin));
            workflows::COLUMN.id.in_subquery(using.into_query())
        };
        let select = workflows::Entity::find().filter(
            Condition::all()
                .add(h.own_rows(workflows::Column::OwnerId))
                .add_option(self.owner.map(|owner| workflows::COLUMN.owner_id.eq(owner)))
                .add_option(
                    self.status
                        .map(|status| workflows::COLUMN.status.eq(status)),
                )
                .add_option(self.plugin.map(using))
                .add_option(
                    self.name
                        .clone()
                        .map(|name| workflows::COLUMN.name.eq(name)),
                )
                .add_option(self.scheduled.then(|| has_schedule(h.backend())))
                .add_option(self.text.as_deref().map(|text| {
                    Condition::any()
                        .add(contains_ci(workflows::Column::Name, text))
                        .add(contains_ci(workflows::Column::Description, text))
                })),
        );
        Ok(listed(self.deleted, select))
    }

    pub(super) fn sorted(&self) -> Sort<workflows::Entity> {
        let sort = Sort::asc(match self.sort {
            WorkflowSort::Id => workflows::Column::Id,
            WorkflowSort::Name => workflows::Column::Name,
            WorkflowSort::CreatedAt => workflows::Column::CreatedAt,
            WorkflowSort::UpdatedAt => workflows::Column::UpdatedAt,
        });
        if self.descending {
            sort.reverse()
        } else {
            sort
        }
    }
}

/// Each database walks JSON in its own words. Of two members of the same name the
/// last counts, as it does in every parser: SQLite's `->>` would find the first. Only an object may be asked for a member there: text that is no JSON
/// is an error.
fn has_schedule(backend: DbBackend) -> SimpleExpr {
    Expr::cust(if backend == DbBackend::Postgres {
        r#"("workflows"."settings" ->> 'schedule' IS NOT NULL
            OR EXISTS (
                SELECT 1 FROM json_array_elements(
                    CASE json_typeof("workflows"."nodes")
                    WHEN 'array' THEN "workflows"."nodes" ELSE '[]' END) AS node
                WHERE lower(node ->> 'type') LIKE ANY (ARRAY['%schedule%', '%cron%']))
            OR EXISTS (
                SELECT 1 FROM json_each(
                    CASE json_typeof("workflows"."nodes")
                    WHEN 'object' THEN "workflows"."nodes" ELSE '{}' END) AS node
                WHERE lower(node.value ->> 'type') LIKE ANY (ARRAY['%schedule%', '%cron%'])))"#
    } else {
        r#"((SELECT member.type <> 'null' FROM json_each("workflows"."settings") AS member
                WHERE member.key = 'schedule' ORDER BY member.id DESC LIMIT 1)
            OR EXISTS (
                SELECT 1 FROM json_each("workflows"."nodes") AS node
                WHERE CASE node.type WHEN 'object' THEN
                    (SELECT lower(member.value) LIKE '%schedule%'
                            OR lower(member.value) LIKE '%cron%'
                        FROM json_each(node.value) AS member
                        WHERE member.key = 'type' ORDER BY member.id DESC LIMIT 1)
                END))"#
    })
}
