//! Arrays, which only PostgreSQL has.

use sea_orm::sea_query::{ArrayType, ColumnType};
use sea_orm::{DbErr, Value};
use tokio_postgres::Row as PgRow;
use tokio_postgres::types::Kind;

use super::{Cells, RowReader, postgres, raw_cell};
use crate::value::{ARRAY, unreadable};

impl RowReader<'_> {
    /// Returns the array in a cell, with elements of this kind. `None` where neither the
    /// cell nor what it is read into is an array.
    pub(super) fn array(
        &self,
        at: usize,
        kind: &ArrayType,
        declared: &ColumnType,
    ) -> Result<Option<Value>, DbErr> {
        let is_declared = matches!(declared, ColumnType::Array(_));
        match self.cells {
            Cells::Postgres(row) => {
                let (_, bytes) = raw_cell(row, at)?;
                if is_array(row, at) || is_declared && bytes.is_none() {
                    value(bytes, kind)
                } else {
                    Ok(None)
                }
            }
            Cells::Sqlite(_) if is_declared => Err(DbErr::Type(
                "SQLite has no arrays; store a list as JSON, or in a table of its own".to_owned(),
            )),
            Cells::Sqlite(_) => Ok(None),
        }
    }
}

/// Returns whether a column is of an array type.
pub(super) fn is_array(row: &PgRow, at: usize) -> bool {
    let column = row.columns().get(at);
    column.is_some_and(|column| matches!(column.type_().kind(), Kind::Array(_)))
}

/// Returns the array in a cell, with elements of this kind. `None` when it has several
/// dimensions or other elements.
///
/// # Errors
///
/// As [`postgres::value`] for an element; [`DbErr::Type`] when arrays aren't compiled in.
pub(crate) fn value(bytes: Option<&[u8]>, kind: &ArrayType) -> Result<Option<Value>, DbErr> {
    if !cfg!(feature = "postgres-array") {
        return Err(unreadable(ARRAY));
    }
    let array = |elements| Ok(Some(Value::Array(kind.clone(), elements)));
    let Some(bytes) = bytes else {
        return array(None);
    };
    let Some((oid, elements)) = elements(bytes) else {
        return Ok(None);
    };
    let values = elements
        .into_iter()
        .map(|bytes| postgres::value(oid, bytes, kind));
    match values.collect::<Result<Option<_>, _>>()? {
        Some(values) => array(Some(Box::new(values))),
        None => Ok(None),
    }
}

/// Returns the type and the elements of an array of at most one dimension (`array_send` in
/// src/backend/utils/adt/arrayfuncs.c).
pub(super) fn elements(mut bytes: &[u8]) -> Option<(u32, Vec<Option<&[u8]>>)> {
    fn word(bytes: &mut &[u8]) -> Option<i32> {
        let (word, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(i32::from_be_bytes(*word))
    }
    let bytes = &mut bytes;
    let (dimensions, _flags, oid) = (word(bytes)?, word(bytes)?, word(bytes)?.cast_unsigned());
    let count = match dimensions {
        0 => 0,
        1 => {
            let (count, _first_index) = (word(bytes)?, word(bytes)?);
            count
        }
        _ => return None,
    };
    let mut elements = Vec::new();
    for _ in 0..count {
        // The length is -1 of NULL.
        let length = usize::try_from(word(bytes)?).ok();
        let element = length.map(|length| bytes.split_at_checked(length));
        elements.push(match element {
            None => None,
            Some(element) => {
                let (element, rest) = element?;
                *bytes = rest;
                Some(element)
            }
        });
    }
    bytes.is_empty().then_some((oid, elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_arrays_are_none() {
        let bytes = |words: &[i32]| -> Vec<u8> {
            let words = words.iter().map(|word| word.to_be_bytes());
            words.flatten().collect()
        };
        let whole = [1, 0, 23, 2, 1, 4, 7, -1];
        let seven = 7_i32.to_be_bytes();
        assert_eq!(
            elements(&bytes(&whole)),
            Some((23, vec![Some(&seven[..]), None]))
        );
        assert_eq!(elements(&bytes(&[0, 0, 23])), Some((23, vec![])));
        let broken: [&[i32]; 5] = [
            &[],
            &whole[..7],
            &[1, 0, 23, 1, 1, 5, 7],
            &[1, 0, 23, 0, 1, 7],
            &[2, 0, 23, 1, 1, 1, 1, 4, 7],
        ];
        for words in broken {
            assert_eq!(elements(&bytes(words)), None, "{words:?}");
        }
    }
}
