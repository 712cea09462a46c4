//! The databases that are measured on: one is filled, and each workload has a
//! copy of it, so that none finds what another wrote.

use std::path::{Path, PathBuf};

use connection::{Config, Environment};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use secrecy::ExposeSecret;

use crate::data::{self, Shape};
use crate::peer::Target;
use crate::peers::aura::config;
use crate::workload::Backend;
use crate::{Result, deliveries, pin};

/// A filled database, and its copies.
pub(crate) struct Databases {
    pub backend: Backend,
    folder: tempfile::TempDir,
    template: Target,
    next: u32,
    /// What it is of.
    pub version: (String, String),
    /// What the server says of itself that matters for the figures.
    pub settings: Vec<(String, String)>,
}

/// The server that the environment leads to, if it leads to one.
pub(crate) fn server() -> Result<Option<Target>> {
    let environment = Environment::load()?;
    let config = Config::from_environment(&environment)?;
    if let aura_db::Target::Postgres(postgres) = config.target {
        return Ok(Some(Target::Postgres {
            host: postgres.host.clone(),
            port: postgres.port,
            user: postgres.user.clone(),
            password: postgres
                .password
                .map(|password| password.expose_secret().to_owned()),
            database: postgres.database.clone(),
        }));
    }
    let said = |name: &str| environment.get(name).map(|(value, _)| value.to_owned());
    let (Some(port), Some(user)) = (said("PGPORT"), said("PGUSER")) else {
        return Ok(None);
    };
    Ok(Some(Target::Postgres {
        host: "127.0.0.1".to_owned(),
        port: port.parse()?,
        user,
        password: said("PGPASSWORD"),
        database: "postgres".to_owned(),
    }))
}

/// Databases that this process makes begin with this.
fn prefix() -> String {
    format!("aura_bench_{}_", std::process::id())
}

fn named(server: &Target, name: &str) -> Target {
    let mut target = server.clone();
    if let Target::Postgres { database, .. } = &mut target {
        name.clone_into(database);
    }
    target
}

async fn connect(target: &Target) -> Result<DatabaseConnection> {
    Ok(connection::connect_exclusive(&config(target, 1)).await?)
}

async fn run(server: &Target, statements: &[String]) -> Result<()> {
    let connection = connect(server).await?;
    for sql in statements {
        connection.execute_unprepared(sql).await?;
    }
    Ok(connection.close().await?)
}

/// Drops what this process made on a server, however it ended.
pub(crate) async fn clear(server: &Target) -> Result<()> {
    let connection = connect(server).await?;
    let sql = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)";
    let query = Statement::from_sql_and_values(DbBackend::Postgres, sql, [prefix().into()]);
    for row in connection.query_all_raw(query).await? {
        let name: String = row.try_get_by_index(0)?;
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        connection.execute_unprepared(&drop).await?;
    }
    Ok(connection.close().await?)
}

/// Returns the process of a server on this machine that has started its others.
pub(crate) async fn postmaster(server: &Target) -> Result<i32> {
    let connection = connect(server).await?;
    let query = Statement::from_string(DbBackend::Postgres, "SELECT pg_backend_pid()");
    let row = connection.query_one_raw(query).await?.ok_or("no answer")?;
    let found = pin::parent_of(row.try_get_by_index(0)?, "postgres");
    connection.close().await?;
    found.ok_or_else(|| "--pin: PostgreSQL doesn't run on this machine".into())
}

impl Databases {
    /// Fills a database: a file, or one on this server.
    pub(crate) async fn make(
        server: Option<&Target>,
        folder: Option<&Path>,
        shape: Shape,
    ) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("aura-bench-");
        let folder = match folder {
            Some(folder) => builder.tempdir_in(folder)?,
            None => builder.tempdir()?,
        };
        let (backend, template) = match server {
            None => {
                let path = folder.path().join("template.db");
                (Backend::Sqlite, Target::Sqlite { path })
            }
            Some(server) => {
                let name = format!("{}template", prefix());
                let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
                run(server, &[create]).await?;
                (Backend::Postgres, named(server, &name))
            }
        };
        migration::up(&config(&template, 1).without_timeouts()).await?;
        let connection = connect(&template).await?;
        data::fill(&connection, shape).await?;
        let (version, settings) = about(&connection).await?;
        connection.close().await?;
        Ok(Self {
            backend,
            folder,
            template,
            next: 0,
            version,
            settings,
        })
    }

    /// A copy of its own.
    pub(crate) async fn copy(&mut self) -> Result<Target> {
        self.next += 1;
        match &self.template {
            Target::Sqlite { path } => {
                let copy = self.folder.path().join(format!("{}.db", self.next));
                std::fs::copy(path, &copy)?;
                Ok(Target::Sqlite { path: copy })
            }
            Target::Postgres { database, .. } => {
                let copy = named(&self.template, &format!("{}{}", prefix(), self.next));
                let Target::Postgres { database: name, .. } = &copy else {
                    return Ok(copy);
                };
                let create = format!("CREATE DATABASE {name} TEMPLATE {database}");
                let server = named(&self.template, "postgres");
                // What was copied is written out now and not while measuring.
                run(&server, &[create, "CHECKPOINT".to_owned()]).await?;
                Ok(copy)
            }
        }
    }

    /// Removes a copy.
    pub(crate) async fn remove(&self, copy: Target) -> Result<()> {
        match &copy {
            Target::Sqlite { path } => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.clone().into_os_string();
                    file.push(suffix);
                    let _ = std::fs::remove_file(PathBuf::from(file));
                }
                Ok(())
            }
            Target::Postgres { database, .. } => {
                let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
                run(&named(&copy, "postgres"), &[drop]).await
            }
        }
    }
}

type Named = (String, String);

/// The version of the engine, and its settings.
async fn about(connection: &DatabaseConnection) -> Result<(Named, Vec<Named>)> {
    if connection.get_database_backend() == DbBackend::Sqlite {
        let version = ("SQLite".to_owned(), rusqlite::version().to_owned());
        return Ok((version, Vec::new()));
    }
    let show = async |setting: &str| -> Result<String> {
        let query = Statement::from_string(DbBackend::Postgres, format!("SHOW {setting}"));
        let row = connection.query_one_raw(query).await?.ok_or("no answer")?;
        Ok(row.try_get_by_index(0)?)
    };
    let mut settings = Vec::new();
    for setting in ["fsync", "full_page_writes", "shared_buffers"] {
        let title = format!("PostgreSQL's {setting}");
        settings.push((title, show(setting).await?));
    }
    let version = ("PostgreSQL".to_owned(), show("server_version").await?);
    Ok((version, settings))
}

/// A connection that clears up between turns.
pub(crate) struct Janitor(DatabaseConnection);

impl Janitor {
    pub(crate) async fn new(target: &Target) -> Result<Self> {
        Ok(Self(connect(target).await?))
    }

    /// Brings what was written to its place on the disk, so that nobody waits
    /// for what the one before wrote.
    pub(crate) async fn clear_up(&self) -> Result<()> {
        let sql = match self.0.get_database_backend() {
            DbBackend::Postgres => "CHECKPOINT",
            // The next begins at the start of a WAL that is as long as it was, as in a
            // service that runs for a while: to make it longer takes longer.
            _ => "PRAGMA wal_checkpoint(RESTART)",
        };
        self.0.execute_unprepared(sql).await?;
        Ok(())
    }

    /// Has the server know how long the tables are, as after a while.
    pub(crate) async fn analyze(&self) -> Result<()> {
        if self.0.get_database_backend() == DbBackend::Postgres {
            self.0.execute_unprepared("VACUUM ANALYZE").await?;
        }
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}

/// What the written rows came to, to compare with what others wrote.
pub(crate) async fn written(target: &Target) -> Result<serde_json::Value> {
    let connection = connect(target).await?;
    let backend = connection.get_database_backend();
    // SeaORM on PostgreSQL binds `jsonb`, which spaces and sorts what it holds.
    let document = match backend {
        DbBackend::Postgres => "CAST(CAST(nodes AS jsonb) AS text)",
        _ => "json(nodes)",
    };
    let workflow =
        format!("SELECT concat(name, ' ', version, ' ', {document}) FROM workflows WHERE id = 1");
    let mut told = Vec::new();
    for sql in [
        "SELECT concat(count(*), ' ', max(id), ' ', sum(length(message)), ' ', sum(workflow_id), ' ', count(metadata)) FROM logs",
        &workflow,
        &deliveries::written(backend),
    ] {
        let row = connection
            .query_one_raw(Statement::from_string(backend, sql))
            .await?;
        let text: String = row.ok_or("no row")?.try_get_by_index(0)?;
        told.push(text);
    }
    connection.close().await?;
    Ok(told.into())
}
