//! How long the write-ahead log gets.

use aura_orm::{Statement, StatementKind};
use rusqlite::Connection;

use crate::{Engine, engine_with};

/// It is copied into the file every 48 MiB, however it grows.
pub(crate) async fn the_wal_stays_short(engine: Engine) {
    let wal = engine.options.file.path().with_extension("db-wal");
    let size = || std::fs::metadata(&wal).map_or(0, |wal| wal.len());
    let long = "x".repeat(64 << 10);
    for row in 0..900 {
        let inserted = engine.insert(format!("{long}{row}")).await;
        inserted.expect("inserted");
    }
    assert!((48..50).contains(&(size() >> 20)), "{} bytes", size());
    // Many rows of one transaction are one commit.
    let mut write = engine.begin().await;
    let more = "INSERT INTO t (x) SELECT x || 'y' FROM t";
    let more = Statement::new(StatementKind::BulkWrite, more, Vec::new());
    write.execute(more).await.expect("inserted");
    write.commit().await.expect("committed");
    let grown = size();
    for row in 900..1_100 {
        let inserted = engine.insert(format!("{long}{row}")).await;
        inserted.expect("inserted");
    }
    // What was copied is written over, and cut.
    assert!(grown > 64 << 20, "{grown} bytes");
    assert_eq!(size(), 64 << 20);
}

/// Nothing is copied that a reader may still need; when it is gone the WAL is cut.
#[tokio::test]
async fn the_wal_is_cut_after_a_long_read() {
    let engine = engine_with(|options| options.durable = false);
    let wal = engine.options.file.path().with_extension("db-wal");
    let size = || std::fs::metadata(&wal).map_or(0, |wal| wal.len()) >> 20;
    let reader = Connection::open(engine.options.file.path()).expect("it opens");
    let look = "BEGIN; SELECT count(*) FROM t";
    reader.execute_batch(look).expect("it reads");
    let long = "x".repeat(1 << 20);
    for row in 0..40 {
        let inserted = engine.insert(format!("{long}{row}")).await;
        inserted.expect("inserted");
    }
    assert!(size() > 64, "{} MiB", size());
    drop(reader);
    for row in 40..60 {
        let inserted = engine.insert(format!("{long}{row}")).await;
        inserted.expect("inserted");
    }
    assert!(size() <= 64, "{} MiB", size());
}
