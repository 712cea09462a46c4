//! The rows that go with a workflow that is deleted for good.

use aura_orm::TypedQuery;
use entity::WorkflowId;
use sea_orm::{DbBackend, Statement};

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::batches::{Batch, Changed};

/// The tables whose rows belong to a workflow, those before that refer to others. Of
/// plugins it has few.
const TABLES: [&str; 3] = ["logs", "executions", "workflow_versions"];

/// Deletes the rows of one batch, unless the workflow isn't deleted any more. The rows are
/// read in the order of the index, and no further than the limit: see `own_page`.
const POSTGRES: &str = r"
WITH doomed AS MATERIALIZED ({doomed} FOR SHARE)
DELETE FROM {table} WHERE id = ANY (ARRAY (
    SELECT c.id FROM {table} AS c WHERE (c.workflow_id, c.id) > ($1, $2) AND c.workflow_id <= $1
    ORDER BY c.workflow_id, c.id LIMIT $4))
AND EXISTS (SELECT 1 FROM doomed) RETURNING id";

const SQLITE: &str = r"
DELETE FROM {table} WHERE id IN (
    SELECT c.id FROM {table} AS c WHERE c.workflow_id = ?1 AND c.id > ?2
    ORDER BY c.id LIMIT ?4)
AND EXISTS ({doomed}) RETURNING id";

/// Which workflows are deleted for good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doomed {
    /// One that is soft-deleted.
    Alone,
    /// That of a soft-deleted user.
    WithOwner,
}

impl Doomed {
    /// Returns the SQL that finds the workflow `$1`, of the user `$3` unless that is NULL.
    fn sql(self) -> &'static str {
        match self {
            Self::Alone => {
                "SELECT w.id FROM workflows AS w WHERE w.id = $1 AND w.deleted_at IS NOT NULL \
                 AND w.owner_id = coalesce($3, w.owner_id)"
            }
            Self::WithOwner => {
                // In the order in which a user is restored with these.
                "SELECT w.id FROM users AS u JOIN workflows AS w ON w.owner_id = u.id \
                 WHERE w.id = $1 AND u.deleted_at IS NOT NULL \
                 AND u.id = coalesce($3, u.id)"
            }
        }
    }
}

/// Deletes the log, the executions and the history of a workflow that is deleted for good,
/// in batches. Stops where it isn't, as after it was restored, or isn't the actor's.
pub(crate) async fn delete_children(
    h: &Context,
    op: Op,
    id: WorkflowId,
    doomed: Doomed,
) -> Result<(), Error> {
    for table in TABLES {
        let (sql, doomed) = match h.backend() {
            DbBackend::Postgres => (POSTGRES, doomed.sql().to_owned()),
            _ => (SQLITE, doomed.sql().replace('$', "?")),
        };
        let sql = sql.replace("{table}", table);
        let sql = &sql.replace("{doomed}", &doomed);
        h.in_batches(op, u64::MAX, |h, batch| async move {
            delete_batch(&h, sql, id, batch).await
        })
        .await?;
    }
    Ok(())
}

async fn delete_batch(
    h: &Context,
    sql: &str,
    id: WorkflowId,
    batch: Batch,
) -> Result<Changed, Error> {
    let own = h.limited_to().map(|user| user.0);
    let values = [
        id.into(),
        batch.after.into(),
        own.into(),
        batch.limit().into(),
    ];
    let delete = Statement::from_sql_and_values(h.backend(), sql, values);
    let keys = h.fetch_all(TypedQuery::<i64>::sql(delete)).await?;
    Ok(Changed::keys(&keys))
}
