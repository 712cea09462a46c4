//! What deleted rows leave.

use std::time::{Duration, Instant};

use aura_orm::{Statement, StatementKind};
use rusqlite::Connection;

use crate::{Engine, engine_on, put};

const INCREMENTAL: &str = "PRAGMA auto_vacuum = INCREMENTAL";
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
    INSERT INTO t (x) SELECT printf('%016000d', i) FROM n";
/// Every second row, so that what is left is everywhere.
const HALF: &str = "DELETE FROM t WHERE id % 2 = 0";

fn filled(first: &str) -> Engine {
    let engine = engine_on(first, |options| options.durable = false);
    let other = Connection::open(engine.options.file.path()).expect("it opens");
    other.execute_batch(FILL).expect("rows");
    engine
}

impl Engine {
    async fn bulk(&self, sql: &'static str) {
        let mut write = self.begin().await;
        let statement = Statement::new(StatementKind::BulkWrite, sql, Vec::new());
        write.execute(statement).await.expect("it writes");
        write.commit().await.expect("committed");
    }

    fn bytes(&self) -> u64 {
        let file = std::fs::metadata(self.options.file.path());
        file.expect("a file").len()
    }

    fn number(&self, sql: &str) -> i64 {
        let other = Connection::open(self.options.file.path()).expect("it opens");
        let number = other.query_row(sql, [], |row| row.get(0));
        number.expect("a number")
    }

    fn free(&self) -> i64 {
        self.number("PRAGMA freelist_count")
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_so() {
            let waited = started.elapsed();
            assert!(waited < Duration::from_secs(30), "{what}: {}", self.free());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The rows that were left are whole.
    fn is_whole(&self, rows: i64) {
        let other = Connection::open(self.options.file.path()).expect("it opens");
        let check = other.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        assert_eq!(check.expect("a check"), "ok");
        let sum = "SELECT count(DISTINCT CAST(x AS integer)) FROM t WHERE length(x) = 16000";
        assert_eq!(self.number(sum), rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_becomes_short_again() {
    let engine = filled(INCREMENTAL);
    engine.bulk(HALF).await;
    assert_eq!(engine.bytes() >> 20, 31);
    // 5 MiB are kept.
    engine.until("half", || engine.bytes() >> 20 < 22).await;
    engine.is_whole(500);
    engine.bulk("DELETE FROM t").await;
    engine.until("all", || engine.bytes() >> 20 <= 5).await;
    engine.insert("x").await.expect("inserted");
    assert_eq!(engine.list().await, ["x"]);
}

/// Also what an earlier process has left.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_write_looks_for_free_pages() {
    let engine = filled(INCREMENTAL);
    let earlier = Connection::open(engine.options.file.path()).expect("it opens");
    earlier.execute_batch("DELETE FROM t").expect("deleted");
    drop(earlier);
    engine.insert("x").await.expect("inserted");
    engine.until("all", || engine.bytes() >> 20 <= 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_the_pages_where_they_are() {
    let engine = filled(INCREMENTAL);
    let mut write = engine.begin().await;
    put(&mut write, "open").await.expect("inserted");
    let free = engine.free();
    write
        .execute(Statement::new(StatementKind::BulkWrite, HALF, Vec::new()))
        .await
        .expect("deleted");
    write.commit().await.expect("committed");
    let write = engine.begin().await;
    let before = engine.free();
    assert!(before > free, "{before}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(engine.free(), before);
    drop(write);
    engine.until("after it", || engine.free() < 2_560).await;
}

/// It waits, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn other_processes_come_first() {
    let engine = filled(INCREMENTAL);
    let reader = Connection::open(engine.options.file.path()).expect("it opens");
    let look = "BEGIN; SELECT count(*) FROM t";
    reader.execute_batch(look).expect("it reads");
    engine.bulk("DELETE FROM t").await;
    let before = engine.bytes();
    let other = Connection::open(engine.options.file.path()).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let free = engine.free();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(engine.free(), free);
    other.execute_batch("COMMIT").expect("it ends");
    assert_eq!(engine.bytes(), before, "a reader needs what is in the WAL");
    drop(reader);
    engine.until("all", || engine.bytes() >> 20 <= 5).await;
}

/// While others write without a pause they aren't kept waiting, and what they write is there.
#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_meanwhile() {
    let engine = std::sync::Arc::new(filled(INCREMENTAL));
    engine.bulk(HALF).await;
    let mut written = 0;
    while engine.free() >= 2_560 {
        assert!(written < 100_000, "nothing is given back beside {written}");
        engine.insert(format!("{written}")).await.expect("inserted");
        written += 1;
        if written % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    engine.is_whole(500);
    assert_eq!(
        engine.number("SELECT count(*) FROM t WHERE length(x) < 16000"),
        written
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_stays_as_it_is() {
    let engine = filled("");
    engine.bulk("DELETE FROM t").await;
    let (bytes, free) = (engine.bytes(), engine.free());
    assert!(free > 2_560, "{free}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((engine.bytes(), engine.free()), (bytes, free));
}
