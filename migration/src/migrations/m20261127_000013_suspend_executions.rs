//! What is queued for a workflow that was deleted is marked, so that workers don't look at
//! it again and again.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;
use sea_orm::sea_query::{PostgresQueryBuilder, SqliteQueryBuilder, Table};

pub(super) struct SuspendExecutions;

impl Migration for SuspendExecutions {
    fn name(&self) -> &'static str {
        "m20261127_000013_suspend_executions"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let column = Columns::of(backend).flag("is_suspended", false);
        let alter = Table::alter().table("executions").add_column(column).take();
        vec![match backend {
            DbBackend::Postgres => alter.to_string(PostgresQueryBuilder),
            _ => alter.to_string(SqliteQueryBuilder),
        }]
    }

    fn down(&self, _: DbBackend) -> Vec<String> {
        vec!["ALTER TABLE \"executions\" DROP COLUMN \"is_suspended\"".to_owned()]
    }
}
