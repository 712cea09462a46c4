//! Runs of workflows, and the queue that workers take them from.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateExecutions;

impl Migration for CreateExecutions {
    fn name(&self) -> &'static str {
        "m20261122_000007_create_executions"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["executions"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("executions");
        table
            .col(columns.integer("workflow_id").not_null())
            .col(columns.integer("workflow_version").not_null())
            .col(columns.one_of("mode", &["manual", "trigger", "webhook", "cron"]))
            .col(
                columns
                    .one_of(
                        "status",
                        &[
                            "queued", "running", "waiting", "success", "error", "canceled",
                        ],
                    )
                    .default("queued"),
            )
            .col(columns.string("worker_id", 64))
            .col(columns.time("lease_until"))
            .col(columns.time("wait_until"))
            .col(columns.time("started_at"))
            .col(columns.time("finished_at"))
            .col(columns.created("created_at"))
            .col(columns.document("data"))
            .col(columns.document("error"))
            .foreign_key(&mut columns.cascade("executions", "workflow_id", "workflows"));
        columns.sql(
            &table,
            &[
                columns.index("executions", &["workflow_id", "id"]),
                columns.index("executions", &["status", "id"]),
            ],
        )
    }
}
