//! Whoever follows the log misses nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::logs::{Tail, TailFrom};
use aura_db::{Database, Error, LogFilter, LogLevel, NewLog, Role, WorkflowId};
use futures_util::StreamExt;
use testdb::{Backend, TestDb};
use tokio::sync::oneshot;

use crate::executions::flow;
use crate::support::{assert_error, open, refused, user};

testdb::both!(migrated:
    new_ones_come_once, from_the_start, what_is_committed_late_comes, what_was_open_at_the_start_comes,
    what_is_undone_does_not_come, writers_that_race, goes_on_from_a_position, wakes_at_once,
    another_process_is_seen, not_in_a_transaction, only_own_ones, dropped_halfway,
);

const PATIENCE: Duration = Duration::from_secs(20);

fn info(flow: WorkflowId, message: impl Into<String>) -> NewLog {
    NewLog::new(flow, LogLevel::Info, message)
}

async fn tail(db: &Database, from: TailFrom) -> Tail {
    db.logs()
        .tail(LogFilter::new(), from)
        .await
        .expect("it follows")
}

async fn append(db: &Database, flow: WorkflowId, message: &str) {
    db.logs()
        .append(info(flow, message))
        .await
        .expect("appended");
}

/// The messages that come until there are so many.
async fn hear(tail: &mut Tail, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let entries = tokio::time::timeout(PATIENCE, tail.next()).await;
        let entries = entries.unwrap_or_else(|_| panic!("only {heard:?}"));
        heard.extend(entries.expect("entries").into_iter().map(|log| log.message));
    }
    heard
}

/// What comes without waiting.
async fn silent(tail: &mut Tail) -> bool {
    tail.poll().await.expect("entries").is_empty()
}

async fn new_ones_come_once(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    append(&db, flow, "old").await;
    let mut tail = tail(&db, TailFrom::Now).await;
    assert!(silent(&mut tail).await);
    append(&db, flow, "one").await;
    append(&db, flow, "two").await;
    assert_eq!(hear(&mut tail, 2).await, ["one", "two"]);
    assert!(silent(&mut tail).await);
    let filter = LogFilter::new().at_least(LogLevel::Error).text("bad");
    let mut errors = db
        .logs()
        .tail(filter, TailFrom::Start)
        .await
        .expect("it follows");
    for (level, message) in [
        (LogLevel::Error, "so bad"),
        (LogLevel::Info, "not bad"),
        (LogLevel::Error, "x"),
    ] {
        db.logs()
            .append(NewLog::new(flow, level, message))
            .await
            .expect("appended");
    }
    assert_eq!(hear(&mut errors, 1).await, ["so bad"]);
    assert!(silent(&mut errors).await);
}

async fn from_the_start(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let many = (0..1_300).map(|n| info(flow, format!("{n}"))).collect();
    db.logs().append_many(many).await.expect("appended");
    let stream = tail(&db, TailFrom::Start).await.into_stream();
    let batches: Vec<_> = stream.take(3).collect().await;
    let batches: Vec<_> = batches
        .into_iter()
        .map(|batch| batch.expect("entries"))
        .collect();
    assert_eq!(
        batches.iter().map(Vec::len).collect::<Vec<_>>(),
        [500, 500, 300]
    );
    let messages = batches.iter().flatten().map(|log| log.message.clone());
    assert!(messages.eq((0..1_300).map(|n| n.to_string())));
}

/// A transaction that has appended, and waits to be told how it ends.
async fn open_writer(
    db: &Database,
    flow: WorkflowId,
    message: &'static str,
) -> (oneshot::Sender<bool>, tokio::task::JoinHandle<()>) {
    let (tell, end) = oneshot::channel::<bool>();
    let (wrote, written) = oneshot::channel::<()>();
    let signals = std::sync::Mutex::new(Some((end, wrote)));
    let db = db.clone();
    let task = tokio::spawn(async move {
        let result: Result<(), Error> = db
            .transaction(|tx| {
                let (end, wrote) = signals.lock().expect("alone").take().expect("one run");
                async move {
                    tx.logs().append(info(flow, message)).await?;
                    let _ = wrote.send(());
                    match end.await {
                        Ok(true) => Ok(()),
                        _ => Err(Error::Aborted),
                    }
                }
            })
            .await;
        drop(result);
    });
    written.await.expect("it wrote");
    (tell, task)
}

/// The lower id is committed after the higher one was given out.
async fn what_is_committed_late_comes(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    append(&db, flow, "before").await;
    let mut tail = tail(&db, TailFrom::Start).await;
    let (commit, task) = open_writer(&db, flow, "late").await;
    if test.backend() == Backend::Postgres {
        append(&db, flow, "early").await;
        assert_eq!(hear(&mut tail, 2).await, ["before", "early"]);
        // However often it looks and whatever else comes.
        for _ in 0..5 {
            append(&db, flow, "more").await;
            assert_eq!(hear(&mut tail, 1).await, ["more"]);
        }
    } else {
        // The one writer is busy, so nothing is earlier.
        assert_eq!(hear(&mut tail, 1).await, ["before"]);
    }
    commit.send(true).expect("it waits");
    task.await.expect("no panic");
    assert_eq!(hear(&mut tail, 1).await, ["late"]);
    append(&db, flow, "after").await;
    assert_eq!(hear(&mut tail, 1).await, ["after"]);
    assert!(silent(&mut tail).await);
}

async fn what_was_open_at_the_start_comes(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    append(&db, flow, "old").await;
    let (commit, task) = open_writer(&db, flow, "open").await;
    if test.backend() == Backend::Postgres {
        append(&db, flow, "old too").await;
    }
    let mut tail = tail(&db, TailFrom::Now).await;
    assert!(silent(&mut tail).await);
    commit.send(true).expect("it waits");
    task.await.expect("no panic");
    assert_eq!(hear(&mut tail, 1).await, ["open"]);
    assert!(silent(&mut tail).await);
}

async fn what_is_undone_does_not_come(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut tail = tail(&db, TailFrom::Start).await;
    for round in 0..3 {
        let (commit, task) = open_writer(&db, flow, "undone").await;
        assert!(silent(&mut tail).await);
        commit.send(false).expect("it waits");
        task.await.expect("no panic");
        append(&db, flow, &format!("{round}")).await;
        assert_eq!(hear(&mut tail, 1).await, [round.to_string()]);
        assert!(silent(&mut tail).await);
    }
    // The holes that they left are forgotten.
    let position = serde_json::to_value(tail.position()).expect("JSON");
    assert_eq!(position["gaps"], serde_json::json!([]), "{position}");
}

/// Eight writers commit, undo, nest and wait as they like; each of two
/// followers hears what was committed, once.
async fn writers_that_race(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let followers: Vec<_> = [TailFrom::Start, TailFrom::Now]
        .into_iter()
        .map(|from| {
            let db = db.clone();
            let (started, ready) = oneshot::channel();
            let task = tokio::spawn(async move {
                let mut tail = tail(&db, from).await.poll_every(Duration::from_millis(20));
                started.send(()).expect("somebody waits");
                let mut heard = Vec::new();
                loop {
                    for message in hear(&mut tail, 1).await {
                        if message == "the end" {
                            assert!(silent(&mut tail).await, "all were committed before");
                            return heard;
                        }
                        heard.push(message);
                    }
                }
            });
            (task, ready)
        })
        .collect();
    let mut tasks = Vec::new();
    for (task, ready) in followers {
        ready.await.expect("it follows");
        tasks.push(task);
    }
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut committed = Vec::new();
                for round in 0..12_u64 {
                    let name = format!("{writer}.{round}");
                    let nap = Duration::from_millis((writer * 7 + round * 13) % 11);
                    let name_ = &name;
                    let result: Result<(), Error> = db
                        .transaction(|tx| async move {
                            tx.logs()
                                .append(info(flow, format!("{name_} first")))
                                .await?;
                            tokio::time::sleep(nap).await;
                            let nested: Result<(), Error> = tx
                                .transaction(|inner| async move {
                                    inner
                                        .logs()
                                        .append(info(flow, format!("{name_} inner")))
                                        .await?;
                                    if round % 3 == 0 {
                                        Err(Error::Aborted)
                                    } else {
                                        Ok(())
                                    }
                                })
                                .await;
                            drop(nested);
                            if round % 4 == 1 {
                                Err(Error::Aborted)
                            } else {
                                Ok(())
                            }
                        })
                        .await;
                    if result.is_ok() {
                        committed.push(format!("{name} first"));
                        if round % 3 != 0 {
                            committed.push(format!("{name} inner"));
                        }
                    }
                }
                committed
            })
        })
        .collect();
    let mut committed = BTreeSet::new();
    for writer in writers {
        committed.extend(writer.await.expect("no panic"));
    }
    append(&db, flow, "the end").await;
    for follower in tasks {
        let heard = follower.await.expect("no panic");
        assert_eq!(heard.len(), committed.len(), "none twice");
        assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), committed);
    }
}

async fn goes_on_from_a_position(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut first = tail(&db, TailFrom::Start).await;
    append(&db, flow, "one").await;
    assert_eq!(hear(&mut first, 1).await, ["one"]);
    let (commit, task) = open_writer(&db, flow, "late").await;
    if test.backend() == Backend::Postgres {
        append(&db, flow, "two").await;
        assert_eq!(hear(&mut first, 1).await, ["two"]);
    }
    let kept = serde_json::to_string(&first.position()).expect("JSON");
    drop(first);
    commit.send(true).expect("it waits");
    task.await.expect("no panic");
    append(&db, flow, "three").await;
    let position = serde_json::from_str(&kept).expect("JSON");
    let mut second = tail(&db, TailFrom::After(position)).await;
    assert_eq!(hear(&mut second, 2).await, ["late", "three"]);
    assert!(silent(&mut second).await);
}

/// With an hour between looks only news can wake it.
async fn wakes_at_once(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut tail = tail(&db, TailFrom::Now).await;
    for way in 0..3 {
        let (db, hour) = (db.clone(), Duration::from_hours(1));
        let mut waiting = tail.poll_every(hour);
        let task = tokio::spawn(async move {
            let heard = hear(&mut waiting, 1).await;
            (waiting, heard)
        });
        // Let it have its first looks, so that it waits longer and longer.
        tokio::time::sleep(Duration::from_millis(120)).await;
        match way {
            0 => append(&db, flow, "0").await,
            1 => {
                let one = vec![info(flow, "1")];
                db.clone().logs().append_many(one).await.expect("appended");
            }
            _ => db
                .transaction(
                    |tx| async move { tx.logs().append(info(flow, "2")).await.map(|_| ()) },
                )
                .await
                .expect("committed"),
        }
        let heard;
        (tail, heard) = task.await.expect("no panic");
        assert_eq!(heard, [way.to_string()]);
    }
}

async fn another_process_is_seen(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    // Opened anew, it shares nothing with the first.
    let other = open(&test).await;
    let mut tail = tail(&db, TailFrom::Now).await;
    append(&other, flow, "from elsewhere").await;
    assert_eq!(hear(&mut tail, 1).await, ["from elsewhere"]);
}

async fn not_in_a_transaction(db: TestDb) {
    let db = open(&db).await;
    db.transaction(|tx| async move {
        let logs = tx.logs();
        assert_eq!(
            refused(logs.tail(LogFilter::new(), TailFrom::Now).await),
            ["tail"]
        );
        Ok::<_, Error>(())
    })
    .await
    .expect("committed");
    let text = LogFilter::new().text("\0");
    assert_eq!(refused(db.logs().tail(text, TailFrom::Now).await), ["text"]);
}

async fn only_own_ones(db: TestDb) {
    let db = open(&db).await;
    let (mine, other) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let ada = db
        .users()
        .get_by_email("ada@example.org")
        .await
        .expect("there");
    let restricted = db.restricted_to(&ada);
    let tail = restricted
        .logs()
        .tail(LogFilter::new(), TailFrom::Start)
        .await;
    let mut tail = tail.expect("a user may read executions");
    append(&db, other, "not hers").await;
    append(&db, mine, "hers").await;
    assert_eq!(hear(&mut tail, 1).await, ["hers"]);
    // Editors may not, by AURA's matrix; it counts at the next look.
    db.users()
        .set_role(ada.id, Role::Editor)
        .await
        .expect("changed");
    assert_error!(tail.poll().await, Error::Forbidden { .. });
    let carol = user(&db, "carol").await;
    db.users()
        .set_role(carol.id, Role::Viewer)
        .await
        .expect("changed");
    let all = db.restricted_to(&carol).logs();
    let mut all = all
        .tail(LogFilter::new(), TailFrom::Start)
        .await
        .expect("it follows");
    assert_eq!(hear(&mut all, 2).await, ["not hers", "hers"]);
}

async fn dropped_halfway(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let mut tail = tail(&db, TailFrom::Now).await;
    let mut heard = Vec::new();
    for n in 0..20 {
        append(&db, flow, &format!("{n}")).await;
        // Polled so often and dropped, at whatever point it is by then.
        let mut next = Box::pin(tail.next());
        for _ in 0..n % 7 {
            if let std::task::Poll::Ready(entries) = futures_util::poll!(next.as_mut()) {
                heard.extend(entries.expect("entries"));
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let mut heard: Vec<_> = heard.into_iter().map(|log| log.message).collect();
    heard.extend(hear(&mut tail, 20 - heard.len()).await);
    assert!(heard.into_iter().eq((0..20).map(|n| n.to_string())));
}
