//! Connections that short reads share.
//!
//! Their statements are sent before those before them are answered, so that many reads cost
//! client and server one wake-up. Each is outside of a transaction and fails alone, but none
//! is answered before those that were sent earlier. So only reads that are known to be short
//! go here; a connection whose first read is slow takes no more; and one whose first read
//! isn't answered at all is closed, and its reads run again on connections of their own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use connection::{Canceller, SessionConnection};
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::bind::{Bound, types};
use super::error::Error;
use super::pool::PoolInner;
use super::session::PreparedStatements;
use crate::fetched::{Collector, DecodedRows, Decoding};
use crate::row::Cells;
use crate::{RowError, Statement};

/// The most statements that a connection has under way.
const MAX_LOAD: u32 = 32;

/// How long the first of them may take before the connection takes no more.
const SLOW: Duration = Duration::from_millis(20);

/// How long the first of them may take before the connection is closed; and how often it is
/// looked at.
const STALLED: Duration = Duration::from_millis(250);

/// How long after that another is opened in its place.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a connection may be unused. Others of the pool need its place.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections that are shared.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    slots: Mutex<[Slot; 2]>,
    /// Short reads under way on connections of their own.
    unshared: AtomicU32,
}

/// A short read on a connection of its own.
#[derive(Debug)]
pub(crate) struct Unshared(Arc<PoolInner>);

impl Drop for Unshared {
    fn drop(&mut self) {
        let unshared = &self.0.pipelines().unshared;
        unshared.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Closed,
    /// Not opened again before this moment.
    Paused(Instant),
    Opening,
    Open(Arc<Pipeline>),
    /// The pool is closed.
    Ended,
}

/// A connection that is shared.
pub(super) struct Pipeline {
    client: Client,
    canceller: Canceller,
    prepared: Mutex<PreparedStatements>,
    created: Instant,
    /// Reads under way.
    load: AtomicU32,
    /// When the first of them became the first, or when the last ended: nanoseconds after
    /// `created`.
    head: AtomicU64,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("load", &self.load)
            .finish_non_exhaustive()
    }
}

/// A place on a connection that is shared.
#[derive(Debug)]
pub(super) struct Place(Arc<Pipeline>);

impl Slot {
    fn pipeline(&self) -> Option<&Arc<Pipeline>> {
        match self {
            Self::Open(pipeline) if !pipeline.client.is_closed() => Some(pipeline),
            _ => None,
        }
    }

    /// Returns whether it is to be opened.
    fn is_due(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Open(pipeline) => pipeline.client.is_closed(),
            Self::Paused(until) => Instant::now() >= *until,
            Self::Opening | Self::Ended => false,
        }
    }
}

impl Pipelines {
    /// Closes the connections, each after the reads under way.
    pub(super) fn close(&self) {
        *lock(&self.slots) = [Slot::Ended, Slot::Ended];
    }

    /// Opens others instead of those that are open.
    pub(super) fn replace(&self) {
        for slot in &mut *lock(&self.slots) {
            if matches!(slot, Slot::Open(_)) {
                *slot = Slot::Closed;
            }
        }
    }

    /// Counts a short read on a connection of its own.
    pub(super) fn count_unshared(pool: &Arc<PoolInner>) -> Unshared {
        let unshared = &pool.pipelines().unshared;
        unshared.fetch_add(1, Ordering::Relaxed);
        Unshared(pool.clone())
    }

    /// Returns a place on one of `connections`, unless no other short read is under way: then
    /// a connection of its own is quicker. Those that aren't open are opened for the reads
    /// that come later.
    pub(super) fn place(&self, pool: &Arc<PoolInner>, connections: usize) -> Option<Place> {
        let mut slots = lock(&self.slots);
        let slots = slots.get_mut(..connections)?;
        let pipelines = || slots.iter().filter_map(Slot::pipeline);
        if self.unshared.load(Ordering::Relaxed) == 0 && pipelines().all(|one| one.load() == 0) {
            return None;
        }
        let best = pipelines().filter(|one| one.takes_more());
        let best = best.min_by_key(|one| one.load()).cloned();
        for (index, slot) in slots.iter_mut().enumerate() {
            if slot.is_due() {
                *slot = Slot::Opening;
                pool.spawn(open(pool.clone(), index));
            }
        }
        best.map(Place::new)
    }

    /// Changes the state of a connection, unless the pool was closed meanwhile.
    fn set(&self, index: usize, state: Slot) {
        if let Some(slot) = lock(&self.slots).get_mut(index)
            && !matches!(slot, Slot::Ended)
        {
            *slot = state;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a connection in the place of one of the pool's, and serves it to its end.
async fn open(pool: Arc<PoolInner>, index: usize) {
    let Some((permit, opened)) = pool.open_shared().await else {
        let pause = Instant::now() + PAUSE;
        return pool.pipelines().set(index, Slot::Paused(pause));
    };
    let pipeline = Arc::new(Pipeline {
        client: opened.client,
        canceller: opened.canceller,
        prepared: Mutex::default(),
        created: Instant::now(),
        load: AtomicU32::new(0),
        head: AtomicU64::new(0),
    });
    let served = Served {
        pipeline: Arc::downgrade(&pipeline),
        pool: Arc::downgrade(&pool),
        index,
    };
    pool.pipelines().set(index, Slot::Open(pipeline));
    drop(pool);
    served.serve(opened.connection).await;
    if let Some(pool) = served.pool.upgrade() {
        pool.note_shared_closed();
    }
    drop(permit);
}

/// A connection, seen by the task that polls it. It ends with the last that may use it.
struct Served {
    pipeline: Weak<Pipeline>,
    pool: Weak<PoolInner>,
    index: usize,
}

impl Served {
    /// Sends and receives, until the connection ends or is stalled.
    async fn serve(&self, mut connection: SessionConnection) {
        let mut look = pin!(tokio::time::sleep(STALLED));
        poll_fn(|context| {
            loop {
                match connection.poll_message(context) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            while look.as_mut().poll(context).is_ready() {
                look.as_mut().reset(tokio::time::Instant::now() + STALLED);
                if self.is_stalled() {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Returns whether the first read isn't answered. Gives the connection up when it isn't
    /// used, at once when others of the pool need its place.
    fn is_stalled(&self) -> bool {
        let (Some(pipeline), Some(pool)) = (self.pipeline.upgrade(), self.pool.upgrade()) else {
            return false;
        };
        let quiet = pipeline.head_age();
        if pipeline.load() == 0 {
            if quiet > IDLE_TIMEOUT || quiet > STALLED && pool.is_exhausted() {
                pool.pipelines().set(self.index, Slot::Closed);
            }
            return false;
        }
        if quiet > STALLED {
            let pause = Instant::now() + PAUSE;
            pool.pipelines().set(self.index, Slot::Paused(pause));
            pool.cancel_shared(pipeline.canceller.clone());
        }
        quiet > STALLED
    }
}

impl Pipeline {
    /// Returns the number of reads under way.
    fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    /// Returns how long the first read under way has been the first, or how long there has
    /// been none.
    fn head_age(&self) -> Duration {
        let head = Duration::from_nanos(self.head.load(Ordering::Relaxed));
        self.created.elapsed().saturating_sub(head)
    }

    fn takes_more(&self) -> bool {
        let load = self.load();
        load == 0 || load < MAX_LOAD && self.head_age() < SLOW
    }

    fn set_head(&self) {
        let now = u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.head.store(now, Ordering::Relaxed);
    }
}

impl Place {
    fn new(pipeline: Arc<Pipeline>) -> Self {
        if pipeline.load.fetch_add(1, Ordering::Relaxed) == 0 {
            pipeline.set_head();
        }
        Self(pipeline)
    }

    /// Runs a statement in a task of its own, because an answer that isn't taken would keep
    /// the others. `None` when it has to run on another connection.
    pub(super) async fn query(
        self,
        statement: Arc<Statement>,
        decoding: Decoding,
    ) -> Result<Option<Result<DecodedRows, RowError>>, Error> {
        let task = tokio::spawn(async move {
            let mut collector = decoding.collect();
            let done = self.run(&statement, &mut collector).await;
            match done {
                Ok(()) => Ok(Some(collector.finish())),
                Err(error) if error.is_outdated_plan() => {
                    *lock(&self.0.prepared) = PreparedStatements::default();
                    Ok(None)
                }
                Err(error) if error.ends_connection() => Ok(None),
                Err(error) => Err(error),
            }
        });
        task.await.unwrap_or(Ok(None))
    }

    async fn run(&self, statement: &Statement, collector: &mut Collector) -> Result<(), Error> {
        let types = types(&statement.values)?;
        let client = &self.0.client;
        let known = lock(&self.0.prepared).find(statement, &types);
        let prepared = if let Some(prepared) = known {
            prepared
        } else {
            let prepared = client.prepare_typed(&statement.sql, &types).await?;
            lock(&self.0.prepared).keep(statement, prepared.clone());
            prepared
        };
        let values = statement.values.iter().map(Bound);
        let mut answer = pin!(client.query_raw(&prepared, values).await?);
        while let Some(row) = answer.try_next().await? {
            collector.add(Cells::Postgres(&row));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set_head();
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}
