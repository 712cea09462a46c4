//! Works through the queue as a service does, until nothing is left, and appends what was
//! acknowledged to a file: `claim <execution> <claim>`, and `done`, `failed`, `waits` or `lost`. For the
//! tests, which kill several of them.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aura_db::{
    Claim, Clock, Config, Database, Durability, Execution, ExecutionFilter, ExecutionStatus,
    Outcome, PageRequest, SystemClock,
};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use serde_json::json;
use torture::Fate;

#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// The file that is appended to.
    #[arg(long)]
    witness: PathBuf,
    /// Milliseconds of a lease.
    #[arg(long, default_value_t = 300)]
    lease: u64,
    /// Seconds that this machine's clock is ahead.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    ahead: i64,
    /// When the clock of all is set back by two seconds: microseconds since 1970.
    #[arg(long)]
    back_at: Option<i64>,
}

/// A clock that is wrong, as a machine's may be.
#[derive(Debug)]
struct WrongClock(Arguments);

impl Clock for WrongClock {
    fn now(&self) -> DateTime<Utc> {
        let now = SystemClock.now() + TimeDelta::seconds(self.0.ahead);
        match self.0.back_at {
            Some(at) if now.timestamp_micros() >= at => now - TimeDelta::seconds(2),
            _ => now,
        }
    }

    /// It stands for the machine's: where all processes see the time of the server, it isn't
    /// asked.
    fn is_system(&self) -> bool {
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut config = Config::from_env()?;
    // A process that is killed loses nothing by it.
    config.durability = Durability::Normal;
    config.pool.max = 2;
    let mut append = OpenOptions::new();
    let witness = append.append(true).create(true).open(&arguments.witness)?;
    let db = Database::connect(config).await?;
    let db = db.with_clock(Arc::new(WrongClock(arguments.clone())));
    let lease = Duration::from_millis(arguments.lease);
    loop {
        // The same name for all: it is the claim that counts.
        if let Some(execution) = db.executions().claim("w", lease).await? {
            say(&witness, "claim", &execution)?;
            work(&db, &witness, &execution, lease).await?;
        } else if is_done(&db).await? {
            break;
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    db.close().await;
    Ok(())
}

async fn work(
    db: &Database,
    witness: &File,
    execution: &Execution,
    lease: Duration,
) -> Result<(), Box<dyn Error>> {
    let executions = db.executions();
    let claim = Claim::from(execution);
    let why = json!({"claim": claim.number});
    let (what, result) = match Fate::of(claim.execution.0, claim.number) {
        Fate::Success => {
            let result = executions.finish(claim, Outcome::success(Some(why.into())));
            ("done", result.await)
        }
        Fate::Stall => {
            tokio::time::sleep(lease * 2).await;
            match claim.execution.0 % 4 {
                0 => {
                    let waits = executions.wait(claim, execution.started_at, None);
                    ("waits", waits.await)
                }
                1 => ("waits", executions.release(claim).await),
                2 => {
                    let outcome = Outcome::retryable(why).after(Duration::ZERO);
                    ("failed", executions.finish(claim, outcome).await)
                }
                _ => {
                    let outcome = Outcome::success(Some(why.into()));
                    ("done", executions.finish(claim, outcome).await)
                }
            }
        }
        Fate::Slow => {
            for _ in 0..6 {
                tokio::time::sleep(lease / 2).await;
                match executions.extend(&claim, lease).await {
                    Ok(_) => {}
                    Err(aura_db::Error::LeaseLost { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let outcome = Outcome::success(Some(why.into()));
            ("done", executions.finish(claim, outcome).await)
        }
        Fate::Retry => {
            let outcome = Outcome::retryable(why).after(Duration::from_millis(20));
            ("failed", executions.finish(claim, outcome).await)
        }
        Fate::Wait => {
            // By the clock of the queue.
            (
                "waits",
                executions.wait(claim, execution.started_at, None).await,
            )
        }
        Fate::Release => ("waits", executions.release(claim).await),
        // It takes its worker along, each time.
        Fate::Crash => std::process::abort(),
    };
    match result {
        Ok(_) => say(witness, what, execution)?,
        Err(aura_db::Error::LeaseLost { .. }) => say(witness, "lost", execution)?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn is_done(db: &Database) -> Result<bool, aura_db::Error> {
    let open = ExecutionFilter::new().statuses([
        ExecutionStatus::Queued,
        ExecutionStatus::Running,
        ExecutionStatus::Waiting,
    ]);
    let page = db.executions().list(open, PageRequest::first(1)).await?;
    Ok(page.items.is_empty())
}

/// Appends a line, in one piece.
fn say(mut witness: &File, what: &str, execution: &Execution) -> std::io::Result<()> {
    let line = format!("{what} {} {}\n", execution.id, execution.claim_no);
    witness.write_all(line.as_bytes())
}
