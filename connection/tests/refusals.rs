//! Connections to PostgreSQL that must not come about, and what is said then.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use connection::{Config, Connector, Error, connect};
use sea_orm::ConnectionTrait;
use testdb::{Backend, TestDb};

use crate::fake::{
    Fake, closed_port, decline_tls, pass_on, refuse_login, stay_silent, welcome_and_stay_silent,
};
use crate::{CANARY, accepted, assert_helpful, file};

/// The settings of the test server, with these variables instead of theirs.
pub(crate) fn server_with(more: &[(&str, &str)]) -> Config {
    let server = testdb::server();
    let pairs: Vec<_> = server
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain(more.iter().copied())
        .collect();
    accepted(&pairs)
}

pub(crate) fn server_port() -> u16 {
    let server = testdb::server();
    let found = server.iter().find(|(name, _)| *name == "DB_PORT");
    found
        .and_then(|(_, port)| port.parse().ok())
        .expect("the test server's port")
}

/// Registers bodies for each way to open a connection.
macro_rules! by_each {
    ($($body:ident),+ $(,)?) => {
        mod by_pool {
            $(#[tokio::test] async fn $body() { super::$body(super::By::Pool).await; })+
        }
        mod by_connector {
            $(#[tokio::test] async fn $body() { super::$body(super::By::Connector).await; })+
        }
    };
}

by_each!(
    ssl_true_refuses_an_authority_that_did_not_sign,
    ssl_true_refuses_another_host_name,
    a_plain_text_server_gets_no_password_from_who_demands_tls,
    a_wrong_password_is_told_by_the_variable_to_check,
    an_unknown_user_and_an_unknown_database_are_told,
    libpq_variables_fill_no_gap,
    no_server_is_told_with_the_number_of_tries,
    a_missing_unix_socket_is_told,
    a_silent_server_is_given_up,
    a_server_that_does_not_finish_starting_is_given_up_after_the_retries,
    a_refusal_for_good_is_not_tried_again,
    another_kind_of_server_is_told,
    a_client_certificate_that_cannot_be_used_is_told,
    an_authority_that_is_none_is_told,
    an_unknown_schema_is_told_with_the_statement_that_makes_it,
    a_database_in_another_encoding_is_refused,
);

/// Who opens a connection.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// `SeaORM`'s pool.
    Pool,
    /// The connector of the executor.
    Connector,
}

impl By {
    pub(crate) async fn connect(self, config: &Config) -> Result<(), Error> {
        match self {
            Self::Pool => connect(config).await.map(drop),
            Self::Connector => Connector::new(config)?.connect_first().await.map(drop),
        }
    }
}

/// What is said when these settings are refused.
pub(crate) async fn refusal(by: By, more: &[(&str, &str)]) -> Error {
    let config = server_with(more);
    let target = config.target_name();
    let error = by.connect(&config).await.err();
    let error = error.unwrap_or_else(|| panic!("{target} was opened"));
    assert_helpful(&error, &target);
    error
}

#[track_caller]
pub(crate) fn assert_refused(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
}

#[track_caller]
fn assert_unavailable(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
}

async fn ssl_true_refuses_an_authority_that_did_not_sign(by: By) {
    let other = testdb::tls_folder()
        .join("other-ca.crt")
        .display()
        .to_string();
    let error = refusal(by, &[("DB_SSL_CA", &other), ("DB_PASS", CANARY)]).await;
    assert_refused(
        &error,
        &["UnknownIssuer", "DB_SSL_CA", "not signed by an authority"],
    );
    // The system's authorities didn't sign it either.
    let error = refusal(by, &[("DB_SSL_CA", ""), ("DB_PASS", CANARY)]).await;
    assert_refused(&error, &["UnknownIssuer", "DB_SSL_CA"]);
}

async fn ssl_true_refuses_another_host_name(by: By) {
    let port = server_port();
    let elsewhere = Fake::start_on(Ipv4Addr::new(127, 0, 0, 2), move |_, stream| {
        pass_on(&stream, port);
    });
    let (host, port) = (elsewhere.host(), elsewhere.port());
    let error = refusal(
        by,
        &[("DB_HOST", &host), ("DB_PORT", &port), ("DB_PASS", CANARY)],
    )
    .await;
    assert_refused(
        &error,
        &["DB_HOST must be a name that stands in the server's certificate"],
    );
    assert_eq!(
        elsewhere.connections(),
        1,
        "a wrong certificate is not tried again"
    );

    // The same server without verification: the way is open, so TLS refused it.
    let config = server_with(&[
        ("DB_HOST", &host),
        ("DB_PORT", &port),
        ("DB_SSL", ""),
        ("DB_SSL_CA", ""),
        ("DB_SSL_MODE", "require"),
        ("DB_NAME", "postgres"),
    ]);
    by.connect(&config).await.expect("it opens unverified");
}

async fn a_plain_text_server_gets_no_password_from_who_demands_tls(by: By) {
    let port = server_port();
    let plain = Fake::start(move |_, mut stream| {
        decline_tls(&mut stream);
        pass_on(&stream, port);
    });
    let port = plain.port();
    for mode in [
        &[("DB_SSL", "true")][..],
        &[
            ("DB_SSL", ""),
            ("DB_SSL_CA", ""),
            ("DB_SSL_MODE", "require"),
        ],
    ] {
        let error = refusal(
            by,
            &[mode, &[("DB_PORT", &port), ("DB_NAME", "postgres")]].concat(),
        )
        .await;
        assert_refused(&error, &["does not support TLS", "plain text only"]);
    }
    assert_eq!(plain.connections(), 2, "it is not tried again");
}

async fn a_wrong_password_is_told_by_the_variable_to_check(by: By) {
    let error = refusal(by, &[("DB_PASS", CANARY), ("DB_NAME", "postgres")]).await;
    assert_refused(&error, &["password authentication failed", "DB_PASS"]);
    assert!(
        std::error::Error::source(&error).is_some(),
        "the driver's own error"
    );
}

async fn an_unknown_user_and_an_unknown_database_are_told(by: By) {
    let error = refusal(by, &[("DB_USER", "nobody_here"), ("DB_PASS", CANARY)]).await;
    assert_refused(&error, &["nobody_here", "DB_USER"]);
    let error = refusal(by, &[("DB_NAME", "aura_nowhere")]).await;
    assert_refused(&error, &["\"aura_nowhere\" does not exist", "createdb"]);
}

/// `pg_virtualenv` runs the tests with PGUSER, PGPASSWORD, PGHOST and PGPORT
/// that lead to the server.
async fn libpq_variables_fill_no_gap(by: By) {
    let error = refusal(by, &[("DB_PASS", ""), ("DB_NAME", "postgres")]).await;
    assert_refused(&error, &["password"]);
    let error = refusal(by, &[("DB_USER", ""), ("DB_NAME", "postgres")]).await;
    assert_refused(&error, &["PostgreSQL aura@localhost", "\"aura\""]);
}

async fn no_server_is_told_with_the_number_of_tries(by: By) {
    let (host, port) = closed_port();
    let error = refusal(
        by,
        &[
            ("DB_HOST", &host),
            ("DB_PORT", &port),
            ("DB_PASS", CANARY),
            ("DB_CONNECT_RETRIES", "1"),
        ],
    )
    .await;
    assert_unavailable(
        &error,
        &["refused", "Is the server running?", "Tried 2 times"],
    );
    let error = refusal(
        by,
        &[
            ("DB_HOST", &host),
            ("DB_PORT", &port),
            ("DB_CONNECT_RETRIES", "0"),
        ],
    )
    .await;
    assert_unavailable(&error, &["Is the server running?"]);
}

async fn a_missing_unix_socket_is_told(by: By) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let host = folder.path().display().to_string();
    let error = refusal(by, &[("DB_HOST", &host), ("DB_CONNECT_RETRIES", "0")]).await;
    assert_unavailable(&error, &["Is the server running?"]);
}

async fn a_silent_server_is_given_up(by: By) {
    let silent = Fake::start(|_, stream| stay_silent(stream));
    let mute_after_login = Fake::start(|_, stream| welcome_and_stay_silent(stream));
    for (fake, ssl) in [
        (&silent, "true"),
        (&silent, "false"),
        (&mute_after_login, "false"),
    ] {
        let port = fake.port();
        let ca = if ssl == "true" {
            testdb::tls_folder().join("ca.crt").display().to_string()
        } else {
            String::new()
        };
        let started = Instant::now();
        let error = refusal(
            by,
            &[
                ("DB_PORT", &port),
                ("DB_PASS", CANARY),
                ("DB_SSL", ssl),
                ("DB_SSL_CA", &ca),
                ("DB_POOL_CONNECTION_TIMEOUT", "300"),
            ],
        )
        .await;
        assert_unavailable(
            &error,
            &["no answer within 300 ms", "DB_POOL_CONNECTION_TIMEOUT"],
        );
        let waited = started.elapsed();
        assert!(
            waited >= Duration::from_millis(300) && waited < Duration::from_secs(10),
            "{waited:?}"
        );
    }
}

async fn a_server_that_does_not_finish_starting_is_given_up_after_the_retries(by: By) {
    for sqlstate in ["57P03", "53300", "57P01"] {
        let starting = Fake::start(move |_, stream| refuse_login(stream, sqlstate, "not just now"));
        let port = starting.port();
        let error = refusal(
            by,
            &[
                ("DB_PORT", &port),
                ("DB_PASS", CANARY),
                ("DB_SSL", "false"),
                ("DB_SSL_CA", ""),
                ("DB_CONNECT_RETRIES", "2"),
            ],
        )
        .await;
        assert_unavailable(&error, &["not just now", "try again"]);
        // Three are asked for. Before them the pool tries in the first half
        // second: at once, and after 10, 30, 70, 150 and 310 ms.
        let tries = starting.connections();
        let expected = match by {
            By::Pool => 4..=9,
            By::Connector => 3..=3,
        };
        assert!(expected.contains(&tries), "{sqlstate}: {tries}");
    }
}

async fn a_refusal_for_good_is_not_tried_again(by: By) {
    for sqlstate in ["28P01", "28000", "3D000", "42501", "0A000"] {
        let refusing = Fake::start(move |_, stream| refuse_login(stream, sqlstate, "never"));
        let port = refusing.port();
        let error = refusal(
            by,
            &[
                ("DB_PORT", &port),
                ("DB_PASS", CANARY),
                ("DB_SSL", "false"),
                ("DB_SSL_CA", ""),
            ],
        )
        .await;
        assert_refused(&error, &["never"]);
        assert_eq!(refusing.connections(), 1, "{sqlstate}");
    }
}

async fn another_kind_of_server_is_told(by: By) {
    let http = Fake::start(|_, mut stream| {
        use std::io::Write as _;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        stay_silent(stream);
    });
    let port = http.port();
    let error = refusal(by, &[("DB_PORT", &port), ("DB_PASS", CANARY)]).await;
    assert_refused(&error, &["DB_HOST and DB_PORT"]);
}

async fn a_client_certificate_that_cannot_be_used_is_told(by: By) {
    let of = |name| testdb::tls_folder().join(name).display().to_string();
    let (certificate, other_key) = (of("ca.crt"), of("other-ca.key"));
    for key in [&certificate, &other_key] {
        let error = refusal(
            by,
            &[
                ("DB_SSL_CERT", &certificate),
                ("DB_SSL_KEY", key),
                ("DB_PASS", CANARY),
            ],
        )
        .await;
        assert_refused(&error, &["DB_SSL_KEY"]);
    }
}

async fn an_authority_that_is_none_is_told(by: By) {
    let (_folder, ca) = file("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n");
    let error = refusal(by, &[("DB_SSL_CA", &ca), ("DB_PASS", CANARY)]).await;
    assert_refused(&error, &[&ca, "DB_SSL_CA"]);
}

async fn an_unknown_schema_is_told_with_the_statement_that_makes_it(by: By) {
    let error = refusal(
        by,
        &[("DB_SCHEMA", "no such schema"), ("DB_NAME", "postgres")],
    )
    .await;
    assert_refused(
        &error,
        &[
            "there is no schema no such schema",
            "CREATE SCHEMA \"no such schema\"",
        ],
    );
    let error = refusal(
        by,
        &[
            ("DB_SCHEMA", "aura"),
            ("DB_NAME", "postgres"),
            ("DB_PREPARED_STATEMENTS", "false"),
        ],
    )
    .await;
    assert_refused(
        &error,
        &["the session's schema is public, not aura", "ALTER ROLE"],
    );
}

async fn a_database_in_another_encoding_is_refused(by: By) {
    let db = TestDb::empty(Backend::Postgres).await;
    let outside = db.outside().await;
    let variables = db.variables();
    let (_, name) = variables
        .iter()
        .find(|(name, _)| *name == "DB_NAME")
        .expect("a name");
    let ascii = format!("{name}_ascii");
    let sql = format!("CREATE DATABASE {ascii} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    outside.execute_unprepared(&sql).await.expect(&sql);
    let config = server_with(&[("DB_NAME", &ascii)]);
    let result = by.connect(&config).await;
    outside
        .execute_unprepared(&format!("DROP DATABASE {ascii} WITH (FORCE)"))
        .await
        .expect("it is gone");
    let error = result.expect_err("not UTF-8");
    assert_helpful(&error, &ascii);
    assert_refused(&error, &["SQL_ASCII", "ENCODING 'UTF8'"]);
}
