//! Bad settings and bad databases: the tool says what is wrong and what to do,
//! and changes nothing.

use testdb::process::{Running, command};
use testdb::{Backend, TestDb};

/// What is wrong, and what the tool must say about it.
type Mistake<'a> = (&'static str, String, &'a [&'a str]);

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_of_sqlite_are_told() {
    let db = TestDb::empty(Backend::Sqlite).await;
    let text = db.folder().join("notes.txt");
    std::fs::write(
        &text,
        "Dear diary, today I was no database at all.\n".repeat(100),
    )
    .expect("written");
    let folder = db.folder().join("folder");
    std::fs::create_dir(&folder).expect("a folder");
    let path = |path: &std::path::Path| path.display().to_string();
    let mistakes: [Mistake<'_>; 6] = [
        (
            "DB_TYPE",
            "oracle".to_owned(),
            &["DB_TYPE=oracle", "sqlite", "postgres"],
        ),
        (
            "DB_TYPE",
            "postgre".to_owned(),
            &["DB_TYPE=postgre", "did you mean `postgres`?"],
        ),
        ("DB_PATH", path(&folder), &["it is a folder", "aura.db"]),
        (
            "DB_PATH",
            path(&text),
            &["it is not a SQLite database", "notes.txt"],
        ),
        (
            "DB_PATH",
            path(&text.join("aura.db")),
            &["Not a directory", "DB_PATH"],
        ),
        (
            "DB_POOL_MAX",
            "many".to_owned(),
            &["DB_POOL_MAX=many", "1 to 1000"],
        ),
    ];
    are_told(&db, &mistakes);
    let left: Vec<_> = std::fs::read_dir(db.folder())
        .expect("the folder")
        .collect();
    assert_eq!(left.len(), 2, "only what was there: {left:?}");
    assert!(
        std::fs::read_to_string(&text)
            .expect("text")
            .starts_with("Dear diary")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_of_postgres_are_told() {
    let db = TestDb::empty(Backend::Postgres).await;
    let nowhere = db.folder().join("no.crt").display().to_string();
    let other = testdb::tls_folder()
        .join("other-ca.crt")
        .display()
        .to_string();
    let mistakes: [Mistake<'_>; 8] = [
        (
            "DB_PORT",
            "70000".to_owned(),
            &["DB_PORT=70000", "1 to 65535"],
        ),
        (
            "DB_PORT",
            "1".to_owned(),
            &["cannot reach", "Is the server running?"],
        ),
        (
            "DB_PASS",
            "hunter2".to_owned(),
            &["password authentication failed", "DB_PASS"],
        ),
        (
            "DB_USER",
            "nobody".to_owned(),
            &["password authentication failed", "DB_USER"],
        ),
        ("DB_NAME", "atlantis".to_owned(), &["atlantis", "createdb"]),
        (
            "DB_SCHEMA",
            "atlantis".to_owned(),
            &["there is no schema atlantis", "CREATE SCHEMA"],
        ),
        ("DB_SSL_CA", other, &["certificate", "DB_SSL_CA"]),
        ("DB_SSL_CA", nowhere, &["no.crt"]),
    ];
    are_told(&db, &mistakes);
    let outside = db.outside().await;
    let tables = migration::tables(&outside).await.expect("a list");
    assert!(tables.is_empty(), "{tables:?}");
}

fn are_told(db: &TestDb, mistakes: &[Mistake<'_>]) {
    for (name, value, words) in mistakes {
        let mut variables = db.variables();
        variables.push(("DB_CONNECT_RETRIES", "0".to_owned()));
        variables.push((name, value.clone()));
        for tried in ["up", "status", "check", "fresh"] {
            let mut tool = command(env!("CARGO_BIN_EXE_migration"), db.folder(), &variables);
            let ended = Running::start(tool.arg(tried)).end();
            let code = if tried == "check" { 2 } else { 1 };
            assert_eq!(ended.status.code(), Some(code), "{tried} {name}: {ended:?}");
            assert!(
                ended.stderr.contains("error: "),
                "{tried} {name}: {ended:?}"
            );
            for word in *words {
                assert!(
                    ended.stderr.contains(word),
                    "{tried} {name} {word}: {ended:?}"
                );
            }
            for word in ["hunter2", "panicked", "backtrace", "SqlxError", "\x1b"] {
                assert!(
                    !ended.stderr.contains(word),
                    "{tried} {name} {word}: {ended:?}"
                );
            }
            assert_eq!(ended.stdout, "", "{tried} {name}");
        }
    }
}

/// Since PostgreSQL 15 a new role may not create tables in `public`.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_told_with_the_statement_that_grants_it() {
    let db = TestDb::empty(Backend::Postgres).await;
    let variables = db.variables();
    let name = variables.iter().find(|(name, _)| *name == "DB_NAME");
    let role = format!("{}_guest", name.expect("a name").1);
    db.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"))
        .await;
    let mut variables = db.variables();
    variables.extend([("DB_USER", role.clone()), ("DB_PASS", "x".to_owned())]);
    let up = || {
        let mut tool = command(env!("CARGO_BIN_EXE_migration"), db.folder(), &variables);
        Running::start(tool.arg("up")).end()
    };
    let refused = up();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let statement = format!("GRANT USAGE, CREATE ON SCHEMA \"public\" TO \"{role}\"");
    for word in [&statement, "permission denied for schema public"] {
        assert!(refused.stderr.contains(word), "{word}: {refused:?}");
    }
    assert!(!refused.stderr.contains("at line"), "{refused:?}");
    db.execute(&statement).await;
    let done = up();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_rights_suffice_for_a_look() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let variables = db.variables();
    let name = &variables
        .iter()
        .find(|(name, _)| *name == "DB_NAME")
        .expect("a name")
        .1;
    let role = format!("{name}_reader");
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON aura_migrations TO {role}"
    ))
    .await;
    let mut variables = db.variables();
    variables.extend([("DB_USER", role.clone()), ("DB_PASS", "x".to_owned())]);
    for (asked, code, answer) in [
        ("status", 0, "the schema is up to date"),
        ("check", 0, "The schema is as expected"),
        ("up", 0, "Nothing to do"),
        ("reset", 1, "permission denied"),
    ] {
        let mut tool = command(env!("CARGO_BIN_EXE_migration"), db.folder(), &variables);
        let ended = Running::start(tool.arg(asked)).end();
        assert_eq!(ended.status.code(), Some(code), "{asked}: {ended:?}");
        assert!(
            [ended.stdout, ended.stderr].concat().contains(answer),
            "{asked}"
        );
    }
    db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
