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
use std::sync::atomic::{AtomicU32, Ordering};

pub use content::ROWS;

use connection::{Config, Environment, Target};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

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

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file.
    Sqlite,
    /// A database of the test server's.
    Postgres,
}

/// A database of one test.
#[derive(Debug)]
pub struct TestDb {
    backend: Backend,
    folder: tempfile::TempDir,
    name: String,
    kept: tokio::sync::OnceCell<DatabaseConnection>,
}

impl TestDb {
    /// A database with nothing in it.
    ///
    /// # Panics
    ///
    /// When there is no test server, or no room.
    pub async fn empty(backend: Backend) -> Self {
        let db = Self::named(backend);
        if backend == Backend::Postgres {
            admin(&format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'",
                db.name
            ))
            .await;
        }
        db
    }

    /// A database with the current schema.
    ///
    /// # Panics
    ///
    /// When there is no test server, or no room, or a migration fails.
    pub async fn migrated(backend: Backend) -> Self {
        let db = Self::named(backend);
        match backend {
            Backend::Sqlite => {
                migration::up(&db.config())
                    .await
                    .expect("the migrations apply");
            }
            Backend::Postgres => {
                let connection = admin_connection().await;
                let template = template(&connection).await;
                let create = format!("CREATE DATABASE {} TEMPLATE {template}", db.name);
                run(&connection, &create).await;
                let _ = connection.close().await;
            }
        }
        db
    }

    fn named(backend: Backend) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("aura_test_{}_{number}", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix("aura-test-")
            .tempdir()
            .expect("a temporary folder");
        Self {
            backend,
            folder,
            name,
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
        self.folder.path()
    }

    /// The `DB_*` variables that lead to it, for a child process.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        match self.backend {
            Backend::Sqlite => {
                vec![(
                    "DB_PATH",
                    self.folder().join("aura.db").display().to_string(),
                )]
            }
            Backend::Postgres => {
                let mut variables = server();
                variables.push(("DB_NAME", self.name.clone()));
                variables
            }
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

impl Drop for TestDb {
    fn drop(&mut self) {
        if self.backend == Backend::Postgres {
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            // On a thread of its own: a runtime can't block inside a runtime.
            let _ = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.expect("a runtime").block_on(admin(&sql));
            })
            .join();
        }
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

async fn admin_connection() -> DatabaseConnection {
    let variables = server();
    let pairs = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([("DB_NAME", "postgres")]);
    let config =
        Config::from_environment(&Environment::from_pairs(pairs)).expect("usable test settings");
    connection::connect_exclusive(&plain(config))
        .await
        .expect("the test server answers")
}

async fn admin(sql: &str) {
    let connection = admin_connection().await;
    run(&connection, sql).await;
    let _ = connection.close().await;
}

async fn run(connection: &DatabaseConnection, sql: &str) {
    connection
        .execute_unprepared(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The name of a migrated database that tests are cloned from. The first test
/// of a schema makes it; the others, in whatever process, wait.
async fn template(connection: &DatabaseConnection) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for step in migration::steps() {
        (step.name(), step.up(sea_orm::DbBackend::Postgres)).hash(&mut hasher);
    }
    let name = format!("aura_template_{:016x}", hasher.finish());

    run(connection, "SELECT pg_advisory_lock(4711)").await;
    let query = format!("SELECT 1 FROM pg_database WHERE datname = '{name}'");
    let found = connection
        .query_one_raw(Statement::from_string(sea_orm::DbBackend::Postgres, query))
        .await
        .expect("a list of databases");
    if found.is_none() {
        let building = format!("{name}_building");
        for sql in [
            format!("DROP DATABASE IF EXISTS {building}"),
            format!("CREATE DATABASE {building} TEMPLATE template0 ENCODING 'UTF8'"),
        ] {
            run(connection, &sql).await;
        }
        let mut config = Config::from_environment(&Environment::from_pairs(
            server().iter().map(|(name, value)| (*name, value.as_str())),
        ))
        .expect("usable test settings");
        if let Target::Postgres(postgres) = &mut config.target {
            postgres.database.clone_from(&building);
        }
        migration::up(&config).await.expect("the migrations apply");
        let sql = format!("ALTER DATABASE {building} RENAME TO {name}");
        run(connection, &sql).await;
    }
    run(connection, "SELECT pg_advisory_unlock(4711)").await;
    name
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
