//! `--dry-run` prints a script that does in `sqlite3` or `psql` what the run
//! would have done, and does nothing itself.

use migration::State;
use testdb::process::{Ended, Running, command};
use testdb::{Backend, TestDb};

testdb::both!(empty: a_dry_run_is_a_script_that_does_the_same);

async fn a_dry_run_is_a_script_that_does_the_same(db: TestDb) {
    let script = migration(&db, &["up", "--dry-run"]).stdout;
    assert_eq!(db.tables().await, [""; 0], "a dry run changes nothing");
    shell(&db, &script);
    assert_eq!(db.state().await, State::Current);
    migration(&db, &["check"]);
    assert_eq!(
        migration(&db, &["up", "--dry-run"]).stdout,
        "-- Nothing to do.\n"
    );

    for plan in ["refresh", "fresh"] {
        db.fill().await;
        let before = db.dump(&migration::runner().tables()).await;
        let script = migration(&db, &[plan, "--dry-run"]).stdout;
        assert_eq!(
            db.dump(&migration::runner().tables()).await,
            before,
            "{plan}"
        );
        shell(&db, &script);
        assert_eq!(db.rows(&migration::runner().tables()).await, "", "{plan}");
        migration(&db, &["check"]);
    }
    let script = migration(&db, &["down", "-n", "3", "--dry-run"]).stdout;
    shell(&db, &script);
    assert!(matches!(db.state().await, State::Behind { pending } if pending.len() == 3));
    let script = migration(&db, &["reset", "--dry-run"]).stdout;
    shell(&db, &script);
    assert_eq!(db.tables().await, [""; 0]);
}

const TOOL: &str = env!("CARGO_BIN_EXE_migration");

fn migration(db: &TestDb, arguments: &[&str]) -> Ended {
    let ended = db.tool(TOOL, arguments, &[]);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
    ended
}

/// Runs a script in the database's own shell.
fn shell(db: &TestDb, script: &str) {
    let file = db.folder().join("script.sql");
    std::fs::write(&file, script).expect("written");
    let variables = db.variables();
    let of = |name| {
        variables
            .iter()
            .find(|(other, _)| *other == name)
            .expect("a variable")
            .1
            .clone()
    };
    let mut shell = match db.backend() {
        Backend::Sqlite => command("sqlite3", db.folder(), &[]),
        Backend::Postgres => {
            let names = [
                ("PGHOST", "DB_HOST"),
                ("PGPORT", "DB_PORT"),
                ("PGUSER", "DB_USER"),
                ("PGPASSWORD", "DB_PASS"),
                ("PGDATABASE", "DB_NAME"),
            ];
            command(
                "psql",
                db.folder(),
                &names.map(|(theirs, ours)| (theirs, of(ours))),
            )
        }
    };
    let arguments = match db.backend() {
        Backend::Sqlite => ["-bail", "-batch", "aura.db"].as_slice(),
        Backend::Postgres => &["-X", "-q", "-v", "ON_ERROR_STOP=1"],
    };
    let input = std::fs::File::open(&file).expect("the script");
    let ended = Running::start(shell.args(arguments).stdin(input)).end();
    assert!(ended.status.success(), "{ended:?}");
}
