//! What `DB_LOGGING` and `DB_SLOW_QUERY` write. A process has one log, so these
//! bodies run one after the other in a test of their own.

use std::io::Write;
use std::sync::{Arc, Mutex};

use aura_db::sea_orm::{ConnectionTrait, Statement};
use aura_db::{Database, LogFilter};
use testdb::{Backend, TestDb};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().expect("the log"))).expect("text")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn ask(test: &TestDb, variables: &[(&str, &str)], sql: &str) {
    let db = Database::connect(test.config_with(variables))
        .await
        .expect("it connects");
    let placeholder = if test.backend() == Backend::Postgres {
        "CAST($1 AS text)"
    } else {
        "?1"
    };
    let sql = format!("{sql}{placeholder} AS value");
    let statement = Statement::from_sql_and_values(db.backend(), sql, ["canary-7261".into()]);
    db.seaorm()
        .reader()
        .await
        .expect("open")
        .query_one_raw(statement)
        .await
        .expect("an answer");
    db.close().await;
}

#[tokio::test]
async fn statements_are_logged_with_their_time_and_without_their_values() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();

    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test = TestDb::migrated(backend).await;
        log.take();

        ask(&test, &[("DB_LOGGING", "true")], "SELECT 4711, ").await;
        let logged = log.take();
        let line = logged
            .lines()
            .find(|line| line.contains("sqlx::query") && line.contains("4711"))
            .unwrap_or_default();
        assert!(line.contains("elapsed"), "{backend:?}: {logged}");
        assert!(
            !logged.contains("canary-7261"),
            "{backend:?}: a bound value is in the log"
        );

        ask(&test, &[], "SELECT 4712, ").await;
        let logged = log.take();
        let line = logged
            .lines()
            .find(|line| line.contains("sqlx::query") && line.contains("4712"));
        assert_eq!(line, None, "{backend:?}: nobody asked for statements");

        let slow = match backend {
            Backend::Postgres => "SELECT pg_sleep(0.05), ",
            Backend::Sqlite => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT (SELECT sum(i) FROM n), "
            }
        };
        ask(&test, &[("DB_SLOW_QUERY", "5")], slow).await;
        let logged = log.take();
        assert!(
            logged
                .lines()
                .any(|line| line.contains("WARN") && line.contains("slow statement")),
            "{backend:?}: {logged}"
        );
        assert!(
            !logged.contains("canary-7261"),
            "{backend:?}: a bound value is in the log"
        );
        // What the repositories do is logged in the same way.
        let variables = [("DB_LOGGING", "true")];
        let db = Database::connect(test.config_with(&variables)).await;
        let db = db.expect("it connects");
        let filter = LogFilter::new().text("canary-7261");
        db.logs().stats(filter).await.expect("numbers");
        db.close().await;
        let logged = log.take();
        let line = logged
            .lines()
            .find(|line| line.contains("sqlx::query") && line.contains("\"logs\""))
            .unwrap_or_else(|| panic!("{backend:?}: {logged}"));
        assert!(line.contains("elapsed"), "{backend:?}: {line}");
        assert!(
            !logged.contains("canary-7261"),
            "{backend:?}: a bound value is in the log"
        );
        for (name, secret) in test.variables() {
            assert!(
                name != "DB_PASS" || !logged.contains(&secret),
                "the password is in the log"
            );
        }
    }
}
