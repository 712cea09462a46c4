//! Passwords: where they are read from, and that they show up nowhere.

use connection::{Config, Environment};
use secrecy::ExposeSecret;

use crate::{CANARY, accepted, assert_hides, file, postgres, problem, problems, read};

fn password(config: &Config) -> Option<&str> {
    postgres(config)
        .password
        .as_ref()
        .map(ExposeSecret::expose_secret)
}

fn assert_config_hides(config: &Config) {
    let text = format!(
        "{config:?}\n{config:#?}\n{}\n{}\n{:?}\n{:?}",
        config.describe(),
        config.target_name(),
        config.settings(),
        config.warnings()
    );
    assert!(!text.contains(CANARY), "a secret is shown: {text}");
}

#[test]
fn a_password_file_loses_its_last_line_breaks_and_nothing_else() {
    for (content, expected) in [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        (" secret \n", " secret "),
        ("secret\n\n", "secret"),
        ("secret\r\n\r\n", "secret"),
        ("sécret $x\"'", "sécret $x\"'"),
    ] {
        let (_folder, path) = file(content);
        let config = accepted(&[("DB_TYPE", "postgres"), ("DB_PASS_FILE", &path)]);
        assert_eq!(password(&config), Some(expected), "{content:?}");
    }
}

#[test]
fn a_password_and_a_password_file_together_are_refused() {
    let (_folder, path) = file(CANARY);
    let pairs = [
        ("DB_TYPE", "postgres"),
        ("DB_PASS", CANARY),
        ("DB_PASS_FILE", path.as_str()),
    ];
    let problem = problem(&pairs);
    assert_eq!(problem.variable, "DB_PASS_FILE");
    assert!(problem.expected.contains("DB_PASS"), "{problem}");
    assert_hides(&read(&pairs).expect_err("both are set"));
    // As Docker Compose passes an unset variable on.
    accepted(&[
        ("DB_TYPE", "postgres"),
        ("DB_PASS", ""),
        ("DB_PASS_FILE", &path),
    ]);
}

#[test]
fn an_unreadable_password_file_is_named() {
    let (folder, binary) = file([0xff, 0xfe, b'x']);
    let folder = folder.path().to_str().expect("a path in UTF-8");
    for path in [folder, binary.as_str(), "/nowhere/at/all"] {
        let problem = problem(&[("DB_TYPE", "postgres"), ("DB_PASS_FILE", path)]);
        assert_eq!(
            (problem.variable.as_str(), problem.value.as_deref()),
            ("DB_PASS_FILE", Some(path))
        );
        assert!(problem.expected.contains("cannot be read"), "{problem}");
    }
}

#[test]
fn a_configuration_shows_no_password() {
    let (_folder, path) = file(CANARY);
    let url = format!("postgres://aura:{CANARY}@localhost/aura");
    for pairs in [
        &[("DB_TYPE", "postgres"), ("DB_PASS", CANARY)][..],
        &[("DB_TYPE", "postgres"), ("DB_PASS_FILE", &path)],
        &[("DATABASE_URL", &url)],
    ] {
        let config = accepted(pairs);
        assert_eq!(password(&config), Some(CANARY));
        assert_config_hides(&config);
    }
    // Set for something else, misspelt, or of no use to SQLite.
    assert_config_hides(&accepted(&[
        ("DB_PASS", CANARY),
        ("DB_PASSWORD", CANARY),
        ("SEED_ADMIN_PASSWORD", CANARY),
        ("SEED_BUILDER_PASSWORD", CANARY),
        ("OTHER_TOKEN", CANARY),
    ]));
}

#[test]
fn a_configuration_made_in_code_shows_no_password() {
    let config = Config::postgres("localhost", "aura", "aura", Some(CANARY.into()));
    assert_eq!(password(&config), Some(CANARY));
    assert_config_hides(&config);
}

#[test]
fn an_environment_shows_no_value_at_all() {
    let environment = Environment::from_pairs([("ANYTHING", CANARY), ("DB_PASS", CANARY)]);
    assert_eq!(
        environment.get("ANYTHING").map(|(value, _)| value),
        Some(CANARY)
    );
    assert!(!format!("{environment:?}{environment:#?}").contains(CANARY));
}

#[test]
fn errors_show_no_password() {
    let url = format!("postgres://aura:{CANARY}@db/aura");
    for pairs in [
        &[
            ("DB_TYPE", "postgers"),
            ("DB_PASS", CANARY),
            ("DB_PORT", "x"),
        ][..],
        &[("DB_TYPE", "postgers"), ("DATABASE_URL", &url)],
        &[("DATABASE_URL", &url), ("DB_PASS", CANARY)],
    ] {
        assert_hides(&read(pairs).expect_err("bad settings"));
    }
}

#[test]
fn a_url_with_a_password_at_the_wrong_place_is_not_shown() {
    let url = format!("postgres://aura:{CANARY}@db/aura");
    let host = format!("aura:{CANARY}@db");
    for pairs in [
        &[("DB_TYPE", url.as_str())][..],
        &[("DB_PATH", &url)],
        &[("DB_PORT", &url), ("DB_TYPE", "postgres")],
        &[("DB_HOST", &url), ("DB_TYPE", "postgres")],
        &[("DB_HOST", &host), ("DB_TYPE", "postgres")],
        &[("DB_NAME", &url), ("DB_TYPE", "postgres")],
        &[("DB_PASS_FILE", &url), ("DB_TYPE", "postgres")],
    ] {
        let found = problems(pairs);
        assert_eq!(found[0].variable, pairs[0].0, "{found:?}");
        assert_hides(&read(pairs).expect_err("a URL at the wrong place"));
    }
}

/// sqlx shows the character that its rules refuse, and tokio-postgres sends the password
/// as it is: a role of such a password was let in by one of them only.
#[tokio::test]
async fn a_password_that_a_driver_does_not_take_is_refused() {
    for (character, escaped) in [
        ("\u{7}", "%07"),
        ("\u{378}", "%CD%B8"),
        ("\u{e000}", "%EE%80%80"),
        ("\u{5d0}", "%D7%90"),
    ] {
        let password = format!("{CANARY}{character}");
        let (_folder, path) = file(&password);
        let url = format!("postgres://aura:{CANARY}{escaped}@db/aura");
        for pairs in [
            &[("DB_TYPE", "postgres"), ("DB_PASS", &password)][..],
            &[("DB_TYPE", "postgres"), ("DB_PASS_FILE", &path)],
            &[("DATABASE_URL", &url)],
        ] {
            let found = problem(pairs);
            assert_eq!(found.variable, pairs[pairs.len() - 1].0);
            assert!(!found.to_string().contains(character), "{found}");
            assert_hides(&read(pairs).expect_err("no such password"));
        }
        let config = Config::postgres("127.0.0.1", "aura", "ada", Some(password.into()));
        for error in [
            connection::connect(&config).await.map(drop),
            connection::Connector::new(&config).map(drop),
        ] {
            let error = error.expect_err("no such password");
            let text = error.to_string();
            assert!(text.contains("the password holds"), "{text}");
            assert!(text.contains("ALTER ROLE \"ada\""), "{text}");
            assert!(!format!("{error:?}").contains(character), "{text}");
            assert_hides(&error);
        }
    }
    // What isn't ASCII is taken, in either form.
    for password in ["é", "e\u{301}", "пароль", "密码", "שלום"] {
        accepted(&[("DB_TYPE", "postgres"), ("DB_PASS", password)]);
    }
}
