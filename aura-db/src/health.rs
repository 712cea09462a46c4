//! How the database is, for health endpoints and for people.

use std::time::Instant;

use aura_orm::{PoolSizes, TypedQuery};
use migration::State;
use sea_orm::{DbBackend, Statement};
use serde::Serialize;

use crate::database::Database;
use crate::error::Error;

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
        let backend = self.executor().backend();
        let (name, sql) = match backend {
            DbBackend::Postgres => (
                "postgres",
                "SELECT current_setting('server_version') AS version",
            ),
            _ => ("sqlite", "SELECT sqlite_version() AS version"),
        };
        self.executor().check_file("looking at the database")?;
        let started = Instant::now();
        let version = TypedQuery::<String>::sql(Statement::from_string(backend, sql));
        let version = self.executor().fetch_optional(version).await?;
        let latency_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let schema = match self.schema_state().await? {
            State::Current => SchemaHealth::Current,
            State::Ahead { unknown } => SchemaHealth::Ahead { unknown },
            other => SchemaHealth::Unusable {
                message: other.to_string(),
            },
        };
        let [reader, writer] = self.executor().pool_sizes().map(Into::into);
        Ok(Health {
            backend: name,
            server_version: version.unwrap_or_default(),
            schema,
            reader,
            writer,
            latency_micros,
        })
    }
}

impl From<PoolSizes> for PoolHealth {
    fn from(sizes: PoolSizes) -> Self {
        let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            size: narrow(sizes.size),
            idle: narrow(sizes.idle),
            max: narrow(sizes.max),
        }
    }
}
