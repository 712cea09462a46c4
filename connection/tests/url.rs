//! `DATABASE_URL`, which stands for all the connection variables or for none.

use connection::{Config, Source, Target, Tls, TlsMode, VARIABLES};
use secrecy::ExposeSecret;

use crate::{CANARY, accepted, assert_hides, file, postgres, problem, problems, read, setting};

#[test]
fn a_postgres_url_gives_every_part() {
    let config = accepted(&[(
        "DATABASE_URL",
        "postgresql://a%40da:p%40ss%2F%23%25%20w@db.internal:6543/fl%20ows?sslmode=require",
    )]);
    let parts = postgres(&config);
    assert_eq!((parts.host.as_str(), parts.port), ("db.internal", 6543));
    assert_eq!(
        (parts.user.as_str(), parts.database.as_str()),
        ("a@da", "fl ows")
    );
    let password = parts.password.as_ref().map(ExposeSecret::expose_secret);
    assert_eq!(password, Some("p@ss/#% w"));
    assert_eq!(parts.tls.mode, TlsMode::Require);
    assert_eq!(
        setting(&config, "DATABASE_URL"),
        ("***", &Source::Environment)
    );
    assert_eq!(setting(&config, "DB_HOST"), ("db.internal", &Source::Url));

    let config = accepted(&[("DATABASE_URL", "postgres://aura@[::1]/aura")]);
    assert_eq!(
        (postgres(&config).host.as_str(), postgres(&config).port),
        ("::1", 5432)
    );
    assert!(postgres(&config).password.is_none());
    assert_eq!(config.target_name(), "PostgreSQL aura@[::1]:5432/aura");
}

/// Whichever came last would have won.
#[test]
fn a_parameter_that_is_there_twice_is_refused() {
    let url = "postgres://ada@db/aura?sslmode=verify-full&sslmode=disable";
    let problem = problem(&[("DATABASE_URL", url)]);
    assert!(problem.to_string().contains("twice"), "{problem}");
}

#[test]
fn a_sqlite_url_names_a_file_or_memory() {
    for (url, path) in [
        ("sqlite://./data/x.db", "./data/x.db"),
        ("sqlite:x.db", "x.db"),
        ("sqlite:///var/lib/x.db", "/var/lib/x.db"),
        ("sqlite://x.db?mode=rwc", "x.db"),
        ("sqlite:a%20b.db", "a b.db"),
    ] {
        match accepted(&[("DATABASE_URL", url)]).target {
            Target::Sqlite { path: found } => assert_eq!(found.to_str(), Some(path), "{url}"),
            other => panic!("{url}: {other:?}"),
        }
    }
    for url in ["sqlite::memory:", "sqlite://:memory:"] {
        assert!(
            matches!(accepted(&[("DATABASE_URL", url)]).target, Target::Memory),
            "{url}"
        );
    }
}

#[test]
fn every_sslmode_is_understood_or_refused() {
    let with = |query: &str| format!("postgres://aura@localhost/aura{query}");
    for (query, mode) in [
        ("", TlsMode::Prefer),
        ("?sslmode=disable", TlsMode::Disable),
        ("?sslmode=prefer", TlsMode::Prefer),
        ("?sslmode=require", TlsMode::Require),
        ("?sslmode=verify-full", TlsMode::VerifyFull),
    ] {
        let config = accepted(&[("DATABASE_URL", &with(query))]);
        assert_eq!(postgres(&config).tls.mode, mode, "{query}");
        assert_eq!(setting(&config, "DB_SSL_MODE"), (mode.name(), &Source::Url));
        let warned = config
            .warnings()
            .iter()
            .any(|warning| warning.contains("sslmode=require"));
        assert_eq!(warned, mode == TlsMode::Require, "{:?}", config.warnings());
    }
    for query in [
        "?sslmode=verify-ca",
        "?sslmode=allow",
        "?sslmode=",
        "?sslmode=on",
        "?sslcert_file=x",
    ] {
        let problem = problem(&[("DATABASE_URL", &with(query))]);
        assert_eq!(problem.variable, "DATABASE_URL", "{query}");
        assert!(problem.expected.contains("none of"), "{query}: {problem}");
    }
}

#[test]
fn a_parameter_of_another_driver_says_what_to_set() {
    for (parameter, set) in [
        ("schema", "set DB_SCHEMA"),
        ("currentSchema", "set DB_SCHEMA"),
        ("search_path", "set DB_SCHEMA"),
        ("options", "ALTER ROLE"),
        ("channel_binding", "verify-full"),
        ("ssl", "sslmode=verify-full"),
        ("application_name", "set DB_APPLICATION_NAME"),
        ("connect_timeout", "set DB_POOL_CONNECTION_TIMEOUT"),
        ("statement_timeout", "set DB_STATEMENT_TIMEOUT"),
        ("connection_limit", "set DB_POOL_MAX"),
        ("pgbouncer", "DB_PREPARED_STATEMENTS=false"),
        ("host", "before the `?`"),
        ("target_session_attrs", "takes writes"),
        ("gssencmode", "leave it out"),
    ] {
        let url = format!("postgres://aura@localhost/aura?{parameter}={CANARY}");
        let problem = problem(&[("DATABASE_URL", &url)]);
        assert!(
            problem
                .expected
                .starts_with(&format!("has the parameter {parameter}; "))
                && problem.expected.contains(set),
            "{problem}"
        );
        assert_hides(&read(&[("DATABASE_URL", &url)]).expect_err(parameter));
    }
    let misspelt = "postgres://aura@localhost/aura?sslmod=require";
    let problem = problem(&[("DATABASE_URL", misspelt)]);
    assert!(
        problem.expected.ends_with("did you mean sslmode?"),
        "{problem}"
    );
}

#[test]
fn certificates_in_a_url_follow_the_same_rules() {
    let (_folder, pem) = file("-----BEGIN CERTIFICATE-----\n");
    let with = |query: String| format!("postgres://aura@localhost/aura?{query}");
    let config = accepted(&[("DATABASE_URL", &with(format!("sslrootcert={pem}")))]);
    assert_eq!(postgres(&config).tls.mode, TlsMode::VerifyFull);
    accepted(&[("DATABASE_URL", &with(format!("sslcert={pem}&sslkey={pem}")))]);
    for (query, part) in [
        (format!("sslmode=require&sslrootcert={pem}"), "sslrootcert"),
        (format!("sslcert={pem}"), "sslkey"),
        (format!("sslkey={pem}"), "sslcert"),
        ("sslrootcert=/nowhere/ca.crt".to_owned(), "sslrootcert"),
    ] {
        let problem = problem(&[("DATABASE_URL", &with(query))]);
        assert_eq!(problem.variable, "DATABASE_URL");
        assert!(problem.expected.contains(part), "{problem}");
    }
}

#[test]
fn a_url_beside_any_connection_variable_is_refused() {
    let (_folder, pem) = file("-----BEGIN CERTIFICATE-----\n");
    let url = "postgres://aura@localhost/aura";
    let locating = VARIABLES
        .iter()
        .filter(|variable| variable.locates && variable.name != "DATABASE_URL");
    for variable in locating {
        let problem = problem(&[("DATABASE_URL", url), (variable.name, &pem)]);
        assert_eq!(problem.variable, "DATABASE_URL");
        assert_eq!(problem.value.as_deref(), Some("***"));
        assert!(problem.expected.contains(variable.name), "{problem}");
    }
    let config = accepted(&[
        ("DATABASE_URL", url),
        ("DB_SCHEMA", "aura"),
        ("DB_POOL_MAX", "3"),
        ("DB_LOGGING", "on"),
        ("DB_PASS", ""),
    ]);
    assert_eq!(
        (postgres(&config).schema.as_str(), config.pool.max),
        ("aura", 3)
    );
}

#[test]
fn a_url_that_cannot_be_used_says_why_and_shows_nothing_of_itself() {
    for (url, why) in [
        (
            format!("mysql://aura:{CANARY}@localhost/aura"),
            "another kind of database",
        ),
        (
            format!("postgres://aura:{CANARY}@localhost"),
            "names no database",
        ),
        (
            format!("postgres://:{CANARY}@localhost/aura"),
            "names no user",
        ),
        (format!("postgres:///{CANARY}"), "names no host"),
        (format!("postgres://aura:{CANARY}/x@localhost/aura"), "%2F"),
        (
            format!("postgres://aura:{CANARY}@localhost:70000/aura"),
            "is not a URL",
        ),
        (
            format!("postgres://aura:{CANARY}@localhost:0/aura"),
            "port 0",
        ),
        (
            format!("postgres://aura:{CANARY}@localhost/aura/more"),
            "more than a database name",
        ),
        (
            format!("postgres://aura:{CANARY}@localhost/aura#more"),
            "more than a database name",
        ),
        (
            format!("postgres://aura:{CANARY}%ff@localhost/aura"),
            "not UTF-8",
        ),
        (
            format!("postgres://aura%00:{CANARY}@localhost/aura"),
            "control character",
        ),
        (
            format!("postgres://aura@localhost/aura?password={CANARY}"),
            "has the parameter password; write it before the `?`",
        ),
        (
            format!("postgres://aura@localhost/aura?{CANARY}={CANARY}"),
            "none of sslmode",
        ),
        (
            format!("postgres://aura:x%0A{CANARY}@localhost/aura"),
            "control character",
        ),
        (
            format!("sqlite:x.db?key={CANARY}"),
            "not supported for SQLite",
        ),
        ("sqlite:".to_owned(), "names no file"),
        (CANARY.to_owned(), "is not a URL"),
    ] {
        let error = read(&[("DATABASE_URL", &url)]).expect_err(&url);
        assert_hides(&error);
        let problem = problem(&[("DATABASE_URL", &url)]);
        assert_eq!(problem.value.as_deref(), Some("***"), "{url}");
        assert!(problem.expected.contains(why), "{url}: {problem}");
    }
}

#[test]
fn the_other_variables_are_checked_beside_a_url() {
    let found = problems(&[
        ("DATABASE_URL", "mysql://x/y"),
        ("DB_POOL_MAX", "0"),
        ("DB_PREPARED_STATEMENTS", "x"),
    ]);
    assert!(
        found
            .iter()
            .any(|problem| problem.variable == "DB_POOL_MAX"),
        "{found:?}"
    );
    let found = problem(&[
        ("DATABASE_URL", "postgres://a@b/c"),
        ("DB_PREPARED_STATEMENTS", "x"),
    ]);
    assert_eq!(found.variable, "DB_PREPARED_STATEMENTS");
}

#[test]
fn a_url_in_code() {
    let config = Config::from_url("postgres://ada:p%40ss@db.example.org:5433/aura?sslmode=require");
    let config = config.expect("a config").schema("app").max_connections(3);
    let Target::Postgres(postgres) = &config.target else {
        panic!("PostgreSQL");
    };
    assert_eq!(
        (postgres.host.as_str(), postgres.port),
        ("db.example.org", 5433)
    );
    assert_eq!((postgres.schema.as_str(), config.pool.max), ("app", 3));
    assert_eq!(postgres.tls.mode, TlsMode::Require);
    let config = config
        .port(6432)
        .tls(Tls::new(TlsMode::VerifyFull).ca("/ca.pem"));
    let Target::Postgres(postgres) = config.target else {
        panic!("PostgreSQL");
    };
    assert_eq!(
        (postgres.port, postgres.tls.mode),
        (6432, TlsMode::VerifyFull)
    );
    assert_eq!(postgres.tls.ca, Some("/ca.pem".into()));

    let memory = Config::from_url("sqlite::memory:")
        .expect("a config")
        .port(1);
    assert!(matches!(memory.target, Target::Memory));
    let error = Config::from_url("mysql://root:secret@localhost/x").expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("use sqlite: or postgres:"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
