//! What a run must not be hindered by, and what it must not do unasked.

use std::time::Duration;

use migration::{Error, Loss, Plan};
use sea_orm::ConnectionTrait;
use testdb::{Backend, TestDb};

testdb::both!(
    migrated: more_than_was_agreed_to_is_not_deleted,
        every_table_that_the_steps_make_is_known,
);

async fn more_than_was_agreed_to_is_not_deleted(db: TestDb) {
    db.fill().await;
    let runner = migration::runner();
    let outside = db.outside().await;
    let agreed = runner.losses(&outside, Plan::Reset).await.expect("counted");
    outside.close().await.expect("it closes");
    assert!(
        agreed.contains(&Loss {
            table: "logs",
            rows: 3
        }),
        "{agreed:?}"
    );

    db.execute("INSERT INTO logs (level, message, workflow_id) VALUES ('info', 'late', 1)")
        .await;
    let before = db.dump(&runner.tables()).await;
    let refused = runner
        .run_confirmed(&db.config(), Plan::Reset, &agreed, |_| {})
        .await
        .expect_err("a row came in between");
    assert!(matches!(refused, Error::MoreToLose(_)), "{refused:?}");
    assert!(refused.to_string().contains("4 rows of logs"), "{refused}");
    assert_eq!(db.dump(&runner.tables()).await, before);

    // Another process has run steps back in between: this one would now drop a
    // table that nobody was shown.
    runner
        .run(
            &db.config(),
            Plan::Down(testdb::steps_since("agents")),
            |_| {},
        )
        .await
        .expect("reversed");
    let shown = [Loss {
        table: "agents",
        rows: 2,
    }];
    let refused = runner
        .run_confirmed(&db.config(), Plan::Down(1), &shown, |_| {})
        .await
        .expect_err("logs were not shown");
    assert!(matches!(refused, Error::MoreToLose(_)), "{refused:?}");
}

async fn every_table_that_the_steps_make_is_known(db: TestDb) {
    let outside = db.outside().await;
    let mut made = migration::tables(&outside).await.expect("a list");
    outside.close().await.expect("it closes");
    made.remove(migration::HISTORY);
    made.remove("sqlite_sequence");
    let owned = migration::runner().tables().into_iter().map(str::to_owned);
    assert_eq!(made, owned.collect());
}

/// PostgreSQL has no way to make such a row.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_dangled_before_do_not_stop_a_run() {
    let db = TestDb::migrated(Backend::Sqlite).await;
    let outside = db.outside().await; // which enforces no foreign keys
    let sql = "INSERT INTO sessions (token, expires_at, user_id) VALUES ('x', '2030-01-01T00:00:00+00:00', 99); \
        CREATE TABLE app_a (n integer); CREATE TABLE app_b (n integer REFERENCES app_a (n)); \
        INSERT INTO app_b VALUES (1);";
    outside.execute_unprepared(sql).await.expect("written");
    outside.close().await.expect("it closes");
    for (plan, steps) in [
        (Plan::Down(1), 1),
        (Plan::Up(None), 1),
        (Plan::Fresh, testdb::steps()),
    ] {
        let done = migration::runner().run(&db.config(), plan, |_| {}).await;
        assert_eq!(done.expect("it runs").len(), steps);
    }
}

/// Not even those of the role, on a pooler that passes no start-up options.
#[tokio::test(flavor = "multi_thread")]
async fn time_limits_of_the_server_do_not_stop_a_run() {
    let db = TestDb::migrated(Backend::Postgres).await;
    // Down to a step that needs no session of its own.
    let down = migration::runner()
        .run(&db.config(), Plan::Down(1), |_| {})
        .await;
    down.expect("reversed");
    let name = db.lines("SELECT current_database()::text AS line").await;
    for limit in ["statement_timeout", "lock_timeout"] {
        db.execute(&format!("ALTER DATABASE {} SET {limit} = 300", name[0]))
            .await;
    }
    let other = db.outside().await;
    let held = "BEGIN; LOCK TABLE executions IN ACCESS EXCLUSIVE MODE";
    other.execute_unprepared(held).await.expect("it begins");
    let config = db.config_with(&[("DB_PREPARED_STATEMENTS", "false")]);
    let run = tokio::spawn(async move {
        migration::runner()
            .run(&config, Plan::Down(1), |_| {})
            .await
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!run.is_finished(), "it waits");
    other.execute_unprepared("COMMIT").await.expect("it ends");
    let done = run.await.expect("no panic");
    assert_eq!(done.expect("it only had to wait").len(), 1);
    other.close().await.expect("it closes");
}
