//! Reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    /// One for each connection that may be open.
    permits: Arc<Semaphore>,
    /// One for each read that may block.
    blocking: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Each since when; the last used is the last.
    idle: Vec<(Reader, Instant)>,
    lent: usize,
    closed: bool,
    /// A task closes those that are idle for too long.
    watched: bool,
}

type Reader = Box<(Connection, Arc<Limit>)>;

/// A connection in use. One whose reader panicked is not given back.
#[derive(Debug)]
struct Lent {
    shared: Arc<Shared>,
    connection: Option<Reader>,
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit, at most [`Options::patience`].
    async fn permit(&self, of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = of.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let patience = self.options.patience;
        let permit = tokio::time::timeout(patience, of.clone().acquire_owned()).await;
        permit
            .map_err(|_| Error::ReadersHeld(patience))?
            .map_err(|_| Error::Closed)
    }
}

/// Closes connections that are idle for longer than `timeout`, but for
/// [`Options::min_readers`]. Ends when no connection is left to be closed.
async fn watch(shared: Weak<Shared>, timeout: Duration) {
    let mut pause = timeout;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut connections = shared.connections();
        let surplus = (connections.idle.len() + connections.lent)
            .saturating_sub(shared.options.min_readers)
            .min(connections.idle.len());
        let stale = connections
            .idle
            .iter()
            .take(surplus)
            .take_while(|(_, since)| since.elapsed() >= timeout)
            .count();
        let closing: Vec<_> = connections.idle.drain(..stale).collect();
        // The oldest that is left decides when to look again.
        let left = connections.idle.first().filter(|_| stale < surplus);
        let next = left.map(|(_, since)| timeout.saturating_sub(since.elapsed()));
        connections.watched = next.is_some();
        drop(connections);
        drop(closing);
        match next {
            Some(next) => pause = next,
            None => return,
        }
    }
}

impl Lent {
    /// Acquires a connection, at most [`Options::max_readers`] at a time.
    async fn new(shared: &Arc<Shared>) -> Result<Self, Error> {
        let permit = shared.permit(&shared.permits).await?;
        Self::with(shared, permit)
    }

    fn with(shared: &Arc<Shared>, permit: OwnedSemaphorePermit) -> Result<Self, Error> {
        let idle = {
            let mut connections = shared.connections();
            if connections.closed {
                return Err(Error::Closed);
            }
            if shared.options.file.is_moved() {
                return Err(Error::Moved);
            }
            connections.lent += 1;
            connections.idle.pop()
        };
        let mut lent = Self {
            shared: shared.clone(),
            connection: idle.map(|(reader, _)| reader),
            _permit: permit,
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

    /// Acquires a permit to block, and this connection or another. A read that waits
    /// for the permit gives its connection back, so that quick reads go on; and none
    /// holds the permit while it waits for a connection, which would be a deadlock with
    /// the snapshots that hold a connection and wait for the permit.
    async fn placed(self) -> Result<(Self, OwnedSemaphorePermit), Error> {
        if let Ok(place) = self.shared.blocking.clone().try_acquire_owned() {
            return Ok((self, place));
        }
        let shared = self.shared.clone();
        drop(self);
        let place = shared.permit(&shared.blocking).await?;
        if let Ok(permit) = shared.permits.clone().try_acquire_owned() {
            return Ok((Self::with(&shared, permit)?, place));
        }
        drop(place);
        let lent = Self::new(&shared).await?;
        let place = shared.permit(&shared.blocking).await?;
        Ok((lent, place))
    }

    /// Runs a statement where it may block, and gives the connection back with
    /// its rows. When the caller hangs up, the statement ends.
    async fn blocking<T, E, R>(
        self,
        place: OwnedSemaphorePermit,
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
            ..
        } = self.shared.options;
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
        let Some(connection) = connection.filter(|_| !connections.closed) else {
            return;
        };
        connections.idle.push((connection, Instant::now()));
        if let Some(timeout) = self.shared.options.idle_timeout
            && !connections.watched
            && connections.idle.len() + connections.lent > self.shared.options.min_readers
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            connections.watched = true;
            runtime.spawn(watch(Arc::downgrade(&self.shared), timeout));
        }
    }
}

impl Readers {
    /// Readers of this database. Connections are opened when they are needed, at
    /// most [`Options::max_readers`], and closed when they are idle for too long.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.max(1)));
        Self(Arc::new(Shared {
            permits: semaphore(options.max_readers),
            blocking: semaphore(options.blocking_reads),
            options,
            connections: Mutex::default(),
        }))
    }

    /// Returns whether a read would have to wait for a connection.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.permits.available_permits() == 0
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
        let lent = Lent::new(&self.0).await?;
        match lent.inline(&statement, &read) {
            Err(error) if error.over_budget() => {
                // Apart, so that the common case stays small.
                Box::pin(async {
                    let (lent, place) = lent.placed().await?;
                    lent.blocking(place, statement, read).await?.1
                })
                .await
            }
            done => done,
        }
    }

    /// Several reads of one state of the database, that of the first.
    ///
    /// Fails with [`Error::Refused`], [`Error::ReadersHeld`] and [`Error::Closed`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let lent = Lent::new(&self.0).await?;
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
        self.0.permits.close();
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
        let place = lent.shared.permit(&lent.shared.blocking).await?;
        let (lent, rows) = Box::pin(lent.blocking(place, statement, read)).await?;
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
