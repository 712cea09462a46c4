//! Statements that are always the same but for their values: built once.
//!
//! To build one takes as long as to run it, when it finds or makes one row.

use std::sync::OnceLock;

use sea_orm::{DbBackend, Value};
use sqlite_engine::Statement;

use crate::engine::run::Known;
use crate::error::Error;

/// The SQL of a statement, on each backend.
pub(crate) struct Fixed {
    sqlite: OnceLock<String>,
    postgres: OnceLock<String>,
}

/// A fixed statement with its values.
pub(crate) struct With<B> {
    fixed: &'static Fixed,
    values: Vec<Value>,
    build: B,
}

impl Fixed {
    pub(crate) const fn new() -> Self {
        Self {
            sqlite: OnceLock::new(),
            postgres: OnceLock::new(),
        }
    }

    /// The statement with these values, in the order of its placeholders. What
    /// builds it may depend on nothing but them.
    pub(crate) fn with<Q: Known, B>(&'static self, values: Vec<Value>, build: B) -> With<B>
    where
        B: FnOnce() -> Result<Q, Error> + Send,
    {
        With {
            fixed: self,
            values,
            build,
        }
    }
}

impl<Q: Known, B: FnOnce() -> Result<Q, Error> + Send> Known for With<B> {
    type Row = Q::Row;

    fn statement(self, backend: DbBackend) -> Result<Statement, Error> {
        let cached = match backend {
            DbBackend::Postgres => &self.fixed.postgres,
            _ => &self.fixed.sqlite,
        };
        if let Some(sql) = cached.get() {
            return Ok(Statement::new(sql.as_str(), self.values));
        }
        let (sql, values) = (self.build)()?.statement(backend)?.into_parts();
        // In another order they would go to the wrong places.
        debug_assert_eq!(values, self.values, "{sql}");
        if values == self.values {
            let _ = cached.set(sql.clone().into_owned());
        }
        Ok(Statement::new(sql, values))
    }
}
