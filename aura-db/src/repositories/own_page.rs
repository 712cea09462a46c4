//! Lists of what belongs to workflows, executions and log entries, for a user who reaches
//! own ones only.
//!
//! `workflow_id IN (…)` with `ORDER BY id LIMIT` has PostgreSQL walk the whole table
//! when these rows are few or old, and SQLite sort all of them. Here each of the
//! user's workflows is asked for its first row after the cursor, by the index that leads
//! with it. Only the workflows whose first rows come first can have a row on the page, and
//! each of these gives a page of ids at most. So a page of N rows reads one index entry for
//! each workflow of the user, N × N more at most, and N rows. A filter is looked at on the
//! way, so that rows which don't pass cost as much as others, and those of other users
//! nothing.

use aura_orm::page::{MAX_PAGE, PageRequest, PageStart};
use aura_orm::repository::RepositoryEntity;
use entity::UserId;
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{Condition, DbBackend, QueryFilter, Select};

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
    /// A user who reaches only own rows gets them from the index of each workflow, unless
    /// too many are skipped.
    pub(super) fn select_page(&self, h: &Context, page: &PageRequest) -> Result<Select<E>, Error> {
        match (h.limited_to(), page.start(&self.order())) {
            (Some(owner), Some(start)) if start.rows <= MAX_ROWS => {
                let (table, backend) = (E::default().table_name(), h.backend());
                let filter = self.condition(backend)?;
                let found = on_page(table, backend, owner, start, filter);
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
        SELECT {table}.id FROM {table}
        WHERE {table}.workflow_id = w.id AND {table}.id {after} $1 AND ($3)
        ORDER BY {table}.id {order} LIMIT 1) AS id
    FROM workflows AS w WHERE w.owner_id = $2
), heads AS MATERIALIZED (
    SELECT workflow_id FROM firsts WHERE id IS NOT NULL ORDER BY id {order} LIMIT {rows}
)
SELECT found.id FROM heads CROSS JOIN LATERAL (
    SELECT {table}.id FROM {table}
    WHERE ({table}.workflow_id, {table}.id) {after} (heads.workflow_id, $1)
        AND {table}.workflow_id {until} heads.workflow_id AND ($3)
    ORDER BY {table}.workflow_id {order}, {table}.id {order} LIMIT {rows}) AS found
ORDER BY found.id {order} LIMIT {rows}))"#;

const SQLITE: &str = r#""{table}"."id" IN (
WITH firsts AS MATERIALIZED (
    SELECT w.id AS workflow_id, (
        SELECT {table}.id FROM {table}
        WHERE {table}.workflow_id = w.id AND {table}.id {after} ? AND (?)
        ORDER BY {table}.id {order} LIMIT 1) AS id
    FROM workflows AS w WHERE w.owner_id = ?
), heads AS MATERIALIZED (
    SELECT workflow_id FROM firsts WHERE id IS NOT NULL ORDER BY id {order} LIMIT {rows}
)
SELECT found.id FROM heads CROSS JOIN {table} AS found ON found.id IN (
    SELECT {table}.id FROM {table}
    WHERE {table}.workflow_id = heads.workflow_id AND {table}.id {after} ? AND (?)
    ORDER BY {table}.id {order} LIMIT {rows})
ORDER BY found.id {order} LIMIT {rows})"#;

/// Returns the condition of the rows of a page, of those of this owner that pass a filter.
pub(super) fn on_page(
    table: &str,
    backend: DbBackend,
    owner: UserId,
    start: PageStart,
    filter: Condition,
) -> SimpleExpr {
    let PageStart {
        beyond,
        descending,
        rows,
    } = start;
    let (after, until, order) = if descending {
        ("<", ">=", "DESC")
    } else {
        (">", "<=", "ASC")
    };
    let sql = match backend {
        DbBackend::Postgres => POSTGRES,
        _ => SQLITE,
    };
    let sql = sql
        .replace("{table}", table)
        .replace("{after}", after)
        .replace("{until}", until)
        .replace("{order}", order)
        .replace("{rows}", &rows.to_string());
    let filter = if filter.is_empty() {
        Expr::cust("TRUE")
    } else {
        filter.into()
    };
    let (beyond, owner) = (Expr::val(beyond), Expr::val(owner.0));
    let values = match backend {
        DbBackend::Postgres => vec![beyond, owner, filter],
        // There they have no numbers.
        _ => vec![beyond.clone(), filter.clone(), owner, beyond, filter],
    };
    Expr::cust_with_exprs(sql, values)
}
