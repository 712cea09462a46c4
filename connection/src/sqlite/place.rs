//! Where a SQLite file must not be: under several names, mounted by itself, beside the WAL
//! of another; and where SQLite finds no room for temporary files.

use std::path::{Path, PathBuf};
use std::sync::Once;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::Error;

/// The bytes of a WAL's header; a longer one holds pages.
const WAL_HEADER: u64 = 32;

/// `SQLITE_CORRUPT`, the primary result code.
const CORRUPT: i32 = 11;

fn refused(path: &Path, reason: String, hint: String) -> Error {
    Error::Refused {
        target: format!("SQLite {}", path.display()),
        reason,
        hint,
        source: None,
    }
}

/// Refuses a file whose WAL stands beside another name of it: what is committed under one
/// is invisible, and later damage, under the other.
///
/// # Errors
///
/// [`Error::Refused`] for a file with hard links, and one that is mounted by itself.
pub(super) fn check_names(path: &Path) -> Result<(), Error> {
    let names = names(path);
    if names > 1 {
        return Err(refused(
            path,
            format!(
                "the file has {names} names (hard links), and its WAL stands beside one of them"
            ),
            "Remove the other names; to keep a copy, make one with `VACUUM INTO`.".to_owned(),
        ));
    }
    let Ok(file) = path.canonicalize() else {
        return Ok(());
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if is_mount(&mounts, &file) {
        return Err(refused(
            path,
            "the file is mounted by itself, and its WAL would stay behind in this container"
                .to_owned(),
            "Mount its folder, so that the -wal and -shm beside it are mounted too.".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(unix)]
fn names(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(1, |metadata| metadata.nlink())
}

#[cfg(not(unix))]
fn names(_: &Path) -> u64 {
    1
}

/// Returns whether the file is a mount point; the fifth field of a line of
/// `/proc/self/mountinfo` is one (`proc_pid_mountinfo(5)`).
fn is_mount(mounts: &str, file: &Path) -> bool {
    let Some(file) = file.to_str() else {
        return false;
    };
    let escaped = file
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012");
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| point == escaped)
}

/// Refuses a link that leads to no file: SQLite would name the folder of the link.
pub(super) fn check_link(path: &Path) -> Result<(), Error> {
    let Ok(to) = std::fs::read_link(path) else {
        return Ok(());
    };
    Err(refused(
        path,
        format!("it is a link to {}, which isn't there", to.display()),
        "Create that file and its folder, or remove the link.".to_owned(),
    ))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = file.into_os_string();
    name.push(suffix);
    name.into()
}

/// Looks at a file that was written after the WAL which is left beside it, as a backup that
/// was copied there: SQLite would apply the WAL to it and fold it in. A file that doesn't
/// fit its WAL is refused and left as it is, with the WAL; one that seems to fit is warned
/// about, because what was restored may be undone.
///
/// # Errors
///
/// [`Error::Refused`] when the two make no sound database.
pub(super) fn check_wal(path: &Path) -> Result<(), Error> {
    if !is_newer_than_wal(path) {
        return Ok(());
    }
    let wal = beside(path, "-wal");
    let remove = format!(
        "remove {} and {}",
        wal.display(),
        beside(path, "-shm").display()
    );
    match is_sound(path) {
        Some(true) => {
            tracing::warn!(
                target: "aura_db::connection",
                "SQLite {} was written after its WAL, which is applied to it now. If a backup was copied over it: \
                 stop, {remove}, and copy the backup again",
                path.display(),
            );
            Ok(())
        }
        Some(false) => Err(refused(
            path,
            "the file and the WAL beside it don't belong together, or it is damaged; nothing was changed"
                .to_owned(),
            format!("If a backup was copied over it, {remove}, and start again."),
        )),
        None => Ok(()),
    }
}

/// Returns whether the file was changed after its WAL was written. A copy may have set the
/// time of the file's content back; that of the WAL's rights changes when root opens it.
#[cfg(unix)]
fn is_newer_than_wal(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(file), Ok(wal)) = (
        std::fs::metadata(path),
        std::fs::metadata(beside(path, "-wal")),
    ) else {
        return false;
    };
    let changed = (file.ctime(), file.ctime_nsec());
    wal.len() > WAL_HEADER && changed > (wal.mtime(), wal.mtime_nsec())
}

#[cfg(not(unix))]
fn is_newer_than_wal(_: &Path) -> bool {
    false
}

/// Returns whether the file is sound with its WAL applied, without writing to either; `None`
/// when another connection has it open, which takes its WAL for its own, and when it can't
/// be opened.
fn is_sound(path: &Path) -> Option<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).ok()?;
    // Its end would fold the WAL into the file.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .ok()?;
    connection
        .pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))
        .ok()?;
    let checked = connection.query_row("PRAGMA integrity_check(1)", [], |row| {
        row.get::<_, String>(0)
    });
    match checked {
        Ok(result) => Some(result == "ok"),
        Err(error) => {
            let code = error.sqlite_error().map(|error| error.extended_code & 0xff);
            (code == Some(CORRUPT)).then_some(false)
        }
    }
}

/// Warns once when there is no folder for SQLite's temporary files: large sorts, and the
/// check of foreign keys after a migration, would fail with "disk I/O error".
pub(super) fn check_temporary_folder() {
    static CHECKED: Once = Once::new();
    CHECKED.call_once(|| {
        if let Some(warning) = temporary_folder_warning(&temporary_folders()) {
            tracing::warn!(target: "aura_db::connection", "{warning}");
        }
    });
}

/// The folders that SQLite tries, in its order (`unixTempFileDir`).
fn temporary_folders() -> Vec<PathBuf> {
    let set = ["SQLITE_TMPDIR", "TMPDIR"].into_iter();
    let set = set.filter_map(|name| std::env::var_os(name).map(PathBuf::from));
    let fixed = ["/var/tmp", "/usr/tmp", "/tmp", "."].map(PathBuf::from);
    set.chain(fixed).collect()
}

fn temporary_folder_warning(folders: &[PathBuf]) -> Option<String> {
    if cfg!(not(unix)) || folders.iter().any(|folder| is_writable(folder)) {
        return None;
    }
    let tried: Vec<_> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    Some(format!(
        "there is no folder for SQLite's temporary files ({}): large sorts and migrations of long tables will fail. \
         Mount a writable /tmp, or set SQLITE_TMPDIR to a folder that this process may write to",
        tried.join(", ")
    ))
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    folder.is_dir() && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(folder: &Path) -> bool {
    folder.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_mounted_by_itself_is_found() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
             31 22 254:0 /srv/a.db /data/aura.db rw - ext4 /dev/vda rw\n\
             32 22 254:0 /srv/b /data/with\\040blank/x\\134y.db rw - ext4 /dev/vda rw\n";
        for (file, found) in [
            ("/data/aura.db", true),
            ("/data/with blank/x\\y.db", true),
            ("/data/aura.db2", false),
            ("/srv/a.db", false),
            ("/data", false),
        ] {
            assert_eq!(is_mount(mounts, Path::new(file)), found, "{file}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_temporary_folder_is_warned_about() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let none = vec![folder.path().join("missing"), file];
        let warning = temporary_folder_warning(&none).expect("there is none");
        for word in ["SQLITE_TMPDIR", "writable /tmp", "missing"] {
            assert!(warning.contains(word), "{warning}");
        }
        let some = [none, vec![folder.path().to_owned()]].concat();
        assert_eq!(temporary_folder_warning(&some), None);
        // What SQLite would take on this machine.
        assert_eq!(temporary_folder_warning(&temporary_folders()), None);
    }
}
