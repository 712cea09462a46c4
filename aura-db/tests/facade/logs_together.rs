//! Many who append at the same moment.

use std::collections::BTreeSet;

use aura_db::sea_orm::ConnectionTrait;
use aura_db::{
    Database, Error, ExecutionMode, LogFilter, LogLevel, NewExecution, NewLog, NewWorkflow,
    PageRequest, WorkflowId,
};
use futures_util::future::join_all;
use serde_json::json;
use testdb::TestDb;

use crate::support::{assert_error, open, user};

testdb::both!(migrated: each_is_told_its_own);
testdb::postgres!(migrated: one_that_waits_keeps_nobody, none_is_there_twice);

async fn flow(db: &Database, name: &str) -> WorkflowId {
    let owner = user(db, name).await.id;
    let new = NewWorkflow::new(name).owner(owner);
    db.workflows().create(new).await.expect("created").id
}

async fn each_is_told_its_own(test: TestDb) {
    let db = &open(&test).await;
    let (one, other) = (flow(db, "one").await, flow(db, "other").await);
    let run = db
        .executions()
        .enqueue(NewExecution::new(one, ExecutionMode::Manual))
        .await;
    let run = run.expect("enqueued").id;
    let append = async |index: i64| {
        let message = format!("{}", index / 2);
        let new = match index % 5 {
            0 => NewLog::new(one, LogLevel::Info, message).execution(run),
            1 => NewLog::new(other, LogLevel::Warn, message).metadata(json!({"index": index})),
            2 => NewLog::new(WorkflowId(0), LogLevel::Info, message),
            3 => NewLog::new(other, LogLevel::Info, message).execution(run),
            _ => NewLog::new(one, LogLevel::Error, message),
        };
        (index, new.clone(), db.logs().append(new).await)
    };
    let mut ids = BTreeSet::new();
    for (index, new, appended) in join_all((0..200).map(append)).await {
        match index % 5 {
            2 => assert_error!(
                appended,
                Error::NotFound {
                    what: "workflow",
                    ..
                }
            ),
            3 => assert_error!(
                appended,
                Error::NotFound {
                    what: "execution",
                    ..
                }
            ),
            _ => {
                let log = appended.expect("appended");
                let NewLog {
                    level,
                    message,
                    workflow,
                    execution,
                    metadata,
                } = new;
                assert_eq!((log.level, &log.message), (level, &message));
                assert_eq!((log.workflow_id, log.execution_id), (workflow, execution));
                let stored = db.logs().get(log.id).await.expect("stored");
                assert_eq!(stored, log);
                let json = |metadata: Option<aura_db::Document>| metadata.map(|m| m.json().ok());
                assert_eq!(json(stored.metadata), json(metadata));
                assert!(ids.insert(log.id), "two were told of {}", log.id);
            }
        }
    }
    assert_eq!(ids.len(), 120);
    let all = db
        .logs()
        .list(LogFilter::new(), PageRequest::first(1_000))
        .await;
    assert_eq!(all.expect("listed").items.len(), 120);
}

/// Somebody holds one workflow, as who purges it does.
async fn one_that_waits_keeps_nobody(test: TestDb) {
    let db = &open(&test).await;
    let (held, free) = (flow(db, "held").await, flow(db, "free").await);
    let purging = db.seaorm().begin().await.expect("begun");
    let lock = format!("SELECT id FROM workflows WHERE id = {held} FOR UPDATE");
    purging.execute_unprepared(&lock).await.expect("held");
    let append = async |db: Database, flow| {
        let new = NewLog::new(flow, LogLevel::Info, "x");
        db.logs().append(new).await
    };
    let waiting = tokio::spawn(append(db.clone(), held));
    for appended in join_all((0..20).map(|_| append(db.clone(), free))).await {
        appended.expect("appended");
    }
    assert!(!waiting.is_finished());
    purging.rollback().await.expect("let go");
    waiting.await.expect("no panic").expect("appended");
}

/// The server ends connections while entries are on their way: who was told that
/// it is there has it there once, and who was told nothing has it at most once.
async fn none_is_there_twice(test: TestDb) {
    let db = &open(&test).await;
    let flow = flow(db, "ada").await;
    let outside = test.outside().await;
    let (mut told, mut refused) = (0, 0);
    for round in 0..20 {
        let appends = (0..40).map(|index| {
            let db = db.clone();
            async move {
                let message = format!("{round}/{index}");
                let new = NewLog::new(flow, LogLevel::Info, &message);
                (message, db.logs().append(new).await)
            }
        });
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let (appended, killed) =
            futures_util::join!(join_all(appends), outside.execute_unprepared(kill));
        killed.expect("ended");
        for (message, appended) in appended {
            let filter = LogFilter::new().text(&message);
            let found = loop {
                // Connections that the server has ended may still be found.
                match db
                    .logs()
                    .list(filter.clone(), PageRequest::first(1_000))
                    .await
                {
                    Ok(list) => break list.items,
                    Err(error) => assert_error!(Err::<(), _>(error), Error::Unavailable { .. }),
                }
            };
            let count = found.iter().filter(|log| log.message == message).count();
            if let Ok(log) = appended {
                told += 1;
                assert_eq!((count, log.message), (1, message));
            } else {
                refused += 1;
                assert!(count <= 1, "{message} is there {count} times");
            }
        }
    }
    assert!(told > 0, "{told} told, {refused} refused");
}
