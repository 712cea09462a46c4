//! Users.

use aura_db::entity::PasswordHash;
use aura_db::users::OwnedRows;
use aura_db::{Action, Resource, SessionRequest, User, UserId, UserSort};
use serde_json::json;

use super::check::{Check, holds, stored};
use super::list::{page, visible, whole};
use super::{Allowed, Answer, Ctx, Model, amend};
use crate::outcome::{Failed, json_of};
use crate::steps::pages::Pages;
use crate::steps::users::{Call, Query};

impl Model {
    pub(super) fn users(&mut self, ctx: Ctx, call: &Call) -> Answer {
        match call {
            Call::Create {
                name,
                email,
                password,
                role,
            } => {
                let mut check = Check::default();
                check.name("name", name, 120);
                let email = check.email(email);
                check.password(password);
                check.done()?;
                self.may(ctx, Action::Create)?;
                self.free(&email, None)?;
                let now = self.now;
                Ok(json_of(self.users.insert(|id| User {
                    id: UserId(id),
                    name: name.clone(),
                    email,
                    hashed_password: PasswordHash(password.clone()),
                    role: *role,
                    is_active: true,
                    created_at: now,
                    updated_at: now,
                    deleted_at: None,
                    created_by: ctx.actor,
                    updated_by: ctx.actor,
                })))
            }
            Call::Find(id) => {
                self.may(ctx, Action::Read)?;
                Ok(json_of(self.user(*id).ok()))
            }
            Call::Get(id) => {
                self.may(ctx, Action::Read)?;
                self.user(*id).map(json_of)
            }
            Call::FindByEmail(email) => Ok(json_of(self.by_email(ctx, email)?)),
            Call::GetByEmail(email) => match self.by_email(ctx, email)? {
                Some(user) => Ok(json_of(user)),
                None => Err(Failed::not_found("user", &email)),
            },
            Call::EmailExists(email) => {
                if email.contains('\0') {
                    return Ok(json!(false));
                }
                self.may(ctx, Action::Read)?;
                Ok(json!(self.free(&stored(email), None).is_err()))
            }
            Call::List(query, pages) => self.list_users(ctx, query, *pages),
            Call::Update { id, name, email } => {
                self.update_user(ctx, *id, name.as_ref(), email.as_ref())
            }
            Call::SetRole(id, role) => {
                self.may(ctx, Action::Update)?;
                self.change(ctx, *id, |user| user.role = *role)
            }
            Call::Activate(id) => {
                self.may(ctx, Action::Update)?;
                self.change(ctx, *id, |user| user.is_active = true)
            }
            Call::Deactivate(id) => {
                self.may(ctx, Action::Update)?;
                let user = self.change(ctx, *id, |user| user.is_active = false)?;
                self.end_sessions(*id);
                Ok(user)
            }
            Call::VerifyPassword(id, password) => {
                self.may(ctx, Action::Update)?;
                Ok(json!(self.user(*id)?.hashed_password.0 == *password))
            }
            Call::ChangePassword(id, old, new) => {
                let mut check = Check::default();
                check.password(new);
                check.done()?;
                self.may(ctx, Action::Update)?;
                if self.user(*id)?.hashed_password.0 != *old {
                    return Err(Failed::Credentials);
                }
                self.set_password(ctx, *id, new)
            }
            Call::ResetPassword(id, new) => {
                let mut check = Check::default();
                check.password(new);
                check.done()?;
                self.may(ctx, Action::Update)?;
                self.set_password(ctx, *id, new)
            }
            Call::Login(email, password, request) => self.login(ctx, email, password, request),
            Call::Delete(id, owned) => self.delete_user(ctx, *id, *owned),
            Call::Transfer(from, to) => {
                another(*from, *to)?;
                self.may(ctx, Action::Update)?;
                self.user(*from)?;
                self.transfer(ctx, *from, *to).map(json_of)
            }
            Call::Restore(id) => self.restore_user(ctx, *id),
            Call::Purge(id) => self.purge_user(ctx, *id),
        }
    }

    fn list_users(&self, ctx: Ctx, query: &Query, pages: Pages) -> Answer {
        let mut check = Check::default();
        check.optional("text", query.text.as_ref(), 200);
        check.done()?;
        self.may(ctx, Action::Read)?;
        let rows = self.users.rows.values().filter(|user| fits(user, query));
        let key = |user: &User| {
            let key = match query.sort {
                UserSort::Id => String::new(),
                UserSort::Name => user.name.clone(),
                UserSort::Email => user.email.clone(),
                UserSort::CreatedAt => user.created_at.timestamp_micros().to_string(),
                UserSort::UpdatedAt => user.updated_at.timestamp_micros().to_string(),
            };
            (key, user.id.0)
        };
        page(rows.collect(), key, query.descending, pages, whole)
    }

    fn login(&mut self, ctx: Ctx, email: &str, password: &str, request: &SessionRequest) -> Answer {
        Self::requested(request)?;
        if email.contains('\0') {
            return Err(Failed::Credentials);
        }
        self.may(ctx, Action::Update)?;
        let email = stored(email);
        let user = self.users.rows.values().find(|user| user.email == email);
        let user = user.filter(|user| user.hashed_password.0 == password);
        match user.and_then(|user| self.able(user.id)) {
            Some(user) => Ok(self.open_session(user.id, request)),
            None => Err(Failed::Credentials),
        }
    }

    fn purge_user(&mut self, ctx: Ctx, id: UserId) -> Answer {
        self.may(ctx, Action::Delete)?;
        let user = self.users.rows.get(&id.0);
        match user
            .ok_or_else(|| Failed::not_found("user", &id))?
            .deleted_at
        {
            None => {
                return Err(Failed::State {
                    what: "user".to_owned(),
                    id: id.0,
                });
            }
            Some(_) => self.users.rows.remove(&id.0),
        };
        self.end_sessions(id);
        self.limits.drop(id.into());
        self.agents.rows.retain(|_, row| row.owner_id != id);
        self.notes.rows.retain(|_, row| row.owner_id != id);
        let workflows = self.workflows.rows.values();
        let theirs: Vec<_> = workflows.filter(|row| row.owner_id == id).collect();
        for workflow in theirs.iter().map(|row| row.id.0).collect::<Vec<_>>() {
            self.drop_workflow(workflow);
        }
        Ok(json!(null))
    }

    fn update_user(
        &mut self,
        ctx: Ctx,
        id: UserId,
        name: Option<&String>,
        email: Option<&String>,
    ) -> Answer {
        let mut check = Check::default();
        if let Some(name) = name {
            check.name("name", name, 120);
        }
        let email = email.map(|email| check.email(email));
        check.done()?;
        self.may(ctx, Action::Update)?;
        let user = self.user(id)?;
        if name.is_none() && email.is_none() {
            return Ok(json_of(user));
        }
        if let Some(email) = &email {
            self.free(email, Some(id))?;
        }
        self.change(ctx, id, |user| {
            user.name = name.cloned().unwrap_or(user.name.clone());
            user.email = email.unwrap_or(user.email.clone());
        })
    }

    fn may(&self, ctx: Ctx, action: Action) -> Result<Allowed, Failed> {
        self.enter(ctx, action, Resource::User)
    }

    fn by_email(&self, ctx: Ctx, email: &str) -> Result<Option<&User>, Failed> {
        if email.contains('\0') {
            return Ok(None);
        }
        self.may(ctx, Action::Read)?;
        let email = stored(email);
        let mut live = self
            .users
            .rows
            .values()
            .filter(|user| user.deleted_at.is_none());
        Ok(live.find(|user| user.email == email))
    }

    /// Refuses an address that somebody has, deleted or not.
    fn free(&self, email: &str, except: Option<UserId>) -> Result<(), Failed> {
        let mut others = self
            .users
            .rows
            .values()
            .filter(|user| Some(user.id) != except);
        match others.find(|user| user.email == email) {
            Some(user) => {
                let deleted = user.deleted_at.is_some();
                Err(Failed::conflict("users", &["email"], deleted))
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, ctx: Ctx, id: UserId, change: impl FnOnce(&mut User)) -> Answer {
        self.user(id)?;
        let now = self.now;
        let user = self.users.rows.get_mut(&id.0);
        let user = user.ok_or_else(|| Failed::not_found("user", &id))?;
        change(user);
        amend!(user, ctx, now);
        Ok(json_of(&*user))
    }

    fn set_password(&mut self, ctx: Ctx, id: UserId, new: &str) -> Answer {
        self.change(ctx, id, |user| {
            user.hashed_password = PasswordHash(new.to_owned());
        })?;
        self.end_sessions(id);
        Ok(json!(null))
    }

    fn end_sessions(&mut self, id: UserId) {
        self.sessions
            .rows
            .retain(|_, session| session.user_id != id);
    }

    fn delete_user(&mut self, ctx: Ctx, id: UserId, owned: OwnedRows) -> Answer {
        if let OwnedRows::TransferTo(heir) = owned {
            another(id, heir)?;
        }
        self.may(ctx, Action::Delete)?;
        self.user(id)?;
        let now = self.now;
        let workflows = self.workflows.rows.values_mut();
        let workflows = workflows.filter(|row| row.owner_id == id && row.deleted_at.is_none());
        let agents = self.agents.rows.values_mut();
        let agents = agents.filter(|row| row.owner_id == id && row.deleted_at.is_none());
        match owned {
            OwnedRows::Refuse => {
                let (workflows, agents) = (workflows.count() as u64, agents.count() as u64);
                if workflows + agents > 0 {
                    return Err(Failed::OwnsRows {
                        user: id,
                        workflows,
                        agents,
                    });
                }
            }
            OwnedRows::TransferTo(heir) => {
                self.transfer(ctx, id, heir)?;
            }
            OwnedRows::Delete => {
                for row in workflows {
                    (row.deleted_at, row.deleted_with_owner) = (Some(now), true);
                    amend!(row, ctx, now);
                }
                for row in agents {
                    (row.deleted_at, row.deleted_with_owner) = (Some(now), true);
                    amend!(row, ctx, now);
                }
            }
        }
        self.change(ctx, id, |user| user.deleted_at = Some(now))?;
        self.end_sessions(id);
        Ok(json!(null))
    }

    fn transfer(&mut self, ctx: Ctx, from: UserId, to: UserId) -> Result<(u64, u64), Failed> {
        self.user(to)?;
        let now = self.now;
        let rows = || self.agents.rows.values();
        let mine = || rows().filter(|row| row.owner_id == from && row.deleted_at.is_none());
        let same: Vec<_> = rows()
            .filter(|row| row.owner_id == to && mine().any(|agent| agent.name == row.name))
            .collect();
        if !same.is_empty() {
            let deleted = same.iter().all(|row| row.deleted_at.is_some());
            return Err(Failed::conflict("agents", &["name", "owner_id"], deleted));
        }
        let (mut workflows, mut agents) = (0, 0);
        for row in self.workflows.rows.values_mut() {
            if row.owner_id == from && row.deleted_at.is_none() {
                row.owner_id = to;
                amend!(row, ctx, now);
                workflows += 1;
            }
        }
        for row in self.agents.rows.values_mut() {
            if row.owner_id == from && row.deleted_at.is_none() {
                row.owner_id = to;
                amend!(row, ctx, now);
                agents += 1;
            }
        }
        Ok((workflows, agents))
    }

    fn restore_user(&mut self, ctx: Ctx, id: UserId) -> Answer {
        self.may(ctx, Action::Delete)?;
        let now = self.now;
        let user = self.users.rows.get_mut(&id.0);
        let user = user.ok_or_else(|| Failed::not_found("user", &id))?;
        if user.deleted_at.is_none() {
            return Ok(json_of(&*user));
        }
        user.deleted_at = None;
        amend!(user, ctx, now);
        for row in self.workflows.rows.values_mut() {
            if row.owner_id == id && row.deleted_with_owner {
                (row.deleted_at, row.deleted_with_owner) = (None, false);
                amend!(row, ctx, now);
            }
        }
        for row in self.agents.rows.values_mut() {
            if row.owner_id == id && row.deleted_with_owner {
                (row.deleted_at, row.deleted_with_owner) = (None, false);
                amend!(row, ctx, now);
            }
        }
        Ok(json_of(self.user(id)?))
    }
}

/// An heir is another user.
fn another(from: UserId, to: UserId) -> Result<(), Failed> {
    if from == to {
        return Err(Failed::validation(&["heir"]));
    }
    Ok(())
}

fn fits(user: &User, query: &Query) -> bool {
    query.role.is_none_or(|role| user.role == role)
        && query.active.is_none_or(|active| user.is_active == active)
        && visible(query.deleted, user.deleted_at.is_some())
        && query
            .text
            .as_ref()
            .is_none_or(|text| holds(&user.name, text) || holds(&user.email, text))
}
