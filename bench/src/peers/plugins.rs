//! The plugins of this workspace, as an entity of an application would have them.

use entity::Document;
use sea_orm::entity::prelude::*;

use crate::rows::{Json, Plugin, Time};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "plugins")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) version: String,
    pub(crate) author: Option<String>,
    pub(crate) is_enabled: bool,
    pub(crate) created_at: Time,
    pub(crate) updated_at: Time,
    pub(crate) deleted_at: Option<Time>,
    pub(crate) created_by: Option<i64>,
    pub(crate) updated_by: Option<i64>,
    #[sea_orm(save_as = "json_text")]
    pub(crate) config_schema: Option<Document>,
}

impl ActiveModelBehavior for ActiveModel {}

impl From<Model> for Plugin {
    fn from(plugin: Model) -> Self {
        Self {
            id: plugin.id,
            name: plugin.name,
            description: plugin.description,
            version: plugin.version,
            author: plugin.author,
            is_enabled: plugin.is_enabled,
            created_at: plugin.created_at,
            updated_at: plugin.updated_at,
            deleted_at: plugin.deleted_at,
            created_by: plugin.created_by,
            updated_by: plugin.updated_by,
            config_schema: plugin.config_schema.map(Json::from),
        }
    }
}
