//! What makes following hard: much that is open, much that is undone, and
//! places that come from outside.

use std::sync::Mutex;
use std::time::Duration;

use aura_db::logs::{Tail, TailFrom, TailPosition};
use aura_db::{Database, Error, LogFilter, LogLevel, NewLog, Role, WorkflowId};
use futures_util::StreamExt;
use testdb::{Backend, TestDb};
use tokio::sync::oneshot;

use crate::executions::flow;
use crate::support::{assert_error, open, user};

testdb::both!(migrated:
    a_long_batch_that_was_open_at_the_start_comes, goes_on_from_anywhere,
    a_look_after_a_restart_finds_what_is_there,
    an_error_is_not_repeated_at_once,
);
testdb::postgres!(migrated: an_open_writer_costs_little);

pub(crate) fn info(flow: WorkflowId, message: impl Into<String>) -> NewLog {
    NewLog::new(flow, LogLevel::Info, message)
}

pub(crate) fn many(flow: WorkflowId, count: usize) -> Vec<NewLog> {
    (0..count).map(|n| info(flow, n.to_string())).collect()
}

pub(crate) async fn tail(db: &Database, from: TailFrom) -> Tail {
    let tail = db.logs().tail(LogFilter::new(), from).await;
    tail.expect("it follows")
}

pub(crate) async fn look(tail: &mut Tail) -> Vec<String> {
    let entries = tail.poll().await.expect("entries");
    entries.into_iter().map(|log| log.message).collect()
}

/// All that is there.
pub(crate) async fn drain(tail: &mut Tail) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let entries = look(tail).await;
        if entries.is_empty() {
            return heard;
        }
        heard.extend(entries);
    }
}

/// A transaction that has appended these, and waits to be told to commit.
pub(crate) async fn writing(
    db: &Database,
    entries: Vec<NewLog>,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (tell, told) = oneshot::channel::<()>();
    let (wrote, written) = oneshot::channel::<()>();
    let signals = Mutex::new(Some((told, wrote)));
    let db = db.clone();
    let task = tokio::spawn(async move {
        let entries = &entries;
        db.transaction(|tx| {
            let (told, wrote) = signals.lock().expect("alone").take().expect("one run");
            async move {
                tx.logs().append_many(entries.clone()).await?;
                let _ = wrote.send(());
                told.await.map_err(|_| Error::Aborted)
            }
        })
        .await
        .expect("committed");
    });
    written.await.expect("it wrote");
    (tell, task)
}

async fn a_long_batch_that_was_open_at_the_start_comes(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let (commit, task) = writing(&db, many(flow, 12_000)).await;
    if test.backend() == Backend::Postgres {
        db.logs().append(info(flow, "old")).await.expect("appended");
    }
    let mut tail = tail(&db, TailFrom::Now).await;
    assert!(look(&mut tail).await.is_empty());
    commit.send(()).expect("it waits");
    task.await.expect("no panic");
    assert!(
        drain(&mut tail)
            .await
            .into_iter()
            .eq((0..12_000).map(|n| n.to_string()))
    );
}

async fn goes_on_from_anywhere(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let position = tail(&db, TailFrom::Start).await.position();
    let position = serde_json::to_string(&position).expect("JSON");
    db.logs().append(info(flow, "one")).await.expect("appended");
    for wrong in [i64::MAX, i64::MIN, -1] {
        let position = position.replace(":0", &format!(":{wrong}"));
        let position: TailPosition = serde_json::from_str(&position).expect("a position");
        let mut tail = tail(&db, TailFrom::After(position)).await;
        let heard = drain(&mut tail).await;
        assert_eq!(heard.len(), usize::from(wrong < 0));
    }
}

/// More than a batch was given out while an older transaction was open.
async fn a_look_after_a_restart_finds_what_is_there(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut first = tail(&db, TailFrom::Start).await;
    let (commit, task) = writing(&db, many(flow, 1)).await;
    if test.backend() == Backend::Postgres {
        db.logs()
            .append_many(many(flow, 700))
            .await
            .expect("appended");
        assert_eq!(drain(&mut first).await.len(), 700);
    }
    let position = first.position();
    if test.backend() == Backend::Postgres {
        db.logs().append(info(flow, "new")).await.expect("appended");
        let mut second = tail(&db, TailFrom::After(position.clone())).await;
        assert_eq!(drain(&mut second).await, ["new"]);
    }
    commit.send(()).expect("it waits");
    task.await.expect("no panic");
    db.logs()
        .append(info(flow, "newer"))
        .await
        .expect("appended");
    let mut second = tail(&db, TailFrom::After(position)).await;
    let heard = drain(&mut second).await;
    assert_eq!(
        (heard[0].as_str(), heard[heard.len() - 1].as_str()),
        ("0", "newer")
    );
}

/// What a follower remembers is what is missing, not what it gave out.
async fn an_open_writer_costs_little(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut tail = tail(&db, TailFrom::Start).await;
    let (commit, task) = writing(&db, many(flow, 3)).await;
    db.logs()
        .append_many(many(flow, 5_000))
        .await
        .expect("appended");
    assert_eq!(drain(&mut tail).await.len(), 5_000);
    let position = serde_json::to_string(&tail.position()).expect("JSON");
    assert!(position.len() < 100, "{position}");
    let mut again = db
        .logs()
        .tail(LogFilter::new(), TailFrom::After(tail.position()))
        .await
        .expect("it follows");
    commit.send(()).expect("it waits");
    task.await.expect("no panic");
    assert_eq!(drain(&mut tail).await, ["0", "1", "2"]);
    assert_eq!(drain(&mut again).await, ["0", "1", "2"]);
}

async fn an_error_is_not_repeated_at_once(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let tail = db.restricted_to(&ada).logs();
    let tail = tail.tail(LogFilter::new(), TailFrom::Start).await;
    let tail = tail.expect("it follows");
    db.users()
        .set_role(ada.id, Role::Editor)
        .await
        .expect("changed");
    let mut stream = Box::pin(tail.into_stream());
    assert_error!(
        stream.next().await.expect("it goes on"),
        Error::Forbidden { .. }
    );
    let again = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
    assert!(again.is_err(), "who logs each error would fill a disk");
    assert_error!(
        stream.next().await.expect("it goes on"),
        Error::Forbidden { .. }
    );
}
