//! How the attempts of executions ended that failed or lost their worker.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateExecutionAttempts;

impl Migration for CreateExecutionAttempts {
    fn name(&self) -> &'static str {
        "m20261128_000018_create_execution_attempts"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["execution_attempts"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        const TABLE: &str = "execution_attempts";
        let columns = Columns::of(backend);
        let mut table = columns.table(TABLE);
        table
            .col(columns.integer("execution_id").not_null())
            .col(columns.integer("claim_no").not_null())
            .col(columns.integer("attempt").not_null())
            .col(columns.string("worker_id", 64))
            .col(columns.created("ended_at"))
            .col(columns.string("reason", 2_048).not_null())
            .foreign_key(&mut columns.cascade(TABLE, "execution_id", "executions"));
        columns.sql(
            &table,
            &[columns.unique(TABLE, &["execution_id", "claim_no"])],
        )
    }
}
