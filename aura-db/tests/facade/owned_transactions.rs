//! Transactions that their owner ends.

use std::time::Duration;

use aura_db::entity::users;
use aura_db::sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Statement};
use aura_db::{Database, Error, NewUser, TypedQuery, UserFilter};
use testdb::TestDb;

use crate::support::{PASSWORD, assert_error, open, user};

testdb::both!(migrated:
    committed_or_rolled_back,
    a_failed_statement_spoils_it,
    its_end_is_the_end_of_its_handles,
    own_statements_inside,
    an_idle_one_is_in_nobodys_way,
);

fn new(name: &str) -> NewUser {
    NewUser::new(name, format!("{name}@example.org"), PASSWORD)
}

async fn names(db: &Database) -> Vec<String> {
    let list = db.users();
    let list = list
        .list(UserFilter::new(), aura_db::PageRequest::first(50))
        .await;
    let users = list.expect("a list").items.into_iter();
    users.map(|user| user.name).collect()
}

async fn committed_or_rolled_back(test: TestDb) {
    let db = open(&test).await;
    let tx = db.begin().await.expect("begun");
    tx.users().create(new("ada")).await.expect("created");
    assert!(names(&db).await.is_empty(), "not before the commit");
    tx.commit().await.expect("committed");
    assert_eq!(names(&db).await, ["ada"]);

    let tx = db.begin().await.expect("begun");
    tx.users().create(new("bob")).await.expect("created");
    tx.rollback().await.expect("rolled back");
    let dropped = db.begin().await.expect("begun");
    dropped.users().create(new("cid")).await.expect("created");
    drop(dropped);
    user(&db, "dan").await;
    assert_eq!(names(&db).await, ["ada", "dan"]);
    let stats = db.stats();
    assert_eq!((stats.commits, stats.rollbacks), (1, 1));
}

async fn a_failed_statement_spoils_it(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let tx = db.begin().await.expect("begun");
    tx.users().create(new("bob")).await.expect("created");
    let twice = users::Entity::update_many()
        .col_expr(users::Column::Email, "bob@example.org".into())
        .filter(users::COLUMN.id.eq(ada.id));
    assert_error!(tx.fetch_all(twice).await, Error::Conflict { .. });
    assert_error!(tx.users().find(ada.id).await, Error::Aborted);
    assert_error!(tx.commit().await, Error::Aborted);
    assert_eq!(names(&db).await, ["ada"]);
    // What is undone by itself spoils nothing.
    let tx = db.begin().await.expect("begun");
    let inner = tx.transaction(|tx| async move {
        tx.users().create(new("cid")).await?;
        tx.users().create(new("ada")).await
    });
    assert_error!(inner.await, Error::Conflict { .. });
    tx.users().create(new("dan")).await.expect("created");
    tx.commit().await.expect("committed");
    assert_eq!(names(&db).await, ["ada", "dan"]);
}

async fn its_end_is_the_end_of_its_handles(test: TestDb) {
    let db = open(&test).await;
    let tx = db.begin().await.expect("begun");
    let users = tx.users();
    let copy = (*tx).clone();
    users.create(new("ada")).await.expect("created");
    tx.commit().await.expect("committed");
    assert_error!(users.create(new("bob")).await, Error::Ended);
    assert_error!(copy.fetch_all(users::Entity::find()).await, Error::Ended);
    assert_eq!(names(&db).await, ["ada"]);
}

async fn own_statements_inside(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let tx = db.acting_as(ada.id).begin().await.expect("begun");
    assert_eq!((tx.actor(), tx.now().timestamp() > 0), (Some(ada.id), true));
    let bob = tx.users().create(new("bob")).await.expect("created");
    assert_eq!(bob.created_by, Some(ada.id));
    let found = users::Entity::find_by_id(bob.id);
    assert_eq!(tx.fetch_one(found.clone()).await.expect("seen inside"), bob);
    assert_eq!(db.fetch_optional(found).await.expect("read"), None);
    let count = Statement::from_string(db.backend(), "SELECT count(*) FROM users");
    let count = TypedQuery::<i64>::sql(count);
    assert_eq!(tx.fetch_one(count).await.expect("counted"), 2);
    tx.rollback().await.expect("rolled back");
}

/// Its owner does something else meanwhile: on SQLite it is rolled back in time for
/// those that wait, on PostgreSQL no one waits for it.
async fn an_idle_one_is_in_nobodys_way(test: TestDb) {
    let config = test.config_with(&[("DB_POOL_CONNECTION_TIMEOUT", "1000")]);
    let db = Database::connect(config).await.expect("it connects");
    let tx = db.begin().await.expect("begun");
    tx.users().create(new("idle")).await.expect("created");
    db.users().create(new("ada")).await.expect("in time");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ended = tx.commit().await;
    if matches!(db.config().target, aura_db::Target::Postgres(_)) {
        ended.expect("committed");
        assert_eq!(names(&db).await.len(), 2);
    } else {
        assert_error!(ended, Error::Unavailable { .. });
        assert_eq!(names(&db).await, ["ada"]);
    }
    // A closure runs again, alone.
    let runs = std::sync::atomic::AtomicU32::new(0);
    let made = db.transaction(|tx| {
        let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let other = db.clone();
        async move {
            let made = tx.users().create(new("bob")).await?;
            if run == 0 {
                // On SQLite it waits for this transaction, which does nothing.
                let created = tokio::spawn(async move { other.users().create(new("other")).await });
                created.await.expect("no panic").expect("in time");
            }
            tx.users().get(made.id).await?;
            Ok::<_, Error>(made)
        }
    });
    assert_eq!(made.await.expect("committed").name, "bob");
    let expected = if db.backend() == aura_db::sea_orm::DbBackend::Sqlite {
        2
    } else {
        1
    };
    assert_eq!(runs.into_inner(), expected);
}
