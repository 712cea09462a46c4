//! Statements that are always the same but for their values: built once.
//!
//! Building one takes as long as running it, when it reads or writes one row.

use std::sync::OnceLock;

use sea_orm::{DbBackend, DbErr, Value};

use crate::{Statement, StatementKind, TypedStatement};

/// The SQL of a statement, on each backend.
#[derive(Debug, Default)]
pub struct CachedSql {
    short: bool,
    sqlite: OnceLock<Built>,
    postgres: OnceLock<Built>,
}

/// A statement without its values.
#[derive(Debug)]
struct Built {
    kind: StatementKind,
    may_write: bool,
    sql: String,
}

/// A fixed statement with its values.
#[derive(Debug)]
pub struct CachedStatement<B> {
    fixed: &'static CachedSql,
    values: Vec<Value>,
    build: B,
}

impl CachedSql {
    /// Creates it. Keep it in a `static`.
    #[must_use]
    pub const fn new() -> Self {
        Self::create(false)
    }

    /// Creates it for a short read: of few rows, found by a key. On PostgreSQL, outside of a
    /// transaction, many of them at the same moment share a connection, where none is
    /// answered before those that were sent earlier. One that takes long may run twice.
    #[must_use]
    pub const fn short_read() -> Self {
        Self::create(true)
    }

    const fn create(short: bool) -> Self {
        Self {
            short,
            sqlite: OnceLock::new(),
            postgres: OnceLock::new(),
        }
    }

    /// Returns the statement with these values, in the order of its placeholders. What
    /// builds it may depend on nothing but them.
    pub fn with<Q: TypedStatement, B>(
        &'static self,
        values: Vec<Value>,
        build: B,
    ) -> CachedStatement<B>
    where
        B: FnOnce() -> Result<Q, DbErr> + Send,
    {
        CachedStatement {
            fixed: self,
            values,
            build,
        }
    }
}

impl<Q: TypedStatement, B: FnOnce() -> Result<Q, DbErr> + Send> TypedStatement
    for CachedStatement<B>
{
    type Decoder = Q::Decoder;

    fn build(self, backend: DbBackend) -> Result<Statement, DbErr> {
        let cached = match backend {
            DbBackend::Postgres => &self.fixed.postgres,
            _ => &self.fixed.sqlite,
        };
        if let Some(built) = cached.get() {
            let mut statement = Statement::new(built.kind, built.sql.as_str(), self.values);
            statement.may_write = built.may_write;
            statement.short = self.fixed.short && built.kind == StatementKind::Read;
            return Ok(statement);
        }
        let statement = (self.build)()?.build(backend)?;
        // In another order they would go to the wrong places.
        debug_assert_eq!(statement.values, self.values, "{}", statement.sql);
        if statement.values == self.values {
            let _ = cached.set(Built {
                kind: statement.kind,
                may_write: statement.may_write,
                sql: statement.sql.clone().into_owned(),
            });
        }
        Ok(statement)
    }
}
