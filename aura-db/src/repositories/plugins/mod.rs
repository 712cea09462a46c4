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

use entity::{Action, PluginId, Resource, plugins};
use sea_orm::ActiveValue::{self, Set};
use sea_orm::sea_query::OnConflict;

use crate::config_schema::{self, AnyDepth, ConfigProblem, SchemaProblem};
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::filter::{deletes, purges, reads, setters, switches};
use crate::repositories::parsed;
use crate::validate::{Check, is_set};
use crate::{IntoDocument, IntoText};

pub use self::filter::{PluginFilter, PluginSort, PluginSummary};
pub use entity::plugins::Model as Plugin;

/// A plugin as it presents itself.
#[derive(Debug, Clone)]
pub struct NewPlugin(plugins::ActiveModel);

impl NewPlugin {
    /// Creates a plugin with any config. The name has at most 120 characters and is unique;
    /// the version has at most 32, of any scheme.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self(plugins::ActiveModel {
            name: Set(name.into()),
            description: Set(String::new()),
            version: Set(version.into()),
            author: Set(None),
            is_enabled: Set(true),
            config_schema: Set(None),
            ..Default::default()
        })
    }

    fn check(&self) -> Check {
        let mut check = Check::default();
        let text = |value: &ActiveValue<String>| value.try_as_ref().cloned().unwrap_or_default();
        check.name("name", &text(&self.0.name), 120);
        check.text("description", &text(&self.0.description), 240);
        check.name("version", &text(&self.0.version), 32);
        check.optional("author", is_set(&self.0.author).map(String::as_str), 160);
        check.document("config_schema", is_set(&self.0.config_schema));
        check
    }
}

setters!(NewPlugin of plugins {
    /// Sets the description, of at most 240 characters.
    description(text: impl Into<String>) => 0.description = Set(text.into()),
    /// Sets the author, of at most 160 characters.
    author(name: impl IntoText) => 0.author = Set(name.into_text()),
    /// Sets the JSON Schema that its configs must fit: see
    /// [`config_schema`](crate::config_schema).
    config_schema(json: impl IntoDocument) => 0.config_schema = Set(json.into_document()),
});

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

reads!(Plugins of plugins: PluginId, Plugin, PluginFilter, PluginSummary);
switches!(Plugins of plugins: PluginId, Plugin);
deletes!(Plugins of plugins: PluginId, "Deletes the plugin, which can be restored. It stays attached to workflows, and is not \
     listed with them.");
purges!(Plugins of plugins: PluginId, "Deletes a deleted plugin for good, also from its workflows.");

impl Plugins {
    /// Inserts a plugin, or brings the one of this name up to date: its
    /// description, version, author and schema. A new one is enabled; one that
    /// was disabled stays so; one that was deleted is restored.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`], also when the schema can't be used; [`Error::Forbidden`] when
    /// it is deleted and the user of a restricted handle may not restore it.
    pub async fn register(&self, new: NewPlugin) -> Result<Plugin, Error> {
        use plugins::Column;
        new.check().done()?;
        if let Some(schema) = is_set(&new.0.config_schema) {
            let schema = schema
                .json()
                .map_err(|problem| unusable("config_schema", &problem))?;
            config_schema::examine(schema)
                .await
                .map_err(|problem| unusable("config_schema", &problem))?;
        }
        let new = &new.0;
        self.0
            .write(op("register", Action::Create), |h| async move {
                let (now, actor) = (h.now(), h.actor());
                let row = plugins::ActiveModel {
                    created_at: Set(now),
                    updated_at: Set(now),
                    deleted_at: Set(None),
                    created_by: Set(actor),
                    updated_by: Set(actor),
                    ..new.clone()
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
                // The update restores, which not every role may that may register.
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

    /// Returns the plugin with this name, unless deleted.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn find_by_name(&self, name: &str) -> Result<Option<Plugin>, Error> {
        if name.contains('\0') {
            return Ok(None);
        }
        let rows = self.0.rows::<plugins::Entity>().named("find_by_name");
        rows.first(plugins::COLUMN.name.eq(name)).await
    }

    /// Returns the plugin with this name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get_by_name(&self, name: &str) -> Result<Plugin, Error> {
        let plugin = self.find_by_name(name).await?;
        plugin.ok_or_else(|| Error::not_found("plugin", name))
    }

    /// Returns what is wrong with a config for this plugin: nothing, if it fits the
    /// schema, or the plugin has none. Values of the config are not repeated,
    /// because they may be secrets.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Validation`] when the config is too large or too much
    /// work to check, or the stored schema can't be used (it was not registered here);
    /// [`Error::Busy`] when too many configs are being checked.
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

    /// Restores a deleted plugin. One that isn't deleted stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn restore(&self, id: PluginId) -> Result<Plugin, Error> {
        self.0.rows::<plugins::Entity>().restore(id).await
    }
}

fn unusable(field: &'static str, problem: &impl std::fmt::Display) -> Error {
    Error::field(field, format!("can't be used: {problem}"))
}
