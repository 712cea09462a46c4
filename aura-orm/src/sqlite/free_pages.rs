//! Gives the pages of deleted rows back to the file system.
//!
//! SQLite keeps them for rows to come, and the file stays as long as it ever was. A file
//! with `auto_vacuum = INCREMENTAL` can be cut instead: pages are moved from its end to free
//! ones before it. That is done in steps of some milliseconds while no other write has the
//! connection. A step is a write as any other: it ends when another write waits, which may
//! join its commit.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::Error;
use super::writer::{Shared, WriterGuard};
use super::writer_connection::WriterConnection;

/// Free pages up to which a file keeps them: 10 MiB of pages of 4 KiB, or a tenth of a
/// larger file. Above that they are given back down to half of it.
const KEPT: i64 = 2_560;
const KEPT_PART: i64 = 10;

/// How long one step moves pages.
const STEP: Duration = Duration::from_millis(4);

/// The shortest pause between two steps; each is four times as long as the step before it.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest pause, while the connection is in use or a reader needs the WAL.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Pages in the WAL that a step copies into the file instead of moving others: few, so that
/// it is as short.
const COPIED: i32 = 1_024;

/// Whether pages may have become free since they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Freed {
    /// The file can't be cut.
    #[default]
    Kept,
    No,
    Maybe,
}

impl Freed {
    /// Returns what is known at first: an earlier process may have left some.
    pub(super) fn at_open(connection: &Connection) -> Self {
        let mode = connection.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0));
        match mode {
            Ok(2) => Self::Maybe,
            _ => Self::Kept,
        }
    }

    /// Notes that there may be some.
    pub(super) fn note(&mut self) {
        if *self == Self::No {
            *self = Self::Maybe;
        }
    }
}

impl WriterConnection {
    /// Returns whether more pages are free than the file keeps, when that may be news.
    pub(super) fn has_new_surplus(&mut self) -> bool {
        let looks = self.freed == Freed::Maybe && !self.open;
        if looks {
            self.freed = Freed::No;
        }
        looks && self.free_pages().is_ok_and(|(free, kept)| free > kept)
    }

    /// Returns how many pages are free, and how many the file keeps.
    fn free_pages(&self) -> Result<(i64, i64), Error> {
        let pages = self.pragma("PRAGMA page_count")?;
        let kept = KEPT.max(pages / KEPT_PART);
        Ok((self.pragma("PRAGMA freelist_count")?, kept))
    }
}

/// What a step has come to.
enum Step {
    /// It has moved pages; they are committed soon.
    Moved(oneshot::Receiver<Result<(), Error>>),
    /// It has copied the WAL.
    Copied,
    /// Another process writes, or a reader needs the WAL.
    Blocked,
    Done,
}

/// Marks that pages are given back, until it is dropped.
struct UnderWay(Weak<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.gives_back.store(false, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Gives free pages back in the background.
    pub(super) fn give_back(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.gives_back.swap(true, Ordering::Relaxed) {
            return;
        }
        let under_way = UnderWay(Arc::downgrade(self));
        runtime.spawn(async move {
            // A failure changes nothing: it is begun again after the next large write.
            let _ = give_back(&under_way.0).await;
        });
    }
}

async fn give_back(shared: &Weak<Shared>) -> Result<(), Error> {
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        // Held for no longer, so that it keeps no database open.
        let guard = shared.upgrade().ok_or(Error::Closed)?.acquire_idle()?;
        let Some(guard) = guard else {
            pause = (pause * 2).min(LONGEST_PAUSE);
            continue;
        };
        let started = Instant::now();
        let step = tokio::task::spawn_blocking(move || step(guard)).await;
        match step.map_err(|_| Error::Panicked)?? {
            Step::Moved(committed) => committed.await.unwrap_or(Err(Error::Unanswered))?,
            Step::Copied => {}
            Step::Blocked => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Step::Done => return Ok(()),
        }
        pause = (started.elapsed() * 4).clamp(PAUSE, LONGEST_PAUSE);
    }
}

/// Moves some pages, or copies the WAL when it has become long or all is done: the file is
/// cut when its WAL is copied.
fn step(mut guard: WriterGuard) -> Result<Step, Error> {
    let writer = guard.writer.as_mut().ok_or(Error::Ended)?;
    let (free, kept) = writer.free_pages()?;
    let is_done = free <= kept / 2;
    if writer.wal_pages >= COPIED || is_done && writer.wal_pages > 0 {
        return Ok(match writer.copy_wal()? {
            false => Step::Blocked,
            true if is_done => Step::Done,
            true => Step::Copied,
        });
    }
    if is_done {
        return Ok(Step::Done);
    }
    match guard.begin() {
        Err(error) if error.is_busy() => return Ok(Step::Blocked),
        begun => begun?,
    }
    if !move_pages(&mut guard)? {
        return Ok(Step::Done);
    }
    // Its commit is not quick.
    guard.set_bulk();
    let (acknowledgement, committed) = oneshot::channel();
    guard.finish(false, acknowledgement)?;
    Ok(Step::Moved(committed))
}

/// Moves pages from the end of the file until the time is over or another write waits, and
/// returns whether there were any.
fn move_pages(guard: &mut WriterGuard) -> Result<bool, Error> {
    let (started, shared) = (Instant::now(), guard.shared.clone());
    let (connection, deadline) = guard.connection()?;
    deadline.set(None);
    // A row for each page; what was done before the last one stays done.
    let mut statement = connection.prepare_cached("PRAGMA incremental_vacuum(1000)")?;
    let mut rows = statement.query([])?;
    let mut has_moved = false;
    while rows.next()?.is_some() {
        has_moved = true;
        if started.elapsed() >= STEP || shared.has_waiters() {
            break;
        }
    }
    Ok(has_moved)
}
