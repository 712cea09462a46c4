//! Processes that migrate one database at once: one applies, the others wait
//! as long as it takes and find nothing to do.
//!
//! `AURA_ROUNDS` says how often sixteen of them start together; 2 when unset.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use connection::Config;
use migration::{Done, Error, Event, Migration, Plan, Runner, State};
use sea_orm::{ConnectionTrait, DbBackend};
use testdb::process::{Running, asked, command};
use testdb::{Backend, TestDb};

testdb::both!(
    empty: one_of_sixteen_processes_applies,
        who_comes_second_waits_longer_than_every_timeout;
    migrated: a_transaction_that_is_open_is_waited_for,
);

async fn one_of_sixteen_processes_applies(db: TestDb) {
    let rounds = asked("AURA_ROUNDS").map_or(2, |rounds| rounds.parse().expect("a number"));
    for _ in 0..rounds {
        let db = TestDb::empty(db.backend()).await;
        let start = || {
            let mut tool = command(env!("CARGO_BIN_EXE_migration"), &db.work(), &db.variables());
            Running::start(tool.arg("up"))
        };
        let running: Vec<Running> = (0..16).map(|_| start()).collect();
        let ended: Vec<_> = running.into_iter().map(Running::end).collect();
        for one in &ended {
            assert_eq!(one.status.code(), Some(0), "{one:?}");
        }
        let say = |text: &str| ended.iter().filter(|one| one.stdout.contains(text)).count();
        assert_eq!(say(&testdb::all_applied()), 1, "{ended:#?}");
        assert_eq!(
            say("Nothing to do: the schema is up to date."),
            15,
            "{ended:#?}"
        );
        let outside = db.outside().await;
        assert_eq!(migration::check(&outside).await.expect("a check"), []);
    }
}

async fn who_comes_second_waits_longer_than_every_timeout(db: TestDb) {
    measure(&db).await;
    the_second_waits(&db).await;
}

/// Who waits for the lock must look at the history after it got it, and in
/// the stricter levels a transaction sees what was there when it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_isolation_hides_nothing_from_the_second() {
    let db = TestDb::empty(Backend::Postgres).await;
    let name = db.lines("SELECT current_database()::text AS line").await;
    for level in ["repeatable read", "serializable"] {
        let sql = format!(
            "ALTER DATABASE {} SET default_transaction_isolation = '{level}'",
            name[0]
        );
        db.execute(&sql).await;
        the_second_waits(&db).await;
        let reset = slow_runner().run(&db.config(), Plan::Reset, |_| {}).await;
        assert_eq!(reset.expect("reversed").len(), 2);
    }
}

async fn the_second_waits(db: &TestDb) {
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let config = db.config();
    let first = tokio::spawn(async move {
        let tell = |event: Event<'_>| {
            if matches!(event, Event::Done(Done { name, .. }) if name == QUICK) {
                begun.send(()).expect("somebody listens");
            }
        };
        slow_runner().run(&config, Plan::Up(None), tell).await
    });
    has_begun.recv().await.expect("the first step is done");

    let mut waited = Vec::new();
    let second = slow_runner()
        .run(&impatient(db), Plan::Up(None), |event| {
            assert!(!first.is_finished());
            waited.push(format!("{event:?}"));
        })
        .await;
    assert_eq!(second.expect("waiting is no failure"), []);
    let first = first.await.expect("no panic").expect("applied");
    assert_eq!(first.len(), 2);
    assert_eq!(waited.len(), 1, "{waited:?}");
    assert!(waited[0].starts_with("Waiting"), "{waited:?}");
    if db.backend() == Backend::Postgres {
        assert!(
            waited[0].contains("the migration of aura-db (server process "),
            "{waited:?}"
        );
    }
}

async fn a_transaction_that_is_open_is_waited_for(db: TestDb) {
    let other = db.outside().await;
    let begin = match db.backend() {
        Backend::Sqlite => "BEGIN IMMEDIATE",
        Backend::Postgres => "BEGIN; LOCK TABLE executions IN ACCESS EXCLUSIVE MODE",
    };
    other.execute_unprepared(begin).await.expect("it begins");
    let config = impatient(&db);
    let run = tokio::spawn(async move {
        migration::runner()
            .run(&config, Plan::Down(2), |_| {})
            .await
    });
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!run.is_finished());
    other.execute_unprepared("COMMIT").await.expect("it ends");
    let done: Result<Vec<Done>, Error> = run.await.expect("no panic");
    assert_eq!(done.expect("it only had to wait").len(), 2);
    let outside = db.outside().await;
    let state = migration::state(&outside).await.expect("a state");
    assert!(matches!(state, State::Behind { .. }), "{state:?}");
}

/// Settings whose every limit is shorter than the wait.
fn impatient(db: &TestDb) -> Config {
    let mut config = db.config_with(&[
        ("DB_STATEMENT_TIMEOUT", "200"),
        ("DB_POOL_CONNECTION_TIMEOUT", "2000"),
    ]);
    config.lock_timeout = Some(Duration::from_millis(200));
    config.idle_in_transaction_timeout = Some(Duration::from_millis(200));
    config
}

const QUICK: &str = "m20990101_000001_quick";

/// A step that is done at once, and one that takes about three seconds.
fn slow() -> Vec<Box<dyn Migration>> {
    vec![Box::new(Quick), Box::new(Slow)]
}

fn slow_runner() -> Runner {
    Runner::builder()
        .history(migration::HISTORY)
        .steps(slow())
        .build()
}

struct Quick;

impl Migration for Quick {
    fn name(&self) -> &'static str {
        QUICK
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        Vec::new()
    }
}

struct Slow;

impl Migration for Slow {
    fn name(&self) -> &'static str {
        "m20990101_000002_slow"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        vec![match backend {
            DbBackend::Postgres => "SELECT pg_sleep(3)".to_owned(),
            _ => count_to(*NUMBERS.get().expect("it is measured first")),
        }]
    }
}

/// How far SQLite counts in three seconds.
static NUMBERS: OnceLock<u64> = OnceLock::new();

async fn measure(db: &TestDb) {
    const TRY: u32 = 500_000;
    if db.backend() == Backend::Sqlite {
        let outside = db.outside().await;
        let started = Instant::now();
        let counted = outside.execute_unprepared(&count_to(TRY.into())).await;
        counted.expect("it counts");
        let times = Duration::from_secs(3).as_secs_f64() / started.elapsed().as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rough number"
        )]
        NUMBERS.get_or_init(|| (f64::from(TRY) * times) as u64);
    }
}

/// SQLite has no sleep.
fn count_to(number: u64) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) SELECT count(*) FROM n"
    )
}
