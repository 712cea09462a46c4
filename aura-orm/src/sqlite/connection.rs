//! One connection, and the deadline of the statement that it runs.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::Error;
use super::file::DatabaseFile;

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database. A file exists, and is in WAL mode.
    pub file: DatabaseFile,
    /// A commit waits until the disk has it (`synchronous = FULL`). Without it a
    /// power cut may undo the last commits.
    pub durable: bool,
    /// How long to wait for the lock of another process.
    pub busy_timeout: Duration,
    /// How long a read may take; `None` is for ever.
    pub statement_timeout: Option<Duration>,
    /// The most connections that read.
    pub max_readers: usize,
    /// How many of them stay open when they are idle.
    pub min_readers: usize,
    /// How long a connection may be idle before it is closed; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// The most reads outside of snapshots that block at the same time.
    pub blocking_reads: usize,
    /// How long to wait for a connection that others use.
    pub acquire_timeout: Duration,
}

/// Prepared statements that each connection keeps: more than the repositories
/// have.
const STATEMENT_CACHE: usize = 256;

/// Virtual machine steps between two checks of the deadline, some microseconds.
const STEPS: i32 = 1_000;

/// Pages of 4 KiB in the WAL (48 MiB) from which it is copied into the file. The
/// checkpoint waits for the disk twice, and writes each page once, however often it
/// was changed; SQLite's own 1,000 are few for rows whose indexes are all over the
/// file.
pub(super) const CHECKPOINT: i32 = 12_288;

thread_local! {
    /// Pages in the WAL after the last commit on this thread.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

/// Returns the pages in the WAL after the commit that this thread has just made.
pub(super) fn wal_pages() -> i32 {
    PAGES.take()
}

/// Bytes to which a WAL is cut that grew behind a long read.
const WAL_BYTES: i64 = 64 << 20;

/// KiB of pages that each connection caches, four times SQLite's default. A write
/// changes pages all over the indexes, which it would read again for each commit; a
/// list of 50 rows with documents reads 50 pages.
const CACHE: i64 = 8_192;

/// Changed pages of 4 KiB that a transaction holds in memory before they are
/// written ahead of its commit, over and over. The cache keeps its size.
const SPILL: i64 = 8_192;

/// How long a read may keep a thread of the runtime.
pub(super) const INLINE_BUDGET: Duration = Duration::from_millis(1);

/// When the statement that runs must end. SQLite checks it every [`STEPS`].
#[derive(Debug)]
pub(super) struct Deadline {
    created: Instant,
    /// Nanoseconds after `created`; 0 is never.
    at: AtomicU64,
    /// Counts statements, so that a late cancellation ends no other's.
    statement: AtomicU64,
    /// The statement whose caller has gone.
    cancelled: AtomicU64,
}

impl Deadline {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            created: Instant::now(),
            at: AtomicU64::new(0),
            statement: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        })
    }

    /// Limits the next statement, and returns its number.
    pub(super) fn set(&self, timeout: Option<Duration>) -> u64 {
        let at = timeout.map_or(0, |timeout| {
            let nanos = (self.created.elapsed() + timeout).as_nanos();
            u64::try_from(nanos).unwrap_or(u64::MAX)
        });
        self.at.store(at, Ordering::Relaxed);
        self.statement.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_over(&self) -> bool {
        let statement = self.statement.load(Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) == statement {
            return statement != 0;
        }
        let at = self.at.load(Ordering::Relaxed);
        at != 0 && self.created.elapsed().as_nanos() > u128::from(at)
    }
}

/// Ends a statement when its caller goes. Dropped after the statement's end, it
/// has no effect.
pub(super) struct CancelOnDrop(Arc<Deadline>, u64);

impl CancelOnDrop {
    /// Limits the next statement.
    pub(super) fn new(deadline: &Arc<Deadline>, timeout: Option<Duration>) -> Self {
        Self(deadline.clone(), deadline.set(timeout))
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(self.1, Ordering::Relaxed);
    }
}

/// Opens a connection that only reads.
pub(super) fn reader(options: &Options) -> Result<(Connection, Arc<Deadline>), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    configure(open(options, flags)?)
}

/// Opens the connection that writes.
pub(super) fn writer(options: &Options) -> Result<(Connection, Arc<Deadline>), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(options, flags)?;
    let synchronous = if options.durable { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Replaces SQLite's own checkpoints, which keep a commit waiting.
    connection.wal_hook(Some(|_, pages| {
        PAGES.set(pages);
        Ok(())
    }));
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.pragma_update(None, "cache_spill", SPILL)?;
    // Opens the WAL, which stays where it is as long as the connection is open.
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    configure(connection)
}

/// Opens the database. The first statement finds a file locked while another process
/// recovers the WAL.
fn open(options: &Options, flags: OpenFlags) -> Result<Connection, Error> {
    let flags = if options.file.is_memory() {
        flags | OpenFlags::SQLITE_OPEN_URI
    } else {
        flags
    };
    let connection = Connection::open_with_flags(options.file.path(), flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    Ok(connection)
}

fn configure(connection: Connection) -> Result<(Connection, Arc<Deadline>), Error> {
    connection.pragma_update(None, "cache_size", -CACHE)?;
    // As on PostgreSQL. The pragma replaces the built-in function by itself in another mode,
    // so that the planner still knows it; a function of ours would be slower and opaque.
    connection.pragma_update(None, ::connection::LIKE_PRAGMA, true)?;
    // From here on, a statement waits for a lock only where it may block.
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Otherwise a bound LIMIT has the statement prepared anew at each run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let deadline = Deadline::new();
    let checked = deadline.clone();
    connection.progress_handler(STEPS, Some(move || checked.is_over()))?;
    Ok((connection, deadline))
}
