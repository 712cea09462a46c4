//! Following the log without missing an entry; how it is known what is missing
//! stands in [`gap_tracker`](super::gap_tracker).

use std::time::Duration;

use entity::Action;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::gap_queries::{self, Head, IdGap};
use super::gap_tracker::GapTracker;
use super::{Log, LogFilter, Logs, op};
use crate::context::Context;
use crate::error::Error;

/// The first pause between looks; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, unless asked otherwise.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// No pause is shorter, whatever is asked.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// The longest rest of a follower that others' entries wake again and again; each is twice
/// the one before.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// Where a follower begins.
#[derive(Debug, Clone, Default)]
pub enum TailFrom {
    /// With what is committed once [`Logs::tail`] has returned, and with some of what is
    /// committed while it runs: on PostgreSQL it waits up to 257 ms for those who are
    /// writing.
    #[default]
    Now,
    /// With the oldest entry.
    Start,
    /// Where another follower of the same filter was.
    After(TailPosition),
}

/// Where a follower is, to go on from there after a restart, with exactly what
/// it has not given out. (When what it waits for lies in more than a thousand
/// places, the oldest of them are joined, and what was given out between them
/// comes again.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailPosition {
    pub(super) high: i64,
    pub(super) gaps: Vec<IdGap>,
}

/// Follows the log. From [`Logs::tail`].
#[derive(Debug)]
pub struct Tail {
    executor: Context,
    filter: LogFilter,
    seen: GapTracker,
    /// When this process last committed entries that may match.
    news: watch::Receiver<u64>,
    /// There may be entries that it has not looked at.
    behind: bool,
    longest_pause: Duration,
}

impl Logs {
    /// Follows the entries that the filter leaves, in the order in which they
    /// can be seen: by id, except those whose transaction was committed late.
    /// Each comes exactly once, however late.
    ///
    /// Entries that this process appends through a clone of this database come
    /// at once; those of other processes within a second
    /// ([`Tail::poll_every`]). A follower of one workflow ([`LogFilter::workflow`]) isn't
    /// woken by others' entries, and all that are woken by an entry look at the end of the
    /// log together. In a restricted handle the role is asked at each
    /// look. An entry that this build can't read is logged as an error (target
    /// `aura_db::unreadable`) and passed over.
    ///
    /// Not waited for are entries with ids of their own choosing (restored from
    /// elsewhere), those of a prepared transaction (`PREPARE TRANSACTION`), and
    /// with [`TailFrom::Now`] those of transactions that were open at the start
    /// and whose ids are more than a million, or 20,000 missing ids, behind. Read from
    /// the primary: a standby doesn't know who writes. While a transaction that writes
    /// to the log stays open and more than 20,000 others are undone, what was given out
    /// between the oldest of these comes again.
    ///
    /// Fails with [`Error::Validation`] when the text can't be used, or inside
    /// a transaction, which might never see a new one.
    pub async fn tail(&self, filter: LogFilter, from: TailFrom) -> Result<Tail, Error> {
        if self.0.in_transaction() {
            let problem = "follows from the database's handle, not from a transaction's";
            return Err(Error::field("tail", problem));
        }
        let (filter_, from) = (&filter, &from);
        // Before the first look, so that nothing falls in between.
        let news = self.0.followers().subscribe(filter.1);
        let mut seen = self
            .0
            .read_committed(op("tail", Action::Read), |h| async move {
                filter_.0.select(&h)?;
                match from {
                    TailFrom::Start => Ok(GapTracker::default()),
                    TailFrom::After(position) => Ok(GapTracker::after(position, h.backend())),
                    TailFrom::Now => GapTracker::now(&h).await,
                }
            })
            .await?;
        if let TailFrom::Now = from {
            // No connection is held between its looks.
            seen.wait_for_writers(&self.0).await?;
        }
        Ok(Tail {
            executor: self.0.clone(),
            filter,
            seen,
            news,
            behind: true,
            longest_pause: LONGEST_PAUSE,
        })
    }
}

impl Tail {
    /// With another longest pause between looks for entries of other processes;
    /// a millisecond at least.
    #[must_use]
    pub fn poll_every(mut self, pause: Duration) -> Self {
        self.longest_pause = pause.max(SHORTEST_PAUSE);
        self
    }

    /// Waits for the next entries, one at least and 500 at most. Nothing is
    /// lost when the future is dropped before it is done: a look reads at most 10,000
    /// entries, and [`Tail::position`] moves with each.
    ///
    /// Fails when the database does; the next call goes on where this one
    /// was, and after [`Error::Timeout`] with looks at fewer entries.
    pub async fn next(&mut self) -> Result<Vec<Log>, Error> {
        let mut pause = PAUSE.min(self.longest_pause);
        let mut rest = Duration::ZERO;
        let mut woken = None;
        loop {
            if self.behind {
                let entries = self.look(woken).await?;
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
            woken = tokio::select! {
                Ok(()) = self.news.changed() => Some(*self.news.borrow_and_update()),
                () = tokio::time::sleep(pause) => None,
            };
            // First, so that a future that is dropped from here on leaves it for the next.
            self.behind = true;
            rest = match woken {
                Some(_) => (rest * 2).clamp(SHORTEST_PAUSE, LONGEST_REST),
                None => Duration::ZERO,
            };
            pause = (pause * 2).min(self.longest_pause);
        }
    }

    /// The entries that have come since, without waiting; up to 500.
    ///
    /// Fails as [`Tail::next`] does.
    pub async fn poll(&mut self) -> Result<Vec<Log>, Error> {
        self.look(None).await
    }

    /// The entries that were committed before an append of this moment, or before now.
    async fn look(&mut self, woken: Option<u64>) -> Result<Vec<Log>, Error> {
        self.behind = true;
        let moment = woken.unwrap_or_else(|| {
            self.news.mark_unchanged();
            self.executor.followers().now()
        });
        loop {
            let head = &self.head(moment).await?;
            let (filter, before) = (&self.filter, &self.seen);
            let looked = self
                .executor
                .read_committed(op("tail", Action::Read), |h| async move {
                    let mut seen = before.clone();
                    let (entries, more) = seen.poll(&h, filter, head).await?;
                    Ok((seen, entries, more))
                })
                .await;
            if let Err(Error::Timeout { .. }) = looked {
                self.seen.narrow();
            }
            let (seen, entries, more) = looked?;
            // Only now, in one step.
            (self.seen, self.behind) = (seen, more);
            if !entries.is_empty() || !more {
                return Ok(entries);
            }
        }
    }

    /// The end of the log, as it was seen after this moment by any follower of the process.
    /// It depends on no user.
    async fn head(&self, moment: u64) -> Result<Head, Error> {
        let look = |logs: Context| async move {
            let look = |h: Context| async move { gap_queries::head(&h).await };
            let operation = op("tail_head", Action::Read);
            logs.read_committed(operation, look).await
        };
        let logs = self.executor.unrestricted();
        let followers = self.executor.followers();
        let shared = followers.look(moment, move || async move { look(logs).await.ok() });
        match shared.await {
            Some(head) => Ok(head),
            // Its own error for each.
            None => look(self.executor.unrestricted()).await,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn position(&self) -> TailPosition {
        self.seen.position()
    }

    /// The same as a stream, which goes on a second after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Vec<Log>, Error>> + Send {
        futures_util::stream::unfold((self, false), |(mut tail, failed)| async move {
            if failed {
                // Whatever failed would fail again at once, and as often as
                // somebody logs it.
                tokio::time::sleep(LONGEST_PAUSE).await;
            }
            let entries = tail.next().await;
            let failed = entries.is_err();
            Some((entries, (tail, failed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{DbBackend, Statement};
    use testdb::{Backend, TestDb};

    use super::*;
    use crate::{Database, NewUser, Role};
    use aura_orm::TypedQuery;

    /// Also where the server's default is another. SQLite has no levels to
    /// choose from.
    #[tokio::test(flavor = "multi_thread")]
    async fn sees_what_is_committed() {
        let test = TestDb::migrated(Backend::Postgres).await;
        let name = test.lines("SELECT current_database()::text AS line").await;
        let default = "SET default_transaction_isolation = 'serializable'";
        test.execute(&format!("ALTER DATABASE {} {default}", name[0]))
            .await;
        let db = Database::connect(test.plain_config()).await;
        let db = db.expect("it connects");
        let ada = NewUser::new("Ada", "ada@example.org", "a long secret");
        let ada = db.users().create(ada).await.expect("created");
        let ada = db.users().set_role(ada.id, Role::Admin).await;
        let Logs(executor) = db.restricted_to(&ada.expect("an admin")).logs();
        let level = |h: Context| async move {
            let show = Statement::from_string(DbBackend::Postgres, "SHOW transaction_isolation");
            h.fetch_optional(TypedQuery::<String>::sql(show)).await
        };
        let read = executor.read(op("tail", Action::Read), level).await;
        assert_eq!(read.expect("a level").as_deref(), Some("serializable"));
        let tail = executor
            .read_committed(op("tail", Action::Read), level)
            .await;
        assert_eq!(tail.expect("a level").as_deref(), Some("read committed"));
    }
}
