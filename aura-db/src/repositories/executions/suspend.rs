//! Executions of workflows that were deleted, which are kept out of the way of workers.
//!
//! A worker that looks for the oldest execution would pass over them again, at each look. So
//! those that haven't ended are marked when their workflow is deleted, and are marked no
//! longer when it is restored: in batches, after the deletion itself. The mark is for speed
//! only. What it misses, because a process ended meanwhile or a workflow was deleted with
//! SQL, isn't claimed either: workers put it aside when it stands in their way, and [`sweep`]
//! finds what was restored.

use aura_orm::TypedQuery;
use entity::{UserId, WorkflowId};
use sea_orm::{DbBackend, Statement};

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::batches::Changed;

/// The workflow is locked meanwhile, so that it isn't restored between the look and the mark.
const POSTGRES: &str = r"
WITH these AS MATERIALIZED (
    SELECT w.id FROM workflows AS w WHERE w.{column} = $1 AND w.deleted_at IS {state} FOR SHARE)
UPDATE executions SET is_suspended = {suspended} WHERE id = ANY (ARRAY (
    SELECT e.id FROM executions AS e
    WHERE e.workflow_id = ANY (ARRAY (SELECT id FROM these)) AND {rows}
    LIMIT $2 FOR UPDATE SKIP LOCKED))";

const SQLITE: &str = r"
UPDATE executions SET is_suspended = {suspended} WHERE id IN (
    SELECT e.id FROM executions AS e
    WHERE e.workflow_id IN (
        SELECT w.id FROM workflows AS w WHERE w.{column} = ?1 AND w.deleted_at IS {state})
    AND {rows} LIMIT ?2)";

/// Workflows that aren't deleted and have suspended executions. Each is found with one step
/// in the index, however many there are of the one before.
const RESTORED: &str = r"
WITH RECURSIVE found (id) AS (
    SELECT min(e.workflow_id) FROM executions AS e WHERE e.is_suspended
    UNION ALL
    SELECT (SELECT min(e.workflow_id) FROM executions AS e
        WHERE e.is_suspended AND e.workflow_id > found.id)
    FROM found WHERE found.id IS NOT NULL)
SELECT w.id FROM found JOIN workflows AS w ON w.id = found.id WHERE w.deleted_at IS NULL
ORDER BY w.id";

/// Whose executions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    /// Those of a workflow.
    Workflow(WorkflowId),
    /// Those of all workflows of a user.
    Owner(UserId),
}

/// Marks the executions of what was deleted. That it was is certain already, so a failure
/// outside of a transaction is logged, and [`sweep`] goes on.
pub(crate) async fn suspend(h: &Context, op: Op, of: Of) -> Result<(), Error> {
    let marked = mark(h, op, of, true).await;
    unless_alone(h, marked, "suspending the executions of what was deleted")
}

/// Takes the mark off the executions of what was restored, like [`suspend`].
pub(crate) async fn resume(h: &Context, op: Op, of: Of) -> Result<(), Error> {
    let marked = mark(h, op, of, false).await;
    unless_alone(h, marked, "resuming the executions of what was restored")
}

/// Takes the mark off what isn't of a deleted workflow any longer. In a transaction nothing is
/// done.
pub(super) async fn sweep(h: &Context, op: Op) -> Result<(), Error> {
    if h.in_transaction() {
        return Ok(());
    }
    let swept = resume_what_was_missed(h, op).await;
    unless_alone(h, swept, "looking for executions of restored workflows")
}

async fn resume_what_was_missed(h: &Context, op: Op) -> Result<(), Error> {
    let workflows = |h: Context| async move {
        let find = Statement::from_string(h.backend(), RESTORED);
        h.fetch_all(TypedQuery::<i64>::sql(find)).await
    };
    for workflow in h.read(op, workflows).await? {
        mark(h, op, Of::Workflow(WorkflowId(workflow)), false).await?;
    }
    Ok(())
}

async fn mark(h: &Context, op: Op, of: Of, suspended: bool) -> Result<(), Error> {
    let op = Op {
        table: "executions",
        name: if suspended {
            "suspend"
        } else {
            "resume_suspended"
        },
        ..op
    };
    let (column, key) = match of {
        Of::Workflow(id) => ("id", id.0),
        Of::Owner(id) => ("owner_id", id.0),
    };
    let (state, rows) = if suspended {
        let open = "e.status IN ('queued', 'running', 'waiting') AND e.is_suspended = FALSE";
        ("NOT NULL", open)
    } else {
        ("NULL", "e.is_suspended")
    };
    let sql = match h.backend() {
        DbBackend::Postgres => POSTGRES,
        _ => SQLITE,
    };
    let sql = sql
        .replace("{column}", column)
        .replace("{state}", state)
        // Limits let go what waits for them, and this can't.
        .replace(
            "{suspended}",
            if suspended {
                "TRUE, limit_id = NULL"
            } else {
                "FALSE"
            },
        )
        .replace("{rows}", rows);
    let sql = &sql;
    h.in_batches(op, i64::MAX as u64, |h, batch| async move {
        let values = vec![key.into(), batch.limit().into()];
        h.sql(sql.clone(), values).await.map(Changed::rows)
    })
    .await
    .map(|_| ())
}

pub(super) fn unless_alone(h: &Context, done: Result<(), Error>, what: &str) -> Result<(), Error> {
    match done {
        Err(error) if !h.in_transaction() => {
            tracing::warn!(
                target: "aura_db::executions",
                %error,
                "{what} failed; the next requeue_expired goes on with it"
            );
            Ok(())
        }
        done => done,
    }
}
