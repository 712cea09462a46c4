use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::entity::{executions, logs};
use aura_db::sea_orm::ActiveModelTrait;
use aura_db::sea_orm::ActiveValue::Set;
use aura_db::{
    Database, Document, Error, Execution, ExecutionFilter, ExecutionMode, ExecutionStatus,
    LogLevel, NewExecution, NewWorkflow, Outcome, Page, WorkflowChange, WorkflowId,
};
use serde_json::json;
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    queued_at_the_present_version, taken_oldest_first, each_goes_to_one_worker,
    a_lease_is_extended_by_its_holder, finished_by_its_holder_only, a_late_holder_is_refused,
    waiting_ends_by_time_or_by_event, canceled_ones_are_lost_to_their_worker,
    cancel_and_finish_meet, recovered_once, lists_and_filters, with_its_logs, old_ones_are_pruned,
    deleted_workflows_do_not_run, bad_input,
);

const LEASE: Duration = Duration::from_mins(1);

pub(crate) async fn flow(db: &Database, name: &str) -> WorkflowId {
    let owner = user(db, name).await;
    let new = NewWorkflow::new(name).owner(owner.id);
    db.workflows().create(new).await.expect("created").id
}

async fn queue(db: &Database, flow: WorkflowId) -> Execution {
    let new = NewExecution::new(flow, ExecutionMode::Manual);
    db.executions().enqueue(new).await.expect("queued")
}

async fn queued_at_the_present_version(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let change = WorkflowChange::new().name("next");
    db.workflows()
        .update(flow, 1, change)
        .await
        .expect("changed");
    let new = NewExecution::new(flow, ExecutionMode::Webhook).data(json!({"b": 1, "a": [2]}));
    let execution = db.executions().enqueue(new).await.expect("queued");
    assert_eq!(
        (execution.workflow_id, execution.workflow_version),
        (flow, 2)
    );
    assert_eq!(execution.mode, ExecutionMode::Webhook);
    assert_eq!(execution.status, ExecutionStatus::Queued);
    assert_eq!(execution.created_at, db.now());
    assert_eq!(execution.data, Some(Document(json!({"b": 1, "a": [2]}))));
    assert_eq!((&execution.worker_id, execution.started_at), (&None, None));
    assert_eq!(
        db.executions().get(execution.id).await.expect("there"),
        execution
    );
    assert_error!(
        db.executions().get(4711.into()).await,
        Error::NotFound { .. }
    );
    assert_eq!(
        db.executions().find(4711.into()).await.expect("an answer"),
        None
    );
    let nowhere = NewExecution::new(4711.into(), ExecutionMode::Manual);
    assert_error!(
        db.executions().enqueue(nowhere).await,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
}

async fn taken_oldest_first(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    assert_eq!(
        db.executions().claim("w", LEASE).await.expect("an answer"),
        None
    );
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(queue(&db, flow).await.id);
    }
    clock.advance(Duration::from_secs(5));
    let first = db
        .executions()
        .claim("w", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    assert_eq!(first.id, ids[0]);
    assert_eq!(first.status, ExecutionStatus::Running);
    assert_eq!(first.worker_id.as_deref(), Some("w"));
    assert_eq!(first.lease_until, Some(db.now() + LEASE));
    assert_eq!(first.started_at, Some(db.now()));
    let more = db
        .executions()
        .claim_many("w", LEASE, 2)
        .await
        .expect("an answer");
    assert_eq!(more.iter().map(|e| e.id).collect::<Vec<_>>(), ids[1..3]);
    let none = db.executions().claim_many("w", LEASE, 0).await;
    assert!(none.expect("an answer").is_empty());
    assert_eq!(
        db.executions()
            .claim_many("w", LEASE, 99)
            .await
            .expect("an answer")
            .len(),
        1
    );
}

async fn each_goes_to_one_worker(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..100 {
        queue(&db, flow).await;
    }
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let executions = db.executions();
            tokio::spawn(async move {
                let worker = format!("worker {worker}");
                let mut done = Vec::new();
                loop {
                    let some = executions
                        .claim_many(&worker, LEASE, 3)
                        .await
                        .expect("an answer");
                    if some.is_empty() {
                        break done;
                    }
                    for execution in some {
                        assert_eq!(execution.worker_id.as_ref(), Some(&worker));
                        let outcome = Outcome::success(Some(json!(worker)));
                        executions
                            .finish(execution.id, &worker, outcome)
                            .await
                            .expect("held");
                        done.push(execution.id);
                    }
                }
            })
        })
        .collect();
    let mut done = Vec::new();
    for worker in workers {
        done.extend(worker.await.expect("no panic"));
    }
    assert_eq!(done.len(), 100, "none twice");
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>().len(), 100);
}

async fn a_lease_is_extended_by_its_holder(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow).await.id;
    let executions = db.executions();
    assert_error!(
        executions.extend(id, "w", LEASE).await,
        Error::LeaseLost { .. }
    );
    executions
        .claim("w", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    clock.advance(Duration::from_secs(59));
    let extended = executions.extend(id, "w", LEASE).await.expect("extended");
    assert_eq!(extended.lease_until, Some(db.now() + LEASE));
    assert_error!(
        executions.extend(id, "other", LEASE).await,
        Error::LeaseLost { .. }
    );
    clock.advance(LEASE);
    assert_error!(
        executions.extend(id, "w", LEASE).await,
        Error::LeaseLost { worker, .. } if worker == "w"
    );
    assert_error!(
        executions.extend(4711.into(), "w", LEASE).await,
        Error::NotFound { .. }
    );
}

async fn finished_by_its_holder_only(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let (one, two) = (queue(&db, flow).await.id, queue(&db, flow).await.id);
    let executions = db.executions();
    executions
        .claim_many("w", LEASE, 2)
        .await
        .expect("an answer");
    let result = Outcome::success(Some(json!({"sum": 3})));
    assert_error!(
        executions.finish(one, "x", result.clone()).await,
        Error::LeaseLost { .. }
    );
    clock.advance(Duration::from_secs(90));
    // Late, and nobody else took it.
    let done = executions
        .finish(one, "w", result.clone())
        .await
        .expect("finished");
    assert_eq!(done.status, ExecutionStatus::Success);
    assert_eq!(done.finished_at, Some(db.now()));
    assert_eq!(
        (done.lease_until, done.worker_id.as_deref()),
        (None, Some("w"))
    );
    assert_eq!(
        (done.data, done.error),
        (Some(Document(json!({"sum": 3}))), None)
    );
    assert_error!(
        executions.finish(one, "w", result).await,
        Error::LeaseLost { .. }
    );
    let failed = Outcome::error(json!({"message": "no"})).data(json!([1]));
    let done = executions
        .finish(two, "w", failed.clone())
        .await
        .expect("finished");
    assert_eq!(done.status, ExecutionStatus::Error);
    assert_eq!(done.error, Some(Document(json!({"message": "no"}))));
    assert_eq!(done.data, Some(Document(json!([1]))));
    assert_error!(
        executions.finish(4711.into(), "w", failed).await,
        Error::NotFound { .. }
    );
}

async fn a_late_holder_is_refused(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow).await.id;
    let executions = db.executions();
    let first = executions
        .claim("old", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    clock.advance(LEASE);
    let back = executions.recover(10).await.expect("an answer");
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].id, back[0].status), (id, ExecutionStatus::Queued));
    assert_eq!((&back[0].worker_id, back[0].lease_until), (&None, None));
    let second = executions
        .claim("new", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    assert_eq!(
        second.started_at, first.started_at,
        "the first start counts"
    );
    let late = Outcome::success(Some(json!("late")));
    assert_error!(
        executions.finish(id, "old", late).await,
        Error::LeaseLost { .. }
    );
    assert_error!(
        executions.wait(id, "old", None, None).await,
        Error::LeaseLost { .. }
    );
    let right = Outcome::success(Some(json!("right")));
    let done = executions.finish(id, "new", right).await.expect("finished");
    assert_eq!(done.data, Some(Document(json!("right"))));
}

async fn waiting_ends_by_time_or_by_event(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let (timed, event) = (queue(&db, flow).await.id, queue(&db, flow).await.id);
    let executions = db.executions();
    executions
        .claim_many("w", LEASE, 2)
        .await
        .expect("an answer");
    let until = db.now() + Duration::from_secs(100);
    let waiting = executions
        .wait(timed, "w", Some(until), Some(json!({"step": 2})))
        .await;
    let waiting = waiting.expect("waiting");
    assert_eq!(waiting.status, ExecutionStatus::Waiting);
    assert_eq!(
        (waiting.wait_until, &waiting.worker_id),
        (Some(until), &None)
    );
    assert_eq!(waiting.data, Some(Document(json!({"step": 2}))));
    executions
        .wait(event, "w", None, None)
        .await
        .expect("waiting");
    clock.advance(Duration::from_secs(99));
    assert_eq!(executions.claim("w", LEASE).await.expect("an answer"), None);
    clock.advance(Duration::from_secs(1));
    let again = executions
        .claim("w", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    assert_eq!((again.id, again.wait_until), (timed, None));
    assert_eq!(executions.claim("w", LEASE).await.expect("an answer"), None);
    let resumed = executions.resume(event).await.expect("resumed");
    assert_eq!(resumed.status, ExecutionStatus::Queued);
    assert_eq!(
        executions
            .claim("w", LEASE)
            .await
            .expect("an answer")
            .expect("one")
            .id,
        event
    );
    assert_error!(
        executions.resume(event).await,
        Error::State {
            what: "execution",
            state: "is not waiting",
            ..
        }
    );
    assert_error!(executions.resume(4711.into()).await, Error::NotFound { .. });
}

async fn canceled_ones_are_lost_to_their_worker(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let ids = [
        queue(&db, flow).await.id,
        queue(&db, flow).await.id,
        queue(&db, flow).await.id,
    ];
    let executions = db.executions();
    executions
        .claim_many("w", LEASE, 2)
        .await
        .expect("an answer");
    executions
        .wait(ids[1], "w", None, None)
        .await
        .expect("waiting");
    for id in ids {
        let canceled = executions.cancel(id).await.expect("canceled");
        assert_eq!(canceled.status, ExecutionStatus::Canceled);
        assert_eq!(
            (canceled.finished_at, canceled.lease_until),
            (Some(db.now()), None)
        );
        assert_error!(
            executions.cancel(id).await,
            Error::State {
                state: "has ended",
                ..
            }
        );
    }
    let lost = executions.extend(ids[0], "w", LEASE).await;
    assert_error!(lost, Error::LeaseLost { .. });
    let lost = executions.finish(ids[0], "w", Outcome::success(None)).await;
    assert_error!(lost, Error::LeaseLost { .. });
    assert_eq!(executions.claim("w", LEASE).await.expect("an answer"), None);
    assert_error!(executions.cancel(4711.into()).await, Error::NotFound { .. });
}

async fn cancel_and_finish_meet(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..20 {
        let id = queue(&db, flow).await.id;
        let executions = db.executions();
        executions
            .claim("w", LEASE)
            .await
            .expect("an answer")
            .expect("one");
        let (finished, canceled) = tokio::join!(
            executions.finish(id, "w", Outcome::success(None)),
            executions.cancel(id)
        );
        let now = executions.get(id).await.expect("there").status;
        match (finished, canceled) {
            (Ok(_), Err(Error::State { .. })) => assert_eq!(now, ExecutionStatus::Success),
            (Err(Error::LeaseLost { .. }), Ok(_)) => assert_eq!(now, ExecutionStatus::Canceled),
            other => panic!("{other:?}"),
        }
    }
}

async fn recovered_once(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..40 {
        queue(&db, flow).await;
    }
    let executions = db.executions();
    executions
        .claim_many("short", LEASE, 30)
        .await
        .expect("an answer");
    executions
        .claim_many("long", LEASE * 9, 10)
        .await
        .expect("an answer");
    assert!(executions.recover(99).await.expect("an answer").is_empty());
    clock.advance(LEASE);
    let schedulers: Vec<_> = (0..6)
        .map(|_| {
            let executions = executions.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let some = executions.recover(4).await.expect("an answer");
                    if some.is_empty() {
                        break mine;
                    }
                    mine.extend(some.into_iter().map(|execution| execution.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for scheduler in schedulers {
        all.extend(scheduler.await.expect("no panic"));
    }
    assert_eq!(all.len(), 30);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 30);
}

async fn lists_and_filters(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let (one, two) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let executions = db.executions();
    let start = db.now();
    let mut ids = Vec::new();
    for (flow, mode) in [
        (one, ExecutionMode::Manual),
        (two, ExecutionMode::Cron),
        (one, ExecutionMode::Cron),
        (one, ExecutionMode::Trigger),
    ] {
        let new = NewExecution::new(flow, mode).data(json!("hidden"));
        ids.push(executions.enqueue(new).await.expect("queued").id);
        clock.advance(Duration::from_millis(500));
    }
    executions.claim("w", LEASE).await.expect("an answer");
    let found = async |filter: ExecutionFilter| {
        let list = executions
            .list(filter.clone(), Page::first(10))
            .await
            .expect("a list");
        let full = executions
            .list_full(filter, Page::first(10))
            .await
            .expect("a list");
        let list: Vec<_> = list.items.iter().map(|execution| execution.id).collect();
        assert!(full.items.iter().map(|execution| &execution.id).eq(&list));
        list.iter()
            .map(|id| ids.iter().position(|known| known == id))
            .collect::<Option<Vec<_>>>()
    };
    let all = ExecutionFilter::new;
    assert_eq!(found(all()).await, Some(vec![3, 2, 1, 0]));
    assert_eq!(found(all().oldest_first()).await, Some(vec![0, 1, 2, 3]));
    assert_eq!(
        found(ExecutionFilter::workflow(one)).await,
        Some(vec![3, 2, 0])
    );
    assert_eq!(
        found(all().mode(ExecutionMode::Cron)).await,
        Some(vec![2, 1])
    );
    let running = all().status(ExecutionStatus::Running);
    assert_eq!(found(running.clone()).await, Some(vec![0]));
    assert_eq!(
        found(running.status(ExecutionStatus::Queued))
            .await
            .map(|l| l.len()),
        Some(4)
    );
    assert_eq!(found(all().worker("w")).await, Some(vec![0]));
    let second = start + Duration::from_millis(500);
    assert_eq!(found(all().from(second)).await, Some(vec![3, 2, 1]));
    assert_eq!(found(all().until(second)).await, Some(vec![0]));
    assert_eq!(
        refused(executions.list(all().worker("\0"), Page::first(1)).await),
        ["worker"]
    );
    let list = executions
        .list(all(), Page::number(2, 3))
        .await
        .expect("a list");
    assert_eq!((list.total, list.items.len()), (Some(4), 1));
    let json = serde_json::to_string(&list).expect("JSON");
    assert!(!json.contains("hidden"));
}

async fn with_its_logs(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let (mine, other) = (queue(&db, flow).await, queue(&db, flow).await);
    for number in 0..5 {
        for execution in [mine.id, other.id] {
            logs::ActiveModel {
                level: Set(LogLevel::Info),
                message: Set(format!("{number}")),
                workflow_id: Set(flow),
                execution_id: Set(Some(execution)),
                created_at: Set(db.now()),
                ..Default::default()
            }
            .insert(db.writer())
            .await
            .expect("a log entry");
        }
    }
    let (execution, logs) = db
        .executions()
        .get_with_logs(mine.id, 3)
        .await
        .expect("there");
    assert_eq!(execution, mine);
    let messages: Vec<_> = logs.iter().map(|log| log.message.as_str()).collect();
    assert_eq!(messages, ["4", "3", "2"]);
    let (_, none) = db
        .executions()
        .get_with_logs(mine.id, 0)
        .await
        .expect("there");
    assert!(none.is_empty());
    assert_eq!(
        refused(db.executions().get_with_logs(mine.id, 1001).await),
        ["entries"]
    );
    assert_error!(
        db.executions().get_with_logs(4711.into(), 1).await,
        Error::NotFound { .. }
    );
}

async fn old_ones_are_pruned(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = queue(&db, flow).await.id;
        executions.claim("w", LEASE).await.expect("an answer");
        executions
            .finish(id, "w", Outcome::success(None))
            .await
            .expect("finished");
        ids.push(id);
        clock.advance(Duration::from_secs(10));
    }
    queue(&db, flow).await;
    executions.claim("w", LEASE).await.expect("an answer");
    let old = db.now() - Duration::from_secs(20);
    assert_eq!(executions.prune(old, 2).await.expect("pruned"), 2);
    assert_eq!(executions.prune(old, 99).await.expect("pruned"), 1);
    assert_eq!(executions.prune(old, u64::MAX).await.expect("pruned"), 0);
    let left = executions
        .list(ExecutionFilter::new().oldest_first(), Page::first(10))
        .await;
    let left = left.expect("a list").items;
    assert_eq!((left.len(), left[0].id), (3, ids[3]));
    let rows = db
        .fetch_all(<executions::Entity as aura_db::sea_orm::EntityTrait>::find())
        .await;
    assert_eq!(rows.expect("rows").len(), 3);
}

async fn deleted_workflows_do_not_run(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow).await.id;
    db.workflows().delete(flow).await.expect("deleted");
    let executions = db.executions();
    assert_eq!(executions.claim("w", LEASE).await.expect("an answer"), None);
    let new = NewExecution::new(flow, ExecutionMode::Manual);
    assert_error!(
        executions.enqueue(new).await,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
    assert_eq!(executions.get(id).await.expect("still readable").id, id);
    db.workflows().restore(flow).await.expect("restored");
    assert_eq!(
        executions
            .claim("w", LEASE)
            .await
            .expect("an answer")
            .expect("one")
            .id,
        id
    );
}

async fn bad_input(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow).await.id;
    let executions = db.executions();
    let year = Duration::from_hours(367 * 24);
    for lease in [
        Duration::ZERO,
        Duration::from_nanos(999),
        year,
        Duration::MAX,
    ] {
        assert_eq!(refused(executions.claim("w", lease).await), ["lease"]);
        assert_eq!(refused(executions.extend(id, "w", lease).await), ["lease"]);
    }
    for worker in ["", "  ", &"w".repeat(65), "\0"] {
        assert_eq!(
            refused(executions.claim_many(worker, LEASE, 1).await),
            ["worker"]
        );
        let outcome = Outcome::error(json!({"\0": 1})).data(json!("\0"));
        assert_eq!(
            refused(executions.finish(id, worker, outcome).await),
            ["data", "error", "worker"]
        );
        assert_eq!(
            refused(executions.wait(id, worker, None, None).await),
            ["worker"]
        );
    }
    let new = NewExecution::new(flow, ExecutionMode::Manual).data(json!("\0"));
    assert_eq!(refused(executions.enqueue(new).await), ["data"]);
    let worker = "é".repeat(64);
    let taken = executions
        .claim(&worker, LEASE)
        .await
        .expect("64 characters")
        .expect("one");
    assert_eq!(taken.worker_id, Some(worker));
}
