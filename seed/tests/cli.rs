//! The command, as a person meets it in an empty folder.

use std::path::Path;

use aura_db::Database;
use aura_db::entity::users;
use aura_db::sea_orm::{ActiveModelTrait, EntityTrait, PaginatorTrait, Set};
use testdb::TestDb;
use testdb::process::{Ended, Running, asked, command};

fn seed(test: &TestDb, arguments: &[&str], more: &[(&'static str, &str)]) -> Ended {
    let mut variables = test.variables();
    variables.extend(
        more.iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    Running::start(command(env!("CARGO_BIN_EXE_seed"), test.folder(), &variables).args(arguments))
        .end()
}

async fn one_command_migrates_and_seeds_and_the_next_changes_nothing(test: TestDb) {
    let first = seed(&test, &["--migrate"], &[]);
    assert!(first.status.success(), "{first:?}");
    assert!(
        first.stdout.contains(&testdb::all_applied()),
        "{}",
        first.stdout
    );
    let shown: Vec<&str> = first
        .stdout
        .lines()
        .filter(|line| line.contains("admin@aura.local    "))
        .collect();
    let [line] = shown.as_slice() else {
        panic!("the password is shown once, not {shown:?}")
    };
    let password = line.split_whitespace().last().expect("a password");
    assert_eq!(password.len(), 24);
    assert!(
        !first.stdout.contains('\u{1b}'),
        "colour without a terminal"
    );

    let second = seed(&test, &["--migrate"], &[]);
    assert!(second.status.success(), "{second:?}");
    assert!(
        second
            .stdout
            .contains("Nothing to do: the demo data is there."),
        "{}",
        second.stdout
    );
    assert!(!second.stdout.contains("Passwords"), "{}", second.stdout);
    assert!(
        second
            .stdout
            .lines()
            .any(|line| line.split_whitespace().eq(["users", "2"])),
        "{}",
        second.stdout
    );
}

async fn without_a_schema_it_says_what_to_run(test: TestDb) {
    let run = seed(&test, &[], &[]);
    assert_eq!(run.status.code(), Some(1));
    assert!(
        run.stderr.contains("cargo run -p migration -- up") && run.stderr.contains("--migrate"),
        "{}",
        run.stderr
    );
    if test.backend() == testdb::Backend::Sqlite {
        assert!(
            !test.folder().join("aura.db").exists(),
            "it made a file for nothing"
        );
    }
}

async fn production_needs_force(test: TestDb) {
    let production = [("AURA_ENV", "production")];
    let refused = seed(&test, &["--migrate"], &production);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("looks like production") && refused.stderr.contains("--force"),
        "{}",
        refused.stderr
    );
    assert!(
        seed(&test, &[], &[]).stderr.contains("no schema"),
        "it was migrated all the same"
    );

    let forced = seed(&test, &["--migrate", "--force"], &production);
    assert!(forced.status.success(), "{forced:?}");
}

async fn given_passwords_are_not_shown(test: TestDb) {
    let given = [
        ("SEED_ADMIN_PASSWORD", "canary-9321"),
        ("DB_LOGGING", "true"),
    ];
    let run = seed(&test, &["--migrate", "--verbose"], &given);
    assert!(run.status.success(), "{run:?}");
    assert!(
        run.stderr.contains("INSERT INTO"),
        "DB_LOGGING shows the statements: {}",
        run.stderr
    );
    for secret in ["canary-9321", "$argon2id"] {
        assert!(
            !run.stdout.contains(secret) && !run.stderr.contains(secret),
            "{secret} is shown"
        );
    }
    let refused = seed(&test, &[], &[("SEED_ADMIN_PASSWORD", "x")]);
    assert!(
        refused.status.success(),
        "users that are there keep their passwords"
    );
}

async fn a_bad_password_names_its_variable(test: TestDb) {
    let long = "x".repeat(1025);
    let run = seed(&test, &["--migrate"], &[("SEED_ADMIN_PASSWORD", &long)]);
    assert_eq!(run.status.code(), Some(1));
    assert!(
        run.stderr.contains("SEED_ADMIN_PASSWORD") && run.stderr.contains("1024 bytes"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains(&long));
}

/// Two services and two seeds of each profile, each a process of its own.
async fn services_and_seeds_share_one_database(test: TestDb) {
    migration::up(&test.config()).await.expect("migrated");
    let start = |program: &Path, arguments: &[&str], service: Option<&str>| {
        let mut variables = test.variables();
        variables.extend(service.map(|name| (SERVICE, name.to_owned())));
        Running::start(command(program, test.folder(), &variables).args(arguments))
    };
    let this = std::env::current_exe().expect("a path");
    let seed = Path::new(env!("CARGO_BIN_EXE_seed"));
    let load = "--profile load --users 5 --workflows 50 --logs 20000";
    let load: Vec<&str> = load.split(' ').collect();
    let running = [
        start(&this, &["--exact", "service"], Some("one")),
        start(&this, &["--exact", "service"], Some("two")),
        start(seed, &load, None),
        start(seed, &load, None),
        start(seed, &[], None),
        start(seed, &[], None),
    ];
    for process in running {
        let ended = process.end();
        assert!(ended.status.success(), "{ended:?}");
    }
    let rows = test
        .lines("SELECT CAST(count(*) AS text) AS line FROM users")
        .await;
    assert_eq!(
        rows,
        ["207"],
        "100 of each service, 5 of one load, 2 of one demo"
    );
}

/// Names the service that a process is to be.
const SERVICE: &str = "AURA_TEST_SERVICE";

/// What a process does that the test above has started. In the run of all
/// tests there is no name, and nothing to do.
#[tokio::test]
async fn service() {
    let Some(name) = asked(SERVICE) else { return };
    let db = Database::from_env().await.expect("it connects");
    for number in 0..100 {
        let transaction = db.seaorm().begin().await.expect("it begins");
        let before = users::Entity::find().count(&*transaction).await;
        before.expect("it reads before it writes");
        let user = users::ActiveModel {
            name: Set(name.clone()),
            email: Set(format!("{name}{number}@example.org")),
            hashed_password: Set(aura_db::password::unusable()),
            ..Default::default()
        };
        user.insert(&*transaction).await.expect("it writes");
        transaction.commit().await.expect("it commits");
    }
    db.close().await;
}

async fn load_tells_its_progress_in_plain_lines(test: TestDb) {
    let load = [
        "--migrate",
        "--profile",
        "load",
        "--users",
        "3",
        "--workflows",
        "5",
        "--logs",
        "4000",
    ];
    let run = seed(&test, &load, &[]);
    assert!(run.status.success(), "{run:?}");
    assert!(
        run.stderr.contains("logs: 1000 of 4000\n") && run.stderr.contains("logs: 4000 of 4000\n"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout
            .contains("3 users, 5 workflows, 4000 log entries"),
        "{}",
        run.stdout
    );
    assert!(
        seed(&test, &load, &[])
            .stdout
            .contains("Nothing to do: 3 users of --rng-seed 1 are there")
    );
}

testdb::both!(
    empty: one_command_migrates_and_seeds_and_the_next_changes_nothing,
    without_a_schema_it_says_what_to_run,
    production_needs_force,
    given_passwords_are_not_shown,
    a_bad_password_names_its_variable,
    load_tells_its_progress_in_plain_lines,
    services_and_seeds_share_one_database,
);
