//! A look of a follower is bounded by the entries that it reads, however few match, and
//! by the gaps that it looks at, wherever its position comes from.

use std::time::Duration;

use aura_db::logs::{Tail, TailFrom, TailPosition};
use aura_db::testing::QueryCount;
use aura_db::{Database, Error, LogFilter, LogLevel, NewLog, WorkflowId};
use testdb::{Backend, TestDb};

use crate::executions::flow;
use crate::logs_follow::{drain, info, look, many, tail, writing};
use crate::support::open;

testdb::both!(migrated:
    a_filter_that_finds_little_moves_on, a_look_that_takes_too_long_is_followed_by_a_shorter_one,
    a_position_of_many_gaps_is_cheap,
);
testdb::postgres!(migrated:
    a_wide_gap_is_looked_at_in_parts, many_gaps_are_looked_at_in_rounds,
    those_who_write_at_the_start_are_waited_for,
);

fn needle() -> LogFilter {
    LogFilter::new().text("needle")
}

async fn following(db: &Database, filter: LogFilter, from: TailFrom) -> Tail {
    let tail = db.logs().tail(filter, from).await;
    tail.expect("it follows")
}

/// So many entries, and behind them one that is looked for.
async fn haystack(db: &Database, count: usize) -> WorkflowId {
    let flow = flow(db, "ada").await;
    let mut entries = many(flow, count);
    entries.push(info(flow, "the needle"));
    db.logs().append_many(entries).await.expect("appended");
    flow
}

fn position(high: i64, gaps: &[(i64, i64)]) -> TailPosition {
    let gap = |&(first, last)| serde_json::json!({ "first": first, "last": last });
    let gaps: Vec<_> = gaps.iter().map(gap).collect();
    let position = serde_json::json!({ "high": high, "gaps": gaps });
    serde_json::from_value(position).expect("a position")
}

fn gaps(tail: &Tail) -> serde_json::Value {
    serde_json::to_value(tail.position()).expect("JSON")["gaps"].clone()
}

async fn a_filter_that_finds_little_moves_on(test: TestDb) {
    let db = open(&test).await;
    haystack(&db, 25_000).await;
    let mut tail = following(&db, needle(), TailFrom::Start).await;
    let count = QueryCount::start(&db);
    assert_eq!(look(&mut tail).await, ["the needle"]);
    assert!(count.get() > 5, "three looks, and not one statement");
    assert!(look(&mut tail).await.is_empty());
}

/// Ten thousand of these would never be read in time.
async fn a_look_that_takes_too_long_is_followed_by_a_shorter_one(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let long = "x".repeat(1 << 20);
    for _ in 0..10 {
        let entry = |_| NewLog::new(flow, LogLevel::Info, long.as_str());
        let entries = (0..10).map(entry).collect();
        db.logs().append_many(entries).await.expect("appended");
    }
    db.logs()
        .append(info(flow, "the needle"))
        .await
        .expect("appended");
    db.close().await;
    let mut config = test.plain_config();
    config.statement_timeout = Some(Duration::from_millis(100));
    let db = Database::connect(config).await.expect("it connects");
    let mut tail = following(&db, needle(), TailFrom::Start).await;
    let (mut found, mut tries) = (Vec::new(), 0);
    while found.is_empty() {
        match tail.poll().await {
            Ok(entries) => found.extend(entries),
            Err(Error::Timeout { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tries += 1;
        assert!(tries < 300, "it doesn't get on");
    }
    assert_eq!(found[0].message, "the needle");
    // SQLite looks at the time every thousand steps, and these are fewer.
    let is_cut = test.backend() == Backend::Postgres;
    assert!(tries > 1 || !is_cut, "the first look takes too long");
}

async fn a_position_of_many_gaps_is_cheap(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    db.logs()
        .append_many(many(flow, 100))
        .await
        .expect("appended");
    let from: Vec<_> = (1..=20_000).map(|n| (2 * n, 2 * n)).collect();
    let from = TailFrom::After(position(50_000, &from));
    let mut tail = following(&db, LogFilter::new(), from).await;
    let count = QueryCount::start(&db);
    let found = look(&mut tail).await;
    count.assert_at_most(4);
    if test.backend() == Backend::Postgres {
        // The oldest gaps are one, in which also lies what was given out.
        assert_eq!(found.len(), 99);
    }
    assert!(look(&mut tail).await.is_empty());
}

async fn a_wide_gap_is_looked_at_in_parts(test: TestDb) {
    let db = open(&test).await;
    let flow = haystack(&db, 3_000).await;
    let (commit, task) = writing(&db, vec![info(flow, "a late needle")]).await;
    db.logs().append(info(flow, "hay")).await.expect("appended");
    let from = TailFrom::After(position(3_003, &[(1, 3_003)]));
    let mut tail = following(&db, needle(), from).await;
    let count = QueryCount::start(&db);
    assert_eq!(look(&mut tail).await, ["the needle"]);
    assert!(
        count.get() > 12,
        "looks at 500 entries, and not one statement"
    );
    // While the writer is there, nothing else is missing.
    assert!(look(&mut tail).await.is_empty());
    assert_eq!(
        gaps(&tail),
        serde_json::json!([{ "first": 3_002, "last": 3_002 }])
    );
    commit.send(()).expect("it waits");
    task.await.expect("no panic");
    assert_eq!(drain(&mut tail).await, ["a late needle"]);
    assert!(look(&mut tail).await.is_empty());
    assert_eq!(gaps(&tail), serde_json::json!([]));
}

async fn many_gaps_are_looked_at_in_rounds(test: TestDb) {
    let insert = |first: i64, last: i64, step: i64| {
        format!(
            "INSERT INTO logs (id, level, message, workflow_id) SELECT n, 'info', n::text, \
             (SELECT id FROM workflows) FROM generate_series({first}, {last}, {step}) AS n"
        )
    };
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut tail = tail(&db, TailFrom::Start).await;
    let (commit, task) = writing(&db, many(flow, 3)).await;
    test.execute(&insert(10, 5_008, 2)).await;
    assert_eq!(drain(&mut tail).await.len(), 2_500);
    // In the last of three parts of a round, and in the first.
    test.execute(&insert(5_001, 5_001, 1)).await;
    test.execute(&insert(11, 11, 1)).await;
    let mut late = drain(&mut tail).await;
    late.sort_unstable();
    assert_eq!(late, ["11", "5001"]);
    commit.send(()).expect("it waits");
    task.await.expect("no panic");
    assert_eq!(drain(&mut tail).await, ["0", "1", "2"]);
    assert_eq!(gaps(&tail), serde_json::json!([]));
}

/// Where they end soon, nothing below them is looked for.
async fn those_who_write_at_the_start_are_waited_for(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    db.logs().append(info(flow, "old")).await.expect("appended");
    // An id that no entry has.
    test.execute("SELECT nextval(pg_get_serial_sequence('logs', 'id'))")
        .await;
    let (commit, task) = writing(&db, vec![info(flow, "open")]).await;
    db.logs()
        .append(info(flow, "old too"))
        .await
        .expect("appended");
    let looks = |db: &Database| {
        let stats = db.stats();
        let mut looks = stats
            .operations
            .iter()
            .filter(|one| one.operation == "tail");
        looks.next().map_or(0, |one| one.count)
    };
    let ending = async {
        while looks(&db) == 0 {
            tokio::task::yield_now().await;
        }
        commit.send(()).expect("it waits");
        task.await.expect("no panic");
    };
    let (mut tail, ()) = tokio::join!(tail(&db, TailFrom::Now), ending);
    assert!(looks(&db) > 1, "it waits");
    assert_eq!(gaps(&tail), serde_json::json!([]), "nothing was looked for");
    assert!(look(&mut tail).await.is_empty());
    db.logs().append(info(flow, "new")).await.expect("appended");
    assert_eq!(look(&mut tail).await, ["new"]);
}
