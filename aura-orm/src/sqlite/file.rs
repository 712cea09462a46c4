//! Where a database is, and checks that the file which was opened is still the one at
//! its path.
//!
//! SQLite goes on in a file that was removed or moved, and its commits succeed; at
//! the end of the process they are gone. So the path is checked after each commit and
//! before it is acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::error::Error;

/// A database file, as it was when this was made, or a database in memory. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct DatabaseFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    wal: PathBuf,
    file: Identity,
    /// A check has failed.
    moved: AtomicBool,
    /// Keeps a database in memory, which ends with its last connection.
    memory: Option<Mutex<Option<Connection>>>,
}

/// Which file stands at a path: device and inode. Always the same where there are
/// none, or no file.
pub(super) type Identity = Option<(u64, u64)>;

/// Doesn't ask for the times of the file: once they were asked for, Linux gives the next write a
/// time of its own (since 6.13, <https://docs.kernel.org/filesystems/multigrain-ts.html>), and the
/// commit after it waits for the inode, too, half as long again.
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> Identity {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    use rustix::io::Errno;
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(found) => {
            let [major, minor] = [found.stx_dev_major, found.stx_dev_minor].map(u64::from);
            Some((major << 32 | minor, found.stx_ino))
        }
        // Not there, or forbidden in a container, as before Docker 18.04.
        Err(Errno::NOSYS | Errno::PERM) => by_metadata(path),
        Err(_) => None,
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn identity(path: &Path) -> Identity {
    by_metadata(path)
}

#[cfg(unix)]
fn by_metadata(path: &Path) -> Identity {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Identity {
    None
}

impl DatabaseFile {
    /// The file at this path, which exists.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        // SQLite names the WAL after the file itself, not after a link to it.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut wal = path.clone().into_os_string();
        wal.push("-wal");
        Self(Arc::new(Opened {
            file: identity(&path),
            path,
            wal: wal.into(),
            moved: AtomicBool::new(false),
            memory: None,
        }))
    }

    /// The database in memory of this name. All connections of
    /// the process that open it share it (<https://sqlite.org/src/file/src/memdb.c>);
    /// it has no WAL, so a write keeps even readers out.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn memory(name: &str) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let uri = format!("file:{name}?vfs=memdb");
        let connection = Connection::open_with_flags(&uri, flags)?;
        Ok(Self(Arc::new(Opened {
            path: uri.into(),
            wal: PathBuf::new(),
            file: None,
            moved: AtomicBool::new(false),
            memory: Some(Mutex::new(Some(connection))),
        })))
    }

    /// Returns whether it is a database in memory.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.0.memory.is_some()
    }

    /// Lets a database in memory end with the last connection to it.
    pub(super) fn close(&self) {
        if let Some(memory) = &self.0.memory {
            memory.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Where the file is, or the URI of a database in memory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns whether a check has failed before.
    #[must_use]
    pub fn is_moved(&self) -> bool {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// Checks that the file is still at its path.
    ///
    /// # Errors
    ///
    /// [`Error::Moved`] when it is not, or was not at an earlier check.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_memory() {
            return Ok(());
        }
        if self.is_moved() || identity(&self.0.path) != self.0.file {
            self.0.moved.store(true, Ordering::Relaxed);
            return Err(Error::Moved);
        }
        Ok(())
    }

    /// Returns the identity of the WAL. SQLite keeps it as long as a connection is
    /// open.
    pub(super) fn wal(&self) -> Identity {
        identity(&self.0.wal)
    }

    /// [`DatabaseFile::check`], also of the WAL.
    pub(super) fn check_with_wal(&self, wal: Identity) -> Result<(), Error> {
        if !self.is_memory() && self.wal() != wal {
            self.0.moved.store(true, Ordering::Relaxed);
        }
        self.check()
    }
}
