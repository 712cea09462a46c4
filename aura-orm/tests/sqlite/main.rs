//! The promises of the engine, on files.

mod batch;
mod bulk;
mod idle;
mod pool;
mod reads;
mod space;
mod wal;

use std::sync::Arc;
use std::time::Duration;

use aura_orm::sqlite::{DatabaseFile, Error, Options, Readers, Write, Writer};
use aura_orm::{DecodedRows, Decoding, RowDecoder, RowError, Statement, StatementKind};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;

struct Engine {
    folder: TempDir,
    options: Options,
    readers: Readers,
    writer: Writer,
}

const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE t (
        id INTEGER PRIMARY KEY,
        x TEXT UNIQUE,
        of INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED
    )";

fn engine() -> Engine {
    engine_with(|_| ())
}

fn engine_with(change: impl FnOnce(&mut Options)) -> Engine {
    engine_on("", change)
}

/// On a file that is created with this SQL.
fn engine_on(first: &str, change: impl FnOnce(&mut Options)) -> Engine {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("test.db");
    let setup = Connection::open(&path).expect("it opens");
    setup.execute_batch(first).expect("a file");
    setup.execute_batch(SCHEMA).expect("a schema");
    drop(setup);
    let mut options = Options {
        file: DatabaseFile::new(&path),
        durable: true,
        busy_timeout: Duration::from_secs(5),
        statement_timeout: None,
        max_readers: 10,
        min_readers: 0,
        idle_timeout: None,
        blocking_reads: 2,
        acquire_timeout: Duration::from_secs(5),
    };
    change(&mut options);
    Engine {
        readers: Readers::new(options.clone()),
        writer: Writer::new(options.clone()),
        folder,
        options,
    }
}

/// Reads all rows.
fn all<D: RowDecoder>() -> Decoding {
    Decoding::of::<D>(usize::MAX)
}

fn rows<D: RowDecoder>(read: Result<DecodedRows, RowError>) -> Vec<D::Row> {
    let rows = read.expect("readable").into_rows::<D>();
    rows.expect("of this type").rows
}

async fn put(write: &mut Write, x: impl Into<String>) -> Result<i64, Error> {
    let sql = "INSERT INTO t (x) VALUES (?) RETURNING id";
    let insert = Statement::new(StatementKind::Write, sql, vec![x.into().into()]);
    let ids = write.query(insert, all::<i64>()).await?;
    Ok(rows::<i64>(ids)[0])
}

async fn run(write: &mut Write, sql: &'static str) -> Result<u64, Error> {
    write
        .execute(Statement::new(StatementKind::Write, sql, Vec::new()))
        .await
}

impl Engine {
    async fn begin(&self) -> Write {
        self.writer.begin(false).await.expect("it begins")
    }

    async fn insert(&self, x: impl Into<String>) -> Result<i64, Error> {
        let mut write = self.writer.begin(false).await?;
        let id = put(&mut write, x).await?;
        write.commit().await?;
        Ok(id)
    }

    /// A write of another task that gets the connection after those before it.
    async fn queued<F>(
        self: &Arc<Self>,
        run: impl FnOnce(Write) -> F + Send + 'static,
    ) -> JoinHandle<Result<(), Error>>
    where
        F: Future<Output = Result<(), Error>> + Send,
    {
        let engine = self.clone();
        let task = tokio::spawn(async move { run(engine.begin().await).await });
        // The runtime of these tests has one thread: now it is in the line.
        tokio::task::yield_now().await;
        task
    }

    async fn list(&self) -> Vec<String> {
        let list = Statement::new(
            StatementKind::Read,
            "SELECT x FROM t ORDER BY id",
            Vec::new(),
        );
        let list = self.readers.query(list, all::<String>()).await;
        rows::<String>(list.expect("a list"))
    }
}

async fn insert(mut write: Write, x: &'static str) -> Result<(), Error> {
    put(&mut write, x).await?;
    write.commit().await
}

/// Commits that wait for the disk, and commits that don't.
macro_rules! either_way {
    ($module:ident: $durable:literal) => {
        mod $module {
            use super::{Engine, engine_with};

            fn engine() -> Engine {
                engine_with(|options| options.durable = $durable)
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn what_is_answered_is_committed() {
                super::what_is_answered_is_committed(engine()).await;
            }

            #[tokio::test]
            async fn the_wal_stays_short() {
                super::wal::the_wal_stays_short(engine()).await;
            }

            #[tokio::test]
            async fn who_waits_together_is_committed_together() {
                super::batch::who_waits_together_is_committed_together(engine()).await;
            }

            either_way!(
                an_error_or_a_panic_or_a_hang_up_touches_no_other,
                a_write_that_undoes_all_leaves_nobody_with_a_wrong_answer,
                a_commit_that_fails_is_nobodys,
                alone_is_alone
            );
        }
    };
    ($($test:ident),+) => {
        $(
            #[tokio::test]
            async fn $test() {
                super::$test(engine()).await;
            }
        )+
    };
}

either_way!(durable: true);
either_way!(quick: false);

async fn what_is_answered_is_committed(engine: Engine) {
    let engine = Arc::new(engine);
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let engine = engine.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let id = loop {
                        match engine.insert(format!("{task}-{round}")).await {
                            // Its thread had to wait for a processor, and others took
                            // the connection. Nothing is committed.
                            Err(Error::Reclaimed) => {}
                            inserted => break inserted.expect("inserted"),
                        }
                    };
                    let found = Statement::new(
                        StatementKind::Read,
                        "SELECT x FROM t WHERE id = ?",
                        vec![id.into()],
                    );
                    let found = engine.readers.query(found, all::<String>()).await;
                    let found = rows::<String>(found.expect("a row"));
                    assert_eq!(found, [format!("{task}-{round}")]);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("it ends");
    }
    assert_eq!(engine.list().await.len(), 64 * 20);
}

async fn an_error_or_a_panic_or_a_hang_up_touches_no_other(engine: Engine) {
    let engine = Arc::new(engine);
    engine.insert("taken").await.expect("inserted");
    let first = engine.begin().await;
    let before = engine.queued(|write| insert(write, "before")).await;
    let conflict = engine.queued(|write| insert(write, "taken")).await;
    let panics = engine
        .queued(|mut write| async move {
            put(&mut write, "panic").await?;
            panic!("on purpose");
        })
        .await;
    let endless = engine
        .queued(|mut write| async move {
            put(&mut write, "hangs up").await?;
            std::future::pending().await
        })
        .await;
    let late = engine
        .queued(|mut write| async move {
            let long = Statement::new(
                StatementKind::BulkWrite,
                "UPDATE t SET x = 'late' WHERE x = 'before'",
                Vec::new(),
            );
            write.execute(long).await?;
            std::future::pending().await
        })
        .await;
    let after = engine.queued(|write| insert(write, "after")).await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    endless.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    late.abort();
    before.await.expect("it ends").expect("inserted");
    let conflict = conflict.await.expect("it ends").expect_err("it is taken");
    assert_eq!(conflict.code(), Some(2067), "{conflict:?}");
    assert!(panics.await.expect_err("it panics").is_panic());
    after.await.expect("it ends").expect("inserted");
    assert_eq!(engine.list().await, ["taken", "before", "after"]);
}

/// SQLite answers some errors by rolling everything back: nobody was told
/// anything, so the others can do it again.
async fn a_write_that_undoes_all_leaves_nobody_with_a_wrong_answer(engine: Engine) {
    let engine = Arc::new(engine);
    engine.insert("taken").await.expect("inserted");
    let first = engine.begin().await;
    let before = engine.queued(|write| insert(write, "before")).await;
    let culprit = engine
        .queued(|mut write| async move {
            run(&mut write, "INSERT OR ROLLBACK INTO t (x) VALUES ('taken')")
                .await
                .expect_err("it is taken");
            let ended = put(&mut write, "more").await.expect_err("it has ended");
            assert!(matches!(ended, Error::Ended), "{ended:?}");
            write.commit().await
        })
        .await;
    let after = engine.queued(|write| insert(write, "after")).await;
    drop(first);
    let before = before.await.expect("it ends");
    assert!(matches!(before, Err(Error::BatchRolledBack)), "{before:?}");
    let culprit = culprit.await.expect("it ends");
    assert!(matches!(culprit, Err(Error::Ended)), "{culprit:?}");
    after.await.expect("it ends").expect("inserted");
    assert_eq!(engine.list().await, ["taken", "after"]);
}

/// So it is when the commit fails, here for a reference that leads nowhere. Who
/// tries again alone is told what was wrong.
async fn a_commit_that_fails_is_nobodys(engine: Engine) {
    const NOWHERE: &str = "INSERT INTO t (x, of) VALUES ('nowhere', 4711)";
    let engine = Arc::new(engine);
    let first = engine.begin().await;
    let good = engine.queued(|write| insert(write, "good")).await;
    let bad = engine
        .queued(|mut write| async move {
            run(&mut write, NOWHERE).await?;
            write.commit().await
        })
        .await;
    drop(first);
    for undone in [good, bad] {
        let undone = undone.await.expect("it ends");
        assert!(matches!(undone, Err(Error::BatchRolledBack)), "{undone:?}");
    }
    let mut alone = engine.writer.begin(true).await.expect("it begins");
    run(&mut alone, NOWHERE).await.expect("not yet");
    let refused = alone.commit().await.expect_err("it leads nowhere");
    assert_eq!(refused.code(), Some(787), "{refused:?}");
    assert!(engine.list().await.is_empty());
    engine.insert("x").await.expect("the connection is free");
}

async fn alone_is_alone(engine: Engine) {
    let engine = Arc::new(engine);
    let mut alone = engine.writer.begin(true).await.expect("it begins");
    put(&mut alone, "a").await.expect("inserted");
    let waiting = engine.queued(|write| insert(write, "b")).await;
    put(&mut alone, "c").await.expect("inserted");
    assert!(engine.list().await.is_empty(), "not before the commit");
    alone.commit().await.expect("committed");
    // The one that waits may be committed by now.
    assert_eq!(engine.list().await[..2], ["a", "c"]);
    waiting.await.expect("it ends").expect("inserted");

    let excluded = engine.writer.lock().await.expect("nobody writes");
    let waiting = engine.queued(|write| insert(write, "d")).await;
    let other = Connection::open(engine.options.file.path()).expect("it opens");
    let sql = "INSERT INTO t (x) VALUES ('other')";
    other.execute_batch(sql).expect("nobody is in the way");
    drop(excluded);
    waiting.await.expect("it ends").expect("inserted");
    assert_eq!(engine.list().await, ["a", "c", "b", "other", "d"]);
}

#[tokio::test]
async fn who_waits_for_itself_is_told() {
    let engine = engine_with(|options| options.acquire_timeout = Duration::from_millis(50));
    let write = engine.begin().await;
    let owner = write.owner();
    let waited = owner.run(engine.insert("x")).await;
    assert!(matches!(waited, Err(Error::WriterBusy(_))), "{waited:?}");
    write.commit().await.expect("committed");
    engine.insert("y").await.expect("it is free");
    assert_eq!(engine.list().await, ["y"]);
}

/// In a write, a read has its limit and ends nothing when it is over it.
#[tokio::test]
async fn a_write_survives_its_reads() {
    let engine = engine_with(|options| {
        options.statement_timeout = Some(Duration::from_millis(50));
    });
    let mut write = engine.begin().await;
    put(&mut write, "x").await.expect("inserted");
    let read = write.query(endless(), all::<i64>()).await;
    assert!(matches!(read, Err(Error::TimedOut(_))), "{read:?}");
    put(&mut write, "y").await.expect("inserted");
    write.commit().await.expect("committed");
    assert_eq!(engine.list().await, ["x", "y"]);
}

fn endless() -> Statement {
    let sql =
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(n) FROM c";
    Statement::new(StatementKind::Read, sql, Vec::new())
}

#[tokio::test]
async fn another_process_may_hold_the_lock_for_a_while() {
    let engine = engine();
    let other = Connection::open(engine.options.file.path()).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let (written, ()) = tokio::join!(engine.insert("x"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.execute_batch("COMMIT").expect("it ends");
    });
    written.expect("inserted");

    let impatient = Options {
        busy_timeout: Duration::from_millis(20),
        ..engine.options.clone()
    };
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let writer = Writer::new(impatient);
    let refused = writer.begin(false).await.expect_err("it is locked");
    assert!(refused.is_busy(), "{refused:?}");
    other.execute_batch("COMMIT").expect("it ends");
    writer.begin(false).await.expect("it is free");
}

#[tokio::test]
async fn after_closing_everybody_is_told() {
    let engine = Arc::new(engine());
    let write = engine.begin().await;
    let waiting = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.insert("x").await })
    };
    tokio::task::yield_now().await;
    engine.readers.close();
    let closing = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.writer.close().await })
    };
    tokio::task::yield_now().await;
    let waiting = waiting.await.expect("it ends");
    assert!(matches!(waiting, Err(Error::Closed)), "{waiting:?}");
    write.commit().await.expect("what was begun may end");
    closing.await.expect("it ends");
    let read = engine.readers.query(endless(), all::<i64>()).await;
    assert!(matches!(read, Err(Error::Closed)), "{read:?}");
    let write = engine.insert("x").await;
    assert!(matches!(write, Err(Error::Closed)), "{write:?}");
    let mut beside = engine.options.file.path().as_os_str().to_owned();
    beside.push("-wal");
    assert!(
        !std::path::Path::new(&beside).exists(),
        "the WAL is folded in"
    );
}

/// A commit waits for the disk, unless asked otherwise; references are checked.
#[tokio::test]
async fn what_a_connection_is_opened_with() {
    for (durable, synchronous) in [(true, 2), (false, 1)] {
        let engine = engine_with(|options| options.durable = durable);
        let mut write = engine.begin().await;
        for (pragma, value) in [("synchronous", synchronous), ("foreign_keys", 1)] {
            let ask = Statement::new(StatementKind::Read, format!("PRAGMA {pragma}"), Vec::new());
            let said = write.query(ask, all::<i64>()).await;
            assert_eq!(rows::<i64>(said.expect("an answer")), [value], "{pragma}");
        }
    }
}
