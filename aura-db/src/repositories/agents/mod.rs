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

use entity::{Action, AgentId, Resource, agents};
use sea_orm::ActiveValue::{Set, Unchanged};

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::filter::{purges, reads, switches};
use crate::repositories::owned;

use self::change::check;
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

reads!(Agents of agents: AgentId, Agent, AgentFilter, AgentSummary);
switches!(Agents of agents: AgentId, Agent);
purges!(Agents of agents: AgentId, "Deletes a deleted agent for good.");

impl Agents {
    /// Creates an agent for its owner, or for the actor.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`], also without an owner; [`Error::NotFound`] when the owner
    /// doesn't exist or is deleted; [`Error::Conflict`] when the owner has one of this name,
    /// deleted or not.
    pub async fn create(&self, new: NewAgent) -> Result<Agent, Error> {
        let owner = check(&new.0).owner(&new.0.owner_id, self.0.actor())?;
        let row = &agents::ActiveModel {
            owner_id: Set(owner),
            ..new.0
        };
        let op = op("create", Action::Create);
        self.0
            .atomic(op, |h| async move {
                owned::insert::<agents::Entity>(&h, op, owner, row.clone()).await
            })
            .await
    }

    /// Changes an agent.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`]; [`Error::NotFound`]; [`Error::Conflict`] when its owner has
    /// another one of the new name.
    pub async fn update(&self, id: AgentId, change: AgentChange) -> Result<Agent, Error> {
        check(&change.0).done()?;
        let row = agents::ActiveModel {
            id: Unchanged(id),
            ..change.0
        };
        self.0.rows::<agents::Entity>().update(row).await
    }

    /// Deletes the agent, which can be restored.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: AgentId) -> Result<(), Error> {
        self.0
            .atomic(op("delete", Action::Delete), |h| async move {
                owned::delete::<agents::Entity>(&h, id.0).await
            })
            .await
    }

    /// Restores a deleted agent. One that isn't deleted stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::State`] when its owner is deleted.
    pub async fn restore(&self, id: AgentId) -> Result<Agent, Error> {
        self.0
            .atomic(op("restore", Action::Delete), |h| async move {
                owned::restore::<agents::Entity>(&h, id.0, "restore the user first").await
            })
            .await
    }
}
