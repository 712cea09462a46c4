//! Each step is proved with rows in the tables before it, and the plans do
//! what they promise to our tables and nothing to anybody else's.

use migration::{Difference, Direction, Done, Error, HISTORY, Migration, Plan, Runner, State};
use sea_orm::{ConnectionTrait, DbBackend};
use testdb::{Backend, TestDb};

testdb::both!(
empty: each_step_is_undone_without_a_trace,
    up_down_up_gives_the_snapshot,
    up_stops_after_the_number_of_steps,
    a_step_that_fails_takes_the_whole_run_with_it,
    an_index_that_is_gone_or_there_is_no_obstacle;
migrated: down_reverses_the_last_steps,
    down_on_nothing_does_nothing,
    reset_leaves_no_trace,
    refresh_empties_every_table,
    fresh_works_after_a_table_was_dropped_by_hand,
    tables_of_an_application_survive,
    a_table_that_refers_to_ours_keeps_ours,
    dangling_rows_of_an_application_are_its_own,
    rows_left_dangling_take_the_run_back,
);

async fn each_step_is_undone_without_a_trace(db: TestDb) {
    let runner = migration::runner();
    let owned = runner.tables();
    assert_eq!(
        owned,
        testdb::ROWS
            .iter()
            .map(|(table, _)| *table)
            .collect::<Vec<_>>(),
        "a table needs rows to be proved with"
    );
    for step in runner.migrations() {
        let before = dump(&db).await;
        run(&db, Plan::Up(Some(1))).await;
        assert_ne!(dump(&db).await, before, "{} does nothing", step.name());
        run(&db, Plan::Down(1)).await;
        // Rows that were changed in batches stay so, and a constraint that was validated.
        if step.batches().is_none() {
            let after = dump(&db).await;
            let valid = |dump: &str| dump.replace(" NOT VALID", "");
            assert_eq!(valid(&after), valid(&before), "{}", step.name());
        }

        run(&db, Plan::Up(Some(1))).await;
        for (table, rows) in testdb::ROWS
            .iter()
            .filter(|(name, _)| step.tables().contains(name))
        {
            db.execute(&format!("INSERT INTO {table} {rows}")).await;
        }
    }
    let full = dump(&db).await;
    assert!(full.contains("Zoë 'Z' 李"), "{full}");
    assert_eq!(losses(&db).await, owned, "every table has rows");
}

/// Of every form that a default, a seed and other programs wrote; and from now on by default.
#[tokio::test(flavor = "multi_thread")]
async fn times_on_sqlite_have_six_digits() {
    let db = TestDb::empty(Backend::Sqlite).await;
    run(&db, Plan::Up(Some(14))).await;
    // As the steps before made the tables in earlier versions.
    let connection = db.outside().await;
    for sql in [
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, '%f000+00:00', '%f+00:00') WHERE type = 'table'",
        "PRAGMA writable_schema = RESET",
    ] {
        connection.execute_unprepared(sql).await.expect("it runs");
    }
    connection.close().await.expect("it closes");
    let new = "INSERT INTO users (name, email, hashed_password";
    let forms = ["", ".5", ".120", ".123456", ".123456789"];
    for (nth, fraction) in forms.iter().enumerate() {
        let time = format!("2026-01-31T12:00:00{fraction}+00:00");
        db.execute(&format!(
            "{new}, created_at, deleted_at) VALUES ('a', '{nth}@b.org', 'x', '{time}', \
             CASE {nth} WHEN 1 THEN '{time}' END)"
        ))
        .await;
    }
    db.execute(&format!("{new}) VALUES ('a', 'before@b.org', 'x')"))
        .await;
    let lengths = "SELECT DISTINCT CAST(length(created_at) AS text) AS line FROM users ORDER BY 1";
    assert_eq!(db.lines(lengths).await.len(), 5);

    run(&db, Plan::Up(None)).await;
    db.execute(&format!("{new}) VALUES ('a', 'after@b.org', 'x')"))
        .await;
    assert_eq!(db.lines(lengths).await, ["32"]);
    let times = "SELECT substr(created_at, 20) || coalesce(' ' || substr(deleted_at, 20), '') \
         AS line FROM users WHERE id <= 5 ORDER BY id";
    let expected = [
        ".000000+00:00",
        ".500000+00:00 .500000+00:00",
        ".120000+00:00",
        ".123456+00:00",
        ".123456+00:00",
    ];
    assert_eq!(db.lines(times).await, expected);
    assert_eq!(check(&db).await, []);
    let whole = "SELECT integrity_check AS line FROM pragma_integrity_check";
    assert_eq!(db.lines(whole).await, ["ok"]);
}

async fn up_down_up_gives_the_snapshot(db: TestDb) {
    let steps = u32::try_from(migration::steps().len()).expect("few steps");
    let applied = run(&db, Plan::Up(None)).await;
    let reversed = run(&db, Plan::Down(steps)).await;
    assert!(applied.iter().all(|step| step.direction == Direction::Up));
    assert!(
        reversed
            .iter()
            .all(|step| step.direction == Direction::Down),
        "{reversed:?}"
    );
    let names = |done: &[Done]| {
        done.iter()
            .map(|step| step.name.clone())
            .collect::<Vec<_>>()
    };
    let mut backwards = names(&reversed);
    backwards.reverse();
    assert_eq!(names(&applied), backwards);
    assert_eq!(ours(&db).await, [HISTORY]);

    run(&db, Plan::Up(None)).await;
    assert_eq!(check(&db).await, []);
    assert_eq!(run(&db, Plan::Up(None)).await, [], "a second time");
}

async fn up_stops_after_the_number_of_steps(db: TestDb) {
    let done = run(&db, Plan::Up(Some(2))).await;
    let steps = migration::steps();
    assert_eq!(done.len(), 2);
    assert_eq!(done[1].name, steps[1].name());
    let State::Behind { pending } = db.state().await else {
        panic!("the schema is behind")
    };
    assert_eq!(pending.len(), steps.len() - 2);
}

async fn down_reverses_the_last_steps(db: TestDb) {
    let steps = migration::steps();
    let reversed = run(&db, Plan::Down(3)).await;
    let expected: Vec<&str> = steps.iter().rev().take(3).map(|step| step.name()).collect();
    assert_eq!(
        reversed
            .iter()
            .map(|step| step.name.as_str())
            .collect::<Vec<_>>(),
        expected
    );
    run(&db, Plan::Up(None)).await;
    assert_eq!(check(&db).await, []);
}

async fn down_on_nothing_does_nothing(db: TestDb) {
    run(&db, Plan::Reset).await;
    for plan in [Plan::Down(1), Plan::Down(u32::MAX), Plan::Reset] {
        assert_eq!(run(&db, plan).await, [], "{plan:?}");
        assert_eq!(db.state().await, State::Empty);
    }
}

async fn reset_leaves_no_trace(db: TestDb) {
    db.fill().await;
    let reversed = run(&db, Plan::Reset).await;
    assert_eq!(reversed.len(), migration::steps().len());
    assert_eq!(ours(&db).await, Vec::<String>::new());
    assert_eq!(db.state().await, State::Empty);
}

async fn refresh_empties_every_table(db: TestDb) {
    db.fill().await;
    let done = run(&db, Plan::Refresh).await;
    assert_eq!(done.len(), 2 * migration::steps().len());
    assert_eq!(losses(&db).await, [""; 0]);
    assert_eq!(check(&db).await, []);
    assert_eq!(db.state().await, State::Current);
}

async fn fresh_works_after_a_table_was_dropped_by_hand(db: TestDb) {
    db.fill().await;
    db.execute("DROP TABLE workflow_versions").await;
    let error = refused(&migration::runner(), &db, Plan::Reset).await;
    assert!(matches!(error, Error::Step { .. }), "{error}");

    run(&db, Plan::Fresh).await;
    assert_eq!(losses(&db).await, [""; 0]);
    assert_eq!(check(&db).await, []);
    assert_eq!(db.state().await, State::Current);
}

async fn tables_of_an_application_survive(db: TestDb) {
    for sql in [
        "CREATE TABLE seaql_migrations (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL)",
        "INSERT INTO seaql_migrations VALUES ('m20200101_000001_notes', 1577836800)",
        "CREATE TABLE notes (id bigint PRIMARY KEY, author bigint, body text)",
        "INSERT INTO notes VALUES (1, 1, 'theirs')",
    ] {
        db.execute(sql).await;
    }
    let theirs = ["notes", "seaql_migrations"];
    let before = db.dump(&theirs).await;
    assert!(
        before.contains("theirs") && before.contains("1577836800"),
        "{before}"
    );
    for plan in [
        Plan::Refresh,
        Plan::Fresh,
        Plan::Down(3),
        Plan::Reset,
        Plan::Up(None),
    ] {
        fill_if_current(&db).await;
        run(&db, plan).await;
        assert_eq!(db.dump(&theirs).await, before, "{plan:?}");
    }
    assert_eq!(check(&db).await, [], "they are none of our business");
}

async fn a_table_that_refers_to_ours_keeps_ours(db: TestDb) {
    let down = Plan::Down(testdb::steps_since("agents"));
    db.fill().await;
    db.execute(
        "CREATE TABLE badges (id bigint PRIMARY KEY, agent_id bigint REFERENCES agents (id))",
    )
    .await;
    // Without rows too: what refers to a missing table can't be written to.
    for rows in ["", "INSERT INTO badges VALUES (1, 2)"] {
        db.execute(rows).await;
        let before = dump(&db).await;
        for plan in [down, Plan::Reset, Plan::Refresh, Plan::Fresh] {
            let error = refused(&migration::runner(), &db, plan).await;
            assert!(matches!(error, Error::Referenced(_)), "{plan:?}: {error:?}");
            assert!(error.to_string().contains("badges to agents"), "{error}");
            assert_eq!(dump(&db).await, before, "{plan:?}");
        }
    }
    db.execute("DROP TABLE badges").await;
    run(&db, down).await;
}

async fn dangling_rows_of_an_application_are_its_own(db: TestDb) {
    // PostgreSQL has no such rows.
    let sql = "CREATE TABLE lists (id bigint PRIMARY KEY);
        CREATE TABLE items (list bigint REFERENCES lists (id));
        PRAGMA foreign_keys = OFF;
        INSERT INTO items VALUES (5)";
    if db.backend() == Backend::Sqlite {
        db.execute(sql).await;
    }
    run(&db, Plan::Refresh).await;
    assert_eq!(db.state().await, State::Current);
}

async fn a_step_that_fails_takes_the_whole_run_with_it(db: TestDb) {
    let error = refused(&with(&BAD), &db, Plan::Up(None)).await;
    let Error::Step { name, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(name, BAD.name);
    // Also where a service logs the error without its causes.
    assert!(error.to_string().contains("users"), "{error}");
    assert_eq!(ours(&db).await, Vec::<String>::new());

    run(&db, Plan::Up(None)).await;
    let before = dump(&db).await;
    refused(&with(&BAD), &db, Plan::Up(None)).await;
    refused(&with(&BAD), &db, Plan::Fresh).await;
    assert_eq!(dump(&db).await, before);
}

/// `up` and `down` failed for it, and for one that was built before the deploy.
async fn an_index_that_is_gone_or_there_is_no_obstacle(db: TestDb) {
    let steps = |number| Plan::Up(Some(number));
    run(&db, steps(9)).await;
    db.execute(
        r#"CREATE INDEX idx_executions_queued ON executions (id) WHERE "status" = 'queued'"#,
    )
    .await;
    run(&db, steps(2)).await;
    db.execute("DROP INDEX idx_logs_workflow_id_created_at")
        .await;
    db.execute("CREATE INDEX idx_logs_created_at_id ON logs (created_at, id)")
        .await;
    run(&db, Plan::Up(None)).await;
    assert_eq!(check(&db).await, []);

    db.execute("DROP INDEX idx_executions_next; DROP INDEX idx_logs_created_at_id")
        .await;
    run(&db, Plan::Down(11)).await;
    run(&db, Plan::Up(None)).await;
    assert_eq!(check(&db).await, []);
}

const BAD: Own = Own {
    name: "m20990101_000001_bad",
    up: "INSERT INTO users (name, email, hashed_password) VALUES ('Eve', 'eve@example.org', 'x'); \
         CREATE TABLE users (id bigint)",
};

async fn rows_left_dangling_take_the_run_back(db: TestDb) {
    db.fill().await;
    let before = dump(&db).await;
    let error = refused(&with_a_careless_step(), &db, Plan::Up(None)).await;
    match db.backend() {
        Backend::Sqlite => {
            let Error::DanglingRows(pairs) = &error else {
                panic!("{error:?}")
            };
            assert_eq!(pairs, "sessions to users");
        }
        // The statement itself is refused.
        Backend::Postgres => assert!(matches!(error, Error::Step { .. }), "{error:?}"),
    }
    assert_eq!(dump(&db).await, before);
}

fn with_a_careless_step() -> Runner {
    with(&Own {
        name: "m20990101_000001_careless",
        up: "UPDATE sessions SET user_id = 4711",
    })
}

/// A step of a test's own.
struct Own {
    name: &'static str,
    up: &'static str,
}

impl Migration for &'static Own {
    fn name(&self) -> &'static str {
        self.name
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        self.up.split("; ").map(str::to_owned).collect()
    }
}

fn with(step: &'static Own) -> Runner {
    let mut steps = migration::steps();
    steps.push(Box::new(step));
    Runner::builder().history(HISTORY).steps(steps).build()
}

async fn run(db: &TestDb, plan: Plan) -> Vec<Done> {
    let done = migration::runner().run(&db.config(), plan, |_| {}).await;
    done.unwrap_or_else(|error| panic!("{plan:?}: {error:?}"))
}

async fn refused(runner: &Runner, db: &TestDb, plan: Plan) -> Error {
    let result = runner.run(&db.config(), plan, |_| {}).await;
    result.expect_err("it is refused")
}

async fn fill_if_current(db: &TestDb) {
    if db.state().await == State::Current && losses(db).await.is_empty() {
        db.fill().await;
    }
}

async fn check(db: &TestDb) -> Vec<Difference> {
    let outside = db.outside().await;
    migration::check(&outside).await.expect("a check")
}

/// The tables that have rows.
async fn losses(db: &TestDb) -> Vec<&'static str> {
    let outside = db.outside().await;
    let losses = migration::runner().losses(&outside, Plan::Fresh).await;
    losses
        .expect("counts")
        .into_iter()
        .map(|loss| loss.table)
        .collect()
}

/// Those of our tables that exist.
async fn ours(db: &TestDb) -> Vec<String> {
    let outside = db.outside().await;
    let tables = migration::tables(&outside).await.expect("a list of tables");
    let owned = migration::runner().tables();
    let ours = tables
        .into_iter()
        .filter(|table| table == HISTORY || owned.contains(&table.as_str()));
    ours.collect()
}

/// Everything that a step may leave a trace in. Of the history and of SQLite's
/// counters only the rows: undoing the first step leaves those tables, empty.
async fn dump(db: &TestDb) -> String {
    let schema = db.dump(&migration::runner().tables()).await;
    schema + &db.rows(&[HISTORY, "sqlite_sequence"]).await
}
