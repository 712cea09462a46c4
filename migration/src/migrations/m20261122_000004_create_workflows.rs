//! The automations. The documents stand last (see `Columns::document`).

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateWorkflows;

impl Migration for CreateWorkflows {
    fn name(&self) -> &'static str {
        "m20261122_000004_create_workflows"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["workflows"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("workflows");
        table
            .col(columns.string("name", 160).not_null())
            .col(columns.text("description"))
            .col(
                columns
                    .one_of("status", &["draft", "active", "archived"])
                    .default("draft"),
            )
            .col(columns.integer("version").not_null().default(1))
            .col(columns.integer("owner_id").not_null())
            .col(columns.flag("deleted_with_owner", false));
        columns.managed(&mut table);
        table
            .col(columns.document("settings"))
            .col(columns.document("connections"))
            .col(columns.document("nodes"))
            .col(columns.document("metadata"))
            .foreign_key(&mut columns.cascade("workflows", "owner_id", "users"));
        columns.sql(
            &table,
            &[
                columns.index("workflows", &["name", "owner_id"]),
                columns.index("workflows", &["owner_id", "updated_at"]),
                columns.index("workflows", &["status"]),
            ],
        )
    }
}
