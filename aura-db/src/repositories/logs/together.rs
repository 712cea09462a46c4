//! Entries of several callers in one statement, on PostgreSQL.

use chrono::{DateTime, Utc};
use sqlite_engine::{Pace, Statement};

use super::{Log, NewLog};
use crate::engine::Handle;
use crate::engine::bulk::arrays;
use crate::engine::row::Shape;
use crate::engine::server::Lease;
use crate::engine::together::Run;
use crate::error::Error;

/// An entry on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    new: NewLog,
    at: DateTime<Utc>,
}

impl Entry {
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

/// Who waits for a workflow that is being purged would have all others wait: it
/// is left out, and waits alone.
const APPEND: &str = "
INSERT INTO logs (level, message, workflow_id, execution_id, created_at, metadata)
SELECT i.level, i.message, w.id, i.execution_id, i.created_at, CAST(i.metadata AS jsonb)
FROM unnest(
    CAST($1 AS text[]), CAST($2 AS text[]), CAST($3 AS bigint[]), CAST($4 AS bigint[]),
    CAST($5 AS timestamptz[]), CAST($6 AS text[])) WITH ORDINALITY
    AS i (level, message, workflow_id, execution_id, created_at, metadata, place)
JOIN workflows AS w ON w.id = i.workflow_id
WHERE i.execution_id IS NULL OR EXISTS (
    SELECT 1 FROM executions AS e WHERE e.id = i.execution_id AND e.workflow_id = w.id)
ORDER BY i.place
FOR KEY SHARE OF w SKIP LOCKED
RETURNING id, level, message, workflow_id, execution_id, created_at, metadata";

/// Inserts entries, and tells each what became of it.
#[derive(Clone)]
pub(super) struct Append(pub(super) Handle);

/// What became of an entry that went with others.
pub(crate) type Appended = Result<Log, Error>;

impl Run<Entry, Appended> for Append {
    async fn run(self, entries: Vec<Entry>) -> Vec<Option<Appended>> {
        match insert(&self.0, &entries).await {
            Ok(inserted) => {
                let mut inserted = inserted.into_iter().peekable();
                // They come back in the order in which they were sent, some left
                // out.
                let told = entries
                    .iter()
                    .map(|entry| inserted.next_if(|log| entry.is(log)).map(Ok));
                told.collect()
            }
            Err(Failed::Undone) => entries.iter().map(|_| None).collect(),
            Err(Failed::Unknown(error)) => {
                let told = entries.iter().map(|_| {
                    Some(Err(Error::OutcomeUnknown {
                        doing: "writing",
                        source: error.to_string().into(),
                    }))
                });
                told.collect()
            }
        }
    }
}

enum Failed {
    /// Nothing was done. Alone, each finds out what is wrong with its own.
    Undone,
    /// It may have been done, and must not be done again.
    Unknown(Error),
}

async fn insert(h: &Handle, entries: &[Entry]) -> Result<Vec<Log>, Failed> {
    let server = h.shared.server.as_ref().ok_or(Failed::Undone)?;
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| entry.new.row(entry.at))
        .collect();
    let arrays = arrays(&rows).map_err(|_| Failed::Undone)?;
    let statement = Statement::new(APPEND, arrays);
    let sent = h.on_server(server, Pace::Quick, async |lease: &mut Lease| {
        lease.query(statement, Log::read).await
    });
    let answer = sent.await.map_err(|error| match error {
        Error::OutcomeUnknown { .. } => Failed::Unknown(error),
        _ => Failed::Undone,
    })?;
    answer.map_err(Failed::Unknown)
}
