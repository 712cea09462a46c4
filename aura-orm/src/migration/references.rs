//! The foreign keys that a run must leave whole: those of other schemas' tables that
//! lead to tables of the run, and the rows behind all keys from or to those.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};

use super::error::{Context, Error};

/// Refuses to drop tables that a table of another schema refers to. PostgreSQL
/// would refuse too, without naming that table; SQLite would leave a table
/// behind that can't be written to.
pub(crate) async fn refuse_referenced(
    transaction: &DatabaseTransaction,
    owned: &[&str],
    dropped: &[&str],
) -> Result<(), Error> {
    let sql = match transaction.get_database_backend() {
        DbBackend::Postgres => {
            "SELECT DISTINCT c.conrelid::regclass::text AS child, p.relname::text AS parent \
             FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class p ON p.oid = c.confrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace \
             WHERE c.contype = 'f' AND n.nspname = current_schema() ORDER BY 1, 2"
        }
        _ => {
            "SELECT DISTINCT lower(t.name) AS child, lower(k.\"table\") AS parent \
             FROM sqlite_schema t, pragma_foreign_key_list(t.name) k WHERE t.type = 'table' ORDER BY 1, 2"
        }
    };
    let pairs = pairs(transaction, sql).await?;
    list(pairs.into_iter().filter(|(child, parent)| {
        !owned.contains(&child.as_str()) && dropped.contains(&parent.as_str())
    }))
    .map_or(Ok(()), |pairs| Err(Error::Referenced(pairs)))
}

/// Counts, on SQLite, where nothing is enforced during a run, the rows that refer to a row
/// that isn't there, by `table to parent`. One of the two tables is among `owned`.
///
/// Each table is checked by itself, because a foreign key that fits no unique column is an
/// error that hides all others.
pub(crate) async fn dangling(
    transaction: &DatabaseTransaction,
    owned: &[&str],
) -> Result<BTreeMap<String, i64>, Error> {
    let mut found = BTreeMap::new();
    if transaction.get_database_backend() != DbBackend::Sqlite {
        return Ok(found);
    }
    let concerns = |child: &str, parent: &str| {
        owned.contains(&parent) || owned.contains(&child.to_lowercase().as_str())
    };
    let referring = "SELECT DISTINCT t.name AS child, lower(k.\"table\") AS parent \
         FROM sqlite_schema t, pragma_foreign_key_list(t.name) k WHERE t.type = 'table'";
    let mut children: Vec<String> = pairs(transaction, referring)
        .await?
        .into_iter()
        .filter(|(child, parent)| concerns(child, parent))
        .map(|(child, _)| child)
        .collect();
    children.dedup();
    for child in children {
        let sql = format!(
            "SELECT lower(parent) AS parent, count(*) AS rows FROM pragma_foreign_key_check('{}') GROUP BY 1",
            child.replace('\'', "''")
        );
        let rows = transaction
            .query_all_raw(Statement::from_string(DbBackend::Sqlite, sql))
            .await
            .context("checking foreign keys")?;
        for row in rows {
            let parent: String = row.try_get("", "parent").context("checking foreign keys")?;
            if concerns(&child, &parent) {
                let count = row.try_get("", "rows").context("checking foreign keys")?;
                found.insert(format!("{child} to {parent}"), count);
            }
        }
    }
    Ok(found)
}

/// Refuses to leave more rows without the row that they refer to than there were before.
/// Those that were there are not the run's doing, and must not stop every later one.
pub(crate) async fn refuse_dangling(
    transaction: &DatabaseTransaction,
    owned: &[&str],
    before: &BTreeMap<String, i64>,
) -> Result<(), Error> {
    let after = dangling(transaction, owned).await?;
    let more: Vec<String> = after
        .into_iter()
        .filter(|(pair, rows)| *rows > before.get(pair).copied().unwrap_or(0))
        .map(|(pair, _)| pair)
        .collect();
    if more.is_empty() {
        Ok(())
    } else {
        Err(Error::DanglingRows(more.join(", ")))
    }
}

async fn pairs(
    transaction: &DatabaseTransaction,
    sql: &str,
) -> Result<Vec<(String, String)>, Error> {
    let backend = transaction.get_database_backend();
    let rows = transaction
        .query_all_raw(Statement::from_string(backend, sql))
        .await
        .context("checking foreign keys")?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "child")?, row.try_get("", "parent")?)))
        .collect::<Result<_, _>>()
        .context("checking foreign keys")
}

/// Lists `comments to notes, tags to notes`; `None` when there are none.
fn list(pairs: impl Iterator<Item = (String, String)>) -> Option<String> {
    let pairs: Vec<String> = pairs
        .map(|(child, parent)| format!("{child} to {parent}"))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(", "))
}
