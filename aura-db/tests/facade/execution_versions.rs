//! Workers of this version beside those of the version before, on one queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aura_db::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, Value};
use aura_db::{
    Clock, Database, ExecutionFilter, ExecutionMode, ExecutionStatus, NewExecution, Outcome,
    PageRequest, SystemClock,
};
use chrono::SecondsFormat;
use testdb::{Backend, TestDb};

use crate::executions::flow;
use crate::support::open;

testdb::both!(migrated: workers_of_two_versions_share_a_queue);

const COUNT: i64 = 200;

/// What workers of the version before hold is taken from them after this time.
const LEASE: Duration = Duration::from_millis(200);

/// How long to wait for the end.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the version before did, which knows no attempts, claims, queues and owners.
struct OldWorker {
    connection: DatabaseConnection,
    name: String,
}

impl OldWorker {
    fn statement(&self, sqlite: &str, postgres: &str, values: Vec<Value>) -> Statement {
        let backend = self.connection.get_database_backend();
        let sql = match backend {
            DbBackend::Postgres => postgres,
            _ => sqlite,
        };
        Statement::from_sql_and_values(backend, sql, values)
    }

    async fn claim(&self) -> Option<i64> {
        let until = (SystemClock.now() + LEASE).to_rfc3339_opts(SecondsFormat::Micros, false);
        let claim = self.statement(
            "UPDATE executions SET status = 'running', worker_id = ?1, lease_until = ?2, \
             started_at = COALESCE(started_at, ?2) WHERE id IN (SELECT id FROM executions \
             WHERE status = 'queued' AND is_suspended = FALSE ORDER BY id LIMIT 1) RETURNING id",
            "UPDATE executions SET status = 'running', worker_id = $1, \
             lease_until = CAST($2 AS timestamptz), started_at = COALESCE(started_at, now()) \
             WHERE id = ANY (ARRAY (SELECT id FROM executions WHERE status = 'queued' \
             AND is_suspended = FALSE ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)) RETURNING id",
            vec![self.name.as_str().into(), until.into()],
        );
        let taken = self
            .connection
            .query_one_raw(claim)
            .await
            .expect("an answer");
        taken.map(|row| row.try_get("", "id").expect("an id"))
    }

    async fn finish(&self, id: i64) -> bool {
        let finish = self.statement(
            "UPDATE executions SET status = 'success', lease_until = NULL, finished_at = started_at \
             WHERE id = ?1 AND worker_id = ?2 AND status = 'running'",
            "UPDATE executions SET status = 'success', lease_until = NULL, finished_at = now() \
             WHERE id = $1 AND worker_id = $2 AND status = 'running'",
            vec![id.into(), self.name.as_str().into()],
        );
        let finished = self.connection.execute_raw(finish).await;
        finished.expect("an answer").rows_affected() == 1
    }

    async fn run(self, left: Arc<AtomicU32>) -> Vec<i64> {
        let (mut done, mut taken) = (Vec::new(), 0);
        let started = Instant::now();
        while left.load(Ordering::SeqCst) > 0 && started.elapsed() < PATIENCE {
            let Some(id) = self.claim().await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            taken += 1;
            // One in ten ends before its execution does.
            if taken % 10 != 9 && self.finish(id).await {
                left.fetch_sub(1, Ordering::SeqCst);
                done.push(id);
            }
        }
        self.connection.close().await.expect("it closes");
        done
    }
}

async fn run(db: Database, number: u32, left: Arc<AtomicU32>) -> Vec<i64> {
    let (executions, mut done, mut taken) = (db.executions(), Vec::new(), 0);
    let started = Instant::now();
    while left.load(Ordering::SeqCst) > 0 && started.elapsed() < PATIENCE {
        let claimed = executions.claim(format!("new-{number}"), LEASE * 50).await;
        let Some(execution) = claimed.expect("an answer") else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        taken += 1;
        let id = execution.id.0;
        match taken % 10 {
            3 => drop(executions.release(&execution).await.expect("held")),
            7 => {
                let retry = Outcome::retryable(serde_json::json!(id)).after(Duration::ZERO);
                executions.finish(&execution, retry).await.expect("held");
            }
            _ => {
                let done_well = Outcome::success(None);
                executions
                    .finish(&execution, done_well)
                    .await
                    .expect("held");
                left.fetch_sub(1, Ordering::SeqCst);
                done.push(id);
            }
        }
    }
    done
}

/// None is lost, and none ends twice.
async fn workers_of_two_versions_share_a_queue(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let numbers = match test.backend() {
        Backend::Sqlite => format!(
            "(WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {COUNT}) \
             SELECT n FROM t)"
        ),
        Backend::Postgres => format!("generate_series(1, {COUNT}) AS n"),
    };
    test.execute(&format!(
        "INSERT INTO executions (workflow_id, workflow_version, mode, status) \
         SELECT {flow}, 1, 'cron', 'queued' FROM {numbers}"
    ))
    .await;
    for priority in 0..COUNT {
        // As often as it takes: each of the new ones fails now and then.
        let new = NewExecution::new(flow, ExecutionMode::Cron).priority(priority);
        let new = new.max_attempts(1_000);
        db.executions().enqueue(new).await.expect("queued");
    }
    test.execute("UPDATE executions SET max_attempts = 1000")
        .await;
    let left = Arc::new(AtomicU32::new(u32::try_from(COUNT * 2).expect("a number")));
    let mut workers = Vec::new();
    // Opened before there is any work.
    let connections = [test.outside().await, test.outside().await];
    for (number, connection) in (0..).zip(connections) {
        let old = OldWorker {
            connection,
            name: format!("old-{number}"),
        };
        workers.push(tokio::spawn(old.run(left.clone())));
        workers.push(tokio::spawn(run(db.clone(), number, left.clone())));
    }
    let mut ended = BTreeMap::<i64, u32>::new();
    let mut shares = Vec::new();
    for worker in workers {
        let done = worker.await.expect("no panic");
        shares.push(done.len());
        for id in done {
            *ended.entry(id).or_default() += 1;
        }
    }
    let of = |first: usize| shares[first] + shares[first + 2];
    assert!(of(0) > 0 && of(1) > 0, "{shares:?}");
    let all: BTreeSet<_> = (1..=COUNT * 2).collect();
    assert!(ended.values().all(|times| *times == 1), "{ended:?}");
    assert_eq!(ended.into_keys().collect::<BTreeSet<_>>(), all);
    let filter = ExecutionFilter::new().status(ExecutionStatus::Success);
    let page = PageRequest::first(1_000);
    let success = db.executions().list(filter, page).await.expect("a list");
    assert_eq!(success.items.len(), all.len());
    db.close().await;
}
