//! What a follower knows of the log.
//!
//! On PostgreSQL ids are not in the order of commits: a transaction takes the
//! id 10, another takes 11 and commits, a follower reads 11 and remembers it,
//! and 10, committed later, would never be read. So a follower remembers which
//! ids at or below its own were not to be seen when it came by, and looks there
//! again at each poll. These gaps are all that it remembers, however much it
//! gives out while an old transaction stays open.
//!
//! When is a gap given up, because its transaction was undone? Whoever inserts
//! into the table holds a lock on it (ROW EXCLUSIVE) from before the id is taken
//! until after the commit can be seen, and `pg_locks` shows who. The highest id
//! that is seen is noted, then the holders. Once each of them is gone, whatever
//! they wrote at or below that id is visible to the next statement, and what
//! that doesn't find never comes. (The snapshot's `xmin` would be simpler and
//! wrong: a transaction has its id from the sequence before it has a transaction
//! id.) Each statement must see what is committed when it starts, so a follower
//! asks for READ COMMITTED.
//!
//! SQLite has one writer and `AUTOINCREMENT`: ids are in the order of commits,
//! and there are no gaps to wait for.

use aura_orm::{RowDecoder, RowReader, TypedQuery};
use std::collections::BTreeSet;

use entity::logs;
use sea_orm::{
    ColumnTrait, Condition, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Select, Statement,
};
use serde::{Deserialize, Serialize};

use super::tail::TailPosition;
use super::{Log, LogFilter};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::report;

/// Entries that are given at once at the most.
const BATCH: usize = 500;
/// So many gaps a [`TailPosition`] remembers.
const REMEMBERED: usize = 1_000;
/// So far below the newest id, entries that are not committed yet when a
/// follower starts are waited for: many times what one call appends.
const LOOK_BACK: i64 = 1_000_000;
/// Among so many entries, gaps are looked for at once.
const WINDOW: u64 = 5_000;
/// In so many gaps one statement looks.
const GAPS_AT_ONCE: usize = 200;

/// Who inserts into the log, in this database.
const WRITERS: &str = "SELECT virtualtransaction AS writer FROM pg_locks \
    WHERE locktype = 'relation' AND relation = 'logs'::regclass AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND mode = 'RowExclusiveLock'";

/// The ids after `$1` and up to `$2` that no visible entry has. The one after
/// them ends the last gap.
const GAPS: &str = "SELECT before + 1 AS first, id - 1 AS last FROM (\
    SELECT id, lag(id, 1, $1) OVER (ORDER BY id) AS before FROM (\
    SELECT id FROM logs WHERE id > $1 AND id <= $2 UNION ALL SELECT $2 + 1) AS ids\
    ) AS pairs WHERE id > before + 1 ORDER BY id";

/// What a follower knows of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct GapTracker {
    /// Up to here it has looked.
    high: i64,
    /// At or below `high`, and may still appear; in order, apart.
    gaps: Vec<IdGap>,
    /// Up to here whoever was writing has ended.
    settled: i64,
    /// Who was writing when this id was the highest.
    mark: Option<(i64, BTreeSet<String>)>,
}

/// Ids that were not to be seen, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdGap {
    first: i64,
    last: i64,
}

impl RowDecoder for IdGap {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(Self {
            first: cells.next_value()?,
            last: cells.next_value()?,
        })
    }
}

impl GapTracker {
    /// Everything that is visible now counts as given out.
    pub(super) async fn now(h: &Context) -> Result<Self, Error> {
        let high = newest(h).await?;
        let writers = writers(h).await?;
        let mut seen = Self {
            high,
            ..Self::default()
        };
        seen.settle(high, writers);
        if seen.settled < high {
            seen.gaps = gaps(h, (high - LOOK_BACK).max(0), high).await?;
        }
        Ok(seen)
    }

    /// Where another was. The position comes from outside, so anything may
    /// stand in it.
    pub(super) fn after(position: &TailPosition) -> Self {
        let mut gaps = position.gaps.clone();
        gaps.retain(|gap| gap.first <= gap.last && gap.last <= position.high);
        gaps.sort_by_key(|gap| gap.first);
        gaps.dedup_by(|next, gap| {
            let overlap = next.first <= gap.last;
            if overlap {
                gap.last = gap.last.max(next.last);
            }
            overlap
        });
        Self {
            high: position.high,
            gaps,
            ..Self::default()
        }
    }

    pub(super) fn position(&self) -> TailPosition {
        let mut gaps = self.gaps.clone();
        if let Some(surplus) = gaps.len().checked_sub(REMEMBERED)
            && surplus > 0
        {
            let first = gaps[0].first;
            gaps.drain(..surplus);
            gaps[0].first = first;
        }
        TailPosition {
            high: self.high,
            gaps,
        }
    }

    /// One look, and whether there is more to look at. The order matters: first
    /// the highest id, then who writes, then what is missing, then the entries.
    pub(super) async fn poll(
        &mut self,
        h: &Context,
        filter: &LogFilter,
    ) -> Result<(Vec<Log>, bool), Error> {
        let newest = newest(h).await?;
        let writers = writers(h).await?;
        self.settle(newest, writers);
        let mut entries = self.late(h, filter).await?;
        let all_late = entries.len() < BATCH;
        if all_late && self.high < newest {
            entries.extend(self.next(h, filter, newest, BATCH - entries.len()).await?);
        }
        self.fill(&entries);
        if all_late {
            // All of them were looked at after their writers had ended.
            self.forget();
        }
        let entries = entries.into_iter().filter_map(|(_, log)| log);
        Ok((entries.collect(), self.high < newest))
    }

    /// Moves `settled` as far as whoever was writing has ended.
    fn settle(&mut self, newest: i64, writers: BTreeSet<String>) {
        if writers.is_empty() {
            self.mark = None;
            self.settled = self.settled.max(newest);
            return;
        }
        match &self.mark {
            Some((_, before)) if !before.is_disjoint(&writers) => {}
            mark => {
                if let Some((id, _)) = mark {
                    self.settled = self.settled.max(*id);
                }
                self.mark = Some((newest, writers));
            }
        }
    }

    /// What has appeared in the gaps since.
    async fn late(&self, h: &Context, filter: &LogFilter) -> Result<Vec<SeenEntry>, Error> {
        let mut late = Vec::new();
        for gaps in self.gaps.chunks(GAPS_AT_ONCE) {
            let within = gaps.iter().fold(Condition::any(), |any, gap| {
                any.add(logs::COLUMN.id.between(gap.first, gap.last))
            });
            let found = filter
                .0
                .select(h)?
                .filter(within)
                .order_by_asc(logs::Column::Id)
                .limit((BATCH - late.len()) as u64);
            late.extend(seen_entries(h, found).await?);
            if late.len() == BATCH {
                break;
            }
        }
        Ok(late)
    }

    /// What is above `high`, which moves.
    async fn next(
        &mut self,
        h: &Context,
        filter: &LogFilter,
        newest: i64,
        room: usize,
    ) -> Result<Vec<SeenEntry>, Error> {
        let from = self.high.max(self.settled);
        let mut to = newest;
        if from < newest {
            // Counted in entries: pruned ones leave long stretches of ids.
            let end = logs::Entity::find()
                .select_only()
                .column(logs::Column::Id)
                .filter(logs::COLUMN.id.gt(from))
                .order_by_asc(logs::Column::Id)
                .offset(WINDOW)
                .limit(1);
            to = newest.min(h.scalar(end).await?.unwrap_or(newest));
        }
        let mut missing = if from < to {
            // Before the entries, so that what appears in between is in both
            // and not in neither.
            gaps(h, from, to).await?
        } else {
            Vec::new()
        };
        let next = filter
            .0
            .select(h)?
            .filter(logs::COLUMN.id.gt(self.high))
            .filter(logs::COLUMN.id.lte(to))
            .order_by_asc(logs::Column::Id)
            .limit(room as u64);
        let next = seen_entries(h, next).await?;
        self.high = match next.last() {
            Some((last, _)) if next.len() == room => *last,
            _ => to,
        };
        missing.retain_mut(|gap| {
            gap.last = gap.last.min(self.high);
            gap.first <= gap.last
        });
        self.gaps.append(&mut missing);
        Ok(next)
    }

    /// What is given out is missing no more.
    fn fill(&mut self, entries: &[SeenEntry]) {
        for &(id, _) in entries {
            let at = self.gaps.partition_point(|gap| gap.last < id);
            let Some(gap) = self.gaps.get_mut(at).filter(|gap| gap.first <= id) else {
                continue;
            };
            let after = IdGap {
                first: id.saturating_add(1),
                last: gap.last,
            };
            gap.last = id - 1;
            let (before, after) = (gap.first < id, (id < after.last).then_some(after));
            match (before, after) {
                (true, Some(after)) => self.gaps.insert(at + 1, after),
                (false, Some(after)) => *gap = after,
                (true, None) => {}
                (false, None) => {
                    self.gaps.remove(at);
                }
            }
        }
    }

    /// Gives up the gaps in which nothing appears any more.
    fn forget(&mut self) {
        let settled = self.settled;
        self.gaps.retain_mut(|gap| {
            gap.first = gap.first.max(settled.saturating_add(1));
            gap.first <= gap.last
        });
    }
}

/// The id of an entry, and the entry when this build can read it.
type SeenEntry = (i64, Option<Log>);

/// The entries of a query. One that can't be read is reported, and passed over
/// once and for all: a follower would never get any further.
async fn seen_entries(h: &Context, query: Select<logs::Entity>) -> Result<Vec<SeenEntry>, Error> {
    let rows = h.fetch_results(query).await?.into_iter();
    rows.map(|row| match row {
        Ok(log) => Ok((log.id.0, Some(log))),
        Err(error) => match error.id {
            Some(id) => {
                report(&error.into());
                Ok((id, None))
            }
            // Without its key nothing could go on behind it.
            None => Err(error.into()),
        },
    })
    .collect()
}

async fn newest(h: &Context) -> Result<i64, Error> {
    let newest = logs::Entity::find()
        .select_only()
        .column(logs::Column::Id)
        .order_by_desc(logs::Column::Id)
        .limit(1);
    Ok(h.scalar(newest).await?.unwrap_or(0))
}

async fn writers(h: &Context) -> Result<BTreeSet<String>, Error> {
    if h.backend() != DbBackend::Postgres {
        return Ok(BTreeSet::new());
    }
    let writers = Statement::from_string(DbBackend::Postgres, WRITERS);
    Ok(h.fetch_all(TypedQuery::<String>::sql(writers))
        .await?
        .into_iter()
        .collect())
}

/// Only where there are writers beside each other, so on PostgreSQL.
async fn gaps(h: &Context, after: i64, to: i64) -> Result<Vec<IdGap>, Error> {
    let values = [after.into(), to.into()];
    let gaps = Statement::from_sql_and_values(DbBackend::Postgres, GAPS, values);
    h.fetch_all(TypedQuery::<IdGap>::sql(gaps)).await
}
