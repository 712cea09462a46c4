//! The history: the table that records which steps were applied.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbBackend, Schema, Statement};
use sea_orm_migration::seaql_migrations;

use super::error::{Context, Error};
use super::{Direction, create_table};

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The step.
    pub name: String,
    /// When, in seconds since 1970 (UTC).
    pub at: i64,
}

/// Returns the applied steps, oldest first; none when there is no history.
pub(super) async fn applied<C: ConnectionTrait>(
    connection: &C,
    history: &str,
) -> Result<Vec<Applied>, Error> {
    let backend = connection.get_database_backend();
    let found = connection
        .query_one_raw(Statement::from_string(backend, exists(backend, history)))
        .await
        .context("looking for the history")?;
    if found.is_none() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT version, applied_at FROM {history} ORDER BY version");
    let rows = connection
        .query_all_raw(Statement::from_string(backend, sql))
        .await
        .context("reading the history")?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                name: row.try_get("", "version")?,
                at: row.try_get("", "applied_at")?,
            })
        })
        .collect::<Result<_, _>>()
        .context("reading the history")
}

/// Returns SQL that returns a row where there is this history. It is much cheaper on
/// PostgreSQL than a list of all tables; a service runs it at each start.
pub(super) fn exists(backend: DbBackend, history: &str) -> String {
    match backend {
        DbBackend::Postgres => format!(
            "SELECT 'yes' WHERE to_regclass(quote_ident(current_schema()) || '.{history}') IS NOT NULL"
        ),
        _ => format!(
            "SELECT 'yes' WHERE EXISTS (SELECT 1 FROM sqlite_schema WHERE lower(name) = '{history}')"
        ),
    }
}

/// Returns the SQL that creates the history, unless it exists.
pub(super) fn create(backend: DbBackend, history: &'static str) -> String {
    let mut table = Schema::new(backend).create_table_from_entity(seaql_migrations::Entity);
    create_table(backend, table.table(history).if_not_exists())
}

/// Returns the SQL that removes the history.
pub(super) fn drop(history: &str) -> String {
    format!("DROP TABLE IF EXISTS \"{history}\"")
}

/// Returns the SQL that notes that a step was run in this direction.
pub(super) fn record(
    backend: DbBackend,
    history: &str,
    name: &str,
    direction: Direction,
) -> String {
    let now = match backend {
        DbBackend::Postgres => "extract(epoch from now())::bigint",
        _ => "unixepoch()",
    };
    let name = name.replace('\'', "''");
    match direction {
        Direction::Up => {
            format!("INSERT INTO {history} (version, applied_at) VALUES ('{name}', {now})")
        }
        Direction::Down => format!("DELETE FROM {history} WHERE version = '{name}'"),
    }
}

/// Returns the names of the tables, and of what else takes a table's name, in the
/// connection's schema; on SQLite, where case makes no difference, in lower case.
///
/// # Errors
///
/// [`Error::Database`] when the database can't be read.
pub async fn tables<C: ConnectionTrait>(connection: &C) -> Result<BTreeSet<String>, Error> {
    let backend = connection.get_database_backend();
    let rows = connection
        .query_all_raw(Statement::from_string(backend, tables_sql(backend)))
        .await
        .context("listing the tables")?;
    rows.iter()
        .map(|row| row.try_get("", "name"))
        .collect::<Result<_, _>>()
        .context("listing the tables")
}

pub(super) fn tables_sql(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => {
            "SELECT c.relname::text AS name FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        }
        _ => "SELECT lower(name) AS name FROM sqlite_schema WHERE type IN ('table', 'view')",
    }
}
