//! How many connections read, and for how long they stay open.

use std::time::{Duration, Instant};

use aura_orm::sqlite::{Error, Readers, Snapshot};
use aura_orm::{Statement, StatementKind};
use tokio::task::JoinSet;

use crate::{Engine, all, endless, engine_with, rows};

/// It counts for some milliseconds, so that it goes where it may block.
fn slow() -> Statement {
    let sql = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 50000) SELECT max(n) FROM c";
    Statement::new(StatementKind::Read, sql, Vec::new())
}

async fn read(readers: &Readers, statement: Statement) -> Result<Vec<i64>, Error> {
    let read = readers.query(statement, all::<i64>());
    read.await.map(rows::<i64>)
}

async fn read_within(snapshot: &mut Snapshot) -> Result<Vec<i64>, Error> {
    let read = snapshot.query(slow(), all::<i64>());
    read.await.map(rows::<i64>)
}

/// Waits until this number of connections is open.
async fn until_open(engine: &Engine, open: usize) {
    let started = Instant::now();
    while engine.readers.size().0 != open {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            engine.readers.size()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_keep_to_their_number() {
    let engine = engine_with(|options| {
        options.max_readers = 3;
        options.acquire_timeout = Duration::from_mins(1);
    });
    let mut tasks = JoinSet::new();
    for _ in 0..60 {
        let readers = engine.readers.clone();
        tasks.spawn(async move {
            let rows = read(&readers, slow()).await.expect("a number");
            (rows, readers.size().0)
        });
    }
    // More snapshots, which keep their connection between two reads, than connections.
    for _ in 0..9 {
        let readers = engine.readers.clone();
        tasks.spawn(async move {
            let mut snapshot = readers.snapshot().await.expect("it begins");
            read_within(&mut snapshot).await.expect("a number");
            let rows = read_within(&mut snapshot).await.expect("a number");
            (rows, readers.size().0)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (rows, open) = done.expect("no panic");
        assert_eq!(rows, [50_000]);
        assert!(open <= 3, "{open} connections");
    }
    assert!((1..=3).contains(&engine.readers.size().0));
}

/// A snapshot has a connection, which is all that it needs.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_wait_for_no_other_read() {
    let engine = engine_with(|options| {
        options.blocking_reads = 1;
        options.acquire_timeout = Duration::from_secs(1);
    });
    let readers = engine.readers.clone();
    let long = tokio::spawn(async move { read(&readers, endless()).await });
    // It has the one permit once another can't get it.
    let started = Instant::now();
    while read(&engine.readers, slow()).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(20), "it runs");
    }
    let mut snapshot = engine.readers.snapshot().await.expect("it begins");
    let rows = read_within(&mut snapshot).await;
    assert_eq!(rows.expect("a number"), [50_000]);
    long.abort();
    assert!(long.await.expect_err("it is dropped").is_cancelled());
    assert_eq!(
        read(&engine.readers, slow()).await.expect("its permit"),
        [50_000]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_too_long_is_told_so() {
    let engine = engine_with(|options| {
        options.max_readers = 1;
        options.acquire_timeout = Duration::from_millis(50);
    });
    let one = || Statement::new(StatementKind::Read, "SELECT 1", Vec::new());
    let snapshot = engine.readers.snapshot().await.expect("it begins");
    assert!(engine.readers.is_full());
    let refused = read(&engine.readers, one()).await;
    assert!(matches!(refused, Err(Error::ReadersBusy(_))), "{refused:?}");
    let refused = engine.readers.snapshot().await;
    assert!(matches!(refused, Err(Error::ReadersBusy(_))), "{refused:?}");
    drop(snapshot);
    assert_eq!(read(&engine.readers, one()).await.expect("a row"), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_ones_are_closed() {
    for (kept, left) in [(0, 0), (1, 1)] {
        let engine = engine_with(|options| {
            options.min_readers = kept;
            options.idle_timeout = Some(Duration::from_millis(40));
        });
        for _ in 0..2 {
            let mut snapshots = Vec::new();
            for _ in 0..3 {
                snapshots.push(engine.readers.snapshot().await.expect("it begins"));
            }
            assert_eq!(engine.readers.size(), (3, 0));
            drop(snapshots);
            until_open(&engine, left).await;
            // And opened again.
        }
        // One that is in use isn't idle.
        let snapshot = engine.readers.snapshot().await.expect("it begins");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(engine.readers.size(), (1, 0));
        drop(snapshot);
        until_open(&engine, left).await;
    }
}
