//! Any number of rows of an entity.

use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DbBackend, EntityName, EntityTrait, IdenStatic,
    Iterable, StatementBuilder, Value,
};

use crate::error::Error;
use crate::executor::Executor;
use crate::executor::bulk::{MAX_BYTES, MAX_ROWS};
use crate::executor::check::{MAX_VALUES, size_of};
use crate::executor::transaction::{Begin, Kept};
use crate::postgres::Isolation;
use crate::statement::{Statement, StatementKind};

/// The columns of an entity.
type ColumnOf<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;

/// The values that rows set, of the same columns.
struct Rows<C> {
    columns: Vec<C>,
    values: Vec<Vec<Value>>,
}

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Inserts any number of rows and returns their number: in statements of at most 1,000
    /// rows, 8 MiB and as many values as the database takes, all in one transaction. Outside
    /// of one it is run again after a serialization failure.
    ///
    /// A column that a row doesn't set has its default, also beside rows that set it.
    /// [`sea_orm::ActiveModelBehavior`]'s hooks don't run.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`], and then no row is inserted.
    pub async fn insert_many<A>(&self, rows: impl IntoIterator<Item = A> + Send) -> Result<u64, X>
    where
        A: ActiveModelTrait + Send + Sync,
    {
        let rows: Vec<A> = rows.into_iter().collect();
        let rows = &*rows;
        if rows.is_empty() {
            return Ok(0);
        }
        // One statement needs no transaction, except on SQLite, where it runs for each row.
        let alone = match self.backend() {
            DbBackend::Postgres if !self.in_transaction() => {
                Some(next_batch(rows)).filter(|(_, rest)| rest.is_empty())
            }
            _ => None,
        };
        let alone = alone.map(|(batch, _)| statement::<A>(&batch, self.backend()));
        if let Some(statement) = alone {
            return self.execute(statement?).await;
        }
        let all = |executor: Self| async move { executor.insert_all(rows).await };
        let kept = Kept::new();
        let work = kept.work(&all);
        let ended = self
            .together(Begin::writing(Isolation::Default), &work)
            .await;
        drop(work);
        kept.finish::<X>(ended)
    }

    async fn insert_all<A>(&self, mut rows: &[A]) -> Result<u64, X>
    where
        A: ActiveModelTrait + Send + Sync,
    {
        let mut count = 0;
        while !rows.is_empty() {
            let (batch, rest) = next_batch(rows);
            count += self.insert_rows_of::<A>(batch).await?;
            rows = rest;
        }
        Ok(count)
    }

    async fn insert_rows_of<A: ActiveModelTrait>(
        &self,
        mut batch: Rows<ColumnOf<A>>,
    ) -> Result<u64, X> {
        if self.backend() == DbBackend::Sqlite && batch.values.len() > 1 {
            // One statement that is run for each row, unless its values aren't the row's.
            let rest = batch.values.split_off(1);
            let first = statement::<A>(&batch, DbBackend::Sqlite)?;
            batch.values.extend(rest);
            if batch.values.first() == Some(&first.values) {
                return self.insert_each(first.sql.into_owned(), batch.values).await;
            }
        }
        self.execute(statement::<A>(&batch, self.backend())?).await
    }
}

/// Returns the first rows that set the same columns, as many as are sent at once, and the
/// others.
fn next_batch<A: ActiveModelTrait>(rows: &[A]) -> (Rows<ColumnOf<A>>, &[A]) {
    let mut batch = Rows {
        columns: Vec::new(),
        values: Vec::new(),
    };
    let mut bytes = 0_usize;
    for row in rows {
        let (columns, values) = parts(row.clone());
        let size = values.iter().map(size_of).sum();
        bytes = bytes.saturating_add(size);
        if batch.values.is_empty() {
            batch.columns = columns;
        } else if batch.values.len() >= most_rows(batch.columns.len())
            || bytes > MAX_BYTES
            || !same::<A>(&columns, &batch.columns)
        {
            break;
        }
        batch.values.push(values);
    }
    let rest = rows.get(batch.values.len()..).unwrap_or_default();
    (batch, rest)
}

/// Returns how many rows of this many values are sent at once. SQLite has no statement for
/// several rows without any.
fn most_rows(columns: usize) -> usize {
    MAX_VALUES
        .checked_div(columns)
        .map_or(1, |rows| rows.clamp(1, MAX_ROWS))
}

fn same<A: ActiveModelTrait>(one: &[ColumnOf<A>], other: &[ColumnOf<A>]) -> bool {
    one.iter()
        .map(IdenStatic::as_str)
        .eq(other.iter().map(IdenStatic::as_str))
}

/// Returns the columns that a row sets, and their values.
fn parts<A: ActiveModelTrait>(mut row: A) -> (Vec<ColumnOf<A>>, Vec<Value>) {
    let set = ColumnOf::<A>::iter().filter_map(|column| match row.take(column) {
        ActiveValue::Set(value) | ActiveValue::Unchanged(value) => Some((column, value)),
        ActiveValue::NotSet => None,
    });
    set.unzip()
}

fn statement<A: ActiveModelTrait>(
    batch: &Rows<ColumnOf<A>>,
    backend: DbBackend,
) -> Result<Statement, Error> {
    let mut insert = Query::insert();
    insert
        .into_table(A::Entity::default().table_ref())
        .columns(batch.columns.iter().copied())
        .or_default_values();
    for row in &batch.values {
        let cells = batch.columns.iter().zip(row);
        let cells = cells.map(|(column, value)| column.save_as(Expr::val(value.clone())));
        let added = insert.values(cells);
        added.map_err(|error| Error::Other {
            context: "building a statement",
            source: error.into(),
        })?;
    }
    let insert = StatementBuilder::build(&insert, &backend);
    let mut statement = Statement::of(StatementKind::BulkWrite, insert);
    statement.once = batch.values.len() > 1;
    Ok(statement)
}
