//! The rows that diesel reads and writes, on both databases.

use diesel::{AsChangeset, Insertable, Queryable, Selectable};

use super::diesel_schema::{
    JsonText, Moment, deliveries, logs, plugins, sessions, users, workflows,
};
use crate::data::{self, Entry};
use crate::deliveries::NewDelivery;
use crate::rows::{Account, Delivery, Json, Log, Plugin, Session, Summary, User, Workflow};

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
    config_schema: Option<JsonText>,
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
    settings: Option<JsonText>,
    connections: Option<JsonText>,
    nodes: Option<JsonText>,
    metadata: Option<JsonText>,
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
    metadata: Option<JsonText>,
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
    level: &'static str,
    message: String,
    workflow_id: i64,
    created_at: Moment,
    metadata: JsonText,
}

/// What an update writes.
#[derive(AsChangeset)]
#[diesel(table_name = workflows)]
pub struct Renamed {
    name: String,
    nodes: Option<JsonText>,
    updated_at: Moment,
    version: i64,
}

impl WorkflowRow {
    /// Returns its version, and what gives it this name at the next one.
    pub(super) fn rename(self, name: String) -> (i64, Renamed) {
        let read = Workflow::from(self);
        let version = read.summary.version;
        let renamed = Renamed {
            name,
            nodes: read.nodes.map(|nodes| JsonText(nodes.into_text())),
            updated_at: Moment(data::now()),
            version: version + 1,
        };
        (version, renamed)
    }
}

impl From<Entry> for NewLogRow {
    fn from(entry: Entry) -> Self {
        Self {
            level: Entry::LEVEL,
            message: entry.message,
            workflow_id: entry.workflow,
            created_at: Moment(data::now()),
            metadata: JsonText(entry.metadata.to_string()),
        }
    }
}

impl From<JsonText> for Json {
    fn from(document: JsonText) -> Self {
        Self::Text(document.0)
    }
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
            config_schema: row.config_schema.map(Json::from),
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
            settings: row.settings.map(Json::from),
            connections: row.connections.map(Json::from),
            nodes: row.nodes.map(Json::from),
            metadata: row.metadata.map(Json::from),
        }
    }
}

impl From<(SessionRow, UserRow)> for Account {
    fn from((session, user): (SessionRow, UserRow)) -> Self {
        Self {
            session: session.into(),
            user: user.into(),
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
            metadata: row.metadata.map(Json::from),
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
