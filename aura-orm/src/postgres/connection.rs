//! A connection in use, and what its errors say about it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use scopeguard::ScopeGuard;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::Row;

use super::error::Error;
use super::pool::PoolInner;
use super::session::Session;
use crate::fetched::{DecodedRows, Decoding};
use crate::row::Cells;
use crate::{RowDecoder, RowError, Statement};

/// How much a transaction is kept apart from others. SQLite's are always
/// serializable, because there is one writer at a time.
///
/// What the repositories promise about the work of others at the same moment
/// rests on locks, and on statements that see what was
/// committed before they began. On PostgreSQL that is so at the default; a
/// transaction that looks at an older state locks a row and still doesn't see
/// what the last holder of the lock has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// The database's default: on PostgreSQL read committed, where each
    /// statement sees what is committed when it starts.
    #[default]
    Default,
    /// Each statement sees what is committed when it starts, whatever the default.
    ReadCommitted,
    /// All statements see what was committed when the first started; a
    /// collision is retried.
    RepeatableRead,
    /// As if transactions ran one after the other; a collision is retried.
    Serializable,
}

/// What is called with each row that arrives. It breaks when no other is wanted.
pub(super) type Arrived<'a> = dyn FnMut(&Row) -> ControlFlow<()> + Send + 'a;

/// A connection in use. From [`Pool::acquire`](super::Pool::acquire). Dropped during a
/// statement, the statement is cancelled on the server.
#[derive(Debug)]
pub struct PooledConnection {
    pool: Arc<PoolInner>,
    session: Option<Box<Session>>,
    /// Released when the session is back in the pool, or its statement has ended.
    permit: Option<OwnedSemaphorePermit>,
    /// Begins a transaction, together with its first statement.
    begin: Option<String>,
    /// A transaction was begun, and its end is not known.
    in_transaction: bool,
    /// It is closed instead of returned.
    discard: bool,
}

impl PooledConnection {
    pub(super) fn new(
        pool: Arc<PoolInner>,
        session: Box<Session>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            pool,
            session: Some(session),
            permit,
            begin: None,
            in_transaction: false,
            discard: false,
        }
    }

    /// Returns whether the server is still there, by what has arrived meanwhile, and by an
    /// answer within `timeout` where there is one. If not, it is closed when it is dropped.
    pub(super) async fn is_alive(&mut self, timeout: Option<Duration>) -> bool {
        self.discard = true;
        let Some(session) = &mut self.session else {
            return false;
        };
        if session.is_ended() {
            return false;
        }
        if let Some(timeout) = timeout {
            match tokio::time::timeout(timeout, session.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(_) => {
                    // The others are silent too; to ask each would take as long again.
                    self.pool.discard_all();
                    return false;
                }
            }
        }
        self.discard = false;
        true
    }

    /// Runs a statement and reads its rows as they arrive. The inner error is of the first
    /// that can't be read; the statement has run all the same. Outside of a transaction it is
    /// cancelled at a row that doesn't fit, and the connection is closed: what follows may be
    /// any number of such rows.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::TimedOut`] and [`Error::Unsupported`].
    pub async fn query(
        &mut self,
        statement: Statement,
        decoding: Decoding,
    ) -> Result<Result<DecodedRows, RowError>, Error> {
        let mut collector = decoding.collect();
        let alone = !self.in_transaction && self.begin.is_none();
        let mut arrived = |row: &Row| {
            collector.add(Cells::Postgres(row));
            if alone && collector.is_cut() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match self.run(&statement, &mut arrived).await {
            Ok(_) => {
                if alone && collector.is_cut() {
                    self.abandon();
                }
                Ok(collector.finish())
            }
            Err(error) => Err(self.explained(error, &statement).await),
        }
    }

    /// Asks for something that belongs to no caller: an error isn't explained. `None` when a
    /// row can't be read.
    pub(super) async fn ask<D: RowDecoder>(
        &mut self,
        statement: &Statement,
    ) -> Result<Option<Vec<D::Row>>, Error> {
        let mut collector = Decoding::of::<D>(usize::MAX).collect();
        let mut arrived = |row: &Row| {
            collector.add(Cells::Postgres(row));
            ControlFlow::Continue(())
        };
        self.run(statement, &mut arrived).await?;
        let rows = collector.finish().ok().map(DecodedRows::into_rows::<D>);
        Ok(rows.and_then(Result::ok).map(|rows| rows.rows))
    }

    /// Runs a statement and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// As [`PooledConnection::query`].
    pub async fn execute(&mut self, statement: Statement) -> Result<u64, Error> {
        let mut arrived = |_: &Row| ControlFlow::Continue(());
        match self.run(&statement, &mut arrived).await {
            Err(error) => Err(self.explained(error, &statement).await),
            done => done,
        }
    }

    /// Closes the connection, for another one with its permit.
    pub(super) fn into_permit(mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }

    pub(super) fn pool(&self) -> &Arc<PoolInner> {
        &self.pool
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Runs SQL without values or rows, as for savepoints.
    ///
    /// # Errors
    ///
    /// As [`PooledConnection::query`].
    pub async fn execute_sql(&mut self, sql: &'static str) -> Result<(), Error> {
        let Some(begin) = self.begin.take() else {
            return self.send(sql).await;
        };
        self.in_transaction = true;
        let sql = format!("{begin}; {sql}");
        match self.send(&sql).await {
            Err(error) if error.ends_connection() => {
                self.replace().await?;
                self.send(&sql).await
            }
            done => done,
        }
    }

    async fn send(&mut self, sql: &str) -> Result<(), Error> {
        self.watched(async |session: &mut Session| session.execute_sql(sql).await)
            .await
    }

    /// Replaces a connection that has ended before anything was committed on it.
    async fn replace(&mut self) -> Result<(), Error> {
        let permit = self.permit.take();
        *self = Box::pin(self.pool.acquire(permit)).await?;
        self.in_transaction = true;
        Ok(())
    }

    /// Runs a statement; outside of a transaction once more when the schema has changed
    /// since it was prepared: the server refused it before it did anything. In a
    /// transaction the connection is closed at its end.
    pub(super) async fn run(
        &mut self,
        statement: &Statement,
        arrived: &mut Arrived<'_>,
    ) -> Result<u64, Error> {
        if let Some(begin) = self.begin.take() {
            return self.run_first(begin, statement, arrived).await;
        }
        match self.run_once(None, statement, arrived).await {
            Err(error) if error.is_outdated_plan() => {
                self.pool.note_changed_schema();
                if self.in_transaction {
                    return Err(error);
                }
                self.run_once(None, statement, arrived).await
            }
            done => done,
        }
    }

    async fn run_once(
        &mut self,
        begin: Option<&str>,
        statement: &Statement,
        arrived: &mut Arrived<'_>,
    ) -> Result<u64, Error> {
        let prepare = self.pool.prepares() && !statement.once;
        let schema = self.pool.schema();
        self.watched(async move |session: &mut Session| {
            session.prepare_for(schema);
            session.run(begin, statement, prepare, arrived).await
        })
        .await
    }

    /// Runs the first statement of a transaction, together with its BEGIN. A connection
    /// that turns out to have ended is replaced: nothing was committed on it.
    async fn run_first(
        &mut self,
        begin: String,
        statement: &Statement,
        arrived: &mut Arrived<'_>,
    ) -> Result<u64, Error> {
        self.in_transaction = true;
        let mut any = false;
        let mut noted = |row: &Row| {
            any = true;
            arrived(row)
        };
        match self.run_once(Some(&begin), statement, &mut noted).await {
            Err(error) if error.ends_connection() && !any => {
                self.replace().await?;
                self.run_once(Some(&begin), statement, arrived).await
            }
            Err(error) if error.is_outdated_plan() && !any => {
                self.pool.note_changed_schema();
                self.send("ROLLBACK").await?;
                self.run_once(Some(&begin), statement, arrived).await
            }
            done => done,
        }
    }

    /// Begins a transaction, together with its first statement.
    pub(super) fn begin(&mut self, isolation: Isolation) {
        let begin = match isolation {
            Isolation::Default => "BEGIN",
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        };
        let deadlocks = self.pool.deadlock_timeout().sql();
        self.begin = Some(format!("{begin}{}{deadlocks}", self.pool.limits()));
    }

    /// Ends the transaction. After a failure the connection is closed.
    ///
    /// # Errors
    ///
    /// As [`PooledConnection::query`].
    pub async fn end(&mut self, commit: bool) -> Result<(), Error> {
        if self.begin.take().is_some() || self.session.is_none() && !commit {
            // Nothing was sent; or it is closed, which rolls back.
            return Ok(());
        }
        self.execute_sql(if commit { "COMMIT" } else { "ROLLBACK" })
            .await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Runs something on the session within the time limit, and draws conclusions from its
    /// failure.
    async fn watched<T>(
        &mut self,
        run: impl AsyncFnOnce(&mut Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Dropped in between, the statement may run for ever.
        let mut in_flight = scopeguard::guard(&mut *self, Self::abandon);
        let session = in_flight.session.as_mut().ok_or(Error::Closed)?;
        let done = session.within_limit(run).await;
        ScopeGuard::into_inner(in_flight);
        let done = done.unwrap_or_else(|| {
            let limit = self.pool.response_timeout().unwrap_or_default();
            Err(if self.pool.prepares() {
                Error::TimedOut(limit)
            } else {
                Error::StatementTimedOut(limit)
            })
        });
        match &done {
            Ok(_) => {}
            Err(Error::TimedOut(_) | Error::StatementTimedOut(_)) => {
                // Cancels the statement. The others may have ended too, and the server, if it is
                // there, has ended this one by its own limit: its place is free.
                self.pool.check_idle();
                self.permit = None;
                self.abandon();
            }
            Err(error) => {
                if error.ends_connection() {
                    self.discard = true;
                    self.pool.check_idle();
                } else if error.code() == "25006" {
                    // read_only_sql_transaction: the others lead to the same server, which
                    // answers pings.
                    self.discard = true;
                    self.pool.discard_all();
                }
            }
        }
        done
    }

    /// Gives the session up while its statement runs.
    fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.cancel(session, self.permit.take());
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if self.discard || self.in_transaction {
            // Returned, its next user would write into this transaction, or be refused as
            // well.
            self.pool.close_session(session);
        } else {
            self.pool.put(session);
        }
    }
}

/// SQL that sets the time limits of a transaction.
pub(super) fn limits(config: &::connection::Config) -> String {
    let limits = [
        ("statement_timeout", config.statement_timeout),
        ("lock_timeout", config.lock_timeout),
        (
            "idle_in_transaction_session_timeout",
            config.idle_in_transaction_timeout,
        ),
    ];
    let set = limits.into_iter().filter_map(|(name, limit)| {
        let limit = limit?.as_millis();
        Some(format!("; SET LOCAL {name} = {limit}"))
    });
    set.collect()
}
