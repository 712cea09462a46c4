//! The models of `entity`, which two peers read, as rows.

use std::borrow::Cow;

use entity::{Document, logs, plugins, sessions, users, workflows};

use crate::rows::{Json, Log, Plugin, Session, Summary, User, Workflow};

/// aura-db hands the text over, as it is stored.
impl From<Document> for Json {
    fn from(document: Document) -> Self {
        Self::Text(document.into())
    }
}

impl From<users::Model> for User {
    fn from(user: users::Model) -> Self {
        Self {
            id: user.id.0,
            name: user.name,
            email: user.email,
            hashed_password: user.hashed_password.0,
            role: Cow::Borrowed(user.role.as_str()),
            is_active: user.is_active,
            created_at: user.created_at,
            updated_at: user.updated_at,
            deleted_at: user.deleted_at,
            created_by: user.created_by.map(|id| id.0),
            updated_by: user.updated_by.map(|id| id.0),
        }
    }
}

impl From<sessions::Model> for Session {
    fn from(session: sessions::Model) -> Self {
        Self {
            id: session.id.0,
            token: session.token.0,
            user_agent: session.user_agent,
            ip_address: session.ip_address,
            expires_at: session.expires_at,
            last_seen_at: session.last_seen_at,
            created_at: session.created_at,
            updated_at: session.updated_at,
            user_id: session.user_id.0,
        }
    }
}

impl From<plugins::Model> for Plugin {
    fn from(plugin: plugins::Model) -> Self {
        Self {
            id: plugin.id.0,
            name: plugin.name,
            description: plugin.description,
            version: plugin.version,
            author: plugin.author,
            is_enabled: plugin.is_enabled,
            created_at: plugin.created_at,
            updated_at: plugin.updated_at,
            deleted_at: plugin.deleted_at,
            created_by: plugin.created_by.map(|id| id.0),
            updated_by: plugin.updated_by.map(|id| id.0),
            config_schema: plugin.config_schema.map(Json::from),
        }
    }
}

impl From<workflows::Model> for Workflow {
    fn from(workflow: workflows::Model) -> Self {
        Self {
            summary: Summary {
                id: workflow.id.0,
                name: workflow.name,
                description: workflow.description,
                status: Cow::Borrowed(workflow.status.as_str()),
                version: workflow.version,
                owner_id: workflow.owner_id.0,
                created_at: workflow.created_at,
                updated_at: workflow.updated_at,
                deleted_at: workflow.deleted_at,
                created_by: workflow.created_by.map(|id| id.0),
                updated_by: workflow.updated_by.map(|id| id.0),
            },
            deleted_with_owner: workflow.deleted_with_owner,
            settings: workflow.settings.map(Json::from),
            connections: workflow.connections.map(Json::from),
            nodes: workflow.nodes.map(Json::from),
            metadata: workflow.metadata.map(Json::from),
        }
    }
}

impl From<logs::Model> for Log {
    fn from(log: logs::Model) -> Self {
        Self {
            id: log.id.0,
            level: Cow::Borrowed(log.level.as_str()),
            message: log.message,
            workflow_id: log.workflow_id.0,
            execution_id: log.execution_id.map(|id| id.0),
            created_at: log.created_at,
            metadata: log.metadata.map(Json::from),
        }
    }
}
