//! A row of a result.

use std::cell::Cell;

use rusqlite::RowIndex;
use rusqlite::types::ValueRef;

/// A row of a result. Counts the bytes of the cells that [`Row::get_ref`] reads.
pub(crate) struct Row<'r> {
    row: &'r rusqlite::Row<'r>,
    bytes: Cell<usize>,
}

impl<'r> Row<'r> {
    pub(crate) fn new(row: &'r rusqlite::Row<'r>) -> Self {
        Self {
            row,
            bytes: Cell::new(0),
        }
    }

    /// Returns what a cell holds, and counts its bytes.
    ///
    /// # Errors
    ///
    /// As [`rusqlite::Row::get_ref`].
    pub(crate) fn get_ref<I: RowIndex>(&self, at: I) -> rusqlite::Result<ValueRef<'_>> {
        let cell = self.row.get_ref(at)?;
        if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = cell {
            self.bytes.set(self.bytes.get().saturating_add(bytes.len()));
        }
        Ok(cell)
    }

    /// Returns the bytes of the texts and blobs that were read.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl<'r> AsRef<rusqlite::Statement<'r>> for Row<'r> {
    fn as_ref(&self) -> &rusqlite::Statement<'r> {
        self.row.as_ref()
    }
}
