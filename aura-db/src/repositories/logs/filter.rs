//! Which log entries.

use chrono::{DateTime, Utc};
use entity::{ExecutionId, LogLevel, WorkflowId, logs};
use sea_orm::ColumnTrait;
use sea_orm::sea_query::{Expr, IntoCondition};

use crate::repositories::clamp_timestamp;
use crate::repositories::filter::ListFilter;

/// From the least to the most.
const LEVELS: [LogLevel; 4] = [
    LogLevel::Debug,
    LogLevel::Info,
    LogLevel::Warn,
    LogLevel::Error,
];

/// Which log entries; newest first, unless it is set.
#[derive(Debug, Clone)]
pub struct LogFilter(
    pub(super) ListFilter<logs::Entity>,
    /// The one workflow whose entries it leaves.
    pub(super) Option<WorkflowId>,
);

impl Default for LogFilter {
    fn default() -> Self {
        Self(ListFilter::newest_first(), None)
    }
}

impl LogFilter {
    /// Creates a filter of all entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a filter of those of a workflow.
    #[must_use]
    pub fn workflow(workflow: WorkflowId) -> Self {
        let of_workflow = logs::COLUMN.workflow_id.eq(workflow);
        Self(Self::new().0.and(of_workflow), Some(workflow))
    }

    /// Creates a filter of those of an execution.
    #[must_use]
    pub fn execution(execution: ExecutionId) -> Self {
        Self::new().and(logs::COLUMN.execution_id.eq(execution))
    }

    /// Filters those with this level.
    #[must_use]
    pub fn level(self, level: LogLevel) -> Self {
        self.levels(&[level])
    }

    /// Filters those with this level or a higher one.
    #[must_use]
    pub fn at_least(self, level: LogLevel) -> Self {
        let levels: Vec<_> = LEVELS
            .into_iter()
            .filter(|l| *l as u8 >= level as u8)
            .collect();
        self.levels(&levels)
    }

    fn levels(self, levels: &[LogLevel]) -> Self {
        let filter = self.and(logs::COLUMN.level.is_in(levels.iter().copied()));
        let are_severe = levels
            .iter()
            .all(|level| matches!(level, LogLevel::Warn | LogLevel::Error));
        // In the words of the index, which a plan for any values can rely on.
        if are_severe {
            filter.and(Expr::cust(r#""logs"."level" IN ('warn', 'error')"#))
        } else {
            filter
        }
    }

    /// Filters those written at this time or later.
    #[must_use]
    pub fn from(self, time: DateTime<Utc>) -> Self {
        self.and(logs::COLUMN.created_at.gte(clamp_timestamp(time)))
    }

    /// Filters those written before this time.
    #[must_use]
    pub fn until(self, time: DateTime<Utc>) -> Self {
        self.and(logs::COLUMN.created_at.lt(clamp_timestamp(time)))
    }

    /// Filters those whose message holds this text, without ASCII case; at most 200
    /// characters.
    #[must_use]
    pub fn text(self, text: impl AsRef<str>) -> Self {
        let filter = self.0.and_contains([logs::Column::Message], text.as_ref());
        Self(filter, self.1)
    }

    fn and(self, condition: impl IntoCondition) -> Self {
        Self(self.0.and(condition), self.1)
    }

    /// Sorts the oldest first.
    #[must_use]
    pub fn oldest_first(mut self) -> Self {
        self.0.descending = false;
        self
    }
}
