//! That a long log is read and pruned by index.

use std::time::Duration;

use aura_orm::page::PageStart;
use entity::{ExecutionMode, ExecutionStatus, LogLevel};
use sea_orm::sea_query::{Order, Query};
use sea_orm::{
    Condition, DatabaseConnection, DbBackend, QueryOrder, QuerySelect, QueryTrait, Statement,
    StatementBuilder, Value,
};
use testdb::{Backend, TestDb};

use super::{LogFilter, Logs, PRUNE_POSTGRES, PRUNE_SQLITE};
use crate::repositories::executions::ExecutionFilter;
use crate::repositories::executions::plans::plan;
use crate::repositories::own_page::on_page;
use crate::{Database, PageRequest};

testdb::both!(migrated:
    entries_are_found_by_index, own_entries_are_found_by_index, own_pages_are_read_by_workflow,
);

/// Of a user with few workflows, or as many as there are.
async fn own_entries_are_found_by_index(test: TestDb) {
    fill(&test).await;
    test.execute(
        "INSERT INTO users (name, email, hashed_password) VALUES ('b', 'b@b.org', 'x'); \
         UPDATE workflows SET owner_id = 2 WHERE id IN (SELECT min(id) FROM workflows)",
    )
    .await;
    test.execute(
        "INSERT INTO executions (workflow_id, workflow_version, mode, status, created_at) \
         SELECT workflow_id, 1, 'cron', CASE id % 7 WHEN 0 THEN 'error' ELSE 'success' END, created_at \
         FROM logs ORDER BY id",
    )
    .await;
    test.execute("ANALYZE").await;
    let connection = test.outside().await;
    let backend = connection.get_database_backend();
    let all = "idx_logs_workflow_id_id_created_at";
    let time = chrono::DateTime::from_timestamp(1_767_250_000, 0).expect("a time");
    for (filter, index) in [
        (LogFilter::new(), all),
        (LogFilter::new().level(LogLevel::Error), "idx_logs_severe"),
        (LogFilter::new().at_least(LogLevel::Warn), "idx_logs_severe"),
        (LogFilter::new().level(LogLevel::Info), all),
        (LogFilter::new().from(time), all),
        (LogFilter::new().until(time), all),
        (LogFilter::new().text("nothing like it"), all),
    ] {
        let filter = filter.0.condition(backend).expect("a filter");
        reads_by_workflow(&connection, "logs", filter, index).await;
    }
    let (all, running) = ("idx_executions_workflow_id_id", ExecutionStatus::Running);
    for (filter, index) in [
        (ExecutionFilter::new(), all),
        (
            ExecutionFilter::new().status(running),
            "idx_executions_open",
        ),
        (
            ExecutionFilter::new().status(ExecutionStatus::Error),
            "idx_executions_failed",
        ),
        (ExecutionFilter::new().mode(ExecutionMode::Webhook), all),
        (ExecutionFilter::new().worker("w"), all),
        (ExecutionFilter::new().until(time), all),
    ] {
        let filter = filter.0.condition(backend).expect("a filter");
        reads_by_workflow(&connection, "executions", filter, index).await;
    }
    connection.close().await.expect("it closes");
}

/// In both orders, of either user.
async fn reads_by_workflow(
    connection: &DatabaseConnection,
    table: &'static str,
    filter: Condition,
    index: &str,
) {
    let backend = connection.get_database_backend();
    for owner in [1, 2] {
        for (descending, order) in [(true, Order::Desc), (false, Order::Asc)] {
            let start = PageStart {
                beyond: 50_000,
                descending,
                rows: 51,
            };
            let owner = entity::UserId(owner);
            let found = on_page(table, backend, owner, start, filter.clone());
            let rows = Query::select()
                .column("id")
                .from(table)
                .cond_where(found)
                .order_by((table, "id"), order)
                .limit(51)
                .take();
            let plan = plan(connection, StatementBuilder::build(&rows, &backend)).await;
            assert!(plan.contains(index), "{index} for {filter:?}:\n{plan}");
            let mut costly = vec!["Seq Scan on", "SCAN"];
            if filter.is_empty() {
                // With a filter it may read all rows of a workflow.
                costly.push("Bitmap Heap Scan on");
            }
            for costly in costly {
                let costly = format!("{costly} {table}");
                assert!(!plan.contains(&costly), "{costly} for {filter:?}:\n{plan}");
            }
        }
    }
}

/// In both directions, and by number.
async fn own_pages_are_read_by_workflow(test: TestDb) {
    fill(&test).await;
    let db = Database::connect(test.plain_config()).await.expect("open");
    let ada = db.users().get(1.into()).await.expect("there");
    let own = db.restricted_to(&ada).logs();
    let page = async |page| own.list(LogFilter::new(), page).await.expect("a page");
    let first = page(PageRequest::first(20)).await;
    let second = page(PageRequest::after(first.next.clone().expect("more"), 20)).await;
    let back = page(PageRequest::before(
        second.previous.clone().expect("more"),
        20,
    ))
    .await;
    assert_eq!(back.items, first.items);
    let numbered = page(PageRequest::number(2, 20)).await;
    assert_eq!(
        (numbered.items, numbered.total),
        (second.items, Some(100_000))
    );
    let Logs(handle) = &own;
    let statements = handle.statements();
    let mut lists = statements
        .keys()
        .filter(|sql| sql.contains(r#"ORDER BY "logs""#));
    assert!(lists.all(|sql| sql.contains("firsts")), "{statements:#?}");
    db.close().await;
}

/// A hundred thousand, of a hundred workflows, one a second.
async fn fill(db: &TestDb) {
    let (numbers, time) = match db.backend() {
        Backend::Sqlite => (
            "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 100000)",
            "strftime('%Y-%m-%dT%H:%M:%f+00:00', 1767225600 + n, 'unixepoch')",
        ),
        Backend::Postgres => (
            "WITH t AS (SELECT n FROM generate_series(1, 100000) AS n)",
            "to_timestamp(1767225600 + n)",
        ),
    };
    db.execute("INSERT INTO users (name, email, hashed_password) VALUES ('a', 'a@b.org', 'x')")
        .await;
    db.execute(&format!(
        "{numbers} INSERT INTO workflows (name, owner_id)
        SELECT 'w', (SELECT id FROM users) FROM t WHERE n <= 100"
    ))
    .await;
    db.execute(&format!(
        "{numbers} INSERT INTO logs (level, message, workflow_id, created_at)
        SELECT 'info', 'something happened', (SELECT min(id) FROM workflows) + n % 100, {time} FROM t"
    ))
    .await;
    db.execute("ANALYZE").await;
}

async fn entries_are_found_by_index(test: TestDb) {
    fill(&test).await;
    let connection = test.outside().await;
    let backend = connection.get_database_backend();
    let db = Database::connect(test.plain_config()).await.expect("open");
    let Logs(handle) = db.logs();
    let workflows = test.lines("SELECT CAST(min(id) AS text) AS line FROM workflows");
    let workflow = entity::WorkflowId(workflows.await[0].parse().expect("an id"));

    let start = chrono::DateTime::from_timestamp(1_767_225_600, 0).expect("a time");
    let minute = |filter: LogFilter| {
        let from = start + Duration::from_hours(2);
        filter.from(from).until(from + Duration::from_mins(1))
    };
    let newest = |filter: LogFilter| {
        let select = filter.0.select(&handle).expect("a filter");
        let ordered = select.order_by_desc(super::logs::Column::Id).limit(51);
        ordered.build(backend)
    };
    let prune = match backend {
        DbBackend::Postgres => PRUNE_POSTGRES,
        _ => PRUNE_SQLITE,
    };
    // Few are old enough, or half of all.
    let [few, half] = [0, 50_000].map(|seconds| {
        let before = start + Duration::from_secs(seconds);
        let values = [Value::from(before), 1_000_i64.into()];
        Statement::from_sql_and_values(backend, prune, values)
    });
    let (of_workflow, of_time) = (
        "idx_logs_workflow_id_id_created_at",
        "idx_logs_created_at_id",
    );
    for (statement, index) in [
        (few, of_time),
        (half, of_time),
        (newest(minute(LogFilter::new())), of_time),
        (newest(LogFilter::workflow(workflow)), of_workflow),
    ] {
        let plan = plan(&connection, statement).await;
        assert!(plan.contains(index), "{index}:\n{plan}");
        assert!(!plan.contains("Seq Scan on logs"), "{plan}");
    }
    // PostgreSQL may choose: a minute of all has fewer entries than the workflow.
    let plan = plan(&connection, newest(minute(LogFilter::workflow(workflow)))).await;
    assert!(
        plan.contains(of_workflow) || backend == DbBackend::Postgres && plan.contains(of_time),
        "{plan}"
    );
    db.close().await;
    connection.close().await.expect("it closes");
}
