//! Each test has a database of its own, which is gone afterwards.

use std::process::{Command, Output};

use aura_db::migration::{DbBackend, Migration, Runner};
use aura_db::sea_orm::Statement;
use aura_db::testing::{Backend, SERVER_VARIABLE, TestDatabase};
use aura_db::{Config, Error, NewUser, Target, TypedQuery};
use testdb::process::Running;

use crate::notes::{self, runner};

#[aura_db::test]
async fn a_test_may_return_nothing(db: TestDatabase) {
    let ada = db.user("ada").await.expect("a user");
    assert_eq!(ada.email, "ada@example.org");
}

#[aura_db::test(migrations = runner)]
async fn own_tables_are_there(db: TestDatabase) -> Result<(), Error> {
    let all = db.repository::<notes::Entity>();
    // What a step in Rust wrote.
    let welcome = all.find_by(notes::COLUMN.title.eq("Welcome")).await?;
    assert_eq!(welcome.len(), 1);
    assert_eq!(db.repository::<notes::Entity>().count(()).await?, 1);
    let folder = db.folder().expect("a folder");
    std::fs::write(folder.join("upload"), "x").expect("a file");
    Ok(())
}

#[aura_db::test(migrations = runner)]
async fn databases_are_separate(db: TestDatabase) -> Result<(), Error> {
    let backend = match db.backend() {
        DbBackend::Postgres => Backend::Postgres,
        _ => Backend::Sqlite,
    };
    let (other, third) = tokio::try_join!(
        TestDatabase::create(backend, runner()),
        TestDatabase::create(backend, runner()),
    )?;
    for db in [&db, &other, &third] {
        db.factory::<notes::Entity>().create().await?;
        assert_eq!(db.repository::<notes::Entity>().count(()).await?, 2);
        assert_eq!(db.users().get(1.into()).await?.name, "user1");
    }
    Ok(())
}

#[aura_db::test]
#[should_panic(expected = "as wanted")]
async fn a_test_may_panic(_db: TestDatabase) {
    panic!("as wanted");
}

#[aura_db::test(sqlite)]
async fn a_file_is_gone_with_its_folder(db: TestDatabase) {
    let Target::Sqlite { path } = db.config().target.clone() else {
        panic!("no file: {db:?}");
    };
    assert!(path.starts_with(db.folder().expect("a folder")));
    drop(db);
    assert!(!path.parent().expect("a folder").exists());
}

fn name_of(db: &TestDatabase) -> String {
    match &db.config().target {
        Target::Postgres(postgres) => postgres.database.clone(),
        other => panic!("no server: {other:?}"),
    }
}

async fn exists(db: &TestDatabase, name: &str) -> bool {
    let sql = "SELECT datname::text FROM pg_database WHERE datname = $1";
    let query = Statement::from_sql_and_values(DbBackend::Postgres, sql, [name.into()]);
    let found = db.fetch_optional(TypedQuery::<String>::sql(query)).await;
    found.expect("a list").is_some()
}

#[aura_db::test(postgres)]
async fn a_database_is_dropped(db: TestDatabase) -> Result<(), Error> {
    let other = TestDatabase::postgres().await?;
    let name = name_of(&other);
    assert!(exists(&db, &name).await);
    // Others create databases meanwhile, and drop what was left: this one is in use.
    TestDatabase::postgres().await?;
    assert!(exists(&db, &name).await);
    drop(other);
    assert!(!exists(&db, &name).await);

    let panics = tokio::spawn(async {
        let db = TestDatabase::postgres().await.expect("a database");
        std::panic::panic_any(name_of(&db));
    });
    let panic = panics.await.expect_err("a panic").into_panic();
    let name = panic.downcast::<String>().expect("its name");
    assert!(!exists(&db, &name).await);
    Ok(())
}

/// Runs one test of this program in a process of its own.
fn program(test: &str) -> Command {
    let mut program = Command::new(std::env::current_exe().expect("a path"));
    program.args(["--exact", test, "--ignored", "--nocapture"]);
    program
}

#[aura_db::test(postgres)]
#[ignore = "killed by the test below"]
async fn waits_to_be_killed(db: TestDatabase) {
    println!("\nname: {}", name_of(&db));
    std::future::pending::<()>().await;
}

#[aura_db::test(postgres)]
async fn what_a_killed_process_left_is_dropped(db: TestDatabase) -> Result<(), Error> {
    let mut running = Running::start(&mut program("databases::waits_to_be_killed::postgres"));
    assert!(running.hears("name: "), "{running:?}");
    let name = running.heard().rsplit("name: ").next().map(str::trim);
    let name = name.expect("a name").to_owned();
    assert!(exists(&db, &name).await);
    let ended = running.kill();
    assert_eq!(ended.status.code(), None, "{ended:?}");
    // Until the server has noticed.
    while exists(&db, &name).await {
        TestDatabase::postgres().await?;
    }
    Ok(())
}

fn fails(server: Option<&str>) -> String {
    let mut program = program("databases::needs_a_server::postgres");
    match server {
        Some(url) => program.env(SERVER_VARIABLE, url),
        None => program.env_remove(SERVER_VARIABLE),
    };
    let Output {
        status,
        stdout,
        stderr,
    } = program.output().expect("it runs");
    assert!(!status.success());
    let text = |bytes| String::from_utf8(bytes).expect("text");
    format!("{}{}", text(stdout), text(stderr))
}

#[aura_db::test(postgres)]
#[ignore = "run by the test below"]
async fn needs_a_server(_db: TestDatabase) {}

#[test]
fn without_a_server_a_test_fails_and_says_why() {
    let refused = "postgres://ada:hunter2@127.0.0.1:1/postgres";
    for (server, words) in [
        (
            None,
            "TEST_DATABASE_URL: is not set, and tests on PostgreSQL need a server",
        ),
        (
            Some("sqlite::memory:"),
            "TEST_DATABASE_URL: names no server; write postgres://",
        ),
        (
            Some("localhost:5432"),
            "TEST_DATABASE_URL=***: is for another kind of database",
        ),
        (Some(refused), "PostgreSQL ada@127.0.0.1:1/postgres"),
    ] {
        let output = fails(server);
        assert!(output.contains("no database for the test"), "{output}");
        assert!(output.contains(words), "{server:?}: {output}");
        assert!(!output.contains("hunter2"), "{output}");
    }
}

#[aura_db::test]
async fn without_its_migrations_a_table_is_missing(db: TestDatabase) {
    let notes = db.repository::<notes::Entity>();
    let error = notes.count(()).await.expect_err("no table");
    assert!(matches!(error, Error::Undefined { .. }), "{error:?}");
    let error = format!("{error:?}");
    assert!(error.contains("apply the migrations"), "{error}");
    assert!(error.contains("notes"), "{error}");

    for sql in [
        "SELECT colour FROM users",
        "INSERT INTO users (colour) VALUES ('red')",
    ] {
        let statement = Statement::from_string(db.backend(), sql);
        let failed = db.fetch_all(TypedQuery::<String>::sql(statement)).await;
        assert!(matches!(failed, Err(Error::Undefined { .. })), "{failed:?}");
    }
}

struct Broken;

impl Migration for Broken {
    fn name(&self) -> &'static str {
        "m1_broken"
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        vec!["CREATE TABLE".to_owned()]
    }
}

#[tokio::test]
async fn a_step_that_fails_is_named() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let broken = Runner::builder().steps(vec![Box::new(Broken)]).build();
        let failed = TestDatabase::create(backend, broken).await;
        let error = failed.expect_err("no database").to_string();
        assert!(error.contains("m1_broken"), "{error}");
    }
}

#[tokio::test]
async fn rows_of_a_given_database_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::sqlite(folder.path().join("given.db"));
    let db = TestDatabase::with(config.clone())
        .await
        .expect("a database");
    assert_eq!(db.folder(), None);
    let ada = NewUser::new("Ada", "ada@example.org", "a long secret");
    db.users().create(ada).await.expect("a user");
    drop(db);
    let db = TestDatabase::with(config).await.expect("a database");
    assert!(
        db.users()
            .email_exists("ada@example.org")
            .await
            .expect("an answer")
    );
}
