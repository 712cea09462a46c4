//! The `.env` file as a whole; the values are tested beside its parser.

use std::path::Path;
use std::process::Command;

use connection::{Config, Environment, Error, Source};

use crate::{CANARY, assert_hides, file};

fn refused(content: impl AsRef<[u8]>) -> (String, usize, String) {
    let (_folder, path) = file(content);
    let error = Environment::from_file(Path::new(&path)).expect_err("a malformed file");
    assert_hides(&error);
    let Error::DotenvMalformed {
        path: named, line, ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(named.to_str(), Some(path.as_str()));
    let text = error.to_string();
    assert!(text.starts_with(&format!("{path} line {line}: ")), "{text}");
    (path, *line, text)
}

#[test]
fn values_and_their_file_are_known() {
    let (_folder, path) = file(
        "# ours\nDB_TYPE=postgres\nexport DB_PASS='p$#a ss' # quoted\nDB_NAME=\nDB_PORT=1\nDB_PORT=6543\n",
    );
    let environment = Environment::from_file(Path::new(&path)).expect("a good file");
    let names: Vec<&str> = environment.names().collect();
    assert_eq!(names, ["DB_PASS", "DB_PORT", "DB_TYPE"]);
    let source = Source::File(path.clone().into());
    assert_eq!(environment.get("DB_PASS"), Some(("p$#a ss", &source)));
    let config = Config::from_environment(&environment).expect("good settings");
    assert_eq!(config.target_name(), "PostgreSQL aura@localhost:6543/aura");
}

#[test]
fn a_malformed_line_is_named_and_never_shown() {
    for (content, line) in [
        (format!("DB_TYPE=postgres\nDB_PASS {CANARY}\n"), 2),
        (format!("\n\n{CANARY}\n"), 3),
        (format!("A=b\r\nB=c\r\nDB_PASS=\"{CANARY}\r\n"), 3),
        (format!("DB_PASS='{CANARY}\nDB_TYPE=sqlite\n"), 1),
        (format!("={CANARY}"), 1),
    ] {
        let (_, found, text) = refused(&content);
        assert_eq!(found, line, "{text}");
        assert!(text.contains("write NAME=value"), "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_named_by_their_line() {
    let mut content = format!("A=b\nDB_PASS={CANARY}").into_bytes();
    content.extend([0xe9, b'\n']);
    let (_, line, text) = refused(content);
    assert_eq!(line, 2);
    assert!(text.contains("not UTF-8 text"), "{text}");
}

#[test]
fn a_folder_or_a_missing_file_is_named() {
    let (folder, _) = file("");
    let missing = folder.path().join("missing.env");
    for path in [folder.path(), &missing] {
        let error = Environment::from_file(path).expect_err("no file");
        assert!(matches!(error, Error::DotenvUnreadable { .. }), "{error:?}");
        assert!(
            error
                .to_string()
                .contains(path.to_str().expect("a path in UTF-8")),
            "{error}"
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}

/// Not a test of its own: [`load_in`] runs it in another working directory and
/// another environment, and reads the report that it prints.
#[test]
fn helper_that_loads_the_environment() {
    match Config::from_env() {
        Ok(config) => println!("{}", config.describe()),
        Err(error) => println!("{error}\n{error:?}"),
    }
}

fn load_in(folder: &Path, variables: &[(&str, &str)]) -> String {
    let this = std::env::current_exe().expect("the test program");
    let output = Command::new(this)
        .args([
            "--exact",
            "dotenv::helper_that_loads_the_environment",
            "--nocapture",
        ])
        .current_dir(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the test program runs");
    let report = String::from_utf8(output.stdout).expect("text");
    assert!(report.contains("1 passed"), "{report}");
    report
}

#[test]
fn the_file_is_searched_upwards_and_the_nearest_counts() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let deep = root.path().join("a/b/c");
    std::fs::create_dir_all(&deep).expect("folders");
    std::fs::write(root.path().join(".env"), "DB_PATH=far.db\n").expect("a file");
    assert!(load_in(&deep, &[]).contains("SQLite far.db"));
    std::fs::write(root.path().join("a/b/.env"), "DB_POOL_MAX=3\n").expect("a file");
    let report = load_in(&deep, &[]);
    assert!(
        report.contains("SQLite ./data/aura.db") && report.contains("a/b/.env"),
        "{report}"
    );
}

#[test]
fn real_variables_win_over_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(
        folder.path().join(".env"),
        "DB_PATH=file.db\nDB_POOL_MAX=3\nDB_SLOW_QUERY=5\n",
    )
    .expect("a file");
    let report = load_in(
        folder.path(),
        &[("DB_PATH", "real.db"), ("DB_POOL_MAX", "")],
    );
    assert!(report.contains("SQLite real.db"), "{report}");
    let line = |name: &str| {
        let line = report
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("{name}: {report}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("DB_PATH"), "DB_PATH real.db environment");
    // An empty real variable hides the file's line, as with npm dotenv.
    assert_eq!(line("DB_POOL_MAX"), "DB_POOL_MAX 10 default");
    assert!(line("DB_SLOW_QUERY").ends_with("/.env"), "{report}");
}

#[test]
fn a_broken_file_stops_the_start_even_when_nothing_of_it_is_needed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(
        folder.path().join(".env"),
        format!("DB_PATH=x.db\noops {CANARY}\n"),
    )
    .expect("a file");
    let report = load_in(folder.path(), &[("DB_PATH", "real.db")]);
    assert!(report.contains("/.env line 2: "), "{report}");
    assert!(!report.contains(CANARY), "{report}");
}

#[test]
fn a_folder_called_dotenv_is_passed_over() {
    let root = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(root.path().join(".env"), "DB_PATH=above.db\n").expect("a file");
    std::fs::create_dir_all(root.path().join("a/.env")).expect("folders");
    assert!(load_in(&root.path().join("a"), &[]).contains("SQLite above.db"));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let this = std::env::current_exe().expect("the test program");
    let output = Command::new(this)
        .args([
            "--exact",
            "dotenv::helper_that_loads_the_environment",
            "--nocapture",
        ])
        .current_dir(folder.path())
        .env_clear()
        .env("DB_PATH", std::ffi::OsStr::from_bytes(b"x\xff.db"))
        .output()
        .expect("the test program runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("DB_PATH: is not UTF-8 text"), "{report}");
}
