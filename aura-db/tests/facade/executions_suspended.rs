//! Executions of deleted workflows stand in no worker's way, and come back.

use aura_db::entity::executions;
use aura_db::sea_orm::EntityTrait;
use aura_db::users::OwnedRows;
use aura_db::{Database, ExecutionStatus, NewWorkflow, WorkflowId};
use testdb::TestDb;

use crate::executions::{LEASE, flow, queue};
use crate::support::{claim_of, open, open_at, user};

testdb::both!(migrated:
    a_deleted_workflow_leaves_the_queue, a_deleted_user_takes_them_along,
    in_a_transaction_it_is_undone_with_it, what_was_missed_is_found,
    deleted_and_restored_at_once, put_aside_and_restored_at_once,
);

/// The executions that are suspended.
async fn suspended(db: &Database) -> Vec<i64> {
    let all = db.fetch_all(executions::Entity::find()).await;
    let all = all.expect("executions").into_iter();
    let mut ids: Vec<_> = all
        .filter(|row| row.is_suspended)
        .map(|row| row.id.0)
        .collect();
    ids.sort_unstable();
    ids
}

/// Takes all there are, oldest first.
async fn claimed(db: &Database) -> Vec<i64> {
    let claimed = db.executions().claim_many("w", LEASE, 100).await;
    let claimed = claimed.expect("an answer").into_iter();
    claimed.map(|execution| execution.id.0).collect()
}

async fn a_deleted_workflow_leaves_the_queue(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (old, other) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let executions = db.executions();
    // One of each status, and one that waits for a time that comes.
    let done = queue(&db, old).await.id;
    let held = executions.claim("w", LEASE).await.expect("an answer");
    assert_eq!(held.map(|held| held.id), Some(done));
    executions.cancel(done).await.expect("canceled");
    let waits = queue(&db, old).await.id;
    executions.claim("w", LEASE).await.expect("an answer");
    let until = Some(db.now() + LEASE);
    executions
        .wait(claim_of(&db, waits, "w").await, until, None)
        .await
        .expect("it waits");
    let runs = queue(&db, old).await.id;
    executions.claim("w", LEASE).await.expect("an answer");
    let queued = queue(&db, old).await.id;
    let theirs = queue(&db, other).await.id;

    db.workflows().delete(old).await.expect("deleted");
    assert_eq!(suspended(&db).await, [waits.0, runs.0, queued.0]);
    clock.advance(LEASE * 2);
    assert_eq!(claimed(&db).await, [theirs.0]);
    // Given up by its worker, it is queued, and stays out of the way.
    let back = executions.get(runs).await.expect("there");
    assert_eq!(back.status, ExecutionStatus::Queued);
    assert_eq!(claimed(&db).await, [0; 0]);

    db.workflows().restore(old).await.expect("restored");
    assert_eq!(suspended(&db).await, [0; 0]);
    clock.advance(LEASE / 2);
    assert_eq!(claimed(&db).await, [waits.0, runs.0, queued.0]);
    let done = executions.get(done).await.expect("there");
    assert_eq!(done.status, ExecutionStatus::Canceled);
    db.close().await;
}

async fn a_deleted_user_takes_them_along(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let mut queued = Vec::new();
    for name in ["one", "two"] {
        let new = NewWorkflow::new(name).owner(ada);
        let flow = db.workflows().create(new).await.expect("created").id;
        queued.push(queue(&db, flow).await.id.0);
    }
    db.users()
        .delete(ada, OwnedRows::Delete)
        .await
        .expect("deleted");
    assert_eq!(suspended(&db).await, queued);
    assert_eq!(claimed(&db).await, [0; 0]);
    db.users().restore(ada).await.expect("restored");
    assert_eq!(suspended(&db).await, [0; 0]);
    assert_eq!(claimed(&db).await, queued);
    db.close().await;
}

async fn in_a_transaction_it_is_undone_with_it(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let queued = queue(&db, flow).await.id.0;
    let tx = db.begin().await.expect("begun");
    tx.workflows().delete(flow).await.expect("deleted");
    let marked = tx.fetch_all(executions::Entity::find()).await;
    assert!(marked.expect("rows")[0].is_suspended);
    tx.rollback().await.expect("rolled back");
    assert_eq!(suspended(&db).await, [0; 0]);

    let tx = db.begin().await.expect("begun");
    tx.workflows().delete(flow).await.expect("deleted");
    tx.workflows().restore(flow).await.expect("restored");
    tx.commit().await.expect("committed");
    assert_eq!(suspended(&db).await, [0; 0]);
    assert_eq!(claimed(&db).await, [queued]);
    db.close().await;
}

/// With SQL, or by a process that ended in the middle.
async fn what_was_missed_is_found(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let queued = queue(&db, flow).await.id.0;
    let set = |deleted_at: &'static str| {
        let test = &test;
        async move {
            let sql = format!("UPDATE workflows SET deleted_at = {deleted_at}");
            test.execute(&sql).await;
        }
    };
    set("created_at").await;
    assert_eq!(suspended(&db).await, [0; 0]);
    assert_eq!(claimed(&db).await, [0; 0], "it is put aside");
    assert_eq!(suspended(&db).await, [queued]);

    set("NULL").await;
    assert_eq!(claimed(&db).await, [0; 0], "until it is looked for");
    db.executions().requeue_expired(1).await.expect("an answer");
    assert_eq!(suspended(&db).await, [0; 0]);
    assert_eq!(claimed(&db).await, [queued]);
    db.close().await;
}

/// The last one decides: what is suspended has a deleted workflow.
async fn deleted_and_restored_at_once(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..30 {
        queue(&db, flow).await;
    }
    let change = |restores: bool| {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..15 {
                changed(&db, flow, restores).await;
            }
        })
    };
    for task in [change(true), change(false), change(true), change(false)] {
        task.await.expect("no panic");
    }
    let is_deleted = db
        .workflows()
        .find(flow)
        .await
        .expect("an answer")
        .is_none();
    if !is_deleted {
        assert_eq!(suspended(&db).await, [0; 0]);
    }
    db.workflows().restore(flow).await.expect("restored");
    assert_eq!(suspended(&db).await, [0; 0]);
    assert_eq!(claimed(&db).await.len(), 30);
    db.close().await;
}

async fn changed(db: &Database, flow: WorkflowId, restores: bool) {
    if restores {
        db.workflows().restore(flow).await.expect("restored");
    } else {
        // Another may have done so.
        let _ = db.workflows().delete(flow).await;
    }
}

/// What a worker puts aside in a transaction that is still open is restored all the same.
async fn put_aside_and_restored_at_once(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let queued = queue(&db, flow).await.id.0;
    test.execute("UPDATE workflows SET deleted_at = created_at")
        .await;
    let tx = db.begin().await.expect("begun");
    let none = tx.executions().claim("w", LEASE).await;
    assert_eq!(none.expect("an answer"), None);
    let restored = tokio::spawn({
        let db = db.clone();
        async move { db.workflows().restore(flow).await }
    });
    // It has come as far as it can, whether it waits or not.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    tx.commit().await.expect("committed");
    restored.await.expect("no panic").expect("restored");
    assert_eq!(suspended(&db).await, [0; 0]);
    assert_eq!(claimed(&db).await, [queued]);
    db.close().await;
}
