//! Which executions.

use aura_orm::projection;
use chrono::{DateTime, Utc};
use entity::{ExecutionId, ExecutionMode, ExecutionStatus, WorkflowId, executions};
use sea_orm::ColumnTrait;
use sea_orm::sea_query::Expr;
use serde::Serialize;

use super::{FAILED, OPEN};
use crate::repositories::clamp_timestamp;
use crate::repositories::filter::ListFilter;

projection! {
    /// An execution without its documents.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[non_exhaustive]
    pub struct ExecutionSummary of executions {
        /// The key.
        pub id: ExecutionId = Id,
        /// Of which workflow.
        pub workflow_id: WorkflowId = WorkflowId,
        /// At which version it was queued.
        pub workflow_version: i64 = WorkflowVersion,
        /// What started it.
        pub mode: ExecutionMode = Mode,
        /// Where it stands.
        pub status: ExecutionStatus = Status,
        /// Which worker holds it, or ended it.
        pub worker_id: Option<String> = WorkerId,
        /// Until when the worker holds it.
        pub lease_until: Option<DateTime<Utc>> = LeaseUntil,
        /// Until when it waits.
        pub wait_until: Option<DateTime<Utc>> = WaitUntil,
        /// When a worker first took it.
        pub started_at: Option<DateTime<Utc>> = StartedAt,
        /// When it ended.
        pub finished_at: Option<DateTime<Utc>> = FinishedAt,
        /// When it was queued.
        pub created_at: DateTime<Utc> = CreatedAt,
        /// How often it was begun.
        pub attempts: i64 = Attempts,
        /// How often it may be.
        pub max_attempts: i64 = MaxAttempts,
        /// In which queue it stands, or stood.
        pub queue: String = Queue,
        /// Which of its owner's come first: those with a higher one.
        pub priority: i64 = Priority,
    }
}

/// Which executions; newest first, unless it is set.
#[derive(Debug, Clone)]
pub struct ExecutionFilter(pub(in crate::repositories) ListFilter<executions::Entity>);

impl Default for ExecutionFilter {
    fn default() -> Self {
        Self(ListFilter::newest_first())
    }
}

impl ExecutionFilter {
    /// Creates a filter of all executions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a filter of those of a workflow.
    #[must_use]
    pub fn workflow(workflow: WorkflowId) -> Self {
        let of_workflow = executions::COLUMN.workflow_id.eq(workflow);
        Self(ListFilter::newest_first().and(of_workflow))
    }

    /// Filters those with this status.
    #[must_use]
    pub fn status(self, status: ExecutionStatus) -> Self {
        self.statuses([status])
    }

    /// Filters those with one of these statuses.
    #[must_use]
    pub fn statuses(self, statuses: impl IntoIterator<Item = ExecutionStatus>) -> Self {
        let statuses: Vec<_> = statuses.into_iter().collect();
        let are_all = |of: &[ExecutionStatus]| statuses.iter().all(|status| of.contains(status));
        // In the words of an index, which a plan for any values can rely on.
        let index = if are_all(&OPEN) {
            Some(r#""executions"."status" IN ('queued', 'running', 'waiting')"#)
        } else if are_all(&FAILED) {
            Some(r#""executions"."status" IN ('error', 'canceled', 'dead')"#)
        } else {
            None
        };
        let filter = self.0.and(executions::COLUMN.status.is_in(statuses));
        Self(match index {
            Some(index) => filter.and(Expr::cust(index)),
            None => filter,
        })
    }

    /// Filters those that were started so.
    #[must_use]
    pub fn mode(self, mode: ExecutionMode) -> Self {
        Self(self.0.and(executions::COLUMN.mode.eq(mode)))
    }

    /// Filters those that this worker holds or ended.
    #[must_use]
    pub fn worker(self, worker: impl AsRef<str>) -> Self {
        let by_worker = |worker: &str| executions::COLUMN.worker_id.eq(worker);
        Self(self.0.and_text("worker", worker.as_ref(), 64, by_worker))
    }

    /// Filters those of this queue.
    #[must_use]
    pub fn queue(self, queue: impl AsRef<str>) -> Self {
        let in_queue = |queue: &str| executions::COLUMN.queue.eq(queue);
        Self(self.0.and_text("queue", queue.as_ref(), 64, in_queue))
    }

    /// Filters those queued at this time or later.
    #[must_use]
    pub fn from(self, time: DateTime<Utc>) -> Self {
        Self(
            self.0
                .and(executions::COLUMN.created_at.gte(clamp_timestamp(time))),
        )
    }

    /// Filters those queued before this time.
    #[must_use]
    pub fn until(self, time: DateTime<Utc>) -> Self {
        Self(
            self.0
                .and(executions::COLUMN.created_at.lt(clamp_timestamp(time))),
        )
    }

    /// Sorts the oldest first.
    #[must_use]
    pub fn oldest_first(mut self) -> Self {
        self.0.descending = false;
        self
    }
}
