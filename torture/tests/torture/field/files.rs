//! What people and programs do to the files of SQLite.

use aura_db::{LogLevel, NewLog};

use super::{Field, beside, kinds, workflow};

kinds! {
    the_file_is_removed on sqlite:
        "the file was removed under a service, to begin anew",
        "from then on the service acknowledges nothing, and says what to do";
    a_backup_is_copied_over on sqlite:
        "a service was killed, and a backup copied over its file; the WAL was left",
        "no tool opens it, both files stay as they are, and what is said to do helps";
}

async fn the_file_is_removed(field: Field) {
    let db = field.db().await;
    let flow = workflow(&db, "ada").await.expect("created");
    db.close().await;
    let mut service = field.service(flow.0);
    assert!(service.hears("0:5"));
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(beside(&field.file(), suffix)).expect("removed");
    }
    for _ in 0..20 {
        assert!(service.hears("failed"), "it goes on");
    }
    let ended = service.kill();
    let mut later = ended.stdout.lines();
    later.find(|line| line.starts_with("failed"));
    for line in later {
        assert!(line.starts_with("failed"), "acknowledged: {line}");
        assert!(line.contains("restart"), "{line}");
    }
}

async fn a_backup_is_copied_over(field: Field) {
    let db = field.db().await;
    let flow = workflow(&db, "ada").await.expect("created");
    db.close().await;
    let (file, wal) = (field.file(), beside(&field.file(), "-wal"));
    let backup = std::fs::read(&file).expect("a backup");
    // A later life of the file, of which a part is in its WAL.
    let db = field.db().await;
    let long = "x".repeat(2_000);
    let entries = vec![NewLog::new(flow, LogLevel::Info, long.as_str()); 40_000];
    db.logs().append_many(entries).await.expect("appended");
    db.close().await;
    let mut service = field.service(flow.0);
    assert!(service.hears("0:5"));
    drop(service.kill());
    // The clock of the file system is coarse.
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&file, &backup).expect("copied");
    let left = std::fs::read(&wal).expect("the WAL");
    for command in ["up", "check", "status"] {
        let refused = field.tool(&[command]);
        assert_ne!(refused.status.code(), Some(0), "{command}: {refused:?}");
        assert!(refused.stderr.contains("aura.db-wal"), "{refused:?}");
    }
    assert!(
        std::fs::read(&file).expect("the file") == backup,
        "it stays"
    );
    assert!(std::fs::read(&wal).expect("the WAL") == left, "it stays");
    std::fs::remove_file(&wal).expect("removed");
    std::fs::remove_file(beside(&file, "-shm")).expect("removed");
    field.is_as_expected();
    let db = field.db().await;
    workflow(&db, "bob").await.expect("created");
    db.close().await;
}
