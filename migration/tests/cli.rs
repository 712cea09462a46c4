//! The tool as a person, a script and a pipe meet it.

use migration::{HISTORY, State};
use testdb::process::{Ended, Running, command};
use testdb::{Backend, TestDb, all_applied};

testdb::both!(
    empty: up_applies_all_and_then_finds_nothing_to_do,
        up_and_down_take_a_number,
        status_creates_nothing,
        json_is_one_object;
    migrated: check_tells_in_its_exit_code,
        a_newer_schema_is_left_alone,
        a_file_of_settings_is_read_and_variables_win,
        misspelt_settings_are_told,
        much_free_space_is_reported,
        a_malformed_file_of_settings_is_told_by_its_line,
        a_bad_name_is_not_generated,
);

async fn up_applies_all_and_then_finds_nothing_to_do(db: TestDb) {
    let first = migration(&db, &["up"]);
    assert_eq!(
        first.stdout.matches("  applied   m2").count(),
        testdb::steps(),
        "{first:?}"
    );
    assert!(first.stdout.contains(&all_applied()), "{first:?}");
    assert!(
        first.stderr.contains(&db.config().target_name()),
        "{first:?}"
    );
    let second = migration(&db, &["up"]);
    assert_eq!(second.stdout, "Nothing to do: the schema is up to date.\n");
    assert_eq!(db.state().await, State::Current);
}

async fn up_and_down_take_a_number(db: TestDb) {
    let up = migration(&db, &["up", "-n", "3"]);
    assert!(up.stdout.contains("3 migrations applied in "), "{up:?}");
    let status = migration(&db, &["status"]).stdout;
    let counts = ["  applied  ", "  pending  "].map(|word| status.matches(word).count());
    let pending = testdb::steps() - 3;
    assert_eq!(counts, [3, pending], "{status}");
    assert!(
        status.contains(&format!("the schema is behind by {pending} migrations")),
        "{status}"
    );

    let steps = testdb::steps();
    for (arguments, told) in [
        (["down"].as_slice(), "1 migration reversed in "),
        (&["revert", "-n", "5"], "2 migrations reversed in "),
        (&["down"], "Nothing to do: no migration is applied.\n"),
        (&["refresh"], &all_applied()),
        (
            &["refresh"],
            &format!("{steps} migrations reversed, {}", all_applied()),
        ),
        (&["fresh"], &all_applied()),
        (&["reset"], &format!("{steps} migrations reversed in ")),
        (
            &["reset"],
            "No migration was applied; the history is removed.\n",
        ),
    ] {
        let ended = migration(&db, arguments);
        assert!(ended.stdout.contains(told), "{arguments:?}: {ended:?}");
    }
    for arguments in [
        ["up", "-n", "0"],
        ["down", "-n", "x"],
        ["up", "--sideways", ""],
    ] {
        assert_eq!(
            db.tool(TOOL, &arguments, &[]).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

async fn status_creates_nothing(db: TestDb) {
    let status = migration(&db, &["status"]);
    assert_eq!(
        status.stdout.matches("  pending  ").count(),
        testdb::steps(),
        "{status:?}"
    );
    assert!(status.stdout.contains("has no schema yet"), "{status:?}");
    let check = db.tool(TOOL, &["check"], &[]);
    let code = if db.backend() == Backend::Sqlite {
        2
    } else {
        1
    };
    assert_eq!(check.status.code(), Some(code), "{check:?}");
    assert!(!db.folder().join("aura.db").exists());
    assert_eq!(db.tables().await, [""; 0]);
}

async fn check_tells_in_its_exit_code(db: TestDb) {
    let clean = migration(&db, &["check"]);
    assert_eq!(clean.stdout, "The schema is as expected.\n");
    db.execute("DROP INDEX uq_users_email").await;
    db.execute("ALTER TABLE logs ADD COLUMN colour text").await;
    let changed = db.tool(TOOL, &["check"], &[]);
    assert_eq!(changed.status.code(), Some(1), "{changed:?}");
    assert_eq!(
        changed.stdout,
        "  extra      logs  column colour\n  missing    users  index uq_users_email\n2 differences.\n"
    );
    let broken = db.tool(
        TOOL,
        &["check"],
        &[
            ("DB_TYPE", "postgres"),
            ("DB_PORT", "1"),
            ("DB_CONNECT_RETRIES", "0"),
        ],
    );
    assert_eq!(broken.status.code(), Some(2), "{broken:?}");
}

async fn json_is_one_object(db: TestDb) {
    let json = |arguments: &[&str]| -> serde_json::Value {
        let ended = db.tool(TOOL, &[arguments, &["--json"]].concat(), &[]);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    };
    let target = db.config().target_name();
    let status = json(&["status"]);
    assert_eq!(status["state"], "empty");
    assert_eq!(
        status["pending"].as_array().map(Vec::len),
        Some(testdb::steps())
    );
    let script = json(&["up", "--dry-run"]);
    assert_eq!(script["dry_run"][0]["step"], "aura_migrations, the history");
    assert!(
        script["dry_run"][1]["sql"][0]
            .as_str()
            .is_some_and(|sql| sql.starts_with("CREATE TABLE"))
    );

    let up = json(&["up"]);
    assert_eq!(up["target"], target);
    assert_eq!(up["done"][0]["name"], "m20261122_000001_create_users");
    assert_eq!(up["done"][8]["direction"], "up");
    assert!(
        up["done"][8]["micros"].is_u64() && up["micros"].is_u64(),
        "{up}"
    );
    let status = json(&["status"]);
    assert_eq!(status["state"], "current");
    assert_eq!(status["pending"], serde_json::json!([]));
    let at = status["applied"][0]["at"].as_str().unwrap_or_default();
    assert!(at.starts_with("20") && at.ends_with(" UTC"), "{status}");

    db.execute("DROP TABLE sessions").await;
    let check = json(&["check"]);
    let missing =
        serde_json::json!([{ "kind": "missing", "table": "sessions", "what": "", "detail": "" }]);
    assert_eq!(check["differences"], missing);
    let failed = json(&["reset"]);
    let error = failed["error"].as_str().unwrap_or_default();
    let reason = match db.backend() {
        Backend::Sqlite => "no such table: sessions",
        Backend::Postgres => "table \"sessions\" does not exist",
    };
    assert!(error.contains("create_sessions failed: "), "{error}");
    assert!(error.contains(reason), "{error}");
    assert_eq!(failed["causes"], serde_json::json!([]));
}

/// On SQLite, where it can be had back.
async fn much_free_space_is_reported(db: TestDb) {
    let json = db.tool(TOOL, &["status", "--json"], &[]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let reports = ["status", "check"].map(|command| migration(&db, &[command]).stdout);
    assert!(!reports.concat().contains("free"), "{reports:?}");
    if db.backend() == Backend::Postgres {
        assert!(json["space"].is_null(), "{json}");
        return;
    }
    assert!(json["space"]["bytes"].as_i64() > Some(0), "{json}");
    let fill = "CREATE TABLE own AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
        WHERE i < 20000) SELECT printf('%01000d', i) FROM n; DROP TABLE own";
    db.execute(fill).await;
    for (mode, advice) in [
        ("INCREMENTAL", "a service gives them back"),
        ("NONE", "'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'"),
    ] {
        db.execute(&format!("PRAGMA auto_vacuum = {mode}; VACUUM"))
            .await;
        db.execute(fill).await;
        for command in ["status", "check"] {
            let report = migration(&db, &[command]).stdout;
            assert!(report.contains(" MiB are free: "), "{report}");
            assert!(report.contains(advice), "{report}");
        }
        let json = db.tool(TOOL, &["check", "--json"], &[]).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert!(
            json["space"]["free_bytes"].as_i64() > Some(16 << 20),
            "{json}"
        );
    }
}

async fn a_newer_schema_is_left_alone(db: TestDb) {
    db.execute(&format!(
        "INSERT INTO {HISTORY} VALUES ('m20991231_000001_wings', 4102358400)"
    ))
    .await;
    let up = db.tool(TOOL, &["up"], &[]);
    assert_eq!(up.status.code(), Some(1), "{up:?}");
    assert!(up.stderr.contains("newer than this build"), "{up:?}");
    let status = migration(&db, &["status"]);
    assert!(
        status.stdout.contains("m20991231_000001_wings"),
        "{status:?}"
    );
}

async fn a_file_of_settings_is_read_and_variables_win(db: TestDb) {
    let lines: Vec<String> = db
        .variables()
        .iter()
        .map(|(name, value)| format!("{name}='{value}'"))
        .collect();
    let lines = lines.join("\n");
    let file = db.folder().join(".env");
    std::fs::write(&file, format!("# the parent's\n{lines}")).expect("written");
    let mut bare = command(TOOL, &db.work(), &[]);
    let status = Running::start(bare.args(["status", "--verbose"])).end();
    assert!(
        status.stdout.contains("the schema is up to date"),
        "{status:?}"
    );
    assert!(
        status.stderr.contains(&file.display().to_string()),
        "{status:?}"
    );

    std::fs::write(&file, "DB_TYPE=oracle\nDB_PATH=/nowhere\nDB_NAME=nowhere\n").expect("written");
    let mut variables = db.variables();
    let kind = match db.backend() {
        Backend::Sqlite => "sqlite",
        Backend::Postgres => "postgres",
    };
    variables.push(("DB_TYPE", kind.to_owned()));
    let mut bare = command(TOOL, &db.work(), &variables);
    let status = Running::start(bare.arg("status")).end();
    assert!(
        status.stdout.contains("the schema is up to date"),
        "{status:?}"
    );
}

async fn misspelt_settings_are_told(db: TestDb) {
    let status = db.tool(TOOL, &["status"], &[("DB_PASSWORD", "hunter2")]);
    assert!(
        status.stderr.contains("did you mean `DB_PASS`?"),
        "{status:?}"
    );
    assert!(!status.stderr.contains("hunter2"), "{status:?}");
    assert_eq!(status.status.code(), Some(0));
}

async fn a_malformed_file_of_settings_is_told_by_its_line(db: TestDb) {
    let file = db.work().join(".env");
    std::fs::write(&file, "DB_LOGGING=false\n\nDB_PASS hunter2\n").expect("written");
    let up = db.tool(TOOL, &["up"], &[]);
    assert_eq!(up.status.code(), Some(1), "{up:?}");
    assert!(
        up.stderr.contains(&format!("{} line 3: ", file.display())),
        "{up:?}"
    );
    assert!(
        !up.stderr.contains("hunter2") && !up.stdout.contains("hunter2"),
        "{up:?}"
    );
}

/// Only bad names: a good one would be written into this repository.
async fn a_bad_name_is_not_generated(db: TestDb) {
    for name in ["Add", "1st", "add-tags", "../escape", "x y", ""] {
        let ended = db.tool(TOOL, &["generate", name], &[]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("can't be a migration's name"),
            "{ended:?}"
        );
    }
}

const TOOL: &str = env!("CARGO_BIN_EXE_migration");

fn migration(db: &TestDb, arguments: &[&str]) -> Ended {
    let ended = db.tool(TOOL, arguments, &[]);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
    ended
}
