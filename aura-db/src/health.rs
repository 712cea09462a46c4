//! How the database is, for health endpoints and for people.

use std::time::Instant;

use connection::Target;
use migration::State;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use serde::Serialize;

use crate::database::Database;
use crate::error::{Doing, Error};

/// How the database is. Holds no secret, so it may be served as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// The version of the server, or of the SQLite engine.
    pub server_version: String,
    /// How the schema relates to the one that this build knows.
    pub schema: SchemaHealth,
    /// The connections that read.
    pub reader: PoolHealth,
    /// The connections that write; on PostgreSQL the same as the reader's.
    pub writer: PoolHealth,
    /// How long a trivial query took, in microseconds.
    pub latency_micros: u64,
}

/// The schema, in a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
#[non_exhaustive]
pub enum SchemaHealth {
    /// The one that this build needs.
    Current,
    /// Newer than this build.
    Ahead {
        /// What this build doesn't know.
        unknown: Vec<String>,
    },
    /// Not usable by this build.
    Unusable {
        /// Why, and what to do.
        message: String,
    },
}

/// The numbers of a connection pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolHealth {
    /// Open connections.
    pub size: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// How many there may be.
    pub max: u32,
}

impl Database {
    /// How the database is.
    ///
    /// Fails when it doesn't answer.
    pub async fn health(&self) -> Result<Health, Error> {
        let backend = self.reader().get_database_backend();
        let (name, sql) = match backend {
            DbBackend::Postgres => (
                "postgres",
                "SELECT current_setting('server_version') AS version",
            ),
            _ => ("sqlite", "SELECT sqlite_version() AS version"),
        };
        let started = Instant::now();
        let row = self
            .reader()
            .query_one_raw(Statement::from_string(backend, sql))
            .await
            .doing("asking for the server's version")?;
        let latency_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let version = row.map_or(Ok(String::new()), |row| row.try_get("", "version"));
        let schema = match self.schema_state().await? {
            State::Current => SchemaHealth::Current,
            State::Ahead { unknown } => SchemaHealth::Ahead { unknown },
            other => SchemaHealth::Unusable {
                message: other.to_string(),
            },
        };
        let max = self.config().pool.max;
        let (reader_max, writer_max) = match self.config().target {
            Target::Sqlite { .. } => (max, 1),
            Target::Memory => (1, 1),
            _ => (max, max),
        };
        Ok(Health {
            backend: name,
            server_version: version.doing("asking for the server's version")?,
            schema,
            reader: pool(self.reader(), reader_max),
            writer: pool(self.writer(), writer_max),
            latency_micros,
        })
    }
}

fn pool(connection: &DatabaseConnection, max: u32) -> PoolHealth {
    let (size, idle) = if connection.get_database_backend() == DbBackend::Postgres {
        let pool = connection.get_postgres_connection_pool();
        (pool.size(), pool.num_idle())
    } else {
        let pool = connection.get_sqlite_connection_pool();
        (pool.size(), pool.num_idle())
    };
    PoolHealth {
        size,
        idle: u32::try_from(idle).unwrap_or(u32::MAX),
        max,
    }
}
