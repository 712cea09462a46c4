//! What a run is asked for, and what it reports.

use std::time::Duration;

use serde::Serialize;

use super::blocker::Blocker;

/// Which way a step was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Applied.
    Up,
    /// Reversed.
    Down,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// What a run reports while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process holds the migration lock; reported once.
    Waiting {
        /// That process, as far as the database knows it.
        holder: &'a str,
    },
    /// A step waits for a lock of PostgreSQL's; reported once for each session that holds it.
    Blocked(&'a Blocker),
    /// A table lock wasn't granted in time, or there was a deadlock: what was reported as
    /// done since the last commit is rolled back, and is tried again after a pause.
    Retrying {
        /// How often it was tried so far.
        attempt: u32,
        /// The pause.
        pause: Duration,
    },
    /// An index that a killed build left invalid is dropped, to be built again.
    InvalidIndex {
        /// The index.
        name: &'a str,
    },
    /// A batch of rows was changed, and committed.
    Batch {
        /// The step.
        name: &'a str,
        /// How many batches there were so far.
        number: u64,
    },
    /// A step was done; it counts when the run ends well.
    Done(&'a Done),
}

/// A step that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The step.
    pub name: String,
    /// Applied or reversed.
    pub direction: Direction,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Apply the pending steps, or at most the first N of them.
    Up(Option<u32>),
    /// Reverse the last N steps.
    Down(u32),
    /// Reverse all steps and remove the history.
    Reset,
    /// Reverse all steps and apply them again.
    Refresh,
    /// Drop every table that the steps make, even when `down` would fail, and
    /// apply all steps.
    Fresh,
}

impl Plan {
    /// Whether it drops all tables.
    pub(super) fn is_from_scratch(self) -> bool {
        matches!(self, Self::Reset | Self::Refresh | Self::Fresh)
    }
}

/// Rows that a plan would delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The table.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: i64,
}

/// Writes events to the log.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed to Runner::run as it is"
)]
pub fn log(event: Event<'_>) {
    match event {
        Event::Waiting { holder } => {
            tracing::warn!(target: "aura_orm::migration", "waiting for {holder}");
        }
        Event::Blocked(blocker) => {
            tracing::warn!(target: "aura_orm::migration", "waiting for {blocker}");
        }
        Event::Retrying { attempt, pause } => {
            tracing::warn!(
                target: "aura_orm::migration",
                attempt,
                ?pause,
                "a table lock wasn't granted; rolled back, and tried again"
            );
        }
        Event::InvalidIndex { name } => {
            tracing::warn!(target: "aura_orm::migration", "dropping {name}, which a killed build left invalid");
        }
        Event::Batch { name, number } => {
            tracing::debug!(target: "aura_orm::migration", name, number, "a batch of rows was changed");
        }
        Event::Done(Done {
            name,
            direction,
            micros,
        }) => {
            tracing::info!(target: "aura_orm::migration", name, ?direction, micros, "migration");
        }
    }
}
