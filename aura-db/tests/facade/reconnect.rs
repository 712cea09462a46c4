//! Connections that have gone bad: each costs one call at most, and the next
//! works.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aura_db::entity::users;
use aura_db::sea_orm::{DbBackend, EntityTrait, Statement};
use aura_db::{Config, Database, Error, Target, TypedQuery, UserChange, UserId, WorkflowId};
use testdb::TestDb;
use tokio::sync::Barrier;

use crate::executions::{LEASE, flow, queue};
use crate::support::{assert_error, user};

testdb::postgres!(migrated:
    a_changed_column_fails_no_statement, a_read_only_server_is_left,
    a_lost_statement_is_prepared_again, an_idle_transaction_is_ended, a_rotated_password_is_read_again,
    a_transaction_begins_with_its_first_statement, an_ended_connection_begins_no_transaction,
);

const CONNECTIONS: u32 = 4;
const END_ALL: &str = "SELECT pg_terminate_backend(pid)::text AS line FROM pg_stat_activity \
     WHERE datname = current_database() AND pid <> pg_backend_pid()";

async fn connect(mut config: Config) -> Database {
    config.pool.max = CONNECTIONS;
    Database::connect(config).await.expect("it connects")
}

async fn rename(db: Database, id: UserId, name: String) -> Result<(), Error> {
    let change = UserChange::new().name(name);
    db.users().update(id, change).await.map(|_| ())
}

/// What an application does, on every connection at once.
async fn work(db: &Database, id: UserId, flow: WorkflowId) {
    let barrier = &Arc::new(Barrier::new(CONNECTIONS as usize));
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|task| {
            let (db, barrier) = (db.clone(), barrier.clone());
            tokio::spawn(async move {
                // It can't be run again as a closure can.
                let begun = db.begin().await?;
                begun.users().get(id).await?;
                let all = tokio::time::timeout(Duration::from_secs(1), barrier.wait());
                let _ = all.await;
                begun.commit().await?;
                db.transaction(|tx| {
                    let barrier = barrier.clone();
                    async move {
                        tx.users().get(id).await?;
                        // Each holds a connection of its own. (A transaction that is
                        // run again finds the barrier behind it.)
                        let all = tokio::time::timeout(Duration::from_secs(1), barrier.wait());
                        let _ = all.await;
                        tx.executions().claim("w", LEASE).await
                    }
                })
                .await?;
                db.users().get(id).await?;
                rename(db.clone(), id, format!("ada {task}")).await?;
                db.fetch_all(users::Entity::find()).await?;
                queue(&db, flow).await;
                // (Another's transaction may have taken it.)
                db.executions().claim("w", LEASE).await?;
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("it works");
    }
}

/// Statements that were prepared before would return other types than they did.
async fn a_changed_column_fails_no_statement(test: TestDb) {
    let db = connect(test.plain_config()).await;
    let flow = flow(&db, "ada").await;
    let ada = db.users().get_by_email("ada@example.org").await;
    let ada = ada.expect("there").id;
    for change in [
        "SELECT 1",
        "ALTER TABLE users ALTER COLUMN name TYPE varchar(200)",
        "ALTER TABLE executions ADD COLUMN region bigint, \
         ALTER COLUMN worker_id TYPE varchar(100)",
    ] {
        test.execute(change).await;
        work(&db, ada, flow).await;
    }
    db.close().await;
}

async fn lose(db: &Database) {
    let lose = Statement::from_string(DbBackend::Postgres, "DEALLOCATE ALL");
    let done = db.fetch_all(TypedQuery::<()>::sql(lose)).await;
    done.expect("all are lost");
}

/// As by an application's own SQL, or a pooler that hands a session on.
async fn a_lost_statement_is_prepared_again(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    let db = Database::connect(config).await.expect("it connects");
    let ada = user(&db, "ada").await.id;
    for _ in 0..2 {
        db.users().get(ada).await.expect("there");
        lose(&db).await;
        db.users().get(ada).await.expect("there");
        lose(&db).await;
        let begun = db.begin().await.expect("begun");
        begun.users().get(ada).await.expect("there");
        begun.commit().await.expect("committed");
    }
    db.close().await;
}

/// After a fail-over the old primary may be a standby, which reads on.
async fn a_read_only_server_is_left(test: TestDb) {
    let db = connect(test.plain_config()).await;
    let flow = flow(&db, "ada").await;
    let ada = db.users().get_by_email("ada@example.org").await;
    let ada = ada.expect("there").id;
    let read_only = async |on: &str| {
        let name = test.lines("SELECT current_database()::text AS line").await;
        let setting = format!(
            "ALTER DATABASE {} SET default_transaction_read_only = {on}",
            name[0]
        );
        let off = "SET default_transaction_read_only = off";
        test.execute(&format!("{off}; {setting}")).await;
    };
    read_only("on").await;
    test.lines(END_ALL).await;
    // Every connection is new, and refuses.
    let mut refused = 0;
    for _ in 0..3 * CONNECTIONS {
        match rename(db.clone(), ada, "x".to_owned()).await {
            Err(Error::Unavailable { reason, .. }) if reason.contains("read-only") => refused += 1,
            Err(Error::Unavailable { .. } | Error::OutcomeUnknown { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refused >= CONNECTIONS, "{refused}");
    let inside = db
        .transaction(|tx| async move { tx.users().deactivate(ada).await })
        .await;
    assert_error!(inside, Error::Unavailable { reason, .. } if reason.contains("read-only"));
    db.users().get(ada).await.expect("it reads");
    read_only("off").await;
    // One connection was left that had only read; its refusal is the last.
    let last = rename(db.clone(), ada, "ada".to_owned()).await;
    assert_error!(last, Error::Unavailable { .. });
    work(&db, ada, flow).await;
    db.close().await;
}

async fn an_idle_transaction_is_ended(test: TestDb) {
    let mut config = test.plain_config();
    config.idle_in_transaction_timeout = Some(Duration::from_millis(50));
    let db = connect(config).await;
    let ada = user(&db, "ada").await.id;
    let ended: Result<(), Error> = db
        .transaction(|tx| async move {
            tx.users().deactivate(ada).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            tx.users().get(ada).await.map(|_| ())
        })
        .await;
    assert_error!(ended, Error::Unavailable { reason, .. } if reason.contains("too long"));
    assert!(db.users().get(ada).await.expect("the next works").is_active);
    db.close().await;
}

/// A role of the test's own that may read and write, gone at the end.
async fn a_transaction_begins_with_its_first_statement(test: TestDb) {
    const OPEN: &str = "SELECT pid::text AS line FROM pg_stat_activity WHERE datname = \
         current_database() AND pid <> pg_backend_pid() AND state = 'idle in transaction'";
    let db = connect(test.plain_config()).await;
    let ada = user(&db, "ada").await.id;
    let tx = db.begin().await.expect("begun");
    assert_eq!(test.lines(OPEN).await.len(), 0);
    tx.users().deactivate(ada).await.expect("written");
    assert_eq!(test.lines(OPEN).await.len(), 1);
    tx.rollback().await.expect("undone");
    assert!(db.users().get(ada).await.expect("there").is_active);
    let empty = db.begin().await.expect("begun");
    empty.commit().await.expect("nothing to commit");
    // The first statement may fail, and then all that follows.
    let tx = db.begin().await.expect("begun");
    let nowhere = Statement::from_string(tx.backend(), "INSERT INTO nowhere VALUES (1)");
    let failed = tx.fetch_all(TypedQuery::<()>::sql(nowhere));
    assert_error!(failed.await, Error::Undefined { .. });
    assert_error!(tx.users().deactivate(ada).await, Error::Aborted);
    assert_error!(tx.commit().await, Error::Aborted);
    assert!(db.users().get(ada).await.expect("there").is_active);
    assert_eq!(test.lines(OPEN).await.len(), 0);
    db.close().await;
}

async fn an_ended_connection_begins_no_transaction(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    let db = Database::connect(config).await.expect("it connects");
    let ada = user(&db, "ada").await.id;
    // The connection is in the transaction's hands when the server ends it.
    let tx = db.begin().await.expect("begun");
    test.lines(END_ALL).await;
    tx.users().deactivate(ada).await.expect("on another");
    tx.commit().await.expect("committed");
    assert!(!db.users().get(ada).await.expect("there").is_active);

    let tx = db.begin().await.expect("begun");
    test.lines(END_ALL).await;
    let inner = tx.transaction(|tx| async move { tx.users().activate(ada).await });
    inner.await.expect("on another");
    tx.commit().await.expect("committed");
    assert!(db.users().get(ada).await.expect("there").is_active);

    // Later it is too late: what was written is gone.
    let tx = db.begin().await.expect("begun");
    tx.users().deactivate(ada).await.expect("written");
    test.lines(END_ALL).await;
    assert_error!(tx.users().get(ada).await, Error::Unavailable { .. });
    assert_error!(tx.commit().await, Error::Aborted);
    assert!(db.users().get(ada).await.expect("there").is_active);
    db.close().await;
}

async fn role(test: &TestDb, file: &Path) -> (String, Config) {
    let name = test.lines("SELECT current_database()::text AS line").await;
    let role = format!("{}_role", name[0]);
    test.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'before'; \
         GRANT pg_read_all_data, pg_write_all_data TO {role}"
    ))
    .await;
    std::fs::write(file, "before\n").expect("a file");
    let mut config = test.plain_config();
    let Target::Postgres(server) = &mut config.target else {
        panic!("it is a server");
    };
    server.user.clone_from(&role);
    server.password = Some("before".into());
    server.password_file = Some(file.to_owned());
    (role, config)
}

async fn a_rotated_password_is_read_again(test: TestDb) {
    let file = test.folder().join("password");
    let (role, config) = role(&test, &file).await;
    let db = connect(config).await;
    let ada = user(&db, "ada").await.id;
    let rotate = format!("ALTER ROLE {role} PASSWORD 'after'");
    test.execute(&rotate).await;
    test.lines(END_ALL).await;
    // The server knows it before the file does.
    let refused = loop {
        match db.users().get(ada).await {
            Err(Error::Unavailable { reason, .. }) if reason.contains("password") => break reason,
            Err(Error::Unavailable { .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(refused.contains("DB_PASS_FILE"), "{refused}");
    std::fs::write(&file, "after\n").expect("a file");
    db.users().get(ada).await.expect("the next call works");
    rename(db.clone(), ada, "ada".to_owned())
        .await
        .expect("written");
    db.close().await;
    test.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
