//! The connection that writes, and the queue for it.
//!
//! A commit waits for the disk, and costs far more than the statements before
//! it. So a write that has finished leaves its transaction open when the next in
//! the queue can continue in it, and waits; the last in the queue commits for the
//! batch. No delay is added: a write that finds no other is committed alone.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::{CHECKPOINT, Deadline, Options};
use super::disk_wait::DiskWait;
use super::error::Error;
use super::write::{Parked, Write};
use super::writer_connection::{Acknowledgement, Committed, WriterConnection};

/// How often a waiting write looks whether the connection is used.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// The connection that writes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    queue: Mutex<Queue>,
    disk: DiskWait,
    /// Free pages are given back at this time.
    pub(super) gives_back: AtomicBool,
}

#[derive(Debug)]
struct Queue {
    slot: WriterSlot,
    waiters: VecDeque<Waiter>,
    /// The write that has the connection, or had it last.
    holder: Weak<Parked>,
}

/// Where the connection is.
#[derive(Debug)]
enum WriterSlot {
    Free(Box<WriterConnection>),
    InUse,
    /// In use, and closed at its release.
    Closing(oneshot::Sender<()>),
    Closed,
}

#[derive(Debug)]
struct Waiter {
    /// Shares its commit with no other write.
    exclusive: bool,
    /// Where the connection is put, which a future that is no longer polled doesn't
    /// take: from there it can be reclaimed.
    parked: Weak<Parked>,
    wake: oneshot::Sender<()>,
}

/// Exclusive use of the connection. Dropping it rolls back the write that is
/// under way, and hands the connection to the next in the queue.
#[derive(Debug)]
pub(super) struct WriterGuard {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Option<Box<WriterConnection>>,
    /// A write is under way.
    active: bool,
}

impl Writer {
    /// Creates the writer of a database. Its connection is opened at the first
    /// write.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Shared {
            options,
            queue: Mutex::new(Queue {
                slot: WriterSlot::Free(Box::default()),
                waiters: VecDeque::new(),
                holder: Weak::new(),
            }),
            disk: DiskWait::new(),
            gives_back: AtomicBool::new(false),
        }))
    }

    /// Waits for the connection and begins a write. An `exclusive` one shares its
    /// commit with no other.
    ///
    /// # Errors
    ///
    /// [`Error::WriterBusy`] when the connection isn't free within
    /// [`Options::acquire_timeout`]; [`Error::Refused`], [`Error::Moved`] and
    /// [`Error::Closed`].
    pub async fn begin(&self, exclusive: bool) -> Result<Write, Error> {
        let timeout = self.0.options.acquire_timeout;
        let started = Instant::now();
        loop {
            let (parked, guard) = self.acquire(exclusive, started).await?;
            match Write::begin(parked, guard, exclusive).await {
                // Nothing has run, so it waits once more.
                Err(Error::Reclaimed) if started.elapsed() < timeout => {}
                Err(Error::Reclaimed) => return Err(Error::WriterBusy(timeout)),
                begun => return begun,
            }
        }
    }

    /// Keeps all others from writing, for statements that another connection to
    /// the file runs. Begins no transaction.
    ///
    /// # Errors
    ///
    /// As [`Writer::begin`].
    pub async fn lock(&self) -> Result<WriteLock, Error> {
        let (_, mut guard) = self.acquire(true, Instant::now()).await?;
        guard.connection()?;
        Ok(WriteLock(Mutex::new(guard)))
    }

    /// Returns whether the connection is free.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.0.queue().slot, WriterSlot::Free(_))
    }

    /// Waits until the connection is free and closes it. Writes that wait for it
    /// fail with [`Error::Closed`].
    pub async fn close(&self) {
        self.close_connection().await;
        self.0.options.file.close();
    }

    async fn close_connection(&self) {
        let done = {
            let mut queue = self.0.queue();
            queue.waiters.clear();
            match std::mem::replace(&mut queue.slot, WriterSlot::Closed) {
                WriterSlot::Free(_) | WriterSlot::Closed => return,
                WriterSlot::InUse | WriterSlot::Closing(_) => {
                    let (closed, done) = oneshot::channel();
                    queue.slot = WriterSlot::Closing(closed);
                    done
                }
            }
        };
        // An error means that the connection was dropped.
        let _ = done.await;
    }

    /// Waits for the connection, for as long as [`Options::acquire_timeout`] after `started`.
    /// What has it now is the holder, from which it can be reclaimed.
    async fn acquire(
        &self,
        exclusive: bool,
        started: Instant,
    ) -> Result<(Arc<Parked>, WriterGuard), Error> {
        let timeout = self.0.options.acquire_timeout;
        let parked = Parked::new(exclusive, &self.0.options);
        loop {
            if self.0.options.file.is_moved() {
                return Err(Error::Moved);
            }
            let mut woken = match self.0.enqueue(exclusive, &parked)? {
                Turn::Now(guard) => return Ok((parked, guard)),
                Turn::Later(woken) => woken,
            };
            // Reclaims it from a write that does nothing.
            loop {
                let left = timeout.saturating_sub(started.elapsed());
                match tokio::time::timeout(left.min(LOOK), &mut woken).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => return Err(Error::Closed),
                    Err(_) if left.is_zero() => return Err(Error::WriterBusy(timeout)),
                    Err(_) => self.0.reclaim_idle(),
                }
            }
            // None when it was reclaimed before this future was polled again. Nothing
            // has run, so it waits once more.
            if let Some(guard) = parked.take_handed() {
                return Ok((parked, guard));
            }
        }
    }
}

/// When a write gets the connection.
enum Turn {
    Now(WriterGuard),
    Later(oneshot::Receiver<()>),
}

/// Keeps all others from writing while it lives. See [`Writer::lock`].
#[derive(Debug)]
pub struct WriteLock(
    // A mutex only because the guard isn't `Sync`.
    Mutex<WriterGuard>,
);

impl WriteLock {
    /// Checks that what another connection has just committed is in the file at
    /// its path.
    ///
    /// # Errors
    ///
    /// [`Error::Moved`] when the file or its WAL was moved, replaced or removed.
    pub fn check(&self) -> Result<(), Error> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wal = guard.writer.as_ref().and_then(|writer| writer.wal_file);
        guard.shared.options.file.check_with_wal(wal)
    }
}

impl Shared {
    fn enqueue(self: &Arc<Self>, exclusive: bool, parked: &Arc<Parked>) -> Result<Turn, Error> {
        let mut queue = self.queue();
        match std::mem::replace(&mut queue.slot, WriterSlot::InUse) {
            WriterSlot::Free(writer) => {
                queue.holder = Arc::downgrade(parked);
                return Ok(Turn::Now(WriterGuard::new(self.clone(), writer)));
            }
            WriterSlot::InUse => {}
            closed => {
                queue.slot = closed;
                return Err(Error::Closed);
            }
        }
        let (wake, woken) = oneshot::channel();
        queue.waiters.push_back(Waiter {
            exclusive,
            parked: Arc::downgrade(parked),
            wake,
        });
        Ok(Turn::Later(woken))
    }

    /// Takes the connection when it is free.
    pub(super) fn acquire_idle(self: &Arc<Self>) -> Result<Option<WriterGuard>, Error> {
        let mut queue = self.queue();
        match std::mem::replace(&mut queue.slot, WriterSlot::InUse) {
            WriterSlot::Free(writer) => {
                queue.holder = Weak::new();
                Ok(Some(WriterGuard::new(self.clone(), writer)))
            }
            WriterSlot::InUse => Ok(None),
            closed => {
                queue.slot = closed;
                Err(Error::Closed)
            }
        }
    }

    /// Returns whether a write waits for the connection.
    pub(super) fn has_waiters(&self) -> bool {
        !self.queue().waiters.is_empty()
    }

    pub(super) fn reclaim_idle(&self) {
        let holder = self.queue().holder.upgrade();
        if let Some(holder) = holder {
            holder.reclaim();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the connection to the next in the queue; commits first, unless the
    /// next may join the batch.
    fn hand_over(self: Arc<Self>, mut writer: Box<WriterConnection>) {
        if writer.has_new_surplus() {
            self.give_back();
        }
        loop {
            let (next, parked) = {
                let mut queue = self.queue();
                let exclusive = queue.waiters.front().map(|next| next.exclusive);
                if writer.open && (writer.is_full() || exclusive != Some(false)) {
                    drop(queue);
                    return self.commit(writer);
                }
                let Some(next) = queue.waiters.pop_front() else {
                    return queue.release(writer);
                };
                let Some(parked) = next.parked.upgrade() else {
                    continue; // it no longer waits
                };
                queue.holder = Arc::downgrade(&parked);
                (next, parked)
            };
            parked.hand(WriterGuard::new(self, writer));
            // An error means that it has just gone: then `parked` is the last to have
            // the connection, and hands it over when it is dropped.
            let _ = next.wake.send(());
            return;
        }
    }

    /// Commits, hands the connection over, and acknowledges the batch. A commit of few
    /// rows goes to a thread that may block when it waits for the disk; unless it is one
    /// write's alone, and recent commits took less time than the way there and back.
    fn commit(self: Arc<Self>, mut writer: Box<WriterConnection>) {
        let waits = self.options.durable && !self.options.file.is_memory();
        let alone = writer.batch.len() == 1;
        let inline = !writer.bulk && (!waits || alone && self.disk.is_short());
        let started = Instant::now();
        let quick = inline
            .then(|| writer.commit(&self.options.file, Duration::ZERO))
            .flatten()
            .map(Committed::acknowledge)
            .is_some();
        if quick && waits {
            self.disk.note(started.elapsed());
        }
        if quick && writer.wal_pages < CHECKPOINT {
            return self.hand_over(writer);
        }
        let wait = move || {
            if quick {
                writer.checkpoint();
                return self.hand_over(writer);
            }
            let busy_timeout = self.options.busy_timeout.max(Duration::from_millis(1));
            let started = Instant::now();
            let Some(committed) = writer.commit(&self.options.file, busy_timeout) else {
                return self.hand_over(writer);
            };
            self.disk.note(started.elapsed());
            if writer.wal_pages < CHECKPOINT {
                // First, so that the next write of the same caller finds it free.
                self.hand_over(writer);
                committed.acknowledge();
            } else {
                committed.acknowledge();
                writer.checkpoint();
                self.hand_over(writer);
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(wait)),
            Err(_) => wait(),
        }
    }
}

impl Queue {
    /// Frees the connection.
    fn release(&mut self, writer: Box<WriterConnection>) {
        match std::mem::replace(&mut self.slot, WriterSlot::Closed) {
            WriterSlot::InUse => self.slot = WriterSlot::Free(writer),
            WriterSlot::Closing(closed) => {
                drop(writer);
                let _ = closed.send(());
            }
            WriterSlot::Free(_) | WriterSlot::Closed => {}
        }
    }
}

impl WriterGuard {
    fn new(shared: Arc<Shared>, writer: Box<WriterConnection>) -> Self {
        Self {
            shared,
            writer: Some(writer),
            active: false,
        }
    }

    pub(super) fn connection(&mut self) -> Result<&(Connection, Arc<Deadline>), Error> {
        let writer = self.writer.as_mut().ok_or(Error::Ended)?;
        writer.get(&self.shared.options)
    }

    /// Begins a write, in the transaction of the batch or in a new one.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if self.shared.options.file.is_moved() {
            return Err(Error::Moved);
        }
        let writer = self.writer.as_mut().ok_or(Error::Ended)?;
        writer.get(&self.shared.options)?;
        if writer.open {
            writer.execute("SAVEPOINT member")?;
        } else {
            writer.execute("BEGIN IMMEDIATE")?;
            writer.open = true;
        }
        self.active = true;
        Ok(())
    }

    /// Rolls back a write that is alone in its transaction, to begin it again.
    ///
    /// An interrupted statement that writes has rolled the transaction back itself, unless
    /// the interrupt came with its last step: then it has ended, and its rows are changed.
    pub(super) fn rollback(&mut self) {
        self.active = false;
        if let Some(writer) = &mut self.writer {
            writer.rollback();
        }
    }

    /// Returns whether no other write is in the transaction.
    pub(super) fn is_alone(&self) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| writer.batch.is_empty())
    }

    /// Notes that the commit may take long.
    pub(super) fn set_bulk(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.bulk = true;
        }
    }

    /// Returns whether SQLite has rolled back the transaction by itself, and then
    /// fails the batch.
    pub(super) fn is_rolled_back(&mut self) -> bool {
        let Some(writer) = self.writer.as_mut().filter(|_| self.active) else {
            return true;
        };
        let gone = writer.is_outside_transaction();
        if gone {
            self.active = false;
            writer.fail_batch();
        }
        gone
    }

    /// Adds the finished write to the batch; it is acknowledged after the commit.
    pub(super) fn finish(
        mut self,
        exclusive: bool,
        acknowledgement: Acknowledgement,
    ) -> Result<(), Error> {
        if self.is_rolled_back() {
            return Err(Error::Ended);
        }
        let writer = self.writer.as_mut().ok_or(Error::Ended)?;
        if !writer.batch.is_empty() {
            writer.execute("RELEASE member")?;
        }
        writer.full |= exclusive;
        writer.batch.push(acknowledgement);
        self.active = false;
        Ok(())
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        if self.active {
            writer.rollback_member();
        }
        self.shared.clone().hand_over(writer);
    }
}
