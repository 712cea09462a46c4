//! Lists of what belongs to workflows, executions and log entries, for a user who reaches
//! own ones only.
//!
//! `workflow_id IN (…)` with `ORDER BY id LIMIT` has PostgreSQL walk the whole table
//! when these rows are few or old, and SQLite sort all of them. Here each of the
//! user's workflows is asked for its first row after the cursor, by the index that leads
//! with it. Only the workflows whose first rows come first can have a row on the page, and
//! each of these gives a page of ids at most. So a page of N rows reads one index entry for
//! each workflow of the user, N × N more at most, and N rows.

use aura_orm::page::{MAX_PAGE, PageRequest, PageStart};
use aura_orm::repository::RepositoryEntity;
use entity::UserId;
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{DbBackend, QueryFilter, Select};

use super::filter::ListFilter;
use crate::context::Context;
use crate::error::Error;

/// The most rows of each workflow that are looked at for a page.
const MAX_ROWS: u64 = MAX_PAGE + 1;

impl<E: RepositoryEntity> ListFilter<E> {
    /// Selects the rows within an operation, as far as the actor reaches them.
    pub(super) fn select(&self, h: &Context) -> Result<Select<E>, Error> {
        let rows = self.condition(h.backend())?;
        Ok(E::find().filter(h.own_rows::<E>()).filter(rows))
    }

    /// Selects what [`ListFilter::select`] does, for one page, and maybe no rows of others.
    /// A user who reaches only own rows gets them from the index of each workflow when
    /// nothing else is filtered, and not too many are skipped.
    pub(super) fn select_page(&self, h: &Context, page: &PageRequest) -> Result<Select<E>, Error> {
        match (h.limited_to(), page.start(&self.order())) {
            (Some(owner), Some(start)) if self.is_empty() && start.rows <= MAX_ROWS => {
                let (table, backend) = (E::default().table_name(), h.backend());
                let PageStart {
                    beyond,
                    descending,
                    rows,
                } = start;
                let found = on_page(table, backend, owner, beyond, descending, rows);
                Ok(E::find().filter(found))
            }
            _ => self.select(h),
        }
    }
}

/// The index is read in its own order, and no further than the limit: by a range of
/// rows, because where PostgreSQL expects few rows it would take an equality for
/// a reason to read all of them and sort.
const POSTGRES: &str = r#""{table}"."id" = ANY (ARRAY (
WITH firsts AS MATERIALIZED (
    SELECT w.id AS workflow_id, (
        SELECT l.id FROM {table} AS l WHERE l.workflow_id = w.id AND l.id {after} $1
        ORDER BY l.id {order} LIMIT 1) AS id
    FROM workflows AS w WHERE w.owner_id = $2
), heads AS MATERIALIZED (
    SELECT workflow_id FROM firsts WHERE id IS NOT NULL ORDER BY id {order} LIMIT {rows}
)
SELECT found.id FROM heads CROSS JOIN LATERAL (
    SELECT e.id FROM {table} AS e
    WHERE (e.workflow_id, e.id) {after} (heads.workflow_id, $3)
        AND e.workflow_id {until} heads.workflow_id
    ORDER BY e.workflow_id {order}, e.id {order} LIMIT {rows}) AS found
ORDER BY found.id {order} LIMIT {rows}))"#;

const SQLITE: &str = r#""{table}"."id" IN (
WITH firsts AS MATERIALIZED (
    SELECT w.id AS workflow_id, (
        SELECT l.id FROM {table} AS l WHERE l.workflow_id = w.id AND l.id {after} ?
        ORDER BY l.id {order} LIMIT 1) AS id
    FROM workflows AS w WHERE w.owner_id = ?
), heads AS MATERIALIZED (
    SELECT workflow_id FROM firsts WHERE id IS NOT NULL ORDER BY id {order} LIMIT {rows}
)
SELECT found.id FROM heads CROSS JOIN {table} AS found ON found.id IN (
    SELECT e.id FROM {table} AS e WHERE e.workflow_id = heads.workflow_id AND e.id {after} ?
    ORDER BY e.id {order} LIMIT {rows})
ORDER BY found.id {order} LIMIT {rows})"#;

/// Returns the condition of the first `rows` of this owner's after the cursor.
pub(super) fn on_page(
    table: &str,
    backend: DbBackend,
    owner: UserId,
    cursor: i64,
    descending: bool,
    rows: u64,
) -> SimpleExpr {
    let sql = match backend {
        DbBackend::Postgres => POSTGRES,
        _ => SQLITE,
    };
    let (after, until, order) = if descending {
        ("<", ">=", "DESC")
    } else {
        (">", "<=", "ASC")
    };
    let sql = sql
        .replace("{table}", table)
        .replace("{after}", after)
        .replace("{until}", until)
        .replace("{order}", order)
        .replace("{rows}", &rows.to_string());
    Expr::cust_with_values(sql, [cursor, owner.0, cursor])
}
