//! Connections to PostgreSQL that succeed, and what is in effect on them.

use std::path::Path;
use std::time::{Duration, Instant};

use connection::{Config, Connections, Connector, connect, connect_exclusive, connect_read_only};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use testdb::{Backend, TestDb};
use tokio_postgres::error::SqlState;

use crate::fake::{Fake, decline_tls, pass_on, pass_on_and_outstay, refuse_login};
use crate::refusals::{server_port, server_with};

async fn one(connection: &DatabaseConnection, sql: &str) -> String {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    let row = connection
        .query_one_raw(statement)
        .await
        .expect(sql)
        .expect("a row");
    row.try_get_by_index(0).expect(sql)
}

async fn is_encrypted(connection: &DatabaseConnection) -> bool {
    let sql = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    one(connection, sql).await == "true"
}

/// What a session of a connector's answers.
async fn by_connector(config: &Config, sql: &str) -> String {
    let connector = Connector::new(config).expect("settings that work");
    let session = connector.connect_first().await.expect("it opens");
    let (client, polled) = (session.client, tokio::spawn(session.connection));
    let row = client.query_typed_one(sql, &[]).await.expect(sql);
    drop(client);
    polled.await.expect("no panic").expect("a good end");
    row.try_get(0).expect(sql)
}

async fn is_encrypted_by_connector(config: &Config) -> bool {
    let sql = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    by_connector(config, sql).await == "true"
}

#[tokio::test]
async fn a_password_over_verified_tls_works() {
    let db = TestDb::empty(Backend::Postgres).await;
    let connections = connect(&db.config()).await.expect("it opens");
    let Connections { writer, reader, .. } = &connections;
    assert!(is_encrypted(writer).await && is_encrypted(reader).await);
    assert!(is_encrypted_by_connector(&db.config()).await);
    writer
        .execute_unprepared("CREATE TABLE t (x bigint)")
        .await
        .expect("a table");
    writer
        .execute_unprepared("INSERT INTO t VALUES (7)")
        .await
        .expect("a row");
    assert_eq!(one(reader, "SELECT x::text FROM t").await, "7");
    connections.close().await;
}

/// As of a secret that is mounted: the service isn't started again.
#[tokio::test]
async fn an_authority_that_is_replaced_is_read_again() {
    let servers: Vec<_> = testdb::server().into_iter().collect();
    let authority = servers.iter().find(|(name, _)| *name == "DB_SSL_CA");
    let authority = Path::new(&authority.expect("an authority").1);
    let other = authority.with_file_name("other-ca.crt");
    let folder = tempfile::tempdir().expect("a folder");
    let mounted = folder.path().join("ca.crt");
    std::fs::copy(&other, &mounted).expect("copied");
    let mounted = mounted.to_str().expect("UTF-8");
    let config = server_with(&[("DB_SSL_CA", mounted), ("DB_NAME", "postgres")]);
    let connector = Connector::new(&config).expect("settings that work");
    let timeout = Duration::from_secs(20);
    let refused = connector.connect(timeout).await;
    assert!(refused.is_err(), "of an authority that didn't sign it");

    std::fs::write(mounted, "not a certificate").expect("written");
    let refused = connector.connect(timeout).await;
    assert!(refused.is_err(), "half written");

    std::fs::copy(authority, mounted).expect("copied");
    let opened = connector.connect(timeout).await;
    assert!(opened.is_ok(), "{:?}", opened.err());
}

/// `PgBouncer` 1.18 crashes otherwise, and others forget the request.
#[tokio::test]
async fn a_cancel_request_stays_until_the_server_has_read_it() {
    let servers = testdb::server().into_iter();
    let mut authority = servers.filter(|(name, _)| *name == "DB_SSL_CA");
    let authority = authority.next().expect("an authority").1;
    for ssl in ["true", "false"] {
        let port = server_port();
        let (stayed, outcome) = std::sync::mpsc::channel();
        let proxy = Fake::start(move |number, stream| match number {
            1 => pass_on(&stream, port),
            _ => stayed
                .send(pass_on_and_outstay(&stream, port))
                .expect("it is read"),
        });
        let proxy_port = proxy.port();
        let config = server_with(&[
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", &proxy_port),
            ("DB_SSL", ssl),
            ("DB_SSL_CA", if ssl == "true" { &authority } else { "" }),
            ("DB_NAME", "postgres"),
        ]);
        let connector = Connector::new(&config).expect("settings that work");
        let session = connector.connect(Duration::from_secs(20)).await;
        let session = session.expect("it opens");
        tokio::spawn(session.connection);
        let mut long = std::pin::pin!(session.client.query_typed("SELECT pg_sleep(60)", &[]));
        let ended = loop {
            // The first may come before the statement.
            tokio::select! {
                ended = &mut long => break ended,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            let asked = connector.cancel(&session.canceller).await;
            asked.expect("it is sent");
        };
        let error = ended.expect_err("it is cancelled");
        assert_eq!(error.code().map(SqlState::code), Some("57014"), "{error}");
        let stayed = tokio::task::spawn_blocking(move || outcome.recv()).await;
        assert!(stayed.expect("no panic").expect("its end"), "DB_SSL={ssl}");
    }
}

#[tokio::test]
async fn the_address_works_too_when_the_certificate_names_it() {
    let config = server_with(&[("DB_HOST", "127.0.0.1"), ("DB_NAME", "postgres")]);
    let connections = connect(&config).await.expect("it opens");
    assert!(is_encrypted(&connections.reader).await);
    assert!(is_encrypted_by_connector(&config).await);
}

#[tokio::test]
async fn a_url_works_as_the_variables_do() {
    let of = |wanted| {
        let found = testdb::server()
            .into_iter()
            .find(|(name, _)| *name == wanted);
        found.expect(wanted).1
    };
    // Every byte escaped, as for a password with odd characters.
    let password = of("DB_PASS")
        .bytes()
        .fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    let url = format!(
        "postgres://{}:{password}@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}",
        of("DB_USER"),
        of("DB_PORT"),
        of("DB_SSL_CA"),
    );
    let config = crate::accepted(&[("DATABASE_URL", &url)]);
    let connections = connect(&config).await.expect("it opens");
    assert!(is_encrypted(&connections.reader).await);
    assert!(is_encrypted_by_connector(&config).await);
}

#[tokio::test]
async fn without_ssl_settings_tls_is_used_where_offered() {
    let unset = [("DB_SSL", ""), ("DB_SSL_CA", ""), ("DB_NAME", "postgres")];
    let connections = connect(&server_with(&unset)).await.expect("it opens");
    assert!(is_encrypted(&connections.reader).await);

    let port = server_port();
    let plain = Fake::start(move |_, mut stream| {
        decline_tls(&mut stream);
        pass_on(&stream, port);
    });
    let fake_port = plain.port();
    let config = server_with(&[&unset[..], &[("DB_PORT", &fake_port)]].concat());
    let connections = connect(&config).await.expect("it opens");
    assert!(!is_encrypted(&connections.reader).await);
    assert!(!is_encrypted_by_connector(&config).await);
}

#[tokio::test]
async fn ssl_false_is_plain_text_and_require_is_not() {
    let config = server_with(&[
        ("DB_SSL", "false"),
        ("DB_SSL_CA", ""),
        ("DB_NAME", "postgres"),
    ]);
    let connections = connect(&config).await.expect("it opens");
    assert!(!is_encrypted(&connections.reader).await);
    assert!(!is_encrypted_by_connector(&config).await);

    let more = [
        ("DB_SSL", ""),
        ("DB_SSL_CA", ""),
        ("DB_SSL_MODE", "require"),
        ("DB_NAME", "postgres"),
    ];
    let connections = connect(&server_with(&more)).await.expect("it opens");
    assert!(is_encrypted(&connections.reader).await);
}

#[tokio::test]
async fn the_session_settings_are_in_effect() {
    let db = TestDb::empty(Backend::Postgres).await;
    let config = db.config_with(&[
        ("DB_STATEMENT_TIMEOUT", "12345"),
        ("DB_APPLICATION_NAME", "worker \\7 'x'"),
    ]);
    let connections = connect(&config).await.expect("it opens");
    for (name, expected) in [
        ("statement_timeout", "12345ms"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("search_path", "\"public\""),
        ("application_name", "worker \\7 'x'"),
        ("client_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("default_transaction_read_only", "off"),
    ] {
        assert_eq!(
            one(&connections.writer, &format!("SHOW {name}")).await,
            expected,
            "{name}"
        );
        let sql = format!("SELECT current_setting('{name}')");
        assert_eq!(by_connector(&config, &sql).await, expected, "{name}");
    }

    let exclusive = connect_exclusive(&config).await.expect("it opens");
    for name in [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ] {
        assert_eq!(
            one(&exclusive, &format!("SHOW {name}")).await,
            "0",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled() {
    let config = server_with(&[("DB_STATEMENT_TIMEOUT", "100"), ("DB_NAME", "postgres")]);
    let connections = connect(&config).await.expect("it opens");
    let started = Instant::now();
    let error = connections
        .writer
        .execute_unprepared("SELECT pg_sleep(60)")
        .await
        .expect_err("too long");
    assert!(error.to_string().contains("statement timeout"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_full_pool_is_waited_for_only_so_long() {
    let config = server_with(&[
        ("DB_POOL_MAX", "1"),
        ("DB_POOL_CONNECTION_TIMEOUT", "1500"),
        ("DB_NAME", "postgres"),
    ]);
    let connections = connect(&config).await.expect("it opens");
    let transaction = connections
        .writer
        .begin()
        .await
        .expect("the only connection");
    let started = Instant::now();
    let error = connections
        .writer
        .execute_unprepared("SELECT 1")
        .await
        .expect_err("no second connection");
    assert!(
        matches!(error, sea_orm::DbErr::ConnectionAcquire(_)),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(30));
    transaction.rollback().await.expect("a rollback");
    connections
        .writer
        .execute_unprepared("SELECT 1")
        .await
        .expect("a free connection");
}

#[tokio::test]
async fn a_read_only_connection_refuses_writes() {
    let db = TestDb::empty(Backend::Postgres).await;
    let connection = connect_read_only(&db.config())
        .await
        .expect("it opens")
        .expect("a server");
    let error = connection
        .execute_unprepared("CREATE TABLE t (x bigint)")
        .await
        .expect_err("a write");
    assert!(error.to_string().contains("read-only"), "{error}");
    assert_eq!(one(&connection, "SHOW search_path").await, "\"public\"");
}

#[tokio::test]
async fn a_schema_may_have_any_name() {
    let db = TestDb::empty(Backend::Postgres).await;
    let outside = db.outside().await;
    for schema in [
        "aura",
        "Aura Flows",
        "we\"ird, 'sch\\ema' $x",
        "sché\u{1f511}",
        "-c x=y",
    ] {
        let create = format!("CREATE SCHEMA \"{}\"", schema.replace('"', "\"\""));
        outside.execute_unprepared(&create).await.expect(&create);
        let config = db.config_with(&[("DB_SCHEMA", schema)]);
        let connections = connect(&config)
            .await
            .unwrap_or_else(|error| panic!("{schema}: {error}"));
        connections
            .writer
            .execute_unprepared("CREATE TABLE t (x bigint)")
            .await
            .expect("a table");
        let sql = "SELECT relnamespace::regnamespace::text = quote_ident(current_schema()) AND current_schema() <> 'public' FROM pg_class WHERE oid = 't'::regclass";
        assert_eq!(
            one(&connections.reader, &format!("SELECT ({sql})::text")).await,
            "true",
            "{schema}"
        );
        assert_eq!(
            one(&connections.reader, "SELECT current_schema()::text").await,
            schema
        );
        let found = by_connector(&config, "SELECT current_schema()::text").await;
        assert_eq!(found, schema);
        connections.close().await;
    }
}

#[tokio::test]
async fn without_prepared_statements_no_startup_options_are_sent() {
    let db = TestDb::empty(Backend::Postgres).await;
    let config = db.config_with(&[("DB_PREPARED_STATEMENTS", "false")]);
    let connections = connect(&config).await.expect("it opens");
    assert_eq!(
        one(&connections.writer, "SHOW statement_timeout").await,
        "0"
    );
    assert!(is_encrypted(&connections.writer).await);
}

#[tokio::test]
async fn a_server_that_is_starting_up_is_waited_for() {
    let port = server_port();
    let fake = Fake::start(move |number, stream| {
        if number <= 2 {
            refuse_login(stream, "57P03", "the database system is starting up");
        } else {
            pass_on(&stream, port);
        }
    });
    let fake_port = fake.port();
    let config = server_with(&[
        ("DB_PORT", &fake_port),
        ("DB_SSL", "false"),
        ("DB_SSL_CA", ""),
        ("DB_NAME", "postgres"),
        ("DB_CONNECT_RETRIES", "2"),
    ]);
    let connections = connect(&config).await.expect("the third try succeeds");
    assert_eq!(one(&connections.reader, "SELECT 'there'").await, "there");
    assert!(fake.connections() >= 3);
}
