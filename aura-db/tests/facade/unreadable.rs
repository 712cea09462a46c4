//! Rows that this build can't read, of a newer version or of something else:
//! what stands behind them goes on, and they are reported.

use std::io::Write;
use std::sync::{Arc, Mutex};

use aura_db::logs::TailFrom;
use aura_db::{
    Error, ExecutionFilter, ExecutionStatus, LogFilter, LogLevel, NewLog, Outcome, PageRequest,
    RowError, SessionRequest,
};
use testdb::{Backend, TestDb};

use crate::executions::{LEASE, flow, queue};
use crate::support::{claim_of, open_at};

testdb::both!(migrated:
    a_queue_goes_on,
    a_long_queue_goes_on,
    a_follower_goes_on,
    a_list_goes_on,
    short_lists_go_on,
    statistics_go_on,
    a_write_is_done_and_says_so,
);

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<u8>>>);

impl Write for Reports {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Reports {
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let reports = Self::default();
        let writer = reports.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (reports, guard)
    }

    /// What was reported since the last look.
    fn take(&self) -> Vec<String> {
        let logged = std::mem::take(&mut *self.0.lock().expect("the log"));
        let logged = String::from_utf8(logged).expect("text");
        let reports = logged
            .lines()
            .filter(|line| line.contains("aura_db::unreadable"));
        reports.map(ToOwned::to_owned).collect()
    }
}

/// Writes what the schema forbids, as the next version with its own rules would.
async fn force(test: &TestDb, constraint: &str, sql: &str) {
    let lifted = match test.backend() {
        Backend::Sqlite => "PRAGMA ignore_check_constraints = ON".to_owned(),
        Backend::Postgres => {
            let table = constraint.split('_').next().expect("a table");
            format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}")
        }
    };
    test.execute(&format!("{lifted}; {sql}")).await;
}

async fn a_queue_goes_on(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (reports, _guard) = Reports::listen();
    let flow = flow(&db, "ada").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(queue(&db, flow).await.id);
    }
    let no_time = no_time(&test);
    let newer = format!(
        "UPDATE executions SET mode = 'quantum' WHERE id = {}",
        ids[0]
    );
    force(&test, "executions_mode_check", &newer).await;
    for id in [ids[1], ids[3]] {
        let broken = format!("UPDATE executions SET created_at = '{no_time}' WHERE id = {id}");
        force(&test, "executions_created_at_check", &broken).await;
    }
    let executions = db.executions();
    let first = executions.claim("w", LEASE).await.expect("an answer");
    assert_eq!(first.expect("what stands behind").id, ids[2]);
    let said = reports.take();
    let row = format!("executions.created_at of the row with id {} ", ids[1]);
    assert!(said.len() == 1 && said[0].contains(&row), "{said:?}");
    let rest = executions
        .claim_many("w", LEASE, 10)
        .await
        .expect("an answer");
    let rest: Vec<_> = rest.iter().map(|execution| execution.id).collect();
    assert_eq!(rest, [ids[4]]);
    assert_eq!(reports.take().len(), 1);
    assert_eq!(executions.claim("w", LEASE).await.expect("an answer"), None);
    // It is left to workers that know it.
    let status = format!(
        "SELECT status AS line FROM executions WHERE id = {}",
        ids[0]
    );
    assert_eq!(test.lines(&status).await, ["queued"]);

    clock.advance(LEASE);
    let back = executions.requeue_expired(10).await.expect("an answer");
    let back: Vec<_> = back.iter().map(|execution| execution.id).collect();
    assert_eq!(back, [ids[2], ids[4]]);
    assert_eq!(reports.take().len(), 2);
    db.close().await;
}

/// A time that this build can't read.
fn no_time(test: &TestDb) -> &'static str {
    match test.backend() {
        Backend::Sqlite => "yesterday",
        Backend::Postgres => "infinity",
    }
}

/// None that can be read is no empty queue, however many can't.
async fn a_long_queue_goes_on(test: TestDb) {
    let (db, _clock) = open_at(&test).await;
    let (reports, _guard) = Reports::listen();
    let flow = flow(&db, "ada").await;
    for _ in 0..130 {
        queue(&db, flow).await;
    }
    let last = queue(&db, flow).await.id;
    let broken = format!(
        "UPDATE executions SET created_at = '{}' WHERE id < {last}",
        no_time(&test)
    );
    force(&test, "executions_created_at_check", &broken).await;
    let claimed = db.executions().claim("w", LEASE).await.expect("an answer");
    assert_eq!(claimed.map(|execution| execution.id), Some(last));
    assert_eq!(reports.take().len(), 130);
    db.close().await;
}

async fn a_follower_goes_on(test: TestDb) {
    let (db, _clock) = open_at(&test).await;
    let (reports, _guard) = Reports::listen();
    let flow = flow(&db, "ada").await;
    for message in ["one", "two", "three"] {
        let new = NewLog::new(flow, LogLevel::Info, message);
        db.logs().append(new).await.expect("appended");
    }
    let newer = "UPDATE logs SET level = 'fatal' WHERE message = 'two'";
    force(&test, "logs_level_check", newer).await;
    let from = TailFrom::Start;
    let mut tail = db
        .logs()
        .tail(LogFilter::new(), from)
        .await
        .expect("it follows");
    let heard = tail.poll().await.expect("entries");
    let heard: Vec<_> = heard.iter().map(|log| log.message.as_str()).collect();
    assert_eq!(heard, ["one", "three"]);
    let said = reports.take();
    assert!(
        said.len() == 1 && said[0].contains("logs.level of the row with id 2 "),
        "{said:?}"
    );
    // Once and for all.
    assert!(tail.poll().await.expect("entries").is_empty());
    let new = NewLog::new(flow, LogLevel::Info, "four");
    db.logs().append(new).await.expect("appended");
    assert_eq!(tail.poll().await.expect("entries")[0].message, "four");
    assert_eq!(reports.take(), Vec::<String>::new());
    db.close().await;
}

async fn a_list_goes_on(test: TestDb) {
    let (db, _clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    let ada = db.users().find_by_email("ada@example.org").await;
    let ada = ada.expect("read").expect("ada");
    for message in ["one", "two", "three", "four", "five"] {
        let new = NewLog::new(flow, LogLevel::Info, message);
        db.logs().append(new).await.expect("appended");
    }
    let newer = "UPDATE logs SET level = 'fatal' WHERE message IN ('one', 'four', 'five')";
    force(&test, "logs_level_check", newer).await;
    for logs in [db.logs(), db.restricted_to(&ada).logs()] {
        for size in 1..=6 {
            let (mut page, mut met, mut left_out) = (PageRequest::first(size), vec![], vec![]);
            loop {
                let list = logs.list(LogFilter::new(), page).await.expect("a page");
                met.extend(list.items.iter().map(|log| log.message.clone()));
                left_out.extend(list.unreadable);
                let Some(next) = list.next else { break };
                page = PageRequest::after(next, size);
            }
            assert_eq!(met, ["three", "two"]);
            let left_out: Vec<_> = left_out
                .iter()
                .map(|row| (&*row.table, row.key.as_deref(), row.column.as_deref()))
                .collect();
            let of = |key| ("logs", Some(key), Some("level"));
            assert_eq!(left_out, [of("5"), of("4"), of("1")]);
        }
    }
    // A page that has all is written as before.
    let all = PageRequest::number(1, 9);
    let list = db.logs().list(LogFilter::new(), all).await;
    let list = list.expect("a page");
    assert_eq!((list.items.len(), list.total), (2, Some(5)));
    let json = serde_json::to_value(&list.unreadable[..1]).expect("JSON");
    let row = serde_json::json!({"table": "logs", "key": "5", "column": "level"});
    assert_eq!(json, serde_json::json!([row]));
    let all = PageRequest::first(9);
    let users = db.users().list(aura_db::UserFilter::new(), all).await;
    let json = serde_json::to_value(users.expect("a page")).expect("JSON");
    let fields: Vec<_> = json.as_object().expect("a page").keys().collect();
    assert_eq!(fields, ["items", "next", "previous", "total"]);
    db.close().await;
}

/// Lists without pages leave out what can't be read, and log it.
async fn short_lists_go_on(test: TestDb) {
    let (db, _clock) = open_at(&test).await;
    let (reports, _guard) = Reports::listen();
    let flow = flow(&db, "ada").await;
    let execution = queue(&db, flow).await.id;
    for message in ["one", "two"] {
        let new = NewLog::new(flow, LogLevel::Info, message).execution(execution);
        db.logs().append(new).await.expect("appended");
    }
    let newer = "UPDATE logs SET level = 'fatal' WHERE message = 'one'";
    force(&test, "logs_level_check", newer).await;
    let shown = db.executions().get_with_logs(execution, 10).await;
    let (_, logs) = shown.expect("read");
    assert_eq!((logs.len(), &*logs[0].message), (1, "two"));
    assert_eq!(reports.take().len(), 1);

    let ada = db.users().find_by_email("ada@example.org").await;
    let ada = ada.expect("read").expect("ada").id;
    for _ in 0..2 {
        let issued = db.sessions().issue(ada, SessionRequest::default()).await;
        issued.expect("issued");
    }
    let broken = format!(
        "UPDATE sessions SET created_at = '{}' WHERE id = 1",
        no_time(&test)
    );
    force(&test, "sessions_created_at_check", &broken).await;
    let sessions = db.sessions().list(ada).await.expect("read");
    assert_eq!((sessions.len(), sessions[0].id.0), (1, 2));
    assert_eq!(reports.take().len(), 1);
    db.close().await;
}

async fn statistics_go_on(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..5 {
        queue(&db, flow).await;
    }
    let executions = db.executions();
    let taken = executions.claim_many("w", LEASE, 4).await.expect("taken");
    for execution in &taken {
        clock.advance(std::time::Duration::from_secs(10));
        let done = executions.finish(
            claim_of(&db, execution.id, "w").await,
            Outcome::success(None),
        );
        done.await.expect("finished");
    }
    let no_time = no_time(&test);
    let newer = "UPDATE executions SET status = 'paused' WHERE id = 5";
    force(&test, "executions_status_check", newer).await;
    for (column, id) in [("created_at", 1), ("started_at", 2), ("finished_at", 3)] {
        let broken = format!("UPDATE executions SET {column} = '{no_time}' WHERE id = {id}");
        force(&test, &format!("executions_{column}_check"), &broken).await;
    }
    let stats = executions.stats(ExecutionFilter::new()).await;
    let stats = stats.expect("counted");
    assert_eq!((stats.total, stats.other), (5, 1));
    assert_eq!(stats.by_status, [(ExecutionStatus::Success, 4)]);
    let days: Vec<_> = stats
        .per_day
        .iter()
        .map(|day| (day.total, day.success))
        .collect();
    assert_eq!(days, [(4, 3)]);
    // Of the first and the fourth: 10 and 40 seconds.
    assert_eq!(stats.average.map(|time| time.as_secs()), Some(25));
    assert_eq!(stats.p95.map(|time| time.as_secs()), Some(40));

    for message in ["one", "two", "three"] {
        let new = NewLog::new(flow, LogLevel::Warn, message);
        db.logs().append(new).await.expect("appended");
    }
    let newer = "UPDATE logs SET level = 'fatal' WHERE id = 1";
    force(&test, "logs_level_check", newer).await;
    let broken = format!("UPDATE logs SET created_at = '{no_time}' WHERE id = 2");
    force(&test, "logs_created_at_check", &broken).await;
    let stats = db.logs().stats(LogFilter::new()).await.expect("counted");
    assert_eq!((stats.total, stats.other), (3, 1));
    assert_eq!(stats.by_level, [(LogLevel::Warn, 2)]);
    assert_eq!(stats.per_day.iter().map(|day| day.total).sum::<u64>(), 2);
    db.close().await;
}

/// On both backends, and an error in a transaction undoes it.
async fn a_write_is_done_and_says_so(test: TestDb) {
    let (db, _clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    let ids = [queue(&db, flow).await.id, queue(&db, flow).await.id];
    let broken = format!("UPDATE executions SET created_at = '{}'", no_time(&test));
    force(&test, "executions_created_at_check", &broken).await;
    let error = db
        .executions()
        .cancel(ids[0])
        .await
        .expect_err("unreadable");
    assert!(
        error
            .to_string()
            .ends_with("the write is done, don't repeat it"),
        "{error}"
    );
    let (table, column, id, written) = row_of(error);
    assert_eq!(
        (&*table, column.as_deref(), id, written),
        ("executions", Some("created_at"), Some(ids[0].0), true)
    );
    let inside: Result<(), Error> = db
        .transaction(|tx| async move { tx.executions().cancel(ids[1]).await.map(|_| ()) })
        .await;
    assert!(!row_of(inside.expect_err("unreadable")).3);
    let read = db.executions().get(ids[0]).await;
    assert!(!row_of(read.expect_err("unreadable")).3);
    let status = "SELECT status AS line FROM executions ORDER BY id";
    assert_eq!(test.lines(status).await, ["canceled", "queued"]);
    db.close().await;
}

fn row_of(error: Error) -> (String, Option<String>, Option<i64>, bool) {
    match error {
        Error::Inconsistent(RowError {
            table,
            column,
            id,
            written,
            ..
        }) => (table, column, id, written),
        other => panic!("not inconsistent: {other:?}"),
    }
}
