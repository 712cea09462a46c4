//! Throw-away databases for tests: one test body, SQLite and PostgreSQL.
//!
//! A body is a plain `async fn` that takes a [`TestDb`]; [`both!`] registers it
//! for both backends:
//!
//! ```
//! use testdb::TestDb;
//!
//! async fn starts_empty(db: TestDb) {
//!     let connections = connection::connect(&db.config()).await.unwrap();
//!     let tables = migration::tables(&connections.reader).await.unwrap();
//!     assert!(tables.is_empty());
//!     connections.close().await;
//! }
//!
//! testdb::both!(empty: starts_empty);
//! ```
//!
//! Each test has a database of its own, a file or a PostgreSQL database, that
//! is gone when its `TestDb` is dropped. PostgreSQL is the server that
//! `./scripts/test` starts; a test without one fails, it is never skipped.

#![expect(
    clippy::disallowed_methods,
    reason = "scripts/test tells where its server is in the environment"
)]

mod content;
pub mod process;

use std::path::{Path, PathBuf};

use aura_orm::testing::TemporaryDatabase;
use connection::{Config, Environment, Target};
use sea_orm::DatabaseConnection;

pub use aura_orm::testing::Backend;
pub use content::ROWS;

/// How many steps the schema has.
#[must_use]
pub fn steps() -> usize {
    migration::steps().len()
}

/// What the tools say when they have applied all of them.
#[must_use]
pub fn all_applied() -> String {
    format!("{} migrations applied", steps())
}

/// How many of them, the last ones, go back to before this table.
#[must_use]
pub fn steps_since(table: &str) -> u32 {
    let steps = migration::steps();
    let before = steps
        .iter()
        .rev()
        .take_while(|step| !step.tables().contains(&table));
    u32::try_from(before.count() + 1).unwrap_or(u32::MAX)
}

/// A database of one test.
#[derive(Debug)]
pub struct TestDb {
    backend: Backend,
    database: TemporaryDatabase,
    kept: tokio::sync::OnceCell<DatabaseConnection>,
}

impl TestDb {
    /// A database with nothing in it.
    ///
    /// # Panics
    ///
    /// When there is no test server, or no room.
    pub async fn empty(backend: Backend) -> Self {
        Self::create(backend, &[]).await
    }

    /// A database with the current schema.
    ///
    /// # Panics
    ///
    /// When there is no test server, or no room, or a migration fails.
    pub async fn migrated(backend: Backend) -> Self {
        Self::create(backend, &[migration::runner()]).await
    }

    async fn create(backend: Backend, schema: &[migration::Runner]) -> Self {
        let database = match backend {
            Backend::Sqlite => TemporaryDatabase::sqlite(schema).await,
            Backend::Postgres => {
                let variables = server();
                let pairs = variables
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .chain([("DB_NAME", "postgres")]);
                let server = Config::from_environment(&Environment::from_pairs(pairs));
                let server = plain(server.expect("usable test settings"));
                TemporaryDatabase::on_server(&server, schema).await
            }
        };
        Self {
            backend,
            database: database.expect("a database"),
            kept: tokio::sync::OnceCell::new(),
        }
    }

    /// Which kind it is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// A folder of the test's own, gone with the database.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.database.folder()
    }

    /// The `DB_*` variables that lead to it, for a child process.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        match &self.database.config().target {
            Target::Postgres(postgres) => {
                let mut variables = server();
                variables.push(("DB_NAME", postgres.database.clone()));
                variables
            }
            Target::Sqlite { path } => vec![("DB_PATH", path.display().to_string())],
            _ => Vec::new(),
        }
    }

    /// The settings that lead to it.
    ///
    /// # Panics
    ///
    /// When `scripts/test` gave settings that can't be used.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config_with(&[])
    }

    /// The settings that lead to it, with these variables besides.
    ///
    /// # Panics
    ///
    /// When the variables can't be used.
    #[must_use]
    pub fn config_with(&self, more: &[(&str, &str)]) -> Config {
        let variables = self.variables();
        let pairs = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(more.iter().copied());
        Config::from_environment(&Environment::from_pairs(pairs)).expect("usable test settings")
    }

    /// The settings that lead to it in plain text, which connects in half the
    /// time.
    ///
    /// # Panics
    ///
    /// When `scripts/test` gave settings that can't be used.
    #[must_use]
    pub fn plain_config(&self) -> Config {
        plain(self.config())
    }

    /// One connection for a look from outside, in plain text.
    ///
    /// # Panics
    ///
    /// When it can't be opened.
    pub async fn outside(&self) -> DatabaseConnection {
        connection::connect_exclusive(&self.plain_config())
            .await
            .expect("the database opens")
    }
}

/// The variables of the test server, over verified TLS.
///
/// # Panics
///
/// When `scripts/test` didn't start one.
#[must_use]
pub fn server() -> Vec<(&'static str, String)> {
    let of = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| {
            panic!("no PostgreSQL to test with ({name} is not set): run ./scripts/test")
        })
    };
    vec![
        ("DB_TYPE", "postgres".to_owned()),
        ("DB_HOST", "localhost".to_owned()),
        ("DB_PORT", of("PGPORT")),
        ("DB_USER", of("PGUSER")),
        ("DB_PASS", of("PGPASSWORD")),
        ("DB_SSL", "true".to_owned()),
        (
            "DB_SSL_CA",
            tls_folder().join("ca.crt").display().to_string(),
        ),
    ]
}

/// The folder of the test server's certificates: `ca.crt`, and `other-ca.crt`
/// of an authority that signed nothing.
///
/// # Panics
///
/// When `scripts/test` didn't make one.
#[must_use]
pub fn tls_folder() -> PathBuf {
    std::env::var_os("AURA_TEST_TLS")
        .map(PathBuf::from)
        .expect("no test certificates: run ./scripts/test")
}

fn plain(mut config: Config) -> Config {
    if let Target::Postgres(postgres) = &mut config.target {
        postgres.tls = connection::Tls::default();
        postgres.tls.mode = connection::TlsMode::Disable;
    }
    config
}

/// Registers test bodies for both backends: `empty:` or `migrated:` and the
/// names of `async fn`s that take a [`TestDb`]; `both!(empty: a; migrated: b, c)`
/// does both at once. The calling crate needs tokio.
#[macro_export]
macro_rules! both {
    ($($bodies:tt)+) => {
        $crate::on!(sqlite Sqlite $($bodies)+);
        $crate::on!(postgres Postgres $($bodies)+);
    };
}

/// Like [`both!`], for what only a server has: row locks, other levels of
/// isolation, connections that it ends.
#[macro_export]
macro_rules! postgres {
    ($($bodies:tt)+) => {
        $crate::on!(postgres_only Postgres $($bodies)+);
    };
}

/// The bodies on one backend, in a module of this name.
#[doc(hidden)]
#[macro_export]
macro_rules! on {
    ($module:ident $backend:ident $($make:ident: $($body:ident),+ $(,)?);+ $(;)?) => {
        mod $module {
            $($(#[tokio::test(flavor = "multi_thread")]
            async fn $body() {
                super::$body($crate::TestDb::$make($crate::Backend::$backend).await).await;
            })+)+
        }
    };
}
