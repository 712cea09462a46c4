//! How long statements may take, and what others notice of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aura_db::{
    Database, Error, LogFilter, LogLevel, LogStats, NewLog, NewWorkflow, Role, TypedQuery,
};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use testdb::{Backend, TestDb};

use crate::support::{assert_error, open, user};

testdb::both!(
    migrated: a_read_ends_in_its_time,
    a_long_read_leaves_others_alone,
    long_reads_leave_room_for_others,
    a_read_that_is_dropped_leaves_the_pool_whole,
    own_statements_end_in_their_time,
    own_statements_end_with_their_callers,
    many_callers_that_go_at_once_keep_no_connection,
    a_statement_given_up_ends_inside_its_transaction,
);

/// Statements of an application that take years, for each way to run one.
const READS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
    WHERE i < 1000000000) SELECT count(*) FROM n, n AS m WHERE n.i = -m.i";
const WRITES: &str = "UPDATE users SET name = (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL \
    SELECT i + 1 FROM n WHERE i < 1000000000) \
    SELECT CAST(count(*) AS varchar(20)) FROM n, n AS m WHERE n.i = -m.i)";

fn own(sql: &str) -> Statement {
    Statement::from_string(DbBackend::Sqlite, sql)
}

async fn own_statements_end_in_their_time(test: TestDb) {
    let mut config = test.plain_config();
    config.statement_timeout = Some(Duration::from_secs(1));
    let db = Database::connect(config).await.expect("it connects");
    let ada = user(&db, "ada").await;
    let reads = || TypedQuery::<i64>::sql(own(READS));
    assert_error!(db.fetch_one(reads()).await, Error::Timeout { .. });
    let writes = || TypedQuery::<()>::sql(own(WRITES));
    assert_error!(db.fetch_all(writes()).await, Error::Timeout { .. });
    let inside = db.transaction(|tx| async move {
        assert_error!(tx.fetch_one(reads()).await, Error::Timeout { .. });
        Ok::<_, Error>(())
    });
    assert_error!(inside.await, Error::Aborted);
    let begun = db.begin().await.expect("begun");
    assert_error!(begun.fetch_all(writes()).await, Error::Timeout { .. });
    assert_error!(begun.commit().await, Error::Aborted);
    assert_eq!(db.users().get(ada.id).await.expect("there").name, "ada");
}

/// Without any limit of time: the connections are free again.
async fn own_statements_end_with_their_callers(test: TestDb) {
    let mut config = test.plain_config();
    (config.pool.max, config.statement_timeout) = (2, None);
    let db = Database::connect(config).await.expect("it connects");
    let ada = user(&db, "ada").await;
    for _ in 0..4 {
        let reading = db.fetch_one(TypedQuery::<i64>::sql(own(READS)));
        let given_up = tokio::time::timeout(Duration::from_millis(50), reading).await;
        assert!(given_up.is_err());
        let writing = db.begin().await.expect("begun");
        let writing = async move { writing.fetch_all(TypedQuery::<()>::sql(own(WRITES))).await };
        let given_up = tokio::time::timeout(Duration::from_millis(50), writing).await;
        assert!(given_up.is_err());
        let turn = db.users().set_role(ada.id, Role::Editor).await;
        turn.expect("its turn comes");
    }
    // The last of them, with no statement behind it that could end it.
    let reading = db.fetch_one(TypedQuery::<i64>::sql(own(READS)));
    let given_up = tokio::time::timeout(Duration::from_millis(50), reading).await;
    assert!(given_up.is_err());
    nothing_runs(&test).await;
    db.close().await;
}

/// Waits until the server runs no statement of the test.
async fn nothing_runs(test: &TestDb) {
    if test.backend() == Backend::Sqlite {
        return;
    }
    let running = "SELECT pid::text AS line FROM pg_stat_activity WHERE datname = \
         current_database() AND pid <> pg_backend_pid() AND state = 'active'";
    let mut looks = 0;
    while !test.lines(running).await.is_empty() {
        looks += 1;
        assert!(looks < 200, "a statement runs on without its caller");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// More than there may be cancel requests at once, and again and again: the server works for
/// no more than the pool has connections, as soon as it has been asked to stop.
async fn many_callers_that_go_at_once_keep_no_connection(test: TestDb) {
    const CONNECTIONS: u32 = 8;
    let mut config = test.plain_config();
    (config.pool.max, config.statement_timeout) = (CONNECTIONS, None);
    let db = Database::connect(config).await.expect("it connects");
    let ada = user(&db, "ada").await;
    for _ in 0..4 {
        let reads = (0..CONNECTIONS).map(|_| {
            let reading = db.fetch_one(TypedQuery::<i64>::sql(own(READS)));
            tokio::time::timeout(Duration::from_millis(100), reading)
        });
        for given_up in futures_util::future::join_all(reads).await {
            assert!(!matches!(given_up, Ok(Ok(_))));
        }
        if test.backend() == Backend::Postgres {
            let open = "SELECT pid::text AS line FROM pg_stat_activity WHERE datname = \
                 current_database() AND pid <> pg_backend_pid() \
                 AND backend_type = 'client backend'";
            // On a busy machine a place is free before its statement has ended.
            let mut looks = 0;
            while test.lines(open).await.len() > CONNECTIONS as usize {
                looks += 1;
                assert!(looks < 100, "more connections than DB_POOL_MAX");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    assert_eq!(db.users().get(ada.id).await.expect("there").name, "ada");
    nothing_runs(&test).await;
    db.close().await;
}

/// The transaction goes on living, in a closure that does something else.
async fn a_statement_given_up_ends_inside_its_transaction(test: TestDb) {
    let mut config = test.plain_config();
    config.statement_timeout = None;
    let db = Database::connect(config).await.expect("it connects");
    let done = db.transaction(|tx| {
        let test = &test;
        async move {
            let reading = tx.fetch_one(TypedQuery::<i64>::sql(own(READS)));
            let given_up = tokio::time::timeout(Duration::from_millis(100), reading).await;
            assert!(given_up.is_err());
            nothing_runs(test).await;
            Ok::<_, Error>(())
        }
    });
    assert_error!(done.await, Error::Aborted);
    user(&db, "ada").await;
    db.close().await;
}

/// So many entries that counting them is no matter of a millisecond.
async fn filled(test: &TestDb) -> Database {
    let db = open(test).await;
    let ada = user(&db, "ada").await.id;
    let workflow = db
        .workflows()
        .create(NewWorkflow::new("w").owner(ada))
        .await;
    let workflow = workflow.expect("created").id;
    let long = "x".repeat(1_000);
    let entry = |_| NewLog::new(workflow, LogLevel::Info, long.as_str());
    for _ in 0..5 {
        let entries = (0..4_000).map(entry).collect();
        db.logs().append_many(entries).await.expect("appended");
    }
    db
}

async fn count(db: &Database) -> Result<LogStats, Error> {
    db.logs().stats(LogFilter::new().text("y")).await
}

async fn a_read_ends_in_its_time(test: TestDb) {
    filled(&test).await.close().await;
    endless(&test).await;
    let mut config = test.plain_config();
    // Enough for each other statement on a machine that is busy.
    config.statement_timeout = Some(Duration::from_secs(2));
    let db = Database::connect(config).await.expect("it connects");
    let all = LogFilter::new().text("x");
    assert_error!(
        db.logs().stats(all).await,
        Error::Timeout {
            context: "reading",
            ..
        }
    );
    user(&db, "bob").await;
}

/// Makes reading the log a matter of years.
async fn endless(test: &TestDb) {
    let db = open(test).await;
    for statement in [
        "ALTER TABLE logs RENAME TO entries",
        "CREATE VIEW logs AS SELECT a.* FROM entries a, entries b, entries c, entries d",
    ] {
        let done = db
            .seaorm()
            .writer()
            .await
            .expect("open")
            .execute_unprepared(statement)
            .await;
        done.expect("the schema takes it");
    }
    db.close().await;
}

/// One that scans doesn't keep the runtime's only thread.
async fn a_long_read_leaves_others_alone(test: TestDb) {
    let db = filled(&test).await;
    let done = AtomicBool::new(false);
    let scans = async {
        for _ in 0..10 {
            count(&db).await.expect("numbers");
        }
        done.store(true, Ordering::Relaxed);
    };
    let lookups = async {
        let mut lookups = 0;
        while !done.load(Ordering::Relaxed) {
            let found = db.users().find(1.into()).await;
            assert!(found.expect("an answer").is_some());
            lookups += 1;
            tokio::task::yield_now().await;
        }
        lookups
    };
    let ((), lookups) = tokio::join!(scans, lookups);
    assert!(lookups >= 10, "only {lookups} lookups beside ten scans");
}

/// More of them than there are processors.
async fn long_reads_leave_room_for_others(test: TestDb) {
    filled(&test).await.close().await;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u32::try_from(cores).expect("a few");
    let mut config = test.plain_config();
    config.pool.max = cores + 3;
    config.pool.connection_timeout = Duration::from_secs(5);
    config.statement_timeout = None;
    let db = Database::connect(config).await.expect("it connects");
    let long: Vec<_> = (0..=cores)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move { db.fetch_one(TypedQuery::<i64>::sql(own(READS))).await })
        })
        .collect();
    let started = Instant::now();
    loop {
        let reader = db.health().await.expect("it is well").reader;
        if reader.size - reader.idle > cores {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{reader:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..5 {
        assert_eq!(count(&db).await.expect("numbers").total, 0);
    }
    for read in long {
        read.abort();
        assert!(read.await.expect_err("it is dropped").is_cancelled());
    }
    db.close().await;
}

async fn a_read_that_is_dropped_leaves_the_pool_whole(test: TestDb) {
    let db = filled(&test).await;
    let started = Instant::now();
    for _ in 0..40 {
        let given_up = tokio::time::timeout(Duration::from_micros(200), count(&db));
        drop(given_up.await);
    }
    assert_eq!(count(&db).await.expect("numbers").total, 0);
    // PostgreSQL's connections first read what nobody waits for any more.
    loop {
        let health = db.health().await.expect("it is well");
        if health.reader.idle == health.reader.size {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{health:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
