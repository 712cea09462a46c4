//! Any environment and any `.env` file: no panic, no secret in what is said, and
//! never a weaker TLS mode or another host than was written. `PROPTEST_CASES`
//! says how many are tried.

use connection::{Config, Environment, Error, Target, TlsMode, VARIABLES};
use proptest::prelude::*;
use proptest::sample::select;

use crate::{CANARY, assert_hides};

const VALUES: &[&str] = &[
    "postgres",
    "sqlite",
    " Postgres ",
    "mysql",
    "true",
    "false",
    "1",
    "0",
    "disable",
    "prefer",
    "require",
    "verify-full",
    "VERIFY-FULL",
    "verify-ca",
    "db.example.org",
    " db.example.org ",
    "::1",
    "/var/run/postgresql",
    "5432",
    "65536",
    "-1",
    "99999999999999999999",
    ":memory:",
    "~/aura.db",
    "/dev/null",
    "/",
    CANARY,
    "postgres://ada:c4nary-p4ssword@db.example.org/aura",
    "postgres://ada:c4nary-p4ssword@db.example.org:6432/aura?sslmode=verify-full",
    "postgres://ada@db.example.org/aura?sslmode=require",
    "postgres://ada:c4nary-p4ssword@[::1]:6432/aura?sslmode=disable",
    "postgres://ada:c4nary@p4ssword@db.example.org/aura?sslmode=verify-full&sslmode=disable",
    "sqlite::memory:",
    "sqlite://./data/aura.db?mode=rwc",
];

fn name() -> impl Strategy<Value = String> {
    let known: Vec<String> = VARIABLES
        .iter()
        .map(|variable| variable.name.to_owned())
        .collect();
    // Those that lead to a server more often, so that some do.
    let leading = [
        "DB_TYPE",
        "DB_HOST",
        "DB_SSL",
        "DB_SSL_MODE",
        "DATABASE_URL",
    ];
    prop_oneof![
        4 => select(leading.map(ToOwned::to_owned).to_vec()),
        4 => select(known),
        1 => "DB_[A-Z_]{1,12}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(VALUES).prop_map(ToOwned::to_owned),
        1 => "[ -~é€\u{0}\n]{0,20}",
    ]
}

/// A line of a `.env` file, more often a good one.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (name(), value(), select(&["", "\"", "'", "`"][..]))
            .prop_map(|(name, value, quote)| format!("{name}={quote}{value}{quote}")),
        1 => "[ -~\t#='\"`\\\\é]{0,30}",
    ]
}

/// What was written holds, if it was accepted.
fn look(environment: &Environment) -> Result<(), TestCaseError> {
    let written = |name: &str| environment.get(name).map(|(value, _)| value.trim());
    let config = match Config::from_environment(environment) {
        Ok(config) => config,
        Err(error) => {
            if is_secret(environment) {
                assert_hides(&error);
            }
            return Ok(());
        }
    };
    let shown = format!("{config:?} {} {:?}", config.describe(), config.warnings());
    prop_assert!(
        !shown.contains(CANARY) || !is_secret(environment),
        "{}",
        shown
    );
    let Target::Postgres(server) = &config.target else {
        return Ok(());
    };
    let mode = server.tls.mode;
    if let Some(url) = written("DATABASE_URL") {
        let after = url.rsplit_once('@').map_or(url, |(_, after)| after);
        let host = after.trim_start_matches('[');
        prop_assert!(host.starts_with(&server.host), "{} of {}", server.host, url);
        if url.contains("sslmode=verify-full") {
            prop_assert_eq!(mode, TlsMode::VerifyFull);
        }
        return Ok(());
    }
    prop_assert_eq!(&server.host, written("DB_HOST").unwrap_or("localhost"));
    let word = written("DB_SSL_MODE").map(str::to_ascii_lowercase);
    match (word.as_deref(), written("DB_SSL")) {
        (Some("verify-full"), _) | (None, Some("true" | "1")) => {
            prop_assert_eq!(mode, TlsMode::VerifyFull);
        }
        (Some("require"), _) => prop_assert_eq!(mode, TlsMode::Require),
        (Some("disable"), _) | (None, Some("false" | "0")) => {
            prop_assert_eq!(mode, TlsMode::Disable);
        }
        (Some("prefer") | None, None) => prop_assert_eq!(mode, TlsMode::Prefer),
        other => return Err(TestCaseError::fail(format!("accepted: {other:?}"))),
    }
    Ok(())
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

proptest! {
    #[test]
    fn any_environment(pairs in prop::collection::vec((name(), value()), 0..8)) {
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        look(&Environment::from_pairs(pairs))?;
    }

    #[test]
    fn any_file(lines in prop::collection::vec(line(), 0..8)) {
        let (_folder, path) = crate::file(lines.join("\n"));
        match Environment::from_file(path.as_ref()) {
            Ok(environment) => look(&environment)?,
            Err(error) => {
                prop_assert!(matches!(error, Error::DotenvMalformed { .. }), "{}", error);
                assert_hides(&error);
            }
        }
    }
}
