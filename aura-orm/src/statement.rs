//! SQL with its values.

use std::borrow::Cow;

use sea_orm::Value;

/// SQL with the values of its placeholders.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
}

/// What a statement does, which decides where it runs and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Reads only. It has a time limit, and ends when its caller goes.
    Read,
    /// Writes a few rows.
    Write,
    /// May write many rows: on SQLite it runs where it may block.
    BulkWrite,
}

impl Statement {
    /// Creates a statement. Each connection prepares it once.
    pub fn new(sql: impl Into<Cow<'static, str>>, values: Vec<Value>) -> Self {
        Self {
            sql: sql.into(),
            values,
        }
    }

    /// Returns the SQL.
    #[must_use]
    pub fn sql(&self) -> &Cow<'static, str> {
        &self.sql
    }

    /// Returns the SQL and the values of its placeholders.
    #[must_use]
    pub fn into_parts(self) -> (Cow<'static, str>, Vec<Value>) {
        (self.sql, self.values)
    }
}
