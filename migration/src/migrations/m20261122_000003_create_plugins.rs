//! What workflows can talk to.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreatePlugins;

impl Migration for CreatePlugins {
    fn name(&self) -> &'static str {
        "m20261122_000003_create_plugins"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["plugins"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("plugins");
        table
            .col(columns.string("name", 120).not_null())
            .col(columns.string("description", 240).not_null())
            .col(columns.string("version", 32).not_null())
            .col(columns.string("author", 160))
            .col(columns.flag("is_enabled", true));
        columns.managed(&mut table);
        table.col(columns.document("config_schema"));
        columns.sql(&table, &[columns.unique("plugins", &["name"])])
    }
}
