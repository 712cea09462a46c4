//! Times on SQLite in one form, with six digits of fraction.

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};

use super::step::{BatchMigration, Migration, StepError};

/// The rows that one batch looks at.
const BATCH: i64 = 10_000;

/// The length of a time with six digits: `2026-11-27T12:00:00.123456+00:00`.
const LENGTH: usize = 32;

/// A step that gives the times of tables on SQLite six digits of fraction: in rows that other
/// programs, or earlier versions of [`columns`](super::columns), wrote with fewer, and by
/// default. Text that differs in its digits is sorted right, and is not equal where the
/// moments are. On PostgreSQL there is nothing to do.
///
/// ```
/// use aura_orm::migration::MicrosecondTimes;
///
/// const WRITE_MICROSECONDS: MicrosecondTimes = MicrosecondTimes::new(
///     "m20261203_000001_write_microseconds",
///     &[("notes", &["created_at", "due_at"])],
/// );
/// ```
#[derive(Debug, Clone, Copy)]
pub struct MicrosecondTimes {
    name: &'static str,
    tables: &'static [(&'static str, &'static [&'static str])],
}

impl MicrosecondTimes {
    /// Creates the step of this name, for these columns of these tables, which have rowids.
    #[must_use]
    pub const fn new(
        name: &'static str,
        tables: &'static [(&'static str, &'static [&'static str])],
    ) -> Self {
        Self { name, tables }
    }
}

impl Migration for MicrosecondTimes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        if backend != DbBackend::Sqlite {
            return Vec::new();
        }
        let names: Vec<_> = self
            .tables
            .iter()
            .map(|(table, _)| format!("'{table}'"))
            .collect();
        let names = names.join(", ");
        // What SQLite documents for a default (lang_altertable, section 7): no row depends on it.
        // The view makes other connections read the schema again.
        vec![
            "PRAGMA writable_schema = ON".to_owned(),
            format!(
                "UPDATE sqlite_schema SET sql = replace(sql, '%f+00:00', '%f000+00:00') \
                 WHERE type = 'table' AND name IN ({names})"
            ),
            "PRAGMA writable_schema = RESET".to_owned(),
            "CREATE VIEW \"changed_defaults\" AS SELECT 1".to_owned(),
            "DROP VIEW \"changed_defaults\"".to_owned(),
        ]
    }

    fn transactional(&self) -> bool {
        false
    }

    fn batches(&self) -> Option<&dyn BatchMigration> {
        Some(self)
    }
}

#[async_trait]
impl BatchMigration for MicrosecondTimes {
    async fn batch(
        &self,
        transaction: &DatabaseTransaction,
        after: Option<String>,
    ) -> Result<Option<String>, StepError> {
        if transaction.get_database_backend() != DbBackend::Sqlite {
            return Ok(None);
        }
        let (mut index, row) = place(after.as_deref());
        let Some((table, columns)) = self.tables.get(index) else {
            return Ok(None);
        };
        let last = last_row(transaction, table, row).await?;
        if let Some(last) = last {
            let sql = rewrite(table, columns);
            let values = [row.into(), last.into()];
            let update = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
            transaction.execute_raw(update).await?;
        } else {
            index += 1;
        }
        let next = last.unwrap_or(i64::MIN);
        Ok(Some(format!("{index} {next}")))
    }
}

/// Reads where a batch begins: in which table, and behind which row.
fn place(after: Option<&str>) -> (usize, i64) {
    let place = after.and_then(|after| after.split_once(' '));
    let read = |(table, row): (&str, &str)| Some((table.parse().ok()?, row.parse().ok()?));
    place.and_then(read).unwrap_or((0, i64::MIN))
}

/// Returns the last row of the batch behind this one.
async fn last_row(
    transaction: &DatabaseTransaction,
    table: &str,
    after: i64,
) -> Result<Option<i64>, StepError> {
    let sql = format!(
        "SELECT max(row) AS last FROM \
         (SELECT rowid AS row FROM \"{table}\" WHERE rowid > ?1 ORDER BY rowid LIMIT {BATCH})"
    );
    let last = Statement::from_sql_and_values(DbBackend::Sqlite, sql, [after.into()]);
    let row = transaction.query_one_raw(last).await?;
    Ok(row.map_or(Ok(None), |row| row.try_get("", "last"))?)
}

/// Returns the statement that rewrites the times of the rows between two.
fn rewrite(table: &str, columns: &[&str]) -> String {
    // Of what stands between the point and the offset.
    let set = columns.iter().map(|column| {
        format!(
            "\"{column}\" = substr(\"{column}\", 1, 19) || '.' || \
             substr(substr(\"{column}\", 21, max(0, length(\"{column}\") - 26)) || '000000', 1, 6) \
             || '+00:00'"
        )
    });
    let differs = columns
        .iter()
        .map(|column| format!("length(\"{column}\") <> {LENGTH}"));
    format!(
        "UPDATE \"{table}\" SET {} WHERE rowid > ?1 AND rowid <= ?2 AND ({})",
        set.collect::<Vec<_>>().join(", "),
        differs.collect::<Vec<_>>().join(" OR ")
    )
}
