//! What is kept of attempts that failed.

use std::time::Duration;

use aura_db::{
    Database, Error, ExecutionAttempt, ExecutionId, ExecutionMode, ExecutionStatus, NewExecution,
    Outcome, WorkflowId,
};
use serde_json::json;
use testdb::TestDb;

use crate::executions::{LEASE, flow};
use crate::support::{assert_error, open_at, user};

testdb::both!(migrated:
    attempts_that_failed_are_kept, the_last_twenty_are_kept, only_what_could_pass_is_kept,
    long_reasons_are_cut, they_go_with_their_execution, users_see_those_of_their_own,
);

async fn queue(db: &Database, flow: WorkflowId, attempts: i64) -> ExecutionId {
    let new = NewExecution::new(flow, ExecutionMode::Trigger).max_attempts(attempts);
    db.executions().enqueue(new).await.expect("queued").id
}

/// Takes the only one there is, as this worker.
async fn fail(db: &Database, worker: &str, outcome: Outcome) {
    let executions = db.executions();
    let taken = executions.claim(worker, LEASE).await.expect("an answer");
    let taken = taken.expect("one");
    executions.finish(&taken, outcome).await.expect("held");
}

fn retryable(error: serde_json::Value) -> Outcome {
    Outcome::retryable(error).after(Duration::ZERO)
}

async fn attempts(db: &Database, id: ExecutionId) -> Vec<ExecutionAttempt> {
    db.executions().attempts(id).await.expect("there")
}

/// By their worker, by a lease that ran out, and again after a retry.
async fn attempts_that_failed_are_kept(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 2).await;
    assert!(attempts(&db, id).await.is_empty());
    let first = db.now();
    fail(&db, "one", retryable(json!({"message": "no"}))).await;
    let executions = db.executions();
    let lost = executions.claim("two", LEASE).await.expect("an answer");
    assert_eq!(lost.expect("one").attempts, 2);
    clock.advance(LEASE);
    let second = db.now();
    assert_eq!(executions.claim("w", LEASE).await.expect("an answer"), None);
    let dead = executions.retry(id).await;
    assert_eq!(dead.expect("dead").attempts, 0);
    clock.advance(LEASE);
    let third = db.now();
    fail(&db, "one", retryable(json!("again"))).await;
    let kept = attempts(&db, id).await;
    let kept: Vec<_> = kept
        .iter()
        .map(|kept| {
            let worker = kept.worker_id.as_deref().expect("a worker");
            let numbers = (kept.execution_id, kept.claim_no, kept.attempt);
            (numbers, worker, kept.ended_at, kept.reason.as_str())
        })
        .collect();
    assert_eq!(
        kept,
        [
            ((id, 1, 1), "one", first, r#"{"message":"no"}"#),
            ((id, 2, 2), "two", second, r#"{"code":"lease_expired"}"#),
            ((id, 3, 1), "one", third, r#""again""#),
        ]
    );
    // By the scheduler too.
    let again = executions.claim("two", LEASE).await.expect("an answer");
    assert_eq!(again.expect("one").attempts, 2);
    clock.advance(LEASE);
    let dead = executions.requeue_expired(10).await.expect("an answer");
    assert_eq!(dead[0].status, ExecutionStatus::Dead);
    let kept = attempts(&db, id).await;
    assert_eq!(kept.len(), 4);
    assert_eq!((kept[3].claim_no, kept[3].attempt), (4, 2));
    let none = executions.attempts(4711.into()).await;
    assert_error!(none, Error::NotFound { .. });
}

async fn the_last_twenty_are_kept(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 100).await;
    for number in 1..=25 {
        if number % 5 == 0 {
            let lost = db.executions().claim("w", LEASE).await;
            assert!(lost.expect("an answer").is_some());
            clock.advance(LEASE);
        } else {
            fail(&db, "w", retryable(json!(number))).await;
        }
    }
    // Notes the last one that was lost.
    let taken = db.executions().claim("w", LEASE).await.expect("an answer");
    assert_eq!(taken.expect("one").attempts, 26);
    let kept = attempts(&db, id).await;
    let numbers: Vec<_> = kept.iter().map(|kept| kept.attempt).collect();
    assert_eq!(numbers, (6..=25).collect::<Vec<_>>());
}

async fn only_what_could_pass_is_kept(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let unstorable = retryable(json!("a\0b"));
    for outcome in [
        Outcome::success(None),
        Outcome::error(json!("no")),
        unstorable,
    ] {
        let id = queue(&db, flow, 3).await;
        fail(&db, "w", outcome).await;
        assert!(attempts(&db, id).await.is_empty());
    }
    // Given back, and refused.
    let id = queue(&db, flow, 3).await;
    let executions = db.executions();
    let taken = executions.claim("w", LEASE).await.expect("an answer");
    let taken = taken.expect("one");
    executions.release(&taken).await.expect("held");
    let late = executions.finish(&taken, retryable(json!(1))).await;
    assert_error!(late, Error::LeaseLost { .. });
    assert!(attempts(&db, id).await.is_empty());
}

async fn long_reasons_are_cut(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 3).await;
    let long = "é".repeat(4_000);
    fail(&db, "w", retryable(json!(long))).await;
    let kept = attempts(&db, id).await;
    // A quote, and characters of two bytes.
    assert_eq!(kept[0].reason, format!("\"{}", "é".repeat(1_023)));
}

async fn they_go_with_their_execution(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    for discard in [true, false] {
        let id = queue(&db, flow, 1).await;
        fail(&db, "w", retryable(json!(1))).await;
        assert_eq!(attempts(&db, id).await.len(), 1);
        if discard {
            db.executions().discard(id).await.expect("discarded");
        } else {
            clock.advance(LEASE);
            let pruned = db.executions().prune(db.now(), 10).await;
            assert_eq!(pruned.expect("pruned"), 1);
        }
        let count = "SELECT CAST(count(*) AS text) AS line FROM execution_attempts";
        assert_eq!(test.lines(count).await, ["0"]);
    }
}

async fn users_see_those_of_their_own(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 3).await;
    fail(&db, "w", retryable(json!(1))).await;
    let ada = db.users().get_by_email("ada@example.org").await;
    let ada = ada.expect("there");
    let bob = user(&db, "bob").await;
    let own = db.restricted_to(&ada).executions().attempts(id).await;
    assert_eq!(own.expect("hers").len(), 1);
    let other = db.restricted_to(&bob).executions().attempts(id).await;
    assert_error!(other, Error::NotFound { .. });
}
