//! diesel's tables, and those of their columns that the two databases hold in types of
//! their own.

use std::io::Write;

use chrono::DateTime;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{SqlType, Text, Timestamptz};
use diesel::sqlite::Sqlite;

use super::json;
use crate::data::sqlite_time;
use crate::rows::Time;

/// The type of a column with a moment: `timestamptz`, or text on `SQLite`.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Instant;

/// The type of a column with a document: `json`, which PostgreSQL also takes for `jsonb`,
/// or text on `SQLite`.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 114, array_oid = 199))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Document;

diesel::table! {
    use super::Instant;
    use diesel::sql_types::{BigInt, Bool, Nullable, Text};

    users (id) {
        id -> BigInt,
        name -> Text,
        email -> Text,
        hashed_password -> Text,
        role -> Text,
        is_active -> Bool,
        created_at -> Instant,
        updated_at -> Instant,
        deleted_at -> Nullable<Instant>,
        created_by -> Nullable<BigInt>,
        updated_by -> Nullable<BigInt>,
    }
}

diesel::table! {
    use super::Instant;
    use diesel::sql_types::{BigInt, Nullable, Text};

    sessions (id) {
        id -> BigInt,
        token -> Text,
        user_agent -> Nullable<Text>,
        ip_address -> Nullable<Text>,
        expires_at -> Instant,
        last_seen_at -> Instant,
        created_at -> Instant,
        updated_at -> Instant,
        user_id -> BigInt,
    }
}

diesel::table! {
    use super::{Document, Instant};
    use diesel::sql_types::{BigInt, Bool, Nullable, Text};

    plugins (id) {
        id -> BigInt,
        name -> Text,
        description -> Text,
        version -> Text,
        author -> Nullable<Text>,
        is_enabled -> Bool,
        created_at -> Instant,
        updated_at -> Instant,
        deleted_at -> Nullable<Instant>,
        created_by -> Nullable<BigInt>,
        updated_by -> Nullable<BigInt>,
        config_schema -> Nullable<Document>,
    }
}

diesel::table! {
    use super::{Document, Instant};
    use diesel::sql_types::{BigInt, Bool, Nullable, Text};

    workflows (id) {
        id -> BigInt,
        name -> Text,
        description -> Nullable<Text>,
        status -> Text,
        version -> BigInt,
        owner_id -> BigInt,
        deleted_with_owner -> Bool,
        created_at -> Instant,
        updated_at -> Instant,
        deleted_at -> Nullable<Instant>,
        created_by -> Nullable<BigInt>,
        updated_by -> Nullable<BigInt>,
        settings -> Nullable<Document>,
        connections -> Nullable<Document>,
        nodes -> Nullable<Document>,
        metadata -> Nullable<Document>,
    }
}

diesel::table! {
    workflow_plugins (workflow_id, plugin_id) {
        workflow_id -> BigInt,
        plugin_id -> BigInt,
    }
}

diesel::table! {
    use super::{Document, Instant};
    use diesel::sql_types::{BigInt, Nullable, Text};

    logs (id) {
        id -> BigInt,
        level -> Text,
        message -> Text,
        workflow_id -> BigInt,
        execution_id -> Nullable<BigInt>,
        created_at -> Instant,
        metadata -> Nullable<Document>,
    }
}

diesel::table! {
    use super::Instant;
    use diesel::sql_types::{BigInt, Nullable, Text};

    deliveries (id) {
        id -> BigInt,
        workflow_id -> BigInt,
        url -> Text,
        event -> Text,
        status -> Text,
        attempts -> BigInt,
        response_code -> Nullable<BigInt>,
        error -> Nullable<Text>,
        payload -> Text,
        created_at -> Instant,
        delivered_at -> Nullable<Instant>,
    }
}

diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(workflows -> users (owner_id));
diesel::joinable!(workflow_plugins -> plugins (plugin_id));
diesel::allow_tables_to_appear_in_same_query!(
    users,
    sessions,
    plugins,
    workflows,
    workflow_plugins
);

/// A moment. diesel's own format on `SQLite` has a space for the T.
#[derive(Debug, Clone, Copy, FromSqlRow, AsExpression)]
#[diesel(sql_type = Instant)]
pub struct Moment(pub Time);

impl FromSql<Instant, Sqlite> for Moment {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let time = DateTime::parse_from_rfc3339(value.read_text())?;
        Ok(Self(time.to_utc()))
    }
}

impl ToSql<Instant, Sqlite> for Moment {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(sqlite_time(self.0));
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Pg> for Moment {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<Timestamptz, Pg>::from_sql(value).map(Self)
    }
}

impl ToSql<Instant, Pg> for Moment {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Timestamptz, Pg>::to_sql(&self.0, out)
    }
}

/// A document, which stays text.
#[derive(Debug, FromSqlRow, AsExpression)]
#[diesel(sql_type = Document)]
pub struct JsonText(pub String);

impl FromSql<Document, Sqlite> for JsonText {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        FromSql::<Text, Sqlite>::from_sql(value).map(Self)
    }
}

impl ToSql<Document, Sqlite> for JsonText {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        ToSql::<Text, Sqlite>::to_sql(&self.0, out)
    }
}

impl FromSql<Document, Pg> for JsonText {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let jsonb = value.get_oid().get() == json::JSONB;
        Ok(Self(json::text(value.as_bytes(), jsonb)?))
    }
}

impl ToSql<Document, Pg> for JsonText {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}
