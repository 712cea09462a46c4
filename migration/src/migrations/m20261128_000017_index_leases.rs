//! What workers look for besides the queue, leases that ran out; the keys of executions that
//! are queued once; and what failed.

use aura_orm::migration::columns::Columns;
use aura_orm::migration::{Migration, exchange_indexes};
use sea_orm::DbBackend;
use sea_orm::sea_query::IndexCreateStatement;

use super::m20261128_000016_count_attempts::STATUS_CHECK;

pub(super) struct IndexLeases;

impl Migration for IndexLeases {
    fn name(&self) -> &'static str {
        "m20261128_000017_index_leases"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let mut statements = exchange_indexes(backend, &[], &indexes(backend));
        if backend == DbBackend::Postgres {
            statements.push(format!(
                "ALTER TABLE \"executions\" VALIDATE CONSTRAINT \"{STATUS_CHECK}\""
            ));
        }
        statements
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        // What was looked at stays so.
        exchange_indexes(backend, &indexes(backend), &[])
    }

    /// Workers go on while it is built, and while the rows are looked at.
    fn transactional(&self) -> bool {
        false
    }
}

fn indexes(backend: DbBackend) -> [IndexCreateStatement; 3] {
    let columns = Columns::of(backend);
    let leases = columns.partial(
        "executions",
        "leases",
        &["lease_until", "id"],
        // Not the status: SQLite would take equality with it for the narrower search.
        "\"lease_until\" IS NOT NULL",
    );
    let mut keys = columns.partial(
        "executions",
        "keys",
        &["workflow_id", "idempotency_key"],
        "\"idempotency_key\" IS NOT NULL",
    );
    keys.name("uq_executions_workflow_id_idempotency_key")
        .unique();
    // As `open`, of what users look for among everybody's.
    let failed = columns.partial(
        "executions",
        "failed",
        &["workflow_id", "id"],
        "\"status\" IN ('error', 'canceled', 'dead')",
    );
    [leases, keys, failed]
}
