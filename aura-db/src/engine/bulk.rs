//! Many rows at once, in statements of a size that both databases take.

use std::iter::Peekable;

use sea_orm::{ActiveModelTrait, EntityTrait, Insert, Iterable, QueryTrait, StatementBuilder};

use sqlite_engine::Pace;

use crate::engine::Handle;
use crate::error::Error;

/// A statement has no more bytes of values, unless one row has: it is copied a
/// few times on its way.
const MAX_STATEMENT_BYTES: usize = 8 * 1024 * 1024;

impl Handle {
    /// Inserts rows, each of about so many bytes, in statements that both
    /// databases take, and returns how many. The caller holds a transaction
    /// when they belong together.
    pub(crate) async fn insert_bulk<A>(
        &self,
        rows: Box<dyn Iterator<Item = (A, usize)> + Send + '_>,
    ) -> Result<u64, Error>
    where
        A: ActiveModelTrait + Send,
    {
        let mut count = 0;
        // Each row binds at most as many values as the table has columns, and
        // SQLite takes 32,766.
        let width = <A::Entity as EntityTrait>::Column::iter().count().max(1);
        let size = (32_766 / width).clamp(1, 1_000);
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let batch = batch(&mut rows, size);
            let insert = Insert::many(batch).into_query();
            let statement = StatementBuilder::build(&insert, &self.backend());
            count += self.count_touched(statement, Pace::Long).await?;
        }
        Ok(count)
    }
}

/// The next rows, as many as one statement takes; at least one, if there is one.
fn batch<A>(rows: &mut Peekable<impl Iterator<Item = (A, usize)>>, most: usize) -> Vec<A> {
    let mut batch = Vec::new();
    let mut bytes = 0_usize;
    while let Some((row, size)) = rows.next_if(|(_, size)| {
        batch.is_empty() || batch.len() < most && bytes.saturating_add(*size) <= MAX_STATEMENT_BYTES
    }) {
        bytes = bytes.saturating_add(size);
        batch.push(row);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_its_rows_or_bytes() {
        const MIB: usize = 1024 * 1024;
        let sizes = |sizes: &[usize]| {
            let rows: Vec<_> = sizes.iter().map(|size| ((), *size)).collect();
            let mut rows = rows.into_iter().peekable();
            let mut lengths = Vec::new();
            while rows.peek().is_some() {
                lengths.push(batch(&mut rows, 3).len());
            }
            lengths
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1; 7]), [3, 3, 1]);
        assert_eq!(sizes(&[4 * MIB, 4 * MIB, 1]), [2, 1]);
        assert_eq!(sizes(&[1, 16 * MIB, 1, usize::MAX, 1]), [1, 1, 1, 1, 1]);
    }
}
