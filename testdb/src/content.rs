//! What is in a database: believable rows to put there, and a dump to compare.

use std::fmt::Write;

use migration::{Catalog, State};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use crate::{Backend, TestDb};

/// Believable rows for every table, oldest table first. A new step adds its
/// tables here.
pub const ROWS: &[(&str, &str)] = &[
    (
        "users",
        r"(id, name, email, hashed_password, role, is_active, created_at, updated_at, deleted_at, created_by, updated_by) VALUES
          (1, 'Ada Lovelace', 'ada@example.org', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA', 'admin', TRUE, '2026-01-02T03:04:05.678901+00:00', '2026-01-02T03:04:05+00:00', NULL, NULL, 1),
          (2, 'Zoë ''Z'' 李', 'zoe@example.org', 'x', 'viewer', FALSE, '2026-02-02T03:04:05.5+00:00', '2026-02-02T03:04:05.123+00:00', '2026-03-01T00:00:00+00:00', 1, 1)",
    ),
    (
        "sessions",
        r"(id, token, user_agent, ip_address, expires_at, user_id) VALUES
          (1, '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08', 'Mozilla/5.0', '2001:db8::1', '2026-01-09T03:04:05+00:00', 1),
          (7, '60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752', NULL, NULL, '2026-01-09T03:04:05+00:00', 2)",
    ),
    (
        "plugins",
        r#"(id, name, description, version, author, is_enabled, config_schema) VALUES
          (1, 'github', 'Repositories', '1.0.0', 'AURA Team', TRUE, '{"type": "object"}'), (2, 'slack', 'Messages', '1.0.0', NULL, FALSE, NULL)"#,
    ),
    (
        "workflows",
        r#"(id, name, description, status, version, owner_id, settings, connections, nodes, metadata) VALUES
          (1, 'Nightly report', 'Says "good night"', 'active', 3, 1, '{"retry":  true}', '[]', '[{"id":"1"}]', '{"tags":["ü"]}'),
          (2, '', NULL, 'archived', 1, 2, NULL, NULL, NULL, NULL)"#,
    ),
    (
        "workflow_plugins",
        "(workflow_id, plugin_id) VALUES (1, 1), (1, 2), (2, 1)",
    ),
    (
        "workflow_versions",
        r#"(id, workflow_id, version, name, description, created_by, settings, connections, nodes) VALUES
          (1, 1, 1, 'Report', NULL, 1, NULL, NULL, '[]'), (2, 1, 2, 'Nightly', 'x', NULL, '{}', '{"a": {"b": 1e3}}', '[]')"#,
    ),
    (
        "executions",
        r#"(id, workflow_id, workflow_version, mode, status, worker_id, lease_until, started_at, data, error) VALUES
          (1, 1, 3, 'cron', 'running', 'worker-1', '2026-01-02T03:05:05+00:00', '2026-01-02T03:04:05+00:00', '{"in": 1}', NULL),
          (2, 1, 3, 'manual', 'error', NULL, NULL, NULL, NULL, '{"message": "no"}')"#,
    ),
    (
        "logs",
        r#"(id, level, message, workflow_id, execution_id, metadata) VALUES
          (1, 'info', 'started', 1, 1, '{"a": 1}'), (2, 'error', '', 1, 2, NULL), (3, 'warn', 'x', 2, NULL, '[]')"#,
    ),
    (
        "agents",
        r#"(id, name, description, model, is_enabled, owner_id, config) VALUES
          (1, 'Helper', NULL, 'small', TRUE, 1, '{"temperature": 0.2}'), (2, 'Helper', 'x', 'large', FALSE, 2, NULL)"#,
    ),
    (
        "execution_attempts",
        r#"(id, execution_id, claim_no, attempt, worker_id, ended_at, reason) VALUES
          (1, 1, 1, 1, 'worker-1', '2026-01-02T03:03:05.678901+00:00', '{"message": "no"}'), (2, 1, 2, 2, NULL, '2026-01-02T03:04:04+00:00', '')"#,
    ),
    (
        "execution_limits",
        "(id, workflow_id, owner_id, max_running) VALUES (1, 1, NULL, 1000), (2, NULL, 1, 2000)",
    ),
];

impl TestDb {
    /// Runs SQL, one statement or several.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub async fn execute(&self, sql: &str) {
        let done = self.try_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs SQL that may fail. Foreign keys are enforced.
    pub async fn try_execute(&self, sql: &str) -> Result<(), sea_orm::DbErr> {
        let ours = self.ours().await;
        if self.backend() == Backend::Sqlite {
            ours.execute_unprepared("PRAGMA foreign_keys = ON").await?;
        }
        let result = ours.execute_unprepared(sql).await;
        self.done(ours).await;
        result.map(|_| ())
    }

    /// The column `line` of a query's rows, which is text.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub async fn lines(&self, sql: &str) -> Vec<String> {
        let ours = self.ours().await;
        let statement = Statement::from_string(ours.get_database_backend(), sql);
        let rows = ours.query_all_raw(statement).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.done(ours).await;
        rows.iter()
            .map(|row| row.try_get("", "line").expect("text"))
            .collect()
    }

    /// Puts [`ROWS`] into every table; the next row of a table gets the next id.
    ///
    /// # Panics
    ///
    /// When the schema is not the current one.
    pub async fn fill(&self) {
        for (table, rows) in ROWS {
            self.execute(&format!("INSERT INTO {table} {rows}")).await;
            // SQLite counts on from the ids that it was given.
            if self.backend() == Backend::Postgres && rows.starts_with("(id, ") {
                let count = format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                );
                self.execute(&count).await;
            }
        }
    }

    /// The schema of those of these tables that exist, and all their rows.
    ///
    /// # Panics
    ///
    /// When the database can't be read.
    pub async fn dump(&self, tables: &[&str]) -> String {
        let schema = self.catalog(tables).await.tables;
        format!("{schema:#?}\n{}", self.rows(tables).await)
    }

    /// All rows of those of these tables that exist, as text in the order of
    /// their keys, columns in alphabetical order.
    ///
    /// # Panics
    ///
    /// When the database can't be read.
    pub async fn rows(&self, tables: &[&str]) -> String {
        let mut text = String::new();
        for (name, table) in self.catalog(tables).await.tables {
            let columns: Vec<String> = table
                .columns
                .keys()
                .map(|column| format!("coalesce(CAST(\"{column}\" AS text), 'NULL')"))
                .collect();
            let key = match table.primary_key.as_slice() {
                [] => "line".to_owned(),
                columns => columns.join(", "),
            };
            let sql = format!(
                "SELECT {} AS line FROM \"{name}\" ORDER BY {key}",
                columns.join(" || ' | ' || ")
            );
            for line in self.lines(&sql).await {
                let _ = writeln!(text, "{name}: {line}");
            }
        }
        text
    }

    /// The schema of those of these tables that exist.
    ///
    /// # Panics
    ///
    /// When the database can't be read.
    pub async fn catalog(&self, tables: &[&str]) -> Catalog {
        let ours = self.ours().await;
        let catalog = Catalog::read(&ours, tables, &["json_text"]).await;
        let catalog = catalog.expect("a catalog");
        self.done(ours).await;
        catalog
    }

    /// How its schema relates to the one that this build knows.
    ///
    /// # Panics
    ///
    /// When the database can't be read.
    pub async fn state(&self) -> State {
        let ours = self.ours().await;
        let state = migration::state(&ours).await.expect("a state");
        self.done(ours).await;
        state
    }

    /// All tables but SQLite's counters. Looking makes no file.
    ///
    /// # Panics
    ///
    /// When the database can't be read.
    pub async fn tables(&self) -> Vec<String> {
        let look = connection::connect_read_only(&self.config()).await;
        let Some(connection) = look.expect("it opens") else {
            return Vec::new();
        };
        let mut tables = migration::tables(&connection).await.expect("a list");
        tables.remove("sqlite_sequence");
        tables.into_iter().collect()
    }

    /// To PostgreSQL one connection for all of these, because connecting is
    /// slow; to SQLite a new one, because an open one changes what is tested:
    /// the last connection to leave folds the WAL back into the file.
    async fn ours(&self) -> DatabaseConnection {
        match self.backend() {
            Backend::Sqlite => self.outside().await,
            Backend::Postgres => self.kept.get_or_init(|| self.outside()).await.clone(),
        }
    }

    async fn done(&self, ours: DatabaseConnection) {
        if self.backend() == Backend::Sqlite {
            ours.close().await.expect("it closes");
        }
    }
}
