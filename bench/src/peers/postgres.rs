//! PostgreSQL by hand: tokio-postgres with statements that each connection
//! keeps prepared, and a pool that asks nothing when it lends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::columns::{
    account, all, attempt, delivery, log, plugin, summary, workflow, workflow_and_owner,
};
use super::sql;
use crate::Result;
use crate::data::{self, Entry, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::{LEASE, NO_DELIVERY, Setup, Target};
use crate::rows::{Account, Attempted, Delivery, Details, Json, Log, Summary, Workflow};

/// tokio-postgres.
pub(crate) struct Peer {
    config: Config,
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

    /// Runs an insert of one row and returns the id.
    async fn inserted(&mut self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<i64> {
        let row = self.row(sql, values).await?;
        Ok(row.ok_or("no id came back")?.try_get(0)?)
    }

    async fn insert_delivery(&mut self, new: &NewDelivery) -> Result<i64> {
        let values: [&(dyn ToSql + Sync); 10] = [
            &new.workflow,
            &new.url,
            &new.event,
            &new.status,
            &new.attempts,
            &new.response_code,
            &new.error,
            &new.payload,
            &new.created_at,
            &new.delivered_at,
        ];
        self.inserted(sql::INSERT_DELIVERY, &values).await
    }

    async fn run(&mut self, sql: &str) -> Result<()> {
        let connection = self.connection.as_ref().ok_or("it was given back")?;
        Ok(connection.client.batch_execute(sql).await?)
    }

    async fn transaction(
        &mut self,
        id: i64,
        new: &[NewDelivery; 2],
    ) -> Result<(Delivery, [i64; 2])> {
        self.run("BEGIN").await?;
        let read = self.row(sql::DELIVERY, &[&id]).await?;
        let read = delivery(&read.ok_or(NO_DELIVERY)?)?;
        let [one, other] = new;
        let ids = [
            self.insert_delivery(one).await?,
            self.insert_delivery(other).await?,
        ];
        self.run("COMMIT").await?;
        Ok((read, ids))
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

    async fn list<T>(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
        read: fn(&Row) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>> {
        Ok(all(&self.lend().await?.rows(sql, values).await?, read)?)
    }
}

/// Returns how to connect, for diesel-async too.
pub(super) fn config(setup: &Setup) -> Result<Config> {
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
    let mut config = Config::new();
    config.host(host).port(*port).user(user).dbname(database);
    config.ssl_mode(SslMode::Disable);
    if let Some(password) = password {
        config.password(password);
    }
    Ok(config)
}

impl crate::peer::Peer for Peer {
    async fn open(setup: &Setup) -> Result<Self> {
        let peer = Self {
            config: config(setup)?,
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
        Ok(row.as_ref().map(account).transpose()?)
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        let mut lent = self.lend().await?;
        let Some(row) = lent.row(sql::WORKFLOW_AND_OWNER, &[&id]).await? else {
            return Ok(None);
        };
        let plugins = lent.rows(sql::PLUGINS, &[&id]).await?;
        let (workflow, owner) = workflow_and_owner(&row)?;
        Ok(Some(Details {
            workflow,
            owner,
            plugins: all(&plugins, plugin)?,
        }))
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        self.list(sql::SUMMARIES, &[&owner], summary).await
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        self.list(sql::DOCUMENTS, &[&owner], workflow).await
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let before = self.shape.before(place);
        self.list(sql::LOGS, &[&before], log).await
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        let metadata = Json::Value(entry.metadata);
        let values: [&(dyn ToSql + Sync); 5] = [
            &Entry::LEVEL,
            &entry.message,
            &entry.workflow,
            &data::now(),
            &metadata,
        ];
        self.lend().await?.inserted(sql::APPEND, &values).await
    }

    async fn append_many(&self, mut entries: Vec<Entry>) -> Result<u64> {
        let now = data::now();
        let metadata: Vec<_> = entries
            .iter_mut()
            .map(|entry| Json::Value(entry.metadata.take()))
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
        let (client, statement) = lent.ready(sql::append_many()).await?;
        Ok(client.execute(&statement, &values).await?)
    }

    async fn update(&self, id: i64, name: String) -> Result<i64> {
        let mut lent = self.lend().await?;
        let row = lent.row(sql::WORKFLOW_BY_ID, &[&id]).await?;
        let read = workflow(&row.ok_or("no such workflow")?)?;
        let version = read.summary.version;
        let (client, statement) = lent.ready(sql::UPDATE).await?;
        let now = data::now();
        let values: [&(dyn ToSql + Sync); 5] = [&name, &read.nodes, &now, &id, &version];
        match client.execute(&statement, &values).await? {
            1 => Ok(version + 1),
            _ => Err("the version is stale".into()),
        }
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        let row = self.lend().await?.row(sql::DELIVERY, &[&id]).await?;
        Ok(row.as_ref().map(delivery).transpose()?)
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        let values: [&(dyn ToSql + Sync); 2] = [&workflow, &after];
        self.list(sql::DELIVERIES, &values, delivery).await
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        self.lend().await?.insert_delivery(&new).await
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        let mut lent = self.lend().await?;
        let done = lent.transaction(id, &new).await;
        if done.is_err() {
            // It may be in the transaction still: closed, and not lent again.
            lent.connection = None;
        }
        done
    }

    async fn queue(&self, number: i64) -> Result<i64> {
        let data = Json::from(serde_json::json!({"run": number}).to_string());
        let values: [&(dyn ToSql + Sync); 3] = [&data::now(), &data, &1_i64];
        let queued = self.lend().await?.row(sql::ENQUEUE, &values).await?;
        queued.ok_or("no such workflow")?;
        loop {
            let (worker, now) = ("bench", data::now());
            let values: [&(dyn ToSql + Sync); 3] = [&worker, &(now + LEASE), &now];
            let next = self.lend().await?.row(sql::CLAIM_POSTGRES, &values).await?;
            let Some(next) = next else { continue };
            let (id, claim): (i64, i64) = (next.try_get("id")?, next.try_get("claim_no")?);
            let values: [&(dyn ToSql + Sync); 4] = [&data::now(), &id, &worker, &claim];
            let done = self.lend().await?.row(sql::FINISH, &values).await?;
            done.ok_or(sql::LOST)?;
            return next.try_get::<_, Json>("data")?.run();
        }
    }

    async fn repository_update(&self, id: i64, attempts: i64) -> Result<Delivery> {
        let mut lent = self.lend().await?;
        let row = lent.row(sql::UPDATE_DELIVERY, &[&attempts, &id]).await?;
        Ok(delivery(&row.ok_or(NO_DELIVERY)?)?)
    }

    async fn repository_related(&self, workflow: i64, after: i64) -> Result<Vec<Attempted>> {
        let mut lent = self.lend().await?;
        let values: [&(dyn ToSql + Sync); 2] = [&workflow, &after];
        let rows = all(&lent.rows(sql::DELIVERIES, &values).await?, delivery)?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let attempts = lent.rows(sql::ATTEMPTS_POSTGRES, &[&ids]).await?;
        Ok(Attempted::of(rows, all(&attempts, attempt)?))
    }
}
