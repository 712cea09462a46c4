//! Models that workflows and people talk to.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateAgents;

impl Migration for CreateAgents {
    fn name(&self) -> &'static str {
        "m20261122_000009_create_agents"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["agents"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("agents");
        table
            .col(columns.string("name", 120).not_null())
            .col(columns.text("description"))
            .col(columns.string("model", 120).not_null())
            .col(columns.flag("is_enabled", true))
            .col(columns.integer("owner_id").not_null())
            .col(columns.flag("deleted_with_owner", false));
        columns.managed(&mut table);
        table
            .col(columns.document("config"))
            .foreign_key(&mut columns.cascade("agents", "owner_id", "users"));
        columns.sql(&table, &[columns.unique("agents", &["owner_id", "name"])])
    }
}
