//! How many executions of a workflow or of an owner may run at once, and which wait for that.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, PostgresQueryBuilder, SqliteQueryBuilder, Table};

pub(super) struct LimitExecutions;

impl Migration for LimitExecutions {
    fn name(&self) -> &'static str {
        "m20261128_000021_limit_executions"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["execution_limits"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        const TABLE: &str = "execution_limits";
        let columns = Columns::of(backend);
        let mut table = columns.table(TABLE);
        table
            .col(columns.integer("workflow_id"))
            .col(columns.integer("owner_id"))
            .col(
                columns
                    .integer("max_running")
                    .not_null()
                    .check(Expr::cust("\"max_running\" >= 0")),
            )
            .col(columns.flag("has_parked", false))
            .check(Expr::cust(
                "(\"workflow_id\" IS NULL) <> (\"owner_id\" IS NULL)",
            ))
            .foreign_key(&mut columns.cascade(TABLE, "workflow_id", "workflows"))
            .foreign_key(&mut columns.cascade(TABLE, "owner_id", "users"));
        let unique = [
            columns.unique(TABLE, &["workflow_id"]),
            columns.unique(TABLE, &["owner_id"]),
        ];
        let mut sql = columns.sql(&table, &unique);
        // Without a foreign key, which PostgreSQL would look for in every row, and which would
        // take all of them in one statement when a limit is taken away.
        let parked = columns.integer("limit_id");
        let alter = Table::alter().table("executions").add_column(parked).take();
        sql.push(match backend {
            DbBackend::Postgres => alter.to_string(PostgresQueryBuilder),
            _ => alter.to_string(SqliteQueryBuilder),
        });
        sql
    }

    fn down(&self, _: DbBackend) -> Vec<String> {
        vec![
            r#"ALTER TABLE "executions" DROP COLUMN "limit_id""#.to_owned(),
            r#"DROP TABLE "execution_limits""#.to_owned(),
        ]
    }

    fn destroys(&self) -> &'static [&'static str] {
        &["executions", "execution_limits"]
    }
}
