//! Makes a SQLite file ready to be opened, and explains why it can't be.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::place::{check_link, check_names, check_temporary_folder, check_wal};
use crate::error::Error;
use crate::trouble::{Trouble, trouble};

/// SQLite before 3.51.3 can lose committed pages in WAL mode when two
/// connections checkpoint at once (<https://sqlite.org/releaselog/3_51_3.html>).
const OLDEST_ENGINE: i32 = 3_051_003;

/// How long opening may wait for other processes that open the same new file.
pub(super) const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before a locked file is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(20);

/// Creates a missing file (mode 0600) with its folder, switches it to WAL mode, and checks
/// that it is a database and the engine new enough. Leaves no connection open.
///
/// A new file can give the pages of deleted rows back to the file system
/// (`auto_vacuum = INCREMENTAL`); that of an existing one stays as it is.
///
/// # Errors
///
/// [`Error::Refused`] with the reason; [`Error::Unavailable`] when another process keeps
/// the file locked for 30 seconds.
pub async fn prepare_sqlite(path: &Path) -> Result<(), Error> {
    check_engine(rusqlite::version_number(), path)?;
    prepare_file(path)?;
    check_place(path)?;
    check_temporary_folder();
    let started = Instant::now();
    loop {
        let Err(error) = switch_to_wal(path) else {
            return Ok(());
        };
        let code = error.sqlite_error().map(|error| error.extended_code);
        if !is_busy(code) || started.elapsed() >= OPEN_PATIENCE {
            return Err(refused(path, code, error));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Refuses a file whose WAL is, or would be, another's.
pub(super) fn check_place(path: &Path) -> Result<(), Error> {
    check_names(path)?;
    check_wal(path)
}

/// Switching a new file to WAL needs an exclusive lock for which SQLite does not use its
/// busy timeout, so processes that open a new file together have to try again.
fn switch_to_wal(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // Before any other statement: later only VACUUM changes it.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // Reading the schema too makes a file that is no database fail here.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Refuses an engine that can lose data.
pub(super) fn check_engine(version: i32, path: &Path) -> Result<(), Error> {
    if version >= OLDEST_ENGINE {
        return Ok(());
    }
    Err(Error::Refused {
        target: format!("SQLite {}", path.display()),
        reason: format!(
            "the engine is SQLite {}.{}.{}, which can lose data in WAL mode",
            version / 1_000_000,
            version / 1_000 % 1_000,
            version % 1_000
        ),
        hint: "Build with the bundled SQLite 3.51.3 or newer.".to_owned(),
        source: None,
    })
}

/// Creates the file with mode 0600, and its folder; SQLite gives `-wal` and
/// `-shm` the mode of the file.
///
/// An existing file is only looked at from outside: opening and closing it
/// here would drop the POSIX locks that SQLite holds on it in this process
/// (<https://sqlite.org/howtocorrupt.html>, 2.2). The mutex keeps another
/// thread's SQLite out until the new file's handle is closed.
pub(super) fn prepare_file(path: &Path) -> Result<(), Error> {
    static CREATING: Mutex<()> = Mutex::new(());
    let _creating = CREATING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match std::fs::metadata(path) {
        Ok(metadata) => return refuse_folder(path, &metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => check_link(path)?,
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

pub(super) fn refuse_folder(path: &Path, metadata: &std::fs::Metadata) -> Result<(), Error> {
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

pub(super) fn unusable(path: &Path, error: &std::io::Error) -> Error {
    Error::Refused {
        target: format!("SQLite {}", path.display()),
        reason: error.to_string(),
        hint: "Check DB_PATH and the permissions of its folder; the database needs to write there."
            .to_owned(),
        source: None,
    }
}

/// Primary result codes, <https://sqlite.org/rescode.html>; the low byte of an
/// extended code.
pub(super) fn is_busy(code: Option<i32>) -> bool {
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Explains why SQLite refuses a file, by its result code.
pub(super) fn refused(
    path: &Path,
    code: Option<i32>,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let target = format!("SQLite {}", path.display());
    let (reason, hint) = match code.map(|code| code & 0xff) {
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
        Some(5 | 6) => {
            return Error::Unavailable {
                target,
                reason: "another process keeps it locked".to_owned(),
                hint: "Find it with `fuser FILE`; backups and editors may hold a lock.".to_owned(),
                source: Some(Box::new(error)),
            };
        }
        _ => match code.and_then(|code| trouble(&code.to_string())) {
            Some(Trouble { reason, hint, .. }) => (reason, hint),
            None => (
                "SQLite failed",
                "The cause is below; check the file and its disk.",
            ),
        },
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
    use super::*;

    #[test]
    fn engines_that_lose_pages_are_refused() {
        let check = |version| check_engine(version, Path::new("aura.db"));
        let refused = check(3_051_002).expect_err("too old").to_string();
        assert!(refused.contains("SQLite 3.51.2"), "{refused}");
        assert!(check(3_009_004).is_err());
        assert!(check(3_051_003).is_ok());
        assert!(check(4_000_000).is_ok());
    }
}
