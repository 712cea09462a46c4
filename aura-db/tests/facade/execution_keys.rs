//! Executions that are queued once, however often they are asked for.

use std::time::Duration;

use aura_db::executions::Enqueued;
use aura_db::{
    Database, Error, ExecutionFilter, ExecutionMode, NewExecution, Outcome, Role, WorkflowId,
};
use serde_json::json;
use testdb::TestDb;

use crate::executions::{LEASE, flow};
use crate::support::{assert_error, open, open_at, refused};

testdb::both!(migrated:
    one_is_queued_for_a_key, other_input_is_a_conflict, a_key_is_free_after_a_day,
    many_at_once_get_the_same, keys_are_refused, keys_of_others_are_hidden,
);

const DAY: Duration = Duration::from_hours(24);

fn new(flow: WorkflowId) -> NewExecution {
    NewExecution::new(flow, ExecutionMode::Webhook).data(json!({"order": 7}))
}

async fn ask(db: &Database, flow: WorkflowId, key: &str) -> Enqueued {
    let queued = db.executions().enqueue_once(new(flow), key).await;
    queued.expect("queued")
}

async fn total(db: &Database) -> u64 {
    let stats = db.executions().stats(ExecutionFilter::new()).await;
    stats.expect("numbers").total
}

async fn one_is_queued_for_a_key(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let (ours, theirs) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let first = ask(&db, ours, "a").await;
    assert!(first.is_new);
    let again = ask(&db, ours, "a").await;
    assert_eq!(
        (again.execution, again.is_new),
        (first.execution.clone(), false)
    );
    // As it is now, whatever became of it; and whatever its workflow became.
    let executions = db.executions();
    let taken = executions
        .claim("w", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    let result = Outcome::success(Some(json!("done").into()));
    let done = executions.finish(&taken, result).await.expect("held");
    assert_eq!(ask(&db, ours, "a").await.execution, done);
    db.workflows().delete(ours).await.expect("deleted");
    assert_eq!(ask(&db, ours, "a").await.execution, done);
    // Of another key, and of another workflow.
    assert!(ask(&db, theirs, "a").await.is_new);
    assert!(ask(&db, theirs, "b").await.is_new);
    assert_eq!(total(&db).await, 3);
}

async fn other_input_is_a_conflict(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    ask(&db, flow, "a").await;
    for other in [
        new(flow).data(json!({"order": 8})),
        NewExecution::new(flow, ExecutionMode::Webhook),
        NewExecution::new(flow, ExecutionMode::Manual).data(json!({"order": 7})),
    ] {
        let refused = db.executions().enqueue_once(other, "a").await;
        assert_error!(
            refused,
            Error::Conflict { table, columns, deleted: false }
                if table == "executions" && columns == ["idempotency_key", "workflow_id"]
        );
    }
    assert_eq!(total(&db).await, 1);
}

async fn a_key_is_free_after_a_day(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    let first = ask(&db, flow, "a").await.execution;
    clock.advance(DAY * 9);
    assert!(!ask(&db, flow, "a").await.is_new, "it hasn't ended");
    let taken = executions
        .claim("w", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    executions
        .finish(&taken, Outcome::success(None))
        .await
        .expect("held");
    clock.advance(Duration::from_secs(24 * 3_600 - 1));
    assert_eq!(
        executions.prune(db.now(), 9).await.expect("pruned"),
        0,
        "it answers still"
    );
    assert!(!ask(&db, flow, "a").await.is_new);
    clock.advance(Duration::from_secs(1));
    let next = ask(&db, flow, "a").await;
    assert!(next.is_new && next.execution.id != first.id);
    let before = executions.get(first.id).await.expect("there");
    assert_eq!((before.idempotency_key, before.input_hash), (None, None));
    assert_eq!(executions.prune(db.now(), 9).await.expect("pruned"), 1);
}

async fn many_at_once_get_the_same(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    for key in ["a", "b", "c"] {
        let asking: Vec<_> = (0..12)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move { ask(&db, flow, key).await })
            })
            .collect();
        let mut made = Vec::new();
        let mut ids = Vec::new();
        for asked in asking {
            let queued = asked.await.expect("no panic");
            made.extend(queued.is_new.then_some(queued.execution.id));
            ids.push(queued.execution.id);
        }
        assert_eq!(made.len(), 1, "{made:?}");
        assert!(ids.iter().all(|id| *id == made[0]), "{ids:?}");
    }
    assert_eq!(total(&db).await, 3);
}

async fn keys_are_refused(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    for key in ["", " ", &"k".repeat(201), "a\0"] {
        assert_eq!(
            refused(db.executions().enqueue_once(new(flow), key).await),
            ["key"]
        );
    }
    assert!(ask(&db, flow, &"é".repeat(200)).await.is_new);
    let gone = db.executions().enqueue_once(new(4711.into()), "a").await;
    assert_error!(
        gone,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
    db.workflows().delete(flow).await.expect("deleted");
    let gone = db.executions().enqueue_once(new(flow), "a").await;
    assert_error!(
        gone,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
}

async fn keys_of_others_are_hidden(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    ask(&db, flow, "a").await;
    let bob = crate::support::user(&db, "bob").await;
    db.users()
        .set_role(bob.id, Role::Editor)
        .await
        .expect("set");
    let bob = db.users().get(bob.id).await.expect("there");
    let refused = db
        .restricted_to(&bob)
        .executions()
        .enqueue_once(new(flow), "a")
        .await;
    assert_error!(
        refused,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
}
