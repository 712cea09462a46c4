//! PostgreSQL by hand: tokio-postgres with statements that each connection
//! keeps prepared, and a pool that asks nothing when it lends.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::sql;
use crate::Result;
use crate::data::{self, Entry, Shape};
use crate::peer::{Setup, Target};
use crate::rows::{Account, Details, Json, Log, Plugin, Session, Summary, User, Workflow};

/// tokio-postgres.
pub(crate) struct Peer {
    config: tokio_postgres::Config,
    shape: Shape,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

/// A connection on loan.
struct Lent<'a> {
    peer: &'a Peer,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(&self.peer.idle).push(connection);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent<'_> {
    /// The client, and this statement.
    async fn ready(&mut self, sql: &'static str) -> Result<(&Client, Statement)> {
        let connection = self.connection.as_mut().ok_or("it was given back")?;
        let statement = if let Some(statement) = connection.statements.get(sql) {
            statement.clone()
        } else {
            let statement = connection.client.prepare(sql).await?;
            connection.statements.insert(sql, statement.clone());
            statement
        };
        Ok((&connection.client, statement))
    }

    async fn rows(
        &mut self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let (client, statement) = self.ready(sql).await?;
        Ok(client.query(&statement, values).await?)
    }

    async fn row(
        &mut self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>> {
        let (client, statement) = self.ready(sql).await?;
        Ok(client.query_opt(&statement, values).await?)
    }
}

impl Peer {
    async fn lend(&self) -> Result<Lent<'_>> {
        let permit = self.permits.acquire().await?;
        let idle = lock(&self.idle).pop();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let (client, connection) = self.config.connect(NoTls).await?;
            tokio::spawn(connection);
            Connection {
                client,
                statements: HashMap::new(),
            }
        };
        Ok(Lent {
            peer: self,
            connection: Some(connection),
            _permit: permit,
        })
    }
}

/// `json` and `jsonb` as the text that they are sent as.
#[derive(Debug)]
struct Raw(String);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(
        kind: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        // `jsonb` begins with the number of its format.
        let text = if *kind == Type::JSONB { &raw[1..] } else { raw };
        Ok(Self(std::str::from_utf8(text)?.to_owned()))
    }

    accepts!(JSON, JSONB);
}

impl ToSql for Raw {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *kind == Type::JSONB {
            out.extend_from_slice(&[1]);
        }
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    accepts!(JSON, JSONB);
    to_sql_checked!();
}

type Read<T> = std::result::Result<T, tokio_postgres::Error>;

fn session(row: &Row) -> Read<Session> {
    Ok(Session {
        id: row.try_get(0)?,
        token: row.try_get(1)?,
        user_agent: row.try_get(2)?,
        ip_address: row.try_get(3)?,
        expires_at: row.try_get(4)?,
        last_seen_at: row.try_get(5)?,
        created_at: row.try_get(6)?,
        updated_at: row.try_get(7)?,
        user_id: row.try_get(8)?,
    })
}

fn user(row: &Row, from: usize) -> Read<User> {
    Ok(User {
        id: row.try_get(from)?,
        name: row.try_get(from + 1)?,
        email: row.try_get(from + 2)?,
        hashed_password: row.try_get(from + 3)?,
        role: row.try_get::<_, String>(from + 4)?.into(),
        is_active: row.try_get(from + 5)?,
        created_at: row.try_get(from + 6)?,
        updated_at: row.try_get(from + 7)?,
        deleted_at: row.try_get(from + 8)?,
        created_by: row.try_get(from + 9)?,
        updated_by: row.try_get(from + 10)?,
    })
}

fn json(row: &Row, column: usize) -> Read<Option<Json>> {
    let raw: Option<Raw> = row.try_get(column)?;
    Ok(raw.map(|raw| Json::Text(raw.0)))
}

fn plugin(row: &Row) -> Read<Plugin> {
    Ok(Plugin {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        version: row.try_get(3)?,
        author: row.try_get(4)?,
        is_enabled: row.try_get(5)?,
        created_at: row.try_get(6)?,
        updated_at: row.try_get(7)?,
        deleted_at: row.try_get(8)?,
        created_by: row.try_get(9)?,
        updated_by: row.try_get(10)?,
        config_schema: json(row, 11)?,
    })
}

fn summary(row: &Row) -> Read<Summary> {
    Ok(Summary {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        status: row.try_get::<_, String>(3)?.into(),
        version: row.try_get(4)?,
        owner_id: row.try_get(5)?,
        created_at: row.try_get(6)?,
        updated_at: row.try_get(7)?,
        deleted_at: row.try_get(8)?,
        created_by: row.try_get(9)?,
        updated_by: row.try_get(10)?,
    })
}

fn workflow(row: &Row) -> Read<Workflow> {
    Ok(Workflow {
        summary: summary(row)?,
        deleted_with_owner: row.try_get(11)?,
        settings: json(row, 12)?,
        connections: json(row, 13)?,
        nodes: json(row, 14)?,
        metadata: json(row, 15)?,
    })
}

fn log(row: &Row) -> Read<Log> {
    Ok(Log {
        id: row.try_get(0)?,
        level: row.try_get::<_, String>(1)?.into(),
        message: row.try_get(2)?,
        workflow_id: row.try_get(3)?,
        execution_id: row.try_get(4)?,
        created_at: row.try_get(5)?,
        metadata: json(row, 6)?,
    })
}

fn all<T>(rows: &[Row], read: fn(&Row) -> Read<T>) -> Result<Vec<T>> {
    Ok(rows.iter().map(read).collect::<Read<_>>()?)
}

/// As many rows in one statement as a batch has.
fn insert_many() -> &'static str {
    static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    SQL.get_or_init(|| {
        let rows: Vec<_> = (0..data::ENTRIES)
            .map(|row| {
                let first = row * 5;
                format!(
                    "(${}, ${}, ${}, ${}, ${})",
                    first + 1,
                    first + 2,
                    first + 3,
                    first + 4,
                    first + 5
                )
            })
            .collect();
        format!(
            "INSERT INTO logs (level, message, workflow_id, created_at, metadata) VALUES {}",
            rows.join(", ")
        )
    })
}

impl crate::peer::Peer for Peer {
    async fn open(setup: &Setup) -> Result<Self> {
        let Target::Postgres {
            host,
            port,
            user,
            password,
            database,
        } = &setup.target
        else {
            return Err("it speaks to PostgreSQL only".into());
        };
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(*port).user(user).dbname(database);
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = password {
            config.password(password);
        }
        let peer = Self {
            config,
            shape: setup.shape,
            permits: Semaphore::new(setup.connections as usize),
            idle: Mutex::default(),
        };
        drop(peer.lend().await?);
        Ok(peer)
    }

    async fn durability(&self) -> Result<String> {
        let mut lent = self.lend().await?;
        let row = lent.row("SHOW synchronous_commit", &[]).await?;
        Ok(row.ok_or("no answer")?.try_get(0)?)
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let (digest, now) = (data::digest(token), data::now());
        let mut lent = self.lend().await?;
        let row = lent.row(sql::AUTHENTICATE, &[&digest, &now]).await?;
        row.map(|row| {
            Ok(Account {
                session: session(&row)?,
                user: user(&row, sql::SESSION)?,
            })
        })
        .transpose()
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        let mut lent = self.lend().await?;
        let Some(row) = lent.row(sql::WORKFLOW_AND_OWNER, &[&id]).await? else {
            return Ok(None);
        };
        let plugins = lent.rows(sql::PLUGINS, &[&id]).await?;
        Ok(Some(Details {
            workflow: workflow(&row)?,
            owner: user(&row, sql::WORKFLOW)?,
            plugins: all(&plugins, plugin)?,
        }))
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        let rows = self.lend().await?.rows(sql::SUMMARIES, &[&owner]).await?;
        all(&rows, summary)
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        let rows = self.lend().await?.rows(sql::DOCUMENTS, &[&owner]).await?;
        all(&rows, workflow)
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let before = self.shape.before(place);
        let rows = self.lend().await?.rows(sql::LOGS, &[&before]).await?;
        all(&rows, log)
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        let metadata = Raw(entry.metadata.to_string());
        let values: [&(dyn ToSql + Sync); 5] = [
            &Entry::LEVEL,
            &entry.message,
            &entry.workflow,
            &data::now(),
            &metadata,
        ];
        let row = self.lend().await?.row(sql::APPEND, &values).await?;
        Ok(row.ok_or("no id came back")?.try_get(0)?)
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let now = data::now();
        let metadata: Vec<_> = entries
            .iter()
            .map(|entry| Raw(entry.metadata.to_string()))
            .collect();
        let mut values: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(entries.len() * 5);
        for (entry, metadata) in entries.iter().zip(&metadata) {
            values.extend([
                &Entry::LEVEL as &(dyn ToSql + Sync),
                &entry.message,
                &entry.workflow,
                &now,
                metadata,
            ]);
        }
        let mut lent = self.lend().await?;
        let (client, statement) = lent.ready(insert_many()).await?;
        Ok(client.execute(&statement, &values).await?)
    }

    async fn update(&self, id: i64, name: String) -> Result<i64> {
        let mut lent = self.lend().await?;
        let row = lent.row(sql::WORKFLOW_BY_ID, &[&id]).await?;
        let read = workflow(&row.ok_or("no such workflow")?)?;
        let version = read.summary.version;
        let nodes = read.nodes.map(|nodes| Raw(nodes.into_text()));
        let (client, statement) = lent.ready(sql::UPDATE).await?;
        let now = data::now();
        let values: [&(dyn ToSql + Sync); 5] = [&name, &nodes, &now, &id, &version];
        match client.execute(&statement, &values).await? {
            1 => Ok(version + 1),
            _ => Err("the version is stale".into()),
        }
    }
}
