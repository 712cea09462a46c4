//! Reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Row};
use tokio::sync::Semaphore;

use crate::bind::Statement;
use crate::connection::{self, BUDGET, GiveUp, Limit, Options};
use crate::error::{AsEngine, Error};

/// The connections that read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    connections: Mutex<Connections>,
    blocking: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Connections {
    idle: Vec<Reader>,
    lent: usize,
    closed: bool,
}

type Reader = Box<(Connection, Arc<Limit>)>;

/// A connection in use. One whose reader panicked is not given back.
#[derive(Debug)]
struct Lent {
    shared: Arc<Shared>,
    connection: Option<Reader>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    fn new(shared: &Arc<Shared>) -> Result<Self, Error> {
        let idle = {
            let mut connections = shared.connections();
            if connections.closed {
                return Err(Error::Closed);
            }
            connections.lent += 1;
            connections.idle.pop()
        };
        let mut lent = Self {
            shared: shared.clone(),
            connection: idle,
        };
        if lent.connection.is_none() {
            lent.connection = Some(Box::new(connection::reader(&shared.options)?));
        }
        Ok(lent)
    }

    fn get(&self) -> Result<&(Connection, Arc<Limit>), Error> {
        self.connection.as_deref().ok_or(Error::Closed)
    }

    /// Runs a statement here and now, within the budget.
    fn inline<T, E: From<Error>>(
        &self,
        statement: &Statement,
        read: impl Fn(&Row<'_>) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let (connection, limit) = self.get()?;
        limit.set(Some(BUDGET));
        statement.query(connection, read)
    }

    /// Runs a statement where it may block, and gives the connection back with
    /// its rows. When the caller hangs up, the statement ends.
    async fn blocking<T, E, R>(
        self,
        statement: Statement,
        read: R,
    ) -> Result<(Self, Result<Vec<T>, E>), E>
    where
        R: Fn(&Row<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsEngine + Send + 'static,
    {
        let Options {
            statement_timeout: most,
            busy_timeout,
            patience,
            ..
        } = self.shared.options;
        let place = self.shared.blocking.clone().acquire_owned();
        let place = tokio::time::timeout(patience, place).await;
        let place = place
            .map_err(|_| Error::ReadersHeld(patience))?
            .map_err(|_| Error::Closed)?;
        let (_, limit) = self.get()?;
        let give_up = GiveUp::of(limit, most);
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            let rows = self.get().map_err(E::from).and_then(|(connection, _)| {
                connection.busy_timeout(busy_timeout).map_err(Error::from)?;
                let rows = statement.query(connection, read);
                connection
                    .busy_timeout(Duration::ZERO)
                    .map_err(Error::from)?;
                rows
            });
            (self, rows)
        });
        let (lent, rows) = done.await.map_err(|_| Error::Panicked)?;
        drop(give_up);
        let rows = match (rows, most) {
            (Err(error), Some(most)) if error.interrupted() => Err(Error::TimedOut(most).into()),
            (rows, _) => rows,
        };
        Ok((lent, rows))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|reader| {
            let (connection, limit) = &**reader;
            limit.set(None);
            !std::thread::panicking()
                && (connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok())
        });
        let mut connections = self.shared.connections();
        connections.lent -= 1;
        if !connections.closed {
            connections.idle.extend(connection);
        }
    }
}

impl Readers {
    /// Readers of this database. Connections are opened when they are needed.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let blocking = Arc::new(Semaphore::new(options.blocking_reads.max(1)));
        Self(Arc::new(Shared {
            options,
            connections: Mutex::default(),
            blocking,
        }))
    }

    /// Runs a statement that only reads, and reads its rows. `read` may see a
    /// row twice: a statement that is over its budget begins anew elsewhere.
    ///
    /// Fails with [`Error::Refused`], with [`Error::TimedOut`] when it takes
    /// longer than statements may, with [`Error::ReadersHeld`], with what `read`
    /// fails with, and with [`Error::Closed`].
    pub async fn query<T, E, R>(&self, statement: Statement, read: R) -> Result<Vec<T>, E>
    where
        R: Fn(&Row<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsEngine + Send + 'static,
    {
        // Nothing in it waits, so without this who reads in a loop would keep its
        // thread from all others.
        tokio::task::coop::consume_budget().await;
        let lent = Lent::new(&self.0)?;
        match lent.inline(&statement, &read) {
            Err(error) if error.over_budget() => {
                // Apart, so that the common case stays small.
                Box::pin(lent.blocking(statement, read)).await?.1
            }
            done => done,
        }
    }

    /// Several reads of one state of the database, that of the first.
    ///
    /// Fails with [`Error::Refused`] and [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let lent = Lent::new(&self.0)?;
        let (connection, limit) = lent.get()?;
        limit.set(None);
        connection.prepare_cached("BEGIN")?.raw_execute()?;
        Ok(Snapshot(Some(lent)))
    }

    /// How many connections there are, and how many of them nobody uses.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let connections = self.0.connections();
        let idle = connections.idle.len();
        (idle + connections.lent, idle)
    }

    /// Closes the connections that nobody uses, and the others after their use.
    pub fn close(&self) {
        self.0.blocking.close();
        let mut connections = self.0.connections();
        connections.closed = true;
        connections.idle.clear();
    }
}

/// Several reads of one state of the database.
#[derive(Debug)]
pub struct Snapshot(Option<Lent>);

impl Snapshot {
    /// Runs a statement that only reads: see [`Readers::query`]. Once a read
    /// was given up halfway, the snapshot has ended.
    pub async fn query<T, E, R>(&mut self, statement: Statement, read: R) -> Result<Vec<T>, E>
    where
        R: Fn(&Row<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + AsEngine + Send + 'static,
    {
        tokio::task::coop::consume_budget().await;
        let lent = self.0.as_ref().ok_or(Error::Ended)?;
        match lent.inline(&statement, &read) {
            Err(error) if error.over_budget() => {}
            done => return done,
        }
        let lent = self.0.take().ok_or(Error::Ended)?;
        let (lent, rows) = Box::pin(lent.blocking(statement, read)).await?;
        self.0 = Some(lent);
        rows
    }

    /// Runs SQL without rows, of the caller's own: savepoints.
    ///
    /// Fails with [`Error::Refused`] and [`Error::Ended`].
    pub fn control(&self, sql: &'static str) -> Result<(), Error> {
        let (connection, limit) = self.0.as_ref().ok_or(Error::Ended)?.get()?;
        limit.set(None);
        Ok(connection.execute_batch(sql)?)
    }
}
