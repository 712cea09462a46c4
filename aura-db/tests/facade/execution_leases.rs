//! Who holds an execution, and until when.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::{Document, Error, Execution, ExecutionMode, ExecutionStatus, NewExecution, Outcome};
use serde_json::json;
use testdb::{Backend, TestDb};

use crate::executions::{LEASE, flow, queue};
use crate::support::{assert_error, claim_of, open, open_at};

testdb::both!(migrated:
    a_lease_is_extended_by_its_holder, finished_by_its_holder_only, a_late_holder_is_refused,
    waiting_ends_by_time_or_by_event, canceled_ones_are_lost_to_their_worker,
    cancel_and_finish_meet, recovered_once, what_is_not_taken_is_free,
    a_reordered_table_reads_right,
);

async fn a_lease_is_extended_by_its_holder(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow).await.id;
    let executions = db.executions();
    assert_error!(
        executions.extend(claim_of(&db, id, "w").await, LEASE).await,
        Error::LeaseLost { .. }
    );
    executions
        .claim("w", LEASE)
        .await
        .expect("an answer")
        .expect("one");
    clock.advance(Duration::from_secs(59));
    let extended = executions
        .extend(claim_of(&db, id, "w").await, LEASE)
        .await
        .expect("extended");
    assert_eq!(extended.lease_until, Some(db.now() + LEASE));
    assert_error!(
        executions
            .extend(claim_of(&db, id, "other").await, LEASE)
            .await,
        Error::LeaseLost { .. }
    );
    clock.advance(LEASE);
    assert_error!(
        executions.extend(claim_of(&db, id, "w").await, LEASE).await,
        Error::LeaseLost { worker, .. } if worker == "w"
    );
    assert_error!(
        executions
            .extend(claim_of(&db, 4711.into(), "w").await, LEASE)
            .await,
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
    let result = Outcome::success(Some(json!({"sum": 3}).into()));
    assert_error!(
        executions
            .finish(claim_of(&db, one, "x").await, result.clone())
            .await,
        Error::LeaseLost { .. }
    );
    clock.advance(Duration::from_secs(90));
    // Late, and nobody else took it.
    let done = executions
        .finish(claim_of(&db, one, "w").await, result.clone())
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
        (Some(Document::from(json!({"sum": 3}))), None)
    );
    assert_error!(
        executions
            .finish(claim_of(&db, one, "w").await, result)
            .await,
        Error::LeaseLost { .. }
    );
    let failed = Outcome::error(json!({"message": "no"})).data(json!([1]));
    let done = executions
        .finish(claim_of(&db, two, "w").await, failed.clone())
        .await
        .expect("finished");
    assert_eq!(done.status, ExecutionStatus::Error);
    assert_eq!(done.error, Some(Document::from(json!({"message": "no"}))));
    assert_eq!(done.data, Some(Document::from(json!([1]))));
    assert_error!(
        executions
            .finish(claim_of(&db, 4711.into(), "w").await, failed)
            .await,
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
    let back = executions.requeue_expired(10).await.expect("an answer");
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
    let late = Outcome::success(Some(json!("late").into()));
    assert_error!(
        executions
            .finish(claim_of(&db, id, "old").await, late)
            .await,
        Error::LeaseLost { .. }
    );
    assert_error!(
        executions
            .wait(claim_of(&db, id, "old").await, None, None)
            .await,
        Error::LeaseLost { .. }
    );
    let right = Outcome::success(Some(json!("right").into()));
    let done = executions
        .finish(claim_of(&db, id, "new").await, right)
        .await
        .expect("finished");
    assert_eq!(done.data, Some(Document::from(json!("right"))));
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
        .wait(
            claim_of(&db, timed, "w").await,
            Some(until),
            Some(json!({"step": 2}).into()),
        )
        .await;
    let waiting = waiting.expect("waiting");
    assert_eq!(waiting.status, ExecutionStatus::Waiting);
    assert_eq!(
        (waiting.wait_until, &waiting.worker_id),
        (Some(until), &None)
    );
    assert_eq!(waiting.data, Some(Document::from(json!({"step": 2}))));
    executions
        .wait(claim_of(&db, event, "w").await, None, None)
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
        .wait(claim_of(&db, ids[1], "w").await, None, None)
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
    let lost = executions
        .extend(claim_of(&db, ids[0], "w").await, LEASE)
        .await;
    assert_error!(lost, Error::LeaseLost { .. });
    let lost = executions
        .finish(claim_of(&db, ids[0], "w").await, Outcome::success(None))
        .await;
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
            executions.finish(claim_of(&db, id, "w").await, Outcome::success(None)),
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
    assert!(
        executions
            .requeue_expired(99)
            .await
            .expect("an answer")
            .is_empty()
    );
    clock.advance(LEASE);
    let schedulers: Vec<_> = (0..6)
        .map(|_| {
            let executions = executions.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let some = executions.requeue_expired(4).await.expect("an answer");
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

/// A worker that is still taking one leaves the others to others.
async fn what_is_not_taken_is_free(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    let due = queue(&db, flow).await.id;
    db.executions().claim("w", LEASE).await.expect("an answer");
    let soon = db.now() + Duration::from_secs(1);
    db.executions()
        .wait(claim_of(&db, due, "w").await, Some(soon), None)
        .await
        .expect("waiting");
    let queued = queue(&db, flow).await.id;
    clock.advance(Duration::from_secs(1));
    let (db, beside) = (&db, test.backend() == testdb::Backend::Postgres);
    let claim = async |worker| {
        let claimed = db
            .executions()
            .claim(worker, LEASE)
            .await
            .expect("an answer");
        claimed.map(|execution| execution.id)
    };
    let meanwhile = db
        .transaction(|tx| async move {
            let mine = tx.executions().claim("one", LEASE).await?;
            assert_eq!(mine.map(|execution| execution.id), Some(due), "it was due");
            // (SQLite's other writers wait.)
            Ok::<_, Error>(if beside { claim("two").await } else { None })
        })
        .await
        .expect("committed");
    let other = if beside {
        meanwhile
    } else {
        claim("two").await
    };
    assert_eq!(other, Some(queued));
}

/// A column that was changed in the usual way (rename, add, copy, drop) stands
/// last in its table.
async fn a_reordered_table_reads_right(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    let input = Document::from(json!({"the": "input"}));
    let new = NewExecution::new(flow, ExecutionMode::Cron).data(input.clone());
    let executions = db.executions();
    let id = executions.enqueue(new).await.expect("queued").id;
    let check = match test.backend() {
        Backend::Sqlite => "CHECK (json_valid(data))",
        Backend::Postgres => "",
    };
    for sql in [
        "ALTER TABLE executions RENAME COLUMN data TO data_before",
        &format!("ALTER TABLE executions ADD COLUMN data json_text {check}"),
        "UPDATE executions SET data = data_before",
        "ALTER TABLE executions DROP COLUMN data_before",
    ] {
        test.execute(sql).await;
    }
    let right = |execution: Option<Execution>, status: ExecutionStatus| {
        let execution = execution.expect("one");
        assert_eq!((execution.id, execution.status), (id, status));
        assert_eq!(
            (execution.data, execution.error),
            (Some(input.clone()), None)
        );
    };
    let claimed = executions.claim("w", LEASE).await.expect("an answer");
    right(claimed, ExecutionStatus::Running);
    clock.advance(LEASE);
    let recovered = executions
        .requeue_expired(10)
        .await
        .expect("an answer")
        .pop();
    right(recovered, ExecutionStatus::Queued);
    let found = executions.find(id).await.expect("an answer");
    right(found, ExecutionStatus::Queued);
}
