//! Puts back executions whose lease ran out.

use aura_orm::StatementKind;
use entity::{Action, ExecutionId, ExecutionStatus};
use sea_orm::{DbBackend, Value};

use super::lease::{LONGEST_LEASE, micros};
use super::sql::{RECOVER_POSTGRES, RECOVER_SQLITE};
use super::taking::Taking;
use super::{Execution, Executions, limits, op, suspend};
use crate::error::Error;

impl Executions {
    /// Queues at most `limit` executions (and 1,000) whose workers let the
    /// lease run out, oldest first, and returns them, with those that are dead now because it
    /// was their last attempt; fewer where their documents would
    /// have more than [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) together. Workers find
    /// them without it, except leases
    /// that end later than any may, as after a clock was wrong. Of several
    /// who do this at once each gets others. One that this build can't read is queued as
    /// well, and logged as an error instead of returned.
    ///
    /// Outside of a transaction it also looks for executions that were put aside with their
    /// workflow, which isn't deleted any more: restoring a workflow puts them back, unless it
    /// was done with SQL or was interrupted. And for those that wait for a limit that was removed
    /// with SQL.
    pub async fn requeue_expired(&self, limit: u64) -> Result<Vec<Execution>, Error> {
        let op = op("requeue_expired", Action::Execute);
        let backend = self.0.backend();
        let in_one_statement =
            backend == DbBackend::Postgres && limit <= Taking::in_one_statement(backend);
        let mut requeued = self
            .taking(op, in_one_statement, |h| async move {
                let mut taking = Taking::new(h.backend(), limit);
                let now = h.shared_now();
                while let Some(ask) = taking.ask() {
                    let mut values: Vec<Value> = vec![now.into(), ask.into()];
                    if h.backend() != DbBackend::Postgres {
                        values.push(now.map(|now| now + micros(LONGEST_LEASE)).into());
                    }
                    values.extend(taking.bounds(true));
                    let kind = StatementKind::BulkWrite;
                    let found = if h.backend() == DbBackend::Postgres {
                        taking.take(&h, kind, &RECOVER_POSTGRES, values).await?
                    } else {
                        let [trim, note, recover] = &*RECOVER_SQLITE;
                        h.sql(trim.as_str(), values.clone()).await?;
                        h.sql(note.as_str(), values.clone()).await?;
                        taking.take(&h, kind, recover, values).await?
                    };
                    if found < ask {
                        break;
                    }
                }
                let queued = taking.taken.iter();
                let queued = queued.filter(|row| row.status == ExecutionStatus::Queued);
                h.notify_queued(queued.map(|row| row.queue.as_str()));
                Ok(taking.taken)
            })
            .await?;
        suspend::sweep(&self.0, op).await?;
        limits::sweep(&self.0, op).await?;
        requeued.sort_by_key(|execution: &Execution| -> ExecutionId { execution.id });
        Ok(requeued)
    }
}
