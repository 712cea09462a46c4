//! What workers look for, in the order in which they take it.

use aura_orm::migration::ExchangeIndexes;
use aura_orm::migration::columns::Columns;
use sea_orm::sea_query::IndexCreateStatement;

use super::m20261128_000022_index_limits::order;

pub(super) const INDEX_ORDER: ExchangeIndexes =
    ExchangeIndexes::new("m20261128_000020_index_order", before, after);

fn before(columns: Columns) -> Vec<IndexCreateStatement> {
    // Workers of the version before go on with `idx_executions_status_id`.
    vec![columns.partial(
        "executions",
        "ready",
        &["is_suspended", "id"],
        "\"status\" = 'queued'",
    )]
}

fn after(_: Columns) -> Vec<IndexCreateStatement> {
    let ready = "\"status\" = 'queued' AND \"is_suspended\" = FALSE";
    vec![order("idx_executions_order", ready)]
}
