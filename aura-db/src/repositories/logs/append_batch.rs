//! Appends the entries of several callers in one statement, on PostgreSQL.

use aura_orm::{Batch, RowDecoder, RowReader, TypedQuery, array_literals};
use chrono::{DateTime, Utc};
use entity::logs;
use sea_orm::{DbBackend, DbErr, Statement};

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
}

/// Decides once for each workflow and execution whether it is locked, as while it is
/// purged, and leaves out all its entries then: each waits by itself, and doesn't keep the
/// batch waiting. Each row comes with the place of its entry, because entries can be alike;
/// the ids are in the order of the places.
///
/// The arrays are in subqueries to hide their length from the planner. PostgreSQL would
/// find the plan for a few rows cheaper than the general one, for ten, and plan anew for
/// each batch, which takes longer than to insert it (`choose_custom_plan` in
/// src/backend/utils/cache/plancache.c).
const APPEND: &str = "
WITH flows AS MATERIALIZED (
    SELECT id FROM workflows
    WHERE id = ANY (CAST((SELECT CAST($3 AS bigint[])) AS bigint[]))
    FOR KEY SHARE SKIP LOCKED
), runs AS MATERIALIZED (
    SELECT id, workflow_id FROM executions
    WHERE id = ANY (CAST((SELECT CAST($4 AS bigint[])) AS bigint[]))
    FOR KEY SHARE SKIP LOCKED
), found AS MATERIALIZED (
    SELECT i.place, i.level, i.message, i.workflow_id, i.execution_id, i.created_at, i.metadata,
        row_number() OVER (ORDER BY i.place) AS nth
    FROM unnest(
        (SELECT CAST($1 AS text[])), (SELECT CAST($2 AS text[])), (SELECT CAST($3 AS bigint[])),
        (SELECT CAST($4 AS bigint[])), (SELECT CAST($5 AS timestamptz[])),
        (SELECT CAST($6 AS text[]))) WITH ORDINALITY
        AS i (level, message, workflow_id, execution_id, created_at, metadata, place)
    JOIN flows ON flows.id = i.workflow_id
    LEFT JOIN runs ON runs.id = i.execution_id AND runs.workflow_id = i.workflow_id
    WHERE i.execution_id IS NULL OR runs.id IS NOT NULL
), inserted AS (
    INSERT INTO logs (level, message, workflow_id, execution_id, created_at, metadata)
    SELECT level, message, workflow_id, execution_id, created_at, CAST(metadata AS jsonb)
    FROM found ORDER BY place
    RETURNING id, level, message, workflow_id, execution_id, created_at, metadata
), numbered AS (
    SELECT id, level, message, workflow_id, execution_id, created_at, metadata,
        row_number() OVER (ORDER BY id) AS nth
    FROM inserted
)
SELECT (SELECT count(*) FROM found) AS found, f.place,
    n.id, n.level, n.message, n.workflow_id, n.execution_id, n.created_at, n.metadata
FROM numbered AS n JOIN found AS f ON f.nth = n.nth";

/// A row of [`APPEND`].
struct Placed {
    /// The number of entries that were to be inserted.
    found: i64,
    /// The place of the entry in the batch, from 1.
    place: i64,
    log: Log,
}

impl RowDecoder for Placed {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(Self {
            found: cells.next_value()?,
            place: cells.next_value()?,
            log: cells.next_model::<logs::Entity>()?,
        })
    }
}

/// Sends a batch of entries.
#[derive(Clone)]
pub(super) struct AppendBatch(pub(super) Context);

/// The result of one entry of a batch.
pub(crate) type Appended = Result<Log, Error>;

impl Batch<LogEntry, Appended> for AppendBatch {
    fn bytes(entry: &LogEntry) -> usize {
        entry.new.bytes()
    }

    async fn send(self, entries: Vec<LogEntry>) -> Vec<Option<Appended>> {
        match insert(&self.0, &entries).await {
            Ok(appended) => appended,
            Err(Failed::NotDone) => entries.iter().map(|_| None).collect(),
            Err(Failed::Unknown(reason)) => {
                let results = entries.iter().map(|_| {
                    Some(Err(Error::OutcomeUnknown {
                        context: "writing",
                        source: reason.clone().into(),
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
    Unknown(String),
}

/// Inserts the entries, and returns what became of each; none of one that was left out.
async fn insert(h: &Context, entries: &[LogEntry]) -> Result<Vec<Option<Appended>>, Failed> {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| entry.new.row(entry.at))
        .collect();
    let arrays = array_literals(&rows).map_err(|_| Failed::NotDone)?;
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, APPEND, arrays);
    let inserted = h
        .uncounted()
        .fetch_all(TypedQuery::<Placed>::sql(statement))
        .await;
    let inserted = inserted.map_err(|error| match error {
        // Committed, if this build can read them or not.
        Error::OutcomeUnknown { .. } | Error::Inconsistent { .. } => {
            Failed::Unknown(error.to_string())
        }
        _ => Failed::NotDone,
    })?;
    by_place(entries.len(), inserted)
}

fn by_place(entries: usize, inserted: Vec<Placed>) -> Result<Vec<Option<Appended>>, Failed> {
    let count = inserted.len();
    let mut results: Vec<_> = (0..entries).map(|_| None).collect();
    for Placed { found, place, log } in inserted {
        let result = usize::try_from(place - 1)
            .ok()
            .and_then(|place| results.get_mut(place));
        match result {
            Some(result) if usize::try_from(found) == Ok(count) => *result = Some(Ok(log)),
            _ => {
                return Err(Failed::Unknown(format!(
                    "the database stored {count} of {found} entries, and not which: a trigger or \
                     rule on logs leaves rows out"
                )));
            }
        }
    }
    Ok(results)
}
