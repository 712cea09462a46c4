//! How many executions of a workflow, or of an owner's workflows, run at once.
//!
//! What a limit leaves no room for is parked by a claim (`limits_claim`): it has the limit's id,
//! and is in no worker's way. The end of an attempt lets one go, and each look after the queues
//! as many as there is room for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use aura_orm::{CommitHook, TypedQuery};
use entity::{Action, UserId, WorkflowId, execution_limits, users, workflows};
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, Statement, Value};

use super::limits_sql as sql;
use super::queue::as_json;
use super::suspend::unless_alone;
use super::{Execution, Executions, op};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::batches::Changed;

/// The most limits that one look lets executions go for.
pub(super) const MOST_LIMITS: u64 = 1_000;

/// The most executions that one look lets go for a limit.
const MOST_FREED: i64 = 1_000;

/// Whose executions a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitOf {
    /// Those of a workflow.
    Workflow(WorkflowId),
    /// Those of all workflows of a user: of those that were the user's when the executions were
    /// queued.
    Owner(UserId),
}

impl From<WorkflowId> for LimitOf {
    fn from(workflow: WorkflowId) -> Self {
        Self::Workflow(workflow)
    }
}

impl From<UserId> for LimitOf {
    fn from(owner: UserId) -> Self {
        Self::Owner(owner)
    }
}

impl LimitOf {
    pub(super) fn column(self) -> (&'static str, i64) {
        match self {
            Self::Workflow(id) => ("workflow_id", id.0),
            Self::Owner(id) => ("owner_id", id.0),
        }
    }
}

/// A limit, and how much of it is used.
pub(super) struct Limit {
    pub(super) id: i64,
    pub(super) of: LimitOf,
    pub(super) max_running: i64,
    pub(super) running: i64,
}

impl Executions {
    /// Sets how many executions of a workflow, or of all workflows of an owner, run at once, in
    /// all processes; 0 keeps them from beginning, and `None` takes the limit away, as at first.
    /// What runs already goes on. Others wait in the queue, and delay none; where one
    /// has ended the next of its queue begins, the highest priority first. An execution whose
    /// worker is lost counts until its lease has run out.
    ///
    /// It holds for claims that begin afterwards, in transactions at REPEATABLE READ and above
    /// for those that begin; what a higher one leaves room for begins within a second. Claims
    /// of what has a limit take turns, and cost three statements more; others cost as much as
    /// before on PostgreSQL, and as much as those on SQLite.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when the workflow or the user isn't there.
    pub async fn set_concurrency_limit(
        &self,
        of: impl Into<LimitOf> + Send,
        limit: impl Into<Option<u32>> + Send,
    ) -> Result<(), Error> {
        let (of, limit) = (of.into(), limit.into());
        let op = op("set_concurrency_limit", Action::Execute);
        let Some(limit) = limit else {
            return remove(&self.0, op, of).await;
        };
        self.0
            .atomic(op, |h| async move {
                check_there(&h, of).await?;
                let (column, key) = of.column();
                let set = statement(
                    &h,
                    &sql::SET.replace("{column}", column),
                    vec![key.into(), limit.into()],
                );
                for id in h.fetch_all(TypedQuery::<i64>::sql(set)).await? {
                    learn(&h, vec![(of, id)]);
                }
                Ok(())
            })
            .await
    }

    /// Returns how many executions of a workflow, or of all workflows of an owner, run at once
    /// at most; `None` without a limit, and where a user may not see the workflow.
    ///
    /// # Errors
    ///
    /// Only those that every operation has; see [`Error`].
    pub async fn concurrency_limit(
        &self,
        of: impl Into<LimitOf> + Send,
    ) -> Result<Option<u32>, Error> {
        let of = of.into();
        let op = op("concurrency_limit", Action::Read);
        let found = |h: Context| async move {
            if let Some(user) = h.limited_to() {
                let is_own = match of {
                    LimitOf::Owner(id) => id == user,
                    LimitOf::Workflow(id) => {
                        let own = workflows::Entity::find().filter(workflows::COLUMN.id.eq(id));
                        h.exists(own.filter(workflows::COLUMN.owner_id.eq(user)))
                            .await?
                    }
                };
                if !is_own {
                    return Ok(None);
                }
            }
            let is_of = match of {
                LimitOf::Workflow(id) => execution_limits::COLUMN.workflow_id.eq(id),
                LimitOf::Owner(id) => execution_limits::COLUMN.owner_id.eq(id),
            };
            let limit = execution_limits::Entity::find().filter(is_of);
            h.fetch_optional(limit).await
        };
        let limit = self.0.read(op, found).await?;
        Ok(limit.map(|limit| u32::try_from(limit.max_running).unwrap_or(u32::MAX)))
    }
}

async fn check_there(h: &Context, of: LimitOf) -> Result<(), Error> {
    let is_there = match of {
        LimitOf::Workflow(id) => {
            let find = workflows::Entity::find().filter(workflows::COLUMN.id.eq(id));
            h.exists(find.filter(workflows::COLUMN.deleted_at.is_null()))
                .await?
        }
        LimitOf::Owner(id) => {
            let find = users::Entity::find().filter(users::COLUMN.id.eq(id));
            h.exists(find.filter(users::COLUMN.deleted_at.is_null()))
                .await?
        }
    };
    match of {
        _ if is_there => Ok(()),
        LimitOf::Workflow(id) => Err(Error::not_found("workflow", id)),
        LimitOf::Owner(id) => Err(Error::not_found("user", id)),
    }
}

/// Takes a limit away, and then lets go what waits for it: nothing more is parked since. When it
/// is interrupted, [`sweep`] goes on.
async fn remove(h: &Context, op: Op, of: LimitOf) -> Result<(), Error> {
    let (column, key) = of.column();
    let delete = &sql::REMOVE.replace("{column}", column);
    let removed = h.write(op, |h| async move {
        let delete = statement(&h, delete, vec![key.into()]);
        h.fetch_all(TypedQuery::<i64>::sql(delete)).await
    });
    let removed = removed.await?;
    if removed.is_empty() {
        // As after it was interrupted.
        return sweep(h, op).await.map(drop);
    }
    for id in removed {
        forget(h, of);
        let freed = release(h, op, id).await;
        unless_alone(
            h,
            freed,
            "letting go what waited for a limit that was removed",
        )?;
    }
    Ok(())
}

/// Lets go whatever waits for a limit, in batches.
async fn release(h: &Context, op: Op, id: i64) -> Result<(), Error> {
    let op = Op {
        name: "unpark_all",
        ..op
    };
    let release = |h: Context, batch: crate::repositories::batches::Batch| async move {
        let values = vec![id.into(), batch.limit().into()];
        let freed = statement(&h, &sql::by_backend(h.backend(), sql::RELEASE), values);
        let queues = h.fetch_all(TypedQuery::<String>::sql(freed)).await?;
        h.notify_queued(queues.iter().map(String::as_str));
        Ok(Changed::rows(queues.len() as u64))
    };
    h.in_batches(op, i64::MAX as u64, release).await.map(drop)
}

/// Lets one go for each limit that a claim has ended under.
pub(super) async fn unpark(h: &Context, op: Op, ended: &Execution) -> Result<(), Error> {
    let limits = &h
        .turns()
        .limits_of(&keys(ended.workflow_id, ended.owner_id));
    if limits.is_empty() {
        return Ok(());
    }
    let op = Op {
        name: "unpark",
        ..op
    };
    let one_each = |h: Context| async move {
        for id in limits {
            let_some_go(&h, *id, &ended.queue, 1).await?;
        }
        Ok(())
    };
    let done = h.write(op, one_each).await;
    unless_alone(h, done, "letting go what waits for a limit")
}

/// Remembers limits that are there for certain: an id that is rolled back is given again.
pub(super) fn learn(h: &Context, limits: Vec<(LimitOf, i64)>) {
    if limits.is_empty() {
        return;
    }
    h.turns().set_has_limits(true);
    let turns = h.turns().clone();
    let learn: CommitHook = Arc::new(move |_| turns.learn(&limits));
    h.after_commit(&learn, &BTreeSet::new());
}

/// Forgets a limit that is gone for certain.
fn forget(h: &Context, of: LimitOf) {
    let turns = h.turns().clone();
    let forget: CommitHook = Arc::new(move |_| turns.forget(of));
    h.after_commit(&forget, &BTreeSet::new());
}

pub(super) fn keys(workflow: WorkflowId, owner: UserId) -> [LimitOf; 2] {
    [LimitOf::Workflow(workflow), LimitOf::Owner(owner)]
}

/// Lets go some of a queue that wait for a limit. Returns how many.
async fn let_some_go(h: &Context, id: i64, queue: &str, most: i64) -> Result<i64, Error> {
    let unpark = sql::by_backend(h.backend(), sql::UNPARK);
    let unpark = statement(h, &unpark, vec![id.into(), queue.into(), most.into()]);
    let queues = h.fetch_all(TypedQuery::<String>::sql(unpark)).await?;
    h.notify_queued(queues.iter().map(String::as_str));
    Ok(i64::try_from(queues.len()).unwrap_or(i64::MAX))
}

/// Lets go as many of these queues as these limits have room for. They are locked, so that
/// nothing is parked meanwhile. Returns whether there were any.
async fn let_go(h: &Context, limits: &[Limit], queues: &[String]) -> Result<bool, Error> {
    let mut any = false;
    for limit in limits {
        let mut room = (limit.max_running - limit.running).clamp(0, MOST_FREED);
        if room == 0 {
            continue;
        }
        for queue in queues {
            if room > 0 {
                let freed = let_some_go(h, limit.id, queue, room).await?;
                any |= freed > 0;
                room -= freed;
            }
        }
        if room > 0 {
            let emptied = sql::by_backend(h.backend(), sql::EMPTIED);
            h.sql(emptied.into_owned(), vec![limit.id.into()]).await?;
        }
    }
    Ok(any)
}

/// Lets go as many of these queues as there is room for. Returns whether there were any.
pub(super) async fn maintain(h: &Context, op: Op, queues: &[String]) -> Result<bool, Error> {
    let op = Op {
        name: "maintain_limits",
        ..op
    };
    let run = |h: Context| async move {
        let held = statement(&h, &sql::by_backend(h.backend(), sql::HELD), Vec::new());
        let held = h.fetch_all(TypedQuery::<i64>::sql(held)).await?;
        let limits = find(&h, sql::LIMITS_BY_ID, &[as_json(&held)?]).await?;
        learn(
            &h,
            limits.iter().map(|limit| (limit.of, limit.id)).collect(),
        );
        let_go(&h, &limits, queues).await
    };
    h.atomic(op, run).await
}

/// Finds what waits for limits that don't know it any more, as after an interruption, after one
/// was removed with SQL or with its user, or after a worker of an older build gave
/// something back. In a transaction nothing is done. Returns whether it was done.
pub(super) async fn sweep(h: &Context, op: Op) -> Result<bool, Error> {
    if h.in_transaction() {
        return Ok(false);
    }
    let swept = find_lost(h, op).await;
    let is_done = swept.is_ok();
    unless_alone(h, swept, "looking for what waits for limits that are gone")?;
    Ok(is_done)
}

async fn find_lost(h: &Context, op: Op) -> Result<(), Error> {
    let op = Op {
        name: "sweep_limits",
        ..op
    };
    let find = |h: Context| async move {
        let lost = statement(&h, sql::LOST, Vec::new());
        h.fetch_all(TypedQuery::<(i64, bool)>::sql(lost)).await
    };
    let lost = h.read(op, find).await?;
    let (there, gone): (Vec<_>, Vec<_>) = lost.into_iter().partition(|(_, is_there)| *is_there);
    let there: &Vec<_> = &there.into_iter().map(|(id, _)| id).collect();
    if !there.is_empty() {
        let mark = |h: Context| async move {
            let marked = sql::by_backend(h.backend(), sql::MARK);
            h.sql(marked.into_owned(), vec![as_json(there)?.into()])
                .await
        };
        h.write(op, mark).await?;
    }
    for (id, _) in gone {
        release(h, op, id).await?;
    }
    Ok(())
}

/// Returns limits, and how many executions run under each.
pub(super) async fn find(h: &Context, which: &str, lists: &[String]) -> Result<Vec<Limit>, Error> {
    type Row = (i64, Option<i64>, Option<i64>, i64, i64);
    let limits = sql::LIMITS.replace("{which}", which);
    let limits = sql::by_backend(h.backend(), &limits);
    let values = lists.iter().map(|list| list.as_str().into()).collect();
    let limits = TypedQuery::<Row>::sql(statement(h, &limits, values));
    let mut found = Vec::new();
    for (id, workflow, owner, max_running, running) in h.fetch_all(limits).await? {
        let workflow = workflow.map(|id| LimitOf::Workflow(WorkflowId(id)));
        let owner = owner.map(|id| LimitOf::Owner(UserId(id)));
        if let Some(of) = workflow.or(owner) {
            found.push(Limit {
                id,
                of,
                max_running,
                running,
            });
        }
    }
    Ok(found)
}

fn statement(h: &Context, sql: &str, values: Vec<Value>) -> Statement {
    let sql: Cow<'_, str> = match h.backend() {
        DbBackend::Postgres => sql.into(),
        _ => sql.replace('$', "?").into(),
    };
    Statement::from_sql_and_values(h.backend(), sql, values)
}
