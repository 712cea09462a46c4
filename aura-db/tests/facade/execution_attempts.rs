//! How often an execution is begun, and what becomes of it when it can't succeed.

use std::time::Duration;

use aura_db::{
    Claim, Database, Document, Error, Execution, ExecutionFilter, ExecutionId, ExecutionMode,
    ExecutionStatus, LogFilter, LogLevel, NewExecution, NewLog, Outcome, PageRequest, WorkflowId,
};
use serde_json::json;
use testdb::{Backend, TestDb};

use crate::executions::{LEASE, flow};
use crate::support::{assert_error, open, open_at, refused};

testdb::both!(migrated:
    what_fails_each_time_is_dead, the_dead_are_retried_or_discarded, a_lost_lease_counts,
    an_earlier_claim_holds_no_more, what_was_given_back_doesnt_count,
    pauses_have_a_default, a_result_that_cant_be_stored_ends_it, attempts_have_a_limit,
    a_lease_that_ends_too_late_is_over, nothing_ends_before_it_began,
    leases_are_as_long_as_asked, workers_of_the_version_before_go_on,
);

async fn queue(db: &Database, flow: WorkflowId, attempts: i64) -> ExecutionId {
    let new = NewExecution::new(flow, ExecutionMode::Trigger).max_attempts(attempts);
    db.executions().enqueue(new).await.expect("queued").id
}

async fn claim(db: &Database) -> Option<Execution> {
    db.executions().claim("w", LEASE).await.expect("an answer")
}

async fn claimed(db: &Database) -> Execution {
    claim(db).await.expect("one")
}

/// Fails in a way that may pass, and waits a second.
async fn fail(db: &Database, execution: &Execution) -> Execution {
    let outcome = Outcome::retryable(json!({"try": execution.attempts}));
    let outcome = outcome.after(Duration::from_secs(1));
    let failed = db.executions().finish(execution, outcome).await;
    failed.expect("held")
}

/// Has an execution die of one failure.
async fn dead(db: &Database, flow: WorkflowId) -> Execution {
    queue(db, flow, 1).await;
    let dead = fail(db, &claimed(db).await).await;
    assert_eq!(dead.status, ExecutionStatus::Dead);
    dead
}

async fn what_fails_each_time_is_dead(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 3).await;
    for attempt in 1..=3 {
        let taken = claimed(&db).await;
        assert_eq!(
            (taken.id, taken.attempts, taken.claim_no),
            (id, attempt, attempt)
        );
        let failed = fail(&db, &taken).await;
        assert_eq!(failed.error, Some(json!({"try": attempt}).into()));
        let state = (
            failed.status,
            failed.worker_id.as_deref(),
            failed.wait_until,
        );
        if attempt < 3 {
            let soon = db.now() + Duration::from_secs(1);
            assert_eq!(state, (ExecutionStatus::Waiting, None, Some(soon)));
            assert_eq!(failed.finished_at, None);
            assert_eq!(claim(&db).await, None, "it waits");
            clock.advance(Duration::from_secs(1));
        } else {
            assert_eq!(state, (ExecutionStatus::Dead, Some("w"), None));
            assert_eq!(failed.finished_at, Some(db.now()));
        }
    }
    clock.advance(Duration::from_hours(48));
    assert_eq!(claim(&db).await, None);
    let cancel = db.executions().cancel(id).await;
    assert_error!(
        cancel,
        Error::State {
            state: "has ended",
            ..
        }
    );
    let stats = db.executions().stats(ExecutionFilter::new()).await;
    let stats = stats.expect("numbers");
    assert_eq!(stats.by_status, [(ExecutionStatus::Dead, 1)]);
    assert_eq!((stats.per_day[0].dead, stats.per_day[0].error), (1, 0));
}

async fn the_dead_are_retried_or_discarded(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let (first, second) = (dead(&db, flow).await, dead(&db, flow).await);
    let executions = db.executions();
    let filter = || ExecutionFilter::new().status(ExecutionStatus::Dead);
    let list = executions.list(filter(), PageRequest::first(9)).await;
    let ids: Vec<_> = list
        .expect("a list")
        .items
        .iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(ids, [second.id, first.id]);

    let again = executions.retry(first.id).await.expect("queued");
    assert_eq!((again.status, again.attempts), (ExecutionStatus::Queued, 0));
    assert_eq!(
        (again.worker_id, again.finished_at, again.error),
        (None, None, None)
    );
    let taken = claimed(&db).await;
    assert_eq!((taken.id, taken.attempts, taken.claim_no), (first.id, 1, 2));
    let done = executions.finish(&taken, Outcome::success(None)).await;
    assert_eq!(done.expect("held").status, ExecutionStatus::Success);

    let entry = NewLog::new(flow, LogLevel::Error, "why").execution(second.id);
    db.logs().append(entry).await.expect("appended");
    assert_eq!(
        executions.discard(second.id).await.expect("discarded"),
        second
    );
    assert_error!(executions.get(second.id).await, Error::NotFound { .. });
    let logs = db
        .logs()
        .list(LogFilter::new(), PageRequest::first(9))
        .await;
    assert!(logs.expect("a list").items.is_empty());

    for id in [first.id, second.id] {
        let there = id == first.id;
        for refused in [executions.retry(id).await, executions.discard(id).await] {
            match refused.expect_err("not dead") {
                Error::State { state, .. } => assert!(there && state == "is not dead"),
                Error::NotFound { .. } => assert!(!there),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Also of a worker that is killed by it, each time.
async fn a_lost_lease_counts(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let (twice, once) = (queue(&db, flow, 2).await, queue(&db, flow, 1).await);
    let first = claimed(&db).await;
    assert_eq!((first.id, claimed(&db).await.id), (twice, once));
    clock.advance(LEASE);
    let next = queue(&db, flow, 1).await;
    // Before what is queued, and the other is noted.
    let second = claimed(&db).await;
    assert_eq!((second.id, second.attempts), (twice, 2));
    assert_eq!(
        second.started_at, first.started_at,
        "the first start counts"
    );
    assert_eq!(claimed(&db).await.id, next);
    for (id, attempts) in [(once, 1), (twice, 2)] {
        if id == twice {
            clock.advance(LEASE);
            assert_eq!(claim(&db).await, None);
        }
        let dead = db.executions().get(id).await.expect("there");
        assert_eq!(
            (dead.status, dead.lease_until),
            (ExecutionStatus::Dead, None)
        );
        assert_eq!(
            (dead.worker_id.as_deref(), dead.finished_at),
            (Some("w"), Some(db.now()))
        );
        let error = json!({"code": "lease_expired", "attempts": attempts});
        assert_eq!(dead.error, Some(Document::from(error)));
    }
}

/// Under the same name too.
async fn an_earlier_claim_holds_no_more(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    queue(&db, flow, 9).await;
    let executions = db.executions();
    let first = Claim::from(&claimed(&db).await);
    clock.advance(LEASE);
    let second = claimed(&db).await;
    let done = Outcome::success(Some(json!("late").into()));
    let lost = executions.finish(&first, done).await;
    assert_error!(lost, Error::LeaseLost { .. });
    assert_error!(
        executions.extend(&first, LEASE).await,
        Error::LeaseLost { .. }
    );
    assert_error!(
        executions.wait(&first, None, None).await,
        Error::LeaseLost { .. }
    );
    assert_error!(executions.release(&first).await, Error::LeaseLost { .. });
    assert_eq!(executions.get(second.id).await.expect("there"), second);
    executions.extend(&second, LEASE).await.expect("held");
    let sent: Claim = serde_json::from_value(json!(Claim::from(&second))).expect("a claim");
    executions
        .finish(sent, Outcome::success(None))
        .await
        .expect("held");
}

async fn what_was_given_back_doesnt_count(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 1).await;
    let executions = db.executions();
    for claims in 1..=3 {
        let taken = claimed(&db).await;
        assert_eq!((taken.id, taken.attempts, taken.claim_no), (id, 1, claims));
        let given = if claims == 2 {
            executions.wait(&taken, Some(db.now()), None).await
        } else {
            executions.release(&taken).await
        };
        let given = given.expect("held");
        assert_eq!(
            (given.attempts, given.worker_id, given.lease_until),
            (0, None, None)
        );
    }
    let queued = executions.get(id).await.expect("there");
    assert_eq!(queued.status, ExecutionStatus::Queued);
}

async fn pauses_have_a_default(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    queue(&db, flow, 9).await;
    for most in [5.0, 10.0, 20.0] {
        let outcome = Outcome::retryable(json!("no"));
        let failed = db.executions().finish(&claimed(&db).await, outcome).await;
        let until = failed.expect("held").wait_until.expect("a time");
        let pause = (until - db.now()).as_seconds_f64();
        assert!((most / 2.0..=most).contains(&pause), "{pause} of {most}");
        clock.advance(Duration::from_secs(20));
    }
}

async fn a_result_that_cant_be_stored_ends_it(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    let nul = Document::from(json!({"text": "a\0b"}));
    let large = Document::from(json!("x".repeat(17 << 20)));
    for (outcome, bytes, beginning) in [
        (
            Outcome::success(Some(nul.clone())),
            19,
            r#"{"text":"a\ufffdb"}"#,
        ),
        (
            Outcome::retryable(nul.clone()),
            19,
            r#"{"text":"a\ufffdb"}"#,
        ),
        (Outcome::success(Some(large)), (17 << 20) + 2, "\"xxxx"),
    ] {
        let input = json!({"in": 1});
        let new = NewExecution::new(flow, ExecutionMode::Cron).data(input.clone());
        executions.enqueue(new).await.expect("queued");
        let ended = executions.finish(&claimed(&db).await, outcome).await;
        let ended = ended.expect("it has ended");
        assert_eq!(ended.status, ExecutionStatus::Error);
        assert_eq!(ended.data, Some(input.into()), "the input stays");
        let error = ended.error.expect("why").json().expect("JSON");
        assert_eq!(error["code"], "result_not_storable");
        assert_eq!(error["bytes"], bytes);
        let text = error["text"].as_str().expect("a text");
        assert!(text.starts_with(beginning) && text.len() <= 4_096, "{text}");
        assert_eq!(claim(&db).await, None, "it isn't tried again");
    }
}

async fn attempts_have_a_limit(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    for (mode, most) in [
        (ExecutionMode::Manual, 1),
        (ExecutionMode::Trigger, 3),
        (ExecutionMode::Webhook, 3),
        (ExecutionMode::Cron, 3),
    ] {
        let queued = db.executions().enqueue(NewExecution::new(flow, mode)).await;
        let queued = queued.expect("queued");
        assert_eq!((queued.attempts, queued.max_attempts), (0, most), "{mode}");
    }
    for attempts in [0, -1, 1_001, i64::MAX] {
        let new = NewExecution::new(flow, ExecutionMode::Cron).max_attempts(attempts);
        assert_eq!(
            refused(db.executions().enqueue(new).await),
            ["max_attempts"]
        );
    }
    let taken = claimed(&db).await;
    let year = Duration::from_hours(367 * 24);
    let outcome = Outcome::retryable(json!(1)).after(year);
    assert_eq!(
        refused(db.executions().finish(&taken, outcome).await),
        ["after"]
    );
}

/// As one that a machine has written whose clock was a year ahead.
async fn a_lease_that_ends_too_late_is_over(test: TestDb) {
    let (db, _clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    for lease in ["'2999-01-01T00:00:00.000000+00:00'", "NULL"] {
        let id = queue(&db, flow, 3).await;
        let first = claimed(&db).await;
        let back = executions.requeue_expired(9).await.expect("an answer");
        assert!(back.is_empty(), "it is held");
        test.execute(&format!(
            "UPDATE executions SET lease_until = {lease} WHERE id = {id}"
        ))
        .await;
        let lost = executions.extend(&first, LEASE).await;
        assert_error!(lost, Error::LeaseLost { .. });
        let back = executions.requeue_expired(9).await.expect("an answer");
        assert_eq!(back.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
        let second = claimed(&db).await;
        assert_eq!((second.id, second.attempts), (id, 2));
        let done = executions.finish(&second, Outcome::success(None)).await;
        done.expect("held");
    }
}

async fn nothing_ends_before_it_began(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let executions = db.executions();
    for number in 0..3 {
        let id = queue(&db, flow, 1).await;
        let taken = claimed(&db).await;
        let started = taken.started_at.expect("begun");
        clock.set(started - Duration::from_hours(1));
        let ended = match number {
            0 => executions.finish(&taken, Outcome::success(None)).await,
            1 => {
                executions
                    .finish(&taken, Outcome::retryable(json!(1)))
                    .await
            }
            _ => executions.cancel(id).await,
        };
        assert_eq!(ended.expect("ended").finished_at, Some(started));
    }
}

/// On a server by its clock, which all workers share, to the microsecond.
async fn leases_are_as_long_as_asked(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let id = queue(&db, flow, 1).await;
    let taken = claimed(&db).await;
    let lease = taken.lease_until.expect("held") - taken.started_at.expect("begun");
    if test.backend() == Backend::Postgres {
        assert_eq!(lease.to_std().expect("longer"), LEASE);
        let sql = "SELECT CAST(count(*) AS text) AS line FROM executions WHERE lease_until > now() + interval '59 seconds' \
             AND created_at <= started_at AND started_at <= now()";
        assert_eq!(test.lines(sql).await, ["1"]);
    } else {
        assert_eq!(lease.to_std().expect("longer"), LEASE);
    }
    let waits = Outcome::retryable(json!(1));
    let dead = db.executions().finish(&taken, waits).await.expect("held");
    assert_eq!((dead.id, dead.status), (id, ExecutionStatus::Dead));
    assert!(dead.finished_at >= dead.started_at);
}

/// They don't count attempts, and know no claim.
async fn workers_of_the_version_before_go_on(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow(&db, "ada").await;
    test.execute(&format!(
        "INSERT INTO executions (workflow_id, workflow_version, mode, status) \
         VALUES ({flow}, 1, 'cron', 'queued')"
    ))
    .await;
    let until = db.now() + LEASE;
    test.execute(&format!(
        "UPDATE executions SET status = 'running', worker_id = 'old', lease_until = '{}', \
         started_at = lease_until",
        until.to_rfc3339_opts(chrono::SecondsFormat::Micros, false)
    ))
    .await;
    assert_eq!(claim(&db).await, None, "it is held");
    clock.advance(LEASE);
    let taken = claimed(&db).await;
    assert_eq!(
        (taken.attempts, taken.max_attempts, taken.claim_no),
        (1, 3, 1)
    );
    // One that it finishes late, without looking at the claim.
    test.execute(
        "UPDATE executions SET status = 'success', worker_id = 'old' WHERE worker_id = 'old'",
    )
    .await;
    let done = db.executions().finish(&taken, Outcome::success(None)).await;
    assert_eq!(done.expect("held").status, ExecutionStatus::Success);
}
