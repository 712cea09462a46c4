//! What workers look for without what is suspended; and what users with workflows of their
//! own look for, in logs and executions of everybody: what hasn't ended, what went wrong.

use aura_orm::migration::ExchangeIndexes;
use aura_orm::migration::columns::Columns;
use sea_orm::sea_query::IndexCreateStatement;

pub(super) const INDEX_OPEN_WORK: ExchangeIndexes =
    ExchangeIndexes::new("m20261127_000014_index_open_work", before, after);

fn before(columns: Columns) -> Vec<IndexCreateStatement> {
    vec![
        columns.partial("executions", "queued", &["id"], "\"status\" = 'queued'"),
        columns.partial(
            "executions",
            "waiting",
            &["wait_until", "id"],
            "\"wait_until\" IS NOT NULL",
        ),
    ]
}

fn after(columns: Columns) -> Vec<IndexCreateStatement> {
    vec![
        // Not `WHERE NOT is_suspended`: a worker of an earlier version, which doesn't know the
        // column, finds its work too.
        columns.partial(
            "executions",
            "ready",
            &["is_suspended", "id"],
            "\"status\" = 'queued'",
        ),
        columns.partial(
            "executions",
            "due",
            &["is_suspended", "wait_until", "id"],
            "\"wait_until\" IS NOT NULL",
        ),
        columns.partial(
            "executions",
            "open",
            &["workflow_id", "id"],
            "\"status\" IN ('queued', 'running', 'waiting')",
        ),
        columns.partial(
            "executions",
            "suspended",
            &["workflow_id", "id"],
            "\"is_suspended\"",
        ),
        columns.partial(
            "logs",
            "severe",
            &["workflow_id", "id"],
            "\"level\" IN ('warn', 'error')",
        ),
    ]
}
