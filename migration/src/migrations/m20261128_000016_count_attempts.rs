//! How often an execution was begun and may be; which claim of it holds; a status for
//! those that can't succeed; and the key under which it was asked for.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;
use sea_orm::sea_query::{ColumnDef, PostgresQueryBuilder, SqliteQueryBuilder, Table};

pub(super) struct CountAttempts;

/// The name that PostgreSQL gave the condition of the column.
pub(super) const STATUS_CHECK: &str = "executions_status_check";

const BEFORE: &str = "'queued', 'running', 'waiting', 'success', 'error', 'canceled'";
const AFTER: &str = "'queued', 'running', 'waiting', 'success', 'error', 'canceled', 'dead'";

impl Migration for CountAttempts {
    fn name(&self) -> &'static str {
        "m20261128_000016_count_attempts"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = columns(Columns::of(backend)).into_iter();
        let added = columns.map(|column| {
            let alter = Table::alter().table("executions").add_column(column).take();
            match backend {
                DbBackend::Postgres => alter.to_string(PostgresQueryBuilder),
                _ => alter.to_string(SqliteQueryBuilder),
            }
        });
        // The next step looks at the rows, while others write.
        added
            .chain(allow(backend, BEFORE, AFTER, " NOT VALID"))
            .collect()
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        // As builds that don't know the word call it.
        let known = r#"UPDATE "executions" SET "status" = 'error' WHERE "status" = 'dead'"#;
        let dropped = [
            "input_hash",
            "idempotency_key",
            "claim_no",
            "max_attempts",
            "attempts",
        ];
        let dropped =
            dropped.map(|column| format!(r#"ALTER TABLE "executions" DROP COLUMN "{column}""#));
        let known = std::iter::once(known.to_owned());
        let known = known.chain(allow(backend, AFTER, BEFORE, ""));
        known.chain(dropped).collect()
    }

    fn destroys(&self) -> &'static [&'static str] {
        &["executions"]
    }
}

/// Each with a constant default, which rewrites no row and lets workers of the version before
/// go on.
fn columns(columns: Columns) -> [ColumnDef; 5] {
    let number = |name, default: i64| columns.integer(name).not_null().default(default).take();
    [
        number("attempts", 0),
        number("max_attempts", 3),
        number("claim_no", 0),
        columns.string("idempotency_key", 200),
        columns.string("input_hash", 32),
    ]
}

/// Changes the words that the status may have.
fn allow(backend: DbBackend, from: &str, to: &str, valid: &str) -> Vec<String> {
    if backend == DbBackend::Postgres {
        return vec![format!(
            "ALTER TABLE \"executions\" DROP CONSTRAINT IF EXISTS \"{STATUS_CHECK}\", \
             ADD CONSTRAINT \"{STATUS_CHECK}\" CHECK (\"status\" IN ({to})){valid}"
        )];
    }
    // What SQLite documents for a condition (lang_altertable, section 7): no row depends on
    // it, so the table isn't copied. The view makes other connections read the schema again.
    let quoted = |words: &str| words.replace('\'', "''");
    vec![
        "PRAGMA writable_schema = ON".to_owned(),
        format!(
            "UPDATE sqlite_schema SET sql = replace(sql, '({})', '({})') \
             WHERE type = 'table' AND name = 'executions'",
            quoted(from),
            quoted(to)
        ),
        "PRAGMA writable_schema = RESET".to_owned(),
        "CREATE VIEW \"changed_conditions\" AS SELECT 1".to_owned(),
        "DROP VIEW \"changed_conditions\"".to_owned(),
    ]
}
