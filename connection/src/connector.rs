//! Opens sessions on a PostgreSQL server, for a pool.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::cancel::{Canceller, Server};
use crate::config::{Config, Postgres, Target, Tls, TlsMode};
use crate::connect_error::{ConnectError, may_pass, reason, short};
use crate::error::Error;
use crate::postgres::{FIRST_PAUSE, LONGEST_PAUSE, session_options};
use crate::read::password_in;
use crate::{refusal, tls};

/// A quiet connection is probed after this time, so that a dead one is noticed, also
/// while a statement without a time limit runs.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long to wait for the answer to a probe, and how many may be without one.
const PROBE: (Duration, u32) = (Duration::from_secs(10), 3);
/// How long what was sent may be without an acknowledgement of the network.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);

/// A session on a server.
#[non_exhaustive]
pub struct Session {
    /// What runs its statements.
    pub client: Client,
    /// Has to be polled for it.
    pub connection: SessionConnection,
    /// What cancels its statements. See [`Connector::cancel`].
    pub canceller: Canceller,
}

/// The connection of a [`Session`].
pub type SessionConnection =
    Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Opens sessions on a PostgreSQL server.
pub struct Connector {
    config: Config,
    driver: Mutex<tokio_postgres::Config>,
    certificates: Mutex<Certificates>,
}

/// What was made of the certificate files, and when they were written.
#[derive(Clone)]
struct Certificates {
    tls: MakeRustlsConnect,
    modified: Vec<Option<SystemTime>>,
}

impl Certificates {
    fn read(files: &Tls) -> Result<Self, String> {
        // Before: what is written meanwhile is read at the next failure.
        let modified = Self::modified(files);
        let tls = MakeRustlsConnect::new(tls::client_config(files)?);
        Ok(Self { tls, modified })
    }

    fn modified(files: &Tls) -> Vec<Option<SystemTime>> {
        let client = files.client.iter().flat_map(|(chain, key)| [chain, key]);
        let modified = |file: &PathBuf| std::fs::metadata(file).ok()?.modified().ok();
        files.ca.iter().chain(client).map(modified).collect()
    }
}

/// Why none of several servers has given a session, and which has refused it for good.
struct NotOpened<'a> {
    error: ConnectError,
    by: Option<&'a Server>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("canceller", &self.canceller)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("target", &self.config.target)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Creates a connector. Reads the certificates, and connects to nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for certificates that can't be used, and when the settings name
    /// no server.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let refused = |reason: String, hint: &str| Error::Refused {
            target: config.target_name(),
            reason,
            hint: hint.to_owned(),
            source: None,
        };
        let Target::Postgres(postgres) = &config.target else {
            return Err(refused(
                "it is no PostgreSQL server".to_owned(),
                "Set DB_TYPE=postgres.",
            ));
        };
        refusal::check_password(config, postgres)?;
        let certificates = Certificates::read(&postgres.tls).map_err(|reason| {
            let hint = refusal::tls_hint(&reason).unwrap_or(refusal::CLIENT_CERTIFICATE);
            refused(reason, hint)
        })?;
        Ok(Self {
            driver: Mutex::new(driver(config, postgres)),
            certificates: Mutex::new(certificates),
            config: config.clone(),
        })
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn driver(&self) -> MutexGuard<'_, tokio_postgres::Config> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn certificates(&self) -> MutexGuard<'_, Certificates> {
        let certificates = self.certificates.lock();
        certificates.unwrap_or_else(PoisonError::into_inner)
    }

    fn tls(&self) -> MakeRustlsConnect {
        self.certificates().tls.clone()
    }

    /// Opens a session, within this time. When that fails, what may have been rotated is
    /// read again: `DB_PASS_FILE` when the server refuses the password, otherwise the
    /// certificates that were written since.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(&self, timeout: Duration) -> Result<Session, ConnectError> {
        let deadline = Instant::now() + timeout;
        let opened = async {
            let servers = self.servers().await.map_err(ConnectError::Unresolved)?;
            let refused = match self.connect_to(&servers, deadline).await {
                Ok(session) => return Ok(session),
                Err(refused) => refused,
            };
            if !self.renew(&refused.error).await {
                return Err(refused.error);
            }
            // Not those again that gave no answer before it.
            let again = refused.by.map_or(&*servers, std::slice::from_ref);
            let opened = self.connect_to(again, deadline).await;
            opened.map_err(|refused| refused.error)
        };
        let opened = tokio::time::timeout_at(deadline, opened).await;
        opened.unwrap_or(Err(ConnectError::Silent(timeout)))
    }

    /// Returns where the server may be: a name may have several addresses.
    async fn servers(&self) -> io::Result<Vec<Server>> {
        let Target::Postgres(postgres) = &self.config.target else {
            return Ok(Vec::new());
        };
        #[cfg(unix)]
        if postgres.host.starts_with('/') {
            let socket = format!(".s.PGSQL.{}", postgres.port);
            return Ok(vec![Server::Socket(Path::new(&postgres.host).join(socket))]);
        }
        let found = tokio::net::lookup_host((&*postgres.host, postgres.port)).await?;
        Ok(found.map(Server::Address).collect())
    }

    /// Opens a session on the first of these that gives one, or refuses it for good. Each has
    /// its share of the time that is left, so that one that is silent doesn't keep it from the
    /// next.
    async fn connect_to<'a>(
        &self,
        servers: &'a [Server],
        deadline: Instant,
    ) -> Result<Session, NotOpened<'a>> {
        let begun = Instant::now();
        let mut failed = ConnectError::Silent(deadline - begun);
        for (number, server) in servers.iter().enumerate() {
            let left = u32::try_from(servers.len() - number).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            let mut driver = self.driver().clone();
            if let Server::Address(address) = server {
                driver.hostaddr(address.ip());
            }
            match tokio::time::timeout(share, driver.connect(self.tls())).await {
                Ok(Ok((client, connection))) => {
                    let canceller = Canceller::new(client.cancel_token(), server.clone());
                    return Ok(Session {
                        client,
                        connection,
                        canceller,
                    });
                }
                Ok(Err(error)) if error.code().is_some() && !may_pass(&error) => {
                    return Err(NotOpened {
                        error: ConnectError::Failed(error),
                        by: Some(server),
                    });
                }
                // What a server says is worth more than that others say nothing.
                _ if failed.is_said() => {}
                Ok(Err(error)) => failed = ConnectError::Failed(error),
                Err(_) => failed = ConnectError::Silent(deadline - begun),
            }
        }
        Err(NotOpened {
            error: failed,
            by: None,
        })
    }

    async fn renew(&self, error: &ConnectError) -> bool {
        if error.is_wrong_password() {
            self.renew_password().await
        } else {
            self.renew_certificates().await
        }
    }

    /// Reads the certificates again if they were written since. Returns whether there are
    /// others to try.
    async fn renew_certificates(&self) -> bool {
        let Target::Postgres(postgres) = &self.config.target else {
            return false;
        };
        let (files, known) = (postgres.tls.clone(), self.certificates().modified.clone());
        let read = tokio::task::spawn_blocking(move || {
            (Certificates::modified(&files) != known).then(|| Certificates::read(&files))
        });
        match read.await {
            Ok(Some(Ok(certificates))) => {
                *self.certificates() = certificates;
                true
            }
            Ok(Some(Err(problem))) => {
                tracing::warn!(target: "aura_db::connection", "{problem}");
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Reads `DB_PASS_FILE` again. Returns whether there is a password to try.
    async fn renew_password(&self) -> bool {
        let Target::Postgres(postgres) = &self.config.target else {
            return false;
        };
        let Some(file) = postgres.password_file.clone() else {
            return false;
        };
        let read = tokio::task::spawn_blocking(move || password_in(&file)).await;
        match read {
            Ok(Ok(password)) => {
                self.driver().password(password.expose_secret());
                true
            }
            Ok(Err(problem)) => {
                tracing::warn!(target: "aura_db::connection", "DB_PASS_FILE {problem}");
                false
            }
            Err(_) => false,
        }
    }

    /// Opens the first session, and checks its schema and the encoding. A server that is
    /// starting up is tried again `connect_retries` times.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and [`Error::Refused`], with the setting that is wrong.
    pub async fn connect_first(&self) -> Result<Session, Error> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        let timeout = self.config.pool.connection_timeout;
        loop {
            let error = match self.connect(timeout).await {
                Ok(session) => return self.checked(session).await,
                Err(error) => error,
            };
            let silent = matches!(error, ConnectError::Silent(_));
            if silent || tries == self.config.connect_retries || !error.is_transient() {
                return Err(self.explain(error, tries));
            }
            tries += 1;
            tracing::warn!(
                target: "aura_db::connection",
                "{} is not accepting connections ({}); trying again in {} ms ({tries} of {})",
                self.config.target_name(), reason(&error), pause.as_millis(),
                self.config.connect_retries,
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn checked(&self, session: Session) -> Result<Session, Error> {
        let Session {
            client,
            mut connection,
            canceller,
        } = session;
        let timeout = self.config.pool.connection_timeout;
        let row = {
            let schema = refusal::schema_of(&self.config);
            let values: [(&(dyn ToSql + Sync), Type); 1] = [(&schema, Type::TEXT)];
            let asked = client.query_typed_one(refusal::SESSION, &values);
            tokio::pin!(asked);
            let polled = std::future::poll_fn(|context| {
                if let std::task::Poll::Ready(row) = asked.as_mut().poll(context) {
                    return std::task::Poll::Ready(row);
                }
                while let std::task::Poll::Ready(Some(Ok(_))) = connection.poll_message(context) {}
                asked.as_mut().poll(context)
            });
            tokio::time::timeout(timeout, polled).await
        };
        let row = match row {
            Ok(row) => row.map_err(ConnectError::Failed),
            Err(_) => Err(ConnectError::Silent(timeout)),
        };
        let row = row.map_err(|error| self.explain(error, 0))?;
        let found = (|| {
            Ok(refusal::SessionSettings {
                schema: row.try_get(0)?,
                encoding: row.try_get(1)?,
                schema_exists: row.try_get(2)?,
            })
        })();
        let found = found.map_err(|error| self.explain(ConnectError::Failed(error), 0))?;
        refusal::check_settings(&self.config, &found)?;
        Ok(Session {
            client,
            connection,
            canceller,
        })
    }

    /// Explains a failure, with the setting that is wrong.
    #[must_use]
    pub fn explain(&self, error: ConnectError, tries: u32) -> Error {
        let transient = error.is_transient();
        let (code, reason, source): (_, _, Box<dyn std::error::Error + Send + Sync>) = match error {
            ConnectError::Failed(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                (code, short(&error), Box::new(error))
            }
            ConnectError::Unresolved(error) => (None, error.to_string(), Box::new(error)),
            ConnectError::Silent(_) => return refusal::silent(&self.config),
        };
        refusal::refusal(
            &self.config,
            code.as_deref(),
            reason,
            transient,
            tries,
            Some(source),
        )
    }

    /// Asks the server to cancel what a session runs, on a connection of its own, and waits
    /// until the server has read it, however long that takes. That it has been asked says
    /// nothing of the statement. Given up before, the request may end an old `PgBouncer`.
    ///
    /// # Errors
    ///
    /// When the request can't be sent.
    pub async fn cancel(&self, canceller: &Canceller) -> io::Result<()> {
        let Target::Postgres(postgres) = &self.config.target else {
            return Ok(());
        };
        canceller.request(&postgres.host, self.tls()).await
    }
}

/// Every field is set, so that nothing of the environment redirects the connection.
fn driver(config: &Config, postgres: &Postgres) -> tokio_postgres::Config {
    let mut driver = tokio_postgres::Config::new();
    driver
        .host(&postgres.host)
        .port(postgres.port)
        .user(&postgres.user)
        .dbname(&postgres.database)
        .application_name(&postgres.application_name)
        .connect_timeout(config.pool.connection_timeout)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(PROBE.0)
        .keepalives_retries(PROBE.1)
        .tcp_user_timeout(UNACKNOWLEDGED)
        .ssl_mode(match postgres.tls.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull => SslMode::Require,
        });
    // The server's refusal of none is clearer than the driver's.
    let password = postgres.password.as_ref();
    driver.password(password.map_or("", |password| password.expose_secret()));
    if postgres.prepared_statements {
        let options = session_options(config, postgres).into_iter();
        let options = options.chain([("TimeZone", "UTC".to_owned())]);
        let options = options.map(|(name, value)| format!("-c {name}={}", escaped(&value)));
        driver.options(options.collect::<Vec<_>>().join(" "));
    }
    driver
}

/// Escapes what separates options (`pg_split_opts` in src/backend/utils/init/postinit.c).
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_ascii_whitespace() || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of a name that has the address of a server that is gone.
    #[tokio::test]
    async fn an_address_that_is_silent_keeps_no_other() {
        let server = testdb::server();
        let server = server.iter().map(|(name, value)| (*name, value.as_str()));
        let server = server.chain([("DB_NAME", "postgres")]);
        let config = Config::from_environment(&crate::Environment::from_pairs(server));
        let connector = Connector::new(&config.expect("settings that work")).expect("it is usable");
        let (known, timeout) = (connector.servers().await, Duration::from_secs(4));
        let known = known.expect("the test server's addresses");
        let Server::Address(address) = &known[0] else {
            panic!("the test server has addresses");
        };
        // It takes connections, and answers nothing.
        let silent = std::net::SocketAddr::from(([127, 0, 0, 76], address.port()));
        let _listener = std::net::TcpListener::bind(silent).expect("a free address");
        let servers: Vec<_> = std::iter::once(Server::Address(silent))
            .chain(known)
            .collect();
        let deadline = Instant::now() + timeout;
        let opened = connector.connect_to(&servers, deadline).await;
        assert!(opened.is_ok());
        let deadline = Instant::now() + timeout / 10;
        let refused = connector.connect_to(&servers[..1], deadline).await;
        let error = refused.map(drop).expect_err("it is silent").error;
        assert!(matches!(error, ConnectError::Silent(_)), "{error:?}");

        // A refusal is the answer, whatever the others do, and is tried again where it came from.
        let wrong = connector;
        wrong.driver().password("wrong");
        let refused = wrong.connect_to(&servers[1..], Instant::now() + timeout);
        let refused = refused.await.map(drop).expect_err("the password is wrong");
        assert!(refused.error.is_wrong_password() && refused.by.is_some());
        let backwards: Vec<_> = servers.iter().rev().cloned().collect();
        let refused = wrong.connect_to(&backwards, Instant::now() + timeout).await;
        let refused = refused.map(drop).expect_err("the password is wrong");
        assert!(refused.error.is_wrong_password());
    }

    #[test]
    fn options_keep_what_separates_them() {
        assert_eq!(escaped(r#""my schema\x""#), r#""my\ schema\\x""#);
    }
}
