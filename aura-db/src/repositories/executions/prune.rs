//! The end of executions that ended long ago.

use aura_orm::TypedQuery;
use chrono::{DateTime, Utc};
use entity::{Action, ExecutionId, executions};
use sea_orm::sea_query::{DeleteStatement, Expr, LockBehavior, LockType, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
};

use super::enqueue::KEY_RETENTION;
use super::{OPEN, op};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::batches::{Batch, Changed};
use crate::repositories::clamp_timestamp;

/// Executions whose entries are deleted before them.
const AT_ONCE: u64 = 100;

/// One that wrote much would have them deleted with it in one statement.
const ENTRIES_POSTGRES: &str = r"
DELETE FROM logs WHERE id = ANY (ARRAY (
    SELECT id FROM logs WHERE execution_id = ANY (CAST($1 AS bigint[])) LIMIT $2))";

const ENTRIES_SQLITE: &str = r"
DELETE FROM logs WHERE id IN (
    SELECT id FROM logs WHERE execution_id IN (SELECT value FROM json_each(?1)) LIMIT ?2)";

/// Deletes executions that ended before this time, and the entries of each before it.
pub(super) async fn prune(h: &Context, before: DateTime<Utc>, limit: u64) -> Result<u64, Error> {
    let op = op("prune", Action::Delete);
    if h.in_transaction() {
        let at_once = |h: Context| async move {
            let these = delete(h.backend(), ended(h.now(), before, limit));
            h.delete_many(&these).await
        };
        return h.write(op, at_once).await;
    }
    let (mut pruned, mut last) = (0, Vec::new());
    loop {
        let rows = (limit - pruned).min(AT_ONCE);
        let find = |h: Context| async move {
            let found = skip_locked(h.backend(), ended(h.now(), before, rows));
            h.fetch_all(TypedQuery::<i64>::of(found.into_query())).await
        };
        // Also with a limit of 0, so that the role is asked.
        let ids = h.write(op, find).await?;
        if ids.is_empty() {
            break;
        }
        let these = &ids;
        delete_all_entries(h, op, these).await?;
        let deleted = h
            .in_batches(op, rows, |h, batch| async move {
                let these = executions::COLUMN
                    .id
                    .is_in(these.iter().copied().map(ExecutionId));
                let these = ended(h.now(), before, batch.size).filter(these);
                let deleted = h.delete_many(&delete(h.backend(), these)).await?;
                Ok(Changed::rows(deleted))
            })
            .await?;
        pruned += deleted;
        if pruned >= limit || deleted == 0 && ids == last {
            break;
        }
        last = ids;
    }
    Ok(pruned)
}

/// Deletes the log entries of these executions, in batches.
pub(super) async fn delete_all_entries(h: &Context, op: Op, of: &[i64]) -> Result<(), Error> {
    let deleted = h.in_batches(op, u64::MAX, |h, batch| async move {
        delete_entries(&h, of, batch).await
    });
    deleted.await.map(drop)
}

async fn delete_entries(h: &Context, of: &[i64], batch: Batch) -> Result<Changed, Error> {
    let ids: Vec<_> = of.iter().map(ToString::to_string).collect();
    let ids = ids.join(",");
    let (sql, ids) = match h.backend() {
        DbBackend::Postgres => (ENTRIES_POSTGRES, format!("{{{ids}}}")),
        _ => (ENTRIES_SQLITE, format!("[{ids}]")),
    };
    let values = vec![ids.into(), batch.limit().into()];
    h.sql(sql, values).await.map(Changed::rows)
}

/// Finds the executions that ended before this time, those that ended first before others;
/// not those that still answer for their key.
pub(super) fn ended(
    now: DateTime<Utc>,
    before: DateTime<Utc>,
    limit: u64,
) -> Select<executions::Entity> {
    let is_free = Condition::any()
        .add(executions::COLUMN.idempotency_key.is_null())
        .add(executions::COLUMN.finished_at.lte(now - KEY_RETENTION));
    // Not `IN (ENDED)`: SQLite would look for all of these, and sort them, for
    // each batch.
    executions::Entity::find()
        .select_only()
        .column(executions::Column::Id)
        .filter(executions::COLUMN.finished_at.lt(clamp_timestamp(before)))
        .filter(executions::COLUMN.status.is_not_in(OPEN))
        .filter(is_free)
        .order_by_asc(executions::Column::FinishedAt)
        .order_by_asc(executions::Column::Id)
        .limit(limit.min(i64::MAX as u64))
}

/// Passes over what another deletes at this moment.
fn skip_locked(
    backend: DbBackend,
    query: Select<executions::Entity>,
) -> Select<executions::Entity> {
    if backend == DbBackend::Postgres {
        query.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
    } else {
        query
    }
}

/// Deletes the executions of a query.
pub(super) fn delete(backend: DbBackend, query: Select<executions::Entity>) -> DeleteStatement {
    let query = skip_locked(backend, query).into_query();
    let these = if backend == DbBackend::Postgres {
        // An array is made once.
        let these = SimpleExpr::SubQuery(None, Box::new(query.into()));
        Expr::cust_with_exprs("\"executions\".\"id\" = ANY (ARRAY $1)", [these])
    } else {
        executions::COLUMN.id.in_subquery(query)
    };
    Query::delete()
        .from_table(executions::Entity)
        .and_where(these)
        .take()
}
