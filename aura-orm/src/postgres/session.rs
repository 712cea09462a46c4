//! A session, and the way to poll its connection beside a statement.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connection::{Canceller, Session as Opened, SessionConnection};
use futures_util::TryStreamExt;
use futures_util::future::join;
use futures_util::task::noop_waker_ref;
use tokio::time::Sleep;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement as Prepared};

use super::bind::{Bound, types};
use super::connection::Arrived;
use super::error::{Error, ends_connection};
use crate::Statement;

/// The most statements that a session keeps prepared: more than the repositories have.
const MAX_PREPARED: usize = 100;

/// How long a statement stays prepared at first. PostgreSQL keeps the plan that it makes for it:
/// one that was made while a table had a page reads the whole table when it has grown, until
/// its statistics are collected, which takes a minute or more.
const FIRST_AGE: Duration = Duration::from_secs(1);

/// How long at last; it is twice as long each time.
const LAST_AGE: Duration = Duration::from_mins(1);

/// How long to wait for the end of a session that is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A session on the server.
pub(super) struct Session {
    client: Client,
    canceller: Canceller,
    driver: Driver,
    timer: Option<Timer>,
    prepared: PreparedStatements,
    /// The schema that they were prepared for. See [`Session::prepare_for`].
    schema: u64,
    /// Which of the servers that the pool was led to, one after the other, it is on.
    pub(super) server: u64,
    opened: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Limits the time of each statement. The timer of the runtime stays where it is from one
/// statement to the next, because to set one costs more than to run a short statement.
struct Timer {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: Box::pin(tokio::time::sleep(limit)),
        }
    }

    /// Runs a future for at most the limit. `None` when it isn't done by then.
    async fn run<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let deadline = tokio::time::Instant::now() + self.limit;
        poll_fn(|context| {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            // It may have been set for a statement before.
            while self.sleep.as_mut().poll(context).is_ready() {
                if self.sleep.deadline() >= deadline {
                    return Poll::Ready(None);
                }
                self.sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// The connection, which is polled beside each statement.
struct Driver {
    /// `None` at its end, so that nothing waits for an answer any more.
    connection: Option<SessionConnection>,
    /// Why it has ended.
    end: Option<tokio_postgres::Error>,
}

impl Driver {
    /// Sends and receives what there is.
    fn poll(&mut self, context: &mut Context<'_>) {
        while let Some(connection) = &mut self.connection {
            match connection.poll_message(context) {
                // Notices, and notifications that no one listens to.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => self.connection = None,
                Poll::Ready(Some(Err(error))) => {
                    self.connection = None;
                    self.end = Some(error);
                }
                Poll::Pending => return,
            }
        }
    }

    /// Runs a future of the client's.
    async fn run<T>(
        &mut self,
        future: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        let mut future = pin!(future);
        let done = poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            self.poll(context);
            // What has arrived, or that nothing will.
            future.as_mut().poll(context)
        });
        match done.await {
            // Where the connection has ended, it says why.
            Err(closed) if closed.is_closed() => Err(self.end.take().unwrap_or(closed)),
            done => done,
        }
    }
}

impl Session {
    /// `limit` is how long to wait for the answer to a statement.
    pub(super) fn new(opened: Opened, limit: Option<Duration>, server: u64) -> Box<Self> {
        Box::new(Self {
            client: opened.client,
            canceller: opened.canceller,
            driver: Driver {
                connection: Some(opened.connection),
                end: None,
            },
            timer: limit.map(Timer::new),
            prepared: PreparedStatements::default(),
            schema: 0,
            server,
            opened: Instant::now(),
        })
    }

    /// Runs something on the session. `None` when the server gives no answer in time.
    pub(super) async fn within_limit<T>(
        &mut self,
        run: impl AsyncFnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Some(mut timer) = self.timer.take() else {
            return Some(run(self).await);
        };
        let done = timer.run(run(self)).await;
        self.timer = Some(timer);
        done
    }

    /// Returns how long it is open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Reads what the server has said meanwhile, and returns whether it has ended the
    /// session.
    pub(super) fn is_ended(&mut self) -> bool {
        self.driver.poll(&mut Context::from_waker(noop_waker_ref()));
        self.driver.connection.is_none()
    }

    /// Asks the server for an answer.
    pub(super) async fn ping(&mut self) -> Result<(), tokio_postgres::Error> {
        self.driver.run(self.client.check_connection()).await
    }

    /// Returns what cancels the statement that runs.
    pub(super) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// Forgets the prepared statements when the schema has changed since, by the pool's count
    /// of its changes.
    pub(super) fn prepare_for(&mut self, schema: u64) {
        if std::mem::replace(&mut self.schema, schema) != schema {
            self.prepared = PreparedStatements::default();
        }
    }

    /// Runs SQL without values or rows.
    pub(super) async fn execute_sql(&mut self, sql: &str) -> Result<(), Error> {
        Ok(self.driver.run(self.client.batch_execute(sql)).await?)
    }

    /// Runs a statement, hands over its rows, and returns the number of rows that it
    /// changed or returned; after a break the statement still runs. `prepare` keeps it
    /// prepared for the next time. `begin` begins the transaction that it is in, and goes out
    /// together with it.
    pub(super) async fn run(
        &mut self,
        begin: Option<&str>,
        statement: &Statement,
        prepare: bool,
        arrived: &mut Arrived<'_>,
    ) -> Result<u64, Error> {
        let types = types(&statement.values)?;
        let Self {
            client,
            driver,
            prepared,
            ..
        } = self;
        let run = async {
            let values = statement.values.iter().map(Bound);
            let rows = if prepare {
                let prepared = prepared.get(client, statement, &types).await?;
                client.query_raw(&prepared, values).await?
            } else {
                client
                    .query_typed_raw(&statement.sql, values.zip(types))
                    .await?
            };
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                if arrived(&row).is_break() {
                    return Ok(0);
                }
            }
            Ok::<_, tokio_postgres::Error>(rows.rows_affected().unwrap_or(0))
        };
        let Some(begin) = begin else {
            return Ok(driver.run(run).await?);
        };
        let run = async {
            // Polled, and so sent, in this order.
            match join(client.batch_execute(begin), run).await {
                (Ok(()), done) => done.map(Ok),
                (Err(refused), Ok(_)) => Ok(Err(refused)),
                // The statement may have been run, and its answer was lost.
                (Err(refused), Err(lost)) if is_refusal(&refused) && !is_refusal(&lost) => {
                    Ok(Err(refused))
                }
                (Err(refused), Err(_)) => Err(refused),
            }
        };
        driver.run(run).await?.map_err(Error::not_begun)
    }

    /// Ends the session in good order.
    pub(super) async fn close(self: Box<Self>) {
        let Self {
            client,
            mut driver,
            prepared,
            ..
        } = *self;
        // Without them the driver says goodbye.
        drop((client, prepared));
        let end = poll_fn(|context| {
            driver.poll(context);
            if driver.connection.is_none() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, end).await;
    }
}

/// Returns whether the server refused a statement, and goes on with the session.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|refused| !ends_connection(refused.code().code()))
}

/// The statements that a session has prepared. The least recently used makes room.
#[derive(Default)]
pub(super) struct PreparedStatements {
    statements: HashMap<Cow<'static, str>, Kept>,
    uses: u64,
}

struct Kept {
    prepared: Prepared,
    used: u64,
    since: Instant,
    /// How long it stays.
    age: Duration,
    /// How often it was run. Before, PostgreSQL keeps no plan that knows no values.
    runs: u32,
}

/// After so many runs PostgreSQL may keep a plan (`choose_custom_plan` in
/// src/backend/utils/cache/plancache.c).
const KEEPS_PLAN: u32 = 5;

impl Kept {
    fn is_outdated(&self) -> bool {
        let has_plan = self.runs >= KEEPS_PLAN || self.prepared.params().is_empty();
        has_plan && self.since.elapsed() >= self.age
    }
}

impl PreparedStatements {
    async fn get(
        &mut self,
        client: &Client,
        statement: &Statement,
        types: &[Type],
    ) -> Result<Prepared, tokio_postgres::Error> {
        if let Some(prepared) = self.find(statement, types) {
            return Ok(prepared);
        }
        let prepared = client.prepare_typed(&statement.sql, types).await?;
        self.keep(statement, prepared.clone());
        Ok(prepared)
    }

    /// Returns the statement with parameters of these types, unless it has to be prepared anew.
    pub(super) fn find(&mut self, statement: &Statement, types: &[Type]) -> Option<Prepared> {
        self.uses += 1;
        let kept = self.statements.get_mut(&statement.sql)?;
        if kept.prepared.params() != types || kept.is_outdated() {
            return None;
        }
        kept.used = self.uses;
        kept.runs = kept.runs.saturating_add(1);
        Some(kept.prepared.clone())
    }

    pub(super) fn keep(&mut self, statement: &Statement, prepared: Prepared) {
        let before = self.statements.get(&statement.sql);
        let age = match before {
            Some(before) if before.prepared.params() != prepared.params() => before.age,
            // Another has prepared it anew meanwhile.
            Some(before) if !before.is_outdated() => return,
            Some(before) => (before.age * 2).min(LAST_AGE),
            None => FIRST_AGE,
        };
        if before.is_none() && self.statements.len() >= MAX_PREPARED {
            let oldest = self.statements.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(sql, _)| sql.clone()) {
                self.statements.remove(&oldest);
            }
        }
        let kept = Kept {
            prepared,
            used: self.uses,
            since: Instant::now(),
            age,
            runs: 1,
        };
        self.statements.insert(statement.sql.clone(), kept);
    }
}
