//! What the tool asks for before data is lost.

use migration::{Plan, State};
use testdb::process::Ended;
use testdb::{TestDb, steps, steps_since};

testdb::both!(
    empty: empty_tables_are_dropped_without_asking;
    migrated: rows_are_lost_with_consent_only, production_wants_force,
);

async fn empty_tables_are_dropped_without_asking(db: TestDb) {
    for arguments in [["up"], ["down"], ["fresh"], ["refresh"], ["reset"]] {
        let ended = migration(&db, &arguments);
        assert!(!ended.stderr.contains("deletes"), "{ended:?}");
    }
}

async fn rows_are_lost_with_consent_only(db: TestDb) {
    db.fill().await;
    let before = db.dump(&migration::runner().tables()).await;
    let (few, all) = (steps_since("agents").to_string(), steps().to_string());
    for (arguments, lost) in [
        (
            ["down", "-n", &few].as_slice(),
            [("agents", true), ("users", false)],
        ),
        (&["down", "-n", &all], [("agents", true), ("users", true)]),
        (&["reset"], [("agents", true), ("users", true)]),
        (&["refresh"], [("agents", true), ("users", true)]),
        (&["fresh"], [("agents", true), ("users", true)]),
    ] {
        let refused = db.tool(TOOL, arguments, &[]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains("add --yes"), "{refused:?}");
        for (table, is_lost) in lost {
            let line = format!("  {table:<20} {:>12} rows\n", 2);
            assert_eq!(
                refused.stderr.contains(&line),
                is_lost,
                "{table}: {refused:?}"
            );
        }
        assert_eq!(
            db.dump(&migration::runner().tables()).await,
            before,
            "{arguments:?}"
        );
    }
    for plan in [
        Plan::Down(steps_since("agents")),
        Plan::Refresh,
        Plan::Fresh,
        Plan::Reset,
    ] {
        if db.state().await != State::Current {
            migration(&db, &["up", "--json"]);
        }
        let agents = "DELETE FROM agents; INSERT INTO users (name, email, hashed_password) SELECT 'x', 'x@example.org', 'x' \
            WHERE NOT EXISTS (SELECT 1 FROM users); INSERT INTO agents (name, model, owner_id) SELECT 'x', 'x', min(id) FROM users";
        db.execute(agents).await;
        let arguments = match plan {
            Plan::Refresh => ["refresh", "--yes"].as_slice(),
            Plan::Fresh => &["fresh", "-y"],
            Plan::Reset => &["reset", "--yes"],
            _ => &["down", "--yes", "-n", &few],
        };
        let agreed = migration(&db, arguments);
        let line = format!("  {:<20} {:>12} row\n", "agents", 1);
        assert!(
            agreed.stderr.contains(&line),
            "it says what is lost: {agreed:?}"
        );
        assert_eq!(db.rows(&["agents"]).await, "", "{plan:?}");
    }
    assert_eq!(db.state().await, State::Empty);
}

async fn production_wants_force(db: TestDb) {
    db.fill().await;
    let production = [("AURA_ENV", "production")];
    let before = db.dump(&migration::runner().tables()).await;
    let down = format!("down -n {}", steps_since("agents"));
    for plan in [down.as_str(), "reset", "refresh", "fresh"] {
        for consent in [["--yes", ""], ["--force", ""]] {
            let arguments: Vec<&str> = plan
                .split(' ')
                .chain(consent)
                .filter(|word| !word.is_empty())
                .collect();
            let refused = db.tool(TOOL, &arguments, &production);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            let needs = if consent[0] == "--yes" {
                "--force"
            } else {
                "--yes"
            };
            assert!(
                refused.stderr.contains(&format!("add {needs}")),
                "{refused:?}"
            );
        }
        assert_eq!(
            db.dump(&migration::runner().tables()).await,
            before,
            "{plan}"
        );
    }
    for arguments in [
        ["up", "", ""],
        ["status", "", ""],
        ["check", "", ""],
        ["reset", "--yes", "--force"],
    ] {
        let arguments: Vec<&str> = arguments
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(
            db.tool(TOOL, &arguments, &production).status.code(),
            Some(0),
            "{arguments:?}"
        );
    }
    assert_eq!(db.state().await, State::Empty);
}

const TOOL: &str = env!("CARGO_BIN_EXE_migration");

fn migration(db: &TestDb, arguments: &[&str]) -> Ended {
    let ended = db.tool(TOOL, arguments, &[]);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
    ended
}
