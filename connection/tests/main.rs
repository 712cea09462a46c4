//! What a user of the settings and the connections relies on. PostgreSQL is
//! the server that `./scripts/test` starts.

mod config;
mod dotenv;
mod fake;
mod files;
mod fuzz;
mod oddities;
mod postgres;
mod refusals;
mod rights;
mod secrets;
mod sqlite;
mod tls;
mod url;

use connection::{Config, Environment, Error, Problem, Setting, Source};

/// A password that must not show up anywhere.
const CANARY: &str = "c4nary-p4ssword";

fn read(pairs: &[(&str, &str)]) -> Result<Config, Error> {
    Config::from_environment(&Environment::from_pairs(pairs.iter().copied()))
}

fn accepted(pairs: &[(&str, &str)]) -> Config {
    read(pairs).unwrap_or_else(|error| panic!("{pairs:?}: {error}"))
}

/// The problems of settings that are refused.
fn problems(pairs: &[(&str, &str)]) -> Vec<Problem> {
    match read(pairs) {
        Err(Error::Config(problems)) => problems,
        other => panic!("{pairs:?} gave {other:?}"),
    }
}

/// The one problem of settings that are refused.
fn problem(pairs: &[(&str, &str)]) -> Problem {
    let mut problems = problems(pairs);
    assert_eq!(problems.len(), 1, "{pairs:?}: {problems:?}");
    problems.remove(0)
}

fn postgres(config: &Config) -> &connection::Postgres {
    match &config.target {
        connection::Target::Postgres(postgres) => postgres,
        other => panic!("not PostgreSQL: {other:?}"),
    }
}

/// Value and source of a setting in the report.
fn setting<'a>(config: &'a Config, wanted: &str) -> (&'a str, &'a Source) {
    let found: Vec<&Setting> = config
        .settings()
        .iter()
        .filter(|setting| setting.name == wanted)
        .collect();
    match found[..] {
        [Setting { value, source, .. }] => (value, source),
        _ => panic!("{wanted} stands {} times in the report", found.len()),
    }
}

/// A file with this content, gone with the folder.
fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    std::fs::write(&path, content).expect("room for a file");
    let path = path.to_str().expect("a path in UTF-8").to_owned();
    (folder, path)
}

/// An error that could not open `target` says so, what to do, and no secret.
fn assert_helpful(error: &Error, target: &str) {
    let text = error.to_string();
    let (Error::Refused {
        target: to,
        hint,
        reason,
        ..
    }
    | Error::Unavailable {
        target: to,
        hint,
        reason,
        ..
    }) = error
    else {
        panic!("not about opening a database: {error:?}")
    };
    assert!(to.contains(target), "{text:?} does not name {target}");
    assert!(
        text.contains(to.as_str())
            && text.contains(reason.as_str())
            && text.contains(hint.as_str()),
        "{text}"
    );
    assert!(!reason.is_empty(), "{text}");
    assert!(hint.split_whitespace().count() >= 3, "no hint: {text}");
    assert_hides(error);
}

/// Neither the error nor any of its causes shows the canary.
fn assert_hides(error: &Error) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let text = format!("{error}\n{error:?}");
        assert!(!text.contains(CANARY), "a secret is shown: {text}");
        cause = error.source();
    }
}
