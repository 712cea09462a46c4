//! Files that are no SQLite database and must stay as they are, and what is
//! said about them.

use std::path::Path;

use connection::{Config, Error, connect, connect_exclusive, connect_read_only};

use crate::assert_helpful;
use crate::sqlite::{folder, opened, run};

/// Every way to open says the same about a file that can't be opened.
async fn refused(path: &Path) -> Error {
    let config = Config::sqlite(path);
    let name = path.to_str().expect("a path in UTF-8");
    assert_helpful(&connect_exclusive(&config).await.expect_err(name), name);
    assert_helpful(&connect_read_only(&config).await.expect_err(name), name);
    let error = connect(&config).await.expect_err(name);
    assert_helpful(&error, name);
    error
}

#[tokio::test]
async fn a_folder_is_refused_with_a_file_to_use_instead() {
    let folder = folder();
    let error = refused(folder.path()).await.to_string();
    assert!(error.contains("it is a folder"), "{error}");
    assert!(
        error.contains(&format!(
            "for example {}",
            folder.path().join("aura.db").display()
        )),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_byte_for_byte() {
    let long = "not a database\n".repeat(1000);
    for content in [
        "xy",
        "#!/bin/sh\n",
        "SQLite format 2 and the rest",
        long.as_str(),
    ] {
        let folder = folder();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, content).expect("a file");
        let error = refused(&path).await;
        assert!(
            error.to_string().contains("is not a SQLite database"),
            "{error}"
        );
        assert!(
            std::error::Error::source(&error).is_some(),
            "the engine's own error"
        );
        assert_eq!(std::fs::read(&path).expect("the file"), content.as_bytes());
        assert_eq!(
            std::fs::read_dir(folder.path())
                .expect("the folder")
                .count(),
            1,
            "nothing beside it"
        );
    }
}

#[tokio::test]
async fn a_damaged_database_is_told_from_a_foreign_file() {
    let folder = folder();
    let path = folder.path().join("aura.db");
    let connections = opened(&path).await;
    run(
        &connections.writer,
        "CREATE TABLE t (x); INSERT INTO t VALUES (7)",
    )
    .await;
    connections.close().await;
    let mut bytes = std::fs::read(&path).expect("the file");
    // The header stays; the root of the schema behind it is overwritten.
    bytes[100..4096].fill(0xa5);
    std::fs::write(&path, &bytes).expect("a damaged file");
    let error = refused(&path).await.to_string();
    assert!(
        error.contains("the file is damaged") && error.contains("backup"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).expect("the file"), bytes);
}

#[tokio::test]
async fn a_path_below_a_file_is_refused() {
    let folder = folder();
    let file = folder.path().join("file.txt");
    std::fs::write(&file, "mine").expect("a file");
    for path in [file.join("aura.db"), file.join("deep/aura.db")] {
        let error = refused(&path).await.to_string();
        assert!(error.contains("Check DB_PATH"), "{error}");
    }
    assert_eq!(std::fs::read(&file).expect("the file"), b"mine");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    // Nobody can make folders in /proc, root neither.
    let path = Path::new("/proc/aura-db/aura.db");
    let error = connect(&Config::sqlite(path))
        .await
        .expect_err("no such place");
    assert_helpful(&error, "/proc/aura-db/aura.db");
    assert!(
        error
            .to_string()
            .contains("cannot create the folder /proc/aura-db:"),
        "{error}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_device_is_refused() {
    let error = refused(Path::new("/dev/null")).await.to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

/// A WAL stands beside one name only.
#[tokio::test]
async fn a_file_of_two_names_is_refused() {
    let folder = folder();
    let path = folder.path().join("aura.db");
    opened(&path).await.close().await;
    let other = folder.path().join("other.db");
    std::fs::hard_link(&path, &other).expect("a second name");
    for name in [&path, &other] {
        let error = refused(name).await.to_string();
        assert!(error.contains("has 2 names (hard links)"), "{error}");
    }
    std::fs::remove_file(&other).expect("one name again");
    opened(&path).await.close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_no_file_is_refused_and_stays() {
    let folder = folder();
    let link = folder.path().join("aura.db");
    std::os::unix::fs::symlink("nowhere/x.db", &link).expect("a link");
    for error in [
        connect(&Config::sqlite(&link)).await.err(),
        connect_exclusive(&Config::sqlite(&link)).await.err(),
    ] {
        let error = error.expect("it leads nowhere");
        assert_helpful(&error, "aura.db");
        let told = "it is a link to nowhere/x.db, which isn't there";
        assert!(error.to_string().contains(told), "{error}");
    }
    let names = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(names, 1, "nothing was created");
}

/// A database, a backup of it, and a WAL of a later life of it.
#[cfg(unix)]
struct Restored {
    folder: tempfile::TempDir,
    path: std::path::PathBuf,
    backup: Vec<u8>,
    wal: Vec<u8>,
    /// The file that the WAL belongs to.
    later: Vec<u8>,
}

#[cfg(unix)]
impl Restored {
    fn new() -> Self {
        let folder = folder();
        let path = folder.path().join("made.db");
        let db = rusqlite::Connection::open(&path).expect("a database");
        let run = |sql: &str| {
            db.execute_batch(sql)
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
        };
        let fill = |rows: usize| {
            run(&format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                 INSERT INTO t (x) SELECT hex(randomblob(100)) FROM n"
            ));
        };
        run("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
            CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX t_x ON t (x)");
        fill(1000);
        run("PRAGMA wal_checkpoint(TRUNCATE)");
        let backup = std::fs::read(&path).expect("a backup");
        fill(3000);
        run("PRAGMA wal_checkpoint(TRUNCATE)");
        fill(5);
        run("DELETE FROM t WHERE id % 7 = 0");
        let wal = std::fs::read(folder.path().join("made.db-wal")).expect("a WAL");
        let later = std::fs::read(&path).expect("the file");
        drop(db);
        Self {
            path: folder.path().join("aura.db"),
            folder,
            backup,
            wal,
            later,
        }
    }

    fn wal_path(&self) -> std::path::PathBuf {
        self.folder.path().join("aura.db-wal")
    }

    /// Puts a file where the WAL is, later than it.
    fn restore(&self, content: &[u8]) {
        use std::os::unix::fs::MetadataExt;
        std::fs::write(self.wal_path(), &self.wal).expect("the WAL");
        let changed = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("a file");
            (metadata.ctime(), metadata.ctime_nsec())
        };
        // The clock of the file system is coarse.
        loop {
            std::fs::write(&self.path, content).expect("the file");
            if changed(&self.path) > changed(&self.wal_path()) {
                return;
            }
        }
    }
}

/// It was opened, the WAL folded into it, and `check` said that all is as expected.
#[cfg(unix)]
#[tokio::test]
async fn a_backup_beside_the_wal_of_a_later_life_is_refused_and_kept() {
    let restored = Restored::new();
    restored.restore(&restored.backup);
    let error = refused(&restored.path).await.to_string();
    assert!(error.contains("don't belong together"), "{error}");
    assert!(
        error.contains("aura.db-wal") && error.contains("aura.db-shm"),
        "{error}"
    );
    assert!(std::fs::read(&restored.path).expect("the backup") == restored.backup);
    assert!(std::fs::read(restored.wal_path()).expect("the WAL") == restored.wal);
    // As the error says.
    std::fs::remove_file(restored.wal_path()).expect("removed");
    let connections = opened(&restored.path).await;
    let rows: i64 = crate::sqlite::one(&connections.reader, "SELECT count(*) FROM t").await;
    assert_eq!(rows, 1000, "those of the backup");
    connections.close().await;
}

/// As after a crash whose file was given other rights, or was copied last.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_newer_than_its_own_wal_is_opened_with_it() {
    let restored = Restored::new();
    restored.restore(&restored.later);
    let connections = opened(&restored.path).await;
    let rows: i64 = crate::sqlite::one(&connections.reader, "SELECT count(*) FROM t").await;
    assert_eq!(rows, 4005 - 4005 / 7);
    // While it is open, its WAL is its own, however old.
    let permissions = std::fs::metadata(&restored.path)
        .expect("a file")
        .permissions();
    std::fs::set_permissions(&restored.path, permissions).expect("it is newer");
    let again = opened(&restored.path).await;
    again.close().await;
    connections.close().await;
}
