//! What wakes a worker that waits.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use aura_db::{
    Claim, Database, Error, Execution, ExecutionMode, NewExecution, Outcome, Wakeups, Worker,
    WorkflowId,
};
use futures_util::future::{join_all, poll_immediate};
use serde_json::json;
use testdb::TestDb;

use crate::executions::{LEASE, flow};
use crate::support::open;

testdb::both!(migrated:
    what_is_queued_wakes_a_worker, a_commit_wakes_and_a_rollback_doesnt,
    each_wakes_one_of_its_queue, what_comes_before_the_wait_counts, a_dropped_wait_wakes_another,
    whatever_queues_wakes, nothing_wakes_and_it_looks_all_the_same,
);

testdb::postgres!(migrated:
    another_process_wakes, a_connection_that_ended_is_opened_again,
    the_connection_ends_with_its_workers,
);

/// Long enough for whatever wakes.
const PATIENCE: Duration = Duration::from_secs(20);

fn worker(queue: &str) -> Worker {
    Worker::new("w").queues([queue])
}

/// Wakes for what is queued, and not because time has passed.
fn wakeups(db: &Database, queue: &str) -> Wakeups {
    let wakeups = db.executions().wakeups(&worker(queue));
    wakeups.poll_every(Duration::from_hours(9))
}

async fn queue(db: &Database, flow: WorkflowId, queue: &str) -> Execution {
    let new = NewExecution::new(flow, ExecutionMode::Trigger).queue(queue);
    db.executions().enqueue(new).await.expect("queued")
}

async fn woken(next: impl Future<Output = ()>) {
    let woken = tokio::time::timeout(PATIENCE, next).await;
    woken.expect("it is woken");
}

async fn what_is_queued_wakes_a_worker(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let mut wakeups = wakeups(&db, "q");
    for _ in 0..3 {
        let ((), queued) = tokio::join!(woken(wakeups.next()), queue(&db, flow, "q"));
        let taken = db.executions().claim(worker("q"), LEASE).await;
        assert_eq!(
            taken.expect("an answer").map(|taken| taken.id),
            Some(queued.id)
        );
    }
    db.close().await;
}

async fn a_commit_wakes_and_a_rollback_doesnt(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let mut wakeups = wakeups(&db, "q");
    for commits in [false, true] {
        let mut next = pin!(wakeups.next());
        assert!(poll_immediate(next.as_mut()).await.is_none());
        let tx = db.begin().await.expect("begun");
        let new = NewExecution::new(flow, ExecutionMode::Trigger).queue("q");
        tx.executions().enqueue(new).await.expect("queued");
        assert!(poll_immediate(next.as_mut()).await.is_none());
        if commits {
            tx.commit().await.expect("committed");
            woken(next).await;
        } else {
            tx.rollback().await.expect("rolled back");
            assert!(poll_immediate(next.as_mut()).await.is_none());
        }
    }
    db.close().await;
}

/// Also of several that are committed together.
async fn each_wakes_one_of_its_queue(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let mut mine: Vec<_> = (0..3).map(|_| wakeups(&db, "q")).collect();
    let mut other = wakeups(&db, "other");
    let mut waits: Vec<_> = mine
        .iter_mut()
        .map(|wakeups| Box::pin(wakeups.next()))
        .collect();
    let mut other = pin!(other.next());
    for wait in &mut waits {
        assert!(poll_immediate(wait.as_mut()).await.is_none());
    }
    assert!(poll_immediate(other.as_mut()).await.is_none());
    let queued = db.transaction(|tx| async move {
        for _ in 0..2 {
            let new = NewExecution::new(flow, ExecutionMode::Trigger).queue("q");
            tx.executions().enqueue(new).await?;
        }
        Ok::<_, Error>(())
    });
    queued.await.expect("committed");
    let done = waits.iter_mut().map(|wait| poll_immediate(wait.as_mut()));
    let done = join_all(done).await.into_iter().flatten().count();
    assert_eq!(done, 2);
    assert!(poll_immediate(other.as_mut()).await.is_none());
    drop(waits);
    db.close().await;
}

/// Between a claim that finds nothing and the wait.
async fn what_comes_before_the_wait_counts(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    queue(&db, flow, "q").await;
    let mut wakeups = wakeups(&db, "q");
    // The first claim finds what was there before; no one is woken for it.
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    for _ in 0..5 {
        queue(&db, flow, "q").await;
    }
    assert!(poll_immediate(pin!(wakeups.next())).await.is_some());
    // One look of the only worker is enough for all.
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    db.close().await;
}

async fn a_dropped_wait_wakes_another(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let (mut first, mut second) = (wakeups(&db, "q"), wakeups(&db, "q"));
    let mut gone = Box::pin(first.next());
    let mut left = pin!(second.next());
    assert!(poll_immediate(gone.as_mut()).await.is_none());
    assert!(poll_immediate(left.as_mut()).await.is_none());
    queue(&db, flow, "q").await;
    assert!(
        poll_immediate(left.as_mut()).await.is_none(),
        "one is woken"
    );
    drop(gone);
    woken(left).await;
    db.close().await;
}

async fn whatever_queues_wakes(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let mut wakeups = wakeups(&db, "q");
    let executions = db.executions();
    let new = NewExecution::new(flow, ExecutionMode::Manual).queue("q");
    let once = executions.enqueue_once(new.clone(), "key").await;
    let id = once.expect("queued").execution.id;
    woken(wakeups.next()).await;
    executions.enqueue_once(new, "key").await.expect("known");
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    let claimed = async || {
        let taken = executions.claim(worker("q"), LEASE).await;
        Claim::from(&taken.expect("an answer").expect("one"))
    };
    executions.release(claimed().await).await.expect("held");
    woken(wakeups.next()).await;
    executions
        .wait(claimed().await, None, None)
        .await
        .expect("held");
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    executions.resume(id).await.expect("resumed");
    woken(wakeups.next()).await;
    let failed = Outcome::retryable(json!("no"));
    executions
        .finish(claimed().await, failed)
        .await
        .expect("held");
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    executions.retry(id).await.expect("dead");
    woken(wakeups.next()).await;
    executions.cancel(id).await.expect("canceled");
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    db.close().await;
}

async fn nothing_wakes_and_it_looks_all_the_same(db: TestDb) {
    let db = open(&db).await;
    let wakeups = db.executions().wakeups(&worker("q"));
    let mut wakeups = wakeups.poll_every(Duration::ZERO);
    for _ in 0..3 {
        woken(wakeups.next()).await;
    }
    db.close().await;
}

const LISTENS: &str = "SELECT CAST(count(*) AS text) AS line FROM pg_stat_activity \
     WHERE datname = current_database() AND query = 'LISTEN aura_executions'";

/// Queues until the worker is woken: it may not listen yet.
async fn queue_until_woken(from: &Database, flow: WorkflowId, wakeups: &mut Wakeups) {
    let queued = async {
        loop {
            queue(from, flow, "ein „Name“ mit Leerzeichen").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let queued = pin!(queued);
    let woken = woken(wakeups.next());
    futures_util::future::select(pin!(woken), queued).await;
}

async fn another_process_wakes(test: TestDb) {
    let (one, two) = (open(&test).await, open(&test).await);
    let flow = flow(&one, "ada").await;
    let mut wakeups = wakeups(&two, "ein „Name“ mit Leerzeichen");
    for _ in 0..3 {
        queue_until_woken(&one, flow, &mut wakeups).await;
    }
    one.close().await;
    two.close().await;
}

async fn a_connection_that_ended_is_opened_again(test: TestDb) {
    let (one, two) = (open(&test).await, open(&test).await);
    let flow = flow(&one, "ada").await;
    let mut wakeups = wakeups(&two, "ein „Name“ mit Leerzeichen");
    queue_until_woken(&one, flow, &mut wakeups).await;
    test.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND query = 'LISTEN aura_executions'",
    )
    .await;
    queue_until_woken(&one, flow, &mut wakeups).await;
    queue_until_woken(&one, flow, &mut wakeups).await;
    one.close().await;
    two.close().await;
}

async fn the_connection_ends_with_its_workers(test: TestDb) {
    let listens = async |count: &str| {
        let ended = async {
            while test.lines(LISTENS).await != [count] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect(count);
    };
    let db = open(&test).await;
    listens("0").await;
    let (one, two) = (wakeups(&db, "q"), wakeups(&db, "r"));
    listens("1").await;
    drop(one);
    listens("1").await;
    drop(two);
    listens("0").await;
    let left = wakeups(&db, "q");
    listens("1").await;
    db.close().await;
    listens("0").await;
    drop(left);
}
