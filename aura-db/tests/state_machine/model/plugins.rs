//! Plugins.

use aura_db::plugins::{Plugin, PluginSort};
use aura_db::{Action, NewPlugin, PluginId, Resource};
use serde_json::{Value, json};

use super::check::{Check, holds, set};
use super::list::{page, visible, whole, without};
use super::{Answer, Ctx, Model, amend};
use crate::outcome::{Failed, json_of};
use crate::steps::pages::Pages;
use crate::steps::plugins::{Call, Query, schema};

impl Model {
    pub(super) fn plugins(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Plugin);
        match call {
            Call::Register(new) => self.register(ctx, new),
            Call::Find(id) => {
                may(Action::Read)?;
                Ok(json_of(self.plugin(*id).ok()))
            }
            Call::Get(id) => {
                may(Action::Read)?;
                self.plugin(*id).map(json_of)
            }
            Call::FindByName(name) => Ok(json_of(self.by_name(ctx, name)?)),
            Call::GetByName(name) => match self.by_name(ctx, name)? {
                Some(plugin) => Ok(json_of(plugin)),
                None => Err(Failed::not_found("plugin", &name)),
            },
            Call::List(query, pages) => self.list_plugins(ctx, query, *pages, |row| {
                without(json_of(row), &["config_schema"])
            }),
            Call::ListFull(query, pages) => self.list_plugins(ctx, query, *pages, whole),
            Call::Enable(id) => {
                may(Action::Update)?;
                self.plugin(*id)?;
                self.alter(ctx, *id, |row| row.is_enabled = true)
            }
            Call::Disable(id) => {
                may(Action::Update)?;
                self.plugin(*id)?;
                self.alter(ctx, *id, |row| row.is_enabled = false)
            }
            Call::ValidateConfig(id, config) => {
                may(Action::Read)?;
                match self.plugin(*id)?.config_schema {
                    Some(_) => validate(config),
                    None => Ok(json!([])),
                }
            }
            Call::Delete(id) => {
                may(Action::Delete)?;
                self.plugin(*id)?;
                let now = self.now;
                self.alter(ctx, *id, |row| row.deleted_at = Some(now))?;
                Ok(Value::Null)
            }
            Call::Restore(id) => {
                may(Action::Delete)?;
                match self.plugin(*id) {
                    Ok(row) => Ok(json_of(row)),
                    Err(_) => self.alter(ctx, *id, |row| row.deleted_at = None),
                }
            }
            Call::Purge(id) => {
                may(Action::Delete)?;
                if self.plugin(*id).is_ok() {
                    return Err(Failed::State {
                        what: "plugin".to_owned(),
                        id: id.0,
                    });
                }
                let gone = self.plugins.rows.remove(&id.0);
                gone.ok_or_else(|| Failed::not_found("plugin", &id))?;
                self.attached.retain(|(_, plugin)| *plugin != id.0);
                Ok(Value::Null)
            }
        }
    }

    fn register(&mut self, ctx: Ctx, new: &NewPlugin) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Plugin);
        let new = new.as_ref();
        let (name, description) = (set(&new.name), set(&new.description));
        let (version, author) = (set(&new.version), set(&new.author));
        let config_schema = set(&new.config_schema);
        let mut check = Check::default();
        check.name("name", &name, 120);
        check.text("description", &description, 240);
        check.name("version", &version, 32);
        check.optional("author", author.as_ref(), 160);
        let json = config_schema.as_ref();
        check.json("config_schema", json);
        check.done()?;
        if json.is_some_and(|json| *json != schema().into()) {
            return Err(Failed::validation(&["config_schema"]));
        }
        may(Action::Create)?;
        let restore = may(Action::Delete);
        let now = self.now;
        let mut rows = self.plugins.rows.values_mut();
        if let Some(row) = rows.find(|row| row.name == name) {
            if row.deleted_at.is_some() {
                restore?;
            }
            row.description = description;
            row.version = version;
            row.author = author;
            row.config_schema = config_schema;
            row.deleted_at = None;
            amend!(row, ctx, now);
            return Ok(json_of(&*row));
        }
        Ok(json_of(self.plugins.insert(|id| Plugin {
            id: PluginId(id),
            name,
            description,
            version,
            author,
            is_enabled: true,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            created_by: ctx.actor,
            updated_by: ctx.actor,
            config_schema,
        })))
    }

    fn list_plugins(
        &self,
        ctx: Ctx,
        query: &Query,
        pages: Pages,
        tell: fn(&Plugin) -> Value,
    ) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Plugin);
        let mut check = Check::default();
        check.optional("author", query.author.as_ref(), 160);
        check.optional("text", query.text.as_ref(), 200);
        check.done()?;
        may(Action::Read)?;
        let rows = self.plugins.rows.values().filter(|row| fits(row, query));
        let key = |row: &Plugin| {
            let key = match query.sort {
                PluginSort::Id => String::new(),
                PluginSort::Name => row.name.clone(),
                PluginSort::UpdatedAt => row.updated_at.timestamp_micros().to_string(),
            };
            (key, row.id.0)
        };
        page(rows.collect(), key, query.descending, pages, tell)
    }

    /// A plugin that is not deleted.
    pub(super) fn plugin(&self, id: PluginId) -> Result<&Plugin, Failed> {
        self.plugins
            .rows
            .get(&id.0)
            .filter(|plugin| plugin.deleted_at.is_none())
            .ok_or_else(|| Failed::not_found("plugin", &id))
    }

    fn by_name(&self, ctx: Ctx, name: &str) -> Result<Option<&Plugin>, Failed> {
        if name.contains('\0') {
            return Ok(None);
        }
        self.enter(ctx, Action::Read, Resource::Plugin)?;
        let mut live = self
            .plugins
            .rows
            .values()
            .filter(|row| row.deleted_at.is_none());
        Ok(live.find(|row| row.name == name))
    }

    fn alter(&mut self, ctx: Ctx, id: PluginId, change: impl FnOnce(&mut Plugin)) -> Answer {
        let now = self.now;
        let row = self.plugins.rows.get_mut(&id.0);
        let row = row.ok_or_else(|| Failed::not_found("plugin", &id))?;
        change(row);
        amend!(row, ctx, now);
        Ok(json_of(&*row))
    }
}

/// What doesn't fit the one schema that there is.
fn validate(config: &Value) -> Answer {
    let problem = match config {
        Value::Object(members) if members.is_empty() => r#""url" is a required property"#,
        Value::Object(members)
            if members["url"]
                .as_array()
                .is_some_and(|list| list.len() > 99) =>
        {
            return Err(Failed::validation(&["config"]));
        }
        Value::Object(_) => return Ok(json!([])),
        _ => r#"value is not of type "object""#,
    };
    Ok(json!([{"path": "", "message": problem}]))
}

fn fits(row: &Plugin, query: &Query) -> bool {
    query
        .enabled
        .is_none_or(|enabled| row.is_enabled == enabled)
        && query
            .author
            .as_ref()
            .is_none_or(|author| row.author.as_ref() == Some(author))
        && visible(query.deleted, row.deleted_at.is_some())
        && query
            .text
            .as_ref()
            .is_none_or(|text| holds(&row.name, text) || holds(&row.description, text))
}
