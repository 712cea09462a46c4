//! Values that no setting has: line breaks of secrets in files, quotes of an
//! `--env-file`, what only a shell expands, and what Kubernetes sets.

use std::path::Path;

use connection::{Config, Environment, VARIABLES};
use secrecy::ExposeSecret;

use crate::{accepted, file, postgres, problem, problems};

/// Each variable with a value, in one environment that is accepted.
fn all(pem: &str, password: &str) -> Vec<(&'static str, String)> {
    let value = |name: &str| match name {
        "DB_TYPE" => "postgres",
        "DB_PATH" => "x.db",
        "DB_HOST" => "db.example.org",
        "DB_PORT" => "6543",
        "DB_USER" => "ada",
        "DB_NAME" => "flows",
        "DB_SSL_MODE" => "verify-full",
        "DB_SSL_CA" | "DB_SSL_CERT" | "DB_SSL_KEY" => pem,
        "DB_PASS_FILE" => password,
        "DB_SCHEMA" => "app",
        "DB_APPLICATION_NAME" => "worker",
        "AURA_ENV" => "production",
        "DB_SSL" | "DB_PREPARED_STATEMENTS" | "DB_LOGGING" | "DB_SYNCHRONIZE" => "true",
        "DB_PASS" | "DATABASE_URL" => "",
        name if name.starts_with("SEED_") => "a password",
        _ => "7",
    };
    let values = VARIABLES.iter().map(|one| (one.name, value(one.name)));
    values
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

fn read(pairs: &[(&'static str, String)], ending: &str) -> (Config, Environment) {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (*name, format!("{value}{ending}")))
        .collect();
    let pairs = pairs.iter().map(|(name, value)| (*name, value.as_str()));
    let environment = Environment::from_pairs(pairs);
    let config = Config::from_environment(&environment);
    (
        config.unwrap_or_else(|error| panic!("{ending:?}: {error}")),
        environment,
    )
}

#[test]
fn a_line_break_at_the_end_belongs_to_no_setting() {
    let (_folder, pem) = file("-----BEGIN CERTIFICATE-----\n");
    let (_folder, password) = file("secret\n\r\n");
    let server = all(&pem, &password);
    let only = |name, value: &str| vec![(name, value.to_owned())];
    let url = "postgres://ada:secret@db/flows?sslmode=verify-full";
    for pairs in [
        server,
        only("DB_PATH", "x.db"),
        only("DB_PATH", ":memory:"),
        only("DATABASE_URL", "sqlite:x.db"),
        only("DATABASE_URL", "sqlite::memory:"),
        only("DATABASE_URL", url),
    ] {
        let (expected, _) = read(&pairs, "");
        for ending in ["\n", "\r\n", "\n\n"] {
            let (config, environment) = read(&pairs, ending);
            assert_eq!(format!("{config:?}"), format!("{expected:?}"), "{ending:?}");
            for (name, value) in &pairs {
                let found = environment.get(name).map(|(value, _)| value);
                assert_eq!(found.unwrap_or_default(), value, "{name} {ending:?}");
            }
        }
    }
    let config = accepted(&[("DB_TYPE", "postgres"), ("DB_PASS", "secret\n")]);
    let found = postgres(&config)
        .password
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(found, Some("secret"));
}

#[test]
fn a_control_character_is_refused_once_and_shown_escaped() {
    let (_folder, pem) = file("-----BEGIN CERTIFICATE-----\n");
    for variable in VARIABLES {
        let value = "a\nb\u{1b}[2Jc";
        let postgres = ("DB_TYPE", "postgres");
        let found = match variable.name {
            "DB_TYPE" | "DB_PATH" | "DATABASE_URL" => problem(&[(variable.name, value)]),
            "DB_SSL_CERT" => problem(&[postgres, ("DB_SSL_CERT", value), ("DB_SSL_KEY", &pem)]),
            "DB_SSL_KEY" => problem(&[postgres, ("DB_SSL_CERT", &pem), ("DB_SSL_KEY", value)]),
            name => problem(&[postgres, (name, value)]),
        };
        assert_eq!(found.variable, variable.name);
        assert!(found.expected.contains("control character"), "{found}");
        assert!(!found.to_string().contains(char::is_control), "{found:?}");
        let shown = if variable.secret {
            "***"
        } else {
            r"a\nb\u{1b}[2Jc"
        };
        // It may be the password itself.
        let shown = if variable.name == "DB_PASS_FILE" {
            "***"
        } else {
            shown
        };
        assert_eq!(found.value.as_deref(), Some(shown));
    }
    // It has no effect on SQLite.
    let config = accepted(&[("DB_HOST", "a\nb"), ("DB_TYPE", "sqlite")]);
    let [warning] = config.warnings() else {
        panic!("{:?}", config.warnings())
    };
    assert!(
        warning.contains("it has no effect") && !warning.contains('\n'),
        "{warning}"
    );
}

#[test]
fn quotes_of_an_env_file_are_refused() {
    for (name, value) in [
        ("DB_PATH", "\"data/x.db\""),
        ("DB_PATH", "'x.db'"),
        ("DB_TYPE", "\"sqlite\""),
        ("DB_HOST", "\"localhost\""),
        ("DB_PORT", "'5432'"),
        ("DB_NAME", "`aura`"),
        ("DB_SCHEMA", "\"public\""),
        ("DB_LOGGING", "\"true\""),
        ("DATABASE_URL", "\"sqlite:x.db\""),
    ] {
        let pairs = [("DB_TYPE", "postgres"), (name, value)];
        let pairs = match name {
            "DB_HOST" | "DB_PORT" | "DB_NAME" | "DB_SCHEMA" => &pairs[..],
            _ => &pairs[1..],
        };
        let problem = problem(pairs);
        assert_eq!(problem.variable, name);
        assert!(problem.expected.contains("is in quotes"), "{problem}");
    }
    // They may be a part of a password.
    for name in ["DB_PASS", "SEED_ADMIN_PASSWORD"] {
        let config = accepted(&[("DB_TYPE", "postgres"), (name, "\"c4nary-p4ssword\"")]);
        let [warning] = config.warnings() else {
            panic!("{name}: {:?}", config.warnings())
        };
        assert!(
            warning.starts_with(&format!("{name} is in quotes")),
            "{warning}"
        );
        assert!(!warning.contains(crate::CANARY), "{warning}");
    }
    accepted(&[("DB_PATH", "\"")]);
    // In a `.env` file quotes inside of quotes are meant.
    let (_folder, path) = file("DB_PATH='\"x.db\"'\n");
    let environment = Environment::from_file(Path::new(&path)).expect("a good file");
    let config = Config::from_environment(&environment).expect("good settings");
    assert_eq!(config.target_name(), "SQLite \"x.db\"");
}

#[test]
fn what_only_a_shell_expands_is_refused() {
    for (name, value, found) in [
        ("DB_PATH", "$HOME/x.db", "$HOME"),
        ("DB_PATH", "data/${NAME}.db", "${NAME}"),
        ("DB_PATH", "~", "~"),
        ("DB_PATH", "~ada/x.db", "~ada"),
        ("DB_PATH", "%APPDATA%/x.db", "%APPDATA%"),
        ("DATABASE_URL", "sqlite:$HOME/x.db", "$HOME"),
        ("DATABASE_URL", "sqlite://~/x.db", "~"),
        ("DATABASE_URL", "postgres://a:b@$HOST/x", "its host"),
        ("DATABASE_URL", "postgres://$USER:b@db/x", "its user"),
        ("DATABASE_URL", "postgres://a:b@db/${NAME}", "its database"),
        ("DB_HOST", "$HOST", "$HOST"),
        ("DB_USER", "$USER", "$USER"),
        ("DB_NAME", "app_$(stage)", "$(stage)"),
        ("DB_PORT", "$PORT", "$PORT"),
        ("DB_PASS_FILE", "$PASSWORD", "a variable"),
        ("DB_SSL_CA", "~/ca.crt", "~"),
    ] {
        let postgres = ("DB_TYPE", "postgres");
        let problem = match name {
            "DB_PATH" | "DATABASE_URL" => problem(&[(name, value)]),
            name => problem(&[postgres, (name, value)]),
        };
        assert_eq!(problem.variable, name, "{value}");
        let told = &problem.expected;
        assert!(
            told.contains("only a shell expands") && told.contains(found),
            "{problem}"
        );
    }
    // Names of PostgreSQL, and files.
    let config = accepted(&[("DB_TYPE", "postgres"), ("DB_NAME", "app$prod")]);
    assert_eq!(postgres(&config).database, "app$prod");
    for path in ["x.db~", "~x.db", "c$/x.db", "100%.db"] {
        accepted(&[("DB_PATH", path)]);
    }
    // A password may look like one.
    for (name, value) in [
        ("DB_PASS", "$c4nary"),
        ("DB_PASS", "${c4nary}"),
        ("DATABASE_URL", "postgres://a:$c4nary@db/x"),
    ] {
        let pairs = [("DB_TYPE", "postgres"), (name, value)];
        let config = accepted(if name == "DB_PASS" {
            &pairs
        } else {
            &pairs[1..]
        });
        let [warning] = config.warnings() else {
            panic!("{name}: {:?}", config.warnings())
        };
        assert!(
            warning.contains("wasn't expanded") && warning.contains(name),
            "{warning}"
        );
        assert!(!warning.contains("c4nary"), "{warning}");
    }
}

#[test]
fn a_blank_at_an_end_of_a_path_or_a_host_is_refused() {
    for (name, value) in [
        ("DB_PATH", " x.db"),
        ("DB_PATH", "x.db "),
        ("DB_HOST", " db "),
    ] {
        let postgres = ("DB_TYPE", "postgres");
        let problem = match name {
            "DB_PATH" => problem(&[(name, value)]),
            name => problem(&[postgres, (name, value)]),
        };
        assert_eq!(problem.variable, name);
        assert!(problem.expected.contains("a blank"), "{problem}");
    }
}

/// What Kubernetes sets in every Pod for a Service named `db`.
const SERVICE: [(&str, &str); 7] = [
    ("DB_PORT", "tcp://10.0.0.1:5432"),
    ("DB_SERVICE_HOST", "10.0.0.1"),
    ("DB_SERVICE_PORT", "5432"),
    ("DB_PORT_5432_TCP", "tcp://10.0.0.1:5432"),
    ("DB_PORT_5432_TCP_PROTO", "tcp"),
    ("DB_PORT_5432_TCP_PORT", "5432"),
    ("DB_PORT_5432_TCP_ADDR", "10.0.0.1"),
];

#[test]
fn the_variables_of_a_service_are_one_problem() {
    let postgres = [("DB_TYPE", "postgres"), ("DB_HOST", "db")];
    let problem = problem(&[&postgres[..], &SERVICE].concat());
    assert_eq!(problem.variable, "DB_PORT");
    for word in ["Kubernetes", "set DB_PORT", "enableServiceLinks"] {
        assert!(problem.expected.contains(word), "{problem}");
    }
    let config = accepted(&SERVICE);
    let [warning] = config.warnings() else {
        panic!("{:?}", config.warnings())
    };
    assert!(warning.contains("Kubernetes"), "{warning}");

    // A Pod that sets DB_PORT hides that of the Service.
    let others: Vec<_> = SERVICE[1..]
        .iter()
        .copied()
        .chain([
            ("DB_SERVICE_PORT_POSTGRES", "5432"),
            ("DB_REPLICA_PORT", "tcp://10.0.0.2:5432"),
            ("DB_REPLICA_SERVICE_HOST", "10.0.0.2"),
            ("DB_REPLICA_PORT_5432_UDP_ADDR", "10.0.0.2"),
        ])
        .collect();
    let config = accepted(&[&postgres[..], &[("DB_PORT", "6432")], &others].concat());
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());

    // A misspelt name is one all the same.
    let pairs = [&postgres[..], &SERVICE, &[("DB_REPLICA_PORT", "5432")]].concat();
    let found = problems(&pairs);
    assert_eq!(found.len(), 2, "{found:?}");
}
