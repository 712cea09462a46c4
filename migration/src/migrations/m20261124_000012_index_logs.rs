//! Each entry changed a page of two indexes whose order is by workflow, so pages
//! all over the file. One is left, which has the times too, and the log is in
//! the order of time in another, whose end is where new entries go. Entries are
//! appended with half the writes, and what is old is found without a look at
//! each workflow.

use aura_orm::migration::ExchangeIndexes;

pub(super) const INDEX_LOGS: ExchangeIndexes = ExchangeIndexes::new(
    "m20261124_000012_index_logs",
    |columns| {
        vec![
            columns.index("logs", &["workflow_id", "created_at"]),
            columns.index("logs", &["workflow_id", "id"]),
        ]
    },
    |columns| {
        vec![
            columns.index("logs", &["created_at", "id"]),
            columns.index("logs", &["workflow_id", "id", "created_at"]),
        ]
    },
);
