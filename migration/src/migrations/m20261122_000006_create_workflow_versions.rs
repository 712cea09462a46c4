//! What a workflow was before each change.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateWorkflowVersions;

impl Migration for CreateWorkflowVersions {
    fn name(&self) -> &'static str {
        "m20261122_000006_create_workflow_versions"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["workflow_versions"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("workflow_versions");
        table
            .col(columns.integer("workflow_id").not_null())
            .col(columns.integer("version").not_null())
            .col(columns.string("name", 160).not_null())
            .col(columns.text("description"))
            .col(columns.created("created_at"))
            .col(columns.integer("created_by"))
            .col(columns.document("settings"))
            .col(columns.document("connections"))
            .col(columns.document("nodes"))
            .foreign_key(&mut columns.cascade("workflow_versions", "workflow_id", "workflows"));
        columns.sql(
            &table,
            &[columns.unique("workflow_versions", &["workflow_id", "version"])],
        )
    }
}
