//! Runs an operation for a while, in so many tasks, and takes the time of each.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::Result;
use crate::data::{self, Entry, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::{NO_DELIVERY, Peer};
use crate::protocol::{Measured, Run};
use crate::workload::Operation;

/// Latencies are kept to the tenth of a microsecond, up to ten minutes.
const TICK: f64 = 0.1e-6;
const LONGEST: u64 = 6_000_000_000;

/// Runs until the time is over; calls under way are waited for, and counted.
pub(crate) async fn run<P: Peer>(peer: &Arc<P>, run: Run, shape: Shape) -> Result<Measured> {
    let barrier = Arc::new(Barrier::new(run.tasks as usize));
    let mut tasks = JoinSet::new();
    for task in 0..run.tasks {
        let (peer, barrier) = (peer.clone(), barrier.clone());
        tasks.spawn(async move {
            let mut caller = Caller::new(shape, run, task);
            let mut times = Histogram::<u64>::new_with_bounds(1, LONGEST, 2)?;
            barrier.wait().await;
            let begun = Instant::now();
            let end = begun + Duration::from_secs_f64(run.seconds);
            let mut before = begun;
            while before < end {
                caller.call(&*peer, run.operation).await?;
                let after = Instant::now();
                let ticks = (after - before).as_secs_f64() / TICK;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a time is not negative, and ten minutes fit"
                )]
                times.saturating_record(ticks as u64);
                before = after;
                if P::INLINE {
                    // As everything does that waits for something: it would keep
                    // the other tasks from their turns.
                    tokio::task::coop::consume_budget().await;
                }
            }
            Ok::<_, crate::Error>((times, begun, before))
        });
    }
    let mut times = Histogram::<u64>::new_with_bounds(1, LONGEST, 2)?;
    let mut span: Option<(Instant, Instant)> = None;
    while let Some(done) = tasks.join_next().await {
        let (own, begun, ended) = done??;
        times.add(&own)?;
        span = Some(match span {
            None => (begun, ended),
            Some((first, last)) => (first.min(begun), last.max(ended)),
        });
    }
    let seconds = span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    Ok(Measured {
        calls: times.len(),
        seconds,
        p50_us: microseconds(times.value_at_quantile(0.5)),
        p99_us: microseconds(times.value_at_quantile(0.99)),
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn microseconds(ticks: u64) -> f64 {
    ticks as f64 * TICK * 1e6
}

/// Chooses what to ask for.
struct Caller {
    dice: ChaCha8Rng,
    shape: Shape,
    tasks: i64,
    task: i64,
    number: u64,
}

impl Caller {
    fn new(shape: Shape, run: Run, task: u32) -> Self {
        Self {
            dice: ChaCha8Rng::seed_from_u64(run.seed << 16 | u64::from(task)),
            shape,
            tasks: i64::from(run.tasks),
            task: i64::from(task),
            number: 0,
        }
    }

    fn one_of(&mut self, count: i64) -> i64 {
        self.dice.random_range(1..=count)
    }

    fn entry(&mut self) -> Entry {
        self.number += 1;
        Entry::new(self.number, self.one_of(self.shape.workflows))
    }

    fn delivery(&mut self) -> NewDelivery {
        self.number += 1;
        NewDelivery::new(self.number, self.one_of(self.shape.hooks))
    }

    /// A workflow, and a delivery in the first half: what follows is enough for a page.
    fn page(&mut self) -> (i64, i64) {
        let workflow = self.one_of(self.shape.hooks);
        (workflow, self.one_of(self.shape.deliveries / 2))
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    async fn call<P: Peer>(&mut self, peer: &P, operation: Operation) -> Result<()> {
        let operation = match operation {
            Operation::Mixed => match self.dice.random_range(0..100) {
                0..40 => Operation::Authenticate,
                40..60 => Operation::Details,
                60..70 => Operation::Summaries,
                70..80 => Operation::Logs,
                80..95 => Operation::Append,
                _ => Operation::Update,
            },
            other => other,
        };
        let shape = self.shape;
        match operation {
            Operation::Authenticate => {
                let token = data::token(self.one_of(shape.sessions));
                black_box(peer.authenticate(&token).await?.ok_or("nobody's token")?);
            }
            Operation::Details => {
                let workflow = self.one_of(shape.workflows);
                black_box(peer.details(workflow).await?.ok_or("no such workflow")?);
            }
            Operation::Summaries => {
                let rows = peer.summaries(self.one_of(shape.users)).await?;
                full(black_box(rows).len())?;
            }
            Operation::Documents => {
                let rows = peer.documents(self.one_of(shape.users)).await?;
                full(black_box(rows).len())?;
            }
            Operation::Logs => {
                let rows = peer.logs(self.one_of(data::PLACES) - 1).await?;
                full(black_box(rows).len())?;
            }
            Operation::Append => {
                let entry = self.entry();
                black_box(peer.append(entry).await?);
            }
            Operation::AppendMany => {
                let entries = (0..data::ENTRIES).map(|_| self.entry()).collect();
                if peer.append_many(entries).await? != data::ENTRIES {
                    return Err("not all entries were written".into());
                }
            }
            Operation::Update => {
                // Each task has workflows of its own, so that no version is
                // stale.
                let mine = self.one_of(shape.workflows / self.tasks) - 1;
                self.number += 1;
                let name = format!("Renamed {}", self.number);
                black_box(peer.update(mine * self.tasks + self.task + 1, name).await?);
            }
            Operation::OwnRow => {
                let row = peer.own_row(self.one_of(shape.deliveries)).await?;
                black_box(row.ok_or(NO_DELIVERY)?);
            }
            Operation::OwnRowCached => {
                let row = peer.own_row_cached(self.one_of(shape.deliveries)).await?;
                black_box(row.ok_or(NO_DELIVERY)?);
            }
            Operation::OwnPage => {
                let (workflow, after) = self.page();
                let rows = peer.own_page(workflow, after).await?;
                full(black_box(rows).len())?;
            }
            Operation::OwnInsert => {
                let new = self.delivery();
                black_box(peer.own_insert(new).await?);
            }
            Operation::Transaction => {
                let new = [self.delivery(), self.delivery()];
                black_box(peer.transaction(self.one_of(shape.deliveries), new).await?);
            }
            Operation::RepositoryFind => {
                let row = peer.repository_find(self.one_of(shape.deliveries)).await?;
                black_box(row.ok_or(NO_DELIVERY)?);
            }
            Operation::RepositoryInsert => {
                let new = self.delivery();
                black_box(peer.repository_insert(new).await?);
            }
            Operation::RepositoryUpdate => {
                self.number += 1;
                let (id, attempts) = (self.one_of(shape.deliveries), self.number.cast_signed());
                black_box(peer.repository_update(id, attempts).await?);
            }
            Operation::RepositoryList => {
                let (workflow, after) = self.page();
                let rows = peer.repository_list(workflow, after).await?;
                full(black_box(rows).len())?;
            }
            Operation::RepositoryQuery => {
                let (workflow, after) = self.page();
                let rows = peer.repository_query(workflow, after).await?;
                full(black_box(rows).len())?;
            }
            Operation::RepositoryRelated => {
                let (workflow, after) = self.page();
                let rows = peer.repository_related(workflow, after).await?;
                full(black_box(rows).len())?;
            }
            Operation::Queue => {
                self.number += 1;
                black_box(peer.queue(self.number.cast_signed()).await?);
            }
            Operation::BuiltInFind | Operation::BuiltInRepositoryFind => {
                let (id, any) = (
                    self.one_of(shape.plugins),
                    operation != Operation::BuiltInFind,
                );
                black_box(peer.built_in_find(id, any).await?.ok_or("no such plugin")?);
            }
            Operation::Mixed | Operation::Start => {
                return Err("this can't be called".into());
            }
        }
        Ok(())
    }
}

fn full(rows: usize) -> Result<()> {
    if rows as u64 == data::PAGE {
        Ok(())
    } else {
        Err(format!("{rows} rows instead of {}", data::PAGE).into())
    }
}
