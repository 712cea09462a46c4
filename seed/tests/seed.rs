//! What the seed writes, and that it can be run again.

use argon2::{Argon2, PasswordVerifier};
use aura_db::entity::{
    LogLevel, Role, WorkflowStatus, logs, plugins, users, workflow_plugins, workflows,
};
use aura_db::sea_orm::{EntityTrait, PaginatorTrait, QueryOrder};
use aura_db::{Database, Environment};
use secrecy::ExposeSecret;
use seed::load::{Outcome, Volume};
use seed::{Error, demo, load};
use testdb::{Backend, TestDb};

async fn open(test: &TestDb) -> Database {
    Database::connect(test.config().without_timeouts())
        .await
        .expect("it connects")
}

fn passwords() -> Environment {
    Environment::from_pairs([
        ("SEED_ADMIN_PASSWORD", "canary-admin"),
        ("SEED_BUILDER_PASSWORD", "canary-builder"),
    ])
}

/// Every row of every table, as text.
async fn dump(test: &TestDb) -> String {
    test.dump(&aura_db::migration::runner().tables()).await
}

async fn is_empty(db: &Database) -> bool {
    seed::counts(db)
        .await
        .expect("counts")
        .iter()
        .all(|(_, rows)| *rows == 0)
}

async fn the_demo_is_what_the_old_package_promised(test: TestDb) {
    let db = open(&test).await;
    let report = demo::run(&db, &passwords()).await.expect("it is written");
    assert_eq!(report.created.len(), 6);
    assert!(report.generated.is_empty());

    let users = users::Entity::find()
        .order_by_asc(users::Column::Id)
        .all(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("users");
    let told: Vec<_> = users
        .iter()
        .map(|user| (user.name.as_str(), user.email.as_str(), user.role))
        .collect();
    assert_eq!(
        told,
        [
            ("Admin User", "admin@aura.local", Role::Admin),
            ("Workflow Builder", "builder@aura.local", Role::User)
        ]
    );
    for (user, password) in users.iter().zip(["canary-admin", "canary-builder"]) {
        assert!(user.is_active && user.deleted_at.is_none());
        let verified =
            Argon2::default().verify_password(password.as_bytes(), user.hashed_password.0.as_str());
        assert!(verified.is_ok(), "the hash is not of the given password");
    }

    let plugins = plugins::Entity::find()
        .order_by_asc(plugins::Column::Id)
        .all(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("plugins");
    let told: Vec<_> = plugins
        .iter()
        .map(|plugin| {
            (
                plugin.name.as_str(),
                plugin.version.as_str(),
                plugin.author.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("github", "1.0.0", Some("AURA Team")),
            ("slack", "1.0.0", Some("AURA Team"))
        ]
    );

    let all = workflows::Entity::find()
        .find_also_related(users::Entity)
        .all(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("workflows");
    let [(flow, Some(owner))] = all.as_slice() else {
        panic!("one workflow with an owner, not {}", all.len())
    };
    assert_eq!(
        (flow.name.as_str(), flow.status, flow.version),
        ("GitHub to Slack Notifications", WorkflowStatus::Draft, 1)
    );
    assert_eq!(owner.email, "admin@aura.local");
    let shown = |document: &Option<aura_db::entity::Document>| {
        document.as_ref().expect("a document").to_string()
    };
    assert_eq!(
        shown(&flow.connections),
        r#"{"githubTrigger":["slackNotifier"]}"#
    );
    assert_eq!(shown(&flow.settings), r#"{"retry":{"maxAttempts":3}}"#);
    let nodes = flow.nodes.as_ref().expect("nodes").json().expect("JSON");
    let nodes = nodes.as_object().expect("an object");
    assert_eq!(
        nodes.keys().collect::<Vec<_>>(),
        ["githubTrigger", "slackNotifier"]
    );
    assert_eq!(
        workflow_plugins::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        2
    );

    let logs = logs::Entity::find()
        .all(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("logs");
    let [log] = logs.as_slice() else {
        panic!("one log entry, not {}", logs.len())
    };
    assert_eq!((log.level, log.workflow_id), (LogLevel::Info, flow.id));

    assert!(
        !dump(&test).await.contains("canary"),
        "a password is in the database"
    );
    db.close().await;
}

async fn a_second_demo_changes_nothing(test: TestDb) {
    let db = open(&test).await;
    let first = demo::run(&db, &Environment::default())
        .await
        .expect("it is written");
    assert_eq!(first.generated.len(), 2);
    let [(_, admin), (_, builder)] = first.generated.as_slice() else {
        panic!("two passwords")
    };
    assert!(admin.expose_secret().len() == 24 && admin.expose_secret() != builder.expose_secret());
    assert!(!format!("{first:?}").contains(admin.expose_secret()));

    let before = dump(&test).await;
    let second = demo::run(&db, &passwords()).await.expect("it runs again");
    assert!(second.created.is_empty() && second.generated.is_empty());
    assert_eq!(dump(&test).await, before);
    db.close().await;
}

async fn two_seeds_at_once_write_one_demo(test: TestDb) {
    let (one, two) = (open(&test).await, open(&test).await);
    let (first, second) = (passwords(), passwords());
    let (first, second) = tokio::join!(demo::run(&one, &first), demo::run(&two, &second));
    let created =
        first.expect("none fails").created.len() + second.expect("none fails").created.len();
    assert_eq!(created, 6);
    assert_eq!(
        users::Entity::find()
            .count(&one.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        2
    );
    one.close().await;
    two.close().await;
}

async fn a_password_that_cannot_be_used_changes_nothing(test: TestDb) {
    let db = open(&test).await;
    let long = "x".repeat(2000);
    let error = demo::run(
        &db,
        &Environment::from_pairs([("SEED_BUILDER_PASSWORD", long.as_str())]),
    )
    .await
    .expect_err("too long");
    assert!(
        matches!(
            error,
            Error::Password {
                variable: "SEED_BUILDER_PASSWORD",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(is_empty(&db).await);
    db.close().await;
}

const SMALL: Volume = Volume {
    users: 7,
    workflows: 40,
    logs: 2500,
    rng_seed: 5,
};

async fn load_is_the_same_for_the_same_seed(test: TestDb) {
    let db = open(&test).await;
    let mut told = Vec::new();
    let outcome = load::run(&db, SMALL, &mut |table, done| told.push((table, done)))
        .await
        .expect("it is written");
    assert_eq!(outcome, Outcome::Written([7, 40, 2500]));
    assert_eq!(
        told,
        [
            ("users", 0),
            ("users", 7),
            ("workflows", 0),
            ("workflows", 40),
            ("logs", 0),
            ("logs", 1000),
            ("logs", 2000),
            ("logs", 2500)
        ]
    );
    let other = TestDb::migrated(Backend::Sqlite).await;
    let again = open(&other).await;
    load::run(&again, SMALL, &mut |_, _| {})
        .await
        .expect("it is written");
    // PostgreSQL puts blanks into what it can search.
    let entries = async |db: &Database| {
        let entries = logs::Entity::find().order_by_asc(logs::Column::Id);
        let entries = entries
            .all(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("logs");
        let parts = entries.into_iter().map(|mut entry| {
            let metadata = entry.metadata.take().map(|text| text.json());
            (entry, metadata)
        });
        parts.collect::<Vec<_>>()
    };
    assert!(
        entries(&db).await == entries(&again).await,
        "the log entries differ"
    );
    let stored = workflows::Entity::find()
        .order_by_asc(workflows::Column::Id)
        .all(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("workflows");
    let same = workflows::Entity::find()
        .order_by_asc(workflows::Column::Id)
        .all(&again.seaorm().reader().await.expect("open"))
        .await
        .expect("workflows");
    assert!(stored == same, "the workflows differ");

    let before = dump(&test).await;
    assert_eq!(
        load::run(&db, SMALL, &mut |_, _| {})
            .await
            .expect("it runs again"),
        Outcome::AlreadyThere(7)
    );
    assert!(dump(&test).await == before);

    let more = Volume {
        rng_seed: 6,
        ..SMALL
    };
    assert_eq!(
        load::run(&db, more, &mut |_, _| {})
            .await
            .expect("another seed"),
        Outcome::Written([7, 40, 2500])
    );
    assert_eq!(
        logs::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        5000
    );
    db.close().await;
    again.close().await;
}

async fn nothing_of_nothing_is_no_error(test: TestDb) {
    let db = open(&test).await;
    let nothing = Volume {
        users: 0,
        workflows: 3,
        logs: 3,
        rng_seed: 1,
    };
    let outcome = load::run(&db, nothing, &mut |_, _| {})
        .await
        .expect("there is nobody to own a workflow");
    assert_eq!(outcome, Outcome::Written([0, 0, 0]));
    assert!(is_empty(&db).await);
    db.close().await;
}

testdb::both!(
    migrated: the_demo_is_what_the_old_package_promised,
    a_second_demo_changes_nothing,
    two_seeds_at_once_write_one_demo,
    a_password_that_cannot_be_used_changes_nothing,
    load_is_the_same_for_the_same_seed,
    nothing_of_nothing_is_no_error,
);
