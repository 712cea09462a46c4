//! Reads: their limits, and what others notice of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aura_orm::sqlite::Error;
use aura_orm::{Decoding, Limit, Statement, StatementKind};

use crate::{all, endless, engine, engine_with, put, rows};

#[tokio::test]
async fn a_snapshot_sees_one_state() {
    let engine = engine();
    engine.insert("before").await.expect("inserted");
    let mut snapshot = engine.readers.snapshot().await.expect("it begins");
    let list = || Statement::new(StatementKind::Read, "SELECT x FROM t", Vec::new());
    for after in ["a", "b"] {
        let read = snapshot.query(list(), all::<String>()).await;
        assert_eq!(rows::<String>(read.expect("a list")), ["before"]);
        engine.insert(after).await.expect("inserted");
    }
    drop(snapshot);
    assert_eq!(engine.list().await, ["before", "a", "b"]);
    assert_eq!(engine.readers.size(), (1, 1), "given back");
}

#[tokio::test]
async fn a_long_read_leaves_the_runtime_free_and_ends_in_time() {
    let engine = engine_with(|options| {
        options.statement_timeout = Some(Duration::from_millis(300));
    });
    let free = Arc::new(AtomicBool::new(false));
    let read = engine.readers.query(endless(), all::<i64>());
    let ticks = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        free.store(true, Ordering::Relaxed);
    };
    let (read, ()) = tokio::join!(read, ticks);
    assert!(matches!(read, Err(Error::TimedOut(_))), "{read:?}");
    assert!(free.load(Ordering::Relaxed));
}

/// On one thread, without a pause of its own.
#[tokio::test]
async fn a_loop_of_quick_statements_leaves_the_runtime_free() {
    let engine = engine();
    let other = || {
        let ran = Arc::new(AtomicBool::new(false));
        let told = ran.clone();
        tokio::spawn(async move { told.store(true, Ordering::Relaxed) });
        move || ran.load(Ordering::Relaxed)
    };
    let ran = other();
    for _ in 0..1_000 {
        engine.list().await;
    }
    assert!(ran(), "beside reads");
    let mut write = engine.begin().await;
    let ran = other();
    for row in 0..1_000 {
        put(&mut write, row.to_string()).await.expect("inserted");
    }
    assert!(ran(), "beside writes");
    write.commit().await.expect("committed");
}

#[tokio::test]
async fn a_read_that_nobody_waits_for_ends() {
    let engine = engine_with(|options| options.blocking_reads = 1);
    let read = engine.readers.query(endless(), all::<i64>());
    let given_up = tokio::time::timeout(Duration::from_millis(50), read).await;
    assert!(given_up.is_err());
    // The place of the one that was given up is free again.
    let started = Instant::now();
    let slow = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 200000) SELECT max(n) FROM c";
    let slow = Statement::new(StatementKind::Read, slow, Vec::new());
    let slow = engine.readers.query(slow, all::<i64>()).await;
    assert_eq!(rows::<i64>(slow.expect("a number")), [200_000]);
    assert!(started.elapsed() < Duration::from_secs(30));
}

/// Also one in a write: it would keep the connection from all others.
#[tokio::test]
async fn a_read_of_a_write_that_nobody_waits_for_ends() {
    let engine = engine_with(|options| options.acquire_timeout = Duration::from_secs(20));
    let mut write = engine.begin().await;
    let read = write.query(endless(), all::<i64>());
    let given_up = tokio::time::timeout(Duration::from_millis(50), read).await;
    assert!(given_up.is_err());
    let ended = write.commit().await;
    assert!(matches!(ended, Err(Error::Ended)), "{ended:?}");
    engine.insert("x").await.expect("the connection is free");
    assert_eq!(engine.list().await, ["x"]);
}

/// Also one that takes longer than a statement may run where it is called, and runs again.
#[tokio::test]
async fn a_read_ends_with_its_bytes() {
    const QUICK: &str = "SELECT x FROM t";
    const SLOW: &str = "SELECT x, (WITH RECURSIVE c(n) AS (SELECT t.id UNION ALL SELECT n + 1 \
         FROM c LIMIT 5000) SELECT max(n) FROM c) FROM t";
    let engine = engine();
    for n in 0..5 {
        let x = format!("{n:01000}");
        engine.insert(x).await.expect("inserted");
    }
    for sql in [QUICK, SLOW] {
        for (bytes, rows, cut) in [(0, 1, true), (3_500, 3, true), (5_000, 5, false)] {
            let list = Statement::new(StatementKind::Read, sql, Vec::new());
            let limit = Limit {
                rows: usize::MAX,
                bytes,
            };
            let read = engine.readers.query(list, Decoding::of::<String>(limit));
            let read = read.await.expect("run").expect("readable");
            let fetched = read.into_rows::<String>().expect("texts");
            assert_eq!((fetched.rows.len(), fetched.cut), (rows, cut), "{bytes}");
        }
    }
}

/// The limit of one statement isn't the next one's. SQLite looks at it every
/// thousand steps, and counts them over all runs of a prepared statement.
#[tokio::test]
async fn a_limit_ends_with_its_statement() {
    let engine = engine();
    engine.insert("x").await.expect("inserted");
    assert_eq!(engine.list().await, ["x"]);
    std::thread::sleep(Duration::from_millis(5));
    for _ in 0..1_000 {
        engine.readers.snapshot().await.expect("it begins");
    }
    assert_eq!(engine.list().await, ["x"]);
}
