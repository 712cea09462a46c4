//! Opening SQLite.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{DatabaseConnection, SqlxSqliteConnector};
use sqlx::Connection as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use crate::config::{Config, Durability, Target};
use crate::error::Error;
use crate::open::{Connections, with_logging};

/// SQLite before 3.51.3 can lose committed pages in WAL mode when two
/// connections checkpoint at once (<https://sqlite.org/releaselog/3_51_3.html>).
const OLDEST_ENGINE: [u32; 3] = [3, 51, 3];

/// A WAL that grew behind a long read is cut to so many bytes afterwards.
const WAL_BYTES: &str = "67108864";

/// How long opening may wait for other processes that open the same new file.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// How long SQLite waits for another process's lock.
#[must_use]
pub fn busy_timeout(config: &Config) -> Duration {
    config
        .lock_timeout
        .unwrap_or(Duration::from_millis(i32::MAX as u64))
}

pub(crate) async fn connect(config: &Config, path: &Path) -> Result<Connections, Error> {
    prepare_file(path)?;
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
        memory: None,
    })
}

/// Foreign keys are off: a migration that rebuilds a table would otherwise
/// cascade every child row away, and inside a transaction the pragma is
/// ignored. The migration checks them before it commits.
pub(crate) async fn exclusive(config: &Config, path: &Path) -> Result<DatabaseConnection, Error> {
    prepare_file(path)?;
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

/// Returns a name for a database in memory, which no other has in this process.
pub(crate) fn memory_name() -> String {
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

/// A pool of one connection, opened now. Switching a new file to WAL needs an
/// exclusive lock for which SQLite does not use its busy timeout, so processes
/// that open a new file together are made to try again here.
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
        match pool.connect_with(options.clone()).await {
            Err(error) if is_busy(&error) && started.elapsed() < OPEN_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other.map_err(|error| refused(path, error))?,
        }
    };
    check_engine(&pool, path, started).await?;
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

async fn check_engine(pool: &SqlitePool, path: &Path, started: Instant) -> Result<(), Error> {
    // Reading the schema too makes a file that is no database fail here.
    let version: (String, i64) = loop {
        match sqlx::query_as("SELECT sqlite_version(), (SELECT count(*) FROM sqlite_schema)")
            .fetch_one(pool)
            .await
        {
            Err(error) if is_busy(&error) && started.elapsed() < OPEN_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other.map_err(|error| refused(path, error))?,
        }
    };
    if !is_new_enough(&version.0) {
        return Err(Error::Refused {
            target: format!("SQLite {}", path.display()),
            reason: format!(
                "the engine is SQLite {}, which can lose data in WAL mode",
                version.0
            ),
            hint: "Build with the bundled SQLite 3.51.3 or newer.".to_owned(),
            source: None,
        });
    }
    Ok(())
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = [parts.next(), parts.next(), parts.next()].map(|part| part.unwrap_or(0));
    found >= OLDEST_ENGINE
}

/// Creates the file with mode 0600, and its folder; SQLite gives `-wal` and
/// `-shm` the mode of the file.
///
/// An existing file is only looked at from outside: opening and closing it
/// here would drop the POSIX locks that SQLite holds on it in this process
/// (<https://sqlite.org/howtocorrupt.html>, 2.2). The mutex keeps another
/// thread's SQLite out until the new file's handle is closed.
fn prepare_file(path: &Path) -> Result<(), Error> {
    static CREATING: Mutex<()> = Mutex::new(());
    let _creating = CREATING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match std::fs::metadata(path) {
        Ok(metadata) => return refuse_folder(path, &metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(path, &error)),
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(|error| {
            let reason = format!("cannot create the folder {}: {error}", folder.display());
            unusable(path, &std::io::Error::new(error.kind(), reason))
        })?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn refuse_folder(path: &Path, metadata: &std::fs::Metadata) -> Result<(), Error> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() {
        "it is a folder"
    } else {
        "it is not a regular file"
    };
    Err(Error::Refused {
        target: format!("SQLite {}", path.display()),
        reason: what.to_owned(),
        hint: format!(
            "Set DB_PATH to a file, for example {}.",
            path.join("aura.db").display()
        ),
        source: None,
    })
}

fn unusable(path: &Path, error: &std::io::Error) -> Error {
    Error::Refused {
        target: format!("SQLite {}", path.display()),
        reason: error.to_string(),
        hint: "Check DB_PATH and the permissions of its folder; the database needs to write there."
            .to_owned(),
        source: None,
    }
}

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Primary result codes, <https://sqlite.org/rescode.html>; the low byte of an
/// extended code.
fn is_busy(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

fn refused(path: &Path, error: sqlx::Error) -> Error {
    let target = format!("SQLite {}", path.display());
    let (reason, hint) = match code(&error).map(|code| code & 0xff) {
        Some(26) => (
            "it is not a SQLite database",
            "Set DB_PATH to another file; this one was left as it is.",
        ),
        Some(11) => (
            "the file is damaged",
            "Restore it from a backup, or salvage what is readable with `sqlite3 FILE .recover`.",
        ),
        Some(8 | 14 | 23) => (
            "this user may not read and write it",
            "Check the permissions of the file, its -wal and -shm, and its folder.",
        ),
        Some(13) => ("the disk is full", "Free some space and start again."),
        Some(5 | 6) => {
            return Error::Unavailable {
                target,
                reason: "another process keeps it locked".to_owned(),
                hint: "Find it with `fuser FILE`; backups and editors may hold a lock.".to_owned(),
                source: Some(Box::new(error)),
            };
        }
        _ => (
            "SQLite failed",
            "The cause is below; check the file and its disk.",
        ),
    };
    Error::Refused {
        target,
        reason: reason.to_owned(),
        hint: hint.to_owned(),
        source: Some(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn engines_that_lose_pages_are_refused() {
        assert!(!is_new_enough("3.51.2"));
        assert!(!is_new_enough("3.9.4"));
        assert!(!is_new_enough("nonsense"));
        assert!(is_new_enough("3.51.3"));
        assert!(is_new_enough("3.52.0"));
        assert!(is_new_enough("4.0"));
    }
}
