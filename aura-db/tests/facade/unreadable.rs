//! Rows that this build can't read, of a newer version or of something else:
//! what stands behind them goes on, and they are reported.

use std::io::Write;
use std::sync::{Arc, Mutex};

use aura_db::logs::TailFrom;
use aura_db::{Error, LogFilter, LogLevel, NewLog, RowError};
use testdb::{Backend, TestDb};

use crate::executions::{LEASE, flow, queue};
use crate::support::open_at;

testdb::both!(migrated: a_queue_goes_on, a_follower_goes_on);

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
    let no_time = match test.backend() {
        Backend::Sqlite => "yesterday",
        Backend::Postgres => "infinity",
    };
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
    // A list says which row is in its way.
    let list = db
        .logs()
        .list(LogFilter::new(), aura_db::PageRequest::first(10))
        .await;
    let Err(Error::Inconsistent(RowError {
        table, column, id, ..
    })) = list
    else {
        panic!("not inconsistent: {list:?}");
    };
    assert_eq!(
        (table.as_str(), column.as_deref(), id),
        ("logs", Some("level"), Some(2))
    );
    db.close().await;
}
