//! What workers, pruning and readers of a workflow's log look for, so that it
//! is found as fast in a long table as in a short one.

use aura_orm::migration::columns::Columns;
use aura_orm::migration::{Migration, create_index_concurrently, drop_index_concurrently};
use sea_orm::DbBackend;
use sea_orm::sea_query::IndexCreateStatement;

pub(super) struct IndexExecutions;

impl Migration for IndexExecutions {
    fn name(&self) -> &'static str {
        "m20261123_000010_index_executions"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let indexes = indexes(Columns::of(backend));
        // One that was built by hand is no obstacle; `check` compares it.
        let statements = indexes
            .iter()
            .map(|index| create_index_concurrently(backend, index));
        statements.collect()
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        let indexes = indexes(Columns::of(backend));
        let names = indexes
            .iter()
            .rev()
            .filter_map(|index| index.get_index_spec().get_name());
        names
            .map(|name| drop_index_concurrently(backend, name))
            .collect()
    }

    /// Work goes on while they are built.
    fn transactional(&self) -> bool {
        false
    }
}

fn indexes(columns: Columns) -> [IndexCreateStatement; 4] {
    [
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
