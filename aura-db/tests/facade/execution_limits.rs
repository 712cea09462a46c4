//! How many executions of a workflow or an owner run at once.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::{
    Database, Error, Execution, ExecutionId, ExecutionMode, ExecutionStatus, Isolation, LimitOf,
    NewExecution, NewWorkflow, Outcome, UserId, WorkflowId,
};
use futures_util::future::join_all;
use testdb::TestDb;

use crate::executions::LEASE;
use crate::support::{assert_error, open, user};

testdb::both!(migrated:
    a_workflow_runs_as_many_as_it_may, the_workflows_of_an_owner_share_a_limit, both_limits_hold, claims_at_once_keep_to_a_limit, claims_of_other_keys_are_not_kept, batches_keep_to_a_limit, the_most_urgent_goes_first, none_begins_under_a_limit_of_none, transactions_keep_to_a_limit, limits_are_of_what_is_there, a_user_sets_none, a_transaction_keeps_no_others_limit,
);

pub(crate) async fn flow_of(db: &Database, owner: UserId) -> WorkflowId {
    let new = NewWorkflow::new("flow").owner(owner);
    db.workflows().create(new).await.expect("created").id
}

pub(crate) async fn queue(db: &Database, flow: WorkflowId) -> ExecutionId {
    let new = NewExecution::new(flow, ExecutionMode::Trigger);
    db.executions().enqueue(new).await.expect("queued").id
}

pub(crate) async fn queue_many(db: &Database, flow: WorkflowId, count: usize) -> Vec<ExecutionId> {
    let mut queued = Vec::new();
    for _ in 0..count {
        queued.push(queue(db, flow).await);
    }
    queued
}

pub(crate) async fn claim(db: &Database) -> Option<Execution> {
    let taken = db.executions().claim("w", LEASE).await;
    taken.expect("an answer")
}

pub(crate) async fn claim_id(db: &Database) -> Option<ExecutionId> {
    claim(db).await.map(|taken| taken.id)
}

pub(crate) async fn limit(
    db: &Database,
    of: impl Into<LimitOf> + Send,
    most: impl Into<Option<u32>> + Send,
) {
    let set = db.executions().set_concurrency_limit(of, most).await;
    set.expect("set");
}

pub(crate) async fn finish(db: &Database, execution: &Execution) {
    let outcome = Outcome::success(None);
    let ended = db.executions().finish(execution, outcome).await;
    ended.expect("its holder");
}

async fn running(test: &TestDb, condition: &str) -> usize {
    let sql = format!(
        "SELECT CAST(id AS text) AS line FROM executions WHERE status = 'running' AND {condition}"
    );
    test.lines(&sql).await.len()
}

/// What has no room delays none.
async fn a_workflow_runs_as_many_as_it_may(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (flow, other) = (flow_of(&db, ada).await, flow_of(&db, ada).await);
    limit(&db, flow, 2).await;
    let known = db.executions().concurrency_limit(flow).await;
    assert_eq!(known.expect("an answer"), Some(2));
    let known = db.executions().concurrency_limit(ada).await;
    assert_eq!(known.expect("an answer"), None);

    let limited = queue_many(&db, flow, 5).await;
    let free = queue_many(&db, other, 2).await;
    let first = claim(&db).await.expect("there is room");
    for expected in [limited[1], free[0], free[1]] {
        assert_eq!(claim_id(&db).await, Some(expected));
    }
    assert_eq!(claim_id(&db).await, None);
    let parked = db.executions().get(limited[2]).await.expect("there");
    assert_eq!(parked.status, ExecutionStatus::Queued);
    assert!(parked.limit_id.is_some() && !parked.is_suspended);
    finish(&db, &first).await;
    let next = claim(&db).await.expect("there is room again");
    assert_eq!((next.id, next.limit_id), (limited[2], None));
    assert_eq!(claim_id(&db).await, None);
    db.close().await;
}

async fn the_workflows_of_an_owner_share_a_limit(test: TestDb) {
    let db = open(&test).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let flows = [flow_of(&db, ada).await, flow_of(&db, ada).await];
    limit(&db, ada, 1).await;
    let hers = [queue(&db, flows[0]).await, queue(&db, flows[1]).await];
    let his = queue_many(&db, flow_of(&db, bob).await, 2).await;
    let first = claim(&db).await.expect("there is room");
    assert_eq!(first.id, hers[0]);
    for expected in [Some(his[0]), Some(his[1]), None] {
        assert_eq!(claim_id(&db).await, expected);
    }
    finish(&db, &first).await;
    assert_eq!(claim_id(&db).await, Some(hers[1]));
    db.close().await;
}

async fn both_limits_hold(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (one, other) = (flow_of(&db, ada).await, flow_of(&db, ada).await);
    limit(&db, ada, 2).await;
    limit(&db, one, 1).await;
    let of_one = queue_many(&db, one, 3).await;
    let of_other = queue_many(&db, other, 3).await;
    let first = claim(&db).await.expect("there is room");
    let second = claim(&db).await.expect("there is room");
    assert_eq!((first.id, second.id), (of_one[0], of_other[0]));
    assert_eq!(claim_id(&db).await, None);
    finish(&db, &second).await;
    assert_eq!(claim_id(&db).await, Some(of_other[1]));
    finish(&db, &first).await;
    assert_eq!(claim_id(&db).await, Some(of_one[1]));
    assert_eq!(claim_id(&db).await, None);
    assert_eq!(running(&test, "TRUE").await, 2);
    db.close().await;
}

/// As of workers on many machines: what one has begun meanwhile counts for the next.
async fn claims_at_once_keep_to_a_limit(test: TestDb) {
    let databases = [open(&test).await, open(&test).await];
    let db = &databases[0];
    let ada = user(db, "ada").await.id;
    let flow = flow_of(db, ada).await;
    limit(db, ada, 3).await;
    for most in [1, 2, 5] {
        limit(db, flow, most).await;
        queue_many(db, flow, 20).await;
        let claims = (0..16).map(|nth| claim(&databases[nth % 2]));
        let taken = join_all(claims).await;
        let taken: Vec<_> = taken.into_iter().flatten().collect();
        // Of the three of the owner's, whatever the workflow may.
        assert_eq!(taken.len(), most.min(3) as usize, "{most}");
        assert_eq!(running(&test, "TRUE").await, taken.len());
        for execution in &taken {
            finish(db, execution).await;
        }
        while let Some(execution) = claim(db).await {
            finish(db, &execution).await;
        }
    }
    for db in databases {
        db.close().await;
    }
}

/// While a transaction holds the claim of a limited one.
async fn claims_of_other_keys_are_not_kept(test: TestDb) {
    let db = open(&test).await;
    if test.backend() == testdb::Backend::Sqlite {
        // A transaction there keeps all that write.
        return db.close().await;
    }
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let (hers, his) = (flow_of(&db, ada).await, flow_of(&db, bob).await);
    limit(&db, ada, 1).await;
    limit(&db, bob, 1).await;
    let of_hers = queue(&db, hers).await;
    let of_his = queue(&db, his).await;
    let tx = db.begin().await.expect("begun");
    let taken = tx.executions().claim("w", LEASE).await.expect("an answer");
    assert_eq!(taken.map(|taken| taken.id), Some(of_hers));
    assert_eq!(claim_id(&db).await, Some(of_his));
    tx.rollback().await.expect("rolled back");
    assert_eq!(claim_id(&db).await, Some(of_hers));
    db.close().await;
}

async fn batches_keep_to_a_limit(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (flow, other) = (flow_of(&db, ada).await, flow_of(&db, ada).await);
    limit(&db, flow, 3).await;
    let mut queued = Vec::new();
    for _ in 0..8 {
        queued.push(queue(&db, flow).await);
        queued.push(queue(&db, other).await);
    }
    let mut taken = BTreeSet::new();
    loop {
        let batch = db.executions().claim_many("w", LEASE, 4).await;
        let batch = batch.expect("an answer");
        if batch.is_empty() {
            break;
        }
        taken.extend(batch.iter().map(|taken| taken.id));
        let of_flow = format!("workflow_id = {flow}");
        assert!(running(&test, &of_flow).await <= 3);
    }
    // All of the other's, and the oldest of the limited.
    let free = queued.iter().skip(1).step_by(2);
    let limited = queued.iter().step_by(2).take(3);
    assert_eq!(taken, free.chain(limited).copied().collect());
    db.close().await;
}

async fn the_most_urgent_goes_first(test: TestDb) {
    let db = open(&test).await;
    let flow = flow_of(&db, user(&db, "ada").await.id).await;
    limit(&db, flow, 1).await;
    let first = queue(&db, flow).await;
    let mut running = claim(&db).await.expect("there is room");
    assert_eq!(running.id, first);
    let mut queued = Vec::new();
    for priority in [0, 5, -5, 5] {
        let new = NewExecution::new(flow, ExecutionMode::Trigger).priority(priority);
        queued.push(db.executions().enqueue(new).await.expect("queued").id);
        // Parked, one by one.
        assert_eq!(claim_id(&db).await, None);
    }
    for expected in [1, 3, 0, 2] {
        finish(&db, &running).await;
        running = claim(&db).await.expect("there is room");
        assert_eq!(running.id, queued[expected]);
    }
    db.close().await;
}

async fn none_begins_under_a_limit_of_none(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let flow = flow_of(&db, ada).await;
    let queued = queue_many(&db, flow, 2).await;
    let running = claim(&db).await.expect("taken");
    limit(&db, ada, 0).await;
    assert_eq!(claim_id(&db).await, None);
    finish(&db, &running).await;
    assert_eq!(claim_id(&db).await, None);
    limit(&db, ada, 1).await;
    assert_eq!(claim_id(&db).await, Some(queued[1]));
    db.close().await;
}

/// One that knows nothing of the limit, as of a version before.
/// Also where their statements see what was there when the first began.
async fn transactions_keep_to_a_limit(test: TestDb) {
    let db = &open(&test).await;
    let flow = flow_of(db, user(db, "ada").await.id).await;
    limit(db, flow, 2).await;
    queue_many(db, flow, 20).await;
    for isolation in [
        Isolation::ReadCommitted,
        Isolation::RepeatableRead,
        Isolation::Serializable,
    ] {
        let claims = (0..6).map(|_| {
            db.transaction_at(isolation, |tx| async move {
                tx.executions()
                    .list(<_>::default(), aura_db::PageRequest::first(1))
                    .await?;
                tx.executions().claim("w", LEASE).await
            })
        });
        let taken = join_all(claims).await;
        let taken = taken.into_iter().map(|taken| taken.expect("committed"));
        let taken: Vec<_> = taken.flatten().collect();
        assert_eq!(taken.len(), 2, "{isolation:?}");
        for execution in taken {
            finish(db, &execution).await;
        }
    }
    let tx = db.begin().await.expect("begun");
    let taken = tx.executions().claim("w", LEASE).await;
    assert!(taken.expect("an answer").is_some());
    tx.rollback().await.expect("rolled back");
    assert_eq!(running(&test, "TRUE").await, 0);
    assert!(claim(db).await.is_some() && claim(db).await.is_some());
    assert_eq!(claim_id(db).await, None);
    db.clone().close().await;
}

async fn limits_are_of_what_is_there(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let flow = flow_of(&db, ada).await;
    db.workflows().delete(flow).await.expect("deleted");
    for missing in [
        LimitOf::Workflow(flow),
        LimitOf::Workflow(WorkflowId(9_999)),
        LimitOf::Owner(UserId(9_999)),
    ] {
        let set = db.executions().set_concurrency_limit(missing, 1).await;
        assert_error!(set, Error::NotFound { .. });
        limit(&db, missing, None).await;
    }
    limit(&db, ada, u32::MAX).await;
    let known = db.executions().concurrency_limit(ada).await;
    assert_eq!(known.expect("an answer"), Some(u32::MAX));
    let refused = test
        .try_execute("UPDATE execution_limits SET max_running = -1")
        .await;
    assert!(refused.is_err());
    db.close().await;
}

/// More than one look puts aside.
/// Not even those of what it lets pass.
async fn a_transaction_keeps_no_others_limit(test: TestDb) {
    let db = open(&test).await;
    if test.backend() == testdb::Backend::Sqlite {
        // A transaction there keeps all that write.
        return db.close().await;
    }
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    limit(&db, bob, 1).await;
    let his = queue_many(&db, flow_of(&db, bob).await, 3).await;
    let first = claim(&db).await.expect("there is room");
    assert_eq!(claim_id(&db).await, None);
    let hers = queue(&db, flow_of(&db, ada).await).await;
    let tx = db.begin().await.expect("begun");
    for expected in [Some(hers), None] {
        let taken = tx.executions().claim("w", LEASE).await.expect("an answer");
        assert_eq!(taken.map(|taken| taken.id), expected);
    }
    finish(&db, &first).await;
    let next = tokio::time::timeout(Duration::from_secs(5), claim_id(&db)).await;
    assert_eq!(next.expect("at once"), Some(his[1]));
    tx.commit().await.expect("committed");
    db.close().await;
}

/// Instead of one by one, from one to the other and back.
async fn a_user_sets_none(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let flow = flow_of(&db, ada.id).await;
    let restricted = db.restricted_to(&ada);
    let theirs = flow_of(&db, user(&db, "bob").await.id).await;
    limit(&db, theirs, 3).await;
    limit(&db, flow, 2).await;
    for (of, shown) in [(flow, Some(2)), (theirs, None)] {
        let known = restricted.executions().concurrency_limit(of).await;
        assert_eq!(known.expect("an answer"), shown);
    }
    for most in [Some(1), None] {
        let executions = restricted.executions();
        let set = executions.set_concurrency_limit(flow, most).await;
        assert_error!(set, Error::Forbidden { .. });
    }
    db.close().await;
}
