//! What is committed is what the migrations make, from either backend.

use std::path::Path;

use testdb::TestDb;

async fn committed_files_are_what_the_migrations_make(db: TestDb) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = xtask::files(&db.config())
        .await
        .expect("files are generated");
    assert!(files.len() >= 12, "{} files", files.len());
    let strays = xtask::strays(&root, &files).expect("a list");
    assert!(strays.is_empty(), "{strays:?} are no longer generated");
    for (name, generated) in files {
        let committed = std::fs::read_to_string(root.join(&name)).unwrap_or_default();
        assert!(
            committed == generated,
            "{name} is out of date; run `just entities`"
        );
    }
}

testdb::both!(migrated: committed_files_are_what_the_migrations_make);
