//! Which executions.

use chrono::{DateTime, Utc};
use entity::{ExecutionId, ExecutionMode, ExecutionStatus, WorkflowId, executions, workflows};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::repositories::clamp_timestamp;
use crate::repositories::summary::summary;
use crate::validate::Check;
use aura_orm::page::Sort;

/// An execution without its documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExecutionSummary {
    /// The key.
    pub id: ExecutionId,
    /// Of which workflow.
    pub workflow_id: WorkflowId,
    /// At which version it was queued.
    pub workflow_version: i64,
    /// What started it.
    pub mode: ExecutionMode,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// Who holds it, or ended it.
    pub worker_id: Option<String>,
    /// Until when the worker holds it.
    pub lease_until: Option<DateTime<Utc>>,
    /// Until when it waits.
    pub wait_until: Option<DateTime<Utc>>,
    /// When a worker first took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
}

summary!(ExecutionSummary of executions {
    id: Id, workflow_id: WorkflowId, workflow_version: WorkflowVersion, mode: Mode, status: Status, worker_id: WorkerId, lease_until: LeaseUntil, wait_until: WaitUntil, started_at: StartedAt, finished_at: FinishedAt, created_at: CreatedAt,
});

/// Which executions; newest first, unless asked otherwise.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    workflow: Option<WorkflowId>,
    statuses: Vec<ExecutionStatus>,
    mode: Option<ExecutionMode>,
    worker: Option<String>,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    oldest_first: bool,
}

impl ExecutionFilter {
    /// All executions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this workflow.
    #[must_use]
    pub fn workflow(workflow: WorkflowId) -> Self {
        Self {
            workflow: Some(workflow),
            ..Self::new()
        }
    }

    /// Those with this status, or with one of several when called again.
    #[must_use]
    pub fn status(mut self, status: ExecutionStatus) -> Self {
        self.statuses.push(status);
        self
    }

    /// Those that were started so.
    #[must_use]
    pub fn mode(mut self, mode: ExecutionMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Those that this worker holds or ended.
    #[must_use]
    pub fn worker(mut self, worker: impl Into<String>) -> Self {
        self.worker = Some(worker.into());
        self
    }

    /// Those queued at this time or later.
    #[must_use]
    pub fn from(mut self, time: DateTime<Utc>) -> Self {
        self.from = Some(time);
        self
    }

    /// Those queued before this time.
    #[must_use]
    pub fn until(mut self, time: DateTime<Utc>) -> Self {
        self.until = Some(time);
        self
    }

    /// Oldest first.
    #[must_use]
    pub fn oldest_first(mut self) -> Self {
        self.oldest_first = true;
        self
    }

    pub(super) fn select(&self, h: &Context) -> Result<Select<executions::Entity>, Error> {
        let mut check = Check::default();
        check.optional("worker", self.worker.as_deref(), 64);
        check.done()?;
        let own = h.limited_to().map(|_| {
            let own = workflows::Entity::find()
                .select_only()
                .column(workflows::Column::Id)
                .filter(h.own_rows(workflows::Column::OwnerId));
            executions::COLUMN.workflow_id.in_subquery(own.into_query())
        });
        let statuses = (!self.statuses.is_empty()).then(|| {
            executions::COLUMN
                .status
                .is_in(self.statuses.iter().copied())
        });
        Ok(executions::Entity::find().filter(
            Condition::all()
                .add_option(own)
                .add_option(
                    self.workflow
                        .map(|id| executions::COLUMN.workflow_id.eq(id)),
                )
                .add_option(statuses)
                .add_option(self.mode.map(|mode| executions::COLUMN.mode.eq(mode)))
                .add_option(
                    self.worker
                        .clone()
                        .map(|worker| executions::COLUMN.worker_id.eq(worker)),
                )
                .add_option(
                    self.from
                        .map(|from| executions::COLUMN.created_at.gte(clamp_timestamp(from))),
                )
                .add_option(
                    self.until
                        .map(|until| executions::COLUMN.created_at.lt(clamp_timestamp(until))),
                ),
        ))
    }

    pub(super) fn sorted(&self) -> Sort<executions::Entity> {
        let oldest_first = Sort::default();
        if self.oldest_first {
            oldest_first
        } else {
            oldest_first.reverse()
        }
    }
}
