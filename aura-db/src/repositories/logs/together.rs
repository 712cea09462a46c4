//! Entries of several callers in one statement, on PostgreSQL.

use chrono::{DateTime, Utc};

use super::{Log, NewLog};
use crate::engine::Handle;
use crate::engine::row::Shape;
use crate::engine::server::Lease;
use crate::engine::session::read_all;
use crate::engine::together::Run;
use crate::error::Error;

/// An entry on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    level: &'static str,
    message: String,
    workflow: i64,
    execution: Option<i64>,
    at: DateTime<Utc>,
    metadata: Option<String>,
}

impl Entry {
    pub(super) fn of(new: &NewLog, at: DateTime<Utc>) -> Self {
        Self {
            level: new.level.as_str(),
            message: new.message.clone(),
            workflow: new.workflow.0,
            execution: new.execution.map(|id| id.0),
            at,
            metadata: new.metadata.as_ref().map(|json| json.as_str().to_owned()),
        }
    }

    fn is(&self, log: &Log) -> bool {
        let execution = log.execution_id.map(|id| id.0);
        (self.workflow, self.execution) == (log.workflow_id.0, execution)
            && self.message == log.message
    }
}

/// Who waits for a workflow that is being purged would have all others wait: it
/// is left out, and waits alone.
const APPEND: &str = "
INSERT INTO logs (level, message, workflow_id, execution_id, created_at, metadata)
SELECT i.level, i.message, w.id, i.execution_id, i.created_at, CAST(i.metadata AS jsonb)
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[])
    WITH ORDINALITY
    AS i (level, message, workflow_id, execution_id, created_at, metadata, place)
JOIN workflows AS w ON w.id = i.workflow_id
WHERE i.execution_id IS NULL OR EXISTS (
    SELECT 1 FROM executions AS e WHERE e.id = i.execution_id AND e.workflow_id = w.id)
ORDER BY i.place
FOR KEY SHARE OF w SKIP LOCKED
RETURNING id, level, message, workflow_id, execution_id, created_at, metadata";

/// Inserts entries, and tells each that it was.
#[derive(Clone)]
pub(super) struct Append(pub(super) Handle);

impl Run<Entry, Log> for Append {
    async fn run(self, entries: Vec<Entry>) -> Vec<Option<Log>> {
        // Alone, each finds out what is wrong with its own.
        let inserted = insert(&self.0, &entries).await.unwrap_or_default();
        let mut inserted = inserted.into_iter().peekable();
        // They come back in the order in which they were sent, some left out.
        let told = entries
            .iter()
            .map(|entry| inserted.next_if(|log| entry.is(log)));
        told.collect()
    }
}

async fn insert(h: &Handle, entries: &[Entry]) -> Result<Vec<Log>, Error> {
    fn all<T>(entries: &[Entry], of: impl Fn(&Entry) -> T) -> Vec<T> {
        entries.iter().map(of).collect()
    }
    let Some(server) = &h.shared.server else {
        return Ok(Vec::new());
    };
    let query = sqlx::query(APPEND)
        .bind(all(entries, |entry| entry.level))
        .bind(all(entries, |entry| entry.message.clone()))
        .bind(all(entries, |entry| entry.workflow))
        .bind(all(entries, |entry| entry.execution))
        .bind(all(entries, |entry| entry.at))
        .bind(all(entries, |entry| entry.metadata.clone()));
    let rows = h.on_server(server, "writing", async |lease: &mut Lease| {
        lease.fetch(query).await
    });
    read_all(&rows.await?, Log::read)
}
