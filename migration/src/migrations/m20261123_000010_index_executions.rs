//! What workers, pruning and readers of a workflow's log look for, so that it
//! is found as fast in a long table as in a short one.

use aura_orm::migration::ExchangeIndexes;
use aura_orm::migration::columns::Columns;
use sea_orm::sea_query::IndexCreateStatement;

pub(super) const INDEX_EXECUTIONS: ExchangeIndexes =
    ExchangeIndexes::new("m20261123_000010_index_executions", |_| Vec::new(), indexes);

fn indexes(columns: Columns) -> Vec<IndexCreateStatement> {
    vec![
        // What workers look for. PostgreSQL, which doesn't know that the queue
        // is the newest rows, walks the key from its start for a long one
        // unless there is this index.
        columns.partial("executions", "queued", &["id"], "\"status\" = 'queued'"),
        // Waiting ones may be many, and few of them are due.
        columns.partial(
            "executions",
            "waiting",
            &["wait_until", "id"],
            "\"wait_until\" IS NOT NULL",
        ),
        // What is old enough to be pruned.
        columns.partial(
            "executions",
            "finished",
            &["finished_at", "id"],
            "\"finished_at\" IS NOT NULL",
        ),
        // The newest entries of a workflow. Those of a day are still found by
        // (workflow_id, created_at).
        columns.index("logs", &["workflow_id", "id"]),
    ]
}
