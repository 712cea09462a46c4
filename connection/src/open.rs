//! A checked [`Config`] to open connections.

use sea_orm::DatabaseConnection;

use crate::config::{Config, Target};
use crate::error::Error;
use crate::{postgres, sqlite};

/// The open connections of a service.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Takes writes. On SQLite a single connection, so that writers queue here
    /// and not inside SQLite.
    pub writer: DatabaseConnection,
    /// Takes reads. A pool of read-only connections; for `:memory:` the writer itself, and
    /// behind a pooler (`prepared_statements` off) they may write.
    pub reader: DatabaseConnection,
}

impl Connections {
    /// Waits for statements under way and closes everything.
    pub async fn close(self) {
        let Self { writer, reader, .. } = self;
        // The reader first: the last writer to leave a SQLite file folds the
        // WAL back into it, which it can't while a reader is looking.
        let _ = reader.close().await;
        let _ = writer.close().await;
    }
}

/// Opens the pools that a service works with.
///
/// Creates a missing SQLite file (mode 0600) and its folder. On PostgreSQL the
/// first connection is made here, so that a wrong password or an unknown
/// database is an error now and not at the first statement; a server that is
/// starting up is tried again `connect_retries` times.
pub async fn connect(config: &Config) -> Result<Connections, Error> {
    match &config.target {
        Target::Sqlite { path } => sqlite::connect(config, path).await,
        Target::Memory => connect_memory(config, &sqlite::memory_name()).await,
        Target::Postgres(postgres) => {
            let writer = postgres::connect(config, postgres, config.pool.max).await?;
            Ok(Connections {
                reader: postgres::lazy_reader(config, postgres)?,
                writer,
            })
        }
    }
}

/// Opens the database in memory of this name ([`memory_name`](crate::memory_name)).
pub async fn connect_memory(config: &Config, name: &str) -> Result<Connections, Error> {
    let writer = sqlite::memory(config, name).await?;
    Ok(Connections {
        reader: writer.clone(),
        writer,
    })
}

/// Opens one connection for work that nobody may interrupt, such as
/// migrations: no timeouts on PostgreSQL, and on SQLite a busy timeout of a
/// second, so that the caller can say that it is waiting and try again.
pub async fn connect_exclusive(config: &Config) -> Result<DatabaseConnection, Error> {
    let config = config.clone().without_timeouts();
    match &config.target {
        Target::Sqlite { path } => sqlite::exclusive(&config, path).await,
        Target::Memory => sqlite::memory(&config, &sqlite::memory_name()).await,
        Target::Postgres(postgres) => postgres::connect(&config, postgres, 1).await,
    }
}

/// SQL that lifts PostgreSQL's time limits for one transaction, however the
/// session came by them.
pub const NO_TIME_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
     SET LOCAL idle_in_transaction_session_timeout = 0";

/// Opens one connection that can only read, and creates nothing: `None` when
/// there is no SQLite file yet. (On PostgreSQL with `prepared_statements` off it
/// is an ordinary connection: no start-up options can be sent.)
pub async fn connect_read_only(config: &Config) -> Result<Option<DatabaseConnection>, Error> {
    match &config.target {
        Target::Sqlite { path } => sqlite::read_only(config, path).await,
        Target::Memory => Ok(None),
        Target::Postgres(postgres) => postgres::read_only(config, postgres).await.map(Some),
    }
}

/// Statement logging as configured. The driver logs the SQL with its
/// placeholders, the time and the row counts; never the bound values.
pub(crate) fn with_logging<O: sqlx::ConnectOptions>(options: O, config: &Config) -> O {
    let level = if config.logging {
        log::LevelFilter::Info
    } else {
        log::LevelFilter::Off
    };
    // Without a threshold no statement is slow.
    let threshold = config.slow_query.unwrap_or(std::time::Duration::MAX);
    options
        .log_statements(level)
        .log_slow_statements(log::LevelFilter::Warn, threshold)
}
