//! Queries that are always the same but for their values: built once.
//!
//! To build a statement takes as long as to run it, when it finds one row by its
//! key.

use std::sync::OnceLock;

use sea_orm::{DbBackend, Value};
use sqlite_engine::Statement;

use crate::engine::run::Known;

/// The SQL of a query, on each backend.
pub(crate) struct Fixed {
    sqlite: OnceLock<String>,
    postgres: OnceLock<String>,
}

/// A fixed query with its values.
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

    /// The query with these values, in the order of its placeholders. What
    /// builds it may depend on nothing but them.
    pub(crate) fn with<Q: Known, B>(&'static self, values: Vec<Value>, build: B) -> With<B>
    where
        B: FnOnce() -> Q + Send,
    {
        With {
            fixed: self,
            values,
            build,
        }
    }
}

impl<Q: Known, B: FnOnce() -> Q + Send> Known for With<B> {
    type Row = Q::Row;

    fn statement(self, backend: DbBackend) -> Statement {
        let cached = match backend {
            DbBackend::Postgres => &self.fixed.postgres,
            _ => &self.fixed.sqlite,
        };
        if let Some(sql) = cached.get() {
            return Statement::new(sql.as_str(), self.values);
        }
        let (sql, values) = (self.build)().statement(backend).into_parts();
        // In another order they would go to the wrong places.
        debug_assert_eq!(values, self.values, "{sql}");
        if values == self.values {
            let _ = cached.set(sql.clone().into_owned());
        }
        Statement::new(sql, values)
    }
}
