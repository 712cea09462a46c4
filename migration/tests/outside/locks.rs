//! Table locks that aren't granted.

use std::time::Duration;

use migration::{Error, Plan};
use sea_orm::ConnectionTrait;
use testdb::TestDb;

use crate::{APP, Seen, Sql, TABLE, app, begun, blocker, end, names, refused, run, start};

testdb::postgres!(migrated:
    a_statement_outside_limits_its_locks,
    a_lock_that_is_not_granted_is_tried_again,
    a_lock_that_is_never_granted_is_an_error,
    a_deadlock_is_tried_again,
);

/// Needs the lock of a table.
static LOCKED: Sql = Sql {
    name: "m4_locked",
    tables: &[],
    up: "ALTER TABLE logs ADD COLUMN things bigint",
    down: "ALTER TABLE logs DROP COLUMN things",
    transactional: true,
};

/// Locks two tables, one after the other.
static CROSSING: Sql = Sql {
    name: "m5_crossing",
    tables: &[],
    up: "ALTER TABLE agents ADD COLUMN things bigint; ALTER TABLE logs ADD COLUMN things bigint",
    down: "",
    transactional: true,
};

async fn a_statement_outside_limits_its_locks(db: TestDb) {
    static OUTSIDE: Sql = Sql {
        name: "m6_outside",
        tables: &[],
        up: "ALTER TABLE logs ADD COLUMN IF NOT EXISTS things bigint",
        down: "",
        transactional: false,
    };
    run(&app(&[&TABLE]), &db, Plan::Up(None)).await;
    let other = begun(&db, "LOCK TABLE logs IN ACCESS SHARE MODE").await;
    let limit = Some(Duration::from_millis(200));
    let runner = app(&[&TABLE, &OUTSIDE]).with_lock_limit(limit, Some(2));
    let error = refused(&runner, &db, Plan::Up(None)).await;
    assert!(
        matches!(error, Error::LockTimeout { attempts: 2, .. }),
        "{error:?}"
    );
    end(other).await;
    assert_eq!(
        names(&run(&runner, &db, Plan::Up(None)).await),
        ["m6_outside"]
    );
}

async fn a_lock_that_is_not_granted_is_tried_again(db: TestDb) {
    let hold = "SELECT 'secret', 42 FROM logs";
    let other = begun(&db, hold).await;
    let runner = app(&[&TABLE, &LOCKED]).with_lock_limit(Some(Duration::from_millis(800)), None);
    let (running, mut events) = start(&db, runner);
    assert!(matches!(events.recv().await, Some(Seen::Done(name)) if name == "m1_table"));
    let blocker = blocker(&mut events).await;
    assert_eq!(blocker.lock, "AccessExclusiveLock on logs");
    assert_eq!(blocker.application, "aura-db");
    assert_eq!(blocker.statement, "SELECT ?, ? FROM logs");
    assert!(blocker.query_start.starts_with("20"), "{blocker:?}");
    let pid = "SELECT pid::text AS line FROM pg_stat_activity WHERE query LIKE 'SELECT ''secret%'";
    assert_eq!(db.lines(pid).await, [blocker.pid.to_string()]);

    assert!(matches!(events.recv().await, Some(Seen::Retrying(1))));
    // Meanwhile nothing is locked, and nothing is there.
    assert_eq!(db.rows(&["things", APP]).await, "");
    end(other).await;
    let done = running.await.expect("no panic").expect("applied");
    assert_eq!(names(&done), ["m1_table", "m4_locked"]);
}

async fn a_lock_that_is_never_granted_is_an_error(db: TestDb) {
    let other = begun(&db, "LOCK TABLE logs IN ACCESS SHARE MODE").await;
    let runner = app(&[&TABLE, &LOCKED]).with_lock_limit(Some(Duration::from_secs(2)), Some(2));
    let error = refused(&runner, &db, Plan::Up(None)).await;
    assert!(
        matches!(error, Error::LockTimeout { attempts: 2, .. }),
        "{error:?}"
    );
    for words in [
        "AccessExclusiveLock on logs",
        "server process",
        "of aura-db",
        "LOCK TABLE logs",
    ] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert_eq!(db.rows(&["things", APP]).await, "");
    end(other).await;
    run(&runner, &db, Plan::Up(None)).await;

    // So it is with the tables whose rows would be deleted.
    let other = begun(&db, "LOCK TABLE things IN ACCESS SHARE MODE").await;
    let error = runner
        .run_confirmed(&db.config(), Plan::Reset, &[], |_| {})
        .await
        .expect_err("the table is locked");
    assert!(matches!(error, Error::LockTimeout { .. }), "{error:?}");
    end(other).await;
}

async fn a_deadlock_is_tried_again(db: TestDb) {
    let other = begun(&db, "LOCK TABLE logs IN ACCESS SHARE MODE").await;
    // The server ends the one that looks first.
    let patient = "SET deadlock_timeout = '1min'";
    other.execute_unprepared(patient).await.expect("set");
    let (running, mut events) = start(&db, app(&[&CROSSING]));
    let found = blocker(&mut events).await;
    assert_eq!(found.lock, "AccessExclusiveLock on logs");
    let _ = other
        .execute_unprepared("SELECT count(*) FROM agents")
        .await;
    let _ = other.execute_unprepared("ROLLBACK").await;
    assert_eq!(running.await.expect("no panic").expect("applied").len(), 1);
    other.close().await.expect("it closes");
}
