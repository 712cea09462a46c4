//! What workers look for without what waits for a limit, and what limits are compared with.

use aura_orm::migration::ExchangeIndexes;
use aura_orm::migration::columns::Columns;
use sea_orm::sea_query::{ConditionalStatement, Expr, Index, IndexCreateStatement, IndexOrder};

pub(super) const INDEX_LIMITS: ExchangeIndexes =
    ExchangeIndexes::new("m20261128_000022_index_limits", before, after);

/// The index of the order in which workers take, under a name and with a condition.
pub(super) fn order(name: &str, condition: &'static str) -> IndexCreateStatement {
    Index::create()
        .name(name)
        .table("executions")
        .col("queue")
        .col("owner_id")
        .col(("priority", IndexOrder::Desc))
        .col("id")
        .cond_where(Expr::cust(condition))
        .take()
}

fn before(_: Columns) -> Vec<IndexCreateStatement> {
    vec![order(
        "idx_executions_order",
        "\"status\" = 'queued' AND \"is_suspended\" = FALSE",
    )]
}

fn after(columns: Columns) -> Vec<IndexCreateStatement> {
    let parked = Index::create()
        .name("idx_executions_parked")
        .table("executions")
        .col("limit_id")
        .col("queue")
        .col(("priority", IndexOrder::Desc))
        .col("id")
        .cond_where(Expr::cust(
            "\"status\" = 'queued' AND \"limit_id\" IS NOT NULL",
        ))
        .take();
    // Ids are above 0. Without that they would be read for whatever else asks for what runs,
    // from one end to the other, because they are short.
    let running =
        |what, column, condition| columns.partial("executions", what, &[column], condition);
    vec![
        order(
            "idx_executions_next",
            "\"status\" = 'queued' AND \"is_suspended\" = FALSE AND \"limit_id\" IS NULL",
        ),
        parked,
        running(
            "running_workflow",
            "workflow_id",
            "\"status\" = 'running' AND \"workflow_id\" > 0",
        ),
        running(
            "running_owner",
            "owner_id",
            "\"status\" = 'running' AND \"owner_id\" > 0",
        ),
    ]
}
