//! Databases on a PostgreSQL server, copied from one that was migrated.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use connection::{Config, Connector, Target};
use sea_orm::DbBackend;
use tokio::sync::oneshot;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{refused, template};
use crate::migration::{Error, Runner};

/// The advisory lock under which templates are made; those who copy one share it.
const LOCK: i64 = 0x6175_7261_7465_7374;

/// The names of databases begin with this, and nothing else does.
const PREFIX: &str = "aura_test";
const TEMPLATE_PREFIX: &str = "aura_template";

/// A database on a server, dropped with this.
///
/// A thread of its own holds a session, in which the database is created and dropped: a
/// runtime can't wait inside of another. The session has the name of the database
/// (`application_name`), and a database without one was left by a process that was killed.
#[derive(Debug)]
pub(super) struct ServerDatabase {
    name: String,
    /// Dropped to end the thread.
    in_use: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerDatabase {
    /// Creates a database with this schema.
    ///
    /// # Errors
    ///
    /// As [`super::TemporaryDatabase::create`].
    pub(super) async fn create(server: &Config, schema: &[Runner]) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Containers have the same process ids.
        let name = format!(
            "{PREFIX}_{}_{number}_{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let (created, ready) = oneshot::channel();
        let (in_use, ended) = oneshot::channel();
        let thread = {
            let (server, name, schema) = (server.clone(), name.clone(), schema.to_vec());
            std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || hold(&server, &name, &schema, created, ended))
                .map_err(|error| refused("a thread", error))?
        };
        let database = Self {
            name,
            in_use: Some(in_use),
            thread: Some(thread),
        };
        let ready = ready.await;
        ready.unwrap_or_else(|_| Err(refused("a database", "its thread has panicked").into()))?;
        Ok(database)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for ServerDatabase {
    fn drop(&mut self) {
        self.in_use = None;
        if let Some(thread) = self.thread.take() {
            // Should it have panicked, the next test drops the database.
            let _ = thread.join();
        }
    }
}

/// Returns the settings of another database on the same server.
pub(super) fn with_database(server: &Config, name: &str) -> Config {
    let mut config = server.clone();
    if let Target::Postgres(postgres) = &mut config.target {
        name.clone_into(&mut postgres.database);
    }
    config
}

/// Creates a database, and drops it when it is no longer in use.
fn hold(
    server: &Config,
    name: &str,
    schema: &[Runner],
    created: oneshot::Sender<Result<(), Error>>,
    ended: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = created.send(Err(refused("a runtime", error).into()));
            return;
        }
    };
    runtime.block_on(async {
        let admin = match Admin::open(server, name).await {
            Ok(admin) => admin,
            Err(error) => {
                let _ = created.send(Err(error));
                return;
            }
        };
        let done = admin.create(name, schema).await;
        if done.is_ok() {
            admin.drop_leftovers().await;
        }
        let _ = created.send(done);
        // An error: nothing is sent.
        let _ = ended.await;
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        if admin.run(&drop).await.is_err() {
            // The server was restarted, or has ended the session.
            if let Ok(admin) = Admin::open(server, name).await {
                let _ = admin.run(&drop).await;
            }
        }
    });
}

/// A session that creates and drops databases.
struct Admin {
    server: Config,
    client: Client,
}

impl Admin {
    async fn open(server: &Config, name: &str) -> Result<Self, Error> {
        let mut server = server.clone().without_timeouts();
        if let Target::Postgres(postgres) = &mut server.target {
            name.clone_into(&mut postgres.application_name);
        }
        let session = Connector::new(&server)?.connect_first().await?;
        tokio::spawn(session.connection);
        let client = session.client;
        Ok(Self { server, client })
    }

    async fn create(&self, name: &str, schema: &[Runner]) -> Result<(), Error> {
        if schema.is_empty() {
            let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
            return self.run(&create).await;
        }
        let fingerprint = template::fingerprint(schema, DbBackend::Postgres);
        let template = format!("{TEMPLATE_PREFIX}_{fingerprint:016x}");
        let share = format!("SELECT pg_advisory_lock_shared({LOCK})");
        let end_sharing = format!("SELECT pg_advisory_unlock_shared({LOCK})");
        self.run(&share).await?;
        if !self.exists(&template).await? {
            self.run(&end_sharing).await?;
            self.make_template(&template, schema).await?;
            self.run(&share).await?;
        }
        self.run(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await?;
        self.run(&end_sharing).await
    }

    /// Makes a template, unless another process does. Drops those that are older than a
    /// week: one that is still needed is made again.
    async fn make_template(&self, template: &str, schema: &[Runner]) -> Result<(), Error> {
        self.run(&format!("SELECT pg_advisory_lock({LOCK})"))
            .await?;
        if !self.exists(template).await? {
            let unfinished = format!("{template}_building");
            self.run(&format!("DROP DATABASE IF EXISTS {unfinished}"))
                .await?;
            self.run(&format!(
                "CREATE DATABASE {unfinished} TEMPLATE template0 ENCODING 'UTF8'"
            ))
            .await?;
            let config = with_database(&self.server, &unfinished);
            for runner in schema {
                runner.up(&config).await?;
            }
            self.run(&format!(
                "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE {unfinished} IS %L', now()); END $$"
            ))
            .await?;
            self.run(&format!("ALTER DATABASE {unfinished} RENAME TO {template}"))
                .await?;
            let old = format!(
                "SELECT datname FROM pg_database WHERE datname LIKE '{TEMPLATE_PREFIX}\\_%' \
                 AND shobj_description(oid, 'pg_database') < (now() - interval '7 days')::text"
            );
            self.drop_all(&old).await;
        }
        self.run(&format!("SELECT pg_advisory_unlock({LOCK})"))
            .await
    }

    /// Drops the databases of processes that were killed.
    async fn drop_leftovers(&self) {
        self.drop_all(&format!(
            "SELECT datname FROM pg_database AS database WHERE datname LIKE '{PREFIX}\\_%' \
             AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = database.datname)"
        ))
        .await;
    }

    /// Drops the databases that a query names. Another process may do the same at this
    /// moment, and an error is no reason to fail a test.
    async fn drop_all(&self, query: &str) {
        for name in self.names(query).await.unwrap_or_default() {
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            let _ = self.run(&drop).await;
        }
    }

    async fn exists(&self, name: &str) -> Result<bool, Error> {
        let query = format!("SELECT datname FROM pg_database WHERE datname = '{name}'");
        Ok(!self.names(&query).await?.is_empty())
    }

    async fn names(&self, query: &str) -> Result<Vec<String>, Error> {
        let messages = self.client.simple_query(query).await;
        let messages = messages.map_err(|error| self.failed(error))?;
        let names = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(names.collect())
    }

    async fn run(&self, sql: &str) -> Result<(), Error> {
        let done = self.client.simple_query(sql).await;
        done.map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn failed(&self, error: tokio_postgres::Error) -> Error {
        let what = format!("a database of the tests on {}", self.server.target_name());
        refused(what, error).into()
    }
}
