//! What workflows are extended with.
//!
//! ```
//! # use aura_db::{Error, NewPlugin, testing::TestDatabase};
//! # use serde_json::json;
//! # #[tokio::main] async fn main() -> Result<(), Error> {
//! # let db = TestDatabase::sqlite().await?;
//! let schema = json!({"type": "object", "required": ["url"]});
//! let http = db.plugins().register(NewPlugin::new("http", "1.2.0").config_schema(schema)).await?;
//! // Each start of a plugin registers it again: the same row.
//! let again = db.plugins().register(NewPlugin::new("http", "1.3.0")).await?;
//! assert_eq!((again.id, again.version.as_str()), (http.id, "1.3.0"));
//!
//! let schema = json!({"type": "object", "required": ["url"]});
//! db.plugins().register(NewPlugin::new("http", "1.3.1").config_schema(schema)).await?;
//! let problems = db.plugins().validate_config(http.id, json!({})).await?;
//! assert_eq!(problems[0].to_string(), r#": "url" is a required property"#);
//! # Ok(()) }
//! ```

mod filter;

use chrono::{DateTime, Utc};
use entity::{Action, Document, Live, PluginId, Resource, plugins};
use sea_orm::sea_query::{OnConflict, UpdateStatement};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, QueryFilter,
};

use crate::config_schema::{self, AnyDepth, ConfigProblem, SchemaProblem};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::parsed;
use crate::validate::Check;
use aura_orm::page::{Page, PageRequest};

pub use self::filter::{PluginFilter, PluginSort, PluginSummary};
pub use entity::plugins::Model as Plugin;

/// A plugin as it presents itself.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// At most 120 characters, and unique.
    pub name: String,
    /// At most 240 characters.
    pub description: String,
    /// At most 32 characters; any scheme.
    pub version: String,
    /// At most 160 characters.
    pub author: Option<String>,
    /// A JSON Schema that its configs must fit: see
    /// [`config_schema`](crate::config_schema).
    pub config_schema: Option<Document>,
}

impl NewPlugin {
    /// A plugin with any config.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            version: version.into(),
            author: None,
            config_schema: None,
        }
    }

    /// With a description.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// With an author.
    #[must_use]
    pub fn author(mut self, name: impl Into<String>) -> Self {
        self.author = Some(name.into());
        self
    }

    /// With a schema of its configs.
    #[must_use]
    pub fn config_schema(mut self, schema: impl Into<Document>) -> Self {
        self.config_schema = Some(schema.into());
        self
    }
}

/// The plugins. From [`Database::plugins`](crate::Database::plugins).
#[derive(Debug, Clone)]
pub struct Plugins(pub(crate) Context);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "plugins",
        name,
        needs: (action, Resource::Plugin),
    }
}

impl Plugins {
    /// Inserts a plugin, or brings the one of this name up to date: its
    /// description, version, author and schema. A new one is enabled; one that
    /// was disabled stays so; one that was deleted is restored.
    ///
    /// Fails with [`Error::Validation`], also when the schema can't be used, and
    /// with [`Error::Forbidden`] when it is deleted and the user of a restricted
    /// handle may not restore it.
    pub async fn register(&self, new: NewPlugin) -> Result<Plugin, Error> {
        use plugins::Column;
        let mut check = Check::default();
        check.name("name", &new.name, 120);
        check.text("description", &new.description, 240);
        check.name("version", &new.version, 32);
        check.optional("author", new.author.as_deref(), 160);
        check.document("config_schema", new.config_schema.as_ref());
        check.done()?;
        if let Some(schema) = &new.config_schema {
            let schema = schema
                .json()
                .map_err(|problem| unusable("config_schema", &problem))?;
            config_schema::examine(schema)
                .await
                .map_err(|problem| unusable("config_schema", &problem))?;
        }
        let new = &new;
        self.0
            .write(op("register", Action::Create), |h| async move {
                let now = h.now();
                let row = plugins::ActiveModel {
                    id: NotSet,
                    name: Set(new.name.clone()),
                    description: Set(new.description.clone()),
                    version: Set(new.version.clone()),
                    author: Set(new.author.clone()),
                    is_enabled: Set(true),
                    created_at: Set(now),
                    updated_at: Set(now),
                    deleted_at: Set(None),
                    created_by: Set(h.actor()),
                    updated_by: Set(h.actor()),
                    config_schema: Set(new.config_schema.clone()),
                };
                let mut update = OnConflict::column(Column::Name)
                    .update_columns([
                        Column::Description,
                        Column::Version,
                        Column::Author,
                        Column::UpdatedAt,
                        Column::DeletedAt,
                        Column::UpdatedBy,
                        Column::ConfigSchema,
                    ])
                    .to_owned();
                // The update restores, which not everybody may who may register.
                let restore = op("register", Action::Delete);
                if !h.is_allowed(restore) {
                    update.action_and_where(plugins::COLUMN.deleted_at.is_null());
                }
                h.insert_or(row, update)
                    .await?
                    .ok_or_else(|| h.forbidden(restore))
            })
            .await
    }

    /// The plugin with this id, unless deleted.
    pub async fn find(&self, id: PluginId) -> Result<Option<Plugin>, Error> {
        self.0
            .read(op("find", Action::Read), |h| async move {
                h.fetch_optional(plugins::Entity::live().filter(plugins::COLUMN.id.eq(id)))
                    .await
            })
            .await
    }

    /// The plugin with this id.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get(&self, id: PluginId) -> Result<Plugin, Error> {
        self.find(id).await?.ok_or_else(|| missing(id))
    }

    /// The plugin with this name, unless deleted.
    pub async fn find_by_name(&self, name: &str) -> Result<Option<Plugin>, Error> {
        if name.contains('\0') {
            return Ok(None);
        }
        self.0
            .read(op("find_by_name", Action::Read), |h| async move {
                h.fetch_optional(plugins::Entity::live().filter(plugins::COLUMN.name.eq(name)))
                    .await
            })
            .await
    }

    /// The plugin with this name.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get_by_name(&self, name: &str) -> Result<Plugin, Error> {
        self.find_by_name(name)
            .await?
            .ok_or_else(|| Error::not_found("plugin", name))
    }

    /// A part of the plugins, without their schemas.
    ///
    /// Fails with [`Error::Validation`] when the page or the filter can't be
    /// used.
    pub async fn list(
        &self,
        filter: PluginFilter,
        page: PageRequest,
    ) -> Result<Page<PluginSummary>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                let select = PluginSummary::columns(filter.select()?);
                h.page(select, &filter.sorted(), page.clone()).await
            })
            .await
    }

    /// A part of the plugins, with their schemas.
    ///
    /// Fails with [`Error::Validation`] when the page or the filter can't be
    /// used.
    pub async fn list_full(
        &self,
        filter: PluginFilter,
        page: PageRequest,
    ) -> Result<Page<Plugin>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list_full", Action::Read), |h| async move {
                h.page(filter.select()?, &filter.sorted(), page.clone())
                    .await
            })
            .await
    }

    /// Lets workflows use the plugin.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn enable(&self, id: PluginId) -> Result<Plugin, Error> {
        self.switch("enable", id, true).await
    }

    /// Keeps workflows from using the plugin; it stays attached to them.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn disable(&self, id: PluginId) -> Result<Plugin, Error> {
        self.switch("disable", id, false).await
    }

    async fn switch(&self, name: &'static str, id: PluginId, on: bool) -> Result<Plugin, Error> {
        self.0
            .write(op(name, Action::Update), |h| async move {
                let mut update = h.audited_update::<plugins::Entity>(h.now());
                update.value(plugins::Column::IsEnabled, on);
                one(&h, id, update).await
            })
            .await
    }

    /// What is wrong with a config for this plugin: nothing, if it fits the
    /// schema, or the plugin has none. Values of the config are not repeated,
    /// because they may be secrets.
    ///
    /// Fails with [`Error::NotFound`]; with [`Error::Validation`] when the
    /// config is too large or too much work to check, or the stored schema
    /// can't be used (it was not registered here); and with [`Error::Busy`]
    /// when too many configs are being checked.
    pub async fn validate_config(
        &self,
        id: PluginId,
        config: serde_json::Value,
    ) -> Result<Vec<ConfigProblem>, Error> {
        let config = AnyDepth(config);
        let plugin = self.get(id).await?;
        let Some(schema) = plugin.config_schema else {
            return Ok(Vec::new());
        };
        let schema = parsed(plugins::Column::ConfigSchema, id.0, &schema)?;
        config_schema::check(schema, config.take())
            .await
            .map_err(|problem| match problem {
                SchemaProblem::Busy => Error::Busy {
                    context: "checking a config",
                    source: None,
                },
                problem => unusable("config", &problem),
            })
    }

    /// Deletes the plugin, which can be restored. It stays attached to
    /// workflows, and is not listed with them.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn delete(&self, id: PluginId) -> Result<(), Error> {
        self.0
            .write(op("delete", Action::Delete), |h| async move {
                let now = h.now();
                let mut update = h.audited_update::<plugins::Entity>(now);
                update
                    .value(plugins::Column::DeletedAt, now)
                    .and_where(plugins::COLUMN.id.eq(id))
                    .and_where(plugins::COLUMN.deleted_at.is_null());
                // Not returned: a schema that can't be read is no reason to
                // fail when it is deleted.
                match h.update(&update).await? {
                    0 => Err(missing(id)),
                    _ => Ok(()),
                }
            })
            .await
    }

    /// Brings a deleted plugin back. Restoring one that isn't deleted changes
    /// nothing.
    ///
    /// Fails with [`Error::NotFound`] when there is no such plugin, deleted or
    /// not.
    pub async fn restore(&self, id: PluginId) -> Result<Plugin, Error> {
        self.0
            .write(op("restore", Action::Delete), |h| async move {
                let mut update = h.audited_update::<plugins::Entity>(h.now());
                update
                    .value(plugins::Column::DeletedAt, Option::<DateTime<Utc>>::None)
                    .and_where(plugins::COLUMN.id.eq(id))
                    .and_where(plugins::COLUMN.deleted_at.is_not_null());
                match h.update_returning::<plugins::Entity>(update).await?.pop() {
                    Some(plugin) => Ok(plugin),
                    None => h
                        .fetch_optional(plugins::Entity::live().filter(plugins::COLUMN.id.eq(id)))
                        .await?
                        .ok_or_else(|| missing(id)),
                }
            })
            .await
    }

    /// Removes a deleted plugin for good, also from its workflows.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::State`] when it isn't
    /// deleted.
    pub async fn purge(&self, id: PluginId) -> Result<(), Error> {
        self.0
            .atomic(op("purge", Action::Delete), |h| async move {
                crate::repositories::purge::<plugins::Entity>(&h, "plugin", id.0).await
            })
            .await
    }
}

fn missing(id: PluginId) -> Error {
    Error::not_found("plugin", id)
}

fn unusable(field: &'static str, problem: &impl std::fmt::Display) -> Error {
    Error::field(field, format!("can't be used: {problem}"))
}

async fn one(h: &Context, id: PluginId, mut update: UpdateStatement) -> Result<Plugin, Error> {
    update
        .and_where(plugins::COLUMN.id.eq(id))
        .and_where(plugins::COLUMN.deleted_at.is_null());
    h.update_returning::<plugins::Entity>(update)
        .await?
        .pop()
        .ok_or_else(|| missing(id))
}
