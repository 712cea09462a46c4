//! Removing old log entries.

use std::time::{Duration, Instant};

use aura_db::{LogFilter, NewLog};
use testdb::{Backend, TestDb};

use crate::executions::flow;
use crate::logs::{found, info};
use crate::support::open_at;

testdb::both!(migrated: pruned_by_time, pruned_once, space_is_used_again);

async fn pruned_by_time(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let first = flow(&db, "ada").await;
    let start = db.now();
    // The clock was ahead: these are the first, and the newest.
    clock.advance(Duration::from_hours(24 * 365));
    for _ in 0..5 {
        let new = info(first, "ahead");
        db.logs().append(new).await.expect("appended");
    }
    clock.set(start);
    for n in 0..10 {
        db.logs()
            .append(info(first, format!("{n}")))
            .await
            .expect("appended");
        clock.advance(Duration::from_secs(1));
    }
    let before = start + Duration::from_secs(6);
    assert_eq!(db.logs().prune(before, 4).await.expect("pruned"), 4);
    assert_eq!(db.logs().prune(before, 4).await.expect("pruned"), 2);
    assert_eq!(db.logs().prune(before, u64::MAX).await.expect("pruned"), 0);
    assert_eq!(
        found(&db, LogFilter::new().oldest_first()).await,
        [
            "ahead", "ahead", "ahead", "ahead", "ahead", "6", "7", "8", "9"
        ]
    );
    let after = start + Duration::from_hours(24 * 366);
    let other = flow(&db, "bob").await;
    db.logs().append(info(other, "x")).await.expect("appended");
    assert_eq!(db.logs().prune(after, 7).await.expect("pruned"), 7);
    assert_eq!(db.logs().prune(after, 7).await.expect("pruned"), 3);
}

/// By several at once.
async fn pruned_once(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    for name in ["ada", "bob"] {
        let flow = flow(&db, name).await;
        let many = vec![info(flow, "x"); 50];
        db.logs().append_many(many).await.expect("appended");
    }
    clock.advance(Duration::from_secs(1));
    let pruners: Vec<_> = (0..4)
        .map(|_| {
            let (logs, before) = (db.logs(), db.now());
            tokio::spawn(async move {
                let mut count = 0;
                loop {
                    match logs.prune(before, 3).await.expect("pruned") {
                        0 => break count,
                        some => count += some,
                    }
                }
            })
        })
        .collect();
    let mut count = 0;
    for pruner in pruners {
        count += pruner.await.expect("no panic");
    }
    assert_eq!(count, 100);
}

/// On SQLite a service gives the space of what it pruned back; on PostgreSQL, after
/// `VACUUM`, which autovacuum runs, what comes next takes it.
async fn space_is_used_again(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    let long = "x".repeat(1_500);
    let round = async || {
        let many: Vec<NewLog> = vec![info(flow, long.as_str()); 8_000];
        db.logs().append_many(many).await.expect("appended");
        let bytes = bytes(&test).await;
        clock.advance(Duration::from_secs(1));
        let pruned = db.logs().prune(db.now(), u64::MAX).await;
        assert_eq!(pruned.expect("pruned"), 8_000);
        bytes
    };
    let first = round().await;
    if test.backend() == Backend::Postgres {
        test.execute("VACUUM logs").await;
        let second = round().await;
        assert!(second < first + first / 5, "{first} and {second} bytes");
        return;
    }
    let started = Instant::now();
    loop {
        let left = bytes(&test).await;
        if left < first / 2 {
            break;
        }
        let waited = started.elapsed();
        assert!(waited < Duration::from_secs(30), "{left} of {first} bytes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    db.logs().append(info(flow, "x")).await.expect("appended");
    assert_eq!(found(&db, LogFilter::new()).await, ["x"]);
}

/// Of the file, with what stands in its WAL only, or of the table with its indexes.
async fn bytes(test: &TestDb) -> u64 {
    let (sql, file) = match test.backend() {
        Backend::Sqlite => (
            "SELECT CAST(page_count * page_size AS text) AS line \
             FROM pragma_page_count, pragma_page_size",
            std::fs::metadata(test.folder().join("aura.db")).map_or(0, |file| file.len()),
        ),
        Backend::Postgres => ("SELECT pg_total_relation_size('logs')::text AS line", 0),
    };
    let bytes: u64 = test.lines(sql).await[0].parse().expect("a number");
    bytes.max(file)
}
