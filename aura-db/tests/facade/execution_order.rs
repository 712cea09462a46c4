//! Which execution a worker takes next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aura_db::{
    DEFAULT_QUEUE, Database, ExecutionFilter, ExecutionId, ExecutionMode, ExecutionStatus,
    NewExecution, PageRequest, Worker, WorkflowId,
};
use testdb::TestDb;

use crate::executions::{LEASE, flow};
use crate::support::{open, open_at, refused};

testdb::both!(migrated:
    a_worker_takes_from_its_queues, the_first_queue_goes_first, priority_counts_among_an_owners,
    owners_take_turns, each_queue_has_its_turns, batches_take_turns_too,
    what_is_due_is_looked_for_each_second, the_clock_may_be_set_back,
    deleted_ones_are_put_aside, names_and_numbers_have_limits, an_empty_look_takes_what_it_queued,
    workers_share_all_owners, claims_in_transactions_take_turns,
    a_transaction_looks_after_its_own_queues,
);

fn new(flow: WorkflowId) -> NewExecution {
    NewExecution::new(flow, ExecutionMode::Trigger)
}

async fn queue(db: &Database, new: NewExecution) -> ExecutionId {
    db.executions().enqueue(new).await.expect("queued").id
}

async fn claim(db: &Database, worker: impl Into<Worker> + Send) -> Option<ExecutionId> {
    let taken = db.executions().claim(worker, LEASE).await;
    taken.expect("an answer").map(|taken| taken.id)
}

async fn claim_many(db: &Database, limit: u64) -> Vec<ExecutionId> {
    let taken = db.executions().claim_many("w", LEASE, limit).await;
    let taken = taken.expect("an answer").into_iter();
    taken.map(|taken| taken.id).collect()
}

async fn a_worker_takes_from_its_queues(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let plain = db.executions().enqueue(new(flow)).await.expect("queued");
    assert_eq!((plain.queue.as_str(), plain.priority), (DEFAULT_QUEUE, 0));
    let mail = queue(&db, new(flow).queue("mail")).await;
    let other = Worker::new("w").queues(["reports"]);
    assert_eq!(claim(&db, other).await, None);
    assert_eq!(claim(&db, "w").await, Some(plain.id));
    assert_eq!(claim(&db, "w").await, None);
    let mails = Worker::new("w").queues(["mail"]);
    assert_eq!(claim(&db, mails.clone()).await, Some(mail));
    assert_eq!(claim(&db, mails).await, None);
    let filter = ExecutionFilter::new().queue("mail");
    let list = db
        .executions()
        .list(filter, PageRequest::first(9))
        .await
        .expect("a list");
    let list: Vec<_> = list
        .items
        .iter()
        .map(|row| (row.id, row.queue.as_str(), row.priority))
        .collect();
    assert_eq!(list, [(mail, "mail", 0)]);
    db.close().await;
}

/// However urgent or old what stands in the others is.
async fn the_first_queue_goes_first(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let mut queues = BTreeMap::<&str, Vec<ExecutionId>>::new();
    for name in ["c", "b", "a", "b", "c", "a"] {
        let id = queue(&db, new(flow).queue(name).priority(9)).await;
        queues.entry(name).or_default().push(id);
    }
    let worker = || Worker::new("w").queues(["b", "a"]);
    for name in ["b", "a"] {
        for id in &queues[name] {
            assert_eq!(claim(&db, worker()).await, Some(*id), "{name}");
        }
    }
    assert_eq!(claim(&db, worker()).await, None);
    let both = Worker::new("w").queues(["c", "a"]);
    let both = db.executions().claim_many(both, LEASE, 9).await;
    assert_eq!(both.expect("an answer").len(), 2);
    db.close().await;
}

async fn priority_counts_among_an_owners(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let mut ids = Vec::new();
    for priority in [0, -1_000, 7, 0, 1_000] {
        ids.push(queue(&db, new(ada).priority(priority)).await);
    }
    let other = queue(&db, new(bob).priority(-5)).await;
    // Hers, his, and then hers.
    let mut expected = [4, 2, 0, 3, 1].map(|index: usize| ids[index]).to_vec();
    expected.insert(1, other);
    for id in expected {
        assert_eq!(claim(&db, "w").await, Some(id));
    }
    for id in &ids {
        let taken = db.executions().get(*id).await.expect("there");
        let claim = aura_db::Claim::from(&taken);
        db.executions().release(claim).await.expect("held");
    }
    let many = claim_many(&db, 9).await;
    assert_eq!(many, [4, 2, 0, 3, 1].map(|index: usize| ids[index]));
    db.close().await;
}

async fn owners_take_turns(db: TestDb) {
    let db = open(&db).await;
    let mut ids = Vec::new();
    for (name, count) in [("ada", 20), ("bob", 2), ("eve", 3)] {
        let flow = flow(&db, name).await;
        let mut queued = Vec::new();
        for _ in 0..count {
            queued.push(queue(&db, new(flow)).await);
        }
        ids.push(queued);
    }
    for round in 0..20 {
        for id in ids.iter().filter_map(|queued| queued.get(round)) {
            assert_eq!(claim(&db, "w").await, Some(*id));
        }
    }
    assert_eq!(claim(&db, "w").await, None);
    db.close().await;
}

async fn claims_in_transactions_take_turns(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let mut ids = Vec::new();
    for flow in [ada, ada, bob, bob] {
        ids.push(queue(&db, new(flow)).await);
    }
    let claimed = async |commits: bool| {
        let tx = db.begin().await.expect("begun");
        let taken = tx.executions().claim("w", LEASE).await.expect("an answer");
        let taken = taken.map(|taken| taken.id);
        if commits {
            tx.commit().await.expect("committed");
        } else {
            tx.rollback().await.expect("rolled back");
        }
        taken
    };
    assert_eq!(claimed(false).await, Some(ids[0]));
    for index in [0, 2, 1, 3] {
        assert_eq!(claimed(true).await, Some(ids[index]));
    }
    assert_eq!(claimed(true).await, None);
    db.close().await;
}

/// And leaves those of others to be taken meanwhile.
async fn a_transaction_looks_after_its_own_queues(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let later = wait(&db, flow, Duration::from_secs(5)).await;
    let other = queue(&db, new(flow).queue("other")).await;
    let other_worker = || Worker::new("w").queues(["other"]);
    assert_eq!(claim(&db, other_worker()).await, Some(other));
    clock.advance(LEASE);
    for (worker, expected) in [
        (Worker::new("w"), None),
        (other_worker(), Some(other)),
        (Worker::new("w").queues(["later"]), Some(later)),
    ] {
        let tx = db.begin().await.expect("begun");
        let taken = tx.executions().claim(worker, LEASE).await;
        assert_eq!(taken.expect("an answer").map(|taken| taken.id), expected);
        tx.commit().await.expect("committed");
        let waits = db.executions().get(later).await.expect("there").status;
        let is_taken = expected == Some(later);
        assert_eq!(waits == ExecutionStatus::Running, is_taken, "{waits}");
    }
}

/// An owner who has something in one queue only isn't passed over for the turns of another.
async fn each_queue_has_its_turns(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let (a, b) = (
        || Worker::new("w").queues(["a"]),
        || Worker::new("w").queues(["b"]),
    );
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push((
            queue(&db, new(ada).queue("a")).await,
            queue(&db, new(bob).queue("a")).await,
        ));
        queue(&db, new(ada).queue("b")).await;
    }
    for (hers, his) in expected {
        assert_eq!(claim(&db, a()).await, Some(hers));
        assert!(claim(&db, b()).await.is_some());
        assert_eq!(claim(&db, a()).await, Some(his));
    }
    db.close().await;
}

async fn batches_take_turns_too(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let mut hers = Vec::new();
    for _ in 0..50 {
        hers.push(queue(&db, new(ada)).await);
    }
    let his = [queue(&db, new(bob)).await, queue(&db, new(bob)).await];
    assert_eq!(claim_many(&db, 10).await, hers[..10]);
    let mixed = claim_many(&db, 20).await;
    assert_eq!(mixed, [&hers[10..28], &his].concat());
    assert_eq!(claim_many(&db, 1_000).await, hers[28..]);
    assert_eq!(claim_many(&db, 10).await, []);
    assert_eq!(claim_many(&db, 0).await, []);
    db.close().await;
}

async fn wait(db: &Database, flow: WorkflowId, time: Duration) -> ExecutionId {
    let id = queue(db, new(flow).queue("later")).await;
    let worker = Worker::new("w").queues(["later"]);
    let taken = db.executions().claim(worker, LEASE).await;
    let taken = taken.expect("an answer").expect("one");
    assert_eq!(taken.id, id);
    let (executions, until) = (db.executions(), db.now() + time);
    let waits = executions.wait(&taken, Some(until), None).await;
    waits.expect("held");
    id
}

async fn what_is_due_is_looked_for_each_second(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let due = wait(&db, flow, Duration::from_millis(10)).await;
    for _ in 0..3 {
        queue(&db, new(flow)).await;
    }
    let status = async || db.executions().get(due).await.expect("there").status;
    for (after, expected) in [
        (10, ExecutionStatus::Waiting),
        (980, ExecutionStatus::Waiting),
        (10, ExecutionStatus::Queued),
    ] {
        clock.advance(Duration::from_millis(after));
        assert!(claim(&db, "w").await.is_some());
        assert_eq!(status().await, expected, "after {after}");
    }
    // It stays in its queue, and has its place there.
    let worker = Worker::new("w").queues(["later"]);
    assert_eq!(claim(&db, worker).await, Some(due));
}

async fn the_clock_may_be_set_back(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    assert_eq!(claim(&db, "w").await, None);
    clock.set(db.now() - Duration::from_hours(1));
    let due = wait(&db, flow, Duration::ZERO).await;
    queue(&db, new(flow)).await;
    clock.set(db.now() - Duration::from_hours(1));
    assert!(claim(&db, "w").await.is_some());
    let status = db.executions().get(due).await.expect("there").status;
    assert_eq!(status, ExecutionStatus::Waiting, "it isn't due");
    clock.advance(Duration::from_hours(1));
    let worker = Worker::new("w").queues(["later"]);
    assert_eq!(claim(&db, worker).await, Some(due));
}

/// What stands behind them is found, however many there are.
async fn deleted_ones_are_put_aside(test: TestDb) {
    let db = open(&test).await;
    let (ada, bob) = (flow(&db, "ada").await, flow(&db, "bob").await);
    test.execute("INSERT INTO workflows (name, owner_id) SELECT 'x', owner_id FROM workflows")
        .await;
    let more = "INSERT INTO executions (workflow_id, owner_id, workflow_version, mode, status) \
         SELECT w.id, w.owner_id, 1, 'cron', 'queued' FROM workflows AS w, workflows AS other, \
         workflows AS more, workflows AS most WHERE w.name = 'x'";
    // 128 each; 2,560 together.
    for _ in 0..20 {
        test.execute(more).await;
    }
    test.execute("UPDATE workflows SET deleted_at = created_at WHERE name = 'x'")
        .await;
    let (hers, his) = (queue(&db, new(ada)).await, queue(&db, new(bob)).await);
    let mut taken = [claim(&db, "w").await, claim(&db, "w").await];
    taken.sort_unstable();
    assert_eq!(taken, [Some(hers), Some(his)]);
    assert_eq!(claim(&db, "w").await, None);
    let aside = "SELECT CAST(count(*) AS text) AS line FROM executions \
         WHERE is_suspended AND status = 'queued'";
    assert_eq!(test.lines(aside).await, ["2560"]);
    db.close().await;
}

async fn names_and_numbers_have_limits(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    for (wrong, field) in [
        (new(flow).queue(""), "queue"),
        (new(flow).queue("q".repeat(65)), "queue"),
        (new(flow).priority(1_001), "priority"),
        (new(flow).priority(-1_001), "priority"),
        (new(flow).priority(i64::MIN), "priority"),
    ] {
        assert_eq!(refused(executions.enqueue(wrong).await), [field]);
    }
    let long = new(flow).queue("é".repeat(64)).priority(-1_000);
    let long = executions.enqueue(long).await.expect("queued");
    let none: [&str; 0] = [];
    for wrong in [
        Worker::new("w").queues(none),
        Worker::new("w").queues(["q"; 17]),
        Worker::new("w").queues([""]),
        Worker::new("w").queues(["q".repeat(65)]),
    ] {
        assert_eq!(refused(executions.claim(wrong, LEASE).await), ["queues"]);
    }
    assert_eq!(refused(executions.claim("", LEASE).await), ["worker"]);
    let all: Vec<_> = (0..15)
        .map(|number| format!("q{number}"))
        .chain([long.queue.clone()])
        .collect();
    let all = Worker::new("w").queues(all);
    assert_eq!(claim(&db, all).await, Some(long.id));
    db.close().await;
}

/// What is due and what has lost its worker is taken by the look that finds it.
async fn an_empty_look_takes_what_it_queued(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let lost = queue(&db, new(flow)).await;
    assert_eq!(claim(&db, "w").await, Some(lost));
    clock.advance(LEASE / 2);
    assert_eq!(claim(&db, "w").await, None, "and looks for it");
    clock.advance(LEASE / 2);
    assert_eq!(claim(&db, "w").await, Some(lost));
    // In a transaction as well.
    clock.advance(LEASE);
    let tx = db.begin().await.expect("begun");
    let taken = tx.executions().claim("w", LEASE).await.expect("an answer");
    assert_eq!(taken.map(|taken| taken.id), Some(lost));
    tx.commit().await.expect("committed");
}

/// Each execution goes to one of several workers, and all owners are served.
async fn workers_share_all_owners(db: TestDb) {
    let db = open(&db).await;
    let mut queued = BTreeSet::new();
    for name in ["ada", "bob", "eve"] {
        let flow = flow(&db, name).await;
        for priority in 0..20 {
            queued.insert(queue(&db, new(flow).priority(priority % 3)).await);
        }
    }
    let workers = (0..6).map(|number| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let worker = format!("worker-{number}");
                let some = if number % 2 == 0 {
                    db.executions().claim_many(worker, LEASE, 3).await
                } else {
                    let one = db.executions().claim(worker, LEASE).await;
                    one.map(|one| one.into_iter().collect())
                };
                let some = some.expect("an answer");
                if some.is_empty() {
                    break mine;
                }
                mine.extend(some.into_iter().map(|taken| taken.id));
            }
        })
    });
    let mut all = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.expect("no panic"));
    }
    assert_eq!(all.len(), queued.len());
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), queued);
    db.close().await;
}
