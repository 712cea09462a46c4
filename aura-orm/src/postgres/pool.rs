//! The pool.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ::connection::{Canceller, ConnectError, Connector, Session as Opened, Target};
use scopeguard::ScopeGuard;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{self, Isolation, PooledConnection};
use super::deadlock::DeadlockTimeout;
use super::error::Error;
use super::key::Keys;
use super::listener::Listener;
use super::pipeline::{Pipelines, Place, Unshared};
use super::session::Session;
use crate::fetched::{DecodedRows, Decoding};
use crate::{RowError, Statement};

/// A session that was idle for longer is asked for an answer before it is used.
const PING_AFTER: Duration = Duration::from_secs(1);

/// How long to wait for that answer.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a session lives, so that a server's memory for it doesn't grow for ever.
const MAX_LIFETIME: Duration = Duration::from_mins(30);

/// The first pause before a server that is starting is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long a statement whose caller has gone may end by itself.
const END_TIMEOUT: Duration = Duration::from_millis(20);

/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the permit of a connection is kept for its statement to end.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for the turn of a cancel request.
const CANCEL_TURN: Duration = Duration::from_secs(5);

/// Cancel requests at the same time; each is a connection with a handshake of its own.
const MAX_CANCELS: usize = 4;

/// How long after `DB_STATEMENT_TIMEOUT` the client waits for the server's own error.
/// On a dead network nothing else would end the statement.
const GRACE: Duration = Duration::from_millis(500);

/// The connections to a PostgreSQL server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool(Arc<PoolInner>);

#[derive(Debug)]
pub(super) struct PoolInner {
    connector: Connector,
    /// How long to wait for the answer to a statement.
    response_timeout: Option<Duration>,
    /// SQL that sets the time limits of a transaction, where the session has none.
    limits: String,
    prepares: bool,
    /// In front of the pool, where waits are counted and limited.
    permits: Arc<Semaphore>,
    cancels: Arc<Semaphore>,
    /// Where connections are closed, also from outside of it.
    runtime: tokio::runtime::Handle,
    idle: Mutex<Idle>,
    /// Counts changes of the schema that were noticed.
    schema: AtomicU64,
    /// Counts how often all connections were found to lead to a server that is no use.
    server: AtomicU64,
    pipelines: Pipelines,
    keys: Keys,
    deadlock_timeout: DeadlockTimeout,
}

#[derive(Debug, Default)]
struct Idle {
    /// Each with the time of its return; the last used is the last.
    connections: Vec<(Box<Session>, Instant)>,
    /// Open connections, with those in use.
    open: u32,
    /// A task closes those that are idle for too long.
    watched: bool,
    closed: bool,
}

impl PoolInner {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn response_timeout(&self) -> Option<Duration> {
        self.response_timeout
    }

    pub(super) fn limits(&self) -> &str {
        &self.limits
    }

    /// Returns whether statements are kept prepared.
    pub(super) fn prepares(&self) -> bool {
        self.prepares
    }

    /// Returns the number of changes of the schema that were noticed.
    pub(super) fn schema(&self) -> u64 {
        self.schema.load(Ordering::Relaxed)
    }

    /// Has each connection prepare its statements anew: those of the others are refused
    /// like the one that was.
    pub(super) fn note_changed_schema(&self) {
        self.schema.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a session to the pool.
    pub(super) fn put(self: &Arc<Self>, session: Box<Session>) {
        let mut idle = self.idle();
        let is_old = session.age() > MAX_LIFETIME || session.server != self.server();
        if idle.closed || is_old {
            drop(idle);
            return self.close_session(session);
        }
        idle.connections.push((session, Instant::now()));
        if self.connector.config().pool.idle_timeout.is_some()
            && !std::mem::replace(&mut idle.watched, true)
        {
            self.runtime.spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Closes a session in good order.
    pub(super) fn close_session(&self, session: Box<Session>) {
        self.idle().open -= 1;
        self.runtime.spawn(session.close());
    }

    fn server(&self) -> u64 {
        self.server.load(Ordering::Relaxed)
    }

    /// Closes all idle connections, and those that are shared or in use when they are idle.
    pub(super) fn discard_all(&self) {
        self.server.fetch_add(1, Ordering::Relaxed);
        self.pipelines.replace();
        let connections = std::mem::take(&mut self.idle().connections);
        for (session, _) in connections {
            self.close_session(session);
        }
    }

    /// Has all idle connections asked for an answer before their next use.
    pub(super) fn check_idle(&self) {
        let mut idle = self.idle();
        if let Some(long_ago) = Instant::now().checked_sub(PING_AFTER) {
            for (_, since) in &mut idle.connections {
                *since = (*since).min(long_ago);
            }
        }
    }

    /// Ends a session whose statement still runs: cancels it, unless it ends by itself.
    /// Until then it counts as open, and keeps its permit: otherwise callers that go one
    /// after the other would keep more of the server than `DB_POOL_MAX`. A server that can't
    /// be reached doesn't keep the permit for long.
    pub(super) fn cancel(
        self: &Arc<Self>,
        mut session: Box<Session>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let pool = self.clone();
        self.runtime.spawn(async move {
            let mut ending = std::pin::pin!(async {
                // Answered after all that is under way.
                let ended = tokio::time::timeout(END_TIMEOUT, session.ping()).await;
                if ended.is_err() && pool.request_cancel(session.canceller()).await {
                    // A pooler forgets the request when its client goes before.
                    let _ = tokio::time::timeout(CANCEL_TIMEOUT, session.ping()).await;
                }
                session.close().await;
            });
            let kept = tokio::time::timeout(PERMIT_TIMEOUT, &mut ending).await;
            pool.idle().open -= 1;
            drop(permit);
            if kept.is_err() {
                ending.await;
            }
        });
    }

    /// Asks the server to cancel a statement, when it is this one's turn. Returns whether it
    /// was asked.
    async fn request_cancel(&self, canceller: &Canceller) -> bool {
        let turn = tokio::time::timeout(CANCEL_TURN, self.cancels.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return false;
        };
        let request = self.connector.cancel(canceller);
        let asked = tokio::time::timeout(CANCEL_TIMEOUT, request).await;
        matches!(asked, Ok(Ok(())))
    }

    pub(super) fn pipelines(&self) -> &Pipelines {
        &self.pipelines
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn deadlock_timeout(&self) -> &DeadlockTimeout {
        &self.deadlock_timeout
    }

    /// Runs a task in the pool's runtime.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Opens a connection that is shared, with the permit that it keeps.
    pub(super) async fn open_shared(&self) -> Option<(OwnedSemaphorePermit, Opened)> {
        let timeout = self.connector.config().pool.connection_timeout;
        let permit = tokio::time::timeout(timeout, self.permits.clone().acquire_owned());
        let permit = permit.await.ok()?.ok()?;
        let surplus = {
            let mut idle = self.idle();
            let is_full = idle.open >= self.connector.config().pool.max;
            // Of as many as there may be, one is idle while its permit is held here.
            let surplus =
                (is_full && !idle.connections.is_empty()).then(|| idle.connections.remove(0));
            // Which gives its place to the new one.
            idle.open += u32::from(surplus.is_none());
            surplus
        };
        if let Some((session, _)) = surplus {
            self.runtime.spawn(session.close());
        }
        let opened = self.connector.connect(timeout).await;
        if opened.is_err() {
            self.note_shared_closed();
        }
        Some((permit, opened.ok()?))
    }

    pub(super) fn note_shared_closed(&self) {
        self.idle().open -= 1;
    }

    /// Cancels the statement that keeps the others of a shared connection.
    pub(super) fn cancel_shared(self: &Arc<Self>, canceller: Canceller) {
        let pool = self.clone();
        self.spawn(async move {
            pool.request_cancel(&canceller).await;
        });
    }

    /// Returns a place on a shared connection, when other short reads are under way.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let max = self.connector.config().pool.max;
        let shared = match max {
            _ if !self.prepares => 0,
            0..4 => 0,
            4..8 => 1,
            8.. => 2,
        };
        self.pipelines.place(self, shared)
    }

    /// Returns whether each connection has a user.
    pub(super) fn is_exhausted(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Takes the session that was used last and is alive. Where there is none, the one that is to
    /// be opened counts from now on, so that none is opened in its place meanwhile.
    async fn take(
        self: &Arc<Self>,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Option<PooledConnection>, Error> {
        loop {
            let next = {
                let mut idle = self.idle();
                if idle.closed {
                    return Err(Error::Closed);
                }
                let next = idle.connections.pop();
                idle.open += u32::from(next.is_none());
                next
            };
            let Some((session, since)) = next else {
                return Ok(None);
            };
            let quiet = since.elapsed() >= PING_AFTER;
            let mut connection = PooledConnection::new(self.clone(), session, permit.take());
            if connection.is_alive(quiet.then_some(PING_TIMEOUT)).await {
                return Ok(Some(connection));
            }
            *permit = connection.into_permit();
        }
    }

    /// Opens a session, which [`PoolInner::take`] has counted. A server that is starting is tried again until the timeout. What
    /// was begun before a call of [`PoolInner::discard_all`] counts as discarded.
    async fn open(
        self: &Arc<Self>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<PooledConnection, Error> {
        let timeout = self.connector.config().pool.connection_timeout;
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        // Also when the caller has gone.
        let counted = scopeguard::guard(self.clone(), |pool| pool.idle().open -= 1);
        loop {
            let server = self.server();
            let left = timeout.saturating_sub(started.elapsed());
            let error = match self.connector.connect(left).await {
                Ok(opened) => {
                    drop(ScopeGuard::into_inner(counted));
                    return Ok(self.opened(opened, server, permit));
                }
                Err(error) => error,
            };
            let silent = matches!(error, ConnectError::Silent(_));
            if silent || !error.is_transient() || started.elapsed() + pause >= timeout {
                return Err(Error::of_connect(&self.connector, error));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    pub(super) async fn acquire(
        self: &Arc<Self>,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Result<PooledConnection, Error> {
        match self.take(&mut permit).await? {
            Some(connection) => Ok(connection),
            None => Box::pin(self.open(permit)).await,
        }
    }

    /// Acquires a connection unless each has a user. Waits for none.
    pub(super) async fn acquire_spare(self: &Arc<Self>) -> Option<PooledConnection> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        self.acquire(Some(permit)).await.ok()
    }

    /// Returns a connection that counts already.
    fn opened(
        self: &Arc<Self>,
        opened: Opened,
        server: u64,
        permit: Option<OwnedSemaphorePermit>,
    ) -> PooledConnection {
        let session = Session::new(opened, self.response_timeout, server);
        PooledConnection::new(self.clone(), session, permit)
    }
}

/// Closes connections that are idle for too long, until none is left to be closed.
async fn watch(pool: Weak<PoolInner>) {
    let mut pause = Duration::from_secs(1);
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let settings = &pool.connector.config().pool;
        let Some(timeout) = settings.idle_timeout else {
            return;
        };
        let expired: Vec<_> = {
            let mut idle = pool.idle();
            let surplus = idle.open.saturating_sub(settings.min) as usize;
            let is_old = |since: &Instant| since.elapsed() >= timeout;
            let old = idle.connections.partition_point(|(_, since)| is_old(since));
            let expired = idle.connections.drain(..old.min(surplus)).collect();
            let next = idle.connections.first().map(|(_, since)| since.elapsed());
            match next {
                Some(age) => pause = timeout.saturating_sub(age).max(Duration::from_millis(50)),
                None => idle.watched = false,
            }
            if next.is_some() && idle.open <= settings.min {
                // Looked at again when another returns.
                idle.watched = false;
            }
            expired
        };
        for (session, _) in expired {
            pool.close_session(session);
        }
        if !pool.idle().watched {
            return;
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        let connections = std::mem::take(&mut self.idle().connections);
        for (session, _) in connections {
            self.runtime.spawn(session.close());
        }
    }
}

impl Pool {
    /// Connects, and checks the schema and the encoding. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// [`connection::Error`](::connection::Error), with the setting that is wrong.
    pub async fn connect(config: &::connection::Config) -> Result<Self, ::connection::Error> {
        let connector = Connector::new(config)?;
        let first = connector.connect_first().await?;
        let prepares = match &config.target {
            Target::Postgres(postgres) => postgres.prepared_statements,
            _ => true,
        };
        // Without start-up options the server has other limits.
        let (grace, limits) = if prepares {
            (GRACE, String::new())
        } else {
            (Duration::ZERO, connection::limits(config))
        };
        let pool = Self(Arc::new(PoolInner {
            response_timeout: config.statement_timeout.map(|limit| limit + grace),
            limits,
            prepares,
            permits: Arc::new(Semaphore::new(config.pool.max.max(1) as usize)),
            cancels: Arc::new(Semaphore::new(MAX_CANCELS)),
            runtime: tokio::runtime::Handle::current(),
            idle: Mutex::default(),
            schema: AtomicU64::new(0),
            server: AtomicU64::new(0),
            pipelines: Pipelines::default(),
            keys: Keys::default(),
            deadlock_timeout: DeadlockTimeout::default(),
            connector,
        }));
        pool.0.idle().open += 1;
        drop(pool.0.opened(first, 0, None));
        Ok(pool)
    }

    /// Returns the semaphore with a permit for each connection.
    #[must_use]
    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.0.permits
    }

    /// Acquires a connection, or opens one, which keeps the permit.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] and [`Error::Closed`].
    pub async fn acquire(&self, permit: OwnedSemaphorePermit) -> Result<PooledConnection, Error> {
        self.0.acquire(Some(permit)).await
    }

    /// Acquires a connection for a transaction, which begins together with its first
    /// statement: one way to the server less. A connection that turns out to have ended by
    /// then is replaced.
    ///
    /// # Errors
    ///
    /// As [`Pool::acquire`].
    pub async fn begin(
        &self,
        isolation: Isolation,
        permit: OwnedSemaphorePermit,
    ) -> Result<PooledConnection, Error> {
        let mut connection = self.acquire(permit).await?;
        connection.begin(isolation);
        Ok(connection)
    }

    /// Runs a short read on a shared connection, together with others. `None` when it has to
    /// run on a connection of its own.
    ///
    /// # Errors
    ///
    /// As [`PooledConnection::query`].
    pub(crate) async fn query_shared(
        &self,
        statement: &Arc<Statement>,
        decoding: Decoding,
    ) -> Result<Option<Result<DecodedRows, RowError>>, Error> {
        match self.0.place() {
            Some(place) => place.query(statement.clone(), decoding).await,
            None => Ok(None),
        }
    }

    /// Counts a short read on a connection of its own, as long as the result lives.
    pub(crate) fn count_unshared(&self) -> Unshared {
        Pipelines::count_unshared(&self.0)
    }

    /// Returns the number of open connections, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (u32, usize) {
        let idle = self.0.idle();
        (idle.open, idle.connections.len())
    }

    /// Listens to a channel, on a connection of its own. `None` when it is closed, and with
    /// `DB_PREPARED_STATEMENTS=false`: a pooler, for which it is, hands connections on.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Failed`] and [`Error::TimedOut`].
    pub async fn listen(&self, channel: &'static str) -> Result<Option<Listener>, Error> {
        if !self.0.prepares || self.0.idle().closed {
            return Ok(None);
        }
        let connector = &self.0.connector;
        let timeout = connector.config().pool.connection_timeout;
        Listener::open(connector, channel, timeout).await.map(Some)
    }

    /// Waits for the statements under way, and closes all connections.
    pub async fn close(&self) {
        let permits = self.0.connector.config().pool.max.max(1);
        let timeout = self.0.connector.config().pool.connection_timeout;
        self.0.pipelines.close();
        let _ = tokio::time::timeout(timeout, self.0.permits.acquire_many(permits)).await;
        self.0.permits.close();
        let connections = {
            let mut idle = self.0.idle();
            idle.closed = true;
            std::mem::take(&mut idle.connections)
        };
        self.0.idle().open -= u32::try_from(connections.len()).unwrap_or(0);
        let closing = connections.into_iter().map(|(session, _)| session.close());
        futures_util::future::join_all(closing).await;
    }
}
