//! One connection, and the limit of what it may take.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::Error;
use crate::file::DatabaseFile;

/// What a database is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file. It exists, and is in WAL mode.
    pub file: DatabaseFile,
    /// A commit waits until the disk has it (`synchronous = FULL`). Without it a
    /// power cut may undo the last commits.
    pub durable: bool,
    /// How long another process's lock is waited for.
    pub busy_timeout: Duration,
    /// How long a read may take; any time without one.
    pub statement_timeout: Option<Duration>,
    /// The most connections that read.
    pub max_readers: usize,
    /// How many of them stay open when they are idle.
    pub min_readers: usize,
    /// How long one may be idle before it is closed; any time without one.
    pub idle_timeout: Option<Duration>,
    /// So many reads that block run at once.
    pub blocking_reads: usize,
    /// How long a connection is waited for that others have.
    pub patience: Duration,
}

/// So many statements stay prepared on each connection: more than the
/// repositories have.
const STATEMENTS: usize = 256;
/// Between two looks at the clock SQLite makes about so many steps, a few
/// microseconds' worth.
const STEPS: i32 = 1_000;

/// After so many pages of 4 KiB (48 MiB) the WAL is copied into the file, which
/// waits for the disk twice and writes each page once, however often it was changed.
/// SQLite's own 1,000 are few for rows whose indexes are all over the file.
pub(crate) const CHECKPOINT: i32 = 12_288;

thread_local! {
    /// How many pages the WAL had after the last commit on this thread.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

/// How many pages the WAL has after the commit that this thread has just made.
pub(crate) fn wal_pages() -> i32 {
    PAGES.take()
}

/// A WAL that grew behind a long read is cut to so many bytes afterwards.
const WAL_BYTES: i64 = 64 << 20;

/// So many KiB of pages each connection keeps: four times SQLite's own. The one
/// that writes changes pages all over the indexes, which it would read and allocate
/// anew in each commit; a list of 50 workflows looks at 50 pages.
const CACHE: i64 = 8_192;

/// So many changed pages of 4 KiB may a transaction hold in memory before they
/// are written ahead of its commit, over and over. Only what is changed counts:
/// the cache stays as it is.
const SPILL: i64 = 8_192;

/// So long may a read keep a thread of the runtime.
pub(crate) const BUDGET: Duration = Duration::from_millis(1);

/// Until when the statement that runs may go on. Looked at by SQLite itself
/// every so many steps.
#[derive(Debug)]
pub(crate) struct Limit {
    born: Instant,
    /// Nanoseconds after `born`; 0 is never.
    until: AtomicU64,
    /// Which run of the connection this is, so that nobody ends another's.
    run: AtomicU64,
    /// The run that nobody waits for any more.
    given_up: AtomicU64,
}

impl Limit {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            until: AtomicU64::new(0),
            run: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        })
    }

    /// Ends what runs next so long from now, at the latest, and says which run
    /// it is.
    pub(crate) fn set(&self, most: Option<Duration>) -> u64 {
        let until = most.map_or(0, |most| {
            let nanos = (self.born.elapsed() + most).as_nanos();
            u64::try_from(nanos).unwrap_or(u64::MAX)
        });
        self.until.store(until, Ordering::Relaxed);
        self.run.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_over(&self) -> bool {
        if self.given_up.load(Ordering::Relaxed) == self.run.load(Ordering::Relaxed) {
            return self.run.load(Ordering::Relaxed) != 0;
        }
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && self.born.elapsed().as_nanos() > u128::from(until)
    }
}

/// Ends a read when its caller goes. Dropped after its end, it ends nothing.
pub(crate) struct GiveUp(Arc<Limit>, u64);

impl GiveUp {
    /// Limits what runs next.
    pub(crate) fn of(limit: &Arc<Limit>, most: Option<Duration>) -> Self {
        Self(limit.clone(), limit.set(most))
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.given_up.store(self.1, Ordering::Relaxed);
    }
}

/// A connection that only reads.
pub(crate) fn reader(options: &Options) -> Result<(Connection, Arc<Limit>), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    limited(open(options, flags)?)
}

/// Opens the file. Its first statement finds it locked while another process
/// recovers the WAL.
fn open(options: &Options, flags: OpenFlags) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(options.file.path(), flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    Ok(connection)
}

/// The connection that writes.
pub(crate) fn writer(options: &Options) -> Result<(Connection, Arc<Limit>), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(options, flags)?;
    let synchronous = if options.durable { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // In place of SQLite's own checkpoints, which keep a commit waiting.
    connection.wal_hook(Some(|_, pages| {
        PAGES.set(pages);
        Ok(())
    }));
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.pragma_update(None, "cache_spill", SPILL)?;
    // Opens the WAL, which stays where it is as long as the connection is open.
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    limited(connection)
}

fn limited(connection: Connection) -> Result<(Connection, Arc<Limit>), Error> {
    connection.pragma_update(None, "cache_size", -CACHE)?;
    // From here on, what waits for a lock does so where it may block.
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it a bound LIMIT has the statement prepared anew at each run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let limit = Limit::new();
    let watched = limit.clone();
    connection.progress_handler(STEPS, Some(move || watched.is_over()))?;
    Ok((connection, limit))
}
