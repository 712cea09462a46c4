//! Many who append at the same moment.

use std::collections::BTreeSet;

use aura_db::sea_orm::ConnectionTrait;
use aura_db::{
    Database, Document, Error, ExecutionMode, Log, LogFilter, LogLevel, NewExecution, NewLog,
    NewWorkflow, PageRequest, WorkflowId,
};
use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::json;
use testdb::TestDb;

use crate::people::until_waiting;
use crate::support::{assert_error, open, user};

testdb::both!(migrated: each_is_told_its_own);
testdb::postgres!(migrated:
    those_that_wait_keep_nobody, an_execution_that_is_held_keeps_nobody, none_is_there_twice,
    two_that_are_alike_get_their_own, what_a_trigger_changes_is_there_once,
    what_a_trigger_leaves_out_is_unknown,
);

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

async fn append(db: Database, new: NewLog) -> Result<Log, Error> {
    db.logs().append(new).await
}

/// More entries wait for a locked row than requests and batches are in flight at most.
async fn append_beside(test: &TestDb, lock: &str, held: &NewLog, free: &NewLog) {
    let db = &open(test).await;
    let purging = db.seaorm().begin().await.expect("begun");
    purging.execute_unprepared(lock).await.expect("held");
    let waiting: Vec<_> = (0..4)
        .map(|_| tokio::spawn(append(db.clone(), held.clone())))
        .collect();
    until_waiting(test, 4).await;
    // Held ones come in their batches, too.
    let mixed = (0..40).map(|nth| {
        let new = if nth == 20 { held } else { free };
        tokio::spawn(append(db.clone(), new.clone()))
    });
    for (nth, mixed) in mixed.enumerate().collect::<Vec<_>>() {
        if nth != 20 {
            mixed.await.expect("no panic").expect("appended");
        }
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    purging.rollback().await.expect("let go");
    for waiting in waiting {
        waiting.await.expect("no panic").expect("appended");
    }
}

/// As while it is purged.
async fn those_that_wait_keep_nobody(test: TestDb) {
    let db = &open(&test).await;
    let (held, free) = (flow(db, "held").await, flow(db, "free").await);
    let lock = format!("SELECT id FROM workflows WHERE id = {held} FOR UPDATE");
    let new = |flow| NewLog::new(flow, LogLevel::Info, "x");
    append_beside(&test, &lock, &new(held), &new(free)).await;
}

/// As while it is pruned.
async fn an_execution_that_is_held_keeps_nobody(test: TestDb) {
    let db = &open(&test).await;
    let flow = flow(db, "ada").await;
    let run = NewExecution::new(flow, ExecutionMode::Manual);
    let run = db.executions().enqueue(run).await.expect("enqueued").id;
    let lock = format!("SELECT id FROM executions WHERE id = {run} FOR UPDATE");
    let new = NewLog::new(flow, LogLevel::Info, "x");
    append_beside(&test, &lock, &new.clone().execution(run), &new).await;
}

/// Makes an insert of an entry `gate N` wait for the advisory lock N.
const GATE: &str = "
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS '
BEGIN
    IF NEW.message LIKE ''gate %'' THEN
        PERFORM pg_advisory_xact_lock_shared(CAST(substr(NEW.message, 6) AS bigint));
    END IF;
    RETURN NEW;
END';
CREATE TRIGGER gate BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION gate()";

/// Appends entries in one statement, in their order, and calls `meanwhile` when it waits
/// for the gate 2.
async fn in_one_statement(
    test: &TestDb,
    db: &Database,
    entries: Vec<NewLog>,
    meanwhile: impl AsyncFnOnce(),
) -> Vec<Result<Log, Error>> {
    let close = async |gate: u8| {
        let closed = db.seaorm().begin().await.expect("begun");
        let lock = format!("SELECT pg_advisory_xact_lock({gate})");
        closed.execute_unprepared(&lock).await.expect("closed");
        closed
    };
    let (first, second) = (close(1).await, close(2).await);
    let leader = NewLog::new(flow(db, "leader").await, LogLevel::Info, "gate 1");
    let leaders: Vec<_> = (0..2)
        .map(|_| tokio::spawn(append(db.clone(), leader.clone())))
        .collect();
    until_waiting(test, 2).await;
    let mut entries: Vec<_> = entries
        .into_iter()
        .map(|new| Box::pin(append(db.clone(), new)))
        .collect();
    for entry in &mut entries {
        assert!(entry.now_or_never().is_none(), "it waits for the leaders");
    }
    let entries = tokio::spawn(join_all(entries));
    first.rollback().await.expect("open");
    for leader in leaders {
        leader.await.expect("no panic").expect("appended");
    }
    until_waiting(test, 1).await;
    meanwhile().await;
    second.rollback().await.expect("open");
    entries.await.expect("no panic")
}

async fn count(db: &Database, flow: WorkflowId) -> usize {
    let filter = LogFilter::workflow(flow);
    let list = db.logs().list(filter, PageRequest::first(1_000)).await;
    list.expect("listed").items.len()
}

/// The workflow of both is let go while they are inserted.
async fn two_that_are_alike_get_their_own(test: TestDb) {
    let db = &open(&test).await;
    let (held, free) = (flow(db, "held").await, flow(db, "free").await);
    test.execute(GATE).await;
    let purging = db.seaorm().begin().await.expect("begun");
    let lock = format!("SELECT id FROM workflows WHERE id = {held} FOR UPDATE");
    purging.execute_unprepared(&lock).await.expect("held");
    let entries = vec![
        NewLog::new(held, LogLevel::Info, "same").metadata(json!({"nth": 0})),
        NewLog::new(free, LogLevel::Info, "gate 2"),
        NewLog::new(held, LogLevel::Error, "same").metadata(json!({"nth": 2})),
    ];
    let let_go = async || purging.rollback().await.expect("let go");
    let appended = in_one_statement(&test, db, entries.clone(), let_go).await;
    for (new, log) in entries.into_iter().zip(appended) {
        let log = log.expect("appended");
        assert_eq!((log.level, &log.message), (new.level, &new.message));
        assert_eq!(log, db.logs().get(log.id).await.expect("stored"));
        let json = |metadata: Option<Document>| metadata.map(|m| m.json().ok());
        assert_eq!(json(log.metadata), json(new.metadata));
    }
    assert_eq!((count(db, held).await, count(db, free).await), (2, 1));
}

async fn what_a_trigger_changes_is_there_once(test: TestDb) {
    let db = &open(&test).await;
    let flow = flow(db, "ada").await;
    test.execute(GATE).await;
    test.execute(
        "CREATE FUNCTION redact() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN NEW.message := left(NEW.message, 3); RETURN NEW; END'; \
         CREATE TRIGGER redact BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION redact()",
    )
    .await;
    let entry = |message| NewLog::new(flow, LogLevel::Info, message);
    let entries = vec![entry("one secret"), entry("gate 2"), entry("two secrets")];
    let appended = in_one_statement(&test, db, entries, async || ()).await;
    let messages = appended
        .into_iter()
        .map(|log| log.expect("appended").message);
    assert_eq!(messages.collect::<Vec<_>>(), ["one", "gat", "two"]);
    assert_eq!(count(db, flow).await, 3);
}

/// It isn't known which entries the rows are of.
async fn what_a_trigger_leaves_out_is_unknown(test: TestDb) {
    let db = &open(&test).await;
    let flow = flow(db, "ada").await;
    test.execute(GATE).await;
    test.execute(
        "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN IF NEW.message = ''noise'' THEN RETURN NULL; END IF; RETURN NEW; END'; \
         CREATE TRIGGER leave_out BEFORE INSERT ON logs \
             FOR EACH ROW EXECUTE FUNCTION leave_out()",
    )
    .await;
    let entry = |message| NewLog::new(flow, LogLevel::Info, message);
    let entries = vec![entry("noise"), entry("gate 2"), entry("other")];
    for appended in in_one_statement(&test, db, entries, async || ()).await {
        assert_error!(
            appended,
            Error::OutcomeUnknown { source, .. } if source.to_string().contains("2 of 3 entries")
        );
    }
    assert_eq!(count(db, flow).await, 2);
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
