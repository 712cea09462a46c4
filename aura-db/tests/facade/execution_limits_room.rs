//! What waits for a limit, and what lets it go.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::{Execution, ExecutionId, ExecutionMode, NewExecution, Outcome, Worker};
use serde_json::json;
use testdb::TestDb;

use crate::execution_limits::{claim, claim_id, finish, flow_of, limit, queue, queue_many};
use crate::executions::LEASE;
use crate::support::{open, open_at, user};

testdb::both!(migrated:
    whatever_ends_makes_room, a_limit_is_raised_lowered_and_removed, another_process_makes_room, a_lost_worker_makes_room, what_waits_for_a_lost_limit_is_found, a_deleted_workflow_and_its_limit, a_worker_that_waits_is_woken, many_stand_in_front_of_others, what_waits_for_two_limits_moves_at_once, queues_that_none_serves_keep_no_others,
);

async fn whatever_ends_makes_room(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let flow = flow_of(&db, ada).await;
    limit(&db, flow, 1).await;
    let queued = queue_many(&db, flow, 7).await;
    let executions = db.executions();
    let mut taken = claim(&db).await.expect("there is room");
    for (nth, end) in ["error", "retryable", "wait", "cancel", "transaction"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(claim_id(&db).await, None, "{end}");
        match end {
            "cancel" => drop(executions.cancel(taken.id).await.expect("canceled")),
            "wait" => drop(executions.wait(&taken, None, None).await.expect("held")),
            "transaction" => {
                let tx = db.begin().await.expect("begun");
                let ended = tx.executions().finish(&taken, Outcome::success(None)).await;
                ended.expect("its holder");
                tx.commit().await.expect("committed");
            }
            _ => {
                let error = json!({"message": end});
                let outcome = if end == "error" {
                    Outcome::error(error)
                } else {
                    Outcome::retryable(error).after(LEASE)
                };
                executions.finish(&taken, outcome).await.expect("held");
            }
        }
        taken = claim(&db).await.unwrap_or_else(|| panic!("no room: {end}"));
        assert_eq!(taken.id, queued[nth + 1], "{end}");
    }
    // What is given back is the oldest again.
    executions.release(&taken).await.expect("held");
    assert_eq!(claim_id(&db).await, Some(taken.id));
    db.close().await;
}

async fn a_limit_is_raised_lowered_and_removed(test: TestDb) {
    let db = open(&test).await;
    let flow = flow_of(&db, user(&db, "ada").await.id).await;
    limit(&db, flow, 1).await;
    let queued = queue_many(&db, flow, 9).await;
    let mut taken = vec![claim(&db).await.expect("there is room")];
    assert_eq!(claim_id(&db).await, None);
    limit(&db, flow, 3).await;
    for _ in 0..2 {
        taken.push(claim(&db).await.expect("there is room"));
    }
    assert_eq!(claim_id(&db).await, None);
    // What runs goes on, and is not followed by others.
    limit(&db, flow, 1).await;
    for execution in taken.drain(..2) {
        finish(&db, &execution).await;
        assert_eq!(claim_id(&db).await, None);
    }
    finish(&db, &taken[0]).await;
    assert_eq!(claim_id(&db).await, Some(queued[3]));
    assert_eq!(claim_id(&db).await, None);
    limit(&db, flow, None).await;
    for expected in &queued[4..] {
        assert_eq!(claim_id(&db).await, Some(*expected));
    }
    // Which is there no more.
    limit(&db, flow, None).await;
    let known = db.executions().concurrency_limit(flow).await;
    assert_eq!(known.expect("an answer"), None);
    db.close().await;
}

async fn another_process_makes_room(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow_of(&db, user(&db, "ada").await.id).await;
    limit(&db, flow, 1).await;
    let queued = queue_many(&db, flow, 3).await;
    let first = claim(&db).await.expect("there is room");
    let other = flow_of(&db, user(&db, "bob").await.id).await;
    let free = queue_many(&db, other, 2).await;
    assert_eq!(claim_id(&db).await, Some(free[0]));
    let ended = format!(
        "UPDATE executions SET status = 'success', lease_until = NULL, finished_at = started_at \
         WHERE id = {}",
        first.id
    );
    test.execute(&ended).await;
    // At the latest after a second, although there is other work.
    clock.advance(Duration::from_secs(1));
    assert_eq!(claim_id(&db).await, Some(queued[1]));
    assert_eq!(claim_id(&db).await, Some(free[1]));
    assert_eq!(claim_id(&db).await, None);
    db.close().await;
}

async fn a_lost_worker_makes_room(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let flow = flow_of(&db, user(&db, "ada").await.id).await;
    limit(&db, flow, 1).await;
    let queued = queue_many(&db, flow, 2).await;
    assert_eq!(claim_id(&db).await, Some(queued[0]));
    assert_eq!(claim_id(&db).await, None);
    clock.advance(LEASE);
    // It is queued again, and the oldest.
    let taken = claim(&db).await.expect("there is room");
    assert_eq!((taken.id, taken.attempts), (queued[0], 2));
    assert_eq!(claim_id(&db).await, None);
    db.close().await;
}

async fn what_waits_for_a_lost_limit_is_found(test: TestDb) {
    let db = open(&test).await;
    let flow = flow_of(&db, user(&db, "ada").await.id).await;
    for sql in [
        "DELETE FROM execution_limits",
        "UPDATE execution_limits SET has_parked = FALSE, max_running = 9",
    ] {
        for by_a_new_process in [false, true] {
            limit(&db, flow, 1).await;
            queue_many(&db, flow, 3).await;
            let first = claim(&db).await.expect("there is room");
            assert_eq!(claim_id(&db).await, None);
            test.execute(sql).await;
            assert_eq!(claim_id(&db).await, None, "{sql}");
            let other = open(&test).await;
            if !by_a_new_process {
                let requeued = db.executions().requeue_expired(9).await;
                assert!(requeued.expect("an answer").is_empty());
            }
            let by = if by_a_new_process { &other } else { &db };
            let taken = [claim(by).await, claim(by).await].map(|taken| taken.expect("found"));
            for execution in taken.iter().chain([&first]) {
                finish(&db, execution).await;
            }
            other.close().await;
        }
    }
    db.close().await;
}

async fn a_deleted_workflow_and_its_limit(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (flow, other) = (flow_of(&db, ada).await, flow_of(&db, ada).await);
    limit(&db, ada, 1).await;
    let deleted = queue_many(&db, flow, 3).await;
    let left = queue_many(&db, other, 2).await;
    let first = claim(&db).await.expect("there is room");
    assert_eq!(first.id, deleted[0]);
    assert_eq!(claim_id(&db).await, None);
    db.workflows().delete(flow).await.expect("deleted");
    finish(&db, &first).await;
    let second = claim(&db).await.expect("there is room");
    assert_eq!(second.id, left[0]);
    db.workflows().restore(flow).await.expect("restored");
    assert_eq!(claim_id(&db).await, None);
    for expected in [deleted[1], deleted[2], left[1]] {
        let running = format!("status = 'running' AND owner_id = {ada}");
        let sql = format!("SELECT CAST(id AS text) AS line FROM executions WHERE {running}");
        let id = test.lines(&sql).await[0].parse().map(ExecutionId);
        let running = db.executions().get(id.expect("a number")).await;
        finish(&db, &running.expect("there")).await;
        assert_eq!(claim_id(&db).await, Some(expected));
    }
    db.close().await;
}

async fn a_worker_that_waits_is_woken(test: TestDb) {
    let db = open(&test).await;
    let flow = flow_of(&db, user(&db, "ada").await.id).await;
    limit(&db, flow, 1).await;
    let queued = queue_many(&db, flow, 2).await;
    let first = claim(&db).await.expect("there is room");
    assert_eq!(claim_id(&db).await, None);
    let wakeups = db.executions().wakeups(&Worker::new("w"));
    let mut wakeups = wakeups.poll_every(Duration::from_hours(9));
    if test.backend() == testdb::Backend::Postgres {
        // It looks once when it is connected.
        wakeups.next().await;
    }
    let woken = tokio::time::timeout(Duration::from_secs(20), wakeups.next());
    let (woken, ()) = tokio::join!(woken, finish(&db, &first));
    woken.expect("it is woken");
    assert_eq!(claim_id(&db).await, Some(queued[1]));
    drop(wakeups);
    db.close().await;
}

async fn many_stand_in_front_of_others(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (flow, other) = (flow_of(&db, ada).await, flow_of(&db, ada).await);
    limit(&db, flow, 1).await;
    let insert = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO executions (workflow_id, workflow_version, mode, status, max_attempts, owner_id)
         SELECT {flow}, 1, 'trigger', 'queued', 3, {ada} FROM n"
    );
    test.execute(&insert).await;
    let behind = queue(&db, other).await;
    let first = claim(&db).await.expect("there is room");
    assert_eq!(claim_id(&db).await, Some(behind));
    assert_eq!(claim_id(&db).await, None);
    limit(&db, flow, None).await;
    let mut taken = 0;
    loop {
        let batch = db.executions().claim_many("w", LEASE, 1_000).await;
        let batch = batch.expect("an answer").len();
        taken += batch;
        if batch == 0 {
            break;
        }
    }
    assert_eq!(taken, 2_499);
    finish(&db, &first).await;
    db.close().await;
}

async fn what_waits_for_two_limits_moves_at_once(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (flow, other) = (flow_of(&db, ada).await, flow_of(&db, ada).await);
    limit(&db, flow, 1).await;
    limit(&db, ada, 2).await;
    let of_flow = queue_many(&db, flow, 300).await;
    let first = claim(&db).await.expect("there is room");
    assert_eq!((first.id, claim_id(&db).await), (of_flow[0], None));
    let of_other = queue_many(&db, other, 3).await;
    let second = claim(&db).await.expect("of the owner's");
    assert_eq!(second.id, of_other[0]);
    finish(&db, &first).await;
    // The third of the owner's has room under none now.
    let urgent = NewExecution::new(other, ExecutionMode::Trigger).priority(9);
    db.executions().enqueue(urgent).await.expect("queued");
    assert!(claim(&db).await.is_some());
    assert_eq!(claim_id(&db).await, None);
    let waits_for = "SELECT DISTINCT CAST(owner_id IS NOT NULL AS text) AS line \
         FROM execution_limits WHERE id IN (SELECT limit_id FROM executions)";
    assert_eq!(test.lines(waits_for).await.len(), 1, "all for one");
    // And everything is taken in the end.
    let mut taken = BTreeSet::new();
    let running = async || {
        let ids = "SELECT CAST(id AS text) AS line FROM executions WHERE status = 'running'";
        let ids = test.lines(ids).await;
        assert!(ids.len() <= 2, "{ids:?}");
        ids
    };
    loop {
        let ids = running().await;
        if ids.is_empty() {
            break;
        }
        for id in ids {
            let id = id.parse().map(ExecutionId).expect("a number");
            let execution = db.executions().get(id).await.expect("there");
            finish(&db, &execution).await;
            taken.insert(id);
        }
        while claim(&db).await.is_some() {}
    }
    // All but the first, which had ended before.
    assert_eq!(taken.len(), 303);
    db.close().await;
}

async fn queues_that_none_serves_keep_no_others(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let flow = flow_of(&db, ada).await;
    limit(&db, ada, 1).await;
    let first = queue(&db, flow).await;
    let slow = NewExecution::new(flow, ExecutionMode::Trigger).queue("slow");
    for _ in 0..20 {
        db.executions().enqueue(slow.clone()).await.expect("queued");
    }
    let last = queue(&db, flow).await;
    let both = || Worker::new("w").queues(["default", "slow"]);
    let running = db.executions().claim(both(), LEASE).await;
    let running = running.expect("an answer").expect("there is room");
    assert_eq!(running.id, first);
    let none = db.executions().claim(both(), LEASE).await;
    assert_eq!(none.expect("an answer"), None::<Execution>);
    // By another process, which lets none go.
    let other = open(&test).await;
    finish(&other, &running).await;
    other.close().await;
    assert_eq!(claim_id(&db).await, Some(last));
    db.close().await;
}
