//! Steps outside of a transaction, on PostgreSQL.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use super::Event;
use super::error::{Context, Error};
use super::segment::Step;

/// Returns the process id of a connection's session.
pub(super) async fn process<C: ConnectionTrait>(connection: &C) -> Result<i32, Error> {
    const CONTEXT: &str = "asking for the session's process";
    let sql = "SELECT pg_backend_pid() AS pid";
    let row = connection
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
        .context(CONTEXT)?;
    row.map_or(Ok(0), |row| row.try_get("", "pid"))
        .context(CONTEXT)
}

/// Runs a statement of a step, which waits no longer than this for a lock; 0 is without end.
pub(super) async fn execute(
    connection: &DatabaseConnection,
    step: Step<'_>,
    statement: &str,
    lock_limit_millis: u128,
) -> Result<(), Error> {
    let limit = format!("SET lock_timeout = {lock_limit_millis}");
    for sql in [&limit, statement] {
        let done = connection.execute_unprepared(sql).await;
        done.map_err(|source| Error::StepOutside {
            name: step.migration.name().to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Drops the indexes that an earlier run of this step began to build concurrently and didn't
/// finish: `IF NOT EXISTS` would take them for finished.
pub(super) async fn drop_invalid_indexes(
    connection: &DatabaseConnection,
    step: Step<'_>,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<(), Error> {
    const CONTEXT: &str = "looking for invalid indexes";
    let sql = "SELECT i.relname::text AS name FROM pg_catalog.pg_index x \
         JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace \
         WHERE n.nspname = current_schema() AND NOT x.indisvalid";
    let rows = connection
        .query_all_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
        .context(CONTEXT)?;
    let statements = step.statements();
    for row in rows {
        let name: String = row.try_get("", "name").context(CONTEXT)?;
        if !statements.iter().any(|sql| builds(sql, &name)) {
            continue;
        }
        on_event(Event::InvalidIndex { name: &name });
        let quoted = name.replace('"', "\"\"");
        connection
            .execute_unprepared(&format!("DROP INDEX CONCURRENTLY IF EXISTS \"{quoted}\""))
            .await
            .context("dropping an invalid index")?;
    }
    Ok(())
}

/// Whether a statement builds this index concurrently.
fn builds(sql: &str, index: &str) -> bool {
    let mut words = sql.split_whitespace();
    let keyword = |word: Option<&str>, keyword: &str| {
        word.is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    };
    if !keyword(words.next(), "CREATE") {
        return false;
    }
    let mut words = words.skip_while(|word| word.eq_ignore_ascii_case("UNIQUE"));
    if !keyword(words.next(), "INDEX") || !keyword(words.next(), "CONCURRENTLY") {
        return false;
    }
    let is_clause = |word: &&str| ["IF", "NOT", "EXISTS"].contains(&word.to_uppercase().as_str());
    let Some(name) = words.find(|word| !is_clause(word)) else {
        return false;
    };
    match name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
    {
        Some(name) => name == index,
        None => name.to_lowercase() == index,
    }
}

#[cfg(test)]
mod tests {
    use super::builds;

    #[test]
    fn the_index_of_a_statement_is_found() {
        for sql in [
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS \"idx_a\" ON \"t\" (\"x\")",
            "create unique index concurrently IDX_A on t (x)",
            "CREATE UNIQUE INDEX CONCURRENTLY\n  idx_a ON t (x)",
        ] {
            assert!(builds(sql, "idx_a"), "{sql}");
        }
        for sql in [
            "CREATE INDEX IF NOT EXISTS idx_a ON t (x)",
            "CREATE INDEX CONCURRENTLY idx_ab ON t (idx_a)",
            "CREATE INDEX CONCURRENTLY ON t (idx_a)",
            "CREATE INDEX CONCURRENTLY \"IDX_A\" ON t (x)",
            "DROP INDEX CONCURRENTLY idx_a",
            "REINDEX INDEX CONCURRENTLY idx_a",
            "",
        ] {
            assert!(!builds(sql, "idx_a"), "{sql}");
        }
    }
}
