//! Queues executions.

use aura_orm::{CachedSql, ModelOf, TypedQuery, returning};
use chrono::{DateTime, TimeDelta, Utc};
use entity::{Document, ExecutionMode, ExecutionStatus, WorkflowId, executions, workflows};
use sea_orm::sea_query::{Expr, InsertStatement, OnConflict, Query};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, Value};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::clock::{after, moment};
use super::{DEFAULT_QUEUE, Execution, Executions, run};
use crate::IntoDocument;
use crate::context::Context;
use crate::error::Error;
use crate::repositories::filter::setters;
use crate::repositories::json_expr;
use crate::validate::Check;

/// How long after its end an execution answers for its key, and is kept.
pub(super) const KEY_RETENTION: TimeDelta = TimeDelta::hours(24);

/// How often a key is tried that others take and give up at the same moment.
const TRIES: u32 = 3;

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
    /// How often it may be begun, from 1 to 1,000.
    pub max_attempts: i64,
    /// In which queue, of at most 64 characters: [`DEFAULT_QUEUE`], unless it is set.
    pub queue: String,
    /// Which of the owner's executions in this queue come first, from -1,000 to 1,000: those
    /// with a higher one.
    pub priority: i64,
}

impl NewExecution {
    /// Creates one without data. It may be begun three times, what a person starts once.
    #[must_use]
    pub fn new(workflow: WorkflowId, mode: ExecutionMode) -> Self {
        Self {
            workflow,
            mode,
            data: None,
            max_attempts: match mode {
                ExecutionMode::Manual => 1,
                ExecutionMode::Trigger | ExecutionMode::Webhook | ExecutionMode::Cron => 3,
            },
            queue: DEFAULT_QUEUE.to_owned(),
            priority: 0,
        }
    }
}

setters!(NewExecution {
    /// Sets what it begins with.
    data(json: impl IntoDocument) => data = json.into_document(),
    /// Sets how often it may be begun, from 1 to 1,000: an attempt that fails in a way that can
    /// pass, or loses its worker, is followed by another.
    max_attempts(attempts: i64) => max_attempts = attempts,
    /// Sets the queue, of at most 64 characters: a [`Worker`](super::Worker) takes from those
    /// that it names.
    queue(name: impl Into<String>) => queue = name.into(),
    /// Sets the priority, from -1,000 to 1,000. It counts among the executions that the same
    /// owner has in the same queue: those of others don't wait for it.
    priority(priority: i64) => priority = priority,
});

/// An execution that was asked for under a key.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Enqueued {
    /// The execution, as it is now.
    pub execution: Execution,
    /// Whether this call has queued it, and none before.
    pub is_new: bool,
}

impl NewExecution {
    fn check(&self) -> Check {
        let mut check = Check::default();
        check.document("data", self.data.as_ref());
        if !(1..=1_000).contains(&self.max_attempts) {
            check.refuse("max_attempts", "must be from 1 to 1000");
        }
        check.name("queue", &self.queue, 64);
        if !(-1_000..=1_000).contains(&self.priority) {
            check.refuse("priority", "must be from -1000 to 1000");
        }
        check
    }

    /// Returns a hash of the input: 128 bits, in hexadecimal digits.
    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.mode.as_str());
        hash.update("\n");
        hash.update(self.data.as_ref().map_or("", Document::as_str));
        let bytes = hash.finalize();
        let bytes = bytes.iter().take(16);
        let number = bytes.fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        format!("{number:032x}")
    }

    /// Returns the statement that queues it, if the workflow is there.
    fn insert(
        &self,
        h: &Context,
        now: Option<DateTime<Utc>>,
        key: Option<(&str, &str)>,
    ) -> Result<InsertStatement, DbErr> {
        use executions::Column;
        let mut from = Query::select();
        from.column((workflows::Entity, workflows::Column::Id))
            .column((workflows::Entity, workflows::Column::Version))
            .expr(Expr::val(self.mode))
            .expr(Expr::val(ExecutionStatus::Queued))
            .expr(moment(now))
            .expr(Expr::val(self.max_attempts))
            .expr(Expr::val(self.queue.as_str()))
            .expr(Expr::val(self.priority))
            .column((workflows::Entity, workflows::Column::OwnerId))
            .expr(Expr::val(key.map(|(key, _)| key.to_owned())))
            .expr(Expr::val(key.map(|(_, hash)| hash.to_owned())))
            .expr(json_expr(Column::Data, self.data.as_ref()))
            .from(workflows::Entity)
            .and_where(workflows::COLUMN.id.eq(self.workflow))
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
            Column::MaxAttempts,
            Column::Queue,
            Column::Priority,
            Column::OwnerId,
            Column::IdempotencyKey,
            Column::InputHash,
            Column::Data,
        ]);
        insert
            .select_from(from)
            .map_err(crate::repositories::unbuilt)?;
        Ok(insert)
    }
}

impl Executions {
    /// Queues an execution of the workflow's present version.
    ///
    /// Fails with [`Error::NotFound`] when the workflow is not there, and with
    /// [`Error::Validation`].
    pub async fn enqueue(&self, new: NewExecution) -> Result<Execution, Error> {
        new.check().done()?;
        let new = &new;
        self.0
            .write(run("enqueue"), |h| async move {
                let queued = queue(&h, new).await?;
                let queued = queued.ok_or_else(|| Error::not_found("workflow", new.workflow))?;
                h.notify_queued([queued.queue.as_str()]);
                Ok(queued)
            })
            .await
    }

    /// Queues an execution of the workflow's present version, unless one was asked for under
    /// this key, of at most 200 characters: then it returns that one, as it is now. So who
    /// doesn't know what came of a call, or is asked twice, can ask again. A key is free again
    /// 24 hours after the end of its execution, which isn't [pruned](Executions::prune)
    /// before.
    ///
    /// Fails with [`Error::Conflict`] when it was asked for with another mode or other data
    /// under this key, with [`Error::NotFound`] when the workflow is not there, and with
    /// [`Error::Validation`].
    pub async fn enqueue_once(&self, new: NewExecution, key: &str) -> Result<Enqueued, Error> {
        let mut check = new.check();
        check.name("key", key, 200);
        check.done()?;
        let (new, hash) = (&new, &new.hash());
        self.0
            .write(run("enqueue_once"), |h| async move {
                for _ in 0..TRIES {
                    let mut insert = new.insert(&h, h.shared_now(), Some((key, hash)))?;
                    insert.on_conflict(OnConflict::new().do_nothing().to_owned());
                    let queued = h.insert_returning::<executions::Entity>(insert).await?;
                    if let Some(execution) = queued {
                        h.notify_queued([execution.queue.as_str()]);
                        let is_new = true;
                        return Ok(Enqueued { execution, is_new });
                    }
                    if free_key(&h, new.workflow, key).await? {
                        continue;
                    }
                    // In a statement of its own, which sees what was in the way.
                    if let Some(execution) = find(&h, new.workflow, key).await? {
                        if execution.input_hash.as_ref() != Some(hash) {
                            return Err(taken());
                        }
                        let is_new = false;
                        return Ok(Enqueued { execution, is_new });
                    }
                    let mut there = workflows::Entity::find()
                        .filter(workflows::COLUMN.id.eq(new.workflow))
                        .filter(workflows::COLUMN.deleted_at.is_null());
                    if let Some(owner) = h.limited_to() {
                        there = there.filter(workflows::COLUMN.owner_id.eq(owner));
                    }
                    if !h.exists(there).await? {
                        return Err(Error::not_found("workflow", new.workflow));
                    }
                }
                Err(taken())
            })
            .await
    }
}

/// Queues an execution without a key. Its statement is the same but for its values, whether the
/// caller may run only what is theirs, and whether a test has set the clock.
async fn queue(h: &Context, new: &NewExecution) -> Result<Option<Execution>, Error> {
    static QUEUE: [CachedSql; 4] = [const { CachedSql::new() }; 4];
    let (now, owner) = (h.shared_now(), h.limited_to());
    let insert = || {
        let mut insert = new.insert(h, now, None)?;
        insert.returning(returning::<executions::Entity>(h.backend()));
        Ok(TypedQuery::<ModelOf<executions::Entity>>::insert(insert))
    };
    let none = Option::<String>::None;
    let mut values = vec![new.mode.into(), ExecutionStatus::Queued.into()];
    values.extend(now.map(Value::from));
    values.push(new.max_attempts.into());
    values.push(new.queue.as_str().into());
    values.push(new.priority.into());
    values.extend([none.clone().into(), none.into()]);
    values.push(new.data.clone().into());
    values.push(new.workflow.into());
    values.extend(owner.map(Value::from));
    let which = usize::from(now.is_some()) << 1 | usize::from(owner.is_some());
    h.fetch_optional(QUEUE[which].with(values, insert)).await
}

/// Frees a key whose execution has ended long ago. Returns whether it did.
async fn free_key(h: &Context, workflow: WorkflowId, key: &str) -> Result<bool, Error> {
    use executions::Column;
    let none = Option::<String>::None;
    let mut update = Query::update();
    update
        .table(executions::Entity)
        .value(Column::IdempotencyKey, none.clone())
        .value(Column::InputHash, none)
        .and_where(executions::COLUMN.workflow_id.eq(workflow))
        .and_where(executions::COLUMN.idempotency_key.eq(key))
        .and_where(Expr::col(Column::FinishedAt).lte(after(h, -KEY_RETENTION)))
        .cond_where(h.own_rows::<executions::Entity>());
    Ok(h.update(&update).await? > 0)
}

async fn find(h: &Context, workflow: WorkflowId, key: &str) -> Result<Option<Execution>, Error> {
    let find = executions::Entity::find()
        .filter(executions::COLUMN.workflow_id.eq(workflow))
        .filter(executions::COLUMN.idempotency_key.eq(key))
        .filter(h.own_rows::<executions::Entity>());
    h.fetch_optional(find).await
}

fn taken() -> Error {
    let columns = ["idempotency_key", "workflow_id"];
    Error::Conflict {
        table: "executions".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        deleted: false,
    }
}
