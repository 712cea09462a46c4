//! The lock around a run, which is the transaction that it happens in.

use std::time::Duration;

use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use crate::error::{Doing, Error};
use crate::runner::Event;

/// Begins the transaction that only one process can be in.
pub(crate) async fn lock(
    connection: &DatabaseConnection,
    tell: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    match connection.get_database_backend() {
        DbBackend::Postgres => lock_postgres(connection, tell).await,
        _ => lock_sqlite(connection, tell).await,
    }
}

async fn lock_sqlite(
    connection: &DatabaseConnection,
    tell: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    let mut told = false;
    loop {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        match connection.begin_with_options(options).await {
            // Each try waits for SQLite's busy timeout, a second.
            Err(error) if is_busy(&error) => {
                if !told {
                    tell(Event::Waiting {
                        holder: "another process that is writing",
                    });
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.doing("beginning the migrations"),
        }
    }
}

fn is_busy(error: &DbErr) -> bool {
    let (DbErr::Exec(error) | DbErr::Query(error) | DbErr::Conn(error)) = error else {
        return false;
    };
    let sea_orm::RuntimeErr::SqlxError(error) = error else {
        return false;
    };
    error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<i32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The lock is of the schema, so that two schemas of one database migrate
/// independently, and it ends with the transaction, however that ends.
const KEY: &str = "hashtextextended('aura-db migrations of ' || current_schema(), 0)";

async fn lock_postgres(
    connection: &DatabaseConnection,
    tell: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    // Whatever the server's defaults are: a snapshot from before the wait would
    // not show what the other process has migrated.
    let options = TransactionOptions {
        isolation_level: Some(IsolationLevel::ReadCommitted),
        access_mode: Some(AccessMode::ReadWrite),
        ..TransactionOptions::default()
    };
    let transaction = connection
        .begin_with_options(options)
        .await
        .doing("beginning the migrations")?;
    // Start-up options don't get through every pooler, and a role may have
    // time limits of its own.
    transaction
        .execute_unprepared(connection::NO_TIME_LIMITS)
        .await
        .doing("lifting the time limits")?;
    let sql = format!("SELECT pg_try_advisory_xact_lock({KEY}) AS locked");
    let row = transaction
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
        .doing("taking the migration lock")?;
    let locked: bool = row
        .map_or(Ok(false), |row| row.try_get("", "locked"))
        .doing("taking the migration lock")?;
    if !locked {
        let holder = holder(&transaction).await;
        tell(Event::Waiting {
            holder: holder.as_deref().unwrap_or("another migration"),
        });
        let sql = format!("SELECT pg_advisory_xact_lock({KEY})");
        transaction
            .execute_unprepared(&sql)
            .await
            .doing("waiting for the migration lock")?;
    }
    Ok(transaction)
}

/// Who holds the lock, for the person who waits; the answer may be out of date.
/// In a savepoint of its own, because not every user may look.
async fn holder(transaction: &DatabaseTransaction) -> Option<String> {
    let savepoint = transaction.begin().await.ok()?;
    let sql = format!(
        "SELECT a.pid, a.application_name::text AS name FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND ((l.classid::bigint << 32) | l.objid::bigint) = {KEY}"
    );
    let row = savepoint
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await;
    savepoint.rollback().await.ok()?;
    let row = row.ok()??;
    let pid: i32 = row.try_get("", "pid").ok()?;
    let name: String = row.try_get("", "name").ok()?;
    Some(format!("the migration of {name} (server process {pid})"))
}
