//! Throw-away databases for tests (feature `testing`).
//!
//! ```no_run
//! use aura_orm::Executor;
//! use aura_orm::testing::{Backend, TemporaryDatabase};
//!
//! # async fn example(schema: aura_orm::migration::Runner) -> Result<(), Box<dyn std::error::Error>> {
//! let temporary = TemporaryDatabase::create(Backend::Sqlite, &[schema]).await?;
//! let db: Executor = Executor::connect(temporary.config().clone()).await?;
//! // Gone when `temporary` is dropped.
//! # Ok(()) }
//! ```

mod postgres;
mod sqlite;
mod template;

use std::path::Path;

use connection::{Config, Problem};
use tempfile::TempDir;

use self::postgres::ServerDatabase;
use crate::migration::{Error, Runner};

/// The variable that names the PostgreSQL server of the tests, as a URL of a database on it
/// and of a user who may create others: `postgres://user:password@localhost:5432/postgres`.
/// The database itself is left alone. It may stand in the `.env` file.
pub const SERVER_VARIABLE: &str = "TEST_DATABASE_URL";

/// The kinds of database that a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file in a temporary folder.
    Sqlite,
    /// A database on the server of the tests.
    Postgres,
}

/// A database that is deleted when this is dropped.
///
/// It is a copy of a template, which is migrated once: for a process on SQLite, for a server
/// on PostgreSQL. Another set of steps has another template. A database on a server that a
/// killed process left is dropped by the next test that creates one.
#[derive(Debug)]
pub struct TemporaryDatabase {
    config: Config,
    folder: TempDir,
    _database: Option<ServerDatabase>,
}

impl TemporaryDatabase {
    /// Creates a database to which the steps of these runners were applied, in their order.
    /// On PostgreSQL it is on the server of [`SERVER_VARIABLE`].
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] when there is no server, it creates no database, or there is no
    /// temporary folder; as [`Runner::run`].
    pub async fn create(backend: Backend, schema: &[Runner]) -> Result<Self, Error> {
        match backend {
            Backend::Sqlite => Self::sqlite(schema).await,
            Backend::Postgres => Self::on_server(&server()?, schema).await,
        }
    }

    /// Creates a SQLite file, as [`TemporaryDatabase::create`]. Without runners there is no
    /// file before it is opened.
    ///
    /// # Errors
    ///
    /// As [`TemporaryDatabase::create`].
    pub async fn sqlite(schema: &[Runner]) -> Result<Self, Error> {
        let folder = folder()?;
        let path = folder.path().join("aura.db");
        let config = Config::sqlite(&path);
        sqlite::create(&config, &path, schema).await?;
        Ok(Self {
            config,
            folder,
            _database: None,
        })
    }

    /// Creates a database on a PostgreSQL server, as [`TemporaryDatabase::create`].
    ///
    /// # Errors
    ///
    /// As [`TemporaryDatabase::create`].
    pub async fn on_server(server: &Config, schema: &[Runner]) -> Result<Self, Error> {
        let folder = folder()?;
        let database = ServerDatabase::create(server, schema).await?;
        Ok(Self {
            config: postgres::with_database(server, database.name()),
            folder,
            _database: Some(database),
        })
    }

    /// Returns the settings that lead to it.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns a folder for the files of the test, which is deleted with the database. On
    /// SQLite the database is in it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Reads the settings of the server of the tests from [`SERVER_VARIABLE`].
///
/// # Errors
///
/// [`connection::Error::Config`] when it isn't set, and when it isn't the URL of a server.
pub fn server() -> Result<Config, connection::Error> {
    let problem = |expected: &str| {
        connection::Error::Config(vec![Problem {
            variable: SERVER_VARIABLE.to_owned(),
            value: None,
            expected: expected.to_owned(),
            suggestion: None,
        }])
    };
    let server = Config::from_url_in(SERVER_VARIABLE)?.ok_or_else(|| {
        problem(
            "is not set, and tests on PostgreSQL need a server: set it to \
             postgres://user:password@localhost:5432/postgres, of a user who may create databases; \
             `cargo test sqlite` runs the others",
        )
    })?;
    match server.target {
        connection::Target::Postgres(_) => Ok(server),
        _ => Err(problem(
            "names no server; write postgres://user:password@localhost:5432/postgres",
        )),
    }
}

fn folder() -> Result<TempDir, connection::Error> {
    let made = tempfile::Builder::new().prefix("aura-test-").tempdir();
    made.map_err(|error| refused("a temporary folder", error))
}

/// Returns the error of something that the system or the server refuses to make.
fn refused(
    what: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> connection::Error {
    connection::Error::Refused {
        target: what.into(),
        reason: "it can't be made".to_owned(),
        hint: "The cause says what to change.".to_owned(),
        source: Some(source.into()),
    }
}
