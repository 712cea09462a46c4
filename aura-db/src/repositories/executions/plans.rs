//! That what workers and pruning run finds its rows by index, in a table that is
//! long.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, StatementBuilder, Value};
use testdb::{Backend, TestDb};

use super::limits_sql::{EMPTIED, LIMITS, LOST, MOVE, RELEASE, UNPARK, by_backend, look, park};
use super::prune::{delete, ended};
use super::sql::{
    LOOK_SQLITE, MAINTAIN_SQLITE, RECOVER_POSTGRES, RECOVER_SQLITE, Scope, claim,
    maintain_postgres, park_sqlite,
};

testdb::both!(migrated: rows_are_found_by_index, limits_are_found_by_index);

const ROWS: u32 = 200_000;

/// Nine in ten have ended; the rest are in the queue or wait, few of them until
/// a time that has come.
async fn fill(db: &TestDb) {
    // What the server knows of the tables is of before.
    db.execute("ANALYZE").await;
    let (numbers, time) = match db.backend() {
        Backend::Sqlite => (
            format!(
                "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {ROWS})"
            ),
            "strftime('%Y-%m-%dT%H:%M:%f+00:00', 1767225600 + n, 'unixepoch')",
        ),
        Backend::Postgres => (
            format!("WITH t AS (SELECT n FROM generate_series(1, {ROWS}) AS n)"),
            "to_timestamp(1767225600 + n)",
        ),
    };
    db.execute("INSERT INTO users (name, email, hashed_password) VALUES ('a', 'a@b.org', 'x')")
        .await;
    db.execute("INSERT INTO workflows (name, owner_id) SELECT 'w', id FROM users")
        .await;
    db.execute("INSERT INTO execution_limits (owner_id, max_running) SELECT id, 1 FROM users")
        .await;
    db.execute(&format!(
        "{numbers} INSERT INTO executions
            (workflow_id, owner_id, limit_id, workflow_version, mode, status, wait_until,
            lease_until, finished_at)
        SELECT (SELECT min(id) FROM workflows), (SELECT min(id) FROM users),
            CASE WHEN status = 'queued' AND n % 4 = 0 THEN n % 3 END, 1, 'cron', status,
            CASE status WHEN 'waiting' THEN {time} END,
            CASE status WHEN 'running' THEN {time} END,
            CASE status WHEN 'success' THEN {time} END
        FROM (SELECT n, CASE WHEN n % 20 = 0 THEN 'waiting' WHEN n % 1000 = 1 THEN 'running'
            WHEN n > {ROWS} * 0.95 THEN 'queued' ELSE 'success' END AS status FROM t) AS rows"
    ))
    .await;
}

pub(crate) async fn plan(connection: &DatabaseConnection, statement: Statement) -> String {
    let backend = connection.get_database_backend();
    let (explain, column) = match backend {
        DbBackend::Postgres => ("EXPLAIN (COSTS OFF)", "QUERY PLAN"),
        _ => ("EXPLAIN QUERY PLAN", "detail"),
    };
    let values = statement.values.map(|values| values.0).unwrap_or_default();
    let sql = format!("{explain} {}", statement.sql);
    let rows = connection
        .query_all_raw(Statement::from_sql_and_values(backend, sql, values))
        .await
        .expect("a plan");
    let lines = rows.iter().map(|row| row.try_get::<String>("", column));
    let lines: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    lines.join("\n")
}

async fn rows_are_found_by_index(db: TestDb) {
    fill(&db).await;
    let connection = db.outside().await;
    let backend = connection.get_database_backend();
    let now = chrono::DateTime::from_timestamp(1_767_225_700, 0).expect("a time");
    let (time, limit) = (Value::from(now), Value::from(10_i64));
    let bounds = [Value::from(1_i64 << 26), 1_i64.into()];
    let of = |sql: &str, values: &[&[Value]]| {
        Statement::from_sql_and_values(backend, sql, values.concat())
    };
    let order = ["idx_executions_next"].as_slice();
    let late = ["idx_executions_leases"].as_slice();
    let strays = ["idx_executions_status_id"].as_slice();
    let prune = StatementBuilder::build(&delete(backend, ended(now, now, 1_000)), &backend);
    let mut statements = vec![(prune, ["idx_executions_finished"].as_slice())];
    let range = |low: i64, high: i64| ["default".into(), low.into(), high.into()];
    let ranges = [range(2, 9), range(0, 1)].concat();
    let until = match backend {
        DbBackend::Postgres => 60_000_000_i64.into(),
        _ => time.clone(),
    };
    let worker = ["w".into(), until, time.clone()];
    let at = std::slice::from_ref(&time);
    let (one, many) = (claim(backend, false, 2), claim(backend, true, 2));
    statements.push((of(&one, &[&worker, &ranges]), order));
    if backend == DbBackend::Postgres {
        let many = many.replace("{limit}", "10");
        let maintain = maintain_postgres(Scope::All, 2);
        statements.extend([
            (of(&many, &[&worker, &bounds, &ranges]), order),
            (
                of(&maintain, &[at, &ranges]),
                &[
                    "idx_executions_next",
                    "idx_executions_leases",
                    "idx_executions_due",
                ],
            ),
            (of(&RECOVER_POSTGRES, &[&[time, limit], &bounds]), strays),
        ]);
    } else {
        let most = std::slice::from_ref(&limit);
        let [trim, note, recover, promote] = &*MAINTAIN_SQLITE;
        let due = ["idx_executions_due"].as_slice();
        statements.extend([
            (of(&many, &[&worker, &bounds, most, &ranges]), order),
            (
                of(&LOOK_SQLITE, &[at]),
                &["idx_executions_leases", "idx_executions_due"],
            ),
            (of(trim, &[at]), late),
            (of(note, &[at]), late),
            (of(recover, &[at]), late),
            (of(promote, &[at]), due),
            (of(&park_sqlite(2), &[&ranges]), order),
        ]);
        let [_, _, recover] = &*RECOVER_SQLITE;
        let values = [time.clone(), limit, time];
        statements.push((of(recover, &[&values, &bounds]), strays));
    }
    for (statement, _) in &statements {
        if is_look(&statement.sql) {
            let plan = plan(&connection, statement.clone()).await;
            assert!(!plan.contains("idx_executions_status_id"), "{plan}");
        }
    }
    db.execute("ANALYZE").await;
    check(&connection, statements).await;
    connection.close().await.expect("it closes");
}

async fn limits_are_found_by_index(db: TestDb) {
    fill(&db).await;
    let connection = db.outside().await;
    let backend = connection.get_database_backend();
    let of = |sql: &str, values: &[Value]| {
        let sql = by_backend(backend, sql);
        Statement::from_sql_and_values(backend, sql, values.to_vec())
    };
    let (id, count) = (Value::from(1_i64), Value::from(10_i64));
    let (one, two) = ([id.clone()], [id.clone(), count.clone()]);
    let of_queue = [id.clone(), "default".into(), count.clone()];
    let moved = MOVE.replace("{column}", "workflow_id");
    let counted = LIMITS.replace("{which}", "l.id = $1");
    let parked = ["idx_executions_parked"].as_slice();
    let order = ["idx_executions_next"].as_slice();
    let running = [
        "idx_executions_running_owner",
        "idx_executions_running_workflow",
    ];
    let mut statements = vec![
        (of(UNPARK, &of_queue), parked),
        (of(&moved, &[id.clone(), id.clone(), id.clone()]), parked),
        (of(RELEASE, &two), parked),
        (of(EMPTIED, &one), parked),
        (of(LOST, &[]), parked),
        (of(&counted, &one), running.as_slice()),
    ];
    let ranges = ["default".into(), 0_i64.into(), 9_i64.into()];
    let look = look(backend, 1).replace("{limit}", "16");
    let park = park(backend, "owner_id", 1);
    let key = [id.clone(), id];
    statements.extend([
        (of(&look, &ranges), order),
        (of(&park, &[key.as_slice(), &ranges].concat()), order),
    ]);
    db.execute("ANALYZE").await;
    check(&connection, statements).await;
    connection.close().await.expect("it closes");
}

/// Returns whether it looks after the queues, which each process does once a second.
fn is_look(sql: &str) -> bool {
    sql.contains("promoted") || sql.contains("'waiting'")
}

/// Returns the plan that PostgreSQL keeps for a statement, whatever its values are.
async fn kept_plan(connection: &DatabaseConnection, statement: &Statement) -> String {
    let backend = connection.get_database_backend();
    let count = statement.values.iter().map(|values| values.0.len()).sum();
    let values = vec!["NULL"; count].join(", ");
    let values = if count == 0 {
        values
    } else {
        format!("({values})")
    };
    for sql in [
        "SET plan_cache_mode = force_generic_plan".to_owned(),
        format!("PREPARE kept AS {}", statement.sql),
    ] {
        connection.execute_unprepared(&sql).await.expect("prepared");
    }
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE kept{values}");
    let explain = Statement::from_string(backend, explain);
    let rows = connection.query_all_raw(explain).await.expect("a plan");
    let done = "DEALLOCATE kept; RESET plan_cache_mode";
    connection.execute_unprepared(done).await.expect("reset");
    let lines = rows
        .iter()
        .map(|row| row.try_get::<String>("", "QUERY PLAN"));
    let lines: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    lines.join("\n")
}

async fn check(connection: &DatabaseConnection, statements: Vec<(Statement, &[&str])>) {
    for (statement, indexes) in statements {
        // Of those that were found, to add up what their documents have; and of limits.
        let few = ["WINDOW", "ORDER BY l.id", "ORDER BY found.id"];
        let few = few.map(|sorted| usize::from(statement.sql.contains(sorted)));
        let sorts: usize = few.iter().sum();
        let mut plans = Vec::new();
        let is_claim = statement.sql.contains("range_0") && !is_look(&statement.sql);
        if connection.get_database_backend() == DbBackend::Postgres && is_claim {
            plans.push(kept_plan(connection, &statement).await);
        }
        plans.push(plan(connection, statement).await);
        for plan in plans {
            for index in indexes {
                assert!(plan.contains(index), "{index}:\n{plan}");
            }
            assert!(!plan.contains("Seq Scan on executions"), "{plan}");
            let sorted: usize = ["Sort Key", "FOR ORDER BY"]
                .map(|sort| plan.matches(sort).count())
                .iter()
                .sum();
            assert!(sorted <= sorts, "{sorted} sorts:\n{plan}");
        }
    }
}
