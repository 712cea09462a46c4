//! Transactions that lock the same rows in different orders, on PostgreSQL.

use std::time::Instant;

use aura_db::sea_orm::Statement;
use aura_db::users::{NewOwner, OwnedRows};
use aura_db::{Database, Error, TypedQuery, UserChange, UserId};
use testdb::{Backend, TestDb};

use crate::people::{agent, pause, until_waiting, workflow};
use crate::support::{assert_error, open, user};

testdb::both!(migrated: opposite_transfers_run_once, owners_come_before_their_rows);
testdb::postgres!(migrated: a_deadlock_is_found_sooner_the_next_time);

/// Two users are locked in the order of their ids, in either direction of a transfer.
async fn opposite_transfers_run_once(test: TestDb) {
    let db = open(&test).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let tasks = [(ada, bob), (bob, ada)].map(|(from, to)| {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                db.users()
                    .transfer(from, NewOwner(to))
                    .await
                    .expect("transferred");
            }
        })
    });
    for task in tasks {
        task.await.expect("no panic");
    }
    // SQLite may run a closure again that shares its commit.
    if test.backend() == Backend::Postgres {
        assert_eq!(db.stats().retries, 0);
    }
}

/// A user is locked before the workflows and agents that go with the user.
async fn owners_come_before_their_rows(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let flow = workflow(&db, ada, "flow").await;
    let helper = agent(&db, ada, "helper").await;
    let users = {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let deleted = db.users().delete(ada, OwnedRows::Delete).await;
                deleted.expect("deleted");
                db.users().restore(ada).await.expect("restored");
            }
        })
    };
    let rows = {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let results = [
                    db.workflows().restore(flow).await.map(|_| ()),
                    db.workflows().duplicate(flow, None).await.map(|_| ()),
                    db.agents().restore(helper).await.map(|_| ()),
                ];
                for result in results {
                    match result {
                        Ok(()) | Err(Error::NotFound { .. } | Error::State { .. }) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        })
    };
    users.await.expect("no panic");
    rows.await.expect("no panic");
    // SQLite may run a closure again that shares its commit.
    if test.backend() == Backend::Postgres {
        assert_eq!(db.stats().retries, 0);
    }
}

async fn deadlock_timeout(db: &Database) -> String {
    let show = Statement::from_string(db.backend(), "SHOW deadlock_timeout");
    let show = || TypedQuery::<String>::sql(show.clone());
    let show = &show;
    let shown = db.transaction(|tx| async move { tx.fetch_one(show()).await });
    shown.await.expect("shown")
}

fn named(name: &str) -> UserChange {
    UserChange::new().name(name)
}

/// One that an application makes. The test's role may set the timeout.
async fn a_deadlock_is_found_sooner_the_next_time(test: TestDb) {
    let db = open(&test).await;
    let (ada, bob): (UserId, UserId) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    assert_eq!(deadlock_timeout(&db).await, "1s");
    let (one, two) = (
        db.begin().await.expect("begun"),
        db.begin().await.expect("begun"),
    );
    one.users().update(ada, named("one")).await.expect("locked");
    two.users().update(bob, named("two")).await.expect("locked");
    let first = tokio::spawn(async move {
        let updated = one.users().update(bob, named("one")).await.map(|_| ());
        match updated {
            Ok(()) => one.commit().await,
            Err(error) => one.rollback().await.and(Err(error)),
        }
    });
    until_waiting(&test, 1).await;
    let second = match two.users().update(ada, named("two")).await {
        Ok(_) => two.commit().await,
        Err(error) => two.rollback().await.and(Err(error)),
    };
    let first = first.await.expect("no panic");
    match (first, second) {
        (Ok(()), Err(error)) | (Err(error), Ok(())) => {
            assert_error!(Err::<(), _>(error), Error::Busy { .. });
        }
        other => panic!("{other:?}"),
    }
    let started = Instant::now();
    while deadlock_timeout(&db).await != "100ms" {
        pause(started).await;
    }
}
