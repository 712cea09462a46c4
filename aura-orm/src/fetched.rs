//! How results are read, and how much of them.

use std::any::Any;

use sea_orm::{DbErr, EntityTrait};

use crate::error::Error;
use crate::page::MAX_PAGE_BYTES;
use crate::row::{Cells, Columns, RowDecoder, RowError, RowReader};

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

/// How the rows of a result are read: as which type, and how many. It is a value and not a
/// type parameter, so that what runs statements is compiled once and not for each type.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    rows: fn() -> Box<dyn DecodeRows>,
    limit: Limit,
}

impl Decoding {
    /// Creates the decoding of rows by `D`, within a limit.
    #[must_use]
    pub fn of<D: RowDecoder>(limit: impl Into<Limit>) -> Self {
        Self {
            rows: || Box::new(RowsOf::<D>(Vec::new())),
            limit: limit.into(),
        }
    }

    /// Begins to read a result.
    pub(crate) fn collect(self) -> Collector {
        Collector {
            limit: self.limit,
            columns: Columns::default(),
            rows: (self.rows)(),
            bytes: 0,
            cut: false,
            failed: None,
        }
    }
}

/// Reads rows of one type and keeps them.
trait DecodeRows: Any + Send {
    fn decode(&mut self, row: &mut RowReader<'_>) -> Result<(), DbErr>;
    fn remove_last(&mut self);
    fn count(&self) -> usize;
}

struct RowsOf<D: RowDecoder>(Vec<D::Row>);

impl<D: RowDecoder> DecodeRows for RowsOf<D> {
    fn decode(&mut self, row: &mut RowReader<'_>) -> Result<(), DbErr> {
        self.0.push(D::decode(row)?);
        Ok(())
    }

    fn remove_last(&mut self) {
        self.0.pop();
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

/// Rows of the type of a [`Decoding`].
pub struct DecodedRows {
    rows: Box<dyn DecodeRows>,
    cut: bool,
}

impl std::fmt::Debug for DecodedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedRows")
            .field("count", &self.count())
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl DecodedRows {
    /// Returns the number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.count()
    }

    /// Returns the rows, as they were read.
    ///
    /// # Errors
    ///
    /// [`DbErr::Type`] when the decoding was of another type.
    pub fn into_rows<D: RowDecoder>(self) -> Result<Fetched<D::Row>, DbErr> {
        let rows: Box<dyn Any> = self.rows;
        match rows.downcast::<RowsOf<D>>() {
            Ok(rows) => Ok(Fetched {
                rows: rows.0,
                cut: self.cut,
            }),
            Err(_) => Err(DbErr::Type("the rows were read as another type".to_owned())),
        }
    }
}

/// Collects the rows of a result, until the limit or a row that can't be read.
pub(crate) struct Collector {
    limit: Limit,
    columns: Columns,
    rows: Box<dyn DecodeRows>,
    bytes: usize,
    cut: bool,
    failed: Option<RowError>,
}

impl Collector {
    /// Returns whether no other row is wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.cut || self.failed.is_some() || self.rows.count() >= self.limit.rows
    }

    /// Returns whether a row didn't fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Reads a row, if another is wanted.
    pub(crate) fn add(&mut self, cells: Cells<'_>) {
        if self.is_full() {
            return;
        }
        let mut row = RowReader::new(cells, &self.columns);
        if let Err(source) = self.rows.decode(&mut row) {
            self.failed = Some(row.error(source));
            return;
        }
        self.bytes = self.bytes.saturating_add(cells.bytes());
        if self.bytes > self.limit.bytes && self.rows.count() > 1 {
            self.rows.remove_last();
            self.cut = true;
        }
    }

    /// Returns the rows, or the error of the first that can't be read.
    pub(crate) fn finish(self) -> Result<DecodedRows, RowError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(DecodedRows {
                rows: self.rows,
                cut: self.cut,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;

    /// Collects rows of these sizes.
    fn collected(limit: Limit, sizes: &[usize]) -> (usize, bool) {
        let connection = rusqlite::Connection::open_in_memory().expect("it opens");
        let mut collector = Decoding::of::<Vec<u8>>(limit).collect();
        for size in sizes {
            let sql = format!("SELECT zeroblob({size})");
            let mut row = connection.prepare(&sql).expect("prepared");
            let mut row = row.query([]).expect("run");
            let row = row.next().expect("read").expect("a row");
            collector.add(Cells::Sqlite(&sqlite::Row::new(row)));
        }
        let rows = collector.finish().expect("readable");
        let Fetched { rows, cut } = rows.into_rows::<Vec<u8>>().expect("blobs");
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
        assert_eq!(collected(2.into(), &[1_000, 9, 9]), (2, false));
    }

    #[test]
    fn rows_are_of_the_type_that_they_were_read_as() {
        let rows = Decoding::of::<i64>(1).collect().finish().expect("none");
        assert!(matches!(rows.into_rows::<String>(), Err(DbErr::Type(_))));
    }
}
