//! The checked settings of a connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::describe::Setting;
use crate::environment::Environment;
use crate::error::Error;

/// Everything needed to open a database. Made by [`Config::from_env`] or
/// [`Config::from_url`], or in code by [`Config::sqlite`], [`Config::memory`] and
/// [`Config::postgres`]; its fields may be changed before connecting.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Which database.
    pub target: Target,
    /// How many connections, and how long they live.
    pub pool: Pool,
    /// A statement that runs longer is cancelled (PostgreSQL).
    pub statement_timeout: Option<Duration>,
    /// A statement that waits longer for a lock fails: PostgreSQL's
    /// `lock_timeout`, SQLite's busy timeout.
    pub lock_timeout: Option<Duration>,
    /// A transaction that does nothing for so long is ended (PostgreSQL).
    pub idle_in_transaction_timeout: Option<Duration>,
    /// A statement that takes longer is logged as a warning.
    pub slow_query: Option<Duration>,
    /// What a power cut may undo; on SQLite. (On PostgreSQL the server decides.)
    pub durability: Durability,
    /// How often a refused connection is tried again while the server starts.
    pub connect_retries: u32,
    /// Log every statement with its time, never with its values.
    pub logging: bool,
    /// Apply pending migrations when a service connects.
    pub synchronize: bool,
    /// `AURA_ENV=production`: the tools ask before they destroy anything.
    pub production: bool,
    pub(crate) settings: Vec<Setting>,
    pub(crate) warnings: Vec<String>,
}

/// A database: one of the two kinds that aura-db speaks to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Target {
    /// A SQLite file.
    Sqlite {
        /// The file; created, with its folder, when it is missing.
        path: PathBuf,
    },
    /// A private SQLite database that lives in one connection.
    Memory,
    /// A PostgreSQL server.
    Postgres(Box<Postgres>),
}

/// How to reach a PostgreSQL database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Postgres {
    /// Host name, address, or the folder of a Unix socket (starts with `/`).
    pub host: String,
    /// TCP port, and the number in the socket's name.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// The file that the password stands in, which is read again when the server
    /// refuses the password.
    pub password_file: Option<PathBuf>,
    /// Database name.
    pub database: String,
    /// Schema that holds the tables; it is the whole `search_path`.
    pub schema: String,
    /// Encryption and verification.
    pub tls: Tls,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Keep prepared statements on the connection and send start-up options.
    pub prepared_statements: bool,
}

/// Encryption of a PostgreSQL connection.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tls {
    /// What is demanded of the server.
    pub mode: TlsMode,
    /// PEM file of an authority to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Demands this of the server.
    #[must_use]
    pub fn new(mode: TlsMode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// Trusts the authority in a PEM file beside those of the system.
    #[must_use]
    pub fn ca(self, pem: impl Into<PathBuf>) -> Self {
        Self {
            ca: Some(pem.into()),
            ..self
        }
    }

    /// Presents a client certificate, from the PEM files of it and of its key.
    #[must_use]
    pub fn client(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            client: Some((certificate.into(), key.into())),
            ..self
        }
    }
}

/// What is demanded of the server. There is no `verify-ca`: sqlx adds the CA
/// to the public roots, so it would accept any public certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Plain text.
    Disable,
    /// TLS when the server offers it, plain text otherwise; verifies nothing.
    #[default]
    Prefer,
    /// TLS, but verifies nothing: anyone in between can read along.
    Require,
    /// TLS; certificate chain and host name are verified.
    VerifyFull,
}

impl TlsMode {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-full", Self::VerifyFull),
    ];

    /// The mode as `DB_SSL_MODE` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// What a power cut may undo of a SQLite file. What was committed survives the
/// end of the process in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing that was committed: a commit waits until the disk has it
    /// (`synchronous = FULL`).
    #[default]
    Full,
    /// The last commits, though never a part of one (`synchronous = NORMAL`):
    /// for tests, and for what can be made again.
    Normal,
}

/// How many connections, and how long they live.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool {
    /// Connections at the most; on SQLite, of the readers.
    pub max: u32,
    /// Connections kept open when idle.
    pub min: u32,
    /// An idle connection is closed after this.
    pub idle_timeout: Option<Duration>,
    /// How long to wait for a free or a new connection.
    pub connection_timeout: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max: 10,
            min: 0,
            idle_timeout: Some(Duration::from_mins(5)),
            connection_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The settings of the process's environment and its `.env` file.
    ///
    /// Fails with one error that lists every bad variable.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_environment(&Environment::load()?)
    }

    /// The settings in `environment`.
    ///
    /// Fails with one error that lists every bad variable.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        crate::read::config(environment)
    }

    /// Reads the URL of a database, as of `DATABASE_URL`, from another variable of the
    /// process's environment or its `.env` file; everything else is at its default. `None`
    /// when the variable isn't set.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when it is no such URL; as [`Environment::load`].
    pub fn from_url_in(variable: &str) -> Result<Option<Self>, Error> {
        let environment = Environment::load()?;
        let Some((url, _)) = environment.get(variable) else {
            return Ok(None);
        };
        match Self::from_url(url) {
            Err(Error::Config(mut problems)) => {
                for problem in &mut problems {
                    variable.clone_into(&mut problem.variable);
                }
                Err(Error::Config(problems))
            }
            read => read.map(Some),
        }
    }

    /// The SQLite database in this file, everything else at its default.
    #[must_use]
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self::new(Target::Sqlite {
            path: path.as_ref().to_owned(),
        })
    }

    /// A private SQLite database in memory, gone when it is closed.
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Target::Memory)
    }

    /// The PostgreSQL database `database` on `host`, everything else at its
    /// default: see [`Config::port`], [`Config::schema`] and [`Config::tls`].
    #[must_use]
    pub fn postgres(
        host: &str,
        database: &str,
        user: &str,
        password: Option<SecretString>,
    ) -> Self {
        Self::new(Target::Postgres(Box::new(Postgres {
            host: plain_host(host).to_owned(),
            port: 5432,
            user: user.to_owned(),
            password,
            password_file: None,
            database: database.to_owned(),
            schema: "public".to_owned(),
            tls: Tls::default(),
            application_name: "aura-db".to_owned(),
            prepared_statements: true,
        })))
    }

    /// Parses the URL of a database, as `DATABASE_URL` holds it, with everything else at its
    /// default: `sqlite://./data/aura.db` or `postgres://user:password@host:5432/database`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], which says what is wrong, and never shows the password.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        Self::from_environment(&Environment::from_pairs([("DATABASE_URL", url)]))
    }

    /// Sets the most connections that are open at once; on SQLite, of the readers.
    #[must_use]
    pub fn max_connections(mut self, max: u32) -> Self {
        self.pool.max = max;
        self
    }

    /// Sets the server's port. On SQLite it has no effect.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.with_postgres(|postgres| postgres.port = port)
    }

    /// Sets the schema that holds the tables. On SQLite it has no effect.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        self.with_postgres(|postgres| postgres.schema = schema.into())
    }

    /// Sets the encryption of the connection. On SQLite it has no effect.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        self.with_postgres(|postgres| postgres.tls = tls)
    }

    fn with_postgres(mut self, set: impl FnOnce(&mut Postgres)) -> Self {
        if let Target::Postgres(postgres) = &mut self.target {
            set(postgres);
        }
        self
    }

    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            pool: Pool::default(),
            statement_timeout: Some(Duration::from_mins(1)),
            lock_timeout: Some(Duration::from_secs(10)),
            idle_in_transaction_timeout: Some(Duration::from_mins(1)),
            slow_query: Some(Duration::from_secs(1)),
            durability: Durability::Full,
            connect_retries: 5,
            logging: false,
            synchronize: false,
            production: false,
            settings: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The same database for work that may take as long as it takes:
    /// migrations, seeds, bulk loads.
    #[must_use]
    pub fn without_timeouts(mut self) -> Self {
        self.statement_timeout = None;
        self.lock_timeout = None;
        self.idle_in_transaction_timeout = None;
        self.slow_query = None;
        self
    }

    /// What is odd about the settings without being wrong: misspelt names, an
    /// encryption that verifies nothing. Tools print them, services log them.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What it connects to, without secrets: `SQLite ./data/aura.db`,
    /// `PostgreSQL aura@localhost:5432/aura`.
    #[must_use]
    pub fn target_name(&self) -> String {
        match &self.target {
            Target::Sqlite { path } => format!("SQLite {}", path.display()),
            Target::Memory => "SQLite :memory:".to_owned(),
            Target::Postgres(postgres) => {
                let Postgres {
                    host,
                    port,
                    user,
                    database,
                    schema,
                    ..
                } = &**postgres;
                let schema = if schema == "public" {
                    String::new()
                } else {
                    format!(" schema {schema}")
                };
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host.clone()
                };
                format!("PostgreSQL {user}@{host}:{port}/{database}{schema}")
            }
        }
    }

    /// Whether it is a SQLite file that isn't there yet; connecting creates it.
    #[must_use]
    pub fn is_missing_file(&self) -> bool {
        matches!(&self.target, Target::Sqlite { path } if matches!(path.try_exists(), Ok(false)))
    }

    /// Whether the database looks like somebody's production: `AURA_ENV` says
    /// so, or it is a PostgreSQL server on another host.
    #[must_use]
    pub fn looks_like_production(&self) -> bool {
        self.production
            || match &self.target {
                Target::Sqlite { .. } | Target::Memory => false,
                Target::Postgres(postgres) => !is_this_machine(&postgres.host),
            }
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    host.starts_with('/')
        || name.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Takes the brackets off an IPv6 address, which belong to a URL.
pub(crate) fn plain_host(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|inside| inside.strip_suffix(']'))
        .filter(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok())
        .unwrap_or(host)
}
