//! A process that is killed, at any moment and at any of its writes, has lost
//! nothing that it was told is committed.

use std::time::Duration;

use testdb::process::{Running, moment};
use testdb::{Backend, TestDb};

use crate::{arguments, messages, pick, rounds, told, traced, workflow, writer, wrong};

testdb::both!(migrated: nothing_is_lost_at_any_moment);

async fn nothing_is_lost_at_any_moment(test: TestDb) {
    let flow = workflow(&test).await;
    let (mut kills, mut operations) = (0, 0);
    for round in rounds(10) {
        // Alone, a write has a commit of its own; in a crowd they share it.
        let tasks = if round % 5 == 4 {
            "--tasks=1"
        } else {
            "--tasks=64"
        };
        let mut running = Running::start(&mut writer(&test, flow, round, &[tasks]));
        assert!(running.hears("ready"));
        std::thread::sleep(Duration::from_millis(150).mul_f64(moment(round)));
        let ended = running.kill();
        assert!(ended.status.code().is_none(), "{ended:?}");
        assert!(!ended.stdout.contains("failed"), "{}", ended.stdout);
        let told = told(&ended.stdout);
        let wrong = wrong(&told, &messages(&test, round).await);
        assert!(wrong.is_empty(), "kill {round}: {wrong:?}");
        kills += 1;
        operations += told.len();
    }
    assert!(operations > 0, "nothing was written");
    println!(
        "{:?}: {kills} kills, {operations} operations told, none lost, none by half",
        test.backend()
    );
}

/// With which SQLite changes what is on the disk, and on which file. Fewer calls
/// of some kinds are made than of others.
const POINTS: [(&str, &str, usize); 6] = [
    ("pwrite64", "aura.db-wal", 400),
    ("fdatasync", "aura.db-wal", 40),
    ("pwrite64", "aura.db", 60),
    ("fdatasync", "aura.db", 2),
    ("ftruncate", "aura.db", 1),
    ("unlink", "aura.db-wal", 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_at_any_write() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let flow = workflow(&test).await;
    let (mut kills, mut operations) = (0, 0);
    for round in rounds(12) {
        let (call, file, most) = POINTS[round as usize % POINTS.len()];
        let number = 1 + pick(round, most);
        let inject = format!("inject={call}:signal=KILL:when={number}");
        let file = test.folder().join(file).display().to_string();
        let options = ["-o", "/dev/null", "-e", &inject, "-P", &file];
        let arguments = arguments(flow, round, &["--tasks=8", "--operations=12"]);
        let ended = Running::start(&mut traced(&test, &options, &arguments)).end();
        let killed = ended.status.code().is_none();
        assert!(killed || ended.status.success(), "{inject}: {ended:?}");
        assert!(!ended.stdout.contains("failed"), "{}", ended.stdout);
        let told = told(&ended.stdout);
        let wrong = wrong(&told, &messages(&test, round).await);
        assert!(wrong.is_empty(), "{inject} on {file}: {wrong:?}");
        kills += u32::from(killed);
        operations += told.len();
    }
    assert!(kills > 0, "nobody was killed");
    println!("{kills} kills at writes, {operations} operations told, none lost, none by half");
}

/// 14 MiB of free pages, more than a file keeps.
const FREE: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
    INSERT INTO logs (level, message, workflow_id) SELECT 'info', printf('x:%016000d', i), 1 FROM n;
    DELETE FROM logs WHERE message LIKE 'x:%'";

/// While pages are moved to give them back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_file_is_cut() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let flow = workflow(&test).await;
    let (mut moved, mut operations) = (0, 0);
    for round in rounds(6) {
        test.execute(FREE).await;
        let free = free_pages(&test).await;
        // With pauses, in which pages are moved.
        let more = ["--tasks=1", "--pause=3"];
        let mut running = Running::start(&mut writer(&test, flow, round, &more));
        assert!(running.hears("ready"));
        std::thread::sleep(Duration::from_millis(60 + 40 * u64::from(round % 6)));
        let ended = running.kill();
        assert!(!ended.stdout.contains("failed"), "{}", ended.stdout);
        let told = told(&ended.stdout);
        let wrong = wrong(&told, &messages(&test, round).await);
        assert!(wrong.is_empty(), "kill {round}: {wrong:?}");
        moved += free.saturating_sub(free_pages(&test).await);
        operations += told.len();
    }
    // Entries take some as well.
    assert!(moved > 1_000, "only {moved} pages were given back");
    println!(
        "{operations} operations acknowledged, {moved} pages given back, none lost, none by half"
    );
}

async fn free_pages(test: &TestDb) -> u64 {
    let sql = "SELECT CAST(freelist_count AS text) AS line FROM pragma_freelist_count";
    test.lines(sql).await[0].parse().expect("a number")
}
