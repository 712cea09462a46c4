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
//!     db.executions().finish(execution.id, "worker-1", Outcome::success(None)).await?;
//! }
//! // What a crashed worker held goes back to the queue.
//! db.executions().requeue_expired(100).await?;
//! # Ok(()) }
//! ```

mod filter;
mod lease;
#[cfg(test)]
pub(super) mod plans;
mod prune;
mod queue;
mod stats;
pub(super) mod suspend;

use chrono::{DateTime, Utc};
use entity::{
    Action, Document, ExecutionId, ExecutionMode, ExecutionStatus, Resource, WorkflowId,
    executions, logs, workflows,
};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

pub use self::filter::{ExecutionFilter, ExecutionSummary};
pub use self::lease::Outcome;
pub use self::stats::{ExecutionDay, ExecutionStats};
pub use entity::executions::Model as Execution;

use crate::IntoDocument;
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::filter::{reads, setters};
use crate::repositories::{json_expr, readable};
use crate::validate::Check;
use aura_orm::page::{MAX_PAGE, Page, PageRequest};
use aura_orm::repository::Projection;

/// An execution to be queued.
#[derive(Debug, Clone)]
pub struct NewExecution {
    /// Of which workflow: any that is not deleted, because drafts are run by
    /// hand.
    pub workflow: WorkflowId,
    /// What started it.
    pub mode: ExecutionMode,
    /// What it begins with.
    pub data: Option<Document>,
}

impl NewExecution {
    /// One without data.
    #[must_use]
    pub fn new(workflow: WorkflowId, mode: ExecutionMode) -> Self {
        Self {
            workflow,
            mode,
            data: None,
        }
    }
}

setters!(NewExecution {
    /// Sets what it begins with.
    data(json: impl IntoDocument) => data = json.into_document(),
});

/// The executions. From [`Database::executions`](crate::Database::executions).
///
/// Executions of a workflow that is deleted can be read, and are not claimed
/// until it is restored.
///
/// What leases are, and are not:
///
/// * A holder is known by its name only. So no two workers may share a name, and
///   one that has lost an execution, and takes it again, must have dropped what
///   it did before: a name for each task that works (`host-process-task`) makes
///   sure of both.
/// * Who is slow may still be at work when another has begun anew: an execution
///   is run at least once, and its result is written once. One that crashes its
///   worker comes back each time; nobody counts.
/// * The times are those of the clocks of the machines, which must not be
///   further apart than leases can spare.
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
    /// Queues an execution of the workflow's present version.
    ///
    /// Fails with [`Error::NotFound`] when the workflow is not there, and with
    /// [`Error::Validation`].
    pub async fn enqueue(&self, new: NewExecution) -> Result<Execution, Error> {
        use executions::Column;
        let mut check = Check::default();
        check.document("data", new.data.as_ref());
        check.done()?;
        let new = &new;
        self.0
            .write(run("enqueue"), |h| async move {
                let mut from = Query::select();
                from.column((workflows::Entity, workflows::Column::Id))
                    .column((workflows::Entity, workflows::Column::Version))
                    .expr(Expr::val(new.mode))
                    .expr(Expr::val(ExecutionStatus::Queued))
                    .expr(Expr::val(h.now()))
                    .expr(json_expr(Column::Data, new.data.as_ref()))
                    .from(workflows::Entity)
                    .and_where(workflows::COLUMN.id.eq(new.workflow))
                    .and_where(workflows::COLUMN.deleted_at.is_null());
                if let Some(owner) = h.limited_to() {
                    from.and_where(workflows::COLUMN.owner_id.eq(owner));
                }
                let mut insert = Query::insert();
                insert.into_table(executions::Entity).columns([
                    Column::WorkflowId,
                    Column::WorkflowVersion,
                    Column::Mode,
                    Column::Status,
                    Column::CreatedAt,
                    Column::Data,
                ]);
                insert
                    .select_from(from)
                    .map_err(crate::repositories::unbuilt)?;
                h.insert_returning::<executions::Entity>(insert)
                    .await?
                    .ok_or_else(|| Error::not_found("workflow", new.workflow))
            })
            .await
    }

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

/// What no execution leaves any more.
const ENDED: [ExecutionStatus; 3] = [
    ExecutionStatus::Success,
    ExecutionStatus::Error,
    ExecutionStatus::Canceled,
];

fn missing(id: ExecutionId) -> Error {
    Error::not_found("execution", id)
}
