//! Short reads, many at the same moment. On PostgreSQL they share connections.

use std::time::Duration;

use aura_db::entity::{PluginId, plugins};
use aura_db::sea_orm::sea_query::{Expr, ExprTrait};
use aura_db::sea_orm::{ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use aura_db::{CachedSql, Database, Error, NewPlugin, SessionRequest, UserId};
use futures_util::future::join_all;
use testdb::TestDb;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{assert_error, user};

testdb::both!(migrated:
    each_gets_its_own_answer, one_whose_caller_goes_keeps_no_other,
);
testdb::postgres!(migrated:
    they_keep_to_the_pool, one_that_waits_for_a_lock_keeps_no_other, one_that_fails_fails_alone,
    ended_connections_and_changed_columns_fail_none, transactions_get_their_place,
    the_pool_closes_at_once,
);

/// Far longer than anything here takes, and shorter than the limits of the database.
const SOON: Duration = Duration::from_secs(8);

async fn connect(test: &TestDb, connections: u32) -> Database {
    let mut config = test.plain_config();
    config.pool.max = connections;
    config.pool.connection_timeout = Duration::from_mins(1);
    Database::connect(config).await.expect("it connects")
}

async fn users(db: &Database) -> Vec<UserId> {
    let mut ids = Vec::new();
    for name in ["ada", "ben", "cleo", "dora"] {
        ids.push(user(db, name).await.id);
    }
    ids
}

async fn plugin(db: &Database, name: &str) -> PluginId {
    let plugin = db.plugins().register(NewPlugin::new(name, "1.0.0")).await;
    plugin.expect("registered").id
}

/// An application's own short read. Fails where `divisor` is a plugin's key.
async fn quotient(db: &Database, id: PluginId, divisor: i64) -> Result<Option<String>, Error> {
    static QUOTIENT: CachedSql = CachedSql::short_read();
    let build = || {
        let divided = Expr::val(100_i64).div(Expr::col(plugins::Column::Id).sub(divisor));
        let select = plugins::Entity::find_by_id(id).filter(divided.lt(1_000_i64));
        Ok::<_, DbErr>(select)
    };
    let values = vec![id.into(), 100_i64.into(), divisor.into(), 1_000_i64.into()];
    let found = db.fetch_optional(QUOTIENT.with(values, build)).await?;
    Ok(found.map(|plugin| plugin.name))
}

/// Reads each user from many tasks, several times.
async fn read_together(db: &Database, ids: &[UserId]) {
    let mut tasks = JoinSet::new();
    for nth in 0..48 {
        let (db, id) = (db.clone(), ids[nth % ids.len()]);
        tasks.spawn(async move {
            for _ in 0..10 {
                assert_eq!(db.users().get(id).await?.id, id);
            }
            Ok::<_, Error>(())
        });
    }
    for done in tasks.join_all().await {
        done.expect("read");
    }
}

async fn sessions(test: &TestDb) -> usize {
    let others = "SELECT pid::text AS line FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    test.lines(others).await.len()
}

/// A session that was closed is there until the server has seen it.
async fn until_sessions_are(test: &TestDb, limit: u32) {
    let few = async {
        while sessions(test).await > limit as usize {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, few).await.expect("no more sessions");
}

async fn each_gets_its_own_answer(test: TestDb) {
    let db = connect(&test, 8).await;
    let ids = users(&db).await;
    let mut tokens = Vec::new();
    for id in &ids {
        let issued = db.sessions().issue(*id, SessionRequest::default()).await;
        tokens.push((*id, issued.expect("a session").token));
    }
    read_together(&db, &ids).await;
    let reads = (0..200).map(|nth| {
        let (db, (id, token)) = (&db, &tokens[nth % tokens.len()]);
        async move {
            let who = db.sessions().authenticate(token).await.expect("an answer");
            assert_eq!(who.expect("known").user.id, *id);
            assert_error!(db.users().get(UserId(4711)).await, Error::NotFound { .. });
        }
    });
    join_all(reads).await;
    db.close().await;
}

async fn one_whose_caller_goes_keeps_no_other(test: TestDb) {
    let db = connect(&test, 8).await;
    let ids = users(&db).await;
    read_together(&db, &ids).await;
    for _ in 0..20 {
        let mut reads = JoinSet::new();
        for id in ids.iter().copied().cycle().take(20) {
            let db = db.clone();
            reads.spawn(async move { db.users().get(id).await });
        }
        tokio::task::yield_now().await;
        drop(reads);
        for id in &ids {
            let found = timeout(SOON, db.users().get(*id)).await;
            assert_eq!(found.expect("soon").expect("read").id, *id);
        }
    }
    db.close().await;
}

async fn they_keep_to_the_pool(test: TestDb) {
    for connections in [1, 4, 8] {
        let db = connect(&test, connections).await;
        let ids = match db.users().find_by_email("ada@example.org").await {
            Ok(Some(ada)) => vec![ada.id],
            _ => users(&db).await,
        };
        for _ in 0..5 {
            read_together(&db, &ids).await;
            let size = db.health().await.expect("healthy").reader.size;
            assert!(size <= connections, "{size} of {connections}");
            until_sessions_are(&test, connections).await;
        }
        db.close().await;
    }
}

async fn one_that_waits_for_a_lock_keeps_no_other(test: TestDb) {
    let db = connect(&test, 8).await;
    let ids = users(&db).await;
    let plugin = plugin(&db, "slack").await;
    read_together(&db, &ids).await;
    let other = connect(&test, 1).await;
    let lock = other.seaorm().begin().await.expect("begun");
    let locked = lock.execute_unprepared("LOCK TABLE users IN ACCESS EXCLUSIVE MODE");
    locked.await.expect("locked");

    // In this order, so that the others are sent behind them.
    let repository = db.users();
    let waiting = join_all(ids.iter().take(3).map(|id| repository.get(*id)));
    let others = join_all((0..40).map(|_| quotient(&db, plugin, 0)));
    let others = async {
        let names = timeout(SOON, others).await.expect("while the lock is held");
        for name in names {
            assert_eq!(name.expect("read").as_deref(), Some("slack"));
        }
        lock.rollback().await.expect("rolled back");
    };
    let (waiting, ()) = tokio::join!(waiting, others);
    for (found, id) in waiting.into_iter().zip(ids) {
        assert_eq!(found.expect("read, after the lock").id, id);
    }
    db.close().await;
}

async fn one_that_fails_fails_alone(test: TestDb) {
    let db = connect(&test, 8).await;
    let ids = users(&db).await;
    let plugin = plugin(&db, "slack").await;
    read_together(&db, &ids).await;
    let reads = join_all((0..100).map(|nth| {
        let divisor = if nth % 3 == 0 { plugin.0 } else { 0 };
        quotient(&db, plugin, divisor)
    }));
    for (nth, read) in reads.await.into_iter().enumerate() {
        if nth % 3 == 0 {
            let failed = read.expect_err("divided by zero").to_string();
            assert!(!failed.is_empty());
        } else {
            assert_eq!(read.expect("read").as_deref(), Some("slack"));
        }
    }
    db.close().await;
}

async fn ended_connections_and_changed_columns_fail_none(test: TestDb) {
    let db = connect(&test, 8).await;
    let ids = users(&db).await;
    for change in [
        "SELECT 1",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "ALTER TABLE users ALTER COLUMN name TYPE varchar(200)",
    ] {
        read_together(&db, &ids).await;
        test.execute(change).await;
        if change.contains("terminate") {
            until_sessions_are(&test, 0).await;
        }
        read_together(&db, &ids).await;
    }
    db.close().await;
}

/// Of connections that were shared a moment ago.
async fn transactions_get_their_place(test: TestDb) {
    let connections = 4;
    let db = connect(&test, connections).await;
    let ids = users(&db).await;
    read_together(&db, &ids).await;
    let mut open = Vec::new();
    for _ in 0..connections {
        let begun = timeout(SOON, async {
            let tx = db.begin().await?;
            tx.users().get(ids[0]).await?;
            Ok::<_, Error>(tx)
        });
        open.push(begun.await.expect("soon").expect("begun"));
    }
    for tx in open {
        tx.commit().await.expect("committed");
    }
    db.close().await;
}

async fn the_pool_closes_at_once(test: TestDb) {
    let db = connect(&test, 8).await;
    let ids = users(&db).await;
    read_together(&db, &ids).await;
    timeout(SOON, db.clone().close()).await.expect("soon");
    assert_error!(db.users().get(ids[0]).await, Error::Unavailable { .. });
    until_sessions_are(&test, 0).await;
}
