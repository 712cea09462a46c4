//! Rows that can't be read, among others that can.

use std::marker::PhantomData;

use sea_orm::sea_query::ArrayType;
use sea_orm::{DbErr, Value};

use super::postgres::{self, Cell};
use super::{Cells, RowDecoder, RowError, RowReader, raw_cell};
use crate::sqlite::{self, ValueRef};

/// The largest cell that is kept; a larger one can't stand in a cursor.
const MAX_CELL: usize = 8_192;

/// Reads a row or reports what is wrong with it, so that one unreadable row doesn't hide
/// the others. Errors follow rows that are merged.
impl<D: RowDecoder> RowDecoder for Result<D, RowError> {
    type Row = Result<D::Row, RowError>;

    const CONSOLIDATES: bool = D::CONSOLIDATES;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        Ok(D::decode(cells).map_err(|source| cells.error(source)))
    }

    fn consolidate(rows: Vec<Self::Row>) -> Vec<Self::Row> {
        if !D::CONSOLIDATES {
            return rows;
        }
        let (read, failed): (Vec<_>, Vec<_>) = rows.into_iter().partition(Result::is_ok);
        let read = D::consolidate(read.into_iter().flatten().collect());
        read.into_iter().map(Ok).chain(failed).collect()
    }
}

/// A row that can't be read, with its cells: its key and its place in a list are among them.
pub(crate) struct FailedRow {
    pub(crate) error: RowError,
    cells: Vec<(String, StoredCell)>,
}

/// A cell as the database sent it.
pub(crate) enum StoredCell {
    Sqlite(Stored),
    Postgres { oid: u32, bytes: Option<Vec<u8>> },
}

/// What SQLite stores, or of PostgreSQL's cells what compares in the same way when it is cast
/// to the column's type.
#[derive(Clone, PartialEq)]
pub(crate) enum Stored {
    Null,
    Integer(i64),
    Real(f64),
    /// UTF-8 as a rule.
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// Reads a row and, behind it, `N` texts; or keeps what a list needs of one that can't be
/// read.
pub(crate) struct ListRow<D, const N: usize>(PhantomData<D>);

impl<D: RowDecoder, const N: usize> ListRow<D, N> {
    fn read(cells: &mut RowReader<'_>) -> Result<(D::Row, Vec<Option<String>>), DbErr> {
        let row = D::decode(cells)?;
        let texts = (0..N).map(|_| cells.next_value());
        Ok((row, texts.collect::<Result<_, _>>()?))
    }
}

impl<D: RowDecoder, const N: usize> RowDecoder for ListRow<D, N> {
    type Row = Result<(D::Row, Vec<Option<String>>), FailedRow>;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        match Self::read(cells) {
            Ok(row) => Ok(Ok(row)),
            // No row can be read.
            Err(error @ DbErr::Custom(_)) => Err(error),
            Err(source) => Ok(Err(FailedRow {
                error: cells.error(source),
                cells: cells.stored(),
            })),
        }
    }
}

impl FailedRow {
    /// Returns the cell of a column.
    pub(crate) fn cell(&self, column: &str) -> Option<&StoredCell> {
        let mut cells = self.cells.iter();
        cells.find(|(name, _)| name == column).map(|(_, cell)| cell)
    }
}

impl StoredCell {
    /// Returns what the cell holds as a value of this kind; `None` when it holds something
    /// else.
    pub(crate) fn value(&self, kind: &ArrayType) -> Option<Value> {
        let value = match self {
            Self::Sqlite(cell) => sqlite::value(cell.as_ref(), kind),
            Self::Postgres { oid, bytes } => postgres::value(*oid, bytes.as_deref(), kind),
        };
        value.ok().flatten()
    }

    /// Returns what the cell holds, of whatever kind.
    pub(crate) fn stored(&self) -> Option<Stored> {
        let (oid, bytes) = match self {
            Self::Sqlite(cell) => return Some(cell.clone()),
            Self::Postgres { bytes: None, .. } => return Some(Stored::Null),
            Self::Postgres {
                oid,
                bytes: Some(bytes),
            } => (*oid, bytes),
        };
        let cell = Cell { oid, bytes };
        if let Some(number) = cell.numeric() {
            return Some(Stored::Text(number.into()));
        }
        if let Some(number) = cell.integer() {
            return Some(Stored::Integer(number));
        }
        let text = cell.time_word().or_else(|| cell.text());
        text.map(|text| Stored::Text(text.into()))
    }
}

impl Stored {
    fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

impl RowReader<'_> {
    /// Returns the cells of the row with their names, without those that are too long.
    fn stored(&self) -> Vec<(String, StoredCell)> {
        let short = |bytes: &[u8]| (bytes.len() <= MAX_CELL).then(|| bytes.to_vec());
        let cell = |at| {
            Some(match self.cells {
                Cells::Sqlite(row) => StoredCell::Sqlite(match row.get_ref(at).ok()? {
                    ValueRef::Null => Stored::Null,
                    ValueRef::Integer(number) => Stored::Integer(number),
                    ValueRef::Real(number) => Stored::Real(number),
                    ValueRef::Text(bytes) => Stored::Text(short(bytes)?),
                    ValueRef::Blob(bytes) => Stored::Blob(short(bytes)?),
                }),
                Cells::Postgres(row) => {
                    let (oid, bytes) = raw_cell(row, at).ok()?;
                    let bytes = bytes.map(|bytes| short(bytes).ok_or(())).transpose().ok()?;
                    StoredCell::Postgres { oid, bytes }
                }
            })
        };
        let cells = (0..self.len()).filter_map(|at| Some((self.name(at)?.to_owned(), cell(at)?)));
        cells.collect()
    }
}
