//! Writes whose answer is lost: they are reported as such, and never repeated.

use std::time::Duration;

use aura_db::sea_orm::sea_query::Query;
use aura_db::sea_orm::{ConnectionTrait, DbBackend, Statement};
use aura_db::{
    Config, Database, Error, ExecutionMode, LogLevel, NewExecution, NewLog, NewUser, TypedQuery,
};
use testdb::TestDb;

use crate::executions::flow;
use crate::support::{PASSWORD, assert_error, user};

testdb::postgres!(migrated:
    a_silent_server, a_connection_that_is_ended, a_statement_through_seaorm,
    a_function_that_writes, what_the_server_does_not_know,
    what_the_server_refuses_was_not_done,
);

const LIMIT: Duration = Duration::from_millis(200);

async fn connect(mut config: Config) -> Database {
    config.statement_timeout = Some(LIMIT);
    Database::connect(config).await.expect("it connects")
}

/// Commits to these tables take longer than the client waits for the server, and
/// are not ended by its statement timeout. A cancel request is two signals, to the backend and to
/// its process group (`signal_child` in src/backend/postmaster/postmaster.c): the second may come
/// while the first is handled.
async fn slow_commits(test: &TestDb, seconds: f32, tables: &[&str]) {
    test.execute(&format!(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN \
            BEGIN PERFORM pg_sleep({seconds}); \
            EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.1); END; \
            RETURN NULL; \
          EXCEPTION WHEN query_canceled THEN RETURN NULL; END'"
    ))
    .await;
    for table in tables {
        test.execute(&format!(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {table} \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()"
        ))
        .await;
    }
}

/// Returns the number of rows once no statement runs any more.
async fn rows(test: &TestDb, table: &str) -> usize {
    let busy = "SELECT pid::text AS line FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'";
    while !test.lines(busy).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ids = format!("SELECT id::text AS line FROM {table}");
    test.lines(&ids).await.len()
}

/// Ends the connection of a statement that sleeps.
async fn end_sleeping(test: &TestDb) {
    let end = "SELECT pg_terminate_backend(pid)::text AS line FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND wait_event = 'PgSleep'";
    while test.lines(end).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server does it though it is asked to cancel, and the client has stopped to wait.
async fn a_silent_server(test: TestDb) {
    let db = connect(test.plain_config()).await;
    let flow = flow(&db, "ada").await;
    slow_commits(&test, 1.5, &["executions", "logs", "users", "agents"]).await;

    let new = || NewExecution::new(flow, ExecutionMode::Manual);
    let queued = db.executions().enqueue(new()).await;
    assert_error!(queued, Error::OutcomeUnknown { .. });
    assert_eq!(rows(&test, "executions").await, 1);

    // Also where several went in one statement.
    let entries: Vec<_> = (0..20)
        .map(|nth| {
            let (db, new) = (
                db.clone(),
                NewLog::new(flow, LogLevel::Info, nth.to_string()),
            );
            tokio::spawn(async move { db.logs().append(new).await })
        })
        .collect();
    for entry in entries {
        assert_error!(entry.await.expect("no panic"), Error::OutcomeUnknown { .. });
    }
    assert_eq!(rows(&test, "logs").await, 20);

    // A transaction, at its commit.
    let created = db
        .transaction(|tx| async move {
            let bob = NewUser::new("Bob", "bob@example.org", PASSWORD);
            tx.users().create(bob).await
        })
        .await;
    assert_error!(
        created,
        Error::OutcomeUnknown {
            context: "committing",
            ..
        }
    );
    assert_eq!(rows(&test, "users").await, 2);

    // And a statement of one's own.
    let owner = db
        .users()
        .get_by_email("ada@example.org")
        .await
        .expect("there");
    let mut insert = Query::insert();
    insert
        .into_table("agents")
        .columns(["name", "model", "owner_id"])
        .values_panic(["a".into(), "m".into(), owner.id.into()]);
    assert_error!(db.execute(insert).await, Error::OutcomeUnknown { .. });
    assert_eq!(rows(&test, "agents").await, 1);
    // A read has no outcome.
    let shown = Error::OutcomeUnknown {
        context: "writing",
        source: "lost".into(),
    };
    assert_eq!(
        shown.to_string(),
        "writing: the answer was lost, so it may have been done; look before doing it again"
    );
    db.close().await;
}

/// By the server, in the middle of a statement.
async fn a_connection_that_is_ended(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    let db = Database::connect(config).await.expect("it connects");
    let flow = flow(&db, "ada").await;
    slow_commits(&test, 30.0, &["executions"]).await;
    let writer = tokio::spawn({
        let db = db.clone();
        async move {
            db.executions()
                .enqueue(NewExecution::new(flow, ExecutionMode::Cron))
                .await
        }
    });
    end_sleeping(&test).await;
    assert_error!(
        writer.await.expect("no panic"),
        Error::OutcomeUnknown { .. }
    );
    assert_eq!(rows(&test, "executions").await, 0);
    db.close().await;
}

/// An application's own statement, whose error is converted by `?`.
async fn a_statement_through_seaorm(test: TestDb) {
    let db = Database::connect(test.plain_config())
        .await
        .expect("it connects");
    user(&db, "ada").await;
    slow_commits(&test, 30.0, &["agents"]).await;
    let insert = async |sql: &'static str| -> Result<(), Error> {
        let writer = db.seaorm().writer().await?;
        writer.execute_unprepared(sql).await?;
        Ok(())
    };
    let sql = "INSERT INTO agents (name, model, owner_id) SELECT 'a', 'm', id FROM users";
    let (inserted, ()) = futures_util::join!(insert(sql), end_sleeping(&test));
    assert_error!(inserted, Error::OutcomeUnknown { .. });
    // The server's answer is none of these.
    let refused = insert("INSERT INTO agents (name, model, owner_id) VALUES ('a', 'm', 0)").await;
    assert_error!(refused, Error::ForeignKey { .. });
    db.close().await;
}

/// A statement that reads as far as it shows.
async fn a_function_that_writes(test: TestDb) {
    let db = Database::connect(test.plain_config())
        .await
        .expect("it connects");
    user(&db, "ada").await;
    slow_commits(&test, 30.0, &["agents"]).await;
    test.execute(
        "CREATE FUNCTION hire() RETURNS bigint LANGUAGE sql AS \
         'INSERT INTO agents (name, model, owner_id) SELECT ''a'', ''m'', id FROM users \
          RETURNING id'",
    )
    .await;
    let hire = Statement::from_string(DbBackend::Postgres, "SELECT hire()");
    let query = db.fetch_one(TypedQuery::<i64>::sql(hire));
    let (hired, ()) = futures_util::join!(query, end_sleeping(&test));
    assert_error!(hired, Error::OutcomeUnknown { .. });
    db.close().await;
}

/// As a pooler says it, `statement_completion_unknown`.
async fn what_the_server_does_not_know(test: TestDb) {
    let db = Database::connect(test.plain_config())
        .await
        .expect("it connects");
    test.execute(
        "CREATE FUNCTION unknown() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN RAISE EXCEPTION ''lost'' USING ERRCODE = ''40003''; END'; \
         CREATE CONSTRAINT TRIGGER unknown AFTER INSERT ON users \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION unknown()",
    )
    .await;
    let new = || NewUser::new("Bob", "bob@example.org", PASSWORD);
    let created = db.users().create(new()).await;
    assert_error!(created, Error::OutcomeUnknown { .. });
    let created = db
        .transaction(|tx| async move { tx.users().create(new()).await })
        .await;
    assert_error!(created, Error::OutcomeUnknown { .. });
    let sql = "INSERT INTO users (name, email, hashed_password) VALUES ('B', 'b@b.org', '!')";
    let inserted = async || -> Result<(), Error> {
        db.seaorm().writer().await?.execute_unprepared(sql).await?;
        Ok(())
    };
    assert_error!(inserted().await, Error::OutcomeUnknown { .. });
    db.close().await;
}

async fn what_the_server_refuses_was_not_done(test: TestDb) {
    let db = connect(test.plain_config()).await;
    let ada = user(&db, "ada").await;
    test.execute(
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(30); RETURN NEW; END'; \
         CREATE TRIGGER slow BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION sleep()",
    )
    .await;
    assert_error!(db.users().deactivate(ada.id).await, Error::Timeout { .. });
    assert!(db.users().get(ada.id).await.expect("there").is_active);
    let mut config = test.plain_config();
    config.pool.max = 1;
    config.pool.connection_timeout = LIMIT;
    let one = Database::connect(config).await.expect("it connects");
    let waiting: Result<(), Error> = one
        .transaction(|_tx| {
            let one = one.clone();
            async move {
                let flow = NewExecution::new(1.into(), ExecutionMode::Manual);
                assert_error!(one.executions().enqueue(flow).await, Error::Busy { .. });
                Ok(())
            }
        })
        .await;
    waiting.expect("a transaction");
    one.close().await;
    db.close().await;
}
