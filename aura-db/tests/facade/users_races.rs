//! What happens at the same moment as a change of a password or a lock-out.
//! The interleavings are forced: the change is held open by a transaction from
//! outside until the other has seen what was before it.

use std::time::Instant;

use aura_db::entity::{sessions, users};
use aura_db::sea_orm::sea_query::Query;
use aura_db::sea_orm::{ColumnTrait, ConnectionTrait};
use aura_db::{Database, Error, NewUser, SessionRequest, UserId, password};
use testdb::TestDb;

use crate::people::{login, opens, pause, plant, session, until_waiting};
use crate::support::{PASSWORD, assert_error, open, user};

testdb::both!(migrated:
    a_password_changed_in_between_wins, an_old_hash_changed_in_between_wins,
    a_lock_out_in_between_wins, an_undone_change_is_none, a_login_first_ends_with_the_change,
    no_session_survives_a_change, one_of_many_rotations,
    a_transaction_passes_logins_that_wait,
);

/// How often a repository's operation has ended.
fn ended(db: &Database, operation: &str) -> u64 {
    let stats = db.stats();
    let mut of = stats.operations.iter();
    of.find(|one| one.operation == operation)
        .map_or(0, |one| one.count)
}

/// Until the operation has ended once more than so often.
async fn until_ended(db: &Database, operation: &str, before: u64) {
    let started = Instant::now();
    while ended(db, operation) <= before {
        pause(started).await;
    }
}

/// Changes a column of a user from outside while `meanwhile` runs: it is
/// committed, or undone, when `meanwhile` has done its first operation and
/// waits.
async fn change_while<T: Send + 'static>(
    test: &TestDb,
    db: &Database,
    id: UserId,
    (column, value): (users::Column, aura_db::sea_orm::Value),
    commit: bool,
    first: &str,
    meanwhile: impl Future<Output = T> + Send + 'static,
) -> T {
    let before = ended(db, first);
    let transaction = db.seaorm().begin().await.expect("begun");
    let update = Query::update()
        .table(users::Entity)
        .value(column, value)
        .and_where(users::COLUMN.id.eq(id))
        .take();
    transaction.execute(&update).await.expect("changed");
    let task = tokio::spawn(meanwhile);
    if !first.is_empty() {
        until_ended(db, first, before).await;
    }
    until_waiting(test, 1).await;
    let end = if commit {
        transaction.commit().await
    } else {
        transaction.rollback().await
    };
    end.expect("ended");
    task.await.expect("no panic")
}

async fn a_password_changed_in_between_wins(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let new = password::hash(&"new".into()).await.expect("a hash");
    let new = (users::Column::HashedPassword, new.0.into());
    let inside = db.clone();
    let meanwhile = async move { login(&inside, "ada", PASSWORD).await };
    let answer = change_while(
        &test,
        &db,
        ada,
        new,
        true,
        "login_lookup",
        Box::pin(meanwhile),
    )
    .await;
    assert_error!(answer, Error::Credentials);
    assert!(db.sessions().list(ada).await.expect("rows").is_empty());
    login(&db, "ada", "new").await.expect("the new one");
}

async fn an_old_hash_changed_in_between_wins(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let old = bcrypt::hash(PASSWORD, 4).expect("a hash");
    plant(&db, ada, &old).await;
    let new = password::hash(&"new".into()).await.expect("a hash");
    let value = (users::Column::HashedPassword, new.0.clone().into());
    let inside = db.clone();
    let meanwhile = async move { login(&inside, "ada", PASSWORD).await };
    let answer = change_while(
        &test,
        &db,
        ada,
        value,
        true,
        "login_lookup",
        Box::pin(meanwhile),
    )
    .await;
    assert_error!(answer, Error::Credentials);
    assert_eq!(
        crate::people::stored_hash(&db, ada).await,
        new.0,
        "the renewed hash of the old password didn't overwrite it"
    );
    assert!(db.sessions().list(ada).await.expect("rows").is_empty());
}

async fn a_lock_out_in_between_wins(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let off = || (users::Column::IsActive, false.into());
    let inside = db.clone();
    let meanwhile = async move { login(&inside, "ada", PASSWORD).await };
    let answer = change_while(
        &test,
        &db,
        ada,
        off(),
        true,
        "login_lookup",
        Box::pin(meanwhile),
    )
    .await;
    assert_error!(answer, Error::Credentials);

    db.users().activate(ada).await.expect("activated");
    let inside = db.clone();
    let meanwhile = async move {
        inside
            .sessions()
            .issue(ada, SessionRequest::default())
            .await
    };
    let answer = change_while(&test, &db, ada, off(), true, "", Box::pin(meanwhile)).await;
    assert_error!(
        answer,
        Error::NotFound {
            what: "active user",
            ..
        }
    );
    assert!(db.sessions().list(ada).await.expect("rows").is_empty());
}

async fn an_undone_change_is_none(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let off = (users::Column::IsActive, false.into());
    let inside = db.clone();
    let meanwhile = async move { login(&inside, "ada", PASSWORD).await };
    let issued = change_while(
        &test,
        &db,
        ada,
        off,
        false,
        "login_lookup",
        Box::pin(meanwhile),
    )
    .await;
    assert!(opens(&db, &issued.expect("a session")).await);
}

/// A login that is not committed yet when the change begins: the change waits,
/// and ends its session too.
async fn a_login_first_ends_with_the_change(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let (db, test) = (&db, &test);
    let (issued, change) = db
        .transaction(|tx| async move {
            let request = SessionRequest::default();
            let issued = tx
                .users()
                .login("ada@example.org", PASSWORD, request)
                .await?;
            let before = ended(db, "change_password");
            let inside = db.clone();
            let change =
                tokio::spawn(
                    async move { inside.users().change_password(ada, PASSWORD, "new").await },
                );
            // It has looked up the old hash, and waits for us.
            until_ended(db, "change_password", before).await;
            until_waiting(test, 1).await;
            Ok::<_, Error>((issued, change))
        })
        .await
        .expect("committed");
    change.await.expect("no panic").expect("changed");
    assert!(!opens(db, &issued).await, "a session survived the change");
    assert!(db.sessions().list(ada).await.expect("rows").is_empty());
}

/// Logins and changes of the password as they come: after a change was
/// acknowledged, no session for the old password opens anything.
async fn no_session_survives_a_change(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let mut old = PASSWORD.to_owned();
    for round in 0..6 {
        let logins: Vec<_> = (0..4)
            .map(|_| {
                let (db, old) = (db.clone(), old.clone());
                tokio::spawn(async move { login(&db, "ada", old).await })
            })
            .collect();
        let new = format!("new {round}");
        let change = {
            let (db, old, new) = (db.clone(), old.clone(), new.clone());
            tokio::spawn(async move { db.users().change_password(ada, old, new).await })
        };
        change.await.expect("no panic").expect("changed");
        for task in logins {
            match task.await.expect("no panic") {
                Ok(issued) => assert!(!opens(&db, &issued).await, "round {round}"),
                Err(Error::Credentials) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(db.sessions().list(ada).await.expect("rows").is_empty());
        old = new;
    }
}

/// Held up by somebody who has the row, so that they come at the same moment.
async fn one_of_many_rotations(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let issued = session(&db, "ada").await;
    let transaction = db.seaorm().begin().await.expect("begun");
    let hold = Query::update()
        .table(sessions::Entity)
        .value(sessions::Column::UserAgent, "held")
        .and_where(sessions::COLUMN.id.eq(issued.session.id))
        .take();
    transaction.execute(&hold).await.expect("held");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (db, token) = (db.clone(), issued.token.clone());
            tokio::spawn(async move { db.sessions().rotate(&token).await })
        })
        .collect();
    // The pool has ten connections, and one of them is ours.
    until_waiting(&test, 9).await;
    transaction.commit().await.expect("committed");
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await.expect("no panic").expect("an answer"));
    }
    assert_eq!(winners.len(), 1);
    assert!(opens(&db, &winners[0]).await);
    assert!(!opens(&db, &issued).await);
    assert_eq!(db.sessions().list(ada).await.expect("rows").len(), 1);
}

/// It keeps a connection, and on SQLite the writer, so its password is hashed beside
/// theirs.
async fn a_transaction_passes_logins_that_wait(test: TestDb) {
    const LOGINS: usize = 40;
    let db = open(&test).await;
    user(&db, "ada").await;
    let before = ended(&db, "login_lookup");
    let logins = (0..LOGINS).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { login(&db, "ada", PASSWORD).await })
    });
    let logins: Vec<_> = logins.collect();
    until_ended(&db, "login_lookup", before + LOGINS as u64 - 1).await;
    let created = db.transaction(|tx| async move {
        let bob = NewUser::new("Bob", "bob@example.org", PASSWORD);
        tx.users().create(bob).await
    });
    created.await.expect("created");
    let waiting = logins.iter().filter(|login| !login.is_finished()).count();
    assert!(waiting > LOGINS / 2, "only {waiting} wait");
    for login in logins {
        login.await.expect("no panic").expect("a session");
    }
}
