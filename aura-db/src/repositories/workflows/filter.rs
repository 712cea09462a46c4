//! Which workflows, and in which order.

use aura_orm::projection;
use chrono::{DateTime, Utc};
use entity::{PluginId, UserId, WorkflowId, WorkflowStatus, workflow_plugins, workflows};
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
use serde::Serialize;

use crate::repositories::filter::{ListFilter, managed_filter};

projection! {
    /// A workflow without its documents.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[non_exhaustive]
    pub struct WorkflowSummary of workflows {
        /// The key.
        pub id: WorkflowId = Id,
        /// What it is called.
        pub name: String = Name,
        /// What it is for.
        pub description: Option<String> = Description,
        /// Whether it runs.
        pub status: WorkflowStatus = Status,
        /// Its version, from 1.
        pub version: i64 = Version,
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

/// Which workflows, and in which order: by id, unless it is set.
#[derive(Debug, Clone, Default)]
pub struct WorkflowFilter(pub(super) ListFilter<workflows::Entity>);

managed_filter! {
    WorkflowFilter of workflows by WorkflowSort {
        /// The id: the order in which they were created.
        Id,
        /// The name, by code point.
        Name,
        /// When they were created.
        CreatedAt,
        /// When they were last changed.
        UpdatedAt,
    }, text in [workflows::Column::Name, workflows::Column::Description], "name or description"
}

impl WorkflowFilter {
    /// Creates a filter of those of a user.
    #[must_use]
    pub fn owner(owner: UserId) -> Self {
        Self::new().owned_by(owner)
    }

    /// Creates a filter of those that a scheduler has to run: active, and with a schedule.
    /// That is a member `schedule` of the settings that is not null, or a node whose
    /// `type` speaks of a schedule or of cron, as n8n's do.
    #[must_use]
    pub fn scheduled() -> Self {
        let active = Self::new().status(WorkflowStatus::Active);
        Self(active.0.and_by_backend(has_schedule))
    }

    /// Filters those of a user.
    #[must_use]
    pub fn owned_by(self, owner: UserId) -> Self {
        Self(self.0.and(workflows::COLUMN.owner_id.eq(owner)))
    }

    /// Filters those with this status.
    #[must_use]
    pub fn status(self, status: WorkflowStatus) -> Self {
        Self(self.0.and(workflows::COLUMN.status.eq(status)))
    }

    /// Filters those that use this plugin.
    #[must_use]
    pub fn plugin(self, plugin: PluginId) -> Self {
        let using = workflow_plugins::Entity::find()
            .select_only()
            .column(workflow_plugins::Column::WorkflowId)
            .filter(workflow_plugins::COLUMN.plugin_id.eq(plugin));
        let used = workflows::COLUMN.id.in_subquery(using.into_query());
        Self(self.0.and(used))
    }

    /// Filters those with exactly this name.
    #[must_use]
    pub fn name(self, name: impl AsRef<str>) -> Self {
        let is_named = |name: &str| workflows::COLUMN.name.eq(name);
        Self(self.0.and_text("name", name.as_ref(), 160, is_named))
    }
}

/// Each database walks JSON in its own words. Of two members of the same name the last
/// counts, as it does in every parser: SQLite's `->>` would find the first. Only an object
/// may be asked for a member there: text that is no JSON is an error.
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
