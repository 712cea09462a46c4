//! Opening SQLite.

mod file;
mod place;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{DatabaseConnection, SqlxSqliteConnector};
use sqlx::Connection as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};

use crate::config::{Config, Durability, Target};
use crate::error::Error;
use crate::open::{Connections, with_logging};
pub use file::prepare_sqlite;
use file::{OPEN_PATIENCE, RETRY, check_place, is_busy, refuse_folder, refused, unusable};

/// Bytes to which a WAL is cut that grew behind a long read.
const WAL_BYTES: &str = "67108864";

/// The pragma with which LIKE tells `a` from `A`, as on PostgreSQL (docs/adr/0021).
pub const LIKE_PRAGMA: &str = "case_sensitive_like";

/// How long SQLite waits for another process's lock.
#[must_use]
pub fn busy_timeout(config: &Config) -> Duration {
    config
        .lock_timeout
        .unwrap_or(Duration::from_millis(i32::MAX as u64))
}

pub(crate) async fn connect(config: &Config, path: &Path) -> Result<Connections, Error> {
    prepare_sqlite(path).await?;
    let busy = busy_timeout(config);
    let writer = open(writer_options(config, path, true, busy), path, config).await?;
    let reader = SqlitePoolOptions::new()
        .max_connections(config.pool.max)
        .min_connections(config.pool.min)
        .idle_timeout(config.pool.idle_timeout)
        .acquire_timeout(config.pool.connection_timeout)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(with_logging(
            file_options(path).read_only(true).busy_timeout(busy),
            config,
        ));
    Ok(Connections {
        writer,
        reader: SqlxSqliteConnector::from_sqlx_sqlite_pool(reader),
    })
}

/// Foreign keys are off: a migration that rebuilds a table would otherwise
/// cascade every child row away, and inside a transaction the pragma is
/// ignored. The migration checks them before it commits.
pub(crate) async fn exclusive(config: &Config, path: &Path) -> Result<DatabaseConnection, Error> {
    prepare_sqlite(path).await?;
    open(
        writer_options(config, path, false, Duration::from_secs(1)),
        path,
        config,
    )
    .await
}

pub(crate) async fn read_only(
    config: &Config,
    path: &Path,
) -> Result<Option<DatabaseConnection>, Error> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, &error)),
        Ok(metadata) => refuse_folder(path, &metadata)?,
    }
    check_place(path)?;
    let options = file_options(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(10));
    // SQLite names them after the file itself, not after a link to it.
    let file = path
        .canonicalize()
        .map_err(|error| unusable(path, &error))?;
    let beside = |suffix: &str| {
        file.with_file_name(format!("{}{suffix}", name(&file)))
            .exists()
    };
    let options = if beside("-journal") {
        // Left by a process that was killed while it made the file; only who
        // may write can roll it back, which the first look at the file does.
        options.read_only(false).pragma("query_only", "ON")
    } else {
        // A file without a WAL is open nowhere. Opened as it is, nothing is
        // left beside it, and a folder that can't be written to is no obstacle.
        options.immutable(!beside("-wal"))
    };
    open(with_logging(options, config), path, config)
        .await
        .map(Some)
}

/// Returns a name for a database in memory, which no other has in this process. SQLite
/// opens it as `file:NAME?vfs=memdb`.
#[must_use]
pub fn memory_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // With a slash, or it would belong to one connection
    // (https://sqlite.org/src/file/src/memdb.c).
    format!("/aura-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// One connection that is never recycled: the database ends with its last connection.
pub(crate) async fn memory(config: &Config, name: &str) -> Result<DatabaseConnection, Error> {
    let options = SqliteConnectOptions::new()
        .filename(name)
        .vfs("memdb")
        .create_if_missing(true)
        .foreign_keys(true)
        .pragma(LIKE_PRAGMA, "ON")
        .busy_timeout(busy_timeout(config));
    open(with_logging(options, config), Path::new(":memory:"), config).await
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn file_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .pragma(LIKE_PRAGMA, "ON")
}

fn writer_options(
    config: &Config,
    path: &Path,
    foreign_keys: bool,
    busy: Duration,
) -> SqliteConnectOptions {
    let options = file_options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match config.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        })
        .foreign_keys(foreign_keys)
        .pragma("journal_size_limit", WAL_BYTES)
        .busy_timeout(busy);
    with_logging(options, config)
}

/// A pool of one connection, opened now. The first statement finds a file locked while
/// another process recovers the WAL.
async fn open(
    options: SqliteConnectOptions,
    path: &Path,
    config: &Config,
) -> Result<DatabaseConnection, Error> {
    let started = Instant::now();
    let pool = loop {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(config.pool.connection_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false);
        let pool = match &config.target {
            // There it would be the whole database.
            Target::Memory => pool,
            _ => pool.after_release(|connection, _| Box::pin(is_ended(connection))),
        };
        let opened = async {
            let pool = pool.connect_with(options.clone()).await?;
            // Only this makes a file that is no database fail.
            let schema = sqlx::query("SELECT count(*) FROM sqlite_schema");
            schema.execute(&pool).await?;
            Ok::<_, sqlx::Error>(pool)
        };
        match opened.await {
            Err(error) if is_busy(code(&error)) && started.elapsed() < OPEN_PATIENCE => {
                tokio::time::sleep(RETRY).await;
            }
            other => break other.map_err(|error| refused(path, code(&error), error))?,
        }
    };
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

/// Whether a connection that comes back is outside of any transaction, as the
/// driver counts them. A COMMIT that fails because the disk is full has undone
/// everything; then the ROLLBACK fails too, and the driver still counts a
/// transaction. It would begin the next with SAVEPOINT and end it with RELEASE,
/// which after another such failure says that it has committed, and has not. So
/// the connection is closed.
async fn is_ended(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // A transaction that was dropped is being undone: what comes after it
        // waits for that.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}
