//! Runs of workflows: a queue that any number of workers take from.
//!
//! ```
//! # use std::time::Duration;
//! # use aura_db::{Error, ExecutionMode, NewExecution, NewWorkflow, Outcome, testing::TestDatabase};
//! # #[tokio::main] async fn main() -> Result<(), Error> {
//! # let db = TestDatabase::sqlite().await?;
//! # let ada = db.user("ada").await?;
//! # let flow = db.workflows().create(NewWorkflow::new("x").owner(ada.id)).await?;
//! db.executions().enqueue(NewExecution::new(flow.id, ExecutionMode::Manual)).await?;
//!
//! // A worker; each execution goes to one of them.
//! let lease = Duration::from_secs(60);
//! while let Some(execution) = db.executions().claim("worker-1", lease).await? {
//!     // … `extend` the lease while it works …
//!     db.executions().finish(&execution, Outcome::success(None)).await?;
//! }
//! # Ok(()) }
//! ```

mod attempts;
mod claim;
mod clock;
mod enqueue;
mod filter;
mod front;
mod intervene;
mod lease;
mod limits;
mod limits_claim;
mod limits_sql;
mod outcome;
#[cfg(test)]
pub(super) mod plans;
mod prune;
mod queue;
mod recover;
mod sql;
mod stats;
pub(super) mod suspend;
mod taking;
mod turn;
mod wakeups;
mod worker;

use chrono::{DateTime, Utc};
use entity::{Action, ExecutionId, ExecutionStatus, Resource, executions, logs};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

pub use self::attempts::ExecutionAttempt;
pub use self::claim::Claim;
pub use self::enqueue::{Enqueued, NewExecution};
pub use self::filter::{ExecutionFilter, ExecutionSummary};
pub use self::limits::LimitOf;
pub use self::outcome::Outcome;
pub use self::stats::{ExecutionDay, ExecutionStats};
pub(crate) use self::turn::Turns;
pub(crate) use self::wakeups::Waiters;
pub use self::wakeups::Wakeups;
pub use self::worker::{DEFAULT_QUEUE, Worker};
pub use entity::executions::Model as Execution;

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::filter::reads;
use crate::repositories::readable;
use aura_orm::page::{MAX_PAGE, Page, PageRequest};
use aura_orm::repository::Projection;

/// The executions. From [`Database::executions`](crate::Database::executions).
///
/// Executions of a workflow that is deleted can be read, and are not claimed
/// until it is restored.
///
/// What leases are, and are not:
///
/// * A [`Claim`] holds an execution until it ends, waits, is given back or is canceled,
///   or its lease runs out and another worker takes it. Whatever a worker does with a claim
///   that holds no more is [`Error::LeaseLost`], also when it was given the execution again.
/// * Who is slow may still be at work when another has begun anew: an execution
///   is run at least once, and its result is written once. One that crashes its workers, or
///   fails each time in a way that could pass, is [dead](entity::ExecutionStatus::Dead) after
///   its last attempt, until [`Executions::retry`] or [`Executions::discard`].
/// * Times are the server's on PostgreSQL. On SQLite they are those of the processes, which
///   are on one machine; those whose clocks differ by more than leases can spare must not
///   share a file.
#[derive(Debug, Clone)]
pub struct Executions(pub(crate) Context);

/// What reads, and what only services do (admins, for restricted handles).
const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "executions",
        name,
        needs: (action, Resource::Execution),
    }
}

/// What starts and stops: running the workflow.
const fn run(name: &'static str) -> Op {
    Op {
        table: "executions",
        name,
        needs: (Action::Execute, Resource::Workflow),
    }
}

reads!(Executions of executions: ExecutionId, Execution);

impl Executions {
    /// The execution and its newest log entries, newest first; at most 1,000, and as
    /// many as have [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) together: a list of
    /// the log has those before them. An entry that this build can't read is logged as
    /// an error (target `aura_db::unreadable`) and left out.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::Validation`] when
    /// `entries` is more.
    pub async fn get_with_logs(
        &self,
        id: ExecutionId,
        entries: u64,
    ) -> Result<(Execution, Vec<logs::Model>), Error> {
        if entries > MAX_PAGE {
            return Err(Error::field("entries", "must be at most 1000"));
        }
        self.0
            .read(op("get_with_logs", Action::Read), |h| async move {
                let execution = h.rows::<executions::Entity>().get(id).await?;
                let newest = logs::Entity::find()
                    .filter(logs::COLUMN.execution_id.eq(id))
                    .order_by_desc(logs::Column::Id)
                    .limit(entries);
                let newest = h.fetch_results(newest).await?;
                Ok((execution, readable(newest.rows)))
            })
            .await
    }

    /// Returns a page of the executions, newest first, without their documents.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] when the page or the filter can't be used.
    pub async fn list(
        &self,
        filter: ExecutionFilter,
        page: PageRequest,
    ) -> Result<Page<ExecutionSummary>, Error> {
        let (filter, page) = (&filter.0, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                let select = filter.select_page(&h, page)?.select_only();
                let select = select.columns(ExecutionSummary::columns());
                let all = filter.select(&h)?;
                h.page_of(select, all, &filter.order(), page.clone()).await
            })
            .await
    }

    /// Returns a page of the executions, newest first, with their documents.
    ///
    /// # Errors
    ///
    /// As [`Executions::list`].
    pub async fn list_full(
        &self,
        filter: ExecutionFilter,
        page: PageRequest,
    ) -> Result<Page<Execution>, Error> {
        let (filter, page) = (&filter.0, &page);
        self.0
            .read(op("list_full", Action::Read), |h| async move {
                let (select, all) = (filter.select_page(&h, page)?, filter.select(&h)?);
                h.page_of(select, all, &filter.order(), page.clone()).await
            })
            .await
    }

    /// Removes at most `limit` executions that ended before this time, those
    /// that ended first before others, with their logs, and says how many. Of
    /// several who do this at once each removes others. Call it until it says 0.
    ///
    /// Outside of a transaction they are removed in batches that commit by themselves, of
    /// each the entries first: what is removed before a failure stays removed.
    pub async fn prune(&self, before: DateTime<Utc>, limit: u64) -> Result<u64, Error> {
        prune::prune(&self.0, before, limit).await
    }
}

/// What has not ended.
const OPEN: [ExecutionStatus; 3] = [
    ExecutionStatus::Queued,
    ExecutionStatus::Running,
    ExecutionStatus::Waiting,
];

/// What ended otherwise than well.
const FAILED: [ExecutionStatus; 3] = [
    ExecutionStatus::Error,
    ExecutionStatus::Canceled,
    ExecutionStatus::Dead,
];

/// What no worker takes any more.
const ENDED: [ExecutionStatus; 4] = [
    ExecutionStatus::Success,
    ExecutionStatus::Error,
    ExecutionStatus::Canceled,
    ExecutionStatus::Dead,
];

fn missing(id: ExecutionId) -> Error {
    Error::not_found("execution", id)
}
