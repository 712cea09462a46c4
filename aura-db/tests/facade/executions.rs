use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::entity::{executions, logs};
use aura_db::sea_orm::ActiveModelTrait;
use aura_db::sea_orm::ActiveValue::Set;
use aura_db::{
    Database, Document, Error, Execution, ExecutionFilter, ExecutionMode, ExecutionStatus,
    LogLevel, NewExecution, NewWorkflow, Outcome, PageRequest, WorkflowChange, WorkflowId,
};
use serde_json::json;
use testdb::TestDb;

use crate::support::{assert_error, claim_of, open, open_at, refused, user};

testdb::both!(migrated:
    queued_at_the_present_version, taken_oldest_first, each_goes_to_one_worker,
    lists_and_filters, with_its_logs, old_ones_are_pruned, deleted_workflows_do_not_run,
    bad_input,
);

pub(crate) const LEASE: Duration = Duration::from_mins(1);

pub(crate) async fn flow(db: &Database, name: &str) -> WorkflowId {
    let owner = user(db, name).await;
    let new = NewWorkflow::new(name).owner(owner.id);
    db.workflows().create(new).await.expect("created").id
}

pub(crate) async fn queue(db: &Database, flow: WorkflowId) -> Execution {
    let new = NewExecution::new(flow, ExecutionMode::Manual).max_attempts(3);
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
    assert_eq!(
        execution.data,
        Some(Document::from(json!({"b": 1, "a": [2]})))
    );
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
                        let outcome = Outcome::success(Some(json!(worker).into()));
                        executions.finish(&execution, outcome).await.expect("held");
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
            .list(filter.clone(), PageRequest::first(10))
            .await
            .expect("a list");
        let full = executions
            .list_full(filter, PageRequest::first(10))
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
        found(all().statuses([ExecutionStatus::Running, ExecutionStatus::Queued]))
            .await
            .map(|l| l.len()),
        Some(4)
    );
    assert_eq!(found(all().worker("w")).await, Some(vec![0]));
    let second = start + Duration::from_millis(500);
    assert_eq!(found(all().from(second)).await, Some(vec![3, 2, 1]));
    assert_eq!(found(all().until(second)).await, Some(vec![0]));
    assert_eq!(
        refused(
            executions
                .list(all().worker("\0"), PageRequest::first(1))
                .await
        ),
        ["worker"]
    );
    let list = executions
        .list(all(), PageRequest::number(2, 3))
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
            .insert(&*db.seaorm().writer().await.expect("open"))
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
            .finish(claim_of(&db, id, "w").await, Outcome::success(None))
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
        .list(
            ExecutionFilter::new().oldest_first(),
            PageRequest::first(10),
        )
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
        assert_eq!(
            refused(executions.extend(claim_of(&db, id, "w").await, lease).await),
            ["lease"]
        );
    }
    for worker in ["", "  ", &"w".repeat(65), "\0"] {
        assert_eq!(
            refused(executions.claim_many(worker, LEASE, 1).await),
            ["worker"]
        );
        let outcome = Outcome::success(None);
        assert_eq!(
            refused(
                executions
                    .finish(claim_of(&db, id, worker).await, outcome)
                    .await
            ),
            ["worker"]
        );
        assert_eq!(
            refused(
                executions
                    .wait(claim_of(&db, id, worker).await, None, None)
                    .await
            ),
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
