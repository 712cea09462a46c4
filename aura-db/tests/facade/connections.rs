//! Who has which connection, and when.

use std::time::{Duration, Instant};

use aura_db::entity::users;
use aura_db::sea_orm::{DbBackend, EntityTrait, PaginatorTrait, Statement};
use aura_db::{Database, Error, LogFilter, PageRequest, TypedQuery, UserId};
use testdb::TestDb;
use tokio::task::JoinSet;

use crate::executions::flow;
use crate::logs::info;
use crate::support::user;

testdb::both!(migrated:
    plain_ones_find_a_place, a_database_is_dropped_anywhere, long_reads_keep_to_the_pool,
);

testdb::postgres!(migrated: plans_are_made_anew);

/// Otherwise a plan of when a table had a page would be kept while it grows.
async fn plans_are_made_anew(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    let db = Database::connect(config).await.expect("it connects");
    let find = || users::Entity::find_by_id(UserId(1));
    let kept = async || {
        let plans = "SELECT CAST(coalesce(sum(generic_plans), 0) AS bigint) \
             FROM pg_prepared_statements WHERE statement LIKE 'SELECT \"users\"%'";
        let plans = Statement::from_string(DbBackend::Postgres, plans);
        let plans = db.fetch_one(TypedQuery::<i64>::sql(plans)).await;
        plans.expect("the statements of the session")
    };
    for _ in 0..20 {
        assert_eq!(db.fetch_optional(find()).await.expect("read"), None);
    }
    assert!(kept().await > 0, "it keeps a plan");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(db.fetch_optional(find()).await.expect("read"), None);
    assert_eq!(kept().await, 0);
    db.close().await;
}

/// Of a pool of one, what the repositories keep for the next statement is
/// given to who asks for a plain connection.
async fn plain_ones_find_a_place(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    config.pool.connection_timeout = Duration::from_millis(900);
    let db = Database::connect(config).await.expect("it connects");
    for name in ["ada", "ben", "cleo"] {
        user(&db, name).await;
        let before = users::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await;
        let before = before.expect("a plain read");
        let transaction = db.seaorm().begin().await.expect("a plain transaction");
        let inside = users::Entity::find().count(&*transaction).await;
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

/// However many come at once, and afterwards they are closed.
async fn long_reads_keep_to_the_pool(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 3;
    config.pool.idle_timeout = Some(Duration::from_millis(200));
    config.pool.connection_timeout = Duration::from_mins(1);
    let db = Database::connect(config).await.expect("it connects");
    let flow = flow(&db, "ada").await;
    let entries = (0..5_000).map(|nth| info(flow, nth.to_string()));
    let appended = db.logs().append_many(entries.collect()).await;
    appended.expect("appended");
    let open = async |db: &Database| db.health().await.expect("healthy").reader.size;
    let mut reads = JoinSet::new();
    for _ in 0..40 {
        let db = db.clone();
        reads.spawn(async move {
            let filter = LogFilter::new().text("nothing holds this");
            let list = db.logs().list(filter, PageRequest::first(10)).await;
            assert!(list.expect("a list").items.is_empty());
            open(&db).await
        });
    }
    while let Some(open) = reads.join_next().await {
        let open = open.expect("no panic");
        assert!(open <= 3, "{open} connections");
    }
    // The look at them takes one itself.
    let started = Instant::now();
    while open(&db).await > 1 {
        assert!(started.elapsed() < Duration::from_secs(20), "they stay");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    db.close().await;
}
