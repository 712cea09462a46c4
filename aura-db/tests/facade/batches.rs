//! Deletes of more rows than one statement could delete in its time.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aura_db::testing::QueryCount;
use aura_db::{Database, Error, LogFilter, WorkflowId};
use testdb::{Backend, TestDb};

use crate::executions::flow;
use crate::logs_follow::info;
use crate::people::until_waiting;
use crate::support::{assert_error, open, user};

testdb::both!(migrated:
    a_workflow_with_a_long_log_is_purged, a_user_with_a_long_log_is_purged,
    an_execution_with_a_long_log_is_pruned, a_purge_ends_when_its_workflow_is_restored,
    the_log_is_pruned_in_batches, sessions_are_deleted_in_batches, progress_is_logged,
);

/// Entries that no statement deletes within [`SOON`]: see [`delete_slowly`].
const MANY: u32 = 2_000;
const SOON: Duration = Duration::from_millis(500);

/// Has it take about a millisecond to delete an entry.
async fn delete_slowly(test: &TestDb) {
    test.execute(match test.backend() {
        Backend::Sqlite => {
            "CREATE TRIGGER slow AFTER DELETE ON logs BEGIN SELECT (WITH RECURSIVE t (n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 6000) SELECT max(n) FROM t); END"
        }
        Backend::Postgres => {
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END'; \
             CREATE TRIGGER slow AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION slow()"
        }
    })
    .await;
}

/// Inserts `rows` rows whose values are `values`, SQL with the number `n`.
async fn insert(test: &TestDb, rows: u32, into: &str, values: &str) {
    let numbers = match test.backend() {
        Backend::Sqlite => format!(
            "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {rows})"
        ),
        Backend::Postgres => format!("WITH t AS (SELECT n FROM generate_series(1, {rows}) AS n)"),
    };
    test.execute(&format!(
        "{numbers} INSERT INTO {into} SELECT {values} FROM t"
    ))
    .await;
}

/// Fills the log of a workflow.
async fn entries(test: &TestDb, rows: u32, flow: WorkflowId) {
    let values = format!("'info', 'x', {flow}");
    insert(test, rows, "logs (level, message, workflow_id)", &values).await;
}

/// Opens the database with a short statement timeout, and has deletes take longer.
async fn hurried(test: &TestDb) -> Database {
    delete_slowly(test).await;
    let mut config = test.plain_config();
    config.statement_timeout = Some(SOON);
    Database::connect(config).await.expect("it connects")
}

/// Calls it again after a timeout, as often as a busy machine may need.
async fn at_last<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    for _ in 0..50 {
        match call().await {
            Err(Error::Timeout { .. }) => {}
            done => return done.expect("done"),
        }
    }
    panic!("it doesn't get on");
}

async fn a_workflow_with_a_long_log_is_purged(test: TestDb) {
    let db = open(&test).await;
    let (doomed, other) = (flow(&db, "ada").await, flow(&db, "bob").await);
    entries(&test, MANY, doomed).await;
    db.workflows().delete(doomed).await.expect("deleted");
    let hurried = hurried(&test).await;
    let at_once = hurried.transaction(|tx| async move { tx.workflows().purge(doomed).await });
    assert_error!(at_once.await, Error::Timeout { .. });
    let entry = info(other, "stays");
    let beside = async {
        for _ in 0..20 {
            at_last(async || hurried.logs().append(entry.clone()).await).await;
        }
    };
    let purged = at_last(async || hurried.workflows().purge(doomed).await);
    tokio::join!(purged, beside);
    let left = db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(left.total, 20);
    assert_error!(db.workflows().purge(doomed).await, Error::NotFound { .. });
}

async fn a_user_with_a_long_log_is_purged(test: TestDb) {
    let db = open(&test).await;
    let (doomed, other) = (flow(&db, "ada").await, flow(&db, "bob").await);
    entries(&test, MANY, doomed).await;
    entries(&test, 3, other).await;
    let ada = db.users().get_by_email("ada@example.org").await;
    let ada = ada.expect("there").id;
    let with = aura_db::users::OwnedRows::Delete;
    db.users().delete(ada, with).await.expect("deleted");
    let hurried = hurried(&test).await;
    let at_once = hurried.transaction(|tx| async move { tx.users().purge(ada).await });
    assert_error!(at_once.await, Error::Timeout { .. });
    at_last(async || hurried.users().purge(ada).await).await;
    let left = db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(left.total, 3);
    assert_error!(db.users().purge(ada).await, Error::NotFound { .. });
}

async fn an_execution_with_a_long_log_is_pruned(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let (long_ago, now) = ("'2020-01-01T00:00:00.000000+00:00'", db.now());
    let ended = |status: &str| format!("{flow}, 1, 'cron', '{status}', {long_ago}, {long_ago}");
    let into = "executions (workflow_id, workflow_version, mode, status, started_at, finished_at)";
    insert(&test, 2, into, &ended("success")).await;
    let values = format!("'info', 'x', {flow}, (SELECT min(id) FROM executions)");
    let into = "logs (level, message, workflow_id, execution_id)";
    insert(&test, MANY, into, &values).await;
    let hurried = hurried(&test).await;
    let at_once = hurried.transaction(|tx| async move { tx.executions().prune(now, 9).await });
    assert_error!(at_once.await, Error::Timeout { .. });
    assert_eq!(
        at_last(async || hurried.executions().prune(now, 1).await).await,
        1
    );
    let left = db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(left.total, 0);
    assert_eq!(
        hurried
            .executions()
            .prune(now, u64::MAX)
            .await
            .expect("pruned"),
        1
    );
    assert_eq!(
        hurried
            .executions()
            .prune(now, u64::MAX)
            .await
            .expect("pruned"),
        0
    );
}

/// Restored first, a workflow keeps what belongs to it.
async fn a_purge_ends_when_its_workflow_is_restored(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    entries(&test, 1_000, flow).await;
    db.workflows().delete(flow).await.expect("deleted");
    let tx = db.begin().await.expect("begun");
    tx.workflows().restore(flow).await.expect("restored");
    let purge = tokio::spawn({
        let db = db.clone();
        async move { db.workflows().purge(flow).await }
    });
    until_waiting(&test, 1).await;
    tx.commit().await.expect("committed");
    assert_error!(purge.await.expect("no panic"), Error::State { .. });
    let left = db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(left.total, 1_000);
}

async fn the_log_is_pruned_in_batches(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    entries(&test, 2_000, flow).await;
    let later = db.now() + Duration::from_hours(1);
    assert_eq!(db.logs().prune(later, 250).await.expect("pruned"), 250);
    let count = QueryCount::start(&db);
    assert_eq!(
        db.logs().prune(later, u64::MAX).await.expect("pruned"),
        1_750
    );
    assert!(count.get() > 2, "it took one statement");
    entries(&test, 2_000, flow).await;
    let count = QueryCount::start(&db);
    let at_once = db.transaction(|tx| async move { tx.logs().prune(later, u64::MAX).await });
    assert_eq!(at_once.await.expect("pruned"), 2_000);
    count.assert_exactly(1);
}

async fn sessions_are_deleted_in_batches(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let insert = async |rows, at: &str, prefix: &str| {
        let into = "sessions (token, user_id, expires_at, last_seen_at, updated_at)";
        let token = format!(
            "substr('{prefix}' || CAST(100000 + n AS text) || '{:064}', 1, 64)",
            0
        );
        insert(
            &test,
            rows,
            into,
            &format!("{token}, {ada}, {at}, {at}, {at}"),
        )
        .await;
    };
    let (past, future) = (
        "'2020-01-01T00:00:00.000000+00:00'",
        "'2999-01-01T00:00:00.000000+00:00'",
    );
    insert(2_000, past, "a").await;
    insert(3, future, "b").await;
    let count = QueryCount::start(&db);
    assert_eq!(
        db.sessions().delete_expired().await.expect("deleted"),
        2_000
    );
    assert!(count.get() > 2, "it took one statement");
    assert_eq!(db.sessions().list(ada).await.expect("rows").len(), 3);
    insert(2_000, past, "c").await;
    let count = QueryCount::start(&db);
    let at_once = db.transaction(|tx| async move { tx.sessions().delete_expired().await });
    assert_eq!(at_once.await.expect("deleted"), 2_000);
    count.assert_exactly(1);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn progress_is_logged(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    entries(&test, 150, flow).await;
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let listening = tracing::subscriber::set_default(subscriber);
    let later = db.now() + Duration::from_hours(1);
    assert_eq!(db.logs().prune(later, u64::MAX).await.expect("pruned"), 150);
    drop(listening);
    let logged = logged.0.lock().expect("the log").clone();
    let logged = String::from_utf8(logged).expect("text");
    let mut lines = logged.lines();
    let line = lines.find(|line| line.contains("aura_db::progress"));
    assert!(
        line.is_some_and(|line| line.contains("rows=100")),
        "{logged}"
    );
}
