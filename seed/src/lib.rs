//! Data to start with: a small demo, or volume to measure with.
//!
//! Either is one transaction, so that a database has all of it or nothing, and
//! either finds itself when it is run again and changes nothing.

mod bulk;
pub mod demo;
pub mod load;

use std::time::Duration;

use aura_db::sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use aura_db::{Database, SeaOrmTransaction, TypedQuery};

/// A seed that failed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be opened, or is busy.
    #[error(transparent)]
    Database(#[from] aura_db::Error),
    /// A password can't be used. Nothing was changed.
    #[error("{variable}: {source}")]
    Password {
        /// Where it came from.
        variable: &'static str,
        /// What is wrong with it.
        source: aura_db::password::PasswordError,
    },
    /// A statement failed. Nothing was changed.
    #[error("writing the seed failed, and nothing was changed")]
    Write(#[from] DbErr),
    /// The answer to COMMIT was lost.
    #[error(
        "whether the seed was written is not known, because the answer to COMMIT was lost; run it again: it writes what is missing"
    )]
    Commit(#[source] aura_db::Error),
}

connection::debug_as_display!(Error);

/// Rows per table, in the order of the schema.
pub async fn counts(db: &Database) -> Result<Vec<(&'static str, i64)>, Error> {
    let mut counts = Vec::new();
    for table in aura_db::migration::runner().tables() {
        let sql = format!("SELECT count(*) FROM {table}");
        let count = Statement::from_string(DbBackend::Sqlite, sql);
        counts.push((table, db.fetch_one(TypedQuery::<i64>::sql(count)).await?));
    }
    Ok(counts)
}

/// Begins a transaction that no other seed is in, however long that takes.
async fn begin(db: &Database) -> Result<SeaOrmTransaction, Error> {
    let begun = locked(db);
    tokio::pin!(begun);
    tokio::select! {
        begun = &mut begun => return begun,
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    tracing::warn!(target: "aura_db::seed", "waiting for another process that is writing …");
    begun.await
}

async fn locked(db: &Database) -> Result<SeaOrmTransaction, Error> {
    // On SQLite the transaction itself has the only write lock.
    let transaction = db.seaorm().begin().await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        transaction
            .execute_unprepared(connection::NO_TIME_LIMITS)
            .await?;
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended('aura-db seed of ' || current_schema(), 0))";
        transaction.execute_unprepared(sql).await?;
    }
    Ok(transaction)
}

/// Commits what went well; what didn't is rolled back, and its error told.
async fn end<T>(transaction: SeaOrmTransaction, result: Result<T, Error>) -> Result<T, Error> {
    match result {
        Ok(value) => transaction
            .commit()
            .await
            .map(|()| value)
            .map_err(Error::Commit),
        Err(error) => {
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}
