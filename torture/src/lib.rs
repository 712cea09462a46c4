//! What a writer writes, and how its log tells what was committed; and what becomes of each
//! execution in a worker's hands.
//!
//! The programs of this crate do what a service does, for the tests that end
//! them in every way; both need to know what belongs together.

use std::fmt;
use std::str::FromStr;

use aura_db::{Database, Error, LogLevel, NewLog, WorkflowId};

/// One thing that a task of the writer did: the task, and the how manyth it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operation {
    /// Which task.
    pub task: u32,
    /// The how manyth of it, from 0.
    pub number: u32,
}

/// How an operation writes its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By itself.
    Alone,
    /// Each in a statement, in one transaction.
    Transaction,
    /// In one call.
    Many,
}

impl Operation {
    /// How it writes.
    #[must_use]
    pub fn kind(self) -> Kind {
        match (self.task + self.number) % 4 {
            0 => Kind::Transaction,
            1 => Kind::Many,
            _ => Kind::Alone,
        }
    }

    /// How many log entries it writes: all of them, or none.
    #[must_use]
    pub fn entries(self) -> u32 {
        match self.kind() {
            Kind::Alone => 1,
            Kind::Transaction => 3,
            Kind::Many => 5,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.task, self.number)
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(task, number)| {
            Some(Self {
                task: task.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        parts.ok_or_else(|| format!("{text:?} is no operation"))
    }
}

/// Does an operation: writes its entries, whose messages are
/// `<run>:<task>:<number>:<index>`.
///
/// Fails as the database does.
pub async fn write(
    db: &Database,
    workflow: WorkflowId,
    run: u32,
    operation: Operation,
) -> Result<(), Error> {
    let entry = |index: u32| {
        let message = format!("{run}:{operation}:{index}");
        NewLog::new(workflow, LogLevel::Info, message)
    };
    let entries = 0..operation.entries();
    match operation.kind() {
        Kind::Alone => db.logs().append(entry(0)).await.map(drop),
        Kind::Many => {
            let entries = entries.map(entry).collect();
            db.logs().append_many(entries).await.map(drop)
        }
        Kind::Transaction => {
            db.transaction(|tx| {
                let entries: Vec<_> = entries.clone().map(entry).collect();
                async move {
                    for entry in entries {
                        tx.logs().append(entry).await?;
                    }
                    Ok(())
                }
            })
            .await
        }
    }
}

/// What a worker does with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Ends it well.
    Success,
    /// Writes to it after its lease ran out, while another holds it.
    Stall,
    /// Ends it well after a long time, in which it keeps its lease.
    Slow,
    /// Has it tried again.
    Retry,
    /// Lets it wait.
    Wait,
    /// Gives it back.
    Release,
    /// Ends the worker.
    Crash,
}

impl Fate {
    /// Returns what becomes of a claim: the same every time, so that some executions never
    /// succeed.
    #[must_use]
    pub fn of(execution: i64, claim: i64) -> Self {
        if execution % 50 == 0 {
            return if execution % 600 == 0 {
                Self::Crash
            } else {
                Self::Retry
            };
        }
        let chance = |claim: i64| (execution.wrapping_mul(7) + claim.wrapping_mul(13)) % 100;
        match chance(claim) {
            0 => Self::Stall,
            _ if chance(claim - 1) == 0 => Self::Slow,
            1..8 => Self::Retry,
            8..11 => Self::Wait,
            11..14 => Self::Release,
            _ => Self::Success,
        }
    }
}
