//! Steps outside of a transaction, and table locks that aren't granted.

mod batches;
mod locks;

use std::sync::{Arc, Mutex};

use migration::{Blocker, Done, Error, Event, Migration, Plan, Runner};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use testdb::TestDb;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

testdb::both!(migrated:
    a_step_outside_cuts_the_run,
    a_failure_behind_it_keeps_what_came_before,
    where_tables_are_new_all_is_one_transaction,
    each_step_is_run_once_by_many_at_once,
);

testdb::postgres!(migrated:
    a_build_that_failed_is_dropped_and_built_again,
    a_build_waits_for_no_run_that_waits_for_it,
    a_build_that_was_done_and_not_noted_is_noted,
    a_pooler_is_refused,
);

const APP: &str = "app_migrations";

/// A step of statements.
struct Sql {
    name: &'static str,
    tables: &'static [&'static str],
    up: &'static str,
    down: &'static str,
    transactional: bool,
}

impl Migration for &'static Sql {
    fn name(&self) -> &'static str {
        self.name
    }

    fn tables(&self) -> &'static [&'static str] {
        self.tables
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        split(self.up, backend)
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        split(self.down, backend)
    }

    fn transactional(&self) -> bool {
        self.transactional
    }
}

fn split(sql: &str, backend: DbBackend) -> Vec<String> {
    let sql = match backend {
        DbBackend::Postgres => sql.to_owned(),
        _ => sql.replace("CONCURRENTLY ", ""),
    };
    let statements = sql.split("; ").filter(|sql| !sql.is_empty());
    statements.map(str::to_owned).collect()
}

static TABLE: Sql = Sql {
    name: "m1_table",
    tables: &["things"],
    up: "CREATE TABLE things (a bigint)",
    down: "DROP TABLE things",
    transactional: true,
};

static INDEX: Sql = Sql {
    name: "m2_index",
    tables: &[],
    up: "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS things_a ON things (a)",
    down: "DROP INDEX CONCURRENTLY IF EXISTS things_a",
    transactional: false,
};

static COLUMN: Sql = Sql {
    name: "m3_column",
    tables: &[],
    up: "ALTER TABLE things ADD COLUMN b bigint",
    down: "ALTER TABLE things DROP COLUMN b",
    transactional: true,
};

static BROKEN: Sql = Sql {
    name: "m3_column",
    tables: &[],
    up: "ALTER TABLE things ADD COLUMN b bigint; ALTER TABLE nothings ADD COLUMN b bigint",
    down: "",
    transactional: true,
};

fn app(steps: &[&'static Sql]) -> Runner {
    let steps = steps
        .iter()
        .map(|step| Box::new(*step) as Box<dyn Migration>);
    Runner::builder()
        .history(APP)
        .after(migration::runner())
        .steps(steps.collect())
        .build()
}

async fn a_step_outside_cuts_the_run(db: TestDb) {
    let runner = app(&[&TABLE, &INDEX, &COLUMN]);
    let all = ["m1_table", "m2_index", "m3_column"];
    assert_eq!(names(&run(&runner, &db, Plan::Up(None)).await), all);
    let after = db.dump(&["things"]).await;
    assert!(after.contains("things_a"), "{after}");
    assert_eq!(run(&runner, &db, Plan::Up(None)).await, []);

    run(&runner, &db, Plan::Down(2)).await;
    assert!(!db.dump(&["things"]).await.contains("things_a"));
    run(&runner, &db, Plan::Up(None)).await;
    for plan in [Plan::Refresh, Plan::Fresh] {
        run(&runner, &db, plan).await;
        assert_eq!(db.dump(&["things"]).await, after, "{plan:?}");
    }
    let mut reversed = names(&run(&runner, &db, Plan::Reset).await);
    reversed.reverse();
    assert_eq!(reversed, all);
    assert_eq!(db.dump(&["things", APP]).await, "{}\n");
}

async fn a_failure_behind_it_keeps_what_came_before(db: TestDb) {
    run(&app(&[&TABLE]), &db, Plan::Up(None)).await;
    let error = refused(&app(&[&TABLE, &INDEX, &BROKEN]), &db, Plan::Up(None)).await;
    let Error::Stopped { kept, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(kept, &["m2_index"]);
    assert!(
        matches!(&**source, Error::LaterStep { name, .. } if name == "m3_column"),
        "{error:?}"
    );
    let things = db.dump(&["things"]).await;
    assert!(
        things.contains("things_a") && !things.contains("\"b\""),
        "{things}"
    );
    let mended = app(&[&TABLE, &INDEX, &COLUMN]);
    assert_eq!(
        names(&run(&mended, &db, Plan::Up(None)).await),
        ["m3_column"]
    );
}

/// Nothing is kept waiting there, so nothing has to be outside.
async fn where_tables_are_new_all_is_one_transaction(db: TestDb) {
    let error = refused(&app(&[&TABLE, &INDEX, &BROKEN]), &db, Plan::Up(None)).await;
    assert!(
        matches!(&error, Error::Step { name, .. } if name == "m3_column"),
        "{error:?}"
    );
    assert_eq!(db.rows(&["things", APP]).await, "");
}

async fn each_step_is_run_once_by_many_at_once(db: TestDb) {
    let run = |runner: Runner| {
        let config = db.config();
        tokio::spawn(async move { runner.run(&config, Plan::Up(None), |_| {}).await })
    };
    let runs: Vec<_> = (0..12)
        .map(|number| match number % 3 {
            0 => run(migration::runner()),
            _ => run(app(&[&TABLE, &INDEX, &COLUMN])),
        })
        .collect();
    let mut done = Vec::new();
    for run in runs {
        done.extend(run.await.expect("no panic").expect("applied, or waited"));
    }
    let mut names = names(&done);
    names.sort();
    assert_eq!(names, ["m1_table", "m2_index", "m3_column"], "each once");
}

async fn a_build_that_failed_is_dropped_and_built_again(db: TestDb) {
    run(&app(&[&TABLE]), &db, Plan::Up(None)).await;
    db.execute("INSERT INTO things VALUES (1), (1)").await;
    let runner = app(&[&TABLE, &INDEX, &COLUMN]);
    let error = refused(&runner, &db, Plan::Up(None)).await;
    assert!(
        matches!(&error, Error::StepOutside { name, .. } if name == "m2_index"),
        "{error:?}"
    );
    let invalid = "SELECT indexrelid::regclass::text AS line FROM pg_index WHERE NOT indisvalid";
    assert_eq!(db.lines(invalid).await, ["things_a"]);
    // Without the drop: the statement of the step takes the index for built.
    db.execute(INDEX.up).await;
    assert_eq!(db.lines(invalid).await, ["things_a"]);

    // One of another program stays.
    db.execute("CREATE TABLE theirs (a bigint); INSERT INTO theirs VALUES (1), (1)")
        .await;
    db.try_execute("CREATE UNIQUE INDEX CONCURRENTLY theirs_a ON theirs (a)")
        .await
        .expect_err("it has two equal rows");
    db.execute("TRUNCATE things").await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let on_event = move |event: Event<'_>| seen.lock().expect("a list").push(format!("{event:?}"));
    let done = runner.run(&db.config(), Plan::Up(None), on_event).await;
    assert_eq!(names(&done.expect("built")), ["m2_index", "m3_column"]);
    let first = events.lock().expect("a list")[0].clone();
    assert_eq!(first, "InvalidIndex { name: \"things_a\" }");
    assert_eq!(db.lines(invalid).await, ["theirs_a"]);
}

async fn a_build_that_was_done_and_not_noted_is_noted(db: TestDb) {
    run(&app(&[&TABLE]), &db, Plan::Up(None)).await;
    db.execute("CREATE UNIQUE INDEX things_a ON things (a)")
        .await;
    let runner = app(&[&TABLE, &INDEX]);
    assert_eq!(
        names(&run(&runner, &db, Plan::Up(None)).await),
        ["m2_index"]
    );
}

/// A build waits for transactions that might see the table without the index. A run that
/// waits for the migration lock must not be one of them.
async fn a_build_waits_for_no_run_that_waits_for_it(db: TestDb) {
    run(&app(&[&TABLE]), &db, Plan::Up(None)).await;
    let other = begun(&db, "LOCK TABLE things IN ROW EXCLUSIVE MODE").await;
    let (building, mut events) = start(&db, app(&[&TABLE, &INDEX]));
    let blocker = blocker(&mut events).await;
    assert!(blocker.lock.starts_with("ShareLock on "), "{blocker:?}");

    // It has steps to run, so that it would change something if it didn't wait.
    let (waiting, mut events) = start(&db, app(&[&TABLE, &INDEX, &COLUMN]));
    let waits = events.recv().await.expect("it reports");
    assert!(matches!(waits, Seen::Waiting), "{waits:?}");
    let (ours, mut events) = start(&db, migration::runner());
    let waits = events.recv().await.expect("it reports");
    assert!(matches!(waits, Seen::Waiting), "{waits:?}");
    assert!(!building.is_finished() && !waiting.is_finished() && !ours.is_finished());
    end(other).await;
    assert_eq!(
        names(&building.await.expect("no panic").expect("built")),
        ["m2_index"]
    );
    assert_eq!(
        names(&waiting.await.expect("no panic").expect("applied")),
        ["m3_column"]
    );
    assert_eq!(ours.await.expect("no panic").expect("it waited"), []);
}

async fn a_pooler_is_refused(db: TestDb) {
    let config = db.config_with(&[("DB_PREPARED_STATEMENTS", "false")]);
    let done = app(&[&TABLE]).run(&config, Plan::Up(None), |_| {}).await;
    assert_eq!(done.expect("it needs none").len(), 1);
    let runner = app(&[&TABLE, &INDEX]);
    let error = runner.run(&config, Plan::Up(None), |_| {}).await;
    let error = error.expect_err("a session is needed");
    assert!(
        matches!(&error, Error::PooledConnection(name) if name == "m2_index"),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("DB_PREPARED_STATEMENTS"),
        "{error}"
    );
    assert!(!db.dump(&["things"]).await.contains("things_a"));
    // Where the tables are new the steps are in the transaction.
    run(&runner, &db, Plan::Reset).await;
    let done = runner.run(&config, Plan::Up(None), |_| {}).await;
    assert_eq!(done.expect("it needs none").len(), 2);
    assert!(db.dump(&["things"]).await.contains("things_a"));
}

#[derive(Debug)]
enum Seen {
    Waiting,
    Blocked(Blocker),
    Retrying(u32),
    Done(String),
    Other,
}

type Run = tokio::task::JoinHandle<Result<Vec<Done>, Error>>;

fn start(db: &TestDb, runner: Runner) -> (Run, UnboundedReceiver<Seen>) {
    let (sender, receiver) = unbounded_channel();
    let config = db.config();
    let on_event = move |event: Event<'_>| {
        let _ = sender.send(match event {
            Event::Waiting { .. } => Seen::Waiting,
            Event::Blocked(blocker) => Seen::Blocked(blocker.clone()),
            Event::Retrying { attempt, .. } => Seen::Retrying(attempt),
            Event::Done(done) => Seen::Done(done.name.clone()),
            _ => Seen::Other,
        });
    };
    let run = async move { runner.run(&config, Plan::Up(None), on_event).await };
    (tokio::spawn(run), receiver)
}

async fn blocker(events: &mut UnboundedReceiver<Seen>) -> Blocker {
    loop {
        match events.recv().await.expect("it reports") {
            Seen::Blocked(blocker) => return blocker,
            other => assert!(matches!(other, Seen::Done(_)), "{other:?}"),
        }
    }
}

/// A session in a transaction that has run this.
async fn begun(db: &TestDb, sql: &str) -> DatabaseConnection {
    let other = db.outside().await;
    for sql in ["BEGIN", sql] {
        other.execute_unprepared(sql).await.expect("it runs");
    }
    other
}

async fn end(other: DatabaseConnection) {
    other.execute_unprepared("COMMIT").await.expect("it ends");
    other.close().await.expect("it closes");
}

async fn run(runner: &Runner, db: &TestDb, plan: Plan) -> Vec<Done> {
    let done = runner.run(&db.config(), plan, |_| {}).await;
    done.unwrap_or_else(|error| panic!("{plan:?}: {error:?}"))
}

async fn refused(runner: &Runner, db: &TestDb, plan: Plan) -> Error {
    let result = runner.run(&db.config(), plan, |_| {}).await;
    result.expect_err("it is refused")
}

fn names(done: &[Done]) -> Vec<String> {
    done.iter().map(|step| step.name.clone()).collect()
}
