//! Reads large rows as a service does, each of them once, and says how many there were and
//! how much memory that took, in MiB: `100 130`. For the tests.

use std::error::Error;
use std::time::Duration;

use aura_db::entity::workflows;
use aura_db::{Config, Database, Durability, PageRequest, WorkflowFilter};
use clap::{Parser, ValueEnum};
use futures_util::TryStreamExt;

#[derive(Debug, Parser)]
struct Arguments {
    /// How they are read.
    reads: Reads,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reads {
    /// Pages of as many rows as a page may have.
    Pages,
    /// One row after the other.
    Stream,
    /// Executions, as many as may be claimed at once.
    Claims,
    /// Executions that were claimed and whose leases ran out.
    Expired,
}

/// The most memory that the process has had, in MiB.
fn peak_memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no peak")?.parse::<u64>()? >> 10)
}

async fn pages(db: &Database) -> Result<usize, aura_db::Error> {
    let mut count = 0;
    let mut page = PageRequest::first(1_000);
    loop {
        let found = db
            .workflows()
            .list_full(WorkflowFilter::new(), page)
            .await?;
        count += found.items.len();
        let Some(next) = found.next else {
            return Ok(count);
        };
        page = PageRequest::after(next, 1_000);
    }
}

async fn stream(db: &Database) -> Result<usize, aura_db::Error> {
    let workflows = db.repository::<workflows::Entity>();
    let count = |count, _| async move { Ok(count + 1) };
    workflows.stream(()).try_fold(0, count).await
}

async fn claims(db: &Database) -> Result<usize, aura_db::Error> {
    let (mut count, lease) = (0, Duration::from_hours(1));
    loop {
        let claimed = db.executions().claim_many("reader", lease, 1_000).await?;
        if claimed.is_empty() {
            return Ok(count);
        }
        count += claimed.len();
    }
}

async fn expired(db: &Database) -> Result<usize, aura_db::Error> {
    let mut count = 0;
    loop {
        let queued = db.executions().requeue_expired(1_000).await?;
        if queued.is_empty() {
            return Ok(count);
        }
        count += queued.len();
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut config = Config::from_env()?;
    config.durability = Durability::Normal;
    let db = Database::connect(config).await?;
    let before = peak_memory()?;
    let count = match arguments.reads {
        Reads::Pages => pages(&db).await?,
        Reads::Stream => stream(&db).await?,
        Reads::Claims => claims(&db).await?,
        Reads::Expired => expired(&db).await?,
    };
    println!("{count} {}", peak_memory()?.saturating_sub(before));
    db.close().await;
    Ok(())
}
