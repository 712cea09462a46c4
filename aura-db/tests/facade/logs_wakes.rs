//! What an append costs those who follow the log: each is woken by the entries that it may
//! want, and looks at the end of the log together with the others.

use std::time::{Duration, Instant};

use aura_db::logs::{Logs, Tail, TailFrom};
use aura_db::testing::QueryCount;
use aura_db::{Database, Error, LogFilter, Role, WorkflowId};
use futures_util::FutureExt;
use futures_util::future::{join_all, poll_immediate};
use testdb::TestDb;

use crate::executions::flow;
use crate::logs_follow::info;
use crate::support::{open, user};

testdb::both!(migrated:
    one_look_for_all, restricted_followers_share_it, entries_of_others_wake_no_follower,
    a_workflow_of_a_transaction_wakes, a_dropped_wait_loses_nothing,
    an_unpolled_follower_delays_no_other, entries_that_match_nothing_are_looked_at_in_turn,
);

const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest pause between two looks that no append asks for.
const PAUSE: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_hours(1);

async fn following(logs: &Logs, filter: LogFilter) -> Tail {
    let tail = logs.tail(filter, TailFrom::Now).await;
    tail.expect("it follows").poll_every(HOUR)
}

async fn append(db: &Database, flow: WorkflowId, message: &str) {
    let appended = db.logs().append(info(flow, message)).await;
    appended.expect("appended");
}

async fn next(tail: &mut Tail) -> Vec<String> {
    let entries = tokio::time::timeout(PATIENCE, tail.next()).await;
    let entries = entries.expect("in time").expect("entries");
    entries.into_iter().map(|log| log.message).collect()
}

/// How often an operation of the log ran.
fn runs(db: &Database, operation: &str) -> u64 {
    let stats = db.stats().operations;
    let mut of_logs = stats.iter().filter(|one| one.table == "logs");
    let found = of_logs.find(|one| one.operation == operation);
    found.map_or(0, |one| one.count)
}

/// How many looks at most the pauses of this many followers have brought since then.
fn by_pauses(followers: usize, started: Instant) -> u64 {
    let pauses = started.elapsed().as_nanos() / PAUSE.as_nanos() + 1;
    followers as u64 * u64::try_from(pauses).expect("a few")
}

const FOLLOWERS: usize = 12;
const APPENDS: u64 = 10;

/// Appends, and has all hear it; returns the number of statements beside those that pauses
/// may have brought.
async fn heard_by_all(db: &Database, flow: WorkflowId, tails: &mut [Tail]) -> u64 {
    // The first look of each.
    append(db, flow, "first").await;
    join_all(tails.iter_mut().map(next)).await;
    let (started, count) = (Instant::now(), QueryCount::start(db));
    let looks = runs(db, "tail_head");
    for n in 0..APPENDS {
        let message = n.to_string();
        let waiting = join_all(tails.iter_mut().map(next));
        let (heard, ()) = tokio::join!(waiting, append(db, flow, &message));
        assert!(heard.iter().all(|entries| *entries == [message.as_str()]));
    }
    let by_pauses = by_pauses(tails.len(), started);
    let looks = runs(db, "tail_head") - looks;
    assert!(looks <= APPENDS + by_pauses, "{looks} looks");
    count.get().saturating_sub(by_pauses)
}

async fn one_look_for_all(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let logs = db.logs();
    let tails = (0..FOLLOWERS).map(|_| following(&logs, LogFilter::new()));
    let mut tails = join_all(tails).await;
    let statements = heard_by_all(&db, flow, &mut tails).await;
    // The append, the look, and the entries for each.
    let most = APPENDS * (2 + FOLLOWERS as u64);
    assert!(statements <= most, "{statements} statements");
}

/// Each asks for its role.
async fn restricted_followers_share_it(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let viewer = user(&db, "carol").await;
    let viewer = db.users().set_role(viewer.id, Role::Viewer).await;
    let logs = db.restricted_to(&viewer.expect("a viewer")).logs();
    let tails = (0..FOLLOWERS).map(|_| following(&logs, LogFilter::new()));
    let mut tails = join_all(tails).await;
    let started = Instant::now();
    let statements = heard_by_all(&db, flow, &mut tails).await;
    let most = APPENDS * (2 + 2 * FOLLOWERS as u64) + by_pauses(FOLLOWERS, started);
    assert!(statements <= most, "{statements} statements");
}

async fn entries_of_others_wake_no_follower(test: TestDb) {
    let db = open(&test).await;
    let (own, other) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let mut tail = following(&db.logs(), LogFilter::workflow(own)).await;
    let started = Instant::now();
    {
        let mut waiting = Box::pin(tail.next());
        assert!(poll_immediate(waiting.as_mut()).await.is_none());
        for n in 0..40 {
            append(&db, other, "other").await;
            db.logs()
                .append_many(vec![info(other, "others"); 3])
                .await
                .expect("appended");
            assert!(poll_immediate(waiting.as_mut()).await.is_none(), "{n}");
        }
        // The first, and those after a pause.
        let looks = runs(&db, "tail");
        assert!(looks <= 2 + by_pauses(1, started), "{looks} looks");
        append(&db, own, "own").await;
        let heard = tokio::time::timeout(PATIENCE, waiting).await;
        assert_eq!(heard.expect("in time").expect("entries")[0].message, "own");
    }
    // With a level and a text it is the same workflow.
    let filter = LogFilter::workflow(own).text("ow");
    let mut tail = following(&db.logs(), filter).await;
    let (heard, ()) = tokio::join!(next(&mut tail), append(&db, own, "own too"));
    assert_eq!(heard, ["own too"]);
}

/// It was open before it was followed, and writes to several.
async fn a_workflow_of_a_transaction_wakes(test: TestDb) {
    let db = open(&test).await;
    let (own, other) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let (wrote, written) = tokio::sync::oneshot::channel::<()>();
    let (go, going) = tokio::sync::oneshot::channel::<()>();
    let signals = std::sync::Mutex::new(Some((wrote, going)));
    let writing = db.transaction(|tx| {
        let (wrote, going) = signals.lock().expect("alone").take().expect("one run");
        async move {
            for flow in [other, own, other] {
                tx.logs().append(info(flow, "in it")).await?;
            }
            let _ = wrote.send(());
            going.await.map_err(|_| Error::Aborted)
        }
    });
    let hearing = async {
        written.await.expect("it wrote");
        let mut tail = following(&db.logs(), LogFilter::workflow(own)).await;
        assert!(tail.poll().await.expect("entries").is_empty());
        go.send(()).expect("it waits");
        next(&mut tail).await
    };
    let (written, heard) = tokio::join!(writing, hearing);
    written.expect("committed");
    assert_eq!(heard, ["in it"]);
}

/// Dropped at any point, it goes on where it was.
async fn a_dropped_wait_loses_nothing(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut tail = following(&db.logs(), LogFilter::workflow(flow)).await;
    for polls in 0..12 {
        let mut waiting = Box::pin(tail.next());
        assert!(poll_immediate(waiting.as_mut()).await.is_none());
        append(&db, flow, "x").await;
        let mut early = Vec::new();
        for _ in 0..polls {
            if let Some(entries) = poll_immediate(waiting.as_mut()).await {
                early = entries.expect("entries");
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(waiting);
        if early.is_empty() {
            assert_eq!(next(&mut tail).await, ["x"], "{polls}");
        }
    }
}

async fn an_unpolled_follower_delays_no_other(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut first = following(&db.logs(), LogFilter::new()).await;
    let mut second = following(&db.logs(), LogFilter::new()).await;
    for n in 0..5 {
        // It may come to an end early, and is then polled no more.
        let mut unpolled = Box::pin(first.next().fuse());
        for _ in 0..n {
            let _ = poll_immediate(unpolled.as_mut()).await;
        }
        append(&db, flow, "x").await;
        let _ = poll_immediate(unpolled.as_mut()).await;
        assert_eq!(next(&mut second).await, ["x"]);
    }
}

/// However often others append, a follower that finds nothing rests between its looks.
async fn entries_that_match_nothing_are_looked_at_in_turn(test: TestDb) {
    const REST: Duration = Duration::from_millis(20);
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut tail = following(&db.logs(), LogFilter::new().text("needle")).await;
    let started = Instant::now();
    let waiting = tokio::spawn(async move { next(&mut tail).await });
    for _ in 0..200 {
        append(&db, flow, "hay").await;
    }
    let looks = runs(&db, "tail");
    let rests = u64::try_from(started.elapsed().as_nanos() / REST.as_nanos()).expect("a few");
    // Before the rests are so long there are some that are shorter.
    let most = 10 + rests + by_pauses(1, started);
    assert!(looks <= most, "{looks} looks, at most {most}");
    append(&db, flow, "a needle").await;
    assert_eq!(waiting.await.expect("no panic"), ["a needle"]);
}
