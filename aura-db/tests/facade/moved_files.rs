//! A SQLite file that is moved, replaced or removed while a service has it open:
//! nothing is acknowledged that will be gone.

use std::path::{Path, PathBuf};

use aura_db::entity::users;
use aura_db::logs::Logs;
use aura_db::sea_orm::EntityTrait;
use aura_db::{Database, Error, LogFilter, NewUser, PageRequest, WorkflowId};
use testdb::{Backend, TestDb};

use crate::executions::flow;
use crate::logs::info;
use crate::support::{PASSWORD, assert_error, open};

fn wal(file: &Path) -> PathBuf {
    file.with_extension("db-wal")
}

/// A database that a service has open, and has written to.
async fn service() -> (TestDb, PathBuf, Database, WorkflowId) {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let file = test.folder().join("aura.db");
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    (test, file, db, flow)
}

/// Everything is refused, and says what to do.
async fn closed(db: &Database, flow: WorkflowId) {
    let entry = || info(flow, "x");
    let bob = || NewUser::new("Bob", "bob@example.org", PASSWORD);
    let results = [
        db.logs().append(entry()).await.map(|_| ()),
        db.users().create(bob()).await.map(|_| ()),
        db.logs()
            .list(LogFilter::new(), PageRequest::first(1))
            .await
            .map(|_| ()),
        db.transaction(|tx| async move { tx.logs().append(entry()).await })
            .await
            .map(|_| ()),
        db.fetch_all(users::Entity::find()).await.map(|_| ()),
        db.ping().await,
        db.health().await.map(|_| ()),
    ];
    for result in results {
        assert_error!(
            result,
            Error::Unavailable { reason, .. } if reason.contains("DB_PATH") && reason.contains("restart")
        );
    }
}

type Harm = (&'static str, fn(&Path));

/// What people and programs do to files.
const HARMS: [Harm; 5] = [
    ("removed", |file| {
        for gone in [file.to_owned(), wal(file), file.with_extension("db-shm")] {
            std::fs::remove_file(gone).expect("removed");
        }
    }),
    ("moved", |file| {
        std::fs::rename(file, file.with_extension("before")).expect("moved");
    }),
    ("replaced", |file| {
        let copy = file.with_extension("copy");
        std::fs::copy(file, &copy).expect("copied");
        std::fs::rename(copy, file).expect("replaced");
    }),
    ("without its WAL", |file| {
        std::fs::remove_file(wal(file)).expect("removed");
    }),
    ("with another WAL", |file| {
        let copy = file.with_extension("copy");
        std::fs::copy(wal(file), &copy).expect("copied");
        std::fs::rename(copy, wal(file)).expect("replaced");
    }),
];

/// By itself, or in a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_not_acknowledged() {
    let cases = HARMS.iter().flat_map(|harm| [(harm, false), (harm, true)]);
    for ((harm, harmed), in_transaction) in cases {
        let (_test, file, db, flow) = service().await;
        harmed(&file);
        let append = |logs: Logs| async move { logs.append(info(flow, "lost")).await };
        let lost = if in_transaction {
            db.transaction(|tx| append(tx.logs())).await
        } else {
            append(db.logs()).await
        };
        let committing = matches!(
            lost,
            Err(Error::OutcomeUnknown {
                context: "committing",
                ..
            })
        );
        assert!(
            committing,
            "{harm}, in a transaction: {in_transaction}: {lost:?}"
        );
        closed(&db, flow).await;
        db.close().await;
    }
}

/// Also where several writes share a commit.
#[tokio::test(flavor = "multi_thread")]
async fn many_writes_are_not_acknowledged() {
    let (_test, file, db, flow) = service().await;
    std::fs::rename(&file, file.with_extension("before")).expect("moved");
    let entries: Vec<_> = (0..50)
        .map(|nth| {
            let db = db.clone();
            tokio::spawn(async move { db.logs().append(info(flow, nth.to_string())).await })
        })
        .collect();
    for entry in entries {
        assert_error!(
            entry.await.expect("no panic"),
            Error::OutcomeUnknown { .. } | Error::Unavailable { .. }
        );
    }
    closed(&db, flow).await;
}

/// The service that is left behind takes nothing from the one that has its place.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_database_keeps_its_wal() {
    let orders = [true, false].into_iter();
    let ways = orders.flat_map(|orderly| (0..4).map(move |notices| (orderly, notices)));
    for (orderly, notices) in ways {
        let (test, file, db, flow) = service().await;
        HARMS[0].1(&file);
        migration(&test).await;
        let next = open(&test).await;
        crate::support::user(&next, "bob").await;
        // By whatever the service notices it first, or not at all.
        let noticed = match notices {
            0 => db.logs().append(info(flow, "lost")).await.map(|_| ()),
            1 => db
                .transaction(|tx| async move { tx.logs().append(info(flow, "lost")).await })
                .await
                .map(|_| ()),
            2 => db.ping().await,
            _ => Err(Error::Ended),
        };
        noticed.expect_err("the file is gone");
        if notices < 3 {
            closed(&db, flow).await;
        }
        if orderly {
            db.close().await;
        } else {
            drop(db);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        crate::support::user(&next, "cleo").await;
        next.ping().await.expect("it is where it was");
        next.close().await;
        let names = test
            .lines("SELECT name AS line FROM users ORDER BY id")
            .await;
        assert_eq!(names, ["bob", "cleo"]);
    }
}

async fn migration(test: &TestDb) {
    aura_db::migration::up(&test.config())
        .await
        .expect("migrated");
}

/// Backups look at the file, copy it, and link to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_no_harm() {
    let (test, file, db, flow) = service().await;
    std::fs::copy(&file, file.with_extension("copy")).expect("copied");
    let vacuum = format!("VACUUM INTO '{}'", file.with_extension("vacuum").display());
    test.execute(&vacuum).await;
    // The next start refuses it.
    std::fs::hard_link(&file, file.with_extension("link")).expect("linked");
    db.logs().append(info(flow, "x")).await.expect("appended");
    db.transaction(|tx| async move { tx.logs().append(info(flow, "x")).await })
        .await
        .expect("appended");
    db.ping().await.expect("it is there");
    db.close().await;
}
