use std::sync::Mutex;
use std::time::Duration;

use aura_db::entity::logs;
use aura_db::sea_orm::ActiveValue::Set;
use aura_db::sea_orm::EntityTrait;
use aura_db::{
    Database, Error, ExecutionMode, LogFilter, LogLevel, NewExecution, NewLog, PageRequest,
    WorkflowId,
};
use serde_json::json;
use testdb::{Backend, TestDb};
use tokio::sync::oneshot;

use crate::executions::flow;
use crate::people::until_waiting;
use crate::support::{assert_error, open, open_at, refused};

testdb::both!(migrated:
    appended_as_given, appended_together_or_not,
    large_ones_too, nothing_is_spoilt_by_a_missing_workflow,
    lists_and_filters, newest_first_whatever_the_clock, counted, numbers_that_agree, bad_input,
);
testdb::postgres!(migrated: a_workflow_that_is_purged_meanwhile);

pub(crate) fn info(flow: WorkflowId, message: impl Into<String>) -> NewLog {
    NewLog::new(flow, LogLevel::Info, message)
}

async fn appended_as_given(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let run = NewExecution::new(flow, ExecutionMode::Manual);
    let run = db.executions().enqueue(run).await.expect("queued").id;
    let new = NewLog::new(flow, LogLevel::Warn, "50% of\n'it'")
        .execution(run)
        .metadata(json!({"a": 9_007_199_254_740_993_i64, "b": [null, "x"]}));
    let log = db.logs().append(new).await.expect("appended");
    assert_eq!(
        (log.level, log.message.as_str()),
        (LogLevel::Warn, "50% of\n'it'")
    );
    assert_eq!((log.workflow_id, log.execution_id), (flow, Some(run)));
    assert_eq!(log.created_at, db.now());
    let metadata = json!({"a": 9_007_199_254_740_993_i64, "b": [null, "x"]});
    let read = log.metadata.as_ref().expect("metadata");
    assert_eq!(read.json(), Ok(metadata), "PostgreSQL adds blanks");
    assert_eq!(db.logs().get(log.id).await.expect("there"), log);
    assert_eq!(db.logs().find(4711.into()).await.expect("an answer"), None);
    assert_error!(
        db.logs().get(4711.into()).await,
        Error::NotFound {
            what: "log entry",
            ..
        }
    );
    // A run that goes on while its workflow is deleted can still tell.
    db.workflows().delete(flow).await.expect("deleted");
    db.logs()
        .append(info(flow, "still here"))
        .await
        .expect("appended");
}

async fn appended_together_or_not(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let many: Vec<_> = (0..2_500).map(|n| info(flow, format!("{n}"))).collect();
    assert_eq!(db.logs().append_many(many).await.expect("appended"), 2_500);
    assert_eq!(
        db.logs()
            .append_many(Vec::new())
            .await
            .expect("nothing to do"),
        0
    );
    let count = async || {
        db.fetch_all(logs::Entity::find())
            .await
            .expect("rows")
            .len()
    };
    assert_eq!(count().await, 2_500);
    let rows = db.fetch_all(logs::Entity::find()).await.expect("rows");
    assert!(
        rows.iter()
            .enumerate()
            .all(|(n, log)| log.message == n.to_string())
    );
    let wrong = vec![info(flow, "a"), info(4711.into(), "b")];
    assert_error!(
        db.logs().append_many(wrong).await,
        Error::NotFound { what: "workflow", key } if key == "4711"
    );
    let wrong = vec![info(flow, "a"), info(flow, "b").execution(4711.into())];
    assert_error!(
        db.logs().append_many(wrong).await,
        Error::NotFound {
            what: "execution",
            ..
        }
    );
    let wrong = vec![info(flow, "a"), info(flow, "\0").metadata(json!("\0"))];
    let error = db.logs().append_many(wrong).await.expect_err("refused");
    assert!(
        error.to_string().contains("message: of entry 1: "),
        "{error}"
    );
    assert_eq!(refused::<()>(Err(error)), ["message", "metadata"]);
    assert_eq!(count().await, 2_500);
}

/// They take several statements, the last of which fails.
async fn large_ones_too(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let forbid = match test.backend() {
        Backend::Sqlite => {
            "CREATE TRIGGER no BEFORE INSERT ON logs WHEN new.message = 'no' \
             BEGIN SELECT RAISE(ABORT, 'no'); END"
        }
        Backend::Postgres => "ALTER TABLE logs ADD CHECK (message <> 'no')",
    };
    test.execute(forbid).await;
    let large = |n: u8| info(flow, char::from(b'a' + n).to_string().repeat(1024 * 1024));
    let mut many: Vec<_> = (0..20).map(large).collect();
    let metadata = json!(["x".repeat(8 * 1024 * 1024)]);
    many.push(info(flow, "with").metadata(metadata));
    many.push(info(flow, "no"));
    let failed = db.logs().append_many(many.clone()).await;
    assert!(failed.is_err());
    let count = async || db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(count().await.total, 0);
    many.pop();
    assert_eq!(db.logs().append_many(many).await.expect("appended"), 21);
    let rows = db.fetch_all(logs::Entity::find()).await.expect("rows");
    let first: String = rows.iter().map(|log| &log.message[..1]).collect();
    assert_eq!(first, "abcdefghijklmnopqrstw");
}

async fn nothing_is_spoilt_by_a_missing_workflow(db: TestDb) {
    let db = open(&db).await;
    let (one, two) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let run = NewExecution::new(two, ExecutionMode::Manual);
    let run = db.executions().enqueue(run).await.expect("queued").id;
    db.transaction(|tx| async move {
        let logs = tx.logs();
        assert_error!(
            logs.append(info(4711.into(), "x")).await,
            Error::NotFound {
                what: "workflow",
                ..
            }
        );
        // Of another workflow.
        assert_error!(
            logs.append(info(one, "x").execution(run)).await,
            Error::NotFound {
                what: "execution",
                ..
            }
        );
        assert_error!(
            logs.append_many(vec![info(one, "x").execution(run)]).await,
            Error::NotFound {
                what: "execution",
                ..
            }
        );
        logs.append(info(one, "kept")).await
    })
    .await
    .expect("committed");
    assert_eq!(
        db.fetch_all(logs::Entity::find())
            .await
            .expect("rows")
            .len(),
        1
    );
}

pub(crate) async fn found(db: &Database, filter: LogFilter) -> Vec<String> {
    let list = db
        .logs()
        .list(filter, PageRequest::first(100))
        .await
        .expect("a list");
    list.items.into_iter().map(|log| log.message).collect()
}

async fn lists_and_filters(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let (one, two) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let run = NewExecution::new(one, ExecutionMode::Manual);
    let run = db.executions().enqueue(run).await.expect("queued").id;
    let start = db.now();
    for (level, message, flow) in [
        (LogLevel::Debug, "100% Ü", one),
        (LogLevel::Info, "1000 ü_", one),
        (LogLevel::Warn, "Careful", two),
        (LogLevel::Error, "CAREFUL!", one),
    ] {
        let mut new = NewLog::new(flow, level, message);
        if level == LogLevel::Error {
            new = new.execution(run);
        }
        db.logs().append(new).await.expect("appended");
        clock.advance(Duration::from_millis(1));
    }
    let all = LogFilter::new;
    assert_eq!(
        found(&db, all()).await,
        ["CAREFUL!", "Careful", "1000 ü_", "100% Ü"]
    );
    assert_eq!(found(&db, all().oldest_first()).await[0], "100% Ü");
    assert_eq!(found(&db, LogFilter::workflow(two)).await, ["Careful"]);
    assert_eq!(found(&db, LogFilter::execution(run)).await, ["CAREFUL!"]);
    assert_eq!(found(&db, all().level(LogLevel::Info)).await, ["1000 ü_"]);
    assert_eq!(
        found(&db, all().at_least(LogLevel::Warn)).await,
        ["CAREFUL!", "Careful"]
    );
    assert_eq!(found(&db, all().at_least(LogLevel::Debug)).await.len(), 4);
    assert_eq!(
        found(&db, all().text("carEFUL")).await,
        ["CAREFUL!", "Careful"]
    );
    assert_eq!(found(&db, all().text("100%")).await, ["100% Ü"]);
    assert_eq!(found(&db, all().text("ü_")).await, ["1000 ü_"]);
    let second = start + Duration::from_millis(1);
    assert_eq!(found(&db, all().until(second)).await, ["100% Ü"]);
    let late = start + Duration::from_millis(2);
    assert_eq!(
        found(&db, all().from(second).until(late)).await,
        ["1000 ü_"]
    );
    let page = db
        .logs()
        .list(all(), PageRequest::first(3))
        .await
        .expect("a list");
    db.logs()
        .append(info(one, "meanwhile"))
        .await
        .expect("appended");
    let next = PageRequest::after(page.next.expect("there is more"), 3);
    let rest = db.logs().list(all(), next).await.expect("a list");
    assert_eq!(rest.items[0].message, "100% Ü");
    let counted = db
        .logs()
        .list(all(), PageRequest::number(2, 4))
        .await
        .expect("a list");
    assert_eq!((counted.total, counted.items.len()), (Some(5), 1));
}

async fn newest_first_whatever_the_clock(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let noon = db.now();
    for (message, shift) in [
        ("one", 0),
        ("two", -86_400),
        ("three", 86_400),
        ("four", -3_600),
    ] {
        clock.set(noon + chrono::TimeDelta::seconds(shift));
        db.logs()
            .append(info(flow, message))
            .await
            .expect("appended");
    }
    assert_eq!(
        found(&db, LogFilter::new()).await,
        ["four", "three", "two", "one"]
    );
}

async fn counted(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let (one, two) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let empty = db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(empty, aura_db::LogStats::default());
    for n in 0..30_u32 {
        let level = [LogLevel::Error, LogLevel::Debug, LogLevel::Info][n as usize % 3];
        let new = NewLog::new(if n < 20 { one } else { two }, level, "x");
        db.logs().append(new).await.expect("appended");
        clock.advance(Duration::from_hours(1));
    }
    let stats = db.logs().stats(LogFilter::new()).await.expect("numbers");
    assert_eq!(stats.total, 30);
    let levels = [
        (LogLevel::Debug, 10),
        (LogLevel::Info, 10),
        (LogLevel::Error, 10),
    ];
    assert_eq!(stats.by_level, levels);
    let days: Vec<_> = stats.per_day.iter().map(|day| day.total).collect();
    assert_eq!(days, [24, 6]);
    let filter = LogFilter::workflow(two).level(LogLevel::Error);
    assert_eq!(db.logs().stats(filter).await.expect("numbers").total, 3);
    let long = LogFilter::new().text("x".repeat(201));
    assert_eq!(refused(db.logs().stats(long).await), ["text"]);
}

/// Numbers of one answer are about the same entries, whatever comes meanwhile.
async fn numbers_that_agree(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let appending = db.clone();
    let writer = tokio::spawn(async move {
        for _ in 0..300 {
            appending
                .logs()
                .append(info(flow, "x"))
                .await
                .expect("appended");
        }
    });
    while !writer.is_finished() {
        let stats = db.logs().stats(LogFilter::new()).await.expect("numbers");
        let days: u64 = stats.per_day.iter().map(|day| day.total).sum();
        assert_eq!(stats.total, days);
    }
    writer.await.expect("no panic");
}

/// The workflow goes between the question whether it is there and the entry.
async fn a_workflow_that_is_purged_meanwhile(test: TestDb) {
    let db = open(&test).await;
    for together in [false, true] {
        let name = if together { "bob" } else { "ada" };
        let flow = flow(&db, name).await;
        db.workflows().delete(flow).await.expect("deleted");
        let (tell, told) = oneshot::channel::<()>();
        let (purged, ready) = oneshot::channel::<()>();
        let signals = Mutex::new(Some((told, purged)));
        let purging = db.clone();
        let purge = tokio::spawn(async move {
            purging
                .transaction(|tx| {
                    let (told, purged) = signals.lock().expect("alone").take().expect("one run");
                    async move {
                        tx.workflows().purge(flow).await?;
                        let _ = purged.send(());
                        told.await.map_err(|_| Error::Aborted)
                    }
                })
                .await
                .expect("committed");
        });
        ready.await.expect("it purged");
        let appending = db.clone();
        let append = tokio::spawn(async move {
            if together {
                let logs = appending.logs();
                logs.append_many(vec![info(flow, "x"); 2]).await.map(|_| ())
            } else {
                appending.logs().append(info(flow, "x")).await.map(|_| ())
            }
        });
        until_waiting(&test, 1).await;
        tell.send(()).expect("it waits");
        purge.await.expect("no panic");
        assert_error!(
            append.await.expect("no panic"),
            Error::NotFound {
                what: "workflow",
                ..
            }
        );
    }
}

async fn bad_input(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let long = "x".repeat(1024 * 1024 + 1);
    assert_eq!(
        refused(db.logs().append(info(flow, long)).await),
        ["message"]
    );
    let new = info(flow, "\0").metadata(json!({"\0": 1}));
    assert_eq!(
        refused(db.logs().append(new).await),
        ["message", "metadata"]
    );
    let many = vec![info(flow, ""); 100_001];
    assert_eq!(refused(db.logs().append_many(many).await), ["entries"]);
    let text = LogFilter::new().text("\0");
    assert_eq!(
        refused(db.logs().list(text.clone(), PageRequest::first(1)).await),
        ["text"]
    );
    assert_eq!(
        refused(
            db.logs()
                .list(LogFilter::new(), PageRequest::first(0))
                .await
        ),
        ["page.size"]
    );
    // A row that no code of ours wrote: NULs can't be, an empty message can.
    logs::Entity::insert(logs::ActiveModel {
        level: Set(LogLevel::Info),
        message: Set(String::new()),
        workflow_id: Set(flow),
        created_at: Set(db.now()),
        ..Default::default()
    })
    .exec(&*db.seaorm().writer().await.expect("open"))
    .await
    .expect("a row");
    assert_eq!(found(&db, LogFilter::new()).await, [""]);
}
