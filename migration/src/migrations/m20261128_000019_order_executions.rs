//! In which queue an execution stands, whose it is, and which of an owner's come first.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;
use sea_orm::sea_query::{PostgresQueryBuilder, SqliteQueryBuilder, Table};

pub(super) struct OrderExecutions;

impl Migration for OrderExecutions {
    fn name(&self) -> &'static str {
        "m20261128_000019_order_executions"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let number = |name| columns.integer(name).not_null().default(0).take();
        // Each with a constant default, which rewrites no row (SQLite reads them all once, for
        // the length of the name). Workers of the version before queue without an owner: 0
        // stands for all that have none.
        let added = [
            columns
                .string("queue", 64)
                .not_null()
                .default("default")
                .take(),
            number("owner_id"),
            number("priority"),
        ];
        let added = added.into_iter().map(|column| {
            let alter = Table::alter().table("executions").add_column(column).take();
            match backend {
                DbBackend::Postgres => alter.to_string(PostgresQueryBuilder),
                _ => alter.to_string(SqliteQueryBuilder),
            }
        });
        added.collect()
    }

    fn down(&self, _: DbBackend) -> Vec<String> {
        let dropped = ["priority", "owner_id", "queue"];
        let dropped =
            dropped.map(|column| format!(r#"ALTER TABLE "executions" DROP COLUMN "{column}""#));
        dropped.to_vec()
    }

    fn destroys(&self) -> &'static [&'static str] {
        &["executions"]
    }
}
