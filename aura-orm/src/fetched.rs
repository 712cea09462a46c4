//! How much of a result is read.

use sea_orm::EntityTrait;

use crate::error::Error;
use crate::page::MAX_PAGE_BYTES;

/// How much of a result is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The most rows.
    pub rows: usize,
    /// The most bytes of values, unless the first row has more.
    pub bytes: usize,
}

/// A limit of rows only.
impl From<usize> for Limit {
    fn from(rows: usize) -> Self {
        Self {
            rows,
            bytes: usize::MAX,
        }
    }
}

/// The rows of a result, as far as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether another follows, with which they would have more than [`Limit::bytes`].
    pub cut: bool,
}

impl<T> Fetched<T> {
    /// Returns the rows of an entity, unless there are others.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] of the argument that leads to them, with what to do instead.
    pub(crate) fn all<E: EntityTrait>(
        self,
        argument: &'static str,
        instead: &str,
    ) -> Result<Vec<T>, Error> {
        if !self.cut {
            return Ok(self.rows);
        }
        let (most, table) = (MAX_PAGE_BYTES >> 20, E::default().table_name());
        let problem = format!("must lead to at most {most} MiB of rows of {table}; {instead}");
        Err(Error::field(argument, problem))
    }
}

/// Collects rows within a limit.
pub(crate) struct Collector<T> {
    limit: Limit,
    bytes: usize,
    fetched: Fetched<T>,
}

impl<T> Collector<T> {
    pub(crate) fn new(limit: Limit) -> Self {
        Self {
            limit,
            bytes: 0,
            fetched: Fetched {
                rows: Vec::new(),
                cut: false,
            },
        }
    }

    /// Returns whether no other row is wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.fetched.cut || self.fetched.rows.len() >= self.limit.rows
    }

    /// Returns whether a row didn't fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.fetched.cut
    }

    /// Adds a row whose values have this many bytes, unless it doesn't fit.
    pub(crate) fn add(&mut self, row: T, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limit.bytes && !self.fetched.rows.is_empty() {
            self.fetched.cut = true;
        } else {
            self.fetched.rows.push(row);
        }
    }

    pub(crate) fn finish(self) -> Fetched<T> {
        self.fetched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects rows of these sizes.
    fn collected(limit: Limit, sizes: &[usize]) -> (usize, bool) {
        let mut collector = Collector::new(limit);
        for &size in sizes {
            if !collector.is_full() {
                collector.add((), size);
            }
        }
        let Fetched { rows, cut } = collector.finish();
        (rows.len(), cut)
    }

    #[test]
    fn a_result_ends_with_its_rows_or_bytes() {
        let limit = Limit { rows: 3, bytes: 10 };
        assert_eq!(collected(limit, &[]), (0, false));
        assert_eq!(collected(limit, &[5, 5]), (2, false));
        assert_eq!(collected(limit, &[5, 5, 0, 9]), (3, false));
        assert_eq!(collected(limit, &[5, 5, 1, 0]), (2, true));
        assert_eq!(collected(limit, &[99]), (1, false));
        assert_eq!(collected(limit, &[99, 0]), (1, true));
        assert_eq!(collected(limit, &[1, usize::MAX]), (1, true));
        assert_eq!(collected(2.into(), &[usize::MAX, 9, 9]), (2, false));
    }
}
