//! Statements that are always the same but for their values: built once.
//!
//! To build one takes as long as to run it, when it finds or makes one row.

use std::sync::OnceLock;

use aura_orm::Statement;
use sea_orm::{DbBackend, Value};

use crate::error::Error;
use crate::executor::statement::TypedStatement;

/// The SQL of a statement, on each backend.
pub(crate) struct CachedSql {
    sqlite: OnceLock<String>,
    postgres: OnceLock<String>,
}

/// A fixed statement with its values.
pub(crate) struct CachedStatement<B> {
    fixed: &'static CachedSql,
    values: Vec<Value>,
    build: B,
}

impl CachedSql {
    pub(crate) const fn new() -> Self {
        Self {
            sqlite: OnceLock::new(),
            postgres: OnceLock::new(),
        }
    }

    /// The statement with these values, in the order of its placeholders. What
    /// builds it may depend on nothing but them.
    pub(crate) fn with<Q: TypedStatement, B>(
        &'static self,
        values: Vec<Value>,
        build: B,
    ) -> CachedStatement<B>
    where
        B: FnOnce() -> Result<Q, Error> + Send,
    {
        CachedStatement {
            fixed: self,
            values,
            build,
        }
    }
}

impl<Q: TypedStatement, B: FnOnce() -> Result<Q, Error> + Send> TypedStatement
    for CachedStatement<B>
{
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
