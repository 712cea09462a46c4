//! What a server or a pooler refuses for want of a right, and what is said then.

use sea_orm::ConnectionTrait;
use testdb::{Backend, TestDb};

use crate::fake::{Fake, refuse_login};
use crate::refusals::{By, assert_refused, refusal, server_with};
use crate::{CANARY, assert_helpful};

#[tokio::test]
async fn a_pooler_that_takes_no_options_names_the_setting() {
    for message in [
        "unsupported startup parameter: options",
        "unsupported startup parameter: extra_float_digits",
        "unsupported startup parameter in options: search_path",
        "Feature not supported: RDS Proxy currently doesn't support command-line options.",
    ] {
        let pooler = Fake::start(move |_, stream| refuse_login(stream, "08P01", message));
        let port = pooler.port();
        let at = [
            ("DB_PORT", port.as_str()),
            ("DB_PASS", CANARY),
            ("DB_SSL", "false"),
            ("DB_SSL_CA", ""),
        ];
        for by in [By::Pool, By::Connector] {
            let error = refusal(by, &at).await;
            assert_refused(&error, &[message, "set DB_PREPARED_STATEMENTS=false"]);
            let without = [&at[..], &[("DB_PREPARED_STATEMENTS", "false")]].concat();
            let error = refusal(by, &without).await;
            assert_refused(&error, &["DB_HOST and DB_PORT to the server itself"]);
        }
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_with_its_statement() {
    let db = TestDb::empty(Backend::Postgres).await;
    let variables = db.variables();
    let variable = |wanted| {
        let found = variables.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.as_str()).expect("it is set")
    };
    let name = variable("DB_NAME");
    let role = format!("{name}_guest");
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE SCHEMA closed; \
         REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"
    ))
    .await;
    let config = server_with(&[
        ("DB_NAME", name),
        ("DB_USER", &role),
        ("DB_PASS", "x"),
        ("DB_SCHEMA", "closed"),
    ]);
    for by in [By::Pool, By::Connector] {
        let error = by.connect(&config).await.expect_err("no right to connect");
        assert_helpful(&error, &config.target_name());
        assert_refused(
            &error,
            &[&format!(
                "GRANT CONNECT ON DATABASE \"{name}\" TO \"{role}\""
            )],
        );
    }
    let outside = db.outside().await;
    let sql = format!("GRANT CONNECT ON DATABASE {name} TO {role}");
    outside.execute_unprepared(&sql).await.expect(&sql);
    for by in [By::Pool, By::Connector] {
        let error = by
            .connect(&config)
            .await
            .expect_err("no right to the schema");
        assert_helpful(&error, &config.target_name());
        let statement = format!("GRANT USAGE ON SCHEMA \"closed\" TO \"{role}\"");
        assert_refused(&error, &["may not use the schema closed", &statement]);
        assert!(!error.to_string().contains("CREATE SCHEMA"), "{error}");
    }
    let sql = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    outside.execute_unprepared(&sql).await.expect(&sql);
}
