//! That what workers and pruning run finds its rows by index, in a table that is
//! long.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, StatementBuilder, Value};
use testdb::{Backend, TestDb};

use super::prune::{delete, ended};
use super::sql::{
    BURY_SQLITE, CLAIM_MANY_POSTGRES, CLAIM_MANY_SQLITE, CLAIM_POSTGRES, CLAIM_SQLITE, LATE_SQLITE,
    RECOVER_POSTGRES, RECOVER_SQLITE,
};

testdb::both!(migrated: rows_are_found_by_index);

const ROWS: u32 = 200_000;

/// Nine in ten have ended; the rest are in the queue or wait, few of them until
/// a time that has come.
async fn fill(db: &TestDb) {
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
    db.execute(&format!(
        "{numbers} INSERT INTO executions
            (workflow_id, workflow_version, mode, status, wait_until, lease_until, finished_at)
        SELECT (SELECT min(id) FROM workflows), 1, 'cron', status,
            CASE status WHEN 'waiting' THEN {time} END,
            CASE status WHEN 'running' THEN {time} END,
            CASE status WHEN 'success' THEN {time} END
        FROM (SELECT n, CASE WHEN n % 20 = 0 THEN 'waiting' WHEN n % 1000 = 1 THEN 'running'
            WHEN n > {ROWS} * 0.95 THEN 'queued' ELSE 'success' END AS status FROM t) AS rows"
    ))
    .await;
    db.execute("ANALYZE").await;
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
    let (claim, many, recover_sql) = match backend {
        DbBackend::Postgres => (&*CLAIM_POSTGRES, &*CLAIM_MANY_POSTGRES, &*RECOVER_POSTGRES),
        _ => (&*CLAIM_SQLITE, &*CLAIM_MANY_SQLITE, &*RECOVER_SQLITE),
    };
    let now = chrono::DateTime::from_timestamp(1_767_225_700, 0).expect("a time");
    let time = Value::from(now);
    // PostgreSQL computes the end of a lease, and of the longest.
    let (until, longest) = match backend {
        DbBackend::Postgres => (Value::from(60_000_000_i64), None),
        _ => (time.clone(), Some(time.clone())),
    };
    let values = ["w".into(), until, time.clone(), 10_i64.into()];
    let bounds = [Value::from(1_i64 << 26), 1_i64.into()];
    let bounded = |values: &[Value]| [values, &bounds].concat();
    let many = Statement::from_sql_and_values(backend, many, bounded(&values));
    let claim = Statement::from_sql_and_values(backend, claim, values);
    let recover: Vec<_> = [time.clone(), 10_i64.into()]
        .into_iter()
        .chain(longest)
        .collect();
    let recover = Statement::from_sql_and_values(backend, recover_sql, bounded(&recover));
    let of_sqlite = |sql: &str| Statement::from_sql_and_values(backend, sql, [time.clone()]);
    let (look, bury) = (of_sqlite(&LATE_SQLITE), of_sqlite(&BURY_SQLITE));
    let prune = StatementBuilder::build(&delete(backend, ended(now, now, 1_000)), &backend);
    let work = [
        "idx_executions_due",
        "idx_executions_ready",
        "idx_executions_leases",
    ];
    let mut statements = vec![
        (claim, work.as_slice()),
        (many, work.as_slice()),
        (recover, &["idx_executions_status_id"]),
        (prune, &["idx_executions_finished"]),
    ];
    if backend == DbBackend::Sqlite {
        statements.extend([look, bury].map(|late| (late, &work[2..])));
    }
    for (statement, indexes) in statements {
        // Of those that were found, to add up what their documents have.
        let sorts = usize::from(statement.sql.contains("WINDOW"));
        let plan = plan(&connection, statement).await;
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
    connection.close().await.expect("it closes");
}
