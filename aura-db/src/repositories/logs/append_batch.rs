//! Appends the entries of several callers in one statement, on PostgreSQL.

use aura_orm::{Batch, ModelOf, TypedQuery, array_literals};
use chrono::{DateTime, Utc};
use entity::logs;
use sea_orm::{DbBackend, Statement};

use super::{Log, NewLog};
use crate::context::Context;
use crate::error::Error;

/// An entry to be appended.
#[derive(Debug)]
pub(crate) struct LogEntry {
    new: NewLog,
    at: DateTime<Utc>,
}

impl LogEntry {
    pub(super) fn of(new: &NewLog, at: DateTime<Utc>) -> Self {
        let new = new.clone();
        Self { new, at }
    }

    fn is(&self, log: &Log) -> bool {
        let NewLog {
            workflow,
            execution,
            message,
            ..
        } = &self.new;
        (*workflow, *execution, message) == (log.workflow_id, log.execution_id, &log.message)
    }
}

/// Leaves out the entries of workflows that are locked, as while one is purged: each
/// waits by itself, and doesn't keep the batch waiting.
///
/// The arrays are in subqueries to hide their length from the planner. PostgreSQL would
/// find the plan for a few rows cheaper than the general one, for ten, and plan anew for
/// each batch, which takes longer than to insert it (`choose_custom_plan` in
/// src/backend/utils/cache/plancache.c).
const APPEND: &str = "
INSERT INTO logs (level, message, workflow_id, execution_id, created_at, metadata)
SELECT i.level, i.message, w.id, i.execution_id, i.created_at, CAST(i.metadata AS jsonb)
FROM unnest(
    (SELECT CAST($1 AS text[])), (SELECT CAST($2 AS text[])), (SELECT CAST($3 AS bigint[])),
    (SELECT CAST($4 AS bigint[])), (SELECT CAST($5 AS timestamptz[])),
    (SELECT CAST($6 AS text[]))) WITH ORDINALITY
    AS i (level, message, workflow_id, execution_id, created_at, metadata, place)
JOIN workflows AS w ON w.id = i.workflow_id
WHERE i.execution_id IS NULL OR EXISTS (
    SELECT 1 FROM executions AS e WHERE e.id = i.execution_id AND e.workflow_id = w.id)
ORDER BY i.place
FOR KEY SHARE OF w SKIP LOCKED
RETURNING id, level, message, workflow_id, execution_id, created_at, metadata";

/// Sends a batch of entries.
#[derive(Clone)]
pub(super) struct AppendBatch(pub(super) Context);

/// The result of one entry of a batch.
pub(crate) type Appended = Result<Log, Error>;

impl Batch<LogEntry, Appended> for AppendBatch {
    async fn send(self, entries: Vec<LogEntry>) -> Vec<Option<Appended>> {
        match insert(&self.0, &entries).await {
            Ok(inserted) => {
                let mut inserted = inserted.into_iter().peekable();
                // In the order in which they were sent, without those left out.
                let results = entries
                    .iter()
                    .map(|entry| inserted.next_if(|log| entry.is(log)).map(Ok));
                results.collect()
            }
            Err(Failed::NotDone) => entries.iter().map(|_| None).collect(),
            Err(Failed::Unknown(error)) => {
                let results = entries.iter().map(|_| {
                    Some(Err(Error::OutcomeUnknown {
                        context: "writing",
                        source: error.to_string().into(),
                    }))
                });
                results.collect()
            }
        }
    }
}

enum Failed {
    /// Nothing was done. Sent alone, each entry gets its own error.
    NotDone,
    /// It may have been done, and must not be done again.
    Unknown(Error),
}

async fn insert(h: &Context, entries: &[LogEntry]) -> Result<Vec<Log>, Failed> {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| entry.new.row(entry.at))
        .collect();
    let arrays = array_literals(&rows).map_err(|_| Failed::NotDone)?;
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, APPEND, arrays);
    let statement = TypedQuery::<ModelOf<logs::Entity>>::sql(statement);
    let appended = h.uncounted().fetch_all(statement).await;
    appended.map_err(|error| match error {
        // Committed, if this build can read them or not.
        Error::OutcomeUnknown { .. } | Error::Inconsistent { .. } => Failed::Unknown(error),
        _ => Failed::NotDone,
    })
}
