//! SQLite by hand: rusqlite, called inline, with statements that each
//! connection keeps prepared.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Params, Row, TransactionBehavior, params,
};

use super::columns::{
    account, attempt, delivery, log, plugin, summary, workflow, workflow_and_owner,
};
use super::sql;
use crate::Result;
use crate::data::{self, Entry, Shape, sqlite_time};
use crate::deliveries::NewDelivery;
use crate::peer::{BUSY, LEASE, NO_DELIVERY, Setup};
use crate::rows::{Account, Attempted, Delivery, Details, Json, Log, Summary, Workflow};
use crate::workload::Durability;

/// rusqlite.
pub(crate) struct Peer {
    path: PathBuf,
    shape: Shape,
    writer: Mutex<Connection>,
    /// Connections to read with that nobody uses. There are never more in use
    /// than threads, because nothing waits while it has one.
    readers: Mutex<Vec<Connection>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ready(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

impl Peer {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let idle = lock(&self.readers).pop();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            ready(&connection)?;
            connection
        };
        let result = read(&connection);
        lock(&self.readers).push(connection);
        Ok(result?)
    }

    /// Writes a row, and returns it when there is one.
    fn write<T>(
        &self,
        sql: &str,
        values: impl Params,
        row: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let writer = lock(&self.writer);
        let mut statement = writer.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let written = rows.next()?.map(row).transpose()?;
        // It is committed when there are no more.
        while rows.next()?.is_some() {}
        Ok(written)
    }

    fn list<T>(
        &self,
        sql: &str,
        values: impl Params,
        row: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map(values, row)?.collect()
        })
    }
}

fn insert_delivery(connection: &Connection, new: &NewDelivery) -> rusqlite::Result<i64> {
    let values = params![
        new.workflow,
        new.url,
        new.event,
        new.status,
        new.attempts,
        new.response_code,
        new.error,
        new.payload,
        sqlite_time(new.created_at),
        new.delivered_at.map(sqlite_time),
    ];
    inserted(connection, sql::INSERT_DELIVERY, values)
}

fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<i64> {
    let values = params![
        Entry::LEVEL,
        entry.message,
        entry.workflow,
        sqlite_time(data::now()),
        entry.metadata.to_string(),
    ];
    inserted(connection, sql::APPEND, values)
}

/// Runs an insert of one row and returns the id.
fn inserted(connection: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let id = row.get(0)?;
    // To its end, where SQLite thinks of a checkpoint: a statement that is left
    // after its first row is committed, and the WAL grows without limit.
    while rows.next()?.is_some() {}
    Ok(id)
}

impl crate::peer::Peer for Peer {
    const INLINE: bool = true;

    async fn open(setup: &Setup) -> Result<Self> {
        let path = setup.file()?.clone();
        let writer = Connection::open(&path)?;
        ready(&writer)?;
        let synchronous = match setup.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        writer.pragma_update(None, "synchronous", synchronous)?;
        writer.pragma_update(None, "foreign_keys", true)?;
        Ok(Self {
            path,
            shape: setup.shape,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        })
    }

    async fn durability(&self) -> Result<String> {
        let writer = lock(&self.writer);
        let mode: String = writer.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let synchronous: i64 = writer.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        Ok(format!("{mode} {synchronous}"))
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let (digest, now) = (data::digest(token), sqlite_time(data::now()));
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql::AUTHENTICATE)?;
            statement
                .query_row(params![digest, now], |row| account(row))
                .optional()
        })
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql::WORKFLOW_AND_OWNER)?;
            let found = statement.query_row([id], |row| workflow_and_owner(row));
            let Some((workflow, owner)) = found.optional()? else {
                return Ok(None);
            };
            let mut statement = connection.prepare_cached(sql::PLUGINS)?;
            let plugins = statement.query_map([id], |row| plugin(row))?;
            Ok(Some(Details {
                workflow,
                owner,
                plugins: plugins.collect::<rusqlite::Result<_>>()?,
            }))
        })
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        self.list(sql::SUMMARIES, [owner], |row| summary(row))
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        self.list(sql::DOCUMENTS, [owner], |row| workflow(row))
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        self.list(sql::LOGS, [self.shape.before(place)], |row| log(row))
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        Ok(insert(&lock(&self.writer), &entry)?)
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for entry in &entries {
            insert(&transaction, entry)?;
        }
        transaction.commit()?;
        Ok(entries.len() as u64)
    }

    async fn update(&self, id: i64, name: String) -> Result<i64> {
        let read = self.read(|connection| {
            let mut statement = connection.prepare_cached(sql::WORKFLOW_BY_ID)?;
            statement.query_row([id], |row| workflow(row))
        })?;
        let version = read.summary.version;
        let writer = lock(&self.writer);
        let mut statement = writer.prepare_cached(sql::UPDATE)?;
        let now = sqlite_time(data::now());
        match statement.execute(params![name, read.nodes, now, id, version])? {
            1 => Ok(version + 1),
            _ => Err("the version is stale".into()),
        }
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql::DELIVERY)?;
            statement.query_row([id], |row| delivery(row)).optional()
        })
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        self.list(sql::DELIVERIES, [workflow, after], |row| delivery(row))
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        Ok(insert_delivery(&lock(&self.writer), &new)?)
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut statement = transaction.prepare_cached(sql::DELIVERY)?;
        let read = statement.query_row([id], |row| delivery(row))?;
        drop(statement);
        let [one, other] = &new;
        let ids = [
            insert_delivery(&transaction, one)?,
            insert_delivery(&transaction, other)?,
        ];
        transaction.commit()?;
        Ok((read, ids))
    }

    async fn queue(&self, number: i64) -> Result<i64> {
        let data = Json::from(serde_json::json!({"run": number}).to_string());
        let values = params![sqlite_time(data::now()), data, 1];
        self.write(sql::ENQUEUE, values, |_| Ok(()))?
            .ok_or("no such workflow")?;
        let (worker, now) = ("bench", data::now());
        let values = params![worker, sqlite_time(now + LEASE), sqlite_time(now)];
        let (id, claim, data) = self
            .write(sql::CLAIM_SQLITE, values, |row| {
                Ok((
                    row.get::<_, i64>("id")?,
                    row.get::<_, i64>("claim_no")?,
                    row.get::<_, Json>("data")?,
                ))
            })?
            .ok_or("nothing is queued")?;
        let values = params![sqlite_time(data::now()), id, worker, claim];
        self.write(sql::FINISH, values, |_| Ok(()))?
            .ok_or(sql::LOST)?;
        data.run()
    }

    async fn repository_update(&self, id: i64, attempts: i64) -> Result<Delivery> {
        let writer = lock(&self.writer);
        let mut statement = writer.prepare_cached(sql::UPDATE_DELIVERY)?;
        let mut rows = statement.query(params![attempts, id])?;
        let updated = delivery(rows.next()?.ok_or(NO_DELIVERY)?)?;
        while rows.next()?.is_some() {}
        Ok(updated)
    }

    async fn repository_related(&self, workflow: i64, after: i64) -> Result<Vec<Attempted>> {
        let rows = self.own_page(workflow, after).await?;
        let ids: Vec<_> = rows.iter().map(|row| row.id.to_string()).collect();
        let ids = format!("[{}]", ids.join(","));
        let attempts = self.list(sql::ATTEMPTS_SQLITE, [ids], |row| attempt(row))?;
        Ok(Attempted::of(rows, attempts))
    }
}
