//! The columns of unique constraints, which the server doesn't name to a role that may not
//! read the table.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::error::{DbError, SqlState};

use super::connection::PooledConnection;
use super::deadlock::DeadlockTimeout;
use super::error::Error;
use crate::{Statement, StatementKind};

/// The key columns of an index, NULL for an expression.
const COLUMNS: &str = "
SELECT CAST(a.attname AS text)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
WHERE n.nspname = $1 AND c.relname = $2 AND k.place <= i.indnkeyatts
ORDER BY k.place";

/// The schema and the name of a constraint.
type Name = (String, String);

/// The columns of constraints that were looked up; none where one is an expression.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<Name, Vec<String>>>);

impl Keys {
    fn find(&self, name: &Name) -> Option<Vec<String>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned()
    }

    fn keep(&self, name: Name, columns: Vec<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name, columns);
    }
}

impl PooledConnection {
    /// Adds to the violation of a constraint what the server doesn't say, and notes a
    /// deadlock.
    pub(super) async fn explained(&mut self, mut error: Error, statement: &Statement) -> Error {
        let Some(refused) = error.refusal() else {
            return error;
        };
        let code = refused.code();
        if *code == SqlState::T_R_DEADLOCK_DETECTED {
            DeadlockTimeout::note(self.pool());
        } else if *code == SqlState::STRING_DATA_RIGHT_TRUNCATION {
            error.set_table(statement.written_table());
        } else if *code == SqlState::UNIQUE_VIOLATION
            && let Some(name) = unnamed(refused)
        {
            let columns = Box::pin(self.columns_of(name)).await;
            error.set_key(columns.filter(|columns| !columns.is_empty()));
        }
        error
    }

    /// Looks the columns of a constraint up, once: on this connection, and while its
    /// transaction has failed on another one that is free. Waits for none.
    async fn columns_of(&mut self, name: Name) -> Option<Vec<String>> {
        let pool = self.pool().clone();
        if let Some(known) = pool.keys().find(&name) {
            return Some(known);
        }
        let values = vec![name.0.as_str().into(), name.1.as_str().into()];
        let query = Statement::new(StatementKind::Read, COLUMNS, values);
        let names = if self.in_transaction() {
            let mut other = pool.acquire_spare().await?;
            other.names(&query).await?
        } else {
            self.names(&query).await?
        };
        // None is found of an index that isn't committed yet.
        if names.is_empty() {
            return None;
        }
        let columns: Option<Vec<_>> = names.into_iter().collect();
        let columns = columns.unwrap_or_default();
        pool.keys().keep(name, columns.clone());
        Some(columns)
    }

    async fn names(&mut self, query: &Statement) -> Option<Vec<Option<String>>> {
        self.ask::<Option<String>>(query).await.ok()?
    }
}

/// Returns the schema and the name of a constraint whose columns aren't in the detail.
fn unnamed(refused: &DbError) -> Option<Name> {
    let constraint = refused.constraint()?;
    let schema = refused.schema()?;
    let unnamed = refused
        .detail()
        .is_none_or(|detail| !detail.contains(")=("));
    unnamed.then(|| (schema.to_owned(), constraint.to_owned()))
}
