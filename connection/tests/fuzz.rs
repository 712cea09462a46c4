//! Any environment and any `.env` file: no panic, no secret in what is said, and
//! never a weaker TLS mode or another host than was written. `PROPTEST_CASES`
//! says how many are tried.

use std::cell::Cell;

use connection::{Config, Environment, Error, Target, TlsMode, VARIABLES};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use crate::{CANARY, assert_hides};

/// Names with values that fit them, more or less.
const FITTING: &[(&str, &[&str])] = &[
    (
        "DB_TYPE",
        &["postgres", " Postgres ", "postgresql", "postgres"],
    ),
    ("DB_TYPE", &["sqlite", "mysql"]),
    (
        "DB_HOST",
        &[
            "db.example.org",
            " db.example.org ",
            "::1",
            "[::1]",
            "db.example.org\n",
            "\"db.example.org\"",
            "$HOST",
            "/var/run/postgresql",
        ],
    ),
    ("DB_SSL", &["true", "false", "1", "0", "TRUE", "yes"]),
    (
        "DB_SSL_MODE",
        &[
            "disable",
            "prefer",
            "require",
            "verify-full",
            "VERIFY-FULL",
            "verify-ca",
        ],
    ),
    (
        "DB_PORT",
        &["5432", "65535", "65536", "-1", "tcp://10.0.0.1:5432"],
    ),
    ("DB_PASS", &[CANARY]),
    (
        "DB_PATH",
        &[":memory:", "./data/aura.db", "~/aura.db", "$HOME/x.db"],
    ),
    ("DB_POOL_MAX", &["1", "1000", "99999999999999999999"]),
    ("DB_STATEMENT_TIMEOUT", &["0", "60000", "1e3"]),
    (
        "DATABASE_URL",
        &[
            "postgres://ada:c4nary-p4ssword@db.example.org/aura",
            "postgres://ada:c4nary-p4ssword@db.example.org:6432/aura?sslmode=verify-full",
            "postgres://ada@db.example.org/aura?sslmode=require",
            "postgres://ada:c4nary-p4ssword@[::1]:6432/aura?sslmode=disable",
            "postgres://ada:c4nary@p4ssword@db.example.org/aura?sslmode=verify-full&sslmode=disable",
            "sqlite::memory:",
            "sqlite://./data/aura.db?mode=rwc",
        ],
    ),
];

/// A setting: one that fits, one that is known with any value, or none of ours.
fn setting() -> impl Strategy<Value = (String, String)> {
    let fitting =
        select(FITTING).prop_flat_map(|(name, values)| (Just(name.to_owned()), select(values)));
    let fitting = fitting.prop_map(|(name, value)| (name, (*value).to_owned()));
    let known: Vec<_> = VARIABLES
        .iter()
        .map(|variable| variable.name.to_owned())
        .collect();
    let any = "[ -~é€\u{0}\n]{0,20}";
    prop_oneof![
        16 => fitting,
        1 => (select(known), any),
        1 => ("[A-Z]{1,6}_[A-Z_]{1,12}", any),
    ]
}

/// A line of a `.env` file, more often a good one.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => (setting(), select(&["", "\"", "'", "`"][..]))
            .prop_map(|((name, value), quote)| format!("{name}={quote}{value}{quote}")),
        1 => "[ -~\t#='\"`\\\\é]{0,30}",
    ]
}

/// What was written holds, if it was accepted: whether it led to a server.
fn look(environment: &Environment) -> Result<bool, TestCaseError> {
    let written = |name: &str| environment.get(name).map(|(value, _)| value.trim());
    let config = match Config::from_environment(environment) {
        Ok(config) => config,
        Err(error) => {
            if is_secret(environment) {
                assert_hides(&error);
            }
            return Ok(false);
        }
    };
    let shown = format!("{config:?} {} {:?}", config.describe(), config.warnings());
    prop_assert!(
        !shown.contains(CANARY) || !is_secret(environment),
        "{}",
        shown
    );
    let Target::Postgres(server) = &config.target else {
        return Ok(false);
    };
    let mode = server.tls.mode;
    if let Some(url) = written("DATABASE_URL") {
        let after = url.rsplit_once('@').map_or(url, |(_, after)| after);
        let host = after.trim_start_matches('[');
        prop_assert!(host.starts_with(&server.host), "{} of {}", server.host, url);
        if url.contains("sslmode=verify-full") {
            prop_assert_eq!(mode, TlsMode::VerifyFull);
        }
        return Ok(true);
    }
    let host = environment.get("DB_HOST").map(|(host, _)| host);
    let host = match host {
        Some("[::1]") => "::1",
        host => host.unwrap_or("localhost"),
    };
    prop_assert_eq!(server.host.as_str(), host);
    let word = |name| written(name).map(str::to_ascii_lowercase);
    match (word("DB_SSL_MODE").as_deref(), word("DB_SSL").as_deref()) {
        (Some("verify-full"), _) | (None, Some("true" | "1" | "yes" | "on")) => {
            prop_assert_eq!(mode, TlsMode::VerifyFull);
        }
        (Some("require"), _) => prop_assert_eq!(mode, TlsMode::Require),
        (Some("disable"), _) | (None, Some("false" | "0" | "no" | "off")) => {
            prop_assert_eq!(mode, TlsMode::Disable);
        }
        (Some("prefer") | None, None) => prop_assert_eq!(mode, TlsMode::Prefer),
        other => return Err(TestCaseError::fail(format!("accepted: {other:?}"))),
    }
    Ok(true)
}

/// The canary is in a variable that holds a secret, and in no other.
fn is_secret(environment: &Environment) -> bool {
    environment.names().all(|name| {
        let holds = environment
            .get(name)
            .is_some_and(|(value, _)| value.contains(CANARY));
        !holds || ["DB_PASS", "DATABASE_URL"].contains(&name)
    })
}

/// Tries it with many, of which one in a hundred leads to a server at the least.
fn try_all<S: Strategy>(strategy: S, try_one: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    let (tried, server) = (Cell::new(0_u32), Cell::new(0));
    let mut runner = TestRunner::default();
    let done = runner.run(&strategy, |value| {
        tried.set(tried.get() + 1);
        server.set(server.get() + u32::from(try_one(value)?));
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{} tried, {} of them lead to a server",
        tried.get(),
        server.get()
    );
    assert!(server.get() * 100 > tried.get(), "{server:?} of {tried:?}");
}

#[test]
fn any_environment() {
    try_all(prop::collection::vec(setting(), 0..6), |pairs| {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        look(&Environment::from_pairs(pairs))
    });
}

#[test]
fn any_file() {
    let (_folder, path) = crate::file("");
    try_all(prop::collection::vec(line(), 0..6), |lines| {
        std::fs::write(&path, lines.join("\n")).expect("there is room");
        match Environment::from_file(path.as_ref()) {
            Ok(environment) => look(&environment),
            Err(error) => {
                prop_assert!(matches!(error, Error::DotenvMalformed { .. }), "{}", error);
                assert_hides(&error);
                Ok(false)
            }
        }
    });
}
