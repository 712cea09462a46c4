//! Opening SQLite files: what is made, and how it is set up.

use std::path::Path;
use std::time::Duration;

use connection::{Config, Connections, Error, connect, connect_exclusive, connect_read_only};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait, TryGetable,
};

pub(crate) async fn one<T: TryGetable>(connection: &DatabaseConnection, sql: &str) -> T {
    let statement = Statement::from_string(DbBackend::Sqlite, sql);
    let row = connection
        .query_one_raw(statement)
        .await
        .expect(sql)
        .expect("a row");
    row.try_get_by_index(0).expect(sql)
}

pub(crate) async fn run(connection: &DatabaseConnection, sql: &str) {
    connection.execute_unprepared(sql).await.expect(sql);
}

pub(crate) async fn opened(path: &Path) -> Connections {
    connect(&Config::sqlite(path))
        .await
        .expect("the file opens")
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_belongs_to_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let path = folder.path().join("deep/er/aura.db");
    let connections = opened(&path).await;
    run(&connections.writer, "CREATE TABLE t (x)").await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("deep/er")).expect("the folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        names.push(entry.file_name().into_string().expect("a name in UTF-8"));
    }
    names.sort();
    assert_eq!(names, ["aura.db", "aura.db-shm", "aura.db-wal"]);
    connections.close().await;
    assert!(
        !folder.path().join("deep/er/aura.db-wal").exists(),
        "closing folds the WAL back"
    );
}

#[tokio::test]
async fn the_writer_is_durable_and_checks_foreign_keys() {
    let folder = folder();
    let Connections { writer, reader, .. } = opened(&folder.path().join("aura.db")).await;
    for connection in [&writer, &reader] {
        assert_eq!(
            one::<String>(connection, "PRAGMA journal_mode").await,
            "wal"
        );
        assert_eq!(one::<i64>(connection, "PRAGMA busy_timeout").await, 10_000);
    }
    assert_eq!(one::<i64>(&writer, "PRAGMA synchronous").await, 2);
    assert_eq!(one::<i64>(&writer, "PRAGMA foreign_keys").await, 1);
    run(
        &writer,
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p)",
    )
    .await;
    writer
        .execute_unprepared("INSERT INTO c VALUES (7)")
        .await
        .expect_err("no such parent");
}

#[tokio::test]
async fn the_engine_was_compiled_as_the_workspace_says() {
    let connections = connect(&Config::memory()).await.expect("it opens");
    let options: String = one(
        &connections.writer,
        "SELECT group_concat(compile_options) FROM pragma_compile_options",
    )
    .await;
    assert!(
        options.contains("ENABLE_QPSG") && options.contains("DEFAULT_MEMSTATUS=0"),
        "{options}"
    );
}

#[tokio::test]
async fn a_new_file_can_be_cut_and_an_old_one_stays_as_it_is() {
    let folder = folder();
    let new = opened(&folder.path().join("new.db")).await;
    assert_eq!(one::<i64>(&new.writer, "PRAGMA auto_vacuum").await, 2);
    for (name, mode) in [("none", 0), ("full", 1)] {
        let path = folder.path().join(name);
        let old = rusqlite::Connection::open(&path).expect("it opens");
        let schema =
            format!("PRAGMA auto_vacuum = {mode}; CREATE TABLE t (x); INSERT INTO t VALUES (7)");
        old.execute_batch(&schema).expect("a table");
        drop(old);
        let old = opened(&path).await;
        assert_eq!(one::<i64>(&old.reader, "SELECT x FROM t").await, 7);
        assert_eq!(one::<i64>(&old.writer, "PRAGMA auto_vacuum").await, mode);
    }
}

#[tokio::test]
async fn the_reader_sees_each_write_at_once_and_cannot_write() {
    let folder = folder();
    let Connections { writer, reader, .. } = opened(&folder.path().join("aura.db")).await;
    run(&writer, "CREATE TABLE t (x)").await;
    for count in 1..=20 {
        run(&writer, "INSERT INTO t VALUES (1)").await;
        assert_eq!(one::<i64>(&reader, "SELECT count(*) FROM t").await, count);
    }
    for sql in [
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "CREATE TABLE u (x)",
        "PRAGMA user_version = 7",
    ] {
        let error = reader.execute_unprepared(sql).await.expect_err(sql);
        assert!(error.to_string().contains("readonly"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    use sea_orm::TransactionTrait as _;
    let folder = folder();
    let Connections { writer, reader, .. } = opened(&folder.path().join("aura.db")).await;
    run(&writer, "CREATE TABLE t (x)").await;
    let transaction = writer.begin().await.expect("a transaction");
    transaction
        .execute_unprepared("INSERT INTO t VALUES (1)")
        .await
        .expect("a row");
    assert_eq!(one::<i64>(&reader, "SELECT count(*) FROM t").await, 0);
    transaction.commit().await.expect("a commit");
    assert_eq!(one::<i64>(&reader, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_waits_as_long_as_it_may() {
    let folder = folder();
    let path = folder.path().join("aura.db");
    let first = opened(&path).await;
    run(&first.writer, "CREATE TABLE t (x)").await;
    let mut config = Config::sqlite(&path);
    config.lock_timeout = Some(Duration::from_millis(50));
    let hasty = connect(&config).await.expect("it opens");
    let patient = opened(&path).await;

    run(&first.writer, "BEGIN IMMEDIATE").await;
    let error = hasty
        .writer
        .execute_unprepared("INSERT INTO t VALUES (1)")
        .await
        .expect_err("locked");
    assert!(error.to_string().contains("locked"), "{error}");
    let waiting =
        tokio::spawn(async move { run(&patient.writer, "INSERT INTO t VALUES (2)").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    run(&first.writer, "COMMIT").await;
    waiting.await.expect("the patient writer wrote");
}

#[tokio::test]
async fn in_memory_reader_and_writer_are_one_database() {
    let Connections { writer, reader, .. } = connect(&Config::memory()).await.expect("it opens");
    run(
        &writer,
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p)",
    )
    .await;
    run(&reader, "INSERT INTO p VALUES (1)").await;
    assert_eq!(one::<i64>(&writer, "SELECT count(*) FROM p").await, 1);
    writer
        .execute_unprepared("INSERT INTO c VALUES (7)")
        .await
        .expect_err("no such parent");
    let other = connect(&Config::memory()).await.expect("it opens");
    assert_eq!(
        one::<i64>(&other.writer, "SELECT count(*) FROM sqlite_schema").await,
        0
    );
    assert!(
        connect_read_only(&Config::memory())
            .await
            .expect("an answer")
            .is_none()
    );
}

#[tokio::test]
async fn a_pool_setting_does_not_give_memory_a_second_database() {
    let mut config = Config::memory();
    config.pool.max = 10;
    config.pool.idle_timeout = Some(Duration::from_millis(1));
    let Connections { writer, reader, .. } = connect(&config).await.expect("it opens");
    run(&writer, "CREATE TABLE t (x)").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let counts = (0..8).map(|_| {
        let reader = reader.clone();
        tokio::spawn(async move { one::<i64>(&reader, "SELECT count(*) FROM t").await })
    });
    for count in counts.collect::<Vec<_>>() {
        assert_eq!(count.await.expect("the table is there"), 0);
    }
}

#[tokio::test]
async fn an_existing_file_keeps_its_rows_and_its_mode() {
    let folder = folder();
    let path = folder.path().join("aura.db");
    let connections = opened(&path).await;
    run(
        &connections.writer,
        "CREATE TABLE t (x); INSERT INTO t VALUES (7)",
    )
    .await;
    connections.close().await;
    let mode = || std::fs::metadata(&path).expect("the file").permissions();
    let before = mode();
    let connections = opened(&path).await;
    assert_eq!(one::<i64>(&connections.reader, "SELECT x FROM t").await, 7);
    assert_eq!(mode(), before);
}

#[tokio::test]
async fn an_exclusive_connection_leaves_foreign_keys_to_its_user() {
    let folder = folder();
    let config = Config::sqlite(folder.path().join("new/aura.db"));
    let connection = connect_exclusive(&config).await.expect("it opens");
    assert_eq!(one::<i64>(&connection, "PRAGMA foreign_keys").await, 0);
    assert_eq!(one::<i64>(&connection, "PRAGMA synchronous").await, 2);
    assert_eq!(one::<i64>(&connection, "PRAGMA busy_timeout").await, 1000);
}

#[tokio::test]
async fn a_read_only_connection_creates_nothing() {
    let folder = folder();
    let path = folder.path().join("missing/aura.db");
    let config = Config::sqlite(&path);
    assert!(
        connect_read_only(&config)
            .await
            .expect("an answer")
            .is_none()
    );
    assert_eq!(
        std::fs::read_dir(folder.path())
            .expect("the folder")
            .count(),
        0
    );

    let connections = opened(&path).await;
    run(&connections.writer, "CREATE TABLE t (x)").await;
    connections.close().await;
    let connection = connect_read_only(&config)
        .await
        .expect("it opens")
        .expect("a file");
    assert_eq!(one::<i64>(&connection, "SELECT count(*) FROM t").await, 0);
    connection
        .execute_unprepared("INSERT INTO t VALUES (1)")
        .await
        .expect_err("read-only");
}

/// What was written last is in the WAL, which stands beside the file and not beside
/// a link to it.
#[cfg(unix)]
#[tokio::test]
async fn a_read_only_connection_reads_the_wal_behind_a_link() {
    let folder = folder();
    let (data, links) = (folder.path().join("data"), folder.path().join("links"));
    for made in [&data, &links] {
        std::fs::create_dir(made).expect("a folder");
    }
    let file = data.join("aura.db");
    let open = opened(&file).await;
    run(&open.writer, "CREATE TABLE t (x)").await;
    run(&open.writer, "INSERT INTO t VALUES (7)").await;
    for (link, to) in [
        ("absolute.db", file.as_path()),
        ("relative.db", Path::new("../data/aura.db")),
        ("twice.db", Path::new("absolute.db")),
    ] {
        let link = links.join(link);
        std::os::unix::fs::symlink(to, &link).expect("a link");
        let read_only = connect_read_only(&Config::sqlite(&link)).await;
        let read_only = read_only.expect("it opens").expect("there is a file");
        let found: i64 = one(&read_only, "SELECT x FROM t").await;
        assert_eq!(found, 7, "{}", link.display());
        read_only.close().await.expect("it closes");
    }
    open.close().await;
    // A link that leads nowhere is no file yet.
    let nowhere = links.join("nowhere.db");
    std::os::unix::fs::symlink("../data/none.db", &nowhere).expect("a link");
    let none = connect_read_only(&Config::sqlite(&nowhere)).await;
    assert!(none.expect("an answer").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_may_be_opened_by_many_at_once() {
    for _ in 0..5 {
        let folder = folder();
        let path = folder.path().join("new/aura.db");
        let openings: Vec<_> = (0..8)
            .map(|number| {
                let config = Config::sqlite(&path);
                tokio::spawn(async move {
                    let connections = connect(&config).await?;
                    run(&connections.writer, "CREATE TABLE IF NOT EXISTS t (x)").await;
                    run(
                        &connections.writer,
                        &format!("INSERT INTO t VALUES ({number})"),
                    )
                    .await;
                    one::<i64>(&connections.reader, "SELECT count(*) FROM t").await;
                    connections.close().await;
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for opening in openings {
            opening.await.expect("no panic").expect("it opens");
        }
        let connections = opened(&path).await;
        assert_eq!(
            one::<i64>(&connections.reader, "SELECT count(*) FROM t").await,
            8
        );
        assert_eq!(
            one::<String>(&connections.reader, "PRAGMA integrity_check").await,
            "ok"
        );
    }
}

/// What SQLite undoes by itself, as it does on a full disk, leaves the driver one
/// transaction behind; the second time a commit would be none.
#[tokio::test]
async fn a_commit_after_failed_ones_is_a_commit() {
    let folder = folder();
    let path = folder.path().join("aura.db");
    let Connections { writer, reader, .. } = opened(&path).await;
    let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, \
        of INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED); INSERT INTO t (id) VALUES (1)";
    run(&writer, schema).await;
    for failing in [
        "INSERT OR ROLLBACK INTO t (id) VALUES (1)",
        "INSERT INTO t (of) VALUES (4711)",
    ] {
        let transaction = writer.begin().await.expect("it begins");
        let _ = transaction.execute_unprepared(failing).await;
        transaction.commit().await.expect_err(failing);
    }
    let transaction = writer.begin().await.expect("it begins");
    let insert = "INSERT INTO t (id) VALUES (2)";
    transaction.execute_unprepared(insert).await.expect(insert);
    transaction.commit().await.expect("committed");
    let there: i64 = one(&reader, "SELECT count(*) FROM t WHERE id = 2").await;
    assert_eq!(there, 1, "it was told that it is committed");
}
