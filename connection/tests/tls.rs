//! What `DB_SSL`, `DB_SSL_MODE` and the certificate files mean together.

use connection::{Config, Source, TlsMode};

use crate::{accepted, file, postgres, problem, problems, setting};

const PEM: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

fn with<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [("DB_TYPE", "postgres")]
        .into_iter()
        .chain(pairs.iter().copied())
        .collect()
}

fn mode(config: &Config) -> TlsMode {
    postgres(config).tls.mode
}

#[test]
fn ssl_and_ssl_mode_agree_or_are_refused() {
    let modes = [
        None,
        Some("disable"),
        Some("prefer"),
        Some("require"),
        Some("verify-full"),
    ];
    // What each column of `modes` gives; None is a contradiction.
    let table = [
        (
            None,
            [
                Some("prefer"),
                Some("disable"),
                Some("prefer"),
                Some("require"),
                Some("verify-full"),
            ],
        ),
        (
            Some("true"),
            [Some("verify-full"), None, None, None, Some("verify-full")],
        ),
        (
            Some("false"),
            [Some("disable"), Some("disable"), None, None, None],
        ),
    ];
    for (ssl, row) in table {
        for (ssl_mode, expected) in modes.iter().zip(row) {
            let pairs: Vec<_> = [("DB_SSL", ssl), ("DB_SSL_MODE", *ssl_mode)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            if let Some(expected) = expected {
                let config = accepted(&with(&pairs));
                assert_eq!(mode(&config).name(), expected, "{pairs:?}");
                assert_eq!(
                    setting(&config, "DB_SSL_MODE").0,
                    expected,
                    "the report of {pairs:?}"
                );
            } else {
                let problem = problem(&with(&pairs));
                assert_eq!(problem.variable, "DB_SSL_MODE", "{pairs:?}");
                assert!(
                    problem.expected.contains("contradicts DB_SSL="),
                    "{problem}"
                );
            }
        }
    }
}

#[test]
fn the_report_says_what_the_mode_follows_from() {
    let config = accepted(&with(&[("DB_SSL", "true")]));
    assert_eq!(
        setting(&config, "DB_SSL_MODE"),
        ("verify-full", &Source::Environment)
    );
    let config = accepted(&with(&[]));
    assert_eq!(
        setting(&config, "DB_SSL_MODE"),
        ("prefer", &Source::Default)
    );
}

#[test]
fn modes_that_promise_more_than_they_hold_are_refused() {
    for value in ["verify-ca", "allow", "VERIFY-CA"] {
        let problem = problem(&with(&[("DB_SSL_MODE", value)]));
        assert_eq!(problem.value.as_deref(), Some(value));
        assert_eq!(problem.suggestion.as_deref(), Some("verify-full"));
    }
    let problem = problem(&with(&[("DB_SSL_MODE", "verify_full")]));
    assert_eq!(problem.suggestion.as_deref(), Some("verify-full"));
}

#[test]
fn require_warns_that_nothing_is_verified() {
    let config = accepted(&with(&[("DB_SSL_MODE", "require")]));
    assert!(
        config.warnings()[0].contains("DB_SSL_MODE=require encrypts but verifies nothing"),
        "{:?}",
        config.warnings()
    );
    for value in ["disable", "prefer", "verify-full"] {
        let config = accepted(&with(&[("DB_SSL_MODE", value)]));
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }
}

#[test]
fn an_authority_means_verify_full_and_nothing_less() {
    let (_folder, ca) = file(PEM);
    for more in [
        &[][..],
        &[("DB_SSL", "true")],
        &[("DB_SSL_MODE", "verify-full")],
    ] {
        let pairs: Vec<_> = more
            .iter()
            .copied()
            .chain([("DB_SSL_CA", ca.as_str())])
            .collect();
        let config = accepted(&with(&pairs));
        assert_eq!(mode(&config), TlsMode::VerifyFull, "{more:?}");
        assert_eq!(postgres(&config).tls.ca.as_deref(), Some(ca.as_ref()));
        assert_eq!(setting(&config, "DB_SSL_MODE").0, "verify-full", "{more:?}");
    }
    for less in [
        ("DB_SSL", "false"),
        ("DB_SSL_MODE", "disable"),
        ("DB_SSL_MODE", "prefer"),
        ("DB_SSL_MODE", "require"),
    ] {
        let problem = problem(&with(&[less, ("DB_SSL_CA", &ca)]));
        assert_eq!(problem.variable, "DB_SSL_CA", "{less:?}");
        assert!(
            problem.expected.contains("nothing is verified"),
            "{problem}"
        );
    }
}

#[test]
fn a_client_certificate_needs_both_its_halves() {
    let (_folder, pem) = file(PEM);
    let config = accepted(&with(&[("DB_SSL_CERT", &pem), ("DB_SSL_KEY", &pem)]));
    assert_eq!(
        postgres(&config).tls.client,
        Some((pem.clone().into(), pem.clone().into()))
    );
    for (half, other) in [("DB_SSL_CERT", "DB_SSL_KEY"), ("DB_SSL_KEY", "DB_SSL_CERT")] {
        let problem = problem(&with(&[(half, &pem)]));
        assert_eq!(problem.variable, half);
        assert!(problem.expected.contains(other), "{problem}");
    }
}

#[test]
fn a_certificate_file_that_is_none_is_refused() {
    let (folder, text) = file("not a certificate\n");
    let folder = folder.path().to_str().expect("a path in UTF-8");
    let missing = format!("{folder}/missing.pem");
    for (path, why) in [
        (folder, "cannot be read"),
        (&missing, "cannot be read"),
        (&text, "not a PEM file"),
    ] {
        let problem = problem(&with(&[("DB_SSL_CA", path)]));
        assert_eq!(
            (problem.variable.as_str(), problem.value.as_deref()),
            ("DB_SSL_CA", Some(path))
        );
        assert!(problem.expected.contains(why), "{problem}");
        let both = problems(&with(&[("DB_SSL_CERT", path), ("DB_SSL_KEY", path)]));
        assert_eq!(both.len(), 2, "{both:?}");
    }
}

#[test]
fn sqlite_does_not_look_at_certificates() {
    accepted(&[("DB_SSL", "true"), ("DB_SSL_CA", "/nowhere/ca.crt")]);
}
