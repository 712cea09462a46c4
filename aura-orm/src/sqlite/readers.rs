//! The connections that read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bind;
use super::connection::{self, CancelOnDrop, Deadline, INLINE_BUDGET, Options};
use super::error::Error;
use crate::fetched::{DecodedRows, Decoding};
use crate::{RowError, Statement};

/// The rows of a statement that ran, or the error of the first that can't be read.
type QueryResult = Result<Result<DecodedRows, RowError>, Error>;

/// The connections that read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    pool: Mutex<Pool>,
    /// One for each connection that may be open.
    connections: Arc<Semaphore>,
    /// One for each read that may block.
    blocking: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Each with the time of its release; the last released is the last.
    idle: Vec<(Reader, Instant)>,
    in_use: usize,
    closed: bool,
    /// A task closes connections that are idle for too long.
    closing_idle: bool,
}

type Reader = Box<(Connection, Arc<Deadline>)>;

/// A connection in use. It isn't returned to the pool when its user panicked.
#[derive(Debug)]
struct ReaderGuard {
    shared: Arc<Shared>,
    connection: Option<Reader>,
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit, at most [`Options::acquire_timeout`].
    async fn acquire(&self, of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = of.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let timeout = self.options.acquire_timeout;
        let permit = tokio::time::timeout(timeout, of.clone().acquire_owned()).await;
        permit
            .map_err(|_| Error::ReadersBusy(timeout))?
            .map_err(|_| Error::Closed)
    }
}

/// Closes connections that are idle for longer than `timeout`, but for
/// [`Options::min_readers`]. Ends when no connection is left to be closed.
async fn close_idle(shared: Weak<Shared>, timeout: Duration) {
    let mut pause = timeout;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut pool = shared.pool();
        let surplus = (pool.idle.len() + pool.in_use)
            .saturating_sub(shared.options.min_readers)
            .min(pool.idle.len());
        let expired = pool
            .idle
            .iter()
            .take(surplus)
            .take_while(|(_, since)| since.elapsed() >= timeout)
            .count();
        let closing: Vec<_> = pool.idle.drain(..expired).collect();
        // The oldest that is left decides when to look again.
        let left = pool.idle.first().filter(|_| expired < surplus);
        let next = left.map(|(_, since)| timeout.saturating_sub(since.elapsed()));
        pool.closing_idle = next.is_some();
        drop(pool);
        drop(closing);
        match next {
            Some(next) => pause = next,
            None => return,
        }
    }
}

impl ReaderGuard {
    /// Acquires a connection, at most [`Options::max_readers`] at a time.
    async fn acquire(shared: &Arc<Shared>) -> Result<Self, Error> {
        let permit = shared.acquire(&shared.connections).await?;
        Self::with(shared, permit)
    }

    fn with(shared: &Arc<Shared>, permit: OwnedSemaphorePermit) -> Result<Self, Error> {
        let idle = {
            let mut pool = shared.pool();
            if pool.closed {
                return Err(Error::Closed);
            }
            if shared.options.file.is_moved() {
                return Err(Error::Moved);
            }
            pool.in_use += 1;
            pool.idle.pop()
        };
        let mut guard = Self {
            shared: shared.clone(),
            connection: idle.map(|(reader, _)| reader),
            _permit: permit,
        };
        if guard.connection.is_none() {
            guard.connection = Some(Box::new(connection::reader(&shared.options)?));
        }
        Ok(guard)
    }

    fn get(&self) -> Result<&(Connection, Arc<Deadline>), Error> {
        self.connection.as_deref().ok_or(Error::Closed)
    }

    /// Runs a statement in the calling task, within the budget.
    fn query_inline(&self, statement: &Statement, decoding: Decoding) -> QueryResult {
        let (connection, deadline) = self.get()?;
        deadline.set(Some(INLINE_BUDGET));
        bind::query(statement, connection, decoding)
    }

    /// Acquires a permit to block, and this connection or another. A read that waits for
    /// the permit returns its connection, so that quick reads go on, and those that hold a
    /// permit never wait for one that waits for it.
    async fn with_blocking_permit(self) -> Result<(Self, OwnedSemaphorePermit), Error> {
        if let Ok(permit) = self.shared.blocking.clone().try_acquire_owned() {
            return Ok((self, permit));
        }
        let shared = self.shared.clone();
        drop(self);
        let blocking = shared.acquire(&shared.blocking).await?;
        Ok((Self::acquire(&shared).await?, blocking))
    }

    /// Runs a statement where it may block, and returns the connection with the
    /// rows. The statement ends when its caller goes.
    async fn query_blocking(
        self,
        permit: Option<OwnedSemaphorePermit>,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<(Self, QueryResult), Error> {
        let Options {
            statement_timeout,
            busy_timeout,
            ..
        } = self.shared.options;
        let (_, deadline) = self.get()?;
        let cancel = CancelOnDrop::new(deadline, statement_timeout);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let rows = self.get().and_then(|(connection, _)| {
                connection.busy_timeout(busy_timeout)?;
                let rows = bind::query(&statement, connection, decoding);
                connection.busy_timeout(Duration::ZERO)?;
                rows
            });
            (self, rows)
        });
        let (guard, rows) = done.await.map_err(|_| Error::Panicked)?;
        drop(cancel);
        let rows = match (rows, statement_timeout) {
            (Err(error), Some(timeout)) if error.is_interrupted() => Err(Error::TimedOut(timeout)),
            (rows, _) => rows,
        };
        Ok((guard, rows))
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|reader| {
            let (connection, deadline) = &**reader;
            deadline.set(None);
            !std::thread::panicking()
                && (connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok())
        });
        let mut pool = self.shared.pool();
        pool.in_use -= 1;
        let Some(connection) = connection.filter(|_| !pool.closed) else {
            return;
        };
        pool.idle.push((connection, Instant::now()));
        if let Some(timeout) = self.shared.options.idle_timeout
            && !pool.closing_idle
            && pool.idle.len() + pool.in_use > self.shared.options.min_readers
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            pool.closing_idle = true;
            runtime.spawn(close_idle(Arc::downgrade(&self.shared), timeout));
        }
    }
}

impl Readers {
    /// Creates the readers of a database. Connections are opened when they are
    /// needed, at most [`Options::max_readers`], and closed after
    /// [`Options::idle_timeout`].
    #[must_use]
    pub fn new(options: Options) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.max(1)));
        Self(Arc::new(Shared {
            connections: semaphore(options.max_readers),
            blocking: semaphore(options.blocking_reads),
            options,
            pool: Mutex::default(),
        }))
    }

    /// Returns whether a read would have to wait for a connection.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.connections.available_permits() == 0
    }

    /// Runs a statement that only reads, and reads its rows. The inner error is of the first
    /// row that can't be read. A row may be read twice: a statement that exceeds the budget
    /// starts again elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; [`Error::TimedOut`] when it takes longer than
    /// [`Options::statement_timeout`]; [`Error::ReadersBusy`] when no connection is
    /// free within [`Options::acquire_timeout`]; [`Error::Moved`] and [`Error::Closed`].
    pub async fn query(
        &self,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<Result<DecodedRows, RowError>, Error> {
        // Nothing below yields, so without this a loop of reads would keep its
        // thread from all other tasks.
        tokio::task::coop::consume_budget().await;
        let guard = ReaderGuard::acquire(&self.0).await?;
        match guard.query_inline(&statement, decoding) {
            Err(error) if error.exceeded_budget() => {
                // Boxed, so that the future of the common case stays small.
                Box::pin(async {
                    let (guard, permit) = guard.with_blocking_permit().await?;
                    guard
                        .query_blocking(Some(permit), statement, decoding)
                        .await?
                        .1
                })
                .await
            }
            done => done,
        }
    }

    /// Begins a read transaction, whose reads all see the state of the first.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::ReadersBusy`], [`Error::Moved`] and
    /// [`Error::Closed`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let guard = ReaderGuard::acquire(&self.0).await?;
        let (connection, deadline) = guard.get()?;
        deadline.set(None);
        connection.prepare_cached("BEGIN")?.raw_execute()?;
        Ok(Snapshot(Some(guard)))
    }

    /// Returns the number of open connections, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let pool = self.0.pool();
        let idle = pool.idle.len();
        (idle + pool.in_use, idle)
    }

    /// Closes the idle connections, and the others after their use.
    pub fn close(&self) {
        self.0.connections.close();
        self.0.blocking.close();
        let mut pool = self.0.pool();
        pool.closed = true;
        pool.idle.clear();
    }
}

/// A read transaction. From [`Readers::snapshot`].
#[derive(Debug)]
pub struct Snapshot(Option<ReaderGuard>);

impl Snapshot {
    /// Runs a statement that only reads: see [`Readers::query`]. A read that is
    /// dropped halfway ends the snapshot.
    ///
    /// # Errors
    ///
    /// As [`Readers::query`], and [`Error::Ended`].
    pub async fn query(
        &mut self,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<Result<DecodedRows, RowError>, Error> {
        tokio::task::coop::consume_budget().await;
        let guard = self.0.as_ref().ok_or(Error::Ended)?;
        match guard.query_inline(&statement, decoding) {
            Err(error) if error.exceeded_budget() => {}
            done => return done,
        }
        let guard = self.0.take().ok_or(Error::Ended)?;
        // Without a permit: it keeps its connection meanwhile, of which there is a number.
        let (guard, rows) = Box::pin(guard.query_blocking(None, statement, decoding)).await?;
        self.0 = Some(guard);
        rows
    }

    /// Runs SQL without values or rows, as for savepoints.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] and [`Error::Ended`].
    pub fn execute_sql(&self, sql: &'static str) -> Result<(), Error> {
        let (connection, deadline) = self.0.as_ref().ok_or(Error::Ended)?.get()?;
        deadline.set(None);
        Ok(connection.execute_batch(sql)?)
    }
}
