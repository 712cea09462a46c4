//! The examples that people copy: what is printed is what runs.

use std::path::{Path, PathBuf};

use testdb::process::{Ended, Running, command};

/// The built example. `cargo test` builds them with the tests, unless it is
/// told which test to build.
fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    let folder = this.parent().and_then(Path::parent).expect("two folders");
    let path = folder.join("examples").join(name);
    let path = path.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "first: cargo build -p aura-db --examples");
    path
}

fn quickstart(folder: &Path, variables: &[(&'static str, String)]) -> Ended {
    let ended = Running::start(&mut command(example("quickstart"), folder, variables)).end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stderr, "");
    ended
}

#[test]
fn the_quickstart_runs_in_an_empty_folder_and_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let once = quickstart(folder.path(), &[]);
    assert_eq!(once.stdout, "1: Greet politely, version 2\n");
    assert!(folder.path().join("data/aura.db").exists());

    let again = quickstart(folder.path(), &[]);
    let expected = "1: Greet politely, version 2\n2: Greet politely, version 2\n";
    assert_eq!(again.stdout, expected);
}

#[test]
fn the_quickstart_runs_in_memory_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = [("DB_PATH", ":memory:".to_owned())];
    for _ in 0..2 {
        let ended = quickstart(folder.path(), &memory);
        assert_eq!(ended.stdout, "1: Greet politely, version 2\n");
    }
    assert_eq!(folder.path().read_dir().expect("a list").count(), 0);
}

#[tokio::test]
async fn the_quickstart_runs_on_postgres() {
    let test = testdb::TestDb::empty(testdb::Backend::Postgres).await;
    let ended = quickstart(&test.work(), &test.variables());
    assert_eq!(ended.stdout, "1: Greet politely, version 2\n");
}

#[test]
fn the_quickstart_is_printed_word_for_word() {
    let code = include_str!("../examples/quickstart.rs");
    let readme = include_str!("../../README.md");
    assert!(
        readme.contains(&format!("```rust,no_run\n{code}```\n")),
        "README.md, \"In an application\", differs from examples/quickstart.rs"
    );
    let front = include_str!("../src/lib.rs");
    let included =
        "//! ```no_run\n#![doc = include_str!(\"../examples/quickstart.rs\")]\n//! ```\n";
    assert!(front.contains(included), "the front page has no quickstart");
}
