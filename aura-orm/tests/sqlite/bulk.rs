//! Statements that may write many rows: a quick one runs where it is called, a long one is
//! interrupted and runs again where it may block.

use std::sync::Arc;
use std::time::Duration;

use aura_orm::sqlite::{Error, Write};
use aura_orm::{RowDecoder, RowReader, Statement, StatementKind};
use sea_orm::DbErr;

use super::{Engine, all, engine, put, rows};

/// Takes far longer than a statement may run where it is called.
const MANY: u64 = 100_000;

async fn add(write: &mut Write, rows: u64) -> Result<u64, Error> {
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows}) \
         INSERT INTO t (x) SELECT i || ' of many' FROM n"
    );
    let add = Statement::new(StatementKind::BulkWrite, sql, Vec::new());
    write.execute(add).await
}

async fn count(engine: &Engine) -> u64 {
    let count = "SELECT count(*) FROM t";
    let count = Statement::new(StatementKind::Read, count, Vec::new());
    let counts = engine.readers.query(count, all::<i64>()).await;
    rows::<i64>(counts.expect("counted"))[0].cast_unsigned()
}

#[tokio::test]
async fn each_is_there_once() {
    for rows in [1, MANY] {
        let engine = engine();
        let mut write = engine.begin().await;
        assert_eq!(add(&mut write, rows).await.expect("added"), rows);
        // Of the same transaction, also when the first statement ran twice.
        put(&mut write, "last").await.expect("inserted");
        write.commit().await.expect("committed");
        assert_eq!(count(&engine).await, rows + 1);
    }
}

#[tokio::test]
async fn what_came_before_it_stays() {
    let engine = engine();
    let mut write = engine.begin().await;
    put(&mut write, "first").await.expect("inserted");
    assert_eq!(add(&mut write, MANY).await.expect("added"), MANY);
    write.commit().await.expect("committed");
    assert_eq!(count(&engine).await, MANY + 1);
}

#[tokio::test]
async fn others_of_its_batch_stay() {
    let engine = Arc::new(engine());
    let first = engine.begin().await;
    let before = engine
        .queued(|mut write| async move {
            put(&mut write, "before").await?;
            write.commit().await
        })
        .await;
    let many = engine
        .queued(|mut write| async move {
            add(&mut write, MANY).await?;
            write.commit().await
        })
        .await;
    drop(first);
    for task in [before, many] {
        task.await.expect("no panic").expect("committed");
    }
    assert_eq!(count(&engine).await, MANY + 1);
}

/// Takes longer than a statement may run where it is called.
struct Slow;

impl RowDecoder for Slow {
    type Row = i64;

    fn decode(cells: &mut RowReader<'_>) -> Result<i64, DbErr> {
        std::thread::sleep(Duration::from_micros(1100));
        cells.next_value()
    }
}

/// SQLite looks for an interrupt every 1,000 steps, over all runs of a statement: one of
/// these runs is interrupted after its last step, when it has changed its row.
#[tokio::test]
async fn one_that_is_interrupted_at_its_end_changes_its_row_once() {
    let engine = engine();
    let mut write = engine.begin().await;
    put(&mut write, "0").await.expect("inserted");
    write.commit().await.expect("committed");
    for run in 1..=500 {
        let update = "UPDATE t SET x = CAST(x AS INTEGER) + 1 RETURNING CAST(x AS INTEGER)";
        let update = Statement::new(StatementKind::BulkWrite, update, Vec::new());
        let mut write = engine.begin().await;
        let updated = write.query(update, all::<Slow>()).await;
        assert_eq!(rows::<Slow>(updated.expect("updated")), [run]);
        write.commit().await.expect("committed");
    }
}

#[tokio::test]
async fn rolled_back_it_leaves_nothing() {
    let engine = engine();
    let mut write = engine.begin().await;
    add(&mut write, MANY).await.expect("added");
    drop(write);
    assert_eq!(count(&engine).await, 0);
}
