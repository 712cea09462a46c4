//! Removing old log entries.

use std::time::Duration;

use aura_db::LogFilter;
use testdb::TestDb;

use crate::executions::flow;
use crate::logs::{found, info};
use crate::support::open_at;

testdb::both!(migrated: pruned_by_time, pruned_once);

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
