//! What a broken connection and a broken row become.

use std::fmt::Write;

use aura_db::entity::users;
use aura_db::sea_orm::{ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, Statement};
use aura_db::{
    Database, Error, ExecutionMode, LogLevel, NewAgent, NewExecution, NewLog, NewPlugin, NewUser,
    NewWorkflow, PageRequest, RowError, SessionRequest, TypedQuery, UserFilter,
};
use futures_util::future::join_all;
use testdb::{Backend, TestDb};

use crate::people::session;
use crate::support::{PASSWORD, assert_error, open, user};

testdb::both!(migrated:
    a_closed_database, a_word_that_nobody_knows,
    a_time_that_is_none, errors_show_no_secret, rows_that_were_imported,
    a_conflict_of_own_columns, a_full_disk,
);
testdb::postgres!(migrated: a_connection_that_breaks, a_time_without_end);

async fn a_closed_database(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let issued = session(&db, "ada").await;
    db.clone().close().await;
    let new = || NewUser::new("Bob", "bob@example.org", "x");
    for result in [
        db.users().find(ada.id).await.map(|_| ()),
        db.users().create(new()).await.map(|_| ()),
        db.users().deactivate(ada.id).await.map(|_| ()),
        db.restricted_to(&ada)
            .users()
            .find(ada.id)
            .await
            .map(|_| ()),
        db.sessions().authenticate(&issued.token).await.map(|_| ()),
        db.login("ada@example.org", PASSWORD, SessionRequest::default())
            .await
            .map(|_| ()),
        db.transaction(|tx| async move { tx.users().create(new()).await })
            .await
            .map(|_: users::Model| ()),
        db.fetch_all(users::Entity::find()).await.map(|_| ()),
        db.ping().await,
    ] {
        assert_error!(result, Error::Unavailable { .. });
    }
}

const KILL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";

/// The server ends the connections (a fail-over, an administrator); the pool
/// makes new ones.
async fn a_connection_that_breaks(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let outside = &test.outside().await;
    let result: Result<(), Error> = db
        .transaction(|tx| async move {
            tx.users()
                .create(NewUser::new("Lost", "lost@example.org", "x"))
                .await?;
            outside.execute_unprepared(KILL).await.expect("killed");
            let lost = tx.users().deactivate(ada).await;
            assert_error!(lost, Error::Unavailable { .. });
            Ok(())
        })
        .await;
    assert_error!(result, Error::Aborted);
    let mut tries = 0;
    loop {
        match db.users().email_exists("lost@example.org").await {
            Ok(there) => break assert!(!there),
            Err(Error::Unavailable { .. }) => tries += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert!(tries < 10, "it doesn't recover");
    }
}

/// Writes what the schema forbids, as another program with its own rules would.
async fn force(test: &TestDb, constraint: &str, sql: &str) {
    let lifted = match test.backend() {
        Backend::Sqlite => "PRAGMA ignore_check_constraints = ON".to_owned(),
        Backend::Postgres => format!("ALTER TABLE users DROP CONSTRAINT {constraint}"),
    };
    test.execute(&format!("{lifted}; {sql}")).await;
}

fn broken<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, Option<String>, Option<i64>) {
    match result {
        Err(Error::Inconsistent(RowError {
            table, column, id, ..
        })) => (table, column, id),
        other => panic!("not inconsistent: {other:?}"),
    }
}

async fn a_word_that_nobody_knows(test: TestDb) {
    let db = open(&test).await;
    user(&db, "ada").await;
    let bob = user(&db, "bob").await;
    let issued = session(&db, "bob").await;
    force(
        &test,
        "users_role_check",
        &format!("UPDATE users SET role = 'root' WHERE id = {}", bob.id),
    )
    .await;
    let expected = ("users".to_owned(), Some("role".to_owned()), Some(bob.id.0));
    let find = async |db: &Database| db.users().find(bob.id).await;
    assert_eq!(broken(find(&db).await), expected);
    assert_eq!(
        find(&db).await.expect_err("inconsistent").to_string(),
        format!(
            "users.role of the row with id {} holds what this build can't read",
            bob.id
        )
    );
    assert_eq!(broken(db.users().get_by_email(&bob.email).await), expected);
    let list = db
        .users()
        .list(UserFilter::new(), PageRequest::first(10))
        .await;
    let list = list.expect("the others");
    let left_out = &list.unreadable[0];
    assert_eq!((list.items.len(), list.unreadable.len()), (1, 1));
    assert_eq!(
        (&left_out.table, &left_out.column),
        (&expected.0, &expected.1)
    );
    let who = db.sessions().authenticate(&issued.token).await;
    assert_eq!(broken(who), expected, "a row with two entities");
    let changed = db.users().activate(bob.id).await;
    assert_eq!(broken(changed), expected, "a row that a write returns");
    let all = db.fetch_all(users::Entity::find()).await;
    assert_eq!(broken(all), expected, "a query of one's own");
    // As an actor the user may nothing, and the others are as before.
    let restricted = db.restricted_to(&bob).users().find(bob.id).await;
    assert_eq!(broken(restricted).0, "users");
    session(&db, "ada").await;
}

/// (PostgreSQL's columns hold nothing but times.)
async fn a_time_that_is_none(test: TestDb) {
    if test.backend() == Backend::Postgres {
        return;
    }
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let issued = session(&db, "ada").await;
    for (table, column) in [("sessions", "created_at"), ("users", "updated_at")] {
        force(
            &test,
            "",
            &format!("UPDATE {table} SET {column} = 'yesterday'"),
        )
        .await;
        let id = if table == "users" {
            ada.0
        } else {
            issued.session.id.0
        };
        let who = db.sessions().authenticate(&issued.token).await;
        assert_eq!(
            broken(who),
            (table.to_owned(), Some(column.to_owned()), Some(id))
        );
        force(
            &test,
            "",
            &format!("UPDATE {table} SET {column} = '2026-01-01T00:00:00+00:00'"),
        )
        .await;
    }
}

#[derive(Debug, FromQueryResult, serde::Deserialize)]
struct Other {
    #[expect(dead_code, reason = "it is only read")]
    since: chrono::NaiveDate,
    #[expect(dead_code, reason = "it is only read")]
    at: chrono::NaiveDateTime,
}

/// PostgreSQL has times that no clock shows, in its own tables and in others'.
async fn a_time_without_end(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    test.execute(
        "UPDATE users SET created_at = 'infinity'; \
         CREATE TABLE others (id bigint, since date, at timestamp); \
         INSERT INTO others VALUES (7, '-infinity', now()), (8, now(), 'infinity'), \
            (9, '294000-01-01', now())",
    )
    .await;
    let expected = (
        "users".to_owned(),
        Some("created_at".to_owned()),
        Some(ada.0),
    );
    assert_eq!(broken(db.users().get(ada).await), expected);
    assert_eq!(broken(db.users().deactivate(ada).await), expected);
    let own = |row: &(String, Option<String>, Option<i64>)| (row.1.clone(), row.2);
    let all = broken(db.fetch_all(users::Entity::find()).await);
    assert_eq!(own(&all), (expected.1, expected.2));
    let inside = db
        .transaction(|tx| async move { tx.fetch_all(users::Entity::find()).await })
        .await;
    assert_eq!(broken(inside), all);
    for (id, column) in [(7, "since"), (8, "at"), (9, "since")] {
        let sql = format!("SELECT id, since, at FROM others WHERE id = {id}");
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        let query = Other::find_by_statement(statement);
        let found = broken(db.fetch_one(query).await);
        assert_eq!(own(&found), (Some(column.to_owned()), Some(id)));
    }
}

/// The server quotes the whole row when a constraint refuses it.
async fn errors_show_no_secret(test: TestDb) {
    let db = open(&test).await;
    let mut insert = aura_db::sea_orm::sea_query::Query::insert();
    insert
        .into_table(users::Entity)
        .columns([
            users::Column::Name,
            users::Column::Email,
            users::Column::HashedPassword,
            users::Column::Role,
        ])
        .values_panic([
            "Ada".into(),
            "ada@example.org".into(),
            "$argon2id$canary".into(),
            "root".into(),
        ]);
    let error = db.execute(insert).await.expect_err("refused");
    let mut shown = format!("{error} {error:?} {error:#?}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        write!(shown, "\n{cause}").expect("text");
        source = cause.source();
    }
    assert!(shown.to_lowercase().contains("check"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

/// With their ids, so that on PostgreSQL the sequence stands before them (SQLite
/// counts on from the highest).
async fn rows_that_were_imported(test: TestDb) {
    test.execute(
        "INSERT INTO users (id, name, email, hashed_password) VALUES (1, 'Ada', 'ada@example.org', '!'), \
             (2, 'Cid', 'cid@example.org', '!'); \
         INSERT INTO plugins (id, name, description, version) VALUES (1, 'mail', '', '1'); \
         INSERT INTO agents (id, name, model, owner_id) VALUES (1, 'Helper', 'm', 1), (2, 'Else', 'm', 1); \
         INSERT INTO workflows (id, name, owner_id) VALUES (1, 'Old', 1); \
         INSERT INTO executions (id, workflow_id, workflow_version, mode) VALUES (1, 1, 1, 'manual'); \
         INSERT INTO logs (id, level, message, workflow_id) VALUES (1, 'info', 'old', 1); \
         INSERT INTO sessions (id, token, expires_at, user_id) VALUES (1, 'x', '2030-01-01T00:00:00+00:00', 1)",
    )
    .await;
    let db = open(&test).await;
    let free = || NewUser::new("Bob", "bob@example.org", PASSWORD);
    let create = async || db.users().create(free()).await.map(|_| ());
    let register = async || {
        let plugin = NewPlugin::new("files", "1");
        db.plugins().register(plugin).await.map(|_| ())
    };
    let hire = async || {
        let agent = NewAgent::new("Other", "m").owner(1.into());
        db.agents().create(agent).await.map(|_| ())
    };
    let draw = async || {
        let workflow = NewWorkflow::new("new").owner(1.into());
        db.workflows().create(workflow).await.map(|_| ())
    };
    let enqueue = async || {
        let execution = NewExecution::new(1.into(), ExecutionMode::Manual);
        db.executions().enqueue(execution).await.map(|_| ())
    };
    let append = async || {
        let entry = NewLog::new(1.into(), LogLevel::Info, "new");
        db.logs().append(entry).await.map(|_| ())
    };
    let begin = async || {
        let request = SessionRequest::default();
        db.sessions().issue(1.into(), request).await.map(|_| ())
    };
    if test.backend() == Backend::Postgres {
        for (result, table) in [
            (create().await, "users"),
            (register().await, "plugins"),
            (hire().await, "agents"),
            (draw().await, "workflows"),
            (enqueue().await, "executions"),
            (append().await, "logs"),
            (begin().await, "sessions"),
        ] {
            let Err(error) = result else {
                panic!("{table}: its key was free");
            };
            let said = error.to_string();
            assert_error!(
                Err::<(), _>(error),
                Error::Conflict { table: of, columns, .. } if of == table && columns == ["id"]
            );
            assert!(
                said.contains(&format!("the sequence of {table}.id")),
                "{said}"
            );
        }
    }
    create().await.expect("the next key is free");
    register().await.expect("the next key is free");
    hire().await.expect("the next key is free");
    draw().await.expect("the next key is free");
    enqueue().await.expect("the next key is free");
    append().await.expect("the next key is free");
    begin().await.expect("the next key is free");
    assert_error!(create().await, Error::Conflict { columns, .. } if columns == ["email"]);
    assert_error!(hire().await, Error::Conflict { columns, .. } if columns == ["name", "owner_id"]);
}

/// Leaves no space for log entries: at the COMMIT on PostgreSQL, and in the statement on
/// SQLite.
async fn set_disk(test: &TestDb, db: &Database, full: bool) {
    let sql = match (test.backend(), full) {
        (Backend::Postgres, true) => {
            return test
                .execute(
                    "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS \
                     'BEGIN RAISE EXCEPTION ''no space'' USING ERRCODE = ''53100''; END'; \
                     CREATE CONSTRAINT TRIGGER no_space AFTER INSERT ON logs \
                         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no_space()",
                )
                .await;
        }
        (Backend::Postgres, false) => {
            return test.execute("DROP FUNCTION no_space CASCADE").await;
        }
        (Backend::Sqlite, true) => "PRAGMA max_page_count = 1",
        (Backend::Sqlite, false) => "PRAGMA max_page_count = 1000000",
    };
    // On the writer's connection.
    let limited: Result<i64, Error> = db
        .transaction(|tx| async move {
            let pragma = Statement::from_string(DbBackend::Sqlite, sql);
            tx.fetch_one(TypedQuery::<i64>::sql(pragma)).await
        })
        .await;
    limited.expect("set");
}

/// Nothing was done, and the error says so, and what to do.
async fn a_full_disk(test: TestDb) {
    let db = &open(&test).await;
    let owner = user(db, "ada").await.id;
    let flow = NewWorkflow::new("x").owner(owner);
    let flow = db.workflows().create(flow).await.expect("created").id;
    let new = || NewLog::new(flow, LogLevel::Info, "x".repeat(5_000));
    set_disk(&test, db, true).await;
    // The pages that are there have space for some.
    let mut count = 0;
    let refused = loop {
        match db.logs().append(new()).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("free space "), "{refused}");
    let inside = db
        .transaction(|tx| async move { tx.logs().append(new()).await })
        .await;
    let mut all = vec![Err(refused), inside];
    let together = (0..20).map(|_| async { db.logs().append(new()).await });
    all.extend(join_all(together).await);
    for refused in all {
        assert_error!(
            refused,
            Error::Unavailable { reason, .. } if reason.contains("disk is full and nothing was done")
        );
    }
    let ids = "SELECT CAST(id AS text) AS line FROM logs";
    assert_eq!(test.lines(ids).await.len(), count);
    set_disk(&test, db, false).await;
    db.logs().append(new()).await.expect("there is space again");
    assert_eq!(test.lines(ids).await.len(), count + 1);
}

/// Named alike on both, whatever the index is called.
async fn a_conflict_of_own_columns(test: TestDb) {
    test.execute(
        "CREATE TABLE keys (\"left\" bigint NOT NULL, b bigint NOT NULL); \
         CREATE UNIQUE INDEX mine ON keys (\"left\", b)",
    )
    .await;
    let db = open(&test).await;
    let insert = async || {
        let mut insert = aura_db::sea_orm::sea_query::Query::insert();
        insert
            .into_table("keys")
            .columns(["left", "b"])
            .values_panic([1_i64.into(), 2_i64.into()]);
        db.execute(insert).await
    };
    insert().await.expect("the first");
    assert_error!(
        insert().await,
        Error::Conflict { table, columns, .. } if table == "keys" && columns == ["b", "left"]
    );
}
