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
use testdb::{Backend, TestDb};

use crate::executions::{LEASE, flow};
use crate::support::open;

testdb::both!(migrated:
    what_is_queued_wakes_a_worker, a_commit_wakes_and_a_rollback_doesnt,
    each_wakes_one_of_its_queue, what_comes_before_the_wait_counts, a_dropped_wait_wakes_another,
    whatever_queues_wakes, nothing_wakes_and_it_looks_all_the_same,
);

testdb::postgres!(migrated:
    another_process_wakes, a_connection_that_ended_is_opened_again,
    the_connection_ends_with_its_workers, what_was_queued_last_is_sent, another_runtime_queues,
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

/// As [`wakeups`], the first of its database: on PostgreSQL it looks once when it is connected.
async fn first_wakeups(test: &TestDb, db: &Database, queue: &str) -> Wakeups {
    let mut wakeups = wakeups(db, queue);
    if test.backend() == Backend::Postgres {
        woken(wakeups.next()).await;
    }
    wakeups
}

async fn queue(db: &Database, flow: WorkflowId, queue: &str) -> Execution {
    let new = NewExecution::new(flow, ExecutionMode::Trigger).queue(queue);
    db.executions().enqueue(new).await.expect("queued")
}

async fn woken(next: impl Future<Output = ()>) {
    let woken = tokio::time::timeout(PATIENCE, next).await;
    woken.expect("it is woken");
}

async fn what_is_queued_wakes_a_worker(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut wakeups = first_wakeups(&test, &db, "q").await;
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

async fn a_commit_wakes_and_a_rollback_doesnt(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut wakeups = first_wakeups(&test, &db, "q").await;
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
async fn each_wakes_one_of_its_queue(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut other = first_wakeups(&test, &db, "other").await;
    let mut mine: Vec<_> = (0..3).map(|_| wakeups(&db, "q")).collect();
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
async fn what_comes_before_the_wait_counts(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    queue(&db, flow, "q").await;
    let mut wakeups = first_wakeups(&test, &db, "q").await;
    // The first claim finds what was there before; none is woken for it.
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    for _ in 0..5 {
        queue(&db, flow, "q").await;
    }
    assert!(poll_immediate(pin!(wakeups.next())).await.is_some());
    // One look of the only worker is enough for all.
    assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    db.close().await;
}

async fn a_dropped_wait_wakes_another(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut first = first_wakeups(&test, &db, "q").await;
    let mut second = wakeups(&db, "q");
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

async fn whatever_queues_wakes(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let mut wakeups = first_wakeups(&test, &db, "q").await;
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
    for _ in 0..9 {
        wakeups = wakeups.poll_every(Duration::MAX);
        let _ = poll_immediate(pin!(wakeups.next())).await;
    }
    db.close().await;
}

/// One for each execution.
async fn another_process_wakes(test: TestDb) {
    let (one, two) = (open(&test).await, open(&test).await);
    let flow = flow(&one, "ada").await;
    let name = "ein „Name“ mit Leerzeichen";
    let mut wakeups = first_wakeups(&test, &two, name).await;
    for _ in 0..3 {
        queue(&one, flow, name).await;
        woken(wakeups.next()).await;
        queue(&one, flow, "other").await;
        assert!(poll_immediate(pin!(wakeups.next())).await.is_none());
    }
    // As many as were queued.
    let mut more = self::wakeups(&two, name);
    let (mut first, mut second) = (pin!(wakeups.next()), pin!(more.next()));
    assert!(poll_immediate(first.as_mut()).await.is_none());
    assert!(poll_immediate(second.as_mut()).await.is_none());
    queue(&one, flow, name).await;
    queue(&one, flow, name).await;
    woken(first).await;
    woken(second).await;
    one.close().await;
    two.close().await;
}

async fn a_connection_that_ended_is_opened_again(test: TestDb) {
    let db = open(&test).await;
    let mut wakeups = first_wakeups(&test, &db, "q").await;
    test.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND query = 'LISTEN aura_executions'",
    )
    .await;
    // It looks for what was queued meanwhile.
    woken(wakeups.next()).await;
    listens(&test, "1").await;
    db.close().await;
}

/// A process that queues something and ends.
async fn what_was_queued_last_is_sent(test: TestDb) {
    let two = open(&test).await;
    let mut wakeups = first_wakeups(&test, &two, "q").await;
    for _ in 0..5 {
        let one = open(&test).await;
        let flow = match one.workflows().find(1.into()).await {
            Ok(Some(flow)) => flow.id,
            _ => flow(&one, "ada").await,
        };
        queue(&one, flow, "q").await;
        queue(&one, flow, "q").await;
        one.close().await;
        woken(wakeups.next()).await;
    }
    two.close().await;
}

/// A runtime that ends after the commit keeps no notification back.
async fn another_runtime_queues(test: TestDb) {
    let (one, two) = (open(&test).await, open(&test).await);
    let flow = flow(&one, "ada").await;
    let mut wakeups = first_wakeups(&test, &two, "q").await;
    for _ in 0..3 {
        let db = one.clone();
        let queued = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(queue(&db, flow, "q"))
        });
        queued.join().expect("no panic");
        woken(wakeups.next()).await;
    }
    one.close().await;
    two.close().await;
}

async fn listens(test: &TestDb, count: &str) {
    let sql = "SELECT CAST(count(*) AS text) AS line FROM pg_stat_activity \
         WHERE datname = current_database() AND query = 'LISTEN aura_executions'";
    let ended = async {
        while test.lines(sql).await != [count] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.expect(count);
}

async fn the_connection_ends_with_its_workers(test: TestDb) {
    let db = open(&test).await;
    listens(&test, "0").await;
    let (one, two) = (wakeups(&db, "q"), wakeups(&db, "r"));
    listens(&test, "1").await;
    drop(one);
    listens(&test, "1").await;
    drop(two);
    listens(&test, "0").await;
    let left = first_wakeups(&test, &db, "q").await;
    let executions = db.executions();
    db.close().await;
    // None is opened afterwards either.
    let late = executions.wakeups(&worker("q"));
    listens(&test, "0").await;
    drop((left, late));
}
