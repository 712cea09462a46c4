//! The connection that writes, and the line of those who wait for it.
//!
//! A commit waits for the disk, and costs far more than the statements before
//! it. So who has finished leaves the transaction open when the next in line may
//! go on in it, and waits; the last in line commits for all. Nobody waits for
//! company: alone, a write is committed alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::oneshot;

use crate::connection::{self, CHECKPOINT, Limit, Options};
use crate::error::Error;
use crate::file::{DatabaseFile, Identity};
use crate::write::Write;

/// So many writes share one commit at most, so that none waits for long.
const TOGETHER: usize = 128;

/// The connection that writes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    desk: Desk,
    waiting: VecDeque<Waiting>,
}

/// Where the connection is.
#[derive(Debug)]
enum Desk {
    Free(Box<Core>),
    Taken,
    /// Taken, and to be closed by whoever has it.
    Closing(oneshot::Sender<()>),
    Closed,
}

#[derive(Debug)]
struct Waiting {
    /// Shares its commit with nobody.
    alone: bool,
    turn: oneshot::Sender<Held>,
}

/// The connection, and the transaction that those share who went before.
#[derive(Debug, Default)]
pub(crate) struct Core {
    connection: Option<(Connection, Arc<Limit>)>,
    /// The WAL that it writes to.
    wal_file: Identity,
    /// A transaction is open in it.
    open: bool,
    /// Nobody else may go on in it.
    full: bool,
    /// It may have written many rows.
    long: bool,
    /// How many pages the WAL had after the last commit.
    wal: i32,
    /// Those who have finished, and wait for the commit.
    finished: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// The connection, to whoever has it. Dropping it undoes what was not finished,
/// and hands it to the next.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) shared: Arc<Shared>,
    core: Option<Box<Core>>,
    /// Its holder has begun.
    inside: bool,
}

impl Writer {
    /// The writer of this database. Its connection is opened when it is needed.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Shared {
            options,
            line: Mutex::new(Line {
                desk: Desk::Free(Box::default()),
                waiting: VecDeque::new(),
            }),
        }))
    }

    /// Begins a write. `alone` shares its commit with nobody.
    ///
    /// Fails with [`Error::Refused`], with [`Error::WriterHeld`] when others
    /// have the connection for too long, and with [`Error::Closed`].
    pub async fn begin(&self, alone: bool) -> Result<Write, Error> {
        Write::begin(self.held(alone).await?, alone).await
    }

    /// Keeps everybody else from writing while it lives, without a transaction
    /// of its own: for who writes through another connection.
    ///
    /// Fails with [`Error::WriterHeld`] and [`Error::Closed`].
    pub async fn exclude(&self) -> Result<Exclusion, Error> {
        let mut held = self.held(true).await?;
        held.connection()?;
        Ok(Exclusion(Mutex::new(held)))
    }

    /// Whether nobody has the connection.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.0.line().desk, Desk::Free(_))
    }

    /// Closes the connection when it is free, and turns away who waits for it.
    pub async fn close(&self) {
        let done = {
            let mut line = self.0.line();
            line.waiting.clear();
            match std::mem::replace(&mut line.desk, Desk::Closed) {
                Desk::Free(_) | Desk::Closed => return,
                Desk::Taken | Desk::Closing(_) => {
                    let (closed, done) = oneshot::channel();
                    line.desk = Desk::Closing(closed);
                    done
                }
            }
        };
        // Whoever has it tells, or is gone with it.
        let _ = done.await;
    }

    async fn held(&self, alone: bool) -> Result<Held, Error> {
        if self.0.options.file.is_moved() {
            return Err(Error::Moved);
        }
        let turn = {
            let mut line = self.0.line();
            match std::mem::replace(&mut line.desk, Desk::Taken) {
                Desk::Free(core) => return Ok(Held::of(self.0.clone(), core)),
                Desk::Taken => {}
                closed => {
                    line.desk = closed;
                    return Err(Error::Closed);
                }
            }
            let (sender, turn) = oneshot::channel();
            line.waiting.push_back(Waiting {
                alone,
                turn: sender,
            });
            turn
        };
        let patience = self.0.options.patience;
        match tokio::time::timeout(patience, turn).await {
            Ok(held) => held.map_err(|_| Error::Closed),
            Err(_) => Err(Error::WriterHeld(patience)),
        }
    }
}

/// Nobody else writes. See [`Writer::exclude`].
#[derive(Debug)]
pub struct Exclusion(
    // A mutex only so that it may be looked at from several threads.
    Mutex<Held>,
);

impl Exclusion {
    /// Looks whether what was just committed through another connection is in the
    /// file at its path, and not in one that was moved or removed.
    ///
    /// # Errors
    ///
    /// [`Error::Moved`] when it is not.
    pub fn check(&self) -> Result<(), Error> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wal = held.core.as_ref().and_then(|core| core.wal_file);
        held.shared.options.file.check_with_wal(wal)
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the connection to the next in line; commits first, unless the next
    /// may go on in the transaction.
    fn pass_on(self: Arc<Self>, mut core: Box<Core>) {
        loop {
            let next = {
                let mut line = self.line();
                let alone = line.waiting.front().map(|next| next.alone);
                if core.open && (core.is_full() || alone != Some(false)) {
                    drop(line);
                    return self.commit(core);
                }
                match line.waiting.pop_front() {
                    Some(next) => next,
                    None => return line.put(core),
                }
            };
            let held = Held::of(self.clone(), core);
            match next.turn.send(held) {
                Ok(()) => return,
                // It has stopped waiting.
                Err(mut held) => core = held.core.take().unwrap_or_default(),
            }
        }
    }

    /// Commits, and hands the connection on. Without the disk a commit of few
    /// rows takes less than the way to a thread that may block; what waits for
    /// the disk goes there.
    fn commit(self: Arc<Self>, mut core: Box<Core>) {
        let quick = !self.options.durable && !core.long;
        let committed = if quick {
            let committed = core.commit(&self.options.file);
            if core.wal < CHECKPOINT {
                self.pass_on(core);
                return committed.answer();
            }
            Some(committed)
        } else {
            None
        };
        let wait = move || {
            let committed = committed.unwrap_or_else(|| core.commit(&self.options.file));
            if core.wal < CHECKPOINT {
                // Whose commit it was finds the connection free again.
                self.pass_on(core);
                return committed.answer();
            }
            committed.answer();
            core.checkpoint();
            self.pass_on(core);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(wait)),
            Err(_) => wait(),
        }
    }
}

impl Line {
    /// Leaves the connection to who comes next.
    fn put(&mut self, core: Box<Core>) {
        match std::mem::replace(&mut self.desk, Desk::Closed) {
            Desk::Taken => self.desk = Desk::Free(core),
            Desk::Closing(closed) => {
                drop(core);
                let _ = closed.send(());
            }
            Desk::Free(_) | Desk::Closed => {}
        }
    }
}

/// A commit whose writes wait for their answer.
struct Committed {
    done: Result<(), Error>,
    finished: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Committed {
    /// Answers each write. A caller that has gone needs no answer.
    fn answer(mut self) {
        if self.finished.len() == 1 {
            let _ = self.finished.pop().map(|only| only.send(self.done));
            return;
        }
        for waiting in self.finished {
            let _ = waiting.send(match self.done {
                Ok(()) => Ok(()),
                Err(Error::Moved) => Err(Error::Moved),
                Err(_) => Err(Error::Undone),
            });
        }
    }
}

impl Core {
    fn is_full(&self) -> bool {
        self.full || self.finished.len() >= TOGETHER
    }

    /// The connection; opens it when it is not.
    pub(crate) fn connection(
        &mut self,
        options: &Options,
    ) -> Result<&(Connection, Arc<Limit>), Error> {
        if self.connection.is_none() {
            let opened = connection::writer(options)?;
            self.wal_file = options.file.wal();
            options.file.check()?;
            self.connection = Some(opened);
        }
        self.connection.as_ref().ok_or(Error::Closed)
    }

    fn control(&self, sql: &str) -> Result<(), Error> {
        let (connection, limit) = self.connection.as_ref().ok_or(Error::Closed)?;
        limit.set(None);
        connection.prepare_cached(sql)?.raw_execute()?;
        Ok(())
    }

    /// Commits what was finished. When that fails nothing of it is done, and with
    /// several it isn't known whose fault that is.
    fn commit(&mut self, file: &DatabaseFile) -> Committed {
        let mut done = self.control("COMMIT");
        self.wal = connection::wal_pages();
        if done.is_ok() {
            done = file.check_with_wal(self.wal_file);
        } else {
            self.undo();
        }
        if file.is_moved() {
            self.abandon();
        }
        self.closed();
        Committed {
            done,
            finished: std::mem::take(&mut self.finished),
        }
    }

    /// Has the connection leave the WAL alone when it is closed: SQLite would remove
    /// it by its name, which may be another database's by now.
    fn abandon(&self) {
        if let Some((connection, _)) = &self.connection {
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }

    /// Leaves no transaction open.
    fn undo(&mut self) {
        if let Some((connection, _)) = &self.connection
            && !connection.is_autocommit()
            && self.control("ROLLBACK").is_err()
        {
            // What it would do next is not known.
            self.connection = None;
        }
        self.closed();
    }

    /// No transaction is open any more.
    fn closed(&mut self) {
        self.open = false;
        self.full = false;
        self.long = false;
    }

    /// Copies the WAL into the file when it is long enough. Where that fails the
    /// WAL has everything still, and the next commit tries again.
    fn checkpoint(&mut self) {
        if self.wal >= CHECKPOINT
            && let Some((connection, limit)) = &self.connection
        {
            limit.set(None);
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }

    /// SQLite has undone everything: nobody was told anything, so all can do it
    /// again.
    fn lost(&mut self) {
        self.undo();
        for waiting in self.finished.drain(..) {
            let _ = waiting.send(Err(Error::Undone));
        }
    }

    /// Undoes what its holder did.
    fn undo_last(&mut self) {
        if self.finished.is_empty() {
            self.undo();
        } else if self.control("ROLLBACK TO member").is_err()
            || self.control("RELEASE member").is_err()
        {
            self.lost();
        }
    }
}

impl Held {
    fn of(shared: Arc<Shared>, core: Box<Core>) -> Self {
        Self {
            shared,
            core: Some(core),
            inside: false,
        }
    }

    pub(crate) fn connection(&mut self) -> Result<&(Connection, Arc<Limit>), Error> {
        let core = self.core.as_mut().ok_or(Error::Ended)?;
        core.connection(&self.shared.options)
    }

    /// Begins, in the transaction of those who went before or with one of its
    /// own.
    pub(crate) fn enter(&mut self) -> Result<(), Error> {
        if self.shared.options.file.is_moved() {
            return Err(Error::Moved);
        }
        let core = self.core.as_mut().ok_or(Error::Ended)?;
        core.connection(&self.shared.options)?;
        if core.open {
            core.control("SAVEPOINT member")?;
        } else {
            core.control("BEGIN IMMEDIATE")?;
            core.open = true;
        }
        self.inside = true;
        Ok(())
    }

    /// Its commit may take long.
    pub(crate) fn takes_long(&mut self) {
        if let Some(core) = &mut self.core {
            core.long = true;
        }
    }

    /// Whether SQLite has undone the transaction, of which then nothing is left.
    pub(crate) fn is_lost(&mut self) -> bool {
        let Some(core) = self.core.as_mut().filter(|_| self.inside) else {
            return true;
        };
        let gone = core
            .connection
            .as_ref()
            .is_none_or(|(connection, _)| connection.is_autocommit());
        if gone {
            self.inside = false;
            core.lost();
        }
        gone
    }

    /// Ends well: what it did is committed with what others do.
    pub(crate) fn finish(
        mut self,
        alone: bool,
        told: oneshot::Sender<Result<(), Error>>,
    ) -> Result<(), Error> {
        if self.is_lost() {
            return Err(Error::Ended);
        }
        let core = self.core.as_mut().ok_or(Error::Ended)?;
        if !core.finished.is_empty() {
            core.control("RELEASE member")?;
        }
        core.full |= alone;
        core.finished.push(told);
        self.inside = false;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut core) = self.core.take() else {
            return;
        };
        if self.inside {
            core.undo_last();
        }
        self.shared.clone().pass_on(core);
    }
}
