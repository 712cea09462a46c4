//! Memory: large rows are read in parts, however many are asked for. In a process of its own,
//! because a process's most is that of all its tests.

use testdb::process::{Running, asked, command};
use testdb::{Backend, TestDb};

use crate::workflow;

testdb::both!(migrated: large_rows_are_read_in_parts);

const READER: &str = env!("CARGO_BIN_EXE_reader");

/// What is read at once, 64 MiB, several times: SQLite keeps what an update returns until the
/// last of it is read, and the allocator what was freed by other threads. All rows are 480.
const MEMORY: u64 = 400;

/// Fills two tables with rows of four MiB.
async fn fill(test: &TestDb, rows: usize) {
    let (numbers, document) = match test.backend() {
        Backend::Sqlite => (
            format!(
                "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {rows})"
            ),
            "'\"' || hex(zeroblob(2097152)) || '\"'",
        ),
        Backend::Postgres => (
            format!("WITH t AS (SELECT n FROM generate_series(1, {rows}) AS n)"),
            "CAST('\"' || repeat('0', 4194304) || '\"' AS json)",
        ),
    };
    test.execute(&format!(
        "{numbers} INSERT INTO executions (workflow_id, workflow_version, mode, status, data) \
         SELECT (SELECT min(id) FROM workflows), 1, 'cron', 'queued', {document} FROM t"
    ))
    .await;
    test.execute(&format!(
        "{numbers} INSERT INTO workflows (name, owner_id, nodes) \
         SELECT 'w', (SELECT min(id) FROM users), {document} FROM t"
    ))
    .await;
}

async fn large_rows_are_read_in_parts(test: TestDb) {
    let rows = if asked("AURA_TORTURE").is_some() {
        400
    } else {
        120
    };
    workflow(&test).await;
    fill(&test, rows).await;
    // With the workflow that they belong to.
    let reads = [
        ("pages", rows + 1),
        ("stream", rows + 1),
        ("claims", rows),
        ("expired", rows),
    ];
    for (how, expected) in reads {
        if how == "expired" {
            test.execute("UPDATE executions SET lease_until = created_at")
                .await;
        }
        let mut reader = command(READER, &test.work(), &test.variables());
        let ended = Running::start(reader.arg(how)).end();
        assert!(ended.status.success(), "{how}: {ended:?}");
        let (count, grown) = ended.stdout.trim().split_once(' ').expect("two numbers");
        println!(
            "{how}: {count} rows of 4 MiB in {grown} MiB, {:?}",
            ended.took
        );
        assert_eq!(count, expected.to_string(), "{how}");
        let grown: u64 = grown.parse().expect("a number");
        assert!(grown < MEMORY, "{how}: {grown} MiB");
    }
}
