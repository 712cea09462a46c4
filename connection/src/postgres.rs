//! Opening PostgreSQL.

use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use secrecy::ExposeSecret;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::config::{Config, Postgres, TlsMode};
use crate::error::Error;
use crate::open::with_logging;
use crate::refusal::{
    CLIENT_CERTIFICATE, SESSION, SessionSettings, check_password, check_settings, io_may_pass,
    refusal, schema_of, silent,
};

/// A connection that was idle for longer is tried before it is used.
const PING_AFTER: Duration = Duration::from_secs(1);

/// In this time a server is reached that is there.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The first pause before a refused connection is tried again; doubled each time.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) async fn connect(
    config: &Config,
    postgres: &Postgres,
    connections: u32,
) -> Result<DatabaseConnection, Error> {
    let options = options(config, postgres)?;
    open(config, connections, options).await
}

/// A pool whose transactions are read-only, with `prepared_statements`: without, no
/// start-up options can be sent. It connects at its first use.
pub(crate) fn lazy_reader(
    config: &Config,
    postgres: &Postgres,
) -> Result<DatabaseConnection, Error> {
    let options = read_only_options(config, postgres)?;
    let pool = pool(config, config.pool.max).connect_lazy_with(options);
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

/// One connection whose transactions are read-only.
pub(crate) async fn read_only(
    config: &Config,
    postgres: &Postgres,
) -> Result<DatabaseConnection, Error> {
    let options = read_only_options(config, postgres)?;
    open(config, 1, options).await
}

fn read_only_options(config: &Config, postgres: &Postgres) -> Result<PgConnectOptions, Error> {
    let options = options(config, postgres)?;
    Ok(if postgres.prepared_statements {
        // As a schema is compared: a database may have it on.
        options.options([
            ("default_transaction_read_only", "on"),
            ("quote_all_identifiers", "off"),
        ])
    } else {
        options
    })
}

fn pool(config: &Config, connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(config.pool.min.min(connections))
        .idle_timeout(config.pool.idle_timeout)
        .acquire_timeout(config.pool.connection_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(
                async move { Ok(meta.idle_for < PING_AFTER || connection.ping().await.is_ok()) },
            )
        })
}

async fn open(
    config: &Config,
    connections: u32,
    options: PgConnectOptions,
) -> Result<DatabaseConnection, Error> {
    let patience = config.pool.connection_timeout;
    let pool = pool(config, connections).connect_lazy_with(options.clone());
    let first = first(config, &options, &pool).await;
    let checked = match first {
        Ok(first) => tokio::time::timeout(patience, check_session(config, first))
            .await
            .unwrap_or_else(|_| Err(silent(config))),
        Err(refused) => Err(refused),
    };
    if let Err(refused) = checked {
        // A server that doesn't answer doesn't say goodbye either.
        let _ = tokio::time::timeout(AT_ONCE, pool.close()).await;
        return Err(refused);
    }
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

/// The pool's first connection. While a server is away the pool tries again
/// and doesn't say why, so whoever isn't let in at once asks outside of it.
async fn first(
    config: &Config,
    options: &PgConnectOptions,
    pool: &PgPool,
) -> Result<PoolConnection<sqlx::Postgres>, Error> {
    match tokio::time::timeout(AT_ONCE, pool.acquire()).await {
        Ok(Ok(connection)) => return Ok(connection),
        Err(_) | Ok(Err(sqlx::Error::PoolTimedOut)) => {}
        Ok(Err(error)) if may_pass(&error) => {}
        Ok(Err(error)) => return Err(explained(config, error, 0)),
    }
    let connection = outside_of_pool(config, options).await?;
    let _ = connection.close().await;
    match pool.acquire().await {
        Err(sqlx::Error::PoolTimedOut) => Err(silent(config)),
        other => other.map_err(|error| explained(config, error, 0)),
    }
}

/// Every field is set, because sqlx fills what is left from `PGHOST`,
/// `PGSSLMODE` and their kin, and they must not redirect the connection.
fn options(config: &Config, postgres: &Postgres) -> Result<PgConnectOptions, Error> {
    check_password(config, postgres)?;
    let tls = &postgres.tls;
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&postgres.host)
        .port(postgres.port)
        .username(&postgres.user)
        .password(
            postgres
                .password
                .as_ref()
                .map_or("", ExposeSecret::expose_secret),
        )
        .database(&postgres.database)
        .application_name(&postgres.application_name)
        .ssl_mode(match tls.mode {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        });
    options = match &tls.ca {
        Some(ca) => options.ssl_root_cert(ca),
        // An empty PEM adds nothing, and takes PGSSLROOTCERT's place.
        None => options.ssl_root_cert_from_pem(Vec::new()),
    };
    if let Some((certificate, key)) = &tls.client {
        options = options.ssl_client_cert(certificate).ssl_client_key(key);
    }
    refuse_leftovers(config, postgres, &options)?;
    if postgres.prepared_statements {
        options = options.options(session_options(config, postgres));
    } else {
        // PgBouncer refuses start-up parameters that it doesn't track. The
        // statements that SeaORM sends are named all the same, and a cache of
        // none would never close them at the server.
        options = options.statement_cache_capacity(1).extra_float_digits(None);
    }
    Ok(with_logging(options, config))
}

pub(crate) fn session_options(config: &Config, postgres: &Postgres) -> [(&'static str, String); 4] {
    let ms =
        |timeout: Option<Duration>| timeout.map_or(0, |timeout| timeout.as_millis()).to_string();
    [
        (
            "search_path",
            format!("\"{}\"", postgres.schema.replace('"', "\"\"")),
        ),
        ("statement_timeout", ms(config.statement_timeout)),
        ("lock_timeout", ms(config.lock_timeout)),
        (
            "idle_in_transaction_session_timeout",
            ms(config.idle_in_transaction_timeout),
        ),
    ]
}

/// What sqlx reads from the environment and has no setter to undo.
fn refuse_leftovers(
    config: &Config,
    postgres: &Postgres,
    options: &PgConnectOptions,
) -> Result<(), Error> {
    let client_certificate =
        |name| postgres.tls.client.is_none() && std::env::var_os(name).is_some();
    let leftover = if options.get_options().is_some() {
        "PGOPTIONS"
    } else if client_certificate("PGSSLCERT") {
        "PGSSLCERT"
    } else if client_certificate("PGSSLKEY") {
        "PGSSLKEY"
    } else {
        return Ok(());
    };
    Err(Error::Refused {
        target: config.target_name(),
        reason: format!("{leftover} is set in the environment and would change the connection"),
        hint: format!("Only DB_* variables configure aura-db; start it with `env -u {leftover}`."),
        source: None,
    })
}

async fn outside_of_pool(
    config: &Config,
    options: &PgConnectOptions,
) -> Result<PgConnection, Error> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    loop {
        let patience = config.pool.connection_timeout;
        let error = match tokio::time::timeout(patience, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => return Err(silent(config)),
        };
        if tries == config.connect_retries || !may_pass(&error) {
            return Err(explained(config, error, tries));
        }
        tries += 1;
        tracing::warn!(
            target: "aura_db::connection",
            "{} is not accepting connections ({}); trying again in {} ms ({tries} of {})",
            config.target_name(), short(&error), pause.as_millis(), config.connect_retries,
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn short(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// A server that starts, restarts or is full for the moment.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => io_may_pass(error),
        // cannot_connect_now, too_many_connections, crash_shutdown, admin_shutdown
        sqlx::Error::Database(error) => matches!(
            error.code().as_deref(),
            Some("57P03" | "53300" | "57P01" | "57P02")
        ),
        _ => false,
    }
}

fn explained(config: &Config, error: sqlx::Error, tries: u32) -> Error {
    let code = match &error {
        sqlx::Error::Database(error) => error.code().map(std::borrow::Cow::into_owned),
        _ => None,
    };
    let reason = short(&error);
    let passing = may_pass(&error);
    let is_configuration = matches!(error, sqlx::Error::Configuration(_));
    let source = Some(Box::new(error) as _);
    if is_configuration && reason.contains("saslprep username") {
        return Error::Refused {
            target: config.target_name(),
            reason:
                "DB_USER holds a character that the driver of the tools doesn't take (SASLprep)"
                    .to_owned(),
            hint: "Give them a role with another name.".to_owned(),
            source: None,
        };
    }
    if is_configuration {
        return Error::Refused {
            target: config.target_name(),
            reason,
            hint: CLIENT_CERTIFICATE.to_owned(),
            source,
        };
    }
    refusal(config, code.as_deref(), reason, passing, tries, source)
}

async fn check_session(
    config: &Config,
    mut connection: PoolConnection<sqlx::Postgres>,
) -> Result<(), Error> {
    let found: Result<(Option<String>, String, bool), _> = sqlx::query_as(SESSION)
        .bind(schema_of(config))
        .fetch_one(&mut *connection)
        .await;
    let (schema, encoding, schema_exists) = found.map_err(|error| explained(config, error, 0))?;
    let found = SessionSettings {
        schema: schema.as_deref(),
        encoding: encoding.as_str(),
        schema_exists,
    };
    check_settings(config, &found)?;
    // Left to itself it would come back too late for the next statement, which
    // would log in again.
    connection.return_to_pool().await;
    Ok(())
}
