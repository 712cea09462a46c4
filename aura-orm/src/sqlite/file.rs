//! Checks that the file which was opened is still the one at its path.
//!
//! SQLite goes on in a file that was removed or moved, and its commits succeed; at
//! the end of the process they are gone. So the path is checked after each commit and
//! before it is acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::Error;

/// A database file, as it was when this was made. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DatabaseFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    wal: PathBuf,
    file: Identity,
    /// A check has failed.
    moved: AtomicBool,
}

/// Which file stands at a path: device and inode. Always the same where there are
/// none, or no file.
pub(super) type Identity = Option<(u64, u64)>;

#[cfg(unix)]
fn identity(path: &Path) -> Identity {
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
        }))
    }

    /// Where it is.
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
        if self.wal() != wal {
            self.0.moved.store(true, Ordering::Relaxed);
        }
        self.check()
    }
}
