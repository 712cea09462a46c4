//! Logins. Only the SHA-256 of a token is stored, so a stolen dump opens nothing.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;

pub(super) struct CreateSessions;

impl Migration for CreateSessions {
    fn name(&self) -> &'static str {
        "m20261122_000002_create_sessions"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["sessions"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("sessions");
        table
            .col(columns.string("token", 64).not_null())
            .col(columns.string("user_agent", 255))
            .col(columns.string("ip_address", 64))
            .col(columns.time("expires_at").not_null())
            .col(columns.created("last_seen_at"))
            .col(columns.created("created_at"))
            .col(columns.created("updated_at"))
            .col(columns.integer("user_id").not_null())
            .foreign_key(&mut columns.cascade("sessions", "user_id", "users"));
        columns.sql(
            &table,
            &[
                columns.unique("sessions", &["token"]),
                columns.index("sessions", &["user_id"]),
                columns.index("sessions", &["expires_at"]),
            ],
        )
    }
}
