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
//!
//! The cost of a look is bounded by the entries that it reads, not by those that it
//! finds: a filter that matches nothing in a long log moves on by [`WINDOW`] entries at
//! each look, and a look that runs into the statement timeout is followed by one at a
//! quarter of them. A look that finds more than a page may have gives out the first of them,
//! and the next reads as many. Gaps are looked at in rounds, [`GAPS_AT_ONCE`] in each look.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aura_orm::Fetched;
use entity::{Action, logs};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::gap_queries::{Head, IdGap, SeenEntry, appeared, array, gaps, head, seen_entries};
use super::tail::TailPosition;
use super::{Log, LogFilter, op};
use crate::context::Context;
use crate::error::Error;

/// The most entries that are given out at once.
const BATCH: usize = 500;
/// The most gaps of a [`TailPosition`].
const REMEMBERED: usize = 1_000;
/// The most gaps of a follower: 320 kB.
const MAX_GAPS: usize = 20_000;
/// So far below the newest id, entries that are not committed yet when a
/// follower starts are waited for: many times what one call appends.
const LOOK_BACK: i64 = 1_000_000;
/// How many ids one statement looks at for the gaps that are there at the start.
const LOOK_BACK_AT_ONCE: i64 = 100_000;
/// How many entries one look reads, whether they match the filter or not.
const WINDOW: u64 = 10_000;
/// How many gaps one look reads.
const GAPS_AT_ONCE: usize = 1_000;
/// The pauses in which a new follower waits for those who write at its start. Most
/// transactions end within some milliseconds; to find the gaps below them takes half a
/// second for a million entries.
const PAUSES: [u64; 7] = [2, 5, 10, 20, 40, 80, 100];

/// What a follower knows of the log.
#[derive(Debug, Clone)]
pub(super) struct GapTracker {
    /// Up to here it has looked.
    high: i64,
    /// At or below `high`, and may still appear; in order, apart.
    gaps: Vec<IdGap>,
    /// Where the look at the gaps goes on, when there were too many for one.
    gaps_from: Option<i64>,
    /// How many entries the next look reads.
    window: u64,
    /// Up to here whoever was writing has ended.
    settled: i64,
    /// Who was writing when this id was the highest.
    mark: Option<(i64, Arc<BTreeSet<String>>)>,
}

impl Default for GapTracker {
    fn default() -> Self {
        Self {
            high: 0,
            gaps: Vec::new(),
            gaps_from: None,
            window: WINDOW,
            settled: 0,
            mark: None,
        }
    }
}

impl GapTracker {
    /// Everything that is visible now counts as given out. What isn't, below the highest
    /// id, is known after [`GapTracker::wait_for_writers`].
    pub(super) async fn now(h: &Context) -> Result<Self, Error> {
        let head = head(h).await?;
        let mut seen = Self {
            high: head.newest,
            ..Self::default()
        };
        seen.settle(&head);
        Ok(seen)
    }

    /// Waits briefly until those who were writing at the start have ended: then nothing
    /// is missing. Where one of them goes on, looks for what is missing.
    pub(super) async fn wait_for_writers(&mut self, logs: &Context) -> Result<(), Error> {
        for pause in PAUSES {
            if self.settled >= self.high {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let look = |h: Context| async move { head(&h).await };
            let head = logs.read_committed(op("tail", Action::Read), look).await?;
            self.settle(&Head {
                newest: self.high,
                ..head
            });
        }
        let lowest = (self.high - LOOK_BACK).max(self.settled);
        let mut to = self.high;
        while lowest < to && self.gaps.len() < MAX_GAPS {
            let from = (to - LOOK_BACK_AT_ONCE).max(lowest);
            let look = |h: Context| async move { gaps(&h, from, to).await };
            let mut older = logs.read_committed(op("tail", Action::Read), look).await?;
            older.append(&mut self.gaps);
            self.gaps = older;
            to = from;
        }
        let surplus = self.gaps.len().saturating_sub(MAX_GAPS);
        self.gaps.drain(..surplus);
        Ok(())
    }

    /// Where another was. The position comes from outside, so anything may
    /// stand in it.
    pub(super) fn after(position: &TailPosition, backend: DbBackend) -> Self {
        let mut gaps = match backend {
            DbBackend::Postgres => position.gaps.clone(),
            _ => Vec::new(),
        };
        gaps.retain(|gap| gap.first <= gap.last && gap.last <= position.high);
        gaps.sort_by_key(|gap| gap.first);
        gaps.dedup_by(|next, gap| {
            let overlap = next.first <= gap.last;
            if overlap {
                gap.last = gap.last.max(next.last);
            }
            overlap
        });
        join_oldest(&mut gaps, REMEMBERED);
        Self {
            high: position.high,
            gaps,
            ..Self::default()
        }
    }

    pub(super) fn position(&self) -> TailPosition {
        let mut gaps = self.gaps.clone();
        join_oldest(&mut gaps, REMEMBERED);
        TailPosition {
            high: self.high,
            gaps,
        }
    }

    /// One look, and whether there is more to look at. The order matters: first
    /// the highest id, then who writes, both in `head`, which is no older than that of the
    /// look before; then what is missing, then the entries.
    pub(super) async fn poll(
        &mut self,
        h: &Context,
        filter: &LogFilter,
        head: &Head,
    ) -> Result<(Vec<Log>, bool), Error> {
        self.settle(head);
        let newest = head.newest;
        let Fetched {
            rows: mut entries,
            mut cut,
        } = self.late(h, filter).await?;
        if entries.len() < BATCH && self.high < newest && !cut {
            let next = self.next(h, filter, newest, BATCH - entries.len()).await?;
            self.fill(next.rows.iter().map(|(id, _)| *id));
            cut = next.cut;
            entries.extend(next.rows);
        }
        self.window = if cut {
            // What doesn't fit would be read in vain.
            entries.len() as u64
        } else {
            (self.window * 2).min(WINDOW)
        };
        let entries = entries.into_iter().filter_map(|(_, log)| log);
        let more = self.high < newest || self.gaps_from.is_some();
        Ok((entries.collect(), more))
    }

    /// Has the next look read fewer entries, because this one took too long.
    pub(super) fn narrow(&mut self) {
        self.window = (self.window / 4).max(1);
    }

    /// Moves `settled` as far as whoever was writing has ended.
    fn settle(&mut self, head: &Head) {
        let Head { newest, writers } = head;
        if writers.is_empty() {
            self.mark = None;
            self.settled = self.settled.max(*newest);
            return;
        }
        match &self.mark {
            Some((_, before)) if !before.is_disjoint(writers) => {}
            mark => {
                if let Some((id, _)) = mark {
                    self.settled = self.settled.max(*id);
                }
                self.mark = Some((*newest, writers.clone()));
            }
        }
    }

    /// What has appeared in the next gaps of the round.
    async fn late(&mut self, h: &Context, filter: &LogFilter) -> Result<Fetched<SeenEntry>, Error> {
        let start = self.gaps_from.take().unwrap_or(i64::MIN);
        let at = self.gaps.partition_point(|gap| gap.last < start);
        let gaps = self.gaps.iter().skip(at).take(GAPS_AT_ONCE);
        let gaps: Vec<_> = gaps
            .map(|gap| IdGap {
                first: gap.first.max(start),
                last: gap.last,
            })
            .collect();
        let mut entries = Fetched {
            rows: Vec::new(),
            cut: false,
        };
        let Some(last) = gaps.last() else {
            return Ok(entries);
        };
        let most = self.window.min(BATCH as u64);
        let mut appeared = appeared(h, &gaps, most).await?;
        let mut end = match appeared.last() {
            Some(id) if appeared.len() as u64 == most => *id,
            _ => last.last,
        };
        if !appeared.is_empty() {
            let these = Expr::cust_with_values(
                r#""logs"."id" = ANY (CAST($1 AS bigint[]))"#,
                [array(appeared.iter().copied())],
            );
            let these = filter.0.select(h)?.filter(these);
            entries = seen_entries(h, these.order_by_asc(logs::Column::Id)).await?;
            if let (true, Some((last, _))) = (entries.cut, entries.rows.last()) {
                end = *last;
                appeared.retain(|id| *id <= end);
            }
        }
        if self.gaps.last().is_some_and(|gap| gap.last > end) {
            self.gaps_from = Some(end + 1);
        }
        self.fill(appeared);
        self.forget(start, end.min(self.settled));
        Ok(entries)
    }

    /// What is above `high`, which moves.
    async fn next(
        &mut self,
        h: &Context,
        filter: &LogFilter,
        newest: i64,
        room: usize,
    ) -> Result<Fetched<SeenEntry>, Error> {
        let mut to = newest;
        if newest.saturating_sub(self.high).unsigned_abs() > self.window {
            // Counted in entries: pruned ones leave long stretches of ids.
            let end = logs::Entity::find()
                .select_only()
                .column(logs::Column::Id)
                .filter(logs::COLUMN.id.gt(self.high))
                .order_by_asc(logs::Column::Id)
                .offset(self.window - 1)
                .limit(1);
            to = newest.min(h.scalar(end).await?.unwrap_or(newest));
        }
        let from = self.high.max(self.settled);
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
        self.high = match next.rows.last() {
            Some((last, _)) if next.cut || next.rows.len() == room => *last,
            _ => to,
        };
        missing.retain_mut(|gap| {
            gap.last = gap.last.min(self.high);
            gap.first <= gap.last
        });
        self.gaps.append(&mut missing);
        join_oldest(&mut self.gaps, MAX_GAPS);
        Ok(next)
    }

    /// What was seen is missing no more.
    fn fill(&mut self, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
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

    /// Gives up these ids, of which none appears any more.
    fn forget(&mut self, first: i64, last: i64) {
        if last < first {
            return;
        }
        for gap in std::mem::take(&mut self.gaps) {
            let before = (gap.first, gap.last.min(first.saturating_sub(1)));
            let after = (gap.first.max(last.saturating_add(1)), gap.last);
            let left = [(before, gap.first < first), (after, gap.last > last)];
            let left = left.into_iter().filter(|(_, is_left)| *is_left);
            let left = left.map(|((first, last), _)| IdGap { first, last });
            self.gaps.extend(left);
        }
    }
}

/// Joins the oldest gaps to one, so that at most `most` are left.
fn join_oldest(gaps: &mut Vec<IdGap>, most: usize) {
    let surplus = gaps.len().saturating_sub(most);
    if let Some(&IdGap { first, .. }) = gaps.first().filter(|_| surplus > 0) {
        gaps.drain(..surplus);
        if let Some(oldest) = gaps.first_mut() {
            oldest.first = first;
        }
    }
}
