//! The examples that people copy: what is printed is what runs.

use std::path::{Path, PathBuf};

use aura_db::migration::State;
use aura_db::sea_orm::ConnectionTrait;
use testdb::process::{Ended, Running, command};
use testdb::{Backend, TestDb};

/// The built example. `cargo test` builds them with the tests, unless it is
/// told which test to build.
fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    let folder = this.parent().and_then(Path::parent).expect("two folders");
    let path = folder.join("examples").join(name);
    let path = path.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "first: cargo build -p aura-db --examples");
    path
}

fn quickstart(folder: &Path, variables: &[(&'static str, String)]) -> Ended {
    let ended = Running::start(&mut command(example("quickstart"), folder, variables)).end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stderr, "");
    ended
}

#[test]
fn the_quickstart_runs_in_an_empty_folder_and_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let once = quickstart(folder.path(), &[]);
    assert_eq!(once.stdout, "1: Greet politely, version 2\n");
    assert!(folder.path().join("data/aura.db").exists());

    let again = quickstart(folder.path(), &[]);
    let expected = "1: Greet politely, version 2\n2: Greet politely, version 2\n";
    assert_eq!(again.stdout, expected);
}

#[test]
fn the_quickstart_runs_in_memory_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = [("DB_PATH", ":memory:".to_owned())];
    for _ in 0..2 {
        let ended = quickstart(folder.path(), &memory);
        assert_eq!(ended.stdout, "1: Greet politely, version 2\n");
    }
    assert_eq!(folder.path().read_dir().expect("a list").count(), 0);
}

#[tokio::test]
async fn the_quickstart_runs_on_postgres() {
    let test = testdb::TestDb::empty(testdb::Backend::Postgres).await;
    let ended = quickstart(&test.work(), &test.variables());
    assert_eq!(ended.stdout, "1: Greet politely, version 2\n");
}

#[test]
fn the_quickstart_is_printed_word_for_word() {
    let code = include_str!("../examples/quickstart.rs");
    let readme = include_str!("../../README.md");
    assert!(
        readme.contains(&format!("```rust,no_run\n{code}```\n")),
        "README.md, \"In an application\", differs from examples/quickstart.rs"
    );
    let front = include_str!("../src/lib.rs");
    let included =
        "//! ```no_run\n#![doc = include_str!(\"../examples/quickstart.rs\")]\n//! ```\n";
    assert!(front.contains(included), "the front page has no quickstart");
}

testdb::both!(
    empty: own_tables_are_migrated_and_used,
        notes_are_migrated_with_ours,
        notes_name_their_tool_and_history,
        a_script_of_notes_ends_before_rust_code;
    migrated: rows_of_notes_are_deleted_with_consent_only,
        notes_that_exist_are_noted_with_consent_only,
        one_step_of_notes_is_noted_with_consent_only,
        steps_of_notes_are_compared_with_its_entity,
        the_snapshots_of_notes_are_their_schema,
);

testdb::postgres!(migrated: an_index_of_notes_is_built_after_a_kill);

async fn own_tables_are_migrated_and_used(db: TestDb) {
    let program = example("own_tables").display().to_string();
    for run in [1, 2] {
        let ended = db.tool(&program, &[], &[]);
        assert!(ended.status.success(), "{ended:?}");
        let expected = format!("GitHub {run}: Secret(***)\nkey of user 1\nattempt 1: Pending\n");
        assert_eq!(ended.stdout, expected);
    }
    let status = db.tool(&program, &["status"], &[]);
    assert_eq!(
        status.stdout.matches("  applied  ").count(),
        3,
        "{status:?}"
    );
}

fn notes(db: &TestDb, arguments: &[&str]) -> Ended {
    let program = example("notes").display().to_string();
    db.tool(&program, arguments, &[])
}

fn notes_done(db: &TestDb, arguments: &[&str]) -> String {
    let ended = notes(db, arguments);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

/// Runs what is refused, and returns the reason.
fn notes_refused(db: &TestDb, arguments: &[&str]) -> String {
    let ended = notes(db, arguments);
    assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {ended:?}");
    ended.stderr
}

async fn notes_are_migrated_with_ours(db: TestDb) {
    let all = testdb::steps() + 3;
    let up = notes_done(&db, &["up"]);
    assert!(
        up.contains(&format!("{all} migrations applied in ")),
        "{up}"
    );
    assert_eq!(db.state().await, State::Current);
    let again = notes_done(&db, &["up"]);
    assert_eq!(again, "Nothing to do: the schema is up to date.\n");
    let status = notes_done(&db, &["status"]);
    assert_eq!(status.matches("  applied  ").count(), 3, "{status}");
    assert!(status.ends_with("the schema is up to date\n"), "{status}");
    assert_eq!(notes_done(&db, &["check"]), "The schema is as expected.\n");

    db.fill().await;
    let insert = "INSERT INTO notes (title, workflow_id) VALUES ('Weekly report!', 1)";
    db.execute(insert).await;
    notes_done(&db, &["down"]);
    notes_done(
        &db,
        &["up", "--lock-timeout", "500", "--lock-attempts", "3"],
    );
    let slugs = db.lines("SELECT slug AS line FROM notes").await;
    assert_eq!(slugs, ["weekly-report"]);
    db.execute("DROP INDEX idx_notes_slug").await;
    let check = notes(&db, &["check"]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert!(
        check.stdout.contains("notes  index idx_notes_slug"),
        "{check:?}"
    );
}

async fn notes_name_their_tool_and_history(db: TestDb) {
    let help = notes_done(&db, &["--help"]);
    for words in [
        "Usage: notes [OPTIONS] <COMMAND>",
        "the migrations of notes, noted in the table notes_migrations",
        "aura_migrations",
        "DB_* variables",
        "baseline",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
    assert!(notes_done(&db, &["up", "--help"]).contains("Usage: notes up"));
    let status = notes_done(&db, &["status"]);
    assert!(status.contains("create it with `notes up`"), "{status}");
    let check = notes(&db, &["check"]);
    let code = match db.backend() {
        Backend::Sqlite => 2,
        Backend::Postgres => 1,
    };
    assert_eq!(check.status.code(), Some(code), "{check:?}");
    assert_eq!(db.tables().await, [""; 0]);
}

async fn a_script_of_notes_ends_before_rust_code(db: TestDb) {
    let script = notes_done(&db, &["up", "--dry-run"]);
    assert_eq!(db.tables().await, [""; 0], "a dry run changes nothing");
    let (runs, shown) = script
        .split_once(
            "-- The script ends here: the next step runs Rust code. `notes up` does all of it.",
        )
        .expect("it ends");
    assert!(
        runs.contains("CREATE TABLE IF NOT EXISTS \"aura_migrations\""),
        "{runs}"
    );
    let index = "\nCREATE INDEX IF NOT EXISTS \"idx_notes_slug\"";
    assert!(runs.contains(index), "the tables are new: {runs}");
    let shown: Vec<&str> = shown.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        shown[0],
        "-- m20261203_000001_fill_slugs (up), and Rust code"
    );
    assert!(
        shown.iter().all(|line| line.starts_with("-- ")),
        "{shown:?}"
    );
    let json = notes_done(&db, &["up", "--dry-run", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
    let last = json["dry_run"].as_array().and_then(|parts| parts.last());
    assert_eq!(last.expect("parts")["rust"], true);

    notes_done(&db, &["up", "-n", "1"]);
    let script = notes_done(&db, &["up", "--dry-run"]);
    let index = match db.backend() {
        Backend::Sqlite => index,
        Backend::Postgres => {
            "COMMIT;\n\n-- m20261202_000001_index_notes (up)\nSET search_path = \"public\";\nCREATE INDEX CONCURRENTLY IF NOT EXISTS \"idx_notes_slug\""
        }
    };
    assert!(script.contains(index), "{script}");
}

async fn rows_of_notes_are_deleted_with_consent_only(db: TestDb) {
    db.fill().await;
    notes_done(&db, &["up"]);
    db.execute("INSERT INTO notes (title, workflow_id) VALUES ('x', 1)")
        .await;
    for command in ["reset", "refresh", "fresh"] {
        let refused = notes_refused(&db, &[command]);
        assert!(refused.contains("add --yes"), "{refused}");
        let lost = format!("  {:<20} {:>12} row\n", "notes", 1);
        assert!(refused.contains(&lost), "{refused}");
        assert!(!refused.contains("workflows"), "{refused}");
    }
    let ours = db.rows(&["workflows", "aura_migrations"]).await;
    let reset = notes_done(&db, &["reset", "--yes"]);
    assert!(reset.contains("3 migrations reversed in "), "{reset}");
    let left = db.tables().await;
    assert!(
        !left.iter().any(|table| table.starts_with("notes")),
        "{left:?}"
    );
    assert_eq!(db.rows(&["workflows", "aura_migrations"]).await, ours);
}

async fn notes_that_exist_are_noted_with_consent_only(db: TestDb) {
    notes_done(&db, &["up"]);
    db.execute("DROP TABLE notes_migrations").await;
    let refused = notes_refused(&db, &["up"]);
    assert!(refused.contains("`notes baseline`"), "{refused}");
    let refused = notes_refused(&db, &["baseline"]);
    for words in [
        "in notes_migrations as applied",
        "  m20261203_000001_fill_slugs",
        "add --yes",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let noted = notes_done(&db, &["baseline", "m20261202_000001_index_notes", "--yes"]);
    assert!(
        noted.ends_with("2 migrations noted as applied.\n"),
        "{noted}"
    );
    let up = notes_done(&db, &["up"]);
    assert!(up.contains("1 migration applied in "), "{up}");
    let noted = notes_done(&db, &["baseline"]);
    assert_eq!(noted, "Nothing to do: all of them are noted as applied.\n");
    let unknown = notes_refused(&db, &["baseline", "m1_typo", "--yes"]);
    assert!(
        unknown.contains("there is no migration m1_typo"),
        "{unknown}"
    );
}

async fn one_step_of_notes_is_noted_with_consent_only(db: TestDb) {
    notes_done(&db, &["up"]);
    let name = "m20261203_000001_fill_slugs";
    let refused = notes_refused(&db, &["resolve", name, "--not-applied"]);
    assert!(refused.contains("add --yes"), "{refused}");
    for (flag, words) in [
        ("--not-applied", "is noted as not applied.\n"),
        ("--not-applied", "was noted as not applied.\n"),
        ("--applied", "is noted as applied.\n"),
    ] {
        let noted = notes_done(&db, &["resolve", name, flag, "--yes"]);
        assert!(noted.ends_with(words), "{noted}");
    }
    let unknown = notes_refused(&db, &["resolve", "m1_typo", "--applied"]);
    assert!(
        unknown.contains("there is no migration m1_typo"),
        "{unknown}"
    );
    assert!(!unknown.contains("This notes"), "{unknown}");
    for flags in [["--yes"].as_slice(), &["--applied", "--not-applied"]] {
        let arguments = [&["resolve", name], flags].concat();
        assert_eq!(notes(&db, &arguments).status.code(), Some(2), "{flags:?}");
    }
    let production = [("AURA_ENV", "production")];
    for command in [
        ["baseline", "--yes"].as_slice(),
        &["resolve", name, "--applied", "--yes"],
    ] {
        let program = example("notes").display().to_string();
        let refused = db.tool(&program, command, &production);
        assert!(refused.stderr.contains("add --force"), "{refused:?}");
    }
}

async fn the_snapshots_of_notes_are_their_schema(db: TestDb) {
    let early = notes_refused(&db, &["snapshot", "--folder", "made"]);
    assert!(early.contains("create it with `notes up`"), "{early}");
    notes_done(&db, &["up"]);
    notes_done(&db, &["snapshot", "--folder", "made"]);
    let (name, committed) = match db.backend() {
        Backend::Sqlite => (
            "sqlite.json",
            include_str!("../examples/notes/snapshots/sqlite.json"),
        ),
        Backend::Postgres => (
            "postgres.json",
            include_str!("../examples/notes/snapshots/postgres.json"),
        ),
    };
    let made = std::fs::read_to_string(db.work().join("made").join(name)).expect("written");
    assert_eq!(
        made, committed,
        "cargo run -p aura-db --example notes -- snapshot"
    );
    let refused = notes_refused(&db, &["generate", "../escape"]);
    assert!(refused.contains("can't be a migration's name"), "{refused}");
}

async fn steps_of_notes_are_compared_with_its_entity(db: TestDb) {
    let before = db.tables().await;
    let check = notes_done(&db, &["generate", "--from-entities", "--check"]);
    assert_eq!(check, "The steps make what the entities declare.\n");
    let folder = ["--folder", "made"];
    let arguments = [["generate", "add_tags"].as_slice(), &folder].concat();
    let filled = [arguments.as_slice(), &["--from-entities"]].concat();
    let nothing = "Nothing to do: the steps make what the entities declare.\n";
    assert_eq!(notes_done(&db, &filled), nothing);
    let json = notes_done(&db, &[filled.as_slice(), &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
    assert_eq!(json, serde_json::json!({ "path": null, "changes": [] }));
    let made = db.work().join("made");
    assert!(!made.exists(), "nothing is written");
    std::fs::create_dir(&made).expect("a folder");
    let wrote = notes_done(&db, &arguments);
    assert!(wrote.contains("Next: fill in"), "{wrote}");
    let list = std::fs::read_to_string(made.join("src/migrations/mod.rs")).expect("a list");
    assert!(list.contains("_add_tags::AddTags),"), "{list}");
    for wrong in [
        ["--from-entities"].as_slice(),
        &["--check"],
        &["add_tags", "--drop"],
        &["add_tags", "--from-entities", "--check"],
    ] {
        let ended = notes(&db, &[&["generate"], wrong].concat());
        assert_eq!(ended.status.code(), Some(2), "{wrong:?}: {ended:?}");
    }
    assert_eq!(db.tables().await, before, "no database is touched");
}

/// Killed while it builds the index, the process leaves a build that goes on without it; a
/// session that the server ends leaves an index that is not valid.
async fn an_index_of_notes_is_built_after_a_kill(db: TestDb) {
    notes_done(&db, &["up", "-n", "1"]);
    for end in ["kill", "terminate"] {
        let other = db.outside().await;
        for sql in ["BEGIN", "LOCK TABLE notes IN ROW EXCLUSIVE MODE"] {
            other.execute_unprepared(sql).await.expect("it runs");
        }
        let mut tool = command(example("notes"), &db.work(), &db.variables());
        let running = Running::start(tool.arg("up"));
        let building = "SELECT pid::text AS line FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX CONCURRENTLY%'";
        let pid = loop {
            if let [pid] = db.lines(building).await.as_slice() {
                break pid.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        if end == "kill" {
            assert_eq!(running.kill().status.code(), None);
        } else {
            db.execute(&format!("SELECT pg_terminate_backend({pid})"))
                .await;
            let ended = running.end();
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert!(ended.stderr.contains("what it had done stays"), "{ended:?}");
        }
        other.execute_unprepared("COMMIT").await.expect("it ends");
        other.close().await.expect("it closes");
        let ended = notes(&db, &["up"]);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(
            ended.stdout.contains("2 migrations applied in "),
            "{ended:?}"
        );
        assert_eq!(
            ended.stderr.contains("dropping the index idx_notes_slug"),
            end == "terminate",
            "{ended:?}"
        );
        assert_eq!(notes_done(&db, &["check"]), "The schema is as expected.\n");
        notes_done(&db, &["down", "-n", "2"]);
    }
}
