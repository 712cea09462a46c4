//! Steps that only change indexes.

use sea_orm::DbBackend;
use sea_orm::sea_query::IndexCreateStatement;

use super::columns::Columns;
use super::step::{Migration, create_index_concurrently, drop_index_concurrently};

/// A step that creates indexes, and then drops those in whose place they are, while others read
/// and write the tables: reads that need one always have one.
///
/// ```
/// use aura_orm::migration::ExchangeIndexes;
///
/// const INDEX_NOTES: ExchangeIndexes = ExchangeIndexes::new(
///     "m20261204_000001_index_notes",
///     |_| Vec::new(),
///     |columns| vec![columns.index("notes", &["due_at", "id"])],
/// );
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ExchangeIndexes {
    name: &'static str,
    before: fn(Columns) -> Vec<IndexCreateStatement>,
    after: fn(Columns) -> Vec<IndexCreateStatement>,
}

impl ExchangeIndexes {
    /// Creates the step of this name, before which there are the first indexes and after which
    /// the others.
    #[must_use]
    pub const fn new(
        name: &'static str,
        before: fn(Columns) -> Vec<IndexCreateStatement>,
        after: fn(Columns) -> Vec<IndexCreateStatement>,
    ) -> Self {
        Self {
            name,
            before,
            after,
        }
    }
}

impl Migration for ExchangeIndexes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        exchange_indexes(backend, &(self.before)(columns), &(self.after)(columns))
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        exchange_indexes(backend, &(self.after)(columns), &(self.before)(columns))
    }

    fn transactional(&self) -> bool {
        false
    }
}

/// Returns the statements that build new indexes and then drop the old ones, for a step that
/// isn't [transactional](Migration::transactional). One that was dropped or built by hand is no
/// obstacle; `check` compares it.
#[must_use]
pub fn exchange_indexes(
    backend: DbBackend,
    old: &[IndexCreateStatement],
    new: &[IndexCreateStatement],
) -> Vec<String> {
    let names = old
        .iter()
        .filter_map(|index| index.get_index_spec().get_name());
    let created = new
        .iter()
        .map(|index| create_index_concurrently(backend, index));
    let dropped = names.map(|name| drop_index_concurrently(backend, name));
    created.chain(dropped).collect()
}
