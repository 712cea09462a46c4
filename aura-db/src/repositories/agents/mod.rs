//! Language models with instructions, each of which belongs to a user.
//!
//! ```
//! # use aura_db::{AgentChange, Error, NewAgent, testing::TestDatabase};
//! # use serde_json::json;
//! # #[tokio::main] async fn main() -> Result<(), Error> {
//! # let db = TestDatabase::sqlite().await?;
//! # let ada = db.user("ada").await?;
//! let agents = db.acting_as(ada.id).agents();
//! let agent = agents
//!     .create(NewAgent::new("Summarizer", "large-1").config(json!({"temperature": 0.2})))
//!     .await?;
//! let agent = agents.update(agent.id, AgentChange::new().model("large-2")).await?;
//! assert_eq!((agent.model.as_str(), agent.owner_id), ("large-2", ada.id));
//! # Ok(()) }
//! ```

mod change;
mod filter;

use aura_orm::TypedQuery;
use chrono::{DateTime, Utc};
use entity::{Action, AgentId, Live, Resource, UserId, agents};
use sea_orm::sea_query::{LockType, UpdateStatement};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select,
};

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::set_json;
use crate::repositories::users::hold_owner;
use crate::validate::Check;
use aura_orm::page::{Page, PageRequest};

pub use self::change::{AgentChange, NewAgent};
pub use self::filter::{AgentFilter, AgentSort, AgentSummary};
pub use entity::agents::Model as Agent;

/// The agents. From [`Database::agents`](crate::Database::agents).
#[derive(Debug, Clone)]
pub struct Agents(pub(crate) Context);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "agents",
        name,
        needs: (action, Resource::Agent),
    }
}

impl Agents {
    /// Creates an agent, which is enabled. It belongs to `owner`, or to who
    /// acts.
    ///
    /// Fails with [`Error::Validation`], also when nobody owns it; with
    /// [`Error::NotFound`] when the owner doesn't exist or is deleted; and with
    /// [`Error::Conflict`] when the owner has one of this name, deleted or not.
    pub async fn create(&self, new: NewAgent) -> Result<Agent, Error> {
        let mut check = Check::default();
        check.name("name", &new.name, 120);
        if let Some(text) = &new.description {
            check.long_text("description", text);
        }
        check.name("model", &new.model, 120);
        check.container("config", new.config.as_ref());
        let Some(owner) = new.owner.or(self.0.actor()) else {
            check.refuse("owner", "must be given, or use `acting_as`");
            return Err(check.done().err().unwrap_or(Error::Ended));
        };
        check.done()?;
        let new = &new;
        let op = op("create", Action::Create);
        self.0
            .atomic(op, |h| async move {
                h.ensure_owner(op, owner)?;
                hold_owner(&h, owner).await?;
                let now = h.now();
                let row = agents::ActiveModel {
                    id: NotSet,
                    name: Set(new.name.clone()),
                    description: Set(new.description.clone()),
                    model: Set(new.model.clone()),
                    is_enabled: Set(true),
                    owner_id: Set(owner),
                    deleted_with_owner: Set(false),
                    created_at: Set(now),
                    updated_at: Set(now),
                    deleted_at: Set(None),
                    created_by: Set(h.actor()),
                    updated_by: Set(h.actor()),
                    config: Set(new.config.clone()),
                };
                let unique = [agents::Column::OwnerId, agents::Column::Name];
                match h.insert_unless_taken(row, &unique).await? {
                    Some(agent) => Ok(agent),
                    None => Err(taken(&h, owner, &new.name, None)
                        .await?
                        .unwrap_or(conflict(false))),
                }
            })
            .await
    }

    /// The agent with this id, unless deleted.
    pub async fn find(&self, id: AgentId) -> Result<Option<Agent>, Error> {
        let op = op("find", Action::Read);
        self.0
            .read(op, |h| async move {
                let agent = h
                    .fetch_optional(agents::Entity::live().filter(agents::COLUMN.id.eq(id)))
                    .await?;
                if let Some(agent) = &agent {
                    h.ensure_owner(op, agent.owner_id)?;
                }
                Ok(agent)
            })
            .await
    }

    /// The agent with this id.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get(&self, id: AgentId) -> Result<Agent, Error> {
        self.find(id).await?.ok_or_else(|| missing(id))
    }

    /// A part of the agents, without their settings.
    ///
    /// Fails with [`Error::Validation`] when the page or the text can't be used.
    pub async fn list(
        &self,
        filter: AgentFilter,
        page: PageRequest,
    ) -> Result<Page<AgentSummary>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                let select = AgentSummary::columns(filter.select(&h)?);
                h.page(select, &filter.sorted(), page.clone()).await
            })
            .await
    }

    /// A part of the agents, with their settings.
    ///
    /// Fails with [`Error::Validation`] when the page or the text can't be used.
    pub async fn list_full(
        &self,
        filter: AgentFilter,
        page: PageRequest,
    ) -> Result<Page<Agent>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list_full", Action::Read), |h| async move {
                h.page(filter.select(&h)?, &filter.sorted(), page.clone())
                    .await
            })
            .await
    }

    /// Changes an agent.
    ///
    /// Fails with [`Error::Validation`], with [`Error::NotFound`], and with
    /// [`Error::Conflict`] when its owner has another one of the new name.
    pub async fn update(&self, id: AgentId, change: AgentChange) -> Result<Agent, Error> {
        let mut check = Check::default();
        if let Some(name) = &change.name {
            check.name("name", name, 120);
        }
        if let Set(Some(text)) = &change.description {
            check.long_text("description", text);
        }
        if let Some(model) = &change.model {
            check.name("model", model, 120);
        }
        if let Set(config) = &change.config {
            check.container("config", config.as_ref());
        }
        check.done()?;
        let change = &change;
        let op = op("update", Action::Update);
        self.0
            .atomic(op, |h| async move {
                let agent = lock(&h, op, id).await?;
                let mut update = h.audited_update::<agents::Entity>(h.now());
                if let Some(name) = &change.name {
                    if let Some(error) = taken(&h, agent.owner, name, Some(id)).await? {
                        return Err(error);
                    }
                    update.value(agents::Column::Name, name.clone());
                }
                if let Set(text) = &change.description {
                    update.value(agents::Column::Description, text.clone());
                }
                if let Some(model) = &change.model {
                    update.value(agents::Column::Model, model.clone());
                }
                if let Set(config) = &change.config {
                    set_json(&mut update, agents::Column::Config, config.as_ref());
                }
                changed(&h, id, update).await
            })
            .await
    }

    /// Lets workflows use the agent.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn enable(&self, id: AgentId) -> Result<Agent, Error> {
        self.switch("enable", id, true).await
    }

    /// Keeps workflows from using the agent.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn disable(&self, id: AgentId) -> Result<Agent, Error> {
        self.switch("disable", id, false).await
    }

    async fn switch(&self, name: &'static str, id: AgentId, on: bool) -> Result<Agent, Error> {
        let op = op(name, Action::Update);
        self.0
            .atomic(op, |h| async move {
                lock(&h, op, id).await?;
                let mut update = h.audited_update::<agents::Entity>(h.now());
                update.value(agents::Column::IsEnabled, on);
                changed(&h, id, update).await
            })
            .await
    }

    /// Deletes the agent, which can be restored.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn delete(&self, id: AgentId) -> Result<(), Error> {
        let op = op("delete", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                lock(&h, op, id).await?;
                let now = h.now();
                let mut update = h.audited_update::<agents::Entity>(now);
                update
                    .value(agents::Column::DeletedAt, now)
                    .value(agents::Column::DeletedWithOwner, false)
                    .and_where(agents::COLUMN.id.eq(id));
                h.update(&update).await.map(|_| ())
            })
            .await
    }

    /// Brings a deleted agent back. Restoring one that isn't deleted changes
    /// nothing.
    ///
    /// Fails with [`Error::NotFound`] when there is no such agent, deleted or
    /// not, and with [`Error::State`] when its owner is deleted.
    pub async fn restore(&self, id: AgentId) -> Result<Agent, Error> {
        let op = op("restore", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                // The owner first, as when a user is deleted or restored with the agents.
                let any = agents::Entity::find().filter(agents::COLUMN.id.eq(id));
                let seen = held(&h, any).await?.ok_or_else(|| missing(id))?;
                let mut owner = hold_owner(&h, seen.owner).await;
                let agent = lock_any(&h, op, id).await?;
                if !agent.deleted {
                    let live = agents::Entity::live().filter(agents::COLUMN.id.eq(id));
                    return h.fetch_optional(live).await?.ok_or_else(|| missing(id));
                }
                if agent.owner != seen.owner {
                    owner = hold_owner(&h, agent.owner).await;
                }
                match owner {
                    Err(Error::NotFound { .. }) => {
                        return Err(Error::State {
                            what: "agent",
                            key: id.to_string(),
                            state: "belongs to a deleted user",
                            hint: "restore the user first",
                        });
                    }
                    held => held?,
                };
                let mut update = h.audited_update::<agents::Entity>(h.now());
                update
                    .value(agents::Column::DeletedAt, Option::<DateTime<Utc>>::None)
                    .value(agents::Column::DeletedWithOwner, false);
                changed(&h, id, update).await
            })
            .await
    }

    /// Removes a deleted agent for good.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::State`] when it isn't
    /// deleted.
    pub async fn purge(&self, id: AgentId) -> Result<(), Error> {
        let op = op("purge", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                lock_any(&h, op, id).await?;
                crate::repositories::purge::<agents::Entity>(&h, "agent", id.0).await
            })
            .await
    }
}

fn missing(id: AgentId) -> Error {
    Error::not_found("agent", id)
}

/// What an operation must know of an agent before it changes it. No documents:
/// they may be large, and one that can't be read is no reason not to delete it.
struct Held {
    owner: UserId,
    deleted: bool,
}

async fn held(h: &Context, agent: Select<agents::Entity>) -> Result<Option<Held>, Error> {
    let agent = agent
        .select_only()
        .columns([agents::Column::OwnerId, agents::Column::DeletedAt]);
    let held: TypedQuery<(UserId, Option<DateTime<Utc>>)> = TypedQuery::of(agent.into_query());
    let held = h.fetch_optional(held).await?;
    Ok(held.map(|(owner, deleted_at)| Held {
        owner,
        deleted: deleted_at.is_some(),
    }))
}

/// Keeps everybody else from changing the agent, deleted or not, until the
/// transaction ends.
async fn lock_any(h: &Context, op: Op, id: AgentId) -> Result<Held, Error> {
    let mut agent = agents::Entity::find().filter(agents::COLUMN.id.eq(id));
    if h.backend() == DbBackend::Postgres {
        agent = agent.lock(LockType::Update);
    }
    let agent = held(h, agent).await?.ok_or_else(|| missing(id))?;
    h.ensure_owner(op, agent.owner)?;
    Ok(agent)
}

/// As [`lock_any`], unless it is deleted.
async fn lock(h: &Context, op: Op, id: AgentId) -> Result<Held, Error> {
    let agent = lock_any(h, op, id).await?;
    if agent.deleted {
        return Err(missing(id));
    }
    Ok(agent)
}

async fn changed(h: &Context, id: AgentId, mut update: UpdateStatement) -> Result<Agent, Error> {
    update.and_where(agents::COLUMN.id.eq(id));
    h.update_returning::<agents::Entity>(update)
        .await?
        .pop()
        .ok_or_else(|| missing(id))
}

/// The error that tells who has the name, when an agent but `except` does.
async fn taken(
    h: &Context,
    owner: UserId,
    name: &str,
    except: Option<AgentId>,
) -> Result<Option<Error>, Error> {
    let holder = agents::Entity::find()
        .filter(agents::COLUMN.owner_id.eq(owner))
        .filter(agents::COLUMN.name.eq(name))
        .filter(Condition::all().add_option(except.map(|id| agents::COLUMN.id.ne(id))));
    Ok(held(h, holder)
        .await?
        .map(|holder| conflict(holder.deleted)))
}

fn conflict(deleted: bool) -> Error {
    Error::Conflict {
        table: "agents".to_owned(),
        columns: vec!["owner_id".to_owned(), "name".to_owned()],
        deleted,
    }
}
