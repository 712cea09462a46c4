//! What a broken connection and a broken row become.

use std::fmt::Write;

use aura_db::entity::users;
use aura_db::sea_orm::{ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, Statement};
use aura_db::{
    Database, Error, NewAgent, NewPlugin, NewUser, PageRequest, RowError, SessionRequest,
    UserFilter,
};
use testdb::{Backend, TestDb};

use crate::people::session;
use crate::support::{PASSWORD, assert_error, open, user};

testdb::both!(migrated:
    a_closed_database, a_word_that_nobody_knows,
    a_time_that_is_none, errors_show_no_secret, rows_that_were_imported,
    a_conflict_of_own_columns,
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
         INSERT INTO agents (id, name, model, owner_id) VALUES (1, 'Helper', 'm', 1), (2, 'Else', 'm', 1)",
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
    if test.backend() == Backend::Postgres {
        for (result, table) in [
            (create().await, "users"),
            (register().await, "plugins"),
            (hire().await, "agents"),
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
    assert_error!(create().await, Error::Conflict { columns, .. } if columns == ["email"]);
    assert_error!(hire().await, Error::Conflict { columns, .. } if columns == ["name", "owner_id"]);
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
