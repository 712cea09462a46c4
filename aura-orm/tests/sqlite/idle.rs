//! Writes that run no statement while others wait.

use std::sync::Arc;
use std::time::Duration;

use aura_orm::sqlite::Error;

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
