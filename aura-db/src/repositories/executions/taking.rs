//! How many executions are taken with a statement, and how many bytes.

use aura_orm::StatementKind;
use aura_orm::page::{MAX_PAGE, MAX_PAGE_BYTES};
use entity::executions;
use sea_orm::{DbBackend, Value};

use super::{Execution, Executions};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::readable;

/// How many executions are looked at first on PostgreSQL, when several are taken: those that
/// don't fit are locked for as long as those that do, and their documents are decompressed.
const FIRST_LOOK: u64 = 16;

/// What statements have taken so far: at most `limit` executions, and no more bytes of
/// documents than a page may have.
pub(super) struct Taking {
    backend: DbBackend,
    limit: u64,
    /// How many were taken, with those that can't be read.
    pub(super) count: u64,
    pub(super) taken: Vec<Execution>,
    left: usize,
    largest: Option<usize>,
}

impl Taking {
    pub(super) fn new(backend: DbBackend, limit: u64) -> Self {
        Self {
            backend,
            limit: limit.min(MAX_PAGE),
            count: 0,
            taken: Vec::new(),
            left: MAX_PAGE_BYTES,
            largest: None,
        }
    }

    /// Returns how many one statement may take.
    pub(super) fn in_one_statement(backend: DbBackend) -> u64 {
        match backend {
            DbBackend::Postgres => FIRST_LOOK,
            _ => MAX_PAGE,
        }
    }

    /// Returns how many to ask for next, and `None` when there is no room.
    pub(super) fn ask(&self) -> Option<i64> {
        let room = self.room();
        let ask = match (self.backend, self.largest) {
            (DbBackend::Postgres, None) => room.min(FIRST_LOOK),
            (DbBackend::Postgres, Some(largest)) => {
                let fitting = self.left.checked_div(largest).unwrap_or(usize::MAX);
                room.min(fitting as u64)
            }
            _ => room,
        };
        i64::try_from(ask).ok().filter(|ask| *ask > 0)
    }

    /// Returns how many bytes are left, and how many executions are taken however large they
    /// are, as values of a statement that is bounded.
    pub(super) fn bounds(&self, is_bounded: bool) -> Vec<Value> {
        if !is_bounded {
            return Vec::new();
        }
        let left = i64::try_from(self.left).unwrap_or(i64::MAX);
        vec![left.into(), i64::from(self.count == 0).into()]
    }

    /// Returns how many more may be taken.
    pub(super) fn room(&self) -> u64 {
        self.limit - self.count
    }

    /// Returns of which kind a claim is: one is found by index, and has no way to another thread
    /// on SQLite, where others wait for it.
    pub(super) fn claim_kind(several: bool) -> StatementKind {
        if several {
            StatementKind::BulkWrite
        } else {
            StatementKind::Write
        }
    }

    /// Returns the room that is left, with nothing taken.
    pub(super) fn rest(&self) -> Self {
        Self {
            limit: self.room(),
            count: 0,
            taken: Vec::new(),
            ..*self
        }
    }

    /// Adds what was taken of the rest.
    pub(super) fn add(&mut self, rest: Self) {
        self.count += rest.count;
        self.taken.extend(rest.taken);
        (self.left, self.largest) = (rest.left, rest.largest);
    }

    /// Runs a statement that takes some. Returns how many.
    pub(super) async fn take(
        &mut self,
        h: &Context,
        kind: StatementKind,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<i64, Error> {
        let rows = h.sql_returning::<executions::Entity>(kind, sql, values);
        let rows = rows.await?;
        let found = rows.len();
        self.count += found as u64;
        for execution in readable(rows) {
            let documents = [&execution.data, &execution.error];
            let documents = documents.into_iter().flatten();
            let bytes: usize = documents.map(|json| json.as_str().len()).sum();
            self.left = self.left.saturating_sub(bytes);
            self.largest = self.largest.max(Some(bytes));
            self.taken.push(execution);
        }
        Ok(i64::try_from(found).unwrap_or(i64::MAX))
    }
}

impl Executions {
    /// Runs an operation that takes executions. What it takes with several statements is
    /// returned, or not taken.
    pub(super) async fn taking<F, Fut>(
        &self,
        op: Op,
        in_one_statement: bool,
        run: F,
    ) -> Result<Vec<Execution>, Error>
    where
        F: Fn(Context) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Vec<Execution>, Error>> + Send,
    {
        if in_one_statement {
            self.0.write(op, run).await
        } else {
            self.0.atomic(op, run).await
        }
    }
}
