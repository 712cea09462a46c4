//! A run, and a service that starts, do the right thing in each state that a
//! database can be in.

use migration::{Done, Error, HISTORY, Plan, State};
use testdb::{Backend, TestDb};

testdb::both!(
    empty: nothing_is_empty, half_is_behind, tables_of_another_program_are_foreign, a_view_with_the_name_of_a_table_is_foreign;
    migrated: all_is_current,
        a_future_step_is_ahead,
        a_future_step_in_place_of_ours_is_diverged,
        an_emptied_history_is_foreign,
);

#[tokio::test]
async fn a_database_in_memory_is_migrated_on_its_one_connection() {
    let config = connection::Config::memory();
    let connection = connection::connect_exclusive(&config).await.expect("opens");
    let done = migration::runner().up_in_memory(&connection, |_| {}).await;
    assert_eq!(done.expect("it runs").len(), testdb::steps());
    let found = migration::state(&connection).await.expect("a state");
    assert_eq!(found, State::Current);
}

const PLANS: [Plan; 5] = [
    Plan::Up(None),
    Plan::Down(1),
    Plan::Reset,
    Plan::Refresh,
    Plan::Fresh,
];

fn require(state: State) -> Result<(), Error> {
    migration::runner().require(state)
}

async fn nothing_is_empty(db: TestDb) {
    assert_eq!(db.state().await, State::Empty);
    let error = require(State::Empty).expect_err("there is no schema");
    assert!(error.to_string().contains("migration -- up"), "{error}");
    // What `down` to the bottom leaves: a history without lines.
    run(&db, Plan::Up(None)).await.expect("applied");
    run(&db, Plan::Down(u32::MAX)).await.expect("reversed");
    assert_eq!(db.state().await, State::Empty);
}

async fn half_is_behind(db: TestDb) {
    let steps = migration::steps();
    let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    run(&db, Plan::Up(Some(4))).await.expect("applied");
    let behind = db.state().await;
    let State::Behind { pending } = &behind else {
        panic!("{behind:?}")
    };
    assert_eq!(pending, &names[4..]);
    let error = require(behind).expect_err("the schema is behind");
    assert!(error.to_string().contains(names[8]), "{error}");
}

async fn all_is_current(db: TestDb) {
    let current = db.state().await;
    assert_eq!(current, State::Current);
    require(current).expect("all that a service needs");
}

async fn a_future_step_is_ahead(db: TestDb) {
    add_future_step(&db).await;
    let ahead = db.state().await;
    let unknown = vec!["m20991231_000001_wings".to_owned()];
    assert_eq!(ahead, State::Ahead { unknown });
    require(ahead).expect("an older service goes on");
    everything_is_refused(&db, "newer", &PLANS[..4]).await;
    run(&db, Plan::Fresh).await.expect("it starts over");
    assert_eq!(db.state().await, State::Current);
}

async fn a_future_step_in_place_of_ours_is_diverged(db: TestDb) {
    run(&db, Plan::Down(1)).await.expect("reversed");
    add_future_step(&db).await;
    let diverged = db.state().await;
    assert!(
        matches!(&diverged, State::Diverged { pending, unknown } if pending.len() == 1 && unknown.len() == 1),
        "{diverged:?}"
    );
    require(diverged).expect_err("tables are missing");
    everything_is_refused(&db, "does not know", &PLANS[..4]).await;
}

async fn tables_of_another_program_are_foreign(db: TestDb) {
    db.execute("CREATE TABLE logs (line text)").await;
    db.execute("INSERT INTO logs VALUES ('theirs')").await;
    let foreign = db.state().await;
    let tables = vec!["logs".to_owned()];
    assert_eq!(foreign, State::Foreign { tables });
    require(foreign).expect_err("these tables are not ours");
    everything_is_refused(&db, "another program", &PLANS).await;
    assert_eq!(db.rows(&["logs"]).await, "logs: theirs\n");
}

async fn a_view_with_the_name_of_a_table_is_foreign(db: TestDb) {
    let name = match db.backend() {
        Backend::Sqlite => "Users", // which is `users` to SQLite
        Backend::Postgres => "users",
    };
    db.execute(&format!("CREATE VIEW {name} AS SELECT 1 AS id"))
        .await;
    assert!(matches!(db.state().await, State::Foreign { .. }));
    run(&db, Plan::Up(None)).await.expect_err("it is theirs");
}

async fn an_emptied_history_is_foreign(db: TestDb) {
    db.fill().await;
    db.execute(&format!("DELETE FROM {HISTORY}")).await;
    assert!(matches!(db.state().await, State::Foreign { .. }));
    everything_is_refused(&db, "there is no history", &PLANS).await;
}

async fn add_future_step(db: &TestDb) {
    let sql = format!("INSERT INTO {HISTORY} VALUES ('m20991231_000001_wings', 4102358400)");
    db.execute(&sql).await;
}

/// Every plan is refused with this word, and none changes anything.
async fn everything_is_refused(db: &TestDb, word: &str, plans: &[Plan]) {
    let outside = db.outside().await;
    let tables = migration::tables(&outside).await.expect("a list");
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let before = db.dump(&tables).await;
    for plan in plans.iter().copied() {
        let error = run(db, plan).await.expect_err("it is refused");
        assert!(matches!(error, Error::Schema { .. }), "{plan:?}: {error:?}");
        assert!(error.to_string().contains(word), "{plan:?}: {error}");
        assert_eq!(db.dump(&tables).await, before, "{plan:?}");
    }
}

async fn run(db: &TestDb, plan: Plan) -> Result<Vec<Done>, Error> {
    migration::runner().run(&db.config(), plan, |_| {}).await
}

/// Two schemas of one PostgreSQL database are two databases to us.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_one_database_are_migrated_apart() {
    let db = TestDb::migrated(Backend::Postgres).await;
    db.execute("CREATE SCHEMA \"Second place\"").await;
    let second = db.config_with(&[("DB_SCHEMA", "Second place")]);
    let runner = migration::runner();
    let done = runner.run(&second, Plan::Up(None), |_| {}).await;
    assert_eq!(done.expect("applied").len(), runner.migrations().len());
    db.fill().await;
    let before = db.dump(&runner.tables()).await;
    let done = runner.run(&second, Plan::Reset, |_| {}).await;
    assert_eq!(done.expect("reversed").len(), runner.migrations().len());
    assert_eq!(db.dump(&runner.tables()).await, before);
    assert_eq!(db.state().await, State::Current);
}
