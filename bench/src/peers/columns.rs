//! The rows of the peers that write SQL by hand, read by position. Columns are in the
//! order of the statements in `sql`.

use std::error::Error;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row, Sqlite, Type};

use crate::rows::{
    Account, Attempt, Delivery, Json, Log, Plugin, Session, Summary, Time, User, Workflow,
};

use super::sql;

/// A row of a driver.
pub(crate) trait Cells {
    type Error: Error + Send + Sync + 'static;
}

/// A row with columns of a type.
pub(crate) trait Get<T>: Cells {
    /// Returns the value of the column at this position.
    fn value(&self, column: usize) -> Result<T, Self::Error>;
}

/// A row with columns of all types that the tables have.
pub(crate) trait Columns:
    Get<i64>
    + Get<Option<i64>>
    + Get<bool>
    + Get<String>
    + Get<Option<String>>
    + Get<Time>
    + Get<Option<Time>>
    + Get<Option<Json>>
{
}

impl<R> Columns for R where
    R: Get<i64>
        + Get<Option<i64>>
        + Get<bool>
        + Get<String>
        + Get<Option<String>>
        + Get<Time>
        + Get<Option<Time>>
        + Get<Option<Json>>
{
}

impl Cells for rusqlite::Row<'_> {
    type Error = rusqlite::Error;
}

impl<T: rusqlite::types::FromSql> Get<T> for rusqlite::Row<'_> {
    fn value(&self, column: usize) -> rusqlite::Result<T> {
        self.get(column)
    }
}

impl Cells for tokio_postgres::Row {
    type Error = tokio_postgres::Error;
}

impl<T: for<'a> tokio_postgres::types::FromSql<'a>> Get<T> for tokio_postgres::Row {
    fn value(&self, column: usize) -> Result<T, tokio_postgres::Error> {
        self.try_get(column)
    }
}

impl Cells for PgRow {
    type Error = sqlx::Error;
}

impl<T: for<'a> Decode<'a, Postgres> + Type<Postgres>> Get<T> for PgRow {
    fn value(&self, column: usize) -> sqlx::Result<T> {
        self.try_get(column)
    }
}

impl Cells for SqliteRow {
    type Error = sqlx::Error;
}

impl<T: for<'a> Decode<'a, Sqlite> + Type<Sqlite>> Get<T> for SqliteRow {
    fn value(&self, column: usize) -> sqlx::Result<T> {
        self.try_get(column)
    }
}

/// The result of reading a row of a driver.
type Read<R, T> = Result<T, <R as Cells>::Error>;

/// Reads rows of one type.
pub(super) fn all<R: Columns, T>(rows: &[R], read: fn(&R) -> Read<R, T>) -> Read<R, Vec<T>> {
    rows.iter().map(read).collect()
}

/// Reads a row of [`sql::AUTHENTICATE`].
pub(super) fn account<R: Columns>(row: &R) -> Read<R, Account> {
    Ok(Account {
        session: session(row)?,
        user: user(row, sql::SESSION)?,
    })
}

/// Reads a row of [`sql::WORKFLOW_AND_OWNER`].
pub(super) fn workflow_and_owner<R: Columns>(row: &R) -> Read<R, (Workflow, User)> {
    Ok((workflow(row)?, user(row, sql::WORKFLOW)?))
}

fn session<R: Columns>(row: &R) -> Read<R, Session> {
    Ok(Session {
        id: row.value(0)?,
        token: row.value(1)?,
        user_agent: row.value(2)?,
        ip_address: row.value(3)?,
        expires_at: row.value(4)?,
        last_seen_at: row.value(5)?,
        created_at: row.value(6)?,
        updated_at: row.value(7)?,
        user_id: row.value(8)?,
    })
}

fn user<R: Columns>(row: &R, from: usize) -> Read<R, User> {
    let role: String = row.value(from + 4)?;
    Ok(User {
        id: row.value(from)?,
        name: row.value(from + 1)?,
        email: row.value(from + 2)?,
        hashed_password: row.value(from + 3)?,
        role: role.into(),
        is_active: row.value(from + 5)?,
        created_at: row.value(from + 6)?,
        updated_at: row.value(from + 7)?,
        deleted_at: row.value(from + 8)?,
        created_by: row.value(from + 9)?,
        updated_by: row.value(from + 10)?,
    })
}

pub(super) fn plugin<R: Columns>(row: &R) -> Read<R, Plugin> {
    Ok(Plugin {
        id: row.value(0)?,
        name: row.value(1)?,
        description: row.value(2)?,
        version: row.value(3)?,
        author: row.value(4)?,
        is_enabled: row.value(5)?,
        created_at: row.value(6)?,
        updated_at: row.value(7)?,
        deleted_at: row.value(8)?,
        created_by: row.value(9)?,
        updated_by: row.value(10)?,
        config_schema: row.value(11)?,
    })
}

pub(super) fn summary<R: Columns>(row: &R) -> Read<R, Summary> {
    let status: String = row.value(3)?;
    Ok(Summary {
        id: row.value(0)?,
        name: row.value(1)?,
        description: row.value(2)?,
        status: status.into(),
        version: row.value(4)?,
        owner_id: row.value(5)?,
        created_at: row.value(6)?,
        updated_at: row.value(7)?,
        deleted_at: row.value(8)?,
        created_by: row.value(9)?,
        updated_by: row.value(10)?,
    })
}

pub(super) fn workflow<R: Columns>(row: &R) -> Read<R, Workflow> {
    Ok(Workflow {
        summary: summary(row)?,
        deleted_with_owner: row.value(11)?,
        settings: row.value(12)?,
        connections: row.value(13)?,
        nodes: row.value(14)?,
        metadata: row.value(15)?,
    })
}

pub(super) fn log<R: Columns>(row: &R) -> Read<R, Log> {
    let level: String = row.value(1)?;
    Ok(Log {
        id: row.value(0)?,
        level: level.into(),
        message: row.value(2)?,
        workflow_id: row.value(3)?,
        execution_id: row.value(4)?,
        created_at: row.value(5)?,
        metadata: row.value(6)?,
    })
}

pub(super) fn delivery<R: Columns>(row: &R) -> Read<R, Delivery> {
    Ok(Delivery {
        id: row.value(0)?,
        workflow_id: row.value(1)?,
        url: row.value(2)?,
        event: row.value(3)?,
        status: row.value(4)?,
        attempts: row.value(5)?,
        response_code: row.value(6)?,
        error: row.value(7)?,
        payload: row.value(8)?,
        created_at: row.value(9)?,
        delivered_at: row.value(10)?,
    })
}

pub(super) fn attempt<R: Columns>(row: &R) -> Read<R, Attempt> {
    Ok(Attempt {
        id: row.value(0)?,
        delivery_id: row.value(1)?,
        response_code: row.value(2)?,
        ms: row.value(3)?,
    })
}
