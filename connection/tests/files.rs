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
