//! Who may log in.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateUsers;

impl Migration for CreateUsers {
    fn name(&self) -> &'static str {
        "m20261122_000001_create_users"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["users"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("users");
        table
            .col(columns.string("name", 120).not_null())
            .col(columns.email("email"))
            .col(columns.string("hashed_password", 255).not_null())
            .col(
                columns
                    .one_of("role", &["admin", "editor", "viewer", "user"])
                    .default("user"),
            )
            .col(columns.flag("is_active", true));
        columns.managed(&mut table);
        columns.sql(&table, &[columns.unique("users", &["email"])])
    }
}
