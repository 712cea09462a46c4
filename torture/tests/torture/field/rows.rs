//! Rows that others have written.

use aura_db::logs::TailFrom;
use aura_db::{ExecutionFilter, LogFilter, LogLevel, NewLog, PageRequest};
use testdb::Backend;

use super::{Field, LEASE, Workers, kinds, queue, workflow};

kinds! {
    a_newer_row_leads_the_queue on sqlite postgres:
        "a release was taken back, and rows of it lead the queue and the log",
        "workers and followers go on behind them, and lists name them";
    ids_are_imported on sqlite postgres:
        "rows were copied from another database with their ids",
        "`check` says what to run, and then new rows can be created";
}

async fn a_newer_row_leads_the_queue(field: Field) {
    let db = field.db().await;
    let flow = workflow(&db, "ada").await.expect("created");
    let newer = queue(&db, flow, "{}").await.expect("queued");
    let entry = |message: &str| NewLog::new(flow, LogLevel::Info, message);
    let first = db.logs().append(entry("newer")).await.expect("appended");
    let lifted = match field.backend() {
        Backend::Sqlite => "PRAGMA ignore_check_constraints = ON",
        Backend::Postgres => {
            "ALTER TABLE executions DROP CONSTRAINT executions_mode_check; \
             ALTER TABLE logs DROP CONSTRAINT logs_level_check"
        }
    };
    let rows = "UPDATE executions SET mode = 'replay'; UPDATE logs SET level = 'trace'";
    field.by_hand(&format!("{lifted}; {rows}")).await;
    let workers = Workers::start(&db, flow);
    workers.go_on().await;
    assert!(workers.end().await > 0, "they have run something");
    // What is left in the queue is the one that they don't know.
    while let Some(taken) = db.executions().claim("w", LEASE).await.expect("an answer") {
        assert_ne!(taken.id, newer);
    }
    let all = db.executions();
    let page = all.list(ExecutionFilter::new(), PageRequest::first(200));
    let page = page.await.expect("a page");
    assert!(!page.items.is_empty());
    db.logs().append(entry("known")).await.expect("appended");
    let logs = db.logs();
    let page = logs.list(LogFilter::new(), PageRequest::first(10)).await;
    let page = page.expect("a page");
    let known: Vec<_> = page.items.iter().map(|log| log.message.as_str()).collect();
    let named: Vec<_> = page.unreadable.into_iter().map(|row| row.key).collect();
    assert_eq!(
        (known, named),
        (vec!["known"], vec![Some(first.id.to_string())])
    );
    let mut tail = db.logs().tail(LogFilter::new(), TailFrom::Start).await;
    let tail = tail.as_mut().expect("it follows");
    let heard = tail.next().await.expect("entries");
    assert_eq!(heard[0].message, "known");
    db.close().await;
}

async fn ids_are_imported(field: Field) {
    let rows = "INSERT INTO users (id, name, email, hashed_password) \
        WITH RECURSIVE ids(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ids WHERE n < 50) \
        SELECT n, 'x', 'x' || n || '@example.org', '!' FROM ids";
    field.by_hand(rows).await;
    let db = field.db().await;
    if field.backend() == Backend::Postgres {
        let refused = workflow(&db, "ada").await.expect_err("the id is taken");
        // And not that the address is.
        assert!(!refused.to_string().contains("email"), "{refused}");
        let check = field.tool(&["check"]);
        assert_eq!(check.status.code(), Some(1), "{check:?}");
        let mut lines = check.stdout.lines();
        let run = lines.find_map(|line| line.split_once("run "));
        let (_, run) = run.expect("what to run");
        field.by_hand(run.strip_suffix(')').unwrap_or(run)).await;
    }
    field.is_as_expected();
    workflow(&db, "bob").await.expect("created");
    db.close().await;
}
