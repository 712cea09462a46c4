//! A page of the entries of one user's workflows.
//!
//! `workflow_id IN (…)` with `ORDER BY id LIMIT` has PostgreSQL walk the whole log
//! when these entries are few or old, and SQLite sort all of them. Here each of the
//! user's workflows is asked for its first entry after the cursor, by index. Only the
//! workflows whose first entries come first can have a row on the page, and each of
//! these gives a page of ids at most. So a page of N rows reads one index entry for
//! each workflow of the user, N × N more at most, and N rows.

use entity::UserId;
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, SimpleExpr};

/// The index is read in its own order, and no further than the limit: by a range of
/// rows, because where PostgreSQL expects few entries it would take an equality for
/// a reason to read all of them and sort.
const POSTGRES: &str = r#""logs"."id" = ANY (ARRAY (
WITH firsts AS MATERIALIZED (
    SELECT w.id AS workflow_id, (
        SELECT l.id FROM logs AS l WHERE l.workflow_id = w.id AND l.id {after} $1
        ORDER BY l.id {order} LIMIT 1) AS id
    FROM workflows AS w WHERE w.owner_id = $2
), heads AS MATERIALIZED (
    SELECT workflow_id FROM firsts WHERE id IS NOT NULL ORDER BY id {order} LIMIT {rows}
)
SELECT found.id FROM heads CROSS JOIN LATERAL (
    SELECT e.id FROM logs AS e
    WHERE (e.workflow_id, e.id) {after} (heads.workflow_id, $3)
        AND e.workflow_id {until} heads.workflow_id
    ORDER BY e.workflow_id {order}, e.id {order} LIMIT {rows}) AS found
ORDER BY found.id {order} LIMIT {rows}))"#;

const SQLITE: &str = r#""logs"."id" IN (
WITH firsts AS MATERIALIZED (
    SELECT w.id AS workflow_id, (
        SELECT l.id FROM logs AS l WHERE l.workflow_id = w.id AND l.id {after} ?
        ORDER BY l.id {order} LIMIT 1) AS id
    FROM workflows AS w WHERE w.owner_id = ?
), heads AS MATERIALIZED (
    SELECT workflow_id FROM firsts WHERE id IS NOT NULL ORDER BY id {order} LIMIT {rows}
)
SELECT found.id FROM heads CROSS JOIN logs AS found ON found.id IN (
    SELECT e.id FROM logs AS e WHERE e.workflow_id = heads.workflow_id AND e.id {after} ?
    ORDER BY e.id {order} LIMIT {rows})
ORDER BY found.id {order} LIMIT {rows})"#;

/// Whether an entry is one of the first `rows` of this owner's after the cursor.
pub(super) fn on_page(
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
        .replace("{after}", after)
        .replace("{until}", until)
        .replace("{order}", order)
        .replace("{rows}", &rows.to_string());
    Expr::cust_with_values(sql, [cursor, owner.0, cursor])
}
