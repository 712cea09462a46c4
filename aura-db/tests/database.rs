//! Connecting, and what a service is told when it can't work.

use std::sync::Arc;

use aura_db::entity::{PasswordHash, Role, UserId, users};
use aura_db::migration::{self, Plan, State};
use aura_db::sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, EntityTrait, Insert, PaginatorTrait,
    QuerySelect, Set,
};
use aura_db::{Clock, Config, Database, Error, SchemaHealth, SystemClock};
use testdb::{Backend, TestDb};

fn user(db: &Database, email: &str) -> users::ActiveModel {
    users::ActiveModel {
        name: Set("Ada Lovelace".to_owned()),
        email: Set(email.to_owned()),
        hashed_password: Set(PasswordHash("!".to_owned())),
        role: Set(Role::User),
        is_active: Set(true),
        created_at: Set(db.now()),
        updated_at: Set(db.now()),
        ..Default::default()
    }
}

async fn a_written_row_is_read_back_equal(test: TestDb) {
    let db = Database::connect(test.config()).await.expect("it connects");
    let written = user(&db, "ada@example.org")
        .insert(&*db.seaorm().writer().await.expect("open"))
        .await
        .expect("it is written");
    let read = users::Entity::find_by_id(written.id)
        .one(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("it is read");
    assert_eq!(read.as_ref(), Some(&written));
    assert_eq!(written.id, UserId(1));
    assert!(written.created_at <= db.now());
    db.close().await;
}

async fn a_transaction_counts_when_it_commits(test: TestDb) {
    let db = Database::connect(test.config()).await.expect("it connects");
    let transaction = db.seaorm().begin().await.expect("it begins");
    user(&db, "kept@example.org")
        .insert(&*transaction)
        .await
        .expect("it is written");
    transaction.commit().await.expect("it commits");

    let transaction = db.seaorm().begin().await.expect("it begins");
    user(&db, "gone@example.org")
        .insert(&*transaction)
        .await
        .expect("it is written");
    transaction.rollback().await.expect("it rolls back");

    let transaction = db.seaorm().begin().await.expect("it begins");
    user(&db, "dropped@example.org")
        .insert(&*transaction)
        .await
        .expect("it is written");
    drop(transaction);

    assert_eq!(
        users::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        1
    );
    db.close().await;
}

/// A deferred transaction on SQLite fails here at once with "database is
/// locked", whatever the busy timeout.
async fn transactions_that_read_before_they_write_wait_for_each_other(test: TestDb) {
    let first = Database::connect(test.config()).await.expect("it connects");
    let second = Database::connect(test.config()).await.expect("it connects");
    let work = |db: Database, name: &'static str| async move {
        for round in 0..20 {
            let transaction = db.seaorm().begin().await.expect("it begins");
            let found = users::Entity::find().count(&*transaction).await;
            let written = user(&db, &format!("{name}{round}@example.org"))
                .insert(&*transaction)
                .await;
            found.expect("it reads");
            written.expect("it writes");
            transaction.commit().await.expect("it commits");
        }
    };
    tokio::join!(work(first.clone(), "one"), work(second.clone(), "two"));
    assert_eq!(
        users::Entity::find()
            .count(&first.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        40
    );
    first.close().await;
    second.close().await;
}

/// On PostgreSQL a dropped `begin` used to put its connection back inside of a
/// transaction: the next write was acknowledged, and nobody ever saw it.
async fn a_begin_that_is_given_up_leaves_no_transaction_behind(test: TestDb) {
    let db = Database::connect(test.config_with(&[("DB_POOL_MAX", "1")]))
        .await
        .expect("it connects");
    for round in 0..200 {
        // Given up after so many polls: sooner or later between BEGIN and its
        // answer. A timeout would be too coarse.
        let patience = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = db.seaorm().begin() => {}
            () = patience => {}
        }
        let email = format!("round{round}@example.org");
        let written = user(&db, &email)
            .insert(&*db.seaorm().writer().await.expect("open"))
            .await;
        written.expect("it is written");
    }
    let seen = test.lines("SELECT email AS line FROM users").await;
    assert_eq!(seen.len(), 200, "written and acknowledged");
    db.close().await;
}

async fn health_tells_backend_version_schema_and_pools(test: TestDb) {
    let db = Database::connect(test.config()).await.expect("it connects");
    db.ping().await.expect("it answers");
    let health = db.health().await.expect("it is well");
    let (name, writers) = match test.backend() {
        Backend::Sqlite => ("sqlite", 1),
        Backend::Postgres => ("postgres", 10),
    };
    assert_eq!(
        (health.backend, health.writer.max, health.reader.max),
        (name, writers, 10)
    );
    assert!(
        health
            .server_version
            .starts_with(|digit: char| digit.is_ascii_digit()),
        "{}",
        health.server_version
    );
    assert_eq!(health.schema, SchemaHealth::Current);
    assert!(health.reader.size >= 1 && health.reader.idle <= health.reader.size);
    db.close().await;
}

async fn a_database_without_schema_is_refused_with_what_to_run(test: TestDb) {
    let error = Database::connect(test.config())
        .await
        .expect_err("there is no schema");
    assert!(matches!(error, Error::Schema(_)), "{error:?}");
    assert!(
        error.to_string().contains("cargo run -p migration -- up"),
        "{error}"
    );
    assert!(error.to_string().contains("DB_SYNCHRONIZE=true"), "{error}");
}

async fn synchronize_applies_pending_migrations_once(test: TestDb) {
    let config = || test.config_with(&[("DB_SYNCHRONIZE", "true")]);
    let (one, two) = tokio::join!(Database::connect(config()), Database::connect(config()));
    for db in [one.expect("it connects"), two.expect("it connects")] {
        assert_eq!(db.schema_state().await.expect("a state"), State::Current);
        db.close().await;
    }
}

async fn synchronize_leaves_tables_of_others_alone(test: TestDb) {
    let outside = test.outside().await;
    outside
        .execute_unprepared("CREATE TABLE users (id integer, nickname text)")
        .await
        .expect("a table");
    let error = Database::connect(test.config_with(&[("DB_SYNCHRONIZE", "true")]))
        .await
        .expect_err("not ours");
    assert!(
        error.to_string().contains("users") && error.to_string().contains("another program"),
        "{error}"
    );
    outside
        .execute_unprepared("INSERT INTO users VALUES (1, 'still here')")
        .await
        .expect("the table is as it was");
    close(outside).await;
}

async fn a_schema_that_is_behind_is_refused_and_one_that_is_ahead_is_not(test: TestDb) {
    let reversed = migration::runner()
        .run(&test.config(), Plan::Down(1), |_| {})
        .await
        .expect("one step back");
    let error = Database::connect(test.config())
        .await
        .expect_err("it is behind");
    assert!(error.to_string().contains(&reversed[0].name), "{error}");

    migration::runner()
        .run(&test.config(), Plan::Up(None), |_| {})
        .await
        .expect("up to date");
    let outside = test.outside().await;
    let newer =
        "INSERT INTO aura_migrations (version, applied_at) VALUES ('m29990101_000000_newer', 0)";
    outside
        .execute_unprepared(newer)
        .await
        .expect("a newer build was here");
    close(outside).await;
    for synchronize in ["false", "true"] {
        let db = Database::connect(test.config_with(&[("DB_SYNCHRONIZE", synchronize)]))
            .await
            .expect("it connects");
        let schema = db.health().await.expect("it is well").schema;
        assert_eq!(
            schema,
            SchemaHealth::Ahead {
                unknown: vec!["m29990101_000000_newer".to_owned()]
            }
        );
        db.close().await;
    }
}

async fn debug_output_of_a_database_has_no_password(test: TestDb) {
    let db = Database::connect(test.config()).await.expect("it connects");
    let secrets: Vec<String> = test
        .variables()
        .into_iter()
        .filter(|(name, _)| *name == "DB_PASS")
        .map(|(_, value)| value)
        .collect();
    let shown = format!("{db:?} {:?} {}", db.config(), db.config().describe());
    for secret in &secrets {
        assert!(!shown.contains(secret.as_str()));
    }
    assert_eq!(
        secrets.len(),
        usize::from(test.backend() == Backend::Postgres)
    );
    db.close().await;
}

async fn close(connection: DatabaseConnection) {
    connection.close().await.expect("it closes");
}

mod with_schema {
    use super::*;
    testdb::both!(
        migrated: a_written_row_is_read_back_equal,
        a_transaction_counts_when_it_commits,
        transactions_that_read_before_they_write_wait_for_each_other,
        a_begin_that_is_given_up_leaves_no_transaction_behind,
        health_tells_backend_version_schema_and_pools,
        a_schema_that_is_behind_is_refused_and_one_that_is_ahead_is_not,
        debug_output_of_a_database_has_no_password,
    );
}

mod without_schema {
    use super::*;
    testdb::both!(
        empty: a_database_without_schema_is_refused_with_what_to_run,
        synchronize_applies_pending_migrations_once,
        synchronize_leaves_tables_of_others_alone,
    );
}

/// Reads, writes and transactions of several tasks, beside SeaORM's own connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_memory_is_used_at_once() {
    let db = Database::connect(Config::memory())
        .await
        .expect("it connects");
    let tasks = (0..8).map(|task| {
        let db = db.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let name = format!("task{task}-{round}@example.org");
                let insert = Insert::one(user(&db, &name));
                let made = db.fetch_one(insert).await.expect("inserted");
                let twin = user(&db, &format!("twin-{name}"));
                let twin = db.transaction(|tx| {
                    let twin = twin.clone();
                    async move {
                        tx.fetch_one(users::Entity::find_by_id(made.id)).await?;
                        tx.fetch_one(Insert::one(twin)).await
                    }
                });
                twin.await.expect("committed");
                let reader = db.seaorm().reader().await.expect("open");
                let found = users::Entity::find_by_id(made.id).one(&reader).await;
                assert_eq!(found.expect("read"), Some(made));
                if round % 5 == 0 {
                    let writer = db.seaorm().writer().await.expect("open");
                    let plain = user(&db, &format!("plain-{name}"));
                    plain.insert(&*writer).await.expect("inserted");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    let ids = users::Entity::find()
        .select_only()
        .column(users::Column::Id);
    let ids = db.fetch_all(ids.into_tuple::<(UserId,)>()).await;
    assert_eq!(ids.expect("read").len(), 8 * (20 + 20 + 4));
    // Another is another, and none is left behind.
    let other = Database::connect(Config::memory())
        .await
        .expect("it connects");
    let found = other.fetch_optional(users::Entity::find()).await;
    assert_eq!(found.expect("read"), None);
    db.close().await;
}

#[tokio::test]
async fn a_database_in_memory_is_migrated_and_shared_by_reader_and_writer() {
    let db = Database::connect(Config::memory())
        .await
        .expect("it connects");
    user(&db, "ada@example.org")
        .insert(&*db.seaorm().writer().await.expect("open"))
        .await
        .expect("it is written");
    assert_eq!(
        users::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        1
    );
    assert_eq!(db.health().await.expect("it is well").reader.max, 1);
    // The migration had switched foreign keys off on this very connection.
    let orphan = "INSERT INTO sessions (token, expires_at, user_id) VALUES ('x', '2030-01-01T00:00:00+00:00', 99)";
    assert!(
        db.seaorm()
            .writer()
            .await
            .expect("open")
            .execute_unprepared(orphan)
            .await
            .is_err()
    );
    db.close().await;
}

#[tokio::test]
async fn the_clock_is_the_callers() {
    #[derive(Debug)]
    struct Stopped;
    impl Clock for Stopped {
        fn now(&self) -> chrono::DateTime<chrono::Utc> {
            chrono::DateTime::UNIX_EPOCH
        }
    }
    let db = Database::connect(Config::memory())
        .await
        .expect("it connects");
    assert!(db.now() <= SystemClock.now());
    assert_eq!(
        db.clone().with_clock(Arc::new(Stopped)).now(),
        chrono::DateTime::UNIX_EPOCH
    );
    db.close().await;
}
