//! A read that goes on for minutes while others write: what is behind it can't
//! be copied into the file; when it ends the WAL is short again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aura_db::{Database, LogLevel, NewLog};
use testdb::process::asked;
use testdb::{Backend, TestDb};

use crate::workflow;

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_is_short_again_after_a_long_read() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let flow = workflow(&test).await;
    let db = Database::connect(test.config()).await.expect("it connects");
    let seconds = asked("AURA_TORTURE").map(|seconds| seconds.parse().expect("seconds"));
    // A minute of it is some 150 MiB, or there would be no room on the disk.
    let read_for = Duration::from_secs(seconds.unwrap_or(0));
    let pause = Duration::from_millis(if seconds.is_some() { 50 } else { 1 });
    let reader = rusqlite::Connection::open(test.folder().join("aura.db")).expect("it opens");
    let look = "BEGIN; SELECT count(*) FROM logs";
    reader.execute_batch(look).expect("it reads");

    let (done, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (db, done, written) = (db.clone(), done.clone(), written.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let entry = NewLog::new(flow.into(), LogLevel::Info, "x".repeat(32 << 10));
                    db.logs().append(entry).await.expect("written");
                    written.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            })
        })
        .collect();

    let wal = test.folder().join("aura.db-wal");
    let size = || std::fs::metadata(&wal).map_or(0, |wal| wal.len());
    let until = async |what: &str, long_enough: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !long_enough() {
            let patience = read_for + Duration::from_mins(1);
            assert!(started.elapsed() < patience, "{what}: {} bytes", size());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let started = Instant::now();
    until("it grows", &|| {
        started.elapsed() >= read_for && size() > 65 * MIB
    })
    .await;
    let grown = size();
    drop(reader);
    until("it is cut", &|| size() <= 64 * MIB).await;
    // And stays so while the others go on.
    let most = 64 * MIB;
    let before = written.load(Ordering::Relaxed);
    until("they go on", &|| {
        assert!(size() <= most, "{} bytes", size());
        written.load(Ordering::Relaxed) > before + 400
    })
    .await;
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no panic");
    }
    db.close().await;
    println!(
        "a read of {:?}, {} entries: the WAL grew to {} MiB, and was cut to 64",
        started.elapsed(),
        written.load(Ordering::Relaxed),
        grown / MIB
    );
}
