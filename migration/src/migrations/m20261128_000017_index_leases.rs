//! What workers look for besides the queue: leases that ran out.

use aura_orm::migration::columns::Columns;
use aura_orm::migration::{Migration, create_index_concurrently, drop_index_concurrently};
use sea_orm::DbBackend;
use sea_orm::sea_query::IndexCreateStatement;

use super::m20261128_000016_count_attempts::{AFTER, STATUS_CHECK, allow};

pub(super) struct IndexLeases;

impl Migration for IndexLeases {
    fn name(&self) -> &'static str {
        "m20261128_000017_index_leases"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let mut statements = vec![create_index_concurrently(backend, &index(backend))];
        if backend == DbBackend::Postgres {
            statements.push(format!(
                "ALTER TABLE \"executions\" VALIDATE CONSTRAINT \"{STATUS_CHECK}\""
            ));
        }
        statements
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        let index = index(backend);
        let name = index.get_index_spec().get_name().unwrap_or_default();
        let mut statements = vec![drop_index_concurrently(backend, name)];
        if backend == DbBackend::Postgres {
            statements.extend(allow(backend, AFTER, AFTER, " NOT VALID"));
        }
        statements
    }

    /// Workers go on while it is built, and while the rows are looked at.
    fn transactional(&self) -> bool {
        false
    }
}

fn index(backend: DbBackend) -> IndexCreateStatement {
    Columns::of(backend).partial(
        "executions",
        "leases",
        &["lease_until", "id"],
        // Not the status: SQLite would take equality with it for the narrower search.
        "\"lease_until\" IS NOT NULL",
    )
}
