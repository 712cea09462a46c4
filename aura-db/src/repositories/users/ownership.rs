//! Deleting users, and what becomes of what they own.

use aura_orm::TypedQuery;
use chrono::{DateTime, Utc};
use entity::{Action, UserId, WorkflowId, agents, users, workflows};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
};

use super::{User, Users, end_sessions, op};
use crate::RepositoryEntity;
use crate::context::Context;
use crate::error::Error;
use crate::repositories::executions::suspend::{self, Of};
use crate::repositories::owned::{self, hold, hold_owner};
use crate::repositories::workflows::{Doomed, delete_children};

/// What becomes of the workflows and agents of a user who is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnedRows {
    /// The user isn't deleted while owning any: [`Error::OwnsRows`].
    #[default]
    Refuse,
    /// They go to another user.
    TransferTo(UserId),
    /// They are deleted too, and come back when the user is restored.
    Delete,
}

/// Who gets the rows of another user in [`Users::transfer`]: a type of its own, because two
/// ids next to each other are easily swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewOwner(pub UserId);

/// How many rows changed their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// Workflows.
    pub workflows: u64,
    /// Agents.
    pub agents: u64,
}

impl Users {
    /// Deletes the user, who can be restored; the sessions end now.
    ///
    /// Fails with [`Error::NotFound`] when the user or the heir doesn't exist,
    /// with [`Error::OwnsRows`] when the user owns workflows or agents and
    /// `owned` doesn't say what becomes of them, with [`Error::Conflict`] when
    /// the heir has an agent of the same name, and with [`Error::Validation`]
    /// when the heir is the user.
    pub async fn delete(&self, id: UserId, owned: OwnedRows) -> Result<(), Error> {
        if let OwnedRows::TransferTo(new_owner) = owned {
            another(id, new_owner)?;
        }
        let op = op("delete", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                match owned {
                    OwnedRows::Refuse => {
                        lock(&h, id).await?;
                        refuse_owner(&h, id).await?;
                    }
                    OwnedRows::TransferTo(new_owner) => {
                        transfer(&h, id, new_owner).await?;
                    }
                    OwnedRows::Delete => {
                        lock(&h, id).await?;
                        owned::delete_all::<workflows::Entity>(&h, id).await?;
                        owned::delete_all::<agents::Entity>(&h, id).await?;
                    }
                }
                h.rows::<users::Entity>().delete(id).await?;
                end_sessions(&h, id).await
            })
            .await?;
        if owned == OwnedRows::Delete {
            suspend::suspend(&self.0, op, Of::Owner(id)).await?;
        }
        Ok(())
    }

    /// Gives everything that one user owns and that is not deleted to another.
    ///
    /// Fails with [`Error::NotFound`] when one of them doesn't exist, with
    /// [`Error::Conflict`] when both have an agent of the same name, and with
    /// [`Error::Validation`] when they are the same.
    pub async fn transfer(&self, from: UserId, to: NewOwner) -> Result<Transferred, Error> {
        let NewOwner(to) = to;
        another(from, to)?;
        self.0
            .atomic(op("transfer", Action::Update), |h| async move {
                transfer(&h, from, to).await
            })
            .await
    }

    /// Brings a deleted user back, with the workflows and agents that were
    /// deleted together with the user, and without sessions.
    ///
    /// Restoring a user who isn't deleted changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such user, deleted or not.
    pub async fn restore(&self, id: UserId) -> Result<User, Error> {
        let op = op("restore", Action::Delete);
        let restored = self
            .0
            .atomic(op, |h| async move {
                // Locked, so that the user isn't deleted between the question and the answer.
                let mut user = users::Entity::find()
                    .select_only()
                    .column(users::Column::DeletedAt)
                    .filter(users::COLUMN.id.eq(id));
                if h.backend() == DbBackend::Postgres {
                    user = user.lock(LockType::Update);
                }
                let user = TypedQuery::<(Option<DateTime<Utc>>,)>::of(user.into_query());
                let user = h.fetch_optional(user).await?;
                let was_deleted = user.is_some_and(|(deleted_at,)| deleted_at.is_some());
                let user = h.rows::<users::Entity>().restore(id).await?;
                if was_deleted {
                    owned::restore_all::<workflows::Entity>(&h, id).await?;
                    owned::restore_all::<agents::Entity>(&h, id).await?;
                }
                Ok(user)
            })
            .await?;
        suspend::resume(&self.0, op, Of::Owner(id)).await?;
        Ok(restored)
    }

    /// Removes a deleted user for good, with everything that the user owned:
    /// workflows with their history, executions and logs, and agents. Outside of a
    /// transaction what belongs to the workflows is deleted first, as by
    /// [`Workflows::purge`](crate::workflows::Workflows::purge).
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::State`] when the user
    /// isn't deleted.
    pub async fn purge(&self, id: UserId) -> Result<(), Error> {
        if !self.0.in_transaction() {
            let op = op("purge", Action::Delete);
            let owned = |h: Context| async move {
                let deleted = users::Entity::find()
                    .select_only()
                    .column(users::Column::Id)
                    .filter(users::COLUMN.id.eq(id))
                    .filter(users::COLUMN.deleted_at.is_not_null());
                let owned = workflows::Entity::find()
                    .select_only()
                    .column(workflows::Column::Id)
                    .filter(workflows::COLUMN.owner_id.in_subquery(deleted.into_query()))
                    .order_by_asc(workflows::Column::Id);
                h.fetch_all(TypedQuery::<i64>::of(owned.into_query())).await
            };
            for workflow in self.0.read(op, owned).await? {
                delete_children(&self.0, op, WorkflowId(workflow), Doomed::WithOwner).await?;
            }
        }
        self.0.rows::<users::Entity>().purge(id).await
    }
}

/// Keeps everybody else from changing the user, or giving the user anything.
async fn lock(h: &Context, id: UserId) -> Result<UserId, Error> {
    hold(h, id, LockType::Update).await
}

async fn refuse_owner(h: &Context, id: UserId) -> Result<(), Error> {
    let workflows = h
        .count(workflows::Entity::not_deleted().filter(workflows::COLUMN.owner_id.eq(id)))
        .await?;
    let agents = h
        .count(agents::Entity::not_deleted().filter(agents::COLUMN.owner_id.eq(id)))
        .await?;
    if workflows + agents == 0 {
        return Ok(());
    }
    Err(Error::OwnsRows {
        user: id,
        workflows,
        agents,
    })
}

/// A deleted user keeps nothing that isn't deleted, so the heir is another.
fn another(from: UserId, to: UserId) -> Result<(), Error> {
    if from == to {
        return Err(Error::field("heir", "must be another user"));
    }
    Ok(())
}

/// Locks who gives and who gets, the lower id first: two that give to each other at the same
/// moment would otherwise wait for each other, until the server finds the deadlock.
async fn lock_both(h: &Context, from: UserId, to: UserId) -> Result<(), Error> {
    if from.0 < to.0 {
        lock(h, from).await?;
        hold_owner(h, to).await?;
        return Ok(());
    }
    let held = hold_owner(h, to).await;
    if matches!(held, Ok(_) | Err(Error::NotFound { .. })) {
        lock(h, from).await?;
    }
    held.map(|_| ())
}

async fn transfer(h: &Context, from: UserId, to: UserId) -> Result<Transferred, Error> {
    lock_both(h, from, to).await?;
    let mine = agents::Entity::not_deleted()
        .filter(agents::COLUMN.owner_id.eq(from))
        .select_only()
        .column(agents::Column::Name);
    let same = agents::Entity::find()
        .filter(agents::COLUMN.owner_id.eq(to))
        .filter(agents::COLUMN.name.in_subquery(mine.into_query()))
        // One that is not deleted says more.
        .order_by_desc(agents::COLUMN.deleted_at.is_null());
    if let Some(same) = h.fetch_optional(same).await? {
        return Err(Error::Conflict {
            table: "agents".to_owned(),
            columns: vec!["name".to_owned(), "owner_id".to_owned()],
            deleted: same.deleted_at.is_some(),
        });
    }
    Ok(Transferred {
        workflows: owned::transfer_all::<workflows::Entity>(h, from, to).await?,
        agents: owned::transfer_all::<agents::Entity>(h, from, to).await?,
    })
}
