//! Variables to settings: meaning, checks, misspellings, the report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use connection::{Source, Target, TlsMode, VARIABLES};

use crate::{accepted, file, postgres, problem, problems, setting};

fn sqlite_path(config: &connection::Config) -> &Path {
    match &config.target {
        Target::Sqlite { path } => path,
        other => panic!("not a SQLite file: {other:?}"),
    }
}

#[test]
fn nothing_set_is_a_sqlite_file_with_the_documented_defaults() {
    let config = accepted(&[]);
    assert_eq!(sqlite_path(&config), Path::new("./data/aura.db"));
    assert_eq!((config.pool.max, config.pool.min), (10, 0));
    assert_eq!(config.pool.idle_timeout, Some(Duration::from_mins(5)));
    assert_eq!(config.pool.connection_timeout, Duration::from_secs(10));
    assert_eq!(config.statement_timeout, Some(Duration::from_mins(1)));
    assert_eq!(config.slow_query, Some(Duration::from_secs(1)));
    assert_eq!(config.connect_retries, 5);
    assert!(!config.logging && !config.synchronize && !config.production);
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    assert_eq!(config.target_name(), "SQLite ./data/aura.db");
}

#[test]
fn postgres_alone_has_the_old_defaults() {
    for name in ["postgres", "postgresql", "Postgres", " postgres "] {
        let config = accepted(&[("DB_TYPE", name)]);
        let postgres = postgres(&config);
        assert_eq!(postgres.host, "localhost");
        assert_eq!(postgres.port, 5432);
        assert_eq!(postgres.user, "aura");
        assert!(postgres.password.is_none());
        assert_eq!(postgres.database, "aura");
        assert_eq!(postgres.schema, "public");
        assert_eq!(postgres.application_name, "aura-db");
        assert_eq!(postgres.tls.mode, TlsMode::Prefer);
        assert!(postgres.prepared_statements);
        assert_eq!(config.target_name(), "PostgreSQL aura@localhost:5432/aura");
    }
}

#[test]
fn every_name_has_its_meaning() {
    use secrecy::ExposeSecret;
    let config = accepted(&[
        ("DB_TYPE", "postgres"),
        ("DB_PATH", "ignored.db"),
        ("DB_HOST", "db.internal"),
        ("DB_PORT", "6543"),
        ("DB_USER", "ada"),
        ("DB_PASS", "p@ss:w/rd#$ "),
        ("DB_NAME", "flows"),
        ("DB_SSL", "true"),
        ("DB_SYNCHRONIZE", "true"),
        ("DB_LOGGING", "true"),
        ("DB_POOL_MAX", "20"),
        ("DB_POOL_MIN", "2"),
        ("DB_POOL_IDLE_TIMEOUT", "30000"),
        ("DB_POOL_CONNECTION_TIMEOUT", "2000"),
        ("DB_SCHEMA", "aura"),
        ("DB_STATEMENT_TIMEOUT", "0"),
        ("DB_SLOW_QUERY", "250"),
        ("DB_CONNECT_RETRIES", "0"),
        ("DB_APPLICATION_NAME", "worker 7"),
        ("DB_PREPARED_STATEMENTS", "false"),
        ("AURA_ENV", "Production "),
    ]);
    let postgres = postgres(&config);
    assert_eq!(
        (postgres.host.as_str(), postgres.port),
        ("db.internal", 6543)
    );
    assert_eq!(
        (postgres.user.as_str(), postgres.database.as_str()),
        ("ada", "flows")
    );
    let password = postgres.password.as_ref().map(ExposeSecret::expose_secret);
    assert_eq!(password, Some("p@ss:w/rd#$ "));
    assert_eq!(postgres.tls.mode, TlsMode::VerifyFull);
    assert_eq!(postgres.schema, "aura");
    assert_eq!(postgres.application_name, "worker 7");
    assert!(!postgres.prepared_statements);
    assert!(config.synchronize && config.logging && config.production);
    assert_eq!((config.pool.max, config.pool.min), (20, 2));
    assert_eq!(config.pool.idle_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.pool.connection_timeout, Duration::from_secs(2));
    assert_eq!(config.statement_timeout, None);
    assert_eq!(config.slow_query, Some(Duration::from_millis(250)));
    assert_eq!(config.connect_retries, 0);
    let [warning] = config.warnings() else {
        panic!("one warning, not {:?}", config.warnings())
    };
    assert!(warning.contains("ALTER ROLE"), "{warning}");
}

#[test]
fn flags_are_read_as_people_write_them() {
    for (value, expected) in [
        ("true", true),
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        (" true ", true),
        ("false", false),
        ("False", false),
        ("0", false),
        ("no", false),
        ("off", false),
    ] {
        assert_eq!(
            accepted(&[("DB_LOGGING", value)]).logging,
            expected,
            "{value:?}"
        );
    }
}

#[test]
fn a_path_may_be_any_file_or_memory() {
    assert!(matches!(
        accepted(&[("DB_PATH", ":memory:")]).target,
        Target::Memory
    ));
    assert_eq!(
        accepted(&[("DB_PATH", ":memory:")]).target_name(),
        "SQLite :memory:"
    );
    for path in [
        "a b.db",
        "/var/lib/aura/aura.db",
        "../x.sqlite",
        "c:d.db",
        "ünï.db",
    ] {
        assert_eq!(
            sqlite_path(&accepted(&[("DB_PATH", path)])),
            Path::new(path)
        );
    }
}

#[test]
fn every_bad_variable_stands_in_one_error() {
    let bad = [
        ("DB_TYPE", "postgers"),
        ("DB_PORT", "70000"),
        ("DB_POOL_MAX", "0"),
        ("DB_POOL_CONNECTION_TIMEOUT", "10s"),
        ("DB_SSL", "maybe"),
        ("DB_SSL_MODE", "verify-ca"),
        ("DB_LOGGING", "ture"),
        ("DB_CONNECT_RETRIES", "-1"),
        ("DB_PASS_FILE", "/nowhere/at/all"),
        ("DB_SSL_CA", "/nowhere/ca.crt"),
        ("DB_PATH", "~/aura.db"),
    ];
    let problems = problems(&bad);
    for (name, value) in bad {
        let found: Vec<_> = problems
            .iter()
            .filter(|problem| problem.variable == name)
            .collect();
        assert_eq!(found.len(), 1, "{name}: {problems:?}");
        assert_eq!(found[0].value.as_deref(), Some(value));
    }
    assert_eq!(problems.len(), bad.len(), "{problems:?}");

    let text = crate::read(&bad).expect_err("bad settings").to_string();
    assert!(text.starts_with("11 settings are not usable:"), "{text}");
    assert_eq!(text.lines().count(), 1 + bad.len(), "{text}");
    for expected in [
        "DB_TYPE=postgers: is none of sqlite, postgres, postgresql (did you mean `postgres`?)",
        "DB_PORT=70000: is not a whole number from 1 to 65535",
        "DB_POOL_MAX=0: is not a whole number from 1 to 1000",
        "DB_SSL=maybe: is neither `true` nor `false`",
        "use disable, prefer, require or verify-full (did you mean `verify-full`?)",
        "DB_LOGGING=ture: is neither `true` nor `false` (did you mean `true`?)",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}

#[test]
fn a_misspelt_name_is_told_beside_a_bad_value() {
    let problems = problems(&[("DB_PORTS", "1"), ("DB_POOL_MAX", "0")]);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "DB_POOL_MAX=0: is not a whole number from 1 to 1000 (did you mean `1`?)",
            "DB_PORTS: is not a setting of aura-db and is ignored (did you mean `DB_PORT`?)",
        ]
    );
}

#[test]
fn one_bad_value_names_the_nearest_right_one() {
    for (name, value, right) in [
        ("DB_TYPE", "mysqlite", Some("sqlite")),
        ("DB_TYPE", "postgress", Some("postgres")),
        ("DB_TYPE", "mongodb", None),
        ("DB_LOGGING", "flase", Some("false")),
        ("DB_POOL_MAX", "ten", Some("10")),
        ("DB_POOL_MAX", "1001", Some("1000")),
        ("DB_POOL_MAX", "0", Some("1")),
        ("DB_POOL_MIN", "11", Some("10")),
        ("DB_STATEMENT_TIMEOUT", "1.5", Some("60000")),
    ] {
        let problem = problem(&[(name, value)]);
        assert_eq!(
            (problem.variable.as_str(), problem.value.as_deref()),
            (name, Some(value))
        );
        assert_eq!(problem.suggestion.as_deref(), right, "{name}={value}");
    }
}

#[test]
fn a_minimum_is_compared_only_with_a_maximum_that_somebody_could_mean() {
    let problem = problem(&[("DB_POOL_MAX", "5"), ("DB_POOL_MIN", "6")]);
    assert_eq!(
        problem.to_string(),
        "DB_POOL_MIN=6: is more than DB_POOL_MAX, which is 5 (did you mean `5`?)"
    );
    let problems = problems(&[("DB_POOL_MAX", "0"), ("DB_POOL_MIN", "20")]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    accepted(&[("DB_POOL_MAX", "5"), ("DB_POOL_MIN", "5")]);
}

#[test]
fn a_url_or_a_home_folder_at_the_wrong_place_is_refused() {
    for (name, value) in [
        ("DB_PATH", "~/aura.db"),
        ("DB_PATH", "file:aura.db"),
        ("DB_PATH", "sqlite://./data/aura.db"),
        ("DB_PATH", "postgres://localhost/aura"),
    ] {
        assert_eq!(problem(&[(name, value)]).variable, name, "{value}");
    }
    for name in ["DB_HOST", "DB_NAME"] {
        let url = "postgres://localhost/aura";
        assert_eq!(
            problem(&[("DB_TYPE", "postgres"), (name, url)]).variable,
            name
        );
    }
}

#[test]
fn misspelt_names_are_warned_about_with_the_right_one() {
    for (wrong, right) in [
        ("DB_PASSWORD", "DB_PASS"),
        ("DB_HOSTNAME", "DB_HOST"),
        ("DB_USERNAME", "DB_USER"),
        ("DB_DATABASE", "DB_NAME"),
        ("DB_URL", "DATABASE_URL"),
        ("DB_TPYE", "DB_TYPE"),
        ("DB_POOL_MAXX", "DB_POOL_MAX"),
        ("DB_STATEMENTS_TIMEOUT", "DB_STATEMENT_TIMEOUT"),
    ] {
        let config = accepted(&[(wrong, crate::CANARY)]);
        let [warning] = config.warnings() else {
            panic!("{wrong}: {:?}", config.warnings())
        };
        assert!(
            warning.contains(wrong) && warning.contains(&format!("did you mean `{right}`?")),
            "{warning}"
        );
        assert!(!warning.contains(crate::CANARY), "{warning}");
    }
    let config = accepted(&[("DB_ZEBRA_CROSSING", "x")]);
    assert!(
        config.warnings()[0].contains("DB_ZEBRA_CROSSING"),
        "{:?}",
        config.warnings()
    );
    let config = accepted(&[("PGHOST", "x"), ("DATABASE", "x"), ("PATH", "x")]);
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
}

#[test]
fn a_host_without_a_type_is_warned_about() {
    let config = accepted(&[("DB_HOST", "db.internal")]);
    assert!(
        config.warnings()[0].contains("DB_TYPE=postgres"),
        "{:?}",
        config.warnings()
    );
    assert!(
        accepted(&[("DB_TYPE", "sqlite"), ("DB_HOST", "x")])
            .warnings()
            .is_empty()
    );
}

#[test]
fn empty_values_count_as_unset() {
    let all: Vec<(&str, &str)> = VARIABLES
        .iter()
        .map(|variable| (variable.name, ""))
        .collect();
    let config = accepted(&all);
    assert_eq!(sqlite_path(&config), Path::new("./data/aura.db"));
    assert!(
        config
            .settings()
            .iter()
            .all(|setting| setting.source == Source::Default)
    );
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
}

#[test]
fn the_report_tells_where_each_setting_came_from() {
    let (_folder, path) = file("DB_PATH=from-file.db\nDB_POOL_MAX=7\n");
    let environment = connection::Environment::from_file(Path::new(&path)).expect("a good file");
    let config = connection::Config::from_environment(&environment).expect("good settings");
    assert_eq!(
        setting(&config, "DB_POOL_MAX"),
        ("7", &Source::File(PathBuf::from(&path)))
    );
    assert_eq!(
        setting(&config, "DB_SLOW_QUERY"),
        ("1000", &Source::Default)
    );

    let report = config.describe();
    assert!(report.starts_with("SQLite from-file.db\n"), "{report}");
    let line = report
        .lines()
        .find(|line| line.contains("DB_POOL_MAX"))
        .expect("a line");
    assert!(line.ends_with(&path), "{report}");
    assert!(
        !report.contains("DB_HOST"),
        "nothing about PostgreSQL: {report}"
    );

    let config = accepted(&[("DB_TYPE", "postgres"), ("DB_NAME", "flows")]);
    assert_eq!(setting(&config, "DB_NAME"), ("flows", &Source::Environment));
    let report = config.describe();
    assert!(
        report.starts_with("PostgreSQL aura@localhost:5432/flows\n"),
        "{report}"
    );
    assert!(
        !report.contains("DB_PATH"),
        "nothing about SQLite: {report}"
    );
}

#[test]
fn another_host_or_aura_env_looks_like_production() {
    let on = |host| accepted(&[("DB_TYPE", "postgres"), ("DB_HOST", host)]);
    for host in [
        "localhost",
        "LocalHost",
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "localhost.",
        "/var/run/postgresql",
    ] {
        assert!(!on(host).looks_like_production(), "{host}");
    }
    for host in [
        "db",
        "db.internal",
        "10.0.0.7",
        "localhost.example.org",
        "192.168.1.1",
        "2001:db8::1",
        "[2001:db8::1]",
        "localhost..",
    ] {
        assert!(on(host).looks_like_production(), "{host}");
    }
    assert_eq!(on("[::1]").target_name(), "PostgreSQL aura@[::1]:5432/aura");
    assert_eq!(postgres(&on("[::1]")).host, "::1");
    assert!(!accepted(&[]).looks_like_production());
    assert!(!accepted(&[("AURA_ENV", "development")]).looks_like_production());
    assert!(accepted(&[("AURA_ENV", "production")]).looks_like_production());
    assert!(accepted(&[("AURA_ENV", "prod")]).looks_like_production());
    assert!(
        accepted(&[("AURA_ENV", "PRODUCTION"), ("DB_PATH", ":memory:")]).looks_like_production()
    );
}

#[test]
fn the_old_cache_is_noticed_and_does_no_harm() {
    let config = accepted(&[("DB_CACHE_ENABLED", "true"), ("DB_CACHE_DURATION", "60000")]);
    let warnings: Vec<_> = config.warnings().iter().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("DB_CACHE_"), "{warnings:?}");
    assert!(
        warnings[0].contains("has no effect: aura-db has no cache"),
        "{warnings:?}"
    );
}

#[test]
fn every_variable_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in [".env.example", "README.md"] {
        let text = std::fs::read_to_string(root.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let words: Vec<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        let missing: Vec<&str> = VARIABLES
            .iter()
            .map(|variable| variable.name)
            .filter(|name| !words.contains(name))
            .collect();
        assert!(missing.is_empty(), "{name} does not mention {missing:?}");
    }
}
