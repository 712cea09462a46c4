//! What happened. Pruned by id, so ``created_at`` alone needs no index.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateLogs;

impl Migration for CreateLogs {
    fn name(&self) -> &'static str {
        "m20261122_000008_create_logs"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["logs"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("logs");
        table
            .col(columns.one_of("level", &["debug", "info", "warn", "error"]))
            .col(columns.text("message").not_null())
            .col(columns.integer("workflow_id").not_null())
            .col(columns.integer("execution_id"))
            .col(columns.created("created_at"))
            .col(columns.searchable("metadata"))
            .foreign_key(&mut columns.cascade("logs", "workflow_id", "workflows"))
            .foreign_key(&mut columns.cascade("logs", "execution_id", "executions"));
        columns.sql(
            &table,
            &[
                columns.index("logs", &["workflow_id", "created_at"]),
                columns.index("logs", &["execution_id"]),
            ],
        )
    }
}
