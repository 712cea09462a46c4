//! A disk that is full, or broken, from some moment on: those who write are told
//! so in words, nobody panics, and what was told before is there.

use testdb::process::Running;
use testdb::{Backend, TestDb};

use crate::{arguments, messages, pick, rounds, told, traced, workflow, wrong};

/// What fails from then on, with what, on which file, what is told, and how many
/// such calls a run makes.
const FAULTS: [(&str, &str, &str, &str, usize); 4] = [
    (
        "pwrite64",
        "ENOSPC",
        "aura.db-wal",
        "the disk is full and nothing was done",
        60,
    ),
    ("fdatasync", "EIO", "aura.db-wal", "disk I/O error", 4),
    ("pwrite64", "ENOSPC", "aura.db", "", 10),
    ("fdatasync", "EIO", "aura.db", "", 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_a_bad_disk() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let flow = workflow(&test).await;
    let (mut failed, mut operations) = (0, 0);
    for round in rounds(8) {
        let (call, error, file, says, most) = FAULTS[round as usize % FAULTS.len()];
        let from = 1 + pick(round, most);
        let inject = format!("inject={call}:error={error}:when={from}+");
        let path = test.folder().join(file).display().to_string();
        let options = ["-o", "/dev/null", "-e", &inject, "-P", &path];
        let arguments = arguments(flow, round, &["--tasks=8", "--operations=12"]);
        let ended = Running::start(&mut traced(&test, &options, &arguments)).end();
        assert!(ended.status.success(), "{inject} on {file}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{inject}: {ended:?}");
        let messages = messages(&test, round).await;
        let failures = ended
            .stdout
            .lines()
            .filter(|line| line.starts_with("failed"));
        for failure in failures {
            assert!(failure.contains(says), "{inject} on {file}: {failure}");
            let operation = failure.split(' ').nth(1).expect("an operation");
            let own = format!("{round}:{operation}:");
            let is_there = messages.iter().any(|message| message.starts_with(&own));
            assert!(
                !is_there || !failure.contains("nothing was done"),
                "{inject} on {file}: it is there: {failure}"
            );
            failed += 1;
        }
        let told = told(&ended.stdout);
        let wrong = wrong(&told, &messages);
        assert!(wrong.is_empty(), "{inject} on {file}: {wrong:?}");
        operations += told.len();
    }
    assert!(failed > 0, "nobody noticed");
    println!("{operations} operations told, none lost, none by half; {failed} failed");
}
