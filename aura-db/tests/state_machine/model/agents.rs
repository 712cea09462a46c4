//! Agents.

use aura_db::agents::{Agent, AgentSort};
use aura_db::sea_orm::ActiveValue::Set;
use aura_db::{Action, AgentId, NewAgent, Resource, UserId};
use serde_json::Value;

use super::check::{Check, given, holds, set};
use super::list::{page, visible, whole, without};
use super::{Allowed, Answer, Ctx, Model, amend};
use crate::outcome::{Failed, json_of};
use crate::steps::agents::{Call, Change, Query};
use crate::steps::pages::Pages;

impl Model {
    pub(super) fn agents(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Agent);
        match call {
            Call::Create(new) => {
                let owner = storable(new, ctx)?;
                may(Action::Create)?.owned(owner)?;
                self.user(owner)?;
                let new = (**new).as_ref();
                self.unused(owner, &set(&new.name), None)?;
                let now = self.now;
                Ok(json_of(self.agents.insert(|id| Agent {
                    id: AgentId(id),
                    name: set(&new.name),
                    description: set(&new.description),
                    model: set(&new.model),
                    is_enabled: true,
                    owner_id: owner,
                    deleted_with_owner: false,
                    created_at: now,
                    updated_at: now,
                    deleted_at: None,
                    created_by: ctx.actor,
                    updated_by: ctx.actor,
                    config: set(&new.config),
                })))
            }
            Call::Find(id) => {
                let allowed = may(Action::Read)?;
                match self.agent(*id) {
                    Ok(row) if allowed.shows(row.owner_id) => Ok(json_of(row)),
                    _ => Ok(Value::Null),
                }
            }
            Call::Get(id) => {
                let allowed = may(Action::Read)?;
                let row = self.own_agent(allowed, *id)?.id;
                Ok(json_of(self.agent(row)?))
            }
            Call::List(query, pages) => self.list_agents(ctx, query, *pages, |row| {
                without(json_of(row), &["deleted_with_owner", "config"])
            }),
            Call::ListFull(query, pages) => self.list_agents(ctx, query, *pages, whole),
            Call::Update(id, change) => self.update_agent(ctx, *id, change),
            Call::Enable(id) => {
                self.own_agent(may(Action::Update)?, *id)?;
                self.agent(*id)?;
                self.adapt(ctx, *id, |row| row.is_enabled = true)
            }
            Call::Disable(id) => {
                self.own_agent(may(Action::Update)?, *id)?;
                self.agent(*id)?;
                self.adapt(ctx, *id, |row| row.is_enabled = false)
            }
            Call::Delete(id) => {
                self.own_agent(may(Action::Delete)?, *id)?;
                self.agent(*id)?;
                let now = self.now;
                self.adapt(ctx, *id, |row| {
                    (row.deleted_at, row.deleted_with_owner) = (Some(now), false);
                })?;
                Ok(Value::Null)
            }
            Call::Restore(id) => {
                let row = self.own_agent(may(Action::Delete)?, *id)?;
                if row.deleted_at.is_none() {
                    return Ok(json_of(row));
                }
                if self.user(row.owner_id).is_err() {
                    return Err(state(*id));
                }
                self.adapt(ctx, *id, |row| {
                    (row.deleted_at, row.deleted_with_owner) = (None, false);
                })
            }
            Call::Purge(id) => {
                let row = self.own_agent(may(Action::Delete)?, *id)?;
                if row.deleted_at.is_none() {
                    return Err(state(*id));
                }
                self.agents.rows.remove(&id.0);
                Ok(Value::Null)
            }
        }
    }

    fn list_agents(
        &self,
        ctx: Ctx,
        query: &Query,
        pages: Pages,
        tell: fn(&Agent) -> Value,
    ) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Agent);
        let mut check = Check::default();
        check.optional("text", query.text.as_ref(), 200);
        check.done()?;
        let allowed = may(Action::Read)?;
        let rows = self.agents.rows.values();
        let rows = rows.filter(|row| allowed.shows(row.owner_id) && fits(row, query));
        let key = |row: &Agent| {
            let key = match query.sort {
                AgentSort::Id => String::new(),
                AgentSort::Name => row.name.clone(),
                AgentSort::UpdatedAt => row.updated_at.timestamp_micros().to_string(),
            };
            (key, row.id.0)
        };
        page(rows.collect(), key, query.descending, pages, tell)
    }

    fn update_agent(&mut self, ctx: Ctx, id: AgentId, change: &Change) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::Agent);
        changeable(change)?;
        self.own_agent(may(Action::Update)?, id)?;
        let owner = self.agent(id)?.owner_id;
        if let Some(name) = &change.name {
            self.unused(owner, name, Some(id))?;
        }
        let texts = change.name.is_some() || change.model.is_some();
        if !(texts || change.description.is_set() || change.config.is_set()) {
            // Of nothing, which is no change.
            return Ok(json_of(self.agent(id)?));
        }
        self.adapt(ctx, id, |row| {
            if let Some(name) = &change.name {
                row.name.clone_from(name);
            }
            if let Some(model) = &change.model {
                row.model.clone_from(model);
            }
            if let Set(text) = &change.description {
                row.description.clone_from(text);
            }
            if let Set(json) = &change.config {
                row.config.clone_from(json);
            }
        })
    }

    fn agent(&self, id: AgentId) -> Result<&Agent, Failed> {
        self.agents
            .rows
            .get(&id.0)
            .filter(|row| row.deleted_at.is_none())
            .ok_or_else(|| Failed::not_found("agent", &id))
    }

    /// Deleted or not, that may be reached.
    fn own_agent(&self, allowed: Allowed, id: AgentId) -> Result<&Agent, Failed> {
        let row = self.agents.rows.get(&id.0);
        row.filter(|row| allowed.shows(row.owner_id))
            .ok_or_else(|| Failed::not_found("agent", &id))
    }

    /// Refuses a name that another of the owner's has, deleted or not.
    fn unused(&self, owner: UserId, name: &str, except: Option<AgentId>) -> Result<(), Failed> {
        let mut others = self
            .agents
            .rows
            .values()
            .filter(|row| Some(row.id) != except);
        match others.find(|row| row.owner_id == owner && row.name == name) {
            Some(row) => {
                let deleted = row.deleted_at.is_some();
                Err(Failed::conflict("agents", &["name", "owner_id"], deleted))
            }
            None => Ok(()),
        }
    }

    fn adapt(&mut self, ctx: Ctx, id: AgentId, change: impl FnOnce(&mut Agent)) -> Answer {
        let now = self.now;
        let row = self.agents.rows.get_mut(&id.0);
        let row = row.ok_or_else(|| Failed::not_found("agent", &id))?;
        change(row);
        amend!(row, ctx, now);
        Ok(json_of(&*row))
    }
}

fn state(id: AgentId) -> Failed {
    Failed::State {
        what: "agent".to_owned(),
        id: id.0,
    }
}

fn storable(new: &NewAgent, ctx: Ctx) -> Result<UserId, Failed> {
    let new = new.as_ref();
    let mut check = Check::default();
    check.name("name", &set(&new.name), 120);
    check.optional("description", set(&new.description).as_ref(), usize::MAX);
    check.name("model", &set(&new.model), 120);
    check.container("config", set(&new.config).as_ref());
    let owner = new.owner_id.try_as_ref().copied().or(ctx.actor);
    check.refuse("owner", owner.is_none());
    check.done()?;
    owner.ok_or(Failed::Aborted)
}

fn changeable(change: &Change) -> Result<(), Failed> {
    let mut check = Check::default();
    if let Some(name) = &change.name {
        check.name("name", name, 120);
    }
    let description = given(&change.description);
    check.optional("description", description, usize::MAX);
    if let Some(model) = &change.model {
        check.name("model", model, 120);
    }
    check.container("config", given(&change.config));
    check.done()
}

fn fits(row: &Agent, query: &Query) -> bool {
    let described = |text: &String| row.description.as_ref().is_some_and(|d| holds(d, text));
    query.owner.is_none_or(|owner| row.owner_id == owner)
        && query
            .enabled
            .is_none_or(|enabled| row.is_enabled == enabled)
        && visible(query.deleted, row.deleted_at.is_some())
        && query
            .text
            .as_ref()
            .is_none_or(|text| holds(&row.name, text) || described(text))
}
