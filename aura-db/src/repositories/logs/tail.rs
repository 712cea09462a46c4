//! Following the log without missing an entry.
//!
//! On PostgreSQL ids are not in the order of commits: a transaction takes the
//! id 10, another takes 11 and commits, a follower reads 11 and remembers it,
//! and 10, committed later, would never be read. So a follower keeps two marks.
//! Up to `high` it has looked; up to `low` nothing can appear any more. Between
//! them it looks again at each poll, and knows what it has given out.
//!
//! When may `low` move? Whoever inserts into the table holds a lock on it (ROW
//! EXCLUSIVE) from before the id is taken until the end of the transaction, and
//! `pg_locks` shows who. The highest id that is seen is noted, then the holders.
//! Once each of them is gone, whatever they wrote at or below that id is
//! visible to the next look, and after that look `low` moves there. (The
//! snapshot's `xmin` would be simpler and wrong: a transaction has its id from
//! the sequence before it has a transaction id.)
//!
//! SQLite has one writer and `AUTOINCREMENT`: ids are in the order of commits,
//! and `low` is `high`.

use std::collections::BTreeSet;
use std::time::Duration;

use entity::{Action, logs};
use futures_util::Stream;
use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
    Select, Statement,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Log, LogFilter, Logs, op};
use crate::engine::Handle;
use crate::error::Error;

/// Entries that one [`Tail::next`] gives at the most.
const BATCH: usize = 500;
/// The first pause between looks; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, unless asked otherwise.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So many ids a [`TailPosition`] remembers.
const REMEMBERED: usize = 1_000;
/// So far below the newest id, entries that are not committed yet when a
/// follower starts are waited for.
const LOOK_BACK: i64 = 10_000;

/// Who inserts into the log, in this database.
const WRITERS: &str = "SELECT virtualtransaction AS writer FROM pg_locks \
    WHERE locktype = 'relation' AND relation = 'logs'::regclass AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND mode = 'RowExclusiveLock'";

/// Where a follower begins.
#[derive(Debug, Clone, Default)]
pub enum TailFrom {
    /// With what is committed from now on.
    #[default]
    Now,
    /// With the oldest entry.
    Start,
    /// Where another follower of the same filter was.
    After(TailPosition),
}

/// Where a follower is, to go on from there after a restart: with the next
/// entry, and when a thousand or more came while an older transaction was
/// open, with some that were given out before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailPosition {
    low: i64,
    given: Vec<i64>,
}

/// Follows the log. From [`Logs::tail`].
#[derive(Debug)]
pub struct Tail {
    handle: Handle,
    filter: LogFilter,
    seen: Seen,
    news: watch::Receiver<()>,
    longest_pause: Duration,
}

/// What a follower knows of the log.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Nothing appears at or below this id any more.
    low: i64,
    /// Up to here it has looked.
    high: i64,
    /// What it gave out above `low`.
    given: BTreeSet<i64>,
    /// Who was writing when this id was the highest.
    mark: Option<(i64, BTreeSet<String>)>,
}

#[derive(FromQueryResult)]
struct Writer {
    writer: String,
}

impl Logs {
    /// Follows the entries that the filter leaves, in the order in which they
    /// can be seen: by id, except those whose transaction was committed late.
    /// Each comes exactly once, however late.
    ///
    /// Entries that this process appends through a clone of this database come
    /// at once; those of other processes within a second
    /// ([`Tail::look_every`]). In a restricted handle the role is asked at each
    /// look.
    ///
    /// Entries with ids of their own choosing (restored from elsewhere), and
    /// those of transactions that are more than ten thousand entries behind at
    /// the start of [`TailFrom::Now`], are not waited for.
    ///
    /// Fails with [`Error::Validation`] when the text can't be used, or inside
    /// a transaction, which might never see a new one.
    pub async fn tail(&self, filter: LogFilter, from: TailFrom) -> Result<Tail, Error> {
        if self.0.scope.is_some() {
            let problem = "follows from the database's handle, not from a transaction's";
            return Err(Error::field("tail", problem));
        }
        let (filter_, from) = (&filter, &from);
        // Before the first look, so that nothing falls in between.
        let news = self.0.shared.news.subscribe();
        let seen = self
            .0
            .read(op("tail", Action::Read), |h| async move {
                filter_.select(&h)?;
                match from {
                    TailFrom::Start => Ok(Seen::default()),
                    TailFrom::After(TailPosition { low, given }) => Ok(Seen {
                        low: *low,
                        // All above `low` is looked at anew.
                        high: *low,
                        given: given.iter().copied().collect(),
                        mark: None,
                    }),
                    TailFrom::Now => Seen::now(&h).await,
                }
            })
            .await?;
        Ok(Tail {
            handle: self.0.clone(),
            filter,
            seen,
            news,
            longest_pause: LONGEST_PAUSE,
        })
    }
}

impl Tail {
    /// With another longest pause between looks for entries of other processes.
    #[must_use]
    pub fn look_every(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }

    /// Waits for the next entries, one at least and 500 at most. Nothing is
    /// lost when the future is dropped before it is done.
    ///
    /// Fails when the database does; the next call goes on where this one
    /// began.
    pub async fn next(&mut self) -> Result<Vec<Log>, Error> {
        let mut pause = PAUSE.min(self.longest_pause);
        loop {
            self.news.mark_unchanged();
            let entries = self.look().await?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            tokio::select! {
                Ok(()) = self.news.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(self.longest_pause);
        }
    }

    /// The entries that have come since, without waiting; up to 500.
    ///
    /// Fails when the database does; the next call goes on where this one
    /// began.
    pub async fn look(&mut self) -> Result<Vec<Log>, Error> {
        let (filter, before) = (&self.filter, &self.seen);
        let (seen, entries) = self
            .handle
            .read(op("tail", Action::Read), |h| async move {
                let mut seen = before.clone();
                let entries = seen.look(&h, filter).await?;
                Ok((seen, entries))
            })
            .await?;
        // Only now, in one step.
        self.seen = seen;
        Ok(entries)
    }

    /// Where it is.
    #[must_use]
    pub fn position(&self) -> TailPosition {
        let given: Vec<i64> = self.seen.given.iter().copied().collect();
        TailPosition {
            low: self.seen.low,
            given: if given.len() > REMEMBERED {
                Vec::new()
            } else {
                given
            },
        }
    }

    /// The same as a stream, which goes on after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Vec<Log>, Error>> + Send {
        futures_util::stream::unfold(self, |mut tail| async move {
            let entries = tail.next().await;
            Some((entries, tail))
        })
    }
}

impl Seen {
    /// Everything that is visible now counts as given out.
    async fn now(h: &Handle) -> Result<Self, Error> {
        let high = newest(h).await?;
        let writers = writers(h).await?;
        let mut seen = Self {
            low: high,
            high,
            given: BTreeSet::new(),
            mark: None,
        };
        if !writers.is_empty() {
            seen.low = (high - LOOK_BACK).max(0);
            seen.given = ids(h, all().filter(logs::COLUMN.id.gt(seen.low)))
                .await?
                .into_iter()
                .collect();
            // What came since is given out already, as far as it is known.
            seen.high = seen.given.last().copied().unwrap_or(high).max(high);
            seen.mark = Some((high, writers));
        }
        Ok(seen)
    }

    /// One look. The order matters: first the highest id, then who writes, then
    /// the entries.
    async fn look(&mut self, h: &Handle, filter: &LogFilter) -> Result<Vec<Log>, Error> {
        let (newest, writers) = match h.backend() {
            DbBackend::Postgres => (newest(h).await?, writers(h).await?),
            _ => (self.high, BTreeSet::new()),
        };
        let settled = self.settle(newest, &writers);
        let mut entries = Vec::new();
        if self.low < self.high {
            entries = self.late(h, filter).await?;
        }
        let all_late = entries.len() < BATCH;
        let room = BATCH - entries.len();
        let next = filter
            .select(h)?
            .filter(logs::COLUMN.id.gt(self.high))
            .order_by_asc(logs::Column::Id)
            .limit(room as u64);
        let next = h.fetch_all(next).await?;
        let full = next.len() == room;
        let last = next.last().map_or(self.high, |log| log.id.0);
        // What was given before a restart is between the marks again.
        for log in next {
            if self.given.insert(log.id.0) {
                entries.push(log);
            }
        }
        self.high = if full { last } else { last.max(newest) };
        if h.backend() != DbBackend::Postgres {
            self.low = self.high;
        } else if all_late {
            // All up to there was looked at after its writers had ended.
            self.low = self.low.max(settled.min(self.high));
        }
        self.given = self.given.split_off(&(self.low + 1));
        Ok(entries)
    }

    /// The id up to which whoever was writing has ended.
    fn settle(&mut self, newest: i64, writers: &BTreeSet<String>) -> i64 {
        if writers.is_empty() {
            self.mark = None;
            return newest;
        }
        match &self.mark {
            Some((_, before)) if !before.is_disjoint(writers) => self.low,
            mark => {
                let settled = mark.as_ref().map_or(self.low, |(id, _)| *id);
                self.mark = Some((newest, writers.clone()));
                settled
            }
        }
    }

    /// What has appeared between the marks since.
    async fn late(&mut self, h: &Handle, filter: &LogFilter) -> Result<Vec<Log>, Error> {
        let between = filter
            .select(h)?
            .filter(logs::COLUMN.id.gt(self.low))
            .filter(logs::COLUMN.id.lte(self.high));
        let missing: Vec<i64> = ids(h, between)
            .await?
            .into_iter()
            .filter(|id| !self.given.contains(id))
            .take(BATCH)
            .collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let late = all()
            .filter(logs::COLUMN.id.is_in(missing))
            .order_by_asc(logs::Column::Id);
        let late = h.fetch_all(late).await?;
        self.given.extend(late.iter().map(|log| log.id.0));
        Ok(late)
    }
}

fn all() -> Select<logs::Entity> {
    logs::Entity::find()
}

async fn ids(h: &Handle, entries: Select<logs::Entity>) -> Result<Vec<i64>, Error> {
    let ids = entries
        .select_only()
        .column(logs::Column::Id)
        .order_by_asc(logs::Column::Id)
        .into_tuple::<i64>();
    h.fetch_all(ids).await
}

async fn newest(h: &Handle) -> Result<i64, Error> {
    let newest = all()
        .select_only()
        .column(logs::Column::Id)
        .order_by_desc(logs::Column::Id)
        .limit(1);
    Ok(h.scalar(newest).await?.unwrap_or(0))
}

async fn writers(h: &Handle) -> Result<BTreeSet<String>, Error> {
    if h.backend() != DbBackend::Postgres {
        return Ok(BTreeSet::new());
    }
    let writers = Statement::from_string(DbBackend::Postgres, WRITERS);
    let writers = h.fetch_all(Writer::find_by_statement(writers)).await?;
    Ok(writers.into_iter().map(|row| row.writer).collect())
}
