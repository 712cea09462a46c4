//! Who has which connection, and when.

use std::time::Duration;

use aura_db::entity::users;
use aura_db::sea_orm::{EntityTrait, PaginatorTrait};
use aura_db::{Database, Error};
use testdb::TestDb;

use crate::support::user;

testdb::both!(migrated: plain_ones_find_a_place, a_database_is_dropped_anywhere);

/// Of a pool of one, what the repositories keep for the next statement is
/// given to who asks for a plain connection.
async fn plain_ones_find_a_place(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    config.pool.connection_timeout = Duration::from_millis(900);
    let db = Database::connect(config).await.expect("it connects");
    for name in ["ada", "ben", "cleo"] {
        user(&db, name).await;
        let before = users::Entity::find().count(db.reader()).await;
        let before = before.expect("a plain read");
        let transaction = db.begin().await.expect("a plain transaction");
        let inside = users::Entity::find().count(&transaction).await;
        assert_eq!(inside.expect("a read in it"), before);
        transaction.rollback().await.expect("rolled back");
        let after = db
            .transaction(|tx| async move { tx.fetch_all(users::Entity::find()).await })
            .await;
        let after = after.map(|users| users.len() as u64);
        assert_eq!(after.expect("a transaction"), before);
    }
    db.close().await;
}

/// Also where there is no runtime any more that could say goodbye.
async fn a_database_is_dropped_anywhere(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.min = 1;
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let opened = runtime.block_on(async {
            let db = Database::connect(config).await?;
            user(&db, "ada").await;
            Ok::<_, Error>(db)
        });
        drop(runtime);
        drop(opened.expect("it connects"));
    });
    let joined = tokio::task::spawn_blocking(|| elsewhere.join()).await;
    joined.expect("joined").expect("no panic");
}
