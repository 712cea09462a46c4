//! Each entry changed a page of two indexes whose order is by workflow, so pages
//! all over the file. One is left, which has the times too, and the log is in
//! the order of time in another, whose end is where new entries go. Entries are
//! appended with half the writes, and what is old is found without a look at
//! each workflow.

use aura_orm::migration::Migration;
use aura_orm::migration::columns::Columns;
use sea_orm::DbBackend;
use sea_orm::sea_query::IndexCreateStatement;

use super::exchange_indexes;

pub(super) struct IndexLogs;

impl Migration for IndexLogs {
    fn name(&self) -> &'static str {
        "m20261124_000012_index_logs"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        exchange_indexes(backend, &before(columns), &after(columns))
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        exchange_indexes(backend, &after(columns), &before(columns))
    }

    /// Entries are read and appended while they are built.
    fn transactional(&self) -> bool {
        false
    }
}

fn before(columns: Columns) -> [IndexCreateStatement; 2] {
    [
        columns.index("logs", &["workflow_id", "created_at"]),
        columns.index("logs", &["workflow_id", "id"]),
    ]
}

fn after(columns: Columns) -> [IndexCreateStatement; 2] {
    [
        columns.index("logs", &["created_at", "id"]),
        columns.index("logs", &["workflow_id", "id", "created_at"]),
    ]
}
