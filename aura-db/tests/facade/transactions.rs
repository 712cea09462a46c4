use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aura_db::entity::users;
use aura_db::sea_orm::sea_query::Query;
use aura_db::sea_orm::{EntityTrait, QueryFilter, Statement};
use aura_db::{Database, Error, Isolation, NewUser, Role, Transaction, TypedQuery, UserChange};
use testdb::TestDb;

use crate::support::{assert_error, open, user};

testdb::both!(migrated:
    ok_means_committed, an_error_undoes_everything, a_swallowed_failure_is_not_committed,
    a_nested_one_is_undone_alone, a_collision_in_a_nested_one_retries_all,
    a_handle_is_dead_after_the_end, the_outer_handle_waits_for_the_inner,
    a_dropped_closure_undoes_everything, an_escaped_handle_keeps_nothing_open,
    a_statement_given_up_spoils_the_transaction, a_late_failure_is_not_committed, lost_updates_are_retried,
    a_panic_undoes_everything, own_error_types, waiting_is_counted,
    a_failed_part_of_a_transaction_spoils_it,
);

async fn count(db: &Database) -> usize {
    db.fetch_all(users::Entity::find())
        .await
        .expect("rows")
        .len()
}

fn new(name: &str) -> NewUser {
    NewUser::new(name, format!("{name}@example.org"), "secret")
}

async fn ok_means_committed(db: TestDb) {
    let db = open(&db).await;
    let id = db
        .transaction(|tx| async move {
            let one = tx.users().create(new("one")).await?;
            tx.users().create(new("two")).await?;
            Ok::<_, Error>(one.id)
        })
        .await
        .expect("committed");
    assert_eq!(count(&db).await, 2);
    assert_eq!(db.users().get(id).await.expect("there").name, "one");
    assert_eq!(db.stats().commits, 1);
    db.close().await;
}

async fn an_error_undoes_everything(db: TestDb) {
    let db = open(&db).await;
    let result: Result<(), Error> = db
        .transaction(|tx| async move {
            tx.users().create(new("one")).await?;
            tx.users().get(4711.into()).await?;
            Ok(())
        })
        .await;
    assert_error!(result, Error::NotFound { what: "user", .. });
    assert_eq!(count(&db).await, 0);
    assert_eq!(db.stats().rollbacks, 1);
}

/// A statement that fails on both databases.
async fn fail(tx: &Transaction) -> Error {
    let insert = Query::insert()
        .into_table(users::Entity)
        .columns([users::Column::Name])
        .values_panic(["incomplete".into()])
        .take();
    tx.execute(insert)
        .await
        .expect_err("NOT NULL columns are missing")
}

async fn a_swallowed_failure_is_not_committed(db: TestDb) {
    let db = open(&db).await;
    let result: Result<(), Error> = db
        .transaction(|tx| async move {
            tx.users().create(new("one")).await?;
            let _ = fail(&tx).await;
            // The same on SQLite, where only the statement failed.
            assert_error!(tx.users().find(1.into()).await, Error::Aborted);
            Ok(())
        })
        .await;
    assert_error!(result, Error::Aborted);
    assert_eq!(count(&db).await, 0);
}

async fn a_nested_one_is_undone_alone(db: TestDb) {
    let db = open(&db).await;
    db.transaction(|tx| async move {
        tx.users().create(new("kept")).await?;
        let inner: Result<(), Error> = tx
            .transaction(|inner| async move {
                inner.users().create(new("undone")).await?;
                inner
                    .transaction(|innermost| async move {
                        innermost.users().create(new("undone too")).await
                    })
                    .await
                    .expect_err("the address holds a blank");
                let _ = fail(&inner).await;
                Ok(())
            })
            .await;
        assert_error!(inner, Error::Aborted);
        tx.transaction(|inner| async move { inner.users().create(new("inner")).await })
            .await?;
        Ok::<_, Error>(())
    })
    .await
    .expect("committed");
    let rows = db.fetch_all(users::Entity::find()).await.expect("rows");
    let names: Vec<_> = rows.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["kept", "inner"]);
}

async fn a_collision_in_a_nested_one_retries_all(db: TestDb) {
    let backend = db.backend();
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let runs = &AtomicU32::new(0);
    let other = &db;
    let result = db
        .transaction_at(Isolation::RepeatableRead, |tx| async move {
            let before = tx.users().get(ada.id).await?;
            if runs.fetch_add(1, Ordering::Relaxed) == 0 && backend == testdb::Backend::Postgres {
                // Somebody else is quicker. (SQLite's writer is ours alone.)
                other.users().set_role(ada.id, Role::Viewer).await?;
            }
            tx.transaction(
                |inner| async move { inner.users().set_role(ada.id, Role::Editor).await },
            )
            .await
            .map(|after| (before.role, after.role))
        })
        .await;
    let (before, after) = result.expect("committed at the second run");
    assert_eq!(after, Role::Editor);
    if backend == testdb::Backend::Postgres {
        assert_eq!(
            before,
            Role::Viewer,
            "the second run saw the other's change"
        );
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert_eq!(db.stats().retries, 1);
    }
}

async fn a_handle_is_dead_after_the_end(db: TestDb) {
    let db = open(&db).await;
    let escaped = db
        .transaction(|tx| async move { Ok::<_, Error>(tx) })
        .await
        .expect("committed");
    assert_error!(escaped.users().find(1.into()).await, Error::Ended);
    let nested: Result<(), Error> = escaped.transaction(|_| async { Ok(()) }).await;
    assert_error!(nested, Error::Ended);
}

async fn the_outer_handle_waits_for_the_inner(db: TestDb) {
    let db = open(&db).await;
    db.transaction(|tx| async move {
        let outer = &tx;
        let inner = tx
            .transaction(|inner| async move {
                assert_error!(outer.users().find(1.into()).await, Error::Ended);
                inner.users().create(new("inner")).await?;
                Ok::<_, Error>(inner)
            })
            .await?;
        assert_error!(inner.users().find(1.into()).await, Error::Ended);
        // Another one at the same depth is not the first one.
        tx.transaction(|_| async {
            assert_error!(inner.users().find(1.into()).await, Error::Ended);
            Ok::<_, Error>(())
        })
        .await
    })
    .await
    .expect("committed");
    assert_eq!(count(&db).await, 1);
}

async fn a_dropped_closure_undoes_everything(db: TestDb) {
    let db = open(&db).await;
    for _ in 0..10 {
        let transaction = db.transaction(|tx| async move {
            tx.users().create(new("lost")).await?;
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        });
        let given_up = tokio::time::timeout(Duration::from_millis(60), transaction).await;
        assert!(given_up.is_err());
    }
    // The writer is free again, and nothing stayed.
    user(&db, "ada").await;
    assert_eq!(count(&db).await, 1);
}

async fn an_escaped_handle_keeps_nothing_open(db: TestDb) {
    let db = open(&db).await;
    let escaped = Arc::new(tokio::sync::Mutex::new(None));
    let keep = escaped.clone();
    let transaction = db.transaction(|tx| {
        let keep = keep.clone();
        async move {
            tx.users().create(new("lost")).await?;
            *keep.lock().await = Some(tx.clone());
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        }
    });
    let _ = tokio::time::timeout(Duration::from_millis(300), transaction).await;
    user(&db, "ada").await;
    assert_eq!(count(&db).await, 1);
    let escaped = escaped.lock().await.take().expect("it ran so far");
    assert_error!(escaped.users().find(1.into()).await, Error::Ended);
}

async fn a_statement_given_up_spoils_the_transaction(db: TestDb) {
    let db = open(&db).await;
    let tx_backend = db.backend();
    let result: Result<(), Error> = db
        .transaction(|tx| async move {
            // Polled once, so that it is on its way, and dropped.
            let slow = Statement::from_string(
                tx_backend,
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
                 SELECT count(*) FROM n, n AS m WHERE n.i = -m.i",
            );
            let slow = TypedQuery::<i64>::sql(slow);
            let mut statement = Box::pin(tx.fetch_all(slow));
            let first = futures_util::poll!(statement.as_mut());
            drop(statement);
            assert!(first.is_pending());
            Ok(())
        })
        .await;
    assert_error!(result, Error::Aborted);
    user(&db, "ada").await;
}

/// 16 tasks read, modify and write the same row; every acknowledged update is
/// in it.
/// A statement of another task's fails while the transaction is on its way to
/// its end.
async fn a_late_failure_is_not_committed(db: TestDb) {
    let db = open(&db).await;
    for _ in 0..20 {
        let failing = Arc::new(tokio::sync::Mutex::new(None));
        let keep = failing.clone();
        let result: Result<(), Error> = db
            .transaction(|tx| {
                let keep = keep.clone();
                async move {
                    tx.users().create(new("one")).await?;
                    let other = tx.clone();
                    let (started, running) = tokio::sync::oneshot::channel();
                    let task = tokio::spawn(async move {
                        let _ = started.send(());
                        fail(&other).await
                    });
                    running.await.expect("it runs");
                    *keep.lock().await = Some(task);
                    Ok(())
                }
            })
            .await;
        let task = failing.lock().await.take().expect("it was started");
        let failure = task.await.expect("no panic");
        let rows = count(&db).await;
        match result {
            // It came too late to be a part of it.
            Ok(()) => {
                assert_eq!((rows, failure.to_string()), (1, Error::Ended.to_string()));
                db.execute(Query::delete().from_table(users::Entity).take())
                    .await
                    .expect("deleted");
            }
            Err(Error::Aborted) => assert_eq!(rows, 0),
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn lost_updates_are_retried(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    db.users()
        .update(ada.id, UserChange::new().name("0"))
        .await
        .expect("renamed");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut acknowledged = 0;
                for _ in 0..5 {
                    let result = db
                        .transaction_at(Isolation::Serializable, |tx| async move {
                            let user = tx.users().get(ada.id).await?;
                            let next = user.name.parse::<u32>().unwrap_or(0) + 1;
                            tx.users()
                                .update(ada.id, UserChange::new().name(next.to_string()))
                                .await
                        })
                        .await;
                    match result {
                        Ok(_) => acknowledged += 1,
                        Err(Error::Busy { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = 0;
    for task in tasks {
        acknowledged += task.await.expect("no panic");
    }
    let name = db.users().get(ada.id).await.expect("there").name;
    assert_eq!(name, acknowledged.to_string());
    assert!(acknowledged > 0);
}

async fn a_panic_undoes_everything(db: TestDb) {
    let db = open(&db).await;
    let inside = db.clone();
    let task = tokio::spawn(async move {
        inside
            .transaction(|tx| async move {
                tx.users().create(new("lost")).await?;
                assert!(
                    tx.users().email_exists("nobody").await?,
                    "a bug of the caller's"
                );
                Ok::<_, Error>(())
            })
            .await
    });
    assert!(task.await.expect_err("it panics").is_panic());
    user(&db, "ada").await;
    assert_eq!(count(&db).await, 1);
}

#[derive(Debug)]
enum Own {
    Database(Error),
    Refused,
}

impl From<Error> for Own {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

async fn own_error_types(db: TestDb) {
    let db = open(&db).await;
    let refused: Result<(), Own> = db
        .transaction(|tx| async move {
            tx.users().create(new("one")).await?;
            Err(Own::Refused)
        })
        .await;
    assert!(matches!(refused, Err(Own::Refused)));
    let missing: Result<(), Own> = db
        .transaction(|tx| async move {
            tx.users().get(1.into()).await?;
            Ok(())
        })
        .await;
    assert!(matches!(
        missing,
        Err(Own::Database(Error::NotFound { .. }))
    ));
    assert_eq!(count(&db).await, 0);
}

async fn waiting_is_counted(db: TestDb) {
    let config = db.config_with(&[("DB_POOL_MAX", "1"), ("DB_POOL_CONNECTION_TIMEOUT", "2000")]);
    let db = Database::connect(config).await.expect("it connects");
    let inside = &db;
    let waited = db
        .transaction(|tx| async move {
            tx.users().create(new("one")).await?;
            // The mistake that the documentation warns of.
            Ok::<_, Error>(inside.users().create(new("two")).await)
        })
        .await
        .expect("committed");
    assert_error!(waited, Error::Busy { .. });
    let stats = db.stats();
    assert_eq!(stats.pool_waits, 1);
    assert!(stats.pool_wait_max_micros >= 2_000_000);
    let create = stats
        .operations
        .iter()
        .find(|operation| (operation.table, operation.operation) == ("users", "create"))
        .expect("counted");
    assert_eq!((create.count, create.errors), (2, 1));
}

/// `update` fails after nothing was written, so the transaction goes on; a
/// unique constraint that fails in the database ends it.
async fn a_failed_part_of_a_transaction_spoils_it(db: TestDb) {
    let db = open(&db).await;
    user(&db, "ada").await;
    db.transaction(|tx| async move {
        assert_error!(
            tx.users().create(new("ada")).await,
            Error::Conflict { deleted: false, .. }
        );
        tx.users().create(new("bob")).await
    })
    .await
    .expect("a conflict that was noticed in time spoils nothing");
    let result: Result<(), Error> = db
        .transaction(|tx| async move {
            let update = Query::update()
                .table(users::Entity)
                .value(users::Column::Email, "ada@example.org")
                .and_where(users::COLUMN.name.eq("bob"))
                .take();
            assert_error!(tx.execute(update).await, Error::Conflict { .. });
            Ok(())
        })
        .await;
    assert_error!(result, Error::Aborted);
    let bob = users::Entity::find().filter(users::COLUMN.email.eq("bob@example.org"));
    assert!(db.fetch_optional(bob).await.expect("rows").is_some());
}
