//! Which log entries.

use chrono::{DateTime, Utc};
use entity::{ExecutionId, LogLevel, WorkflowId, logs, workflows};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select};

use super::own::on_page;
use crate::context::Context;
use crate::error::Error;
use crate::repositories::clamp_timestamp;
use crate::repositories::filter::MAX_SEARCH;
use crate::validate::Check;
use aura_orm::page::{PageRequest, Sort, contains_ci};

/// From the least to the most.
const LEVELS: [LogLevel; 4] = [
    LogLevel::Debug,
    LogLevel::Info,
    LogLevel::Warn,
    LogLevel::Error,
];

/// Which log entries; newest first, unless asked otherwise.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    workflow: Option<WorkflowId>,
    execution: Option<ExecutionId>,
    levels: Vec<LogLevel>,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    text: Option<String>,
    oldest_first: bool,
}

impl LogFilter {
    /// All entries.
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

    /// Those of this execution.
    #[must_use]
    pub fn execution(execution: ExecutionId) -> Self {
        Self {
            execution: Some(execution),
            ..Self::new()
        }
    }

    /// Those with this level.
    #[must_use]
    pub fn level(mut self, level: LogLevel) -> Self {
        self.levels = vec![level];
        self
    }

    /// Those that matter at least so much.
    #[must_use]
    pub fn at_least(mut self, level: LogLevel) -> Self {
        self.levels = LEVELS
            .into_iter()
            .filter(|l| *l as u8 >= level as u8)
            .collect();
        self
    }

    /// Those written at this time or later.
    #[must_use]
    pub fn from(mut self, time: DateTime<Utc>) -> Self {
        self.from = Some(time);
        self
    }

    /// Those written before this time.
    #[must_use]
    pub fn until(mut self, time: DateTime<Utc>) -> Self {
        self.until = Some(time);
        self
    }

    /// Those whose message holds this text, without ASCII case.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Oldest first.
    #[must_use]
    pub fn oldest_first(mut self) -> Self {
        self.oldest_first = true;
        self
    }

    pub(super) fn select(&self, h: &Context) -> Result<Select<logs::Entity>, Error> {
        let mut check = Check::default();
        check.optional("text", self.text.as_deref(), MAX_SEARCH);
        check.done()?;
        let own = h.limited_to().map(|_| {
            let own = workflows::Entity::find()
                .select_only()
                .column(workflows::Column::Id)
                .filter(h.own_rows(workflows::Column::OwnerId));
            logs::COLUMN.workflow_id.in_subquery(own.into_query())
        });
        let levels = (!self.levels.is_empty())
            .then(|| logs::COLUMN.level.is_in(self.levels.iter().copied()));
        Ok(logs::Entity::find().filter(
            Condition::all()
                .add_option(own)
                .add_option(self.workflow.map(|id| logs::COLUMN.workflow_id.eq(id)))
                .add_option(self.execution.map(|id| logs::COLUMN.execution_id.eq(id)))
                .add_option(levels)
                .add_option(
                    self.from
                        .map(|from| logs::COLUMN.created_at.gte(clamp_timestamp(from))),
                )
                .add_option(
                    self.until
                        .map(|until| logs::COLUMN.created_at.lt(clamp_timestamp(until))),
                )
                .add_option(
                    self.text
                        .as_deref()
                        .map(|text| contains_ci(logs::Column::Message, text)),
                ),
        ))
    }

    /// Selects what [`LogFilter::select`] does, for one page. A user who reaches only
    /// own entries gets them from the index of each workflow when nothing else is
    /// filtered.
    pub(super) fn select_page(
        &self,
        h: &Context,
        page: &PageRequest,
    ) -> Result<Select<logs::Entity>, Error> {
        let Self {
            workflow: None,
            execution: None,
            from: None,
            until: None,
            text: None,
            levels,
            oldest_first,
        } = self
        else {
            return self.select(h);
        };
        match (h.limited_to(), page.start_id(&self.sorted())) {
            (Some(owner), Some(cursor)) if levels.is_empty() => {
                let rows = page.limit();
                let found = on_page(h.backend(), owner, cursor, !oldest_first, rows);
                Ok(logs::Entity::find().filter(found))
            }
            _ => self.select(h),
        }
    }

    pub(super) fn sorted(&self) -> Sort<logs::Entity> {
        let oldest_first = Sort::default();
        if self.oldest_first {
            oldest_first
        } else {
            oldest_first.reverse()
        }
    }
}
