//! Each entry changed a page of two indexes whose order is by workflow, so pages
//! all over the file. One is left, which has the times too, and the log is in
//! the order of time in another, whose end is where new entries go. Entries are
//! appended with half the writes, and what is old is found without a look at
//! each workflow.

use aura_orm::migration::columns::Columns;
use aura_orm::migration::{Migration, create_index, drop_index};
use sea_orm::DbBackend;
use sea_orm::sea_query::IndexCreateStatement;

pub(super) struct IndexLogs;

impl Migration for IndexLogs {
    fn name(&self) -> &'static str {
        "m20261124_000012_index_logs"
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        exchange(backend, &before, &after)
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        exchange(backend, &after, &before)
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

type Indexes = dyn Fn(Columns) -> [IndexCreateStatement; 2];

/// Reads go on while the new ones are built: dropping one locks the table for them too, up to
/// the commit.
fn exchange(backend: DbBackend, old: &Indexes, new: &Indexes) -> Vec<String> {
    let columns = Columns::of(backend);
    let (old, new) = (old(columns), new(columns));
    let names = old
        .iter()
        .filter_map(|index| index.get_index_spec().get_name());
    // One that was dropped or built by hand is no obstacle; `check` compares it.
    let created = new.iter().map(|index| {
        let mut index = index.clone();
        create_index(backend, index.if_not_exists())
    });
    created.chain(names.map(drop_index)).collect()
}
