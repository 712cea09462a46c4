//! diesel's schema and the rows that it reads.

use chrono::DateTime;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel::{Insertable, Queryable, Selectable};

use crate::data::sqlite_time;
use crate::deliveries::NewDelivery;
use crate::rows::{Delivery, Json, Log, Plugin, Session, Summary, Time, User, Workflow};

diesel::table! {
    users (id) {
        id -> BigInt,
        name -> Text,
        email -> Text,
        hashed_password -> Text,
        role -> Text,
        is_active -> Bool,
        created_at -> Text,
        updated_at -> Text,
        deleted_at -> Nullable<Text>,
        created_by -> Nullable<BigInt>,
        updated_by -> Nullable<BigInt>,
    }
}

diesel::table! {
    sessions (id) {
        id -> BigInt,
        token -> Text,
        user_agent -> Nullable<Text>,
        ip_address -> Nullable<Text>,
        expires_at -> Text,
        last_seen_at -> Text,
        created_at -> Text,
        updated_at -> Text,
        user_id -> BigInt,
    }
}

diesel::table! {
    plugins (id) {
        id -> BigInt,
        name -> Text,
        description -> Text,
        version -> Text,
        author -> Nullable<Text>,
        is_enabled -> Bool,
        created_at -> Text,
        updated_at -> Text,
        deleted_at -> Nullable<Text>,
        created_by -> Nullable<BigInt>,
        updated_by -> Nullable<BigInt>,
        config_schema -> Nullable<Text>,
    }
}

diesel::table! {
    workflows (id) {
        id -> BigInt,
        name -> Text,
        description -> Nullable<Text>,
        status -> Text,
        version -> BigInt,
        owner_id -> BigInt,
        deleted_with_owner -> Bool,
        created_at -> Text,
        updated_at -> Text,
        deleted_at -> Nullable<Text>,
        created_by -> Nullable<BigInt>,
        updated_by -> Nullable<BigInt>,
        settings -> Nullable<Text>,
        connections -> Nullable<Text>,
        nodes -> Nullable<Text>,
        metadata -> Nullable<Text>,
    }
}

diesel::table! {
    workflow_plugins (workflow_id, plugin_id) {
        workflow_id -> BigInt,
        plugin_id -> BigInt,
    }
}

diesel::table! {
    logs (id) {
        id -> BigInt,
        level -> Text,
        message -> Text,
        workflow_id -> BigInt,
        execution_id -> Nullable<BigInt>,
        created_at -> Text,
        metadata -> Nullable<Text>,
    }
}

diesel::table! {
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
        created_at -> Text,
        delivered_at -> Nullable<Text>,
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

/// A moment as our schema holds it; diesel's own format has a space for the T.
#[derive(Debug, Clone, Copy, FromSqlRow, AsExpression)]
#[diesel(sql_type = Text)]
pub struct Moment(pub Time);

impl FromSql<Text, Sqlite> for Moment {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let time = DateTime::parse_from_rfc3339(value.read_text())?;
        Ok(Self(time.to_utc()))
    }
}

impl ToSql<Text, Sqlite> for Moment {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(sqlite_time(self.0));
        Ok(IsNull::No)
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub(crate) struct UserRow {
    id: i64,
    name: String,
    email: String,
    hashed_password: String,
    role: String,
    is_active: bool,
    created_at: Moment,
    updated_at: Moment,
    deleted_at: Option<Moment>,
    created_by: Option<i64>,
    updated_by: Option<i64>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
pub(crate) struct SessionRow {
    id: i64,
    token: String,
    user_agent: Option<String>,
    ip_address: Option<String>,
    expires_at: Moment,
    last_seen_at: Moment,
    created_at: Moment,
    updated_at: Moment,
    user_id: i64,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = plugins)]
pub(crate) struct PluginRow {
    id: i64,
    name: String,
    description: String,
    version: String,
    author: Option<String>,
    is_enabled: bool,
    created_at: Moment,
    updated_at: Moment,
    deleted_at: Option<Moment>,
    created_by: Option<i64>,
    updated_by: Option<i64>,
    config_schema: Option<String>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = workflows)]
pub(crate) struct SummaryRow {
    id: i64,
    name: String,
    description: Option<String>,
    status: String,
    version: i64,
    owner_id: i64,
    created_at: Moment,
    updated_at: Moment,
    deleted_at: Option<Moment>,
    created_by: Option<i64>,
    updated_by: Option<i64>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = workflows)]
pub(crate) struct WorkflowRow {
    #[diesel(embed)]
    summary: SummaryRow,
    deleted_with_owner: bool,
    settings: Option<String>,
    connections: Option<String>,
    nodes: Option<String>,
    metadata: Option<String>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = logs)]
pub(crate) struct LogRow {
    id: i64,
    level: String,
    message: String,
    workflow_id: i64,
    execution_id: Option<i64>,
    created_at: Moment,
    metadata: Option<String>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = deliveries)]
pub(crate) struct DeliveryRow {
    id: i64,
    workflow_id: i64,
    url: String,
    event: String,
    status: String,
    attempts: i64,
    response_code: Option<i64>,
    error: Option<String>,
    payload: String,
    created_at: Moment,
    delivered_at: Option<Moment>,
}

#[derive(Insertable)]
#[diesel(table_name = deliveries)]
pub struct NewDeliveryRow {
    workflow_id: i64,
    url: String,
    event: &'static str,
    status: &'static str,
    attempts: i64,
    response_code: Option<i64>,
    error: Option<&'static str>,
    payload: String,
    created_at: Moment,
    delivered_at: Option<Moment>,
}

#[derive(Insertable)]
#[diesel(table_name = logs)]
pub struct NewLogRow {
    pub level: &'static str,
    pub message: String,
    pub workflow_id: i64,
    pub created_at: Moment,
    pub metadata: String,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            email: row.email,
            hashed_password: row.hashed_password,
            role: row.role.into(),
            is_active: row.is_active,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            deleted_at: row.deleted_at.map(|time| time.0),
            created_by: row.created_by,
            updated_by: row.updated_by,
        }
    }
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id,
            token: row.token,
            user_agent: row.user_agent,
            ip_address: row.ip_address,
            expires_at: row.expires_at.0,
            last_seen_at: row.last_seen_at.0,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            user_id: row.user_id,
        }
    }
}

impl From<PluginRow> for Plugin {
    fn from(row: PluginRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            version: row.version,
            author: row.author,
            is_enabled: row.is_enabled,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            deleted_at: row.deleted_at.map(|time| time.0),
            created_by: row.created_by,
            updated_by: row.updated_by,
            config_schema: row.config_schema.map(Json::Text),
        }
    }
}

impl From<SummaryRow> for Summary {
    fn from(row: SummaryRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            status: row.status.into(),
            version: row.version,
            owner_id: row.owner_id,
            created_at: row.created_at.0,
            updated_at: row.updated_at.0,
            deleted_at: row.deleted_at.map(|time| time.0),
            created_by: row.created_by,
            updated_by: row.updated_by,
        }
    }
}

impl From<WorkflowRow> for Workflow {
    fn from(row: WorkflowRow) -> Self {
        Self {
            summary: row.summary.into(),
            deleted_with_owner: row.deleted_with_owner,
            settings: row.settings.map(Json::Text),
            connections: row.connections.map(Json::Text),
            nodes: row.nodes.map(Json::Text),
            metadata: row.metadata.map(Json::Text),
        }
    }
}

impl From<LogRow> for Log {
    fn from(row: LogRow) -> Self {
        Self {
            id: row.id,
            level: row.level.into(),
            message: row.message,
            workflow_id: row.workflow_id,
            execution_id: row.execution_id,
            created_at: row.created_at.0,
            metadata: row.metadata.map(Json::Text),
        }
    }
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            workflow_id: row.workflow_id,
            url: row.url,
            event: row.event,
            status: row.status,
            attempts: row.attempts,
            response_code: row.response_code,
            error: row.error,
            payload: row.payload,
            created_at: row.created_at.0,
            delivered_at: row.delivered_at.map(|time| time.0),
        }
    }
}

impl From<NewDelivery> for NewDeliveryRow {
    fn from(new: NewDelivery) -> Self {
        Self {
            workflow_id: new.workflow,
            url: new.url,
            event: new.event,
            status: new.status,
            attempts: new.attempts,
            response_code: new.response_code,
            error: new.error,
            payload: new.payload,
            created_at: Moment(new.created_at),
            delivered_at: new.delivered_at.map(Moment),
        }
    }
}
