//! The foreign keys that a run must leave whole: those of other people's
//! tables that lead to ours, and the rows behind all that do.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};

use crate::error::{Doing, Error};

/// Refuses to drop tables that a table of somebody else's refers to. PostgreSQL
/// would refuse too, without saying who it is; SQLite would leave a table
/// behind that nobody can write to.
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
    told(pairs.into_iter().filter(|(child, parent)| {
        !owned.contains(&child.as_str()) && dropped.contains(&parent.as_str())
    }))
    .map_or(Ok(()), |pairs| Err(Error::Referenced(pairs)))
}

/// On SQLite, where nothing is enforced during a run: how many rows refer to a
/// row of ours that isn't there, by `table to parent`.
///
/// Each table is checked by itself, because a foreign key of an application's
/// that fits no unique column is an error that hides all others.
pub(crate) async fn dangling(
    transaction: &DatabaseTransaction,
    owned: &[&str],
) -> Result<BTreeMap<String, i64>, Error> {
    let mut found = BTreeMap::new();
    if transaction.get_database_backend() != DbBackend::Sqlite {
        return Ok(found);
    }
    let referring = "SELECT DISTINCT t.name AS child, lower(k.\"table\") AS parent \
         FROM sqlite_schema t, pragma_foreign_key_list(t.name) k WHERE t.type = 'table'";
    let mut children: Vec<String> = pairs(transaction, referring)
        .await?
        .into_iter()
        .filter(|(_, parent)| owned.contains(&parent.as_str()))
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
            .doing("checking foreign keys")?;
        for row in rows {
            let parent: String = row.try_get("", "parent").doing("checking foreign keys")?;
            if owned.contains(&parent.as_str()) {
                let count = row.try_get("", "rows").doing("checking foreign keys")?;
                found.insert(format!("{child} to {parent}"), count);
            }
        }
    }
    Ok(found)
}

/// Refuses to leave more rows without the row of ours that they refer to than
/// there were before. Those that were there are not the run's doing, and must
/// not stop every later one.
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
        .doing("checking foreign keys")?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "child")?, row.try_get("", "parent")?)))
        .collect::<Result<_, _>>()
        .doing("checking foreign keys")
}

/// `sessions to users, agents to users`; nothing when there are none.
fn told(pairs: impl Iterator<Item = (String, String)>) -> Option<String> {
    let pairs: Vec<String> = pairs
        .map(|(child, parent)| format!("{child} to {parent}"))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(", "))
}
