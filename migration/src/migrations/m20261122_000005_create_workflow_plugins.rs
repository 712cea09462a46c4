//! Which plugins a workflow uses.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;
use sea_orm::sea_query::{Index, Table};

pub(super) struct CreateWorkflowPlugins;

impl Migration for CreateWorkflowPlugins {
    fn name(&self) -> &'static str {
        "m20261122_000005_create_workflow_plugins"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["workflow_plugins"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let table = Table::create()
            .table("workflow_plugins")
            .col(columns.integer("workflow_id").not_null())
            .col(columns.integer("plugin_id").not_null())
            .primary_key(Index::create().col("workflow_id").col("plugin_id"))
            .foreign_key(&mut columns.cascade("workflow_plugins", "workflow_id", "workflows"))
            .foreign_key(&mut columns.cascade("workflow_plugins", "plugin_id", "plugins"))
            .take();
        columns.sql(&table, &[columns.index("workflow_plugins", &["plugin_id"])])
    }
}
