//! Executions where several work on the same ones, and at the edges of time.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::sea_orm::prelude::DateTimeUtc;
use aura_db::{
    Database, Error, ExecutionFilter, ExecutionId, ExecutionMode, ExecutionStatus, NewExecution,
    Outcome, PageRequest, WorkflowId,
};
use chrono::TimeDelta;
use serde_json::json;
use testdb::TestDb;

use crate::executions::flow;
use crate::support::{assert_error, claim_of, open, open_at, refused};

testdb::both!(migrated:
    what_is_due_takes_its_place, due_ones_go_to_one_worker,
    recover_and_finish_meet, recover_and_extend_meet, pruned_once,
    times_beyond_the_calendar, times_finer_than_stored,
);

const LEASE: Duration = Duration::from_mins(1);

async fn queue(db: &Database, flow: WorkflowId) -> ExecutionId {
    let new = NewExecution::new(flow, ExecutionMode::Manual).max_attempts(3);
    db.executions().enqueue(new).await.expect("queued").id
}

async fn claim(db: &Database) -> Option<ExecutionId> {
    let taken = db.executions().claim("w", LEASE).await.expect("an answer");
    taken.map(|execution| execution.id)
}

/// One that waits until this time.
async fn waiting(db: &Database, flow: WorkflowId, until: DateTimeUtc) -> ExecutionId {
    let id = queue(db, flow).await;
    assert_eq!(claim(db).await, Some(id));
    let wait = db
        .executions()
        .wait(claim_of(db, id, "w").await, Some(until), None)
        .await;
    wait.expect("waiting").id
}

async fn what_is_due_takes_its_place(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let second = |n| db.now() + TimeDelta::seconds(n);
    let (late, soon) = (second(20), second(10));
    let late = waiting(&db, flow, late).await;
    let soon = waiting(&db, flow, soon).await;
    let never = waiting(&db, flow, second(1_000)).await;
    let queued = queue(&db, flow).await;
    clock.advance(Duration::from_secs(30));
    let some = db.executions().claim_many("w", LEASE, 1).await;
    let some: Vec<_> = some.expect("an answer").iter().map(|e| e.id).collect();
    assert_eq!(some, [late]);
    assert_eq!(claim(&db).await, Some(soon));
    assert_eq!(claim(&db).await, Some(queued));
    assert_eq!(claim(&db).await, None);
    let status = db.executions().get(never).await.expect("there").status;
    assert_eq!(status, ExecutionStatus::Waiting);
}

async fn due_ones_go_to_one_worker(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let soon = db.now() + TimeDelta::seconds(1);
    for _ in 0..30 {
        waiting(&db, flow, soon).await;
    }
    for _ in 0..30 {
        queue(&db, flow).await;
    }
    clock.advance(Duration::from_secs(1));
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let executions = db.executions();
            tokio::spawn(async move {
                let worker = format!("worker {worker}");
                let mut mine = Vec::new();
                loop {
                    let some = executions.claim_many(&worker, LEASE, 2).await;
                    let some = some.expect("an answer");
                    if some.is_empty() {
                        break mine;
                    }
                    mine.extend(some.into_iter().map(|execution| execution.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("no panic"));
    }
    assert_eq!(all.len(), 60);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 60);
}

async fn recover_and_finish_meet(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    for _ in 0..20 {
        let id = queue(&db, flow).await;
        assert_eq!(claim(&db).await, Some(id));
        clock.advance(LEASE);
        let (finished, recovered) = tokio::join!(
            executions.finish(
                claim_of(&db, id, "w").await,
                Outcome::success(Some(json!("done").into()))
            ),
            executions.requeue_expired(10)
        );
        let recovered = recovered.expect("an answer").len();
        let now = executions.get(id).await.expect("there");
        match finished {
            Ok(_) => assert_eq!((now.status, recovered), (ExecutionStatus::Success, 0)),
            Err(Error::LeaseLost { .. }) => {
                assert_eq!((now.status, recovered), (ExecutionStatus::Queued, 1));
                assert_eq!(now.data, None);
                executions.cancel(id).await.expect("canceled");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The holder extends at the last moment, and a scheduler whose clock is ahead
/// takes it for dead.
async fn recover_and_extend_meet(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (ahead, its_clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..20 {
        let id = queue(&db, flow).await;
        assert_eq!(claim(&db).await, Some(id));
        clock.advance(LEASE / 2);
        its_clock.set(db.now() + TimeDelta::seconds(31));
        let (holder, scheduler) = (db.executions(), ahead.executions());
        let (extended, recovered) = tokio::join!(
            holder.extend(claim_of(&db, id, "w").await, LEASE),
            scheduler.requeue_expired(10)
        );
        let recovered = recovered.expect("an answer").len();
        let status = holder.get(id).await.expect("there").status;
        match (extended, recovered) {
            // Extended in time, or the lease was taken away: never both.
            (Ok(_), 0) => assert_eq!(status, ExecutionStatus::Running),
            (Err(Error::LeaseLost { .. }), 1) => assert_eq!(status, ExecutionStatus::Queued),
            // First extended, for a time that was over by the other clock too.
            other => panic!("{other:?}"),
        }
        holder.cancel(id).await.expect("canceled");
    }
}

async fn pruned_once(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..40 {
        let id = queue(&db, flow).await;
        db.executions().cancel(id).await.expect("canceled");
    }
    let open = queue(&db, flow).await;
    clock.advance(Duration::from_secs(1));
    let pruners: Vec<_> = (0..4)
        .map(|_| {
            let (executions, before) = (db.executions(), db.now());
            tokio::spawn(async move {
                let mut count = 0;
                loop {
                    match executions.prune(before, 3).await.expect("pruned") {
                        0 => break count,
                        some => count += some,
                    }
                }
            })
        })
        .collect();
    let mut count = 0;
    for pruner in pruners {
        count += pruner.await.expect("no panic");
    }
    assert_eq!(count, 40);
    let left = ExecutionFilter::new();
    let left = db.executions().list(left, PageRequest::first(9)).await;
    let left: Vec<_> = left.expect("a list").items.iter().map(|e| e.id).collect();
    assert_eq!(left, [open]);
}

async fn times_beyond_the_calendar(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    let id = queue(&db, flow).await;
    let (earliest, latest) = (DateTimeUtc::MIN_UTC, DateTimeUtc::MAX_UTC);
    let all = ExecutionFilter::new;
    for (times, count) in [
        (all().from(earliest).until(latest), 1),
        (all().until(earliest), 0),
        (all().from(latest), 0),
    ] {
        let list = executions.list(times.clone(), PageRequest::first(9)).await;
        assert_eq!(list.expect("a list").items.len(), count);
        let stats = executions.stats(times).await.expect("numbers");
        assert_eq!(stats.total, count as u64);
    }
    assert_eq!(claim(&db).await, Some(id));
    for until in [earliest, latest] {
        let wait = executions
            .wait(claim_of(&db, id, "w").await, Some(until), None)
            .await;
        assert_eq!(refused(wait), ["until"]);
    }
    let outcome = Outcome::success(None);
    executions
        .finish(claim_of(&db, id, "w").await, outcome)
        .await
        .expect("finished");
    assert_eq!(executions.prune(earliest, 9).await.expect("pruned"), 0);
    assert_eq!(executions.prune(latest, 9).await.expect("pruned"), 1);
    assert_error!(executions.get(id).await, Error::NotFound { .. });
}

/// Both databases keep microseconds; what is finer counts as the next.
async fn times_finer_than_stored(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    let id = queue(&db, flow).await;
    let found = async |filter: ExecutionFilter| {
        let list = executions.list(filter, PageRequest::first(9)).await;
        list.expect("a list").items.len()
    };
    let bit = TimeDelta::nanoseconds(1);
    assert_eq!(found(ExecutionFilter::new().from(db.now() + bit)).await, 0);
    assert_eq!(found(ExecutionFilter::new().until(db.now() + bit)).await, 1);
    let lease = Duration::from_nanos(1_999);
    let held = executions.claim("w", lease).await.expect("an answer");
    let micro = TimeDelta::microseconds(1);
    assert_eq!(
        held.and_then(|execution| execution.lease_until),
        Some(db.now() + micro)
    );
    let until = db.now() + micro + bit;
    let waiting = executions
        .wait(claim_of(&db, id, "w").await, Some(until), None)
        .await;
    assert_eq!(
        waiting.expect("waiting").wait_until,
        Some(db.now() + micro * 2)
    );
    clock.advance(Duration::from_micros(1));
    assert_eq!(claim(&db).await, None, "not early");
    clock.advance(Duration::from_micros(1));
    assert_eq!(claim(&db).await, Some(id));
}
