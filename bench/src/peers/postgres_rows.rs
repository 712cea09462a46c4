//! The rows that tokio-postgres reads, column by column.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::Result;
use crate::rows::{Delivery, Json, Log, Plugin, Session, Summary, User, Workflow};

/// `json` and `jsonb` as the text that they are sent as.
#[derive(Debug)]
pub(super) struct Raw(pub(super) String);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(
        kind: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        // `jsonb` begins with the number of its format.
        let text = if *kind == Type::JSONB { &raw[1..] } else { raw };
        Ok(Self(std::str::from_utf8(text)?.to_owned()))
    }

    accepts!(JSON, JSONB);
}

impl ToSql for Raw {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *kind == Type::JSONB {
            out.extend_from_slice(&[1]);
        }
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    accepts!(JSON, JSONB);
    to_sql_checked!();
}

pub(super) type Read<T> = std::result::Result<T, tokio_postgres::Error>;

pub(super) fn session(row: &Row) -> Read<Session> {
    Ok(Session {
        id: row.try_get(0)?,
        token: row.try_get(1)?,
        user_agent: row.try_get(2)?,
        ip_address: row.try_get(3)?,
        expires_at: row.try_get(4)?,
        last_seen_at: row.try_get(5)?,
        created_at: row.try_get(6)?,
        updated_at: row.try_get(7)?,
        user_id: row.try_get(8)?,
    })
}

pub(super) fn user(row: &Row, from: usize) -> Read<User> {
    Ok(User {
        id: row.try_get(from)?,
        name: row.try_get(from + 1)?,
        email: row.try_get(from + 2)?,
        hashed_password: row.try_get(from + 3)?,
        role: row.try_get::<_, String>(from + 4)?.into(),
        is_active: row.try_get(from + 5)?,
        created_at: row.try_get(from + 6)?,
        updated_at: row.try_get(from + 7)?,
        deleted_at: row.try_get(from + 8)?,
        created_by: row.try_get(from + 9)?,
        updated_by: row.try_get(from + 10)?,
    })
}

fn json(row: &Row, column: usize) -> Read<Option<Json>> {
    let raw: Option<Raw> = row.try_get(column)?;
    Ok(raw.map(|raw| Json::Text(raw.0)))
}

pub(super) fn plugin(row: &Row) -> Read<Plugin> {
    Ok(Plugin {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        version: row.try_get(3)?,
        author: row.try_get(4)?,
        is_enabled: row.try_get(5)?,
        created_at: row.try_get(6)?,
        updated_at: row.try_get(7)?,
        deleted_at: row.try_get(8)?,
        created_by: row.try_get(9)?,
        updated_by: row.try_get(10)?,
        config_schema: json(row, 11)?,
    })
}

pub(super) fn summary(row: &Row) -> Read<Summary> {
    Ok(Summary {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        status: row.try_get::<_, String>(3)?.into(),
        version: row.try_get(4)?,
        owner_id: row.try_get(5)?,
        created_at: row.try_get(6)?,
        updated_at: row.try_get(7)?,
        deleted_at: row.try_get(8)?,
        created_by: row.try_get(9)?,
        updated_by: row.try_get(10)?,
    })
}

pub(super) fn workflow(row: &Row) -> Read<Workflow> {
    Ok(Workflow {
        summary: summary(row)?,
        deleted_with_owner: row.try_get(11)?,
        settings: json(row, 12)?,
        connections: json(row, 13)?,
        nodes: json(row, 14)?,
        metadata: json(row, 15)?,
    })
}

pub(super) fn log(row: &Row) -> Read<Log> {
    Ok(Log {
        id: row.try_get(0)?,
        level: row.try_get::<_, String>(1)?.into(),
        message: row.try_get(2)?,
        workflow_id: row.try_get(3)?,
        execution_id: row.try_get(4)?,
        created_at: row.try_get(5)?,
        metadata: json(row, 6)?,
    })
}

pub(super) fn delivery(row: &Row) -> Read<Delivery> {
    Ok(Delivery {
        id: row.try_get(0)?,
        workflow_id: row.try_get(1)?,
        url: row.try_get(2)?,
        event: row.try_get(3)?,
        status: row.try_get(4)?,
        attempts: row.try_get(5)?,
        response_code: row.try_get(6)?,
        error: row.try_get(7)?,
        payload: row.try_get(8)?,
        created_at: row.try_get(9)?,
        delivered_at: row.try_get(10)?,
    })
}

pub(super) fn all<T>(rows: &[Row], read: fn(&Row) -> Read<T>) -> Result<Vec<T>> {
    Ok(rows.iter().map(read).collect::<Read<_>>()?)
}
