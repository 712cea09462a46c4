//! Data to start with: a small demo, or volume to measure with.
//!
//! Either is one transaction, so that a database has all of it or nothing, and
//! either finds itself when it is run again and changes nothing.

mod bulk;
pub mod demo;
pub mod load;

use aura_db::Database;
use aura_db::sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};

/// A seed that failed. The database is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be opened, or its schema is not current.
    #[error(transparent)]
    Database(#[from] aura_db::Error),
    /// A password can't be used.
    #[error("{variable}: {source}")]
    Password {
        /// Where it came from.
        variable: &'static str,
        /// What is wrong with it.
        #[source]
        source: aura_db::password::PasswordError,
    },
    /// A statement failed.
    #[error("writing the seed failed, and nothing was changed")]
    Statement(#[from] DbErr),
}

/// Rows per table, in the order of the schema.
pub async fn counts(db: &Database) -> Result<Vec<(&'static str, i64)>, Error> {
    let backend = db.reader().get_database_backend();
    let mut counts = Vec::new();
    for table in aura_db::migration::Runner::default().owned() {
        let sql = format!("SELECT count(*) AS rows FROM {table}");
        let row = db
            .reader()
            .query_one_raw(Statement::from_string(backend, sql))
            .await?;
        counts.push((table, row.map_or(Ok(0), |row| row.try_get("", "rows"))?));
    }
    Ok(counts)
}

/// Begins a transaction that no other seed is in.
async fn begin(db: &Database) -> Result<DatabaseTransaction, Error> {
    // On SQLite the transaction itself has the only write lock.
    let transaction = db.begin().await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended('aura-db seed of ' || current_schema(), 0))";
        transaction.execute_unprepared(sql).await?;
    }
    Ok(transaction)
}
