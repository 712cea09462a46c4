//! Writes that run no statement while others wait.

use std::sync::Arc;
use std::time::Duration;

use aura_orm::sqlite::Error;
use aura_orm::{Statement, StatementKind};
use futures_util::future::poll_immediate;

use crate::{engine, engine_with, insert, put};

/// The write is held by a future that is no longer polled.
#[tokio::test]
async fn a_write_that_does_nothing_is_rolled_back() {
    let engine = engine();
    let mut idle = engine.begin().await;
    put(&mut idle, "idle").await.expect("inserted");
    engine.insert("other").await.expect("it needn't wait long");
    assert_eq!(engine.list().await, ["other"]);
    let late = put(&mut idle, "late").await;
    assert!(matches!(late, Err(Error::Reclaimed)), "{late:?}");
    let ended = idle.commit().await;
    assert!(matches!(ended, Err(Error::Reclaimed)), "{ended:?}");
    engine.insert("free").await.expect("inserted");
    assert_eq!(engine.list().await, ["other", "free"]);
}

#[tokio::test]
async fn an_exclusive_write_may_do_nothing_for_longer() {
    let engine = engine_with(|options| options.acquire_timeout = Duration::from_secs(1));
    let engine = Arc::new(engine);
    let mut exclusive = engine.writer.begin(true).await.expect("it begins");
    put(&mut exclusive, "first").await.expect("inserted");
    let waiting = engine.queued(|write| insert(write, "waiting")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    exclusive.commit().await.expect("committed");
    waiting.await.expect("it ends").expect("inserted");

    let mut exclusive = engine.writer.begin(true).await.expect("it begins");
    put(&mut exclusive, "lost").await.expect("inserted");
    engine.insert("other").await.expect("in time");
    let late = put(&mut exclusive, "late").await;
    assert!(matches!(late, Err(Error::IdleTimeout(_))), "{late:?}");
    assert_eq!(engine.list().await, ["first", "waiting", "other"]);
}

/// No other write waits.
#[tokio::test]
async fn a_write_may_do_nothing_while_no_other_waits() {
    let engine = engine();
    let mut idle = engine.begin().await;
    put(&mut idle, "a").await.expect("inserted");
    tokio::time::sleep(Duration::from_millis(50)).await;
    put(&mut idle, "b").await.expect("inserted");
    idle.commit().await.expect("committed");
    assert_eq!(engine.list().await, ["a", "b"]);
}

/// The writes of its batch are committed all the same.
#[tokio::test]
async fn the_batch_of_an_idle_write_is_committed() {
    let engine = Arc::new(engine());
    let mut first = engine.begin().await;
    put(&mut first, "first").await.expect("inserted");
    // It joins the batch of the first, and does nothing.
    let idle = engine.queued(|mut write| async move {
        put(&mut write, "idle").await?;
        tokio::time::sleep(Duration::from_mins(1)).await;
        write.commit().await
    });
    let idle = idle.await;
    let third = engine.queued(|write| insert(write, "third")).await;
    first.commit().await.expect("committed");
    third.await.expect("it ends").expect("inserted");
    assert_eq!(engine.list().await, ["first", "third"]);
    idle.abort();
}

/// The connection is handed to a future that isn't polled any more, as in a `select!` whose
/// other branch writes too.
async fn who_gets_the_connection_and_is_not_polled(exclusive: bool) {
    let engine = engine();
    let holder = engine.begin().await;
    let mut unpolled = std::pin::pin!(engine.writer.begin(exclusive));
    assert!(poll_immediate(unpolled.as_mut()).await.is_none());
    holder.commit().await.expect("committed");
    engine.insert("other").await.expect("it needn't wait long");
    let late = insert(unpolled.await.expect("it begins"), "late").await;
    late.expect("inserted");
    assert_eq!(engine.list().await, ["other", "late"]);
}

#[tokio::test]
async fn the_connection_of_an_unpolled_future_goes_to_the_next() {
    who_gets_the_connection_and_is_not_polled(false).await;
    who_gets_the_connection_and_is_not_polled(true).await;
}

/// Another process held the file's lock when it began, and a slow machine doesn't poll it at
/// once when it has it.
async fn who_waited_for_another_process_and_is_not_polled(exclusive: bool) {
    let engine = engine();
    let other = rusqlite::Connection::open(engine.folder.path().join("test.db")).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("free");
    let mut unpolled = std::pin::pin!(engine.writer.begin(exclusive));
    assert!(poll_immediate(unpolled.as_mut()).await.is_none());
    other.execute_batch("COMMIT").expect("committed");
    engine.insert("other").await.expect("it needn't wait long");
    let late = insert(unpolled.await.expect("it begins"), "late").await;
    late.expect("inserted");
    assert_eq!(engine.list().await, ["other", "late"]);
}

#[tokio::test]
async fn a_write_that_waited_for_another_process_begins_after_others() {
    who_waited_for_another_process_and_is_not_polled(false).await;
    who_waited_for_another_process_and_is_not_polled(true).await;
}

/// A write that has finished commits although the next of its batch does nothing, and
/// although no other waits.
#[tokio::test]
async fn a_finished_write_waits_for_no_idle_one() {
    let engine = Arc::new(engine());
    let mut first = engine.begin().await;
    put(&mut first, "first").await.expect("inserted");
    let mut unpolled = std::pin::pin!(engine.writer.begin(false));
    assert!(poll_immediate(unpolled.as_mut()).await.is_none());
    first.commit().await.expect("committed");
    let mut second = unpolled.await.expect("it begins");
    put(&mut second, "second").await.expect("inserted");
    let idle = engine.queued(|mut write| async move {
        put(&mut write, "idle").await?;
        std::future::pending().await
    });
    let idle = idle.await;
    second.commit().await.expect("committed");
    assert_eq!(engine.list().await, ["first", "second"]);
    idle.abort();
}

/// Its batch is run again, and the connection is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_write_in_a_batch_ends_with_its_caller() {
    let engine = Arc::new(engine_with(|options| options.statement_timeout = None));
    let mut first = engine.begin().await;
    put(&mut first, "first").await.expect("inserted");
    let endless = {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut write = engine.begin().await;
            let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                INSERT INTO t (x) SELECT 'endless' FROM n WHERE i < 0";
            let endless = Statement::new(StatementKind::BulkWrite, endless, Vec::new());
            write.execute(endless).await
        })
    };
    tokio::task::yield_now().await;
    let committing = tokio::spawn(first.commit());
    tokio::time::sleep(Duration::from_millis(100)).await;
    endless.abort();
    let first = committing.await.expect("it ends");
    assert!(
        matches!(first, Ok(()) | Err(Error::BatchRolledBack)),
        "{first:?}"
    );
    engine.insert("free").await.expect("it needn't wait long");
}
