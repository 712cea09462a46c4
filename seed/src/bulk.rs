//! Many rows in one statement with one bound value: a JSON array of arrays.
//! Unlike a long VALUES list it is the same statement for every batch, and it
//! costs no work per value on this side.

use aura_db::SeaOrmTransaction;
use aura_db::sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

/// Rows per statement: beyond this the time per row no longer falls.
pub(crate) const BATCH: usize = 1000;

/// A column, and the type that PostgreSQL casts its text to.
pub(crate) type Column = (&'static str, &'static str);

/// Inserts rows whose values are in the order of the columns.
pub(crate) async fn insert(
    transaction: &SeaOrmTransaction,
    table: &str,
    columns: &[Column],
    rows: Vec<serde_json::Value>,
) -> Result<(), DbErr> {
    let backend = transaction.get_database_backend();
    let names = columns
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let values = columns
        .iter()
        .enumerate()
        .map(|(place, (_, kind))| match backend {
            DbBackend::Postgres => format!("CAST(row ->> {place} AS {kind})"),
            _ => format!("value ->> {place}"),
        });
    let values = values.collect::<Vec<_>>().join(", ");
    let source = match backend {
        DbBackend::Postgres => "jsonb_array_elements(CAST($1 AS jsonb)) row",
        _ => "json_each(?1)",
    };
    let sql = format!("INSERT INTO {table} ({names}) SELECT {values} FROM {source}");
    let rows = serde_json::Value::Array(rows).to_string();
    transaction
        .execute_raw(Statement::from_sql_and_values(backend, sql, [rows.into()]))
        .await?;
    Ok(())
}
