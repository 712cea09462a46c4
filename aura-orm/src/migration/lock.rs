//! The lock that only one run of a database can hold, whatever its history.
//!
//! On PostgreSQL it is an advisory lock, and waiting for it is polling: a statement that
//! waits would hold a snapshot, and `CREATE INDEX CONCURRENTLY` of the run that holds the
//! lock would wait for that snapshot.

use std::time::Duration;

use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions, TransactionSession,
    TransactionTrait,
};

use super::Event;
use super::error::{Context, Error, code};

/// The lock is of the schema, so that two schemas of one database migrate
/// independently.
const KEY: &str = "hashtextextended('aura-db migrations of ' || current_schema(), 0)";

/// How long to wait before the lock is tried again.
const POLL: Duration = Duration::from_millis(50);

/// Begins the transaction that only one process can be in. It holds the lock until it ends.
pub(super) async fn begin(
    connection: &DatabaseConnection,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    match connection.get_database_backend() {
        DbBackend::Postgres => begin_postgres(connection, on_event).await,
        _ => begin_sqlite(connection, on_event).await,
    }
}

async fn begin_sqlite(
    connection: &DatabaseConnection,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    let mut reported = false;
    loop {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        match connection.begin_with_options(options).await {
            // Each try waits for SQLite's busy timeout, a second.
            Err(error) if is_busy(&error) => {
                if !reported {
                    on_event(Event::Waiting {
                        holder: "another process that is writing",
                    });
                    reported = true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.context("beginning the migrations"),
        }
    }
}

fn is_busy(error: &DbErr) -> bool {
    code(error)
        .and_then(|code| code.parse::<i32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

async fn begin_postgres(
    connection: &DatabaseConnection,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    let mut reported = false;
    loop {
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
            .context("beginning the migrations")?;
        // Start-up options don't get through every pooler, and a role may have
        // time limits of its own.
        transaction
            .execute_unprepared(connection::NO_TIME_LIMITS)
            .await
            .context("lifting the time limits")?;
        if is_granted(&transaction, "pg_try_advisory_xact_lock").await? {
            return Ok(transaction);
        }
        if !reported {
            let holder = holder(&transaction).await;
            on_event(Event::Waiting {
                holder: holder.as_deref().unwrap_or("another migration"),
            });
            reported = true;
        }
        transaction
            .rollback()
            .await
            .context("waiting for the migration lock")?;
        tokio::time::sleep(POLL).await;
    }
}

/// Takes the lock for the session of a connection to PostgreSQL, which ends with it. The
/// session may hold it already.
pub(super) async fn take_for_session(
    connection: &DatabaseConnection,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<(), Error> {
    let no_limits = connection::NO_TIME_LIMITS.replace("SET LOCAL", "SET");
    connection
        .execute_unprepared(&no_limits)
        .await
        .context("lifting the time limits")?;
    let mut reported = false;
    while !is_granted(connection, "pg_try_advisory_lock").await? {
        if !reported {
            let holder = holder(connection).await;
            on_event(Event::Waiting {
                holder: holder.as_deref().unwrap_or("another migration"),
            });
            reported = true;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn is_granted<C: ConnectionTrait>(connection: &C, function: &str) -> Result<bool, Error> {
    let sql = format!("SELECT {function}({KEY}) AS granted");
    let row = connection
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
        .context("taking the migration lock")?;
    row.map_or(Ok(false), |row| row.try_get("", "granted"))
        .context("taking the migration lock")
}

/// Describes the session that holds the lock, for the person who waits; the answer may be
/// out of date. In a savepoint of its own, because not every user may look.
async fn holder<C: TransactionTrait>(connection: &C) -> Option<String> {
    let savepoint = connection.begin().await.ok()?;
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
