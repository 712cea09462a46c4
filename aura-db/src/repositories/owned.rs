//! Rows that belong to a user, and are deleted and restored with the user.

use aura_orm::TypedQuery;
use aura_orm::repository::RepositoryEntity;
use chrono::{DateTime, Utc};
use entity::{UserId, agents, users, workflows};
use sea_orm::sea_query::LockType;
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, QueryFilter, QuerySelect, QueryTrait};

use crate::context::{Context, Op};
use crate::error::Error;

/// A table whose rows belong to users.
pub(crate) trait Owned: RepositoryEntity {
    /// The key.
    const ID: Self::Column;
    /// The user whom a row belongs to.
    const OWNER_ID: Self::Column;
    /// When a row was deleted.
    const DELETED_AT: Self::Column;
    /// Whether it was deleted with its owner.
    const DELETED_WITH_OWNER: Self::Column;

    /// Returns a row that sets its owner only.
    fn owned_by(owner: UserId) -> Self::ActiveModel;
}

macro_rules! owned {
    ($($table:ident),+) => {
        $(impl Owned for $table::Entity {
            const ID: $table::Column = $table::Column::Id;
            const OWNER_ID: $table::Column = $table::Column::OwnerId;
            const DELETED_AT: $table::Column = $table::Column::DeletedAt;
            const DELETED_WITH_OWNER: $table::Column = $table::Column::DeletedWithOwner;

            fn owned_by(owner: UserId) -> $table::ActiveModel {
                $table::ActiveModel {
                    owner_id: Set(owner),
                    ..Default::default()
                }
            }
        })+
    };
}

owned!(agents, workflows);

/// What an operation must know of a row before it changes it. No documents: they may be
/// large, and one that can't be read is no reason not to delete it.
pub(crate) struct Held {
    pub(crate) owner: UserId,
    pub(crate) deleted: bool,
}

async fn held<E: Owned>(h: &Context, id: i64, lock: bool) -> Result<Held, Error> {
    let mut row = E::find()
        .select_only()
        .columns([E::OWNER_ID, E::DELETED_AT])
        .filter(E::ID.eq(id));
    if lock && h.backend() == DbBackend::Postgres {
        // What refers to the row may still be inserted.
        row = row.lock(LockType::NoKeyUpdate);
    }
    let row = TypedQuery::<(UserId, Option<DateTime<Utc>>)>::of(row.into_query());
    let found = h.fetch_optional(row).await?;
    match found {
        Some((owner, deleted_at)) if h.reaches(owner) => Ok(Held {
            owner,
            deleted: deleted_at.is_some(),
        }),
        _ => Err(Error::not_found(E::name(), id)),
    }
}

/// Locks a row, deleted or not, until the transaction ends.
pub(crate) async fn lock_any<E: Owned>(h: &Context, id: i64) -> Result<Held, Error> {
    held::<E>(h, id, true).await
}

/// Locks a row that is not deleted until the transaction ends.
pub(crate) async fn lock<E: Owned>(h: &Context, id: i64) -> Result<Held, Error> {
    let held = lock_any::<E>(h, id).await?;
    if held.deleted {
        return Err(Error::not_found(E::name(), id));
    }
    Ok(held)
}

/// Returns whom a row belongs to, deleted or not. The owner is locked before the row, as when
/// a user is deleted or restored with the rows.
pub(crate) async fn owner_of<E: Owned>(h: &Context, id: i64) -> Result<UserId, Error> {
    Ok(held::<E>(h, id, false).await?.owner)
}

/// Inserts a row for its owner, who stays until the transaction ends.
pub(crate) async fn insert<E: Owned>(
    h: &Context,
    op: Op,
    owner: UserId,
    row: E::ActiveModel,
) -> Result<E::Model, Error> {
    if !h.reaches(owner) {
        return Err(h.forbidden(op));
    }
    hold_owner(h, owner).await?;
    h.rows::<E>().insert(row).await
}

/// Deletes a row, not with its owner.
pub(crate) async fn delete<E: Owned>(h: &Context, id: i64) -> Result<(), Error> {
    lock::<E>(h, id).await?;
    let now = h.now();
    let mut update = h.audited_update::<E>(now);
    update
        .value(E::DELETED_AT, now)
        .value(E::DELETED_WITH_OWNER, false)
        .and_where(E::ID.eq(id));
    h.update(&update).await.map(|_| ())
}

/// Restores a row, unless its owner is deleted. One that isn't deleted stays as it is.
pub(crate) async fn restore<E: Owned>(
    h: &Context,
    id: i64,
    hint: &'static str,
) -> Result<E::Model, Error> {
    let owner = owner_of::<E>(h, id).await?;
    let mut holding = hold_owner(h, owner).await;
    let row = lock_any::<E>(h, id).await?;
    let missing = || Error::not_found(E::name(), id);
    if !row.deleted {
        let present = E::not_deleted().filter(E::ID.eq(id));
        return h.fetch_optional(present).await?.ok_or_else(missing);
    }
    if row.owner != owner {
        // It was handed over in between.
        holding = hold_owner(h, row.owner).await;
    }
    match holding {
        Err(Error::NotFound { .. }) => {
            return Err(Error::State {
                what: E::name(),
                key: id.to_string(),
                state: "belongs to a deleted user",
                hint,
            });
        }
        held => held?,
    };
    let mut update = h.audited_update::<E>(h.now());
    update
        .value(E::DELETED_AT, Option::<DateTime<Utc>>::None)
        .value(E::DELETED_WITH_OWNER, false)
        .and_where(E::ID.eq(id));
    let restored = h.update_returning::<E>(update).await?.pop();
    restored.ok_or_else(missing)
}

/// Gives all rows of a user that are not deleted to another, and returns their number.
pub(crate) async fn transfer_all<E: Owned>(
    h: &Context,
    from: UserId,
    to: UserId,
) -> Result<u64, Error> {
    let rows = h.repository::<E>();
    rows.update_where(E::OWNER_ID.eq(from), E::owned_by(to))
        .await
}

/// Deletes all rows of a user with the user.
pub(crate) async fn delete_all<E: Owned>(h: &Context, owner: UserId) -> Result<(), Error> {
    let now = h.now();
    let mut update = h.audited_update::<E>(now);
    update
        .value(E::DELETED_AT, now)
        .value(E::DELETED_WITH_OWNER, true)
        .and_where(E::OWNER_ID.eq(owner))
        .and_where(E::DELETED_AT.is_null());
    h.update_many(&update).await.map(|_| ())
}

/// Restores all rows that were deleted with their owner.
pub(crate) async fn restore_all<E: Owned>(h: &Context, owner: UserId) -> Result<(), Error> {
    let mut update = h.audited_update::<E>(h.now());
    update
        .value(E::DELETED_AT, Option::<DateTime<Utc>>::None)
        .value(E::DELETED_WITH_OWNER, false)
        .and_where(E::OWNER_ID.eq(owner))
        .and_where(E::DELETED_WITH_OWNER.eq(true));
    h.update_many(&update).await.map(|_| ())
}

/// Makes sure that a user exists, is not deleted, and stays so until the transaction ends.
pub(crate) async fn hold(h: &Context, id: UserId, how: LockType) -> Result<UserId, Error> {
    let mut user = users::Entity::not_deleted()
        .select_only()
        .column(users::Column::Id)
        .filter(users::COLUMN.id.eq(id));
    if h.backend() == DbBackend::Postgres {
        user = user.lock(how);
    }
    h.scalar(user)
        .await?
        .ok_or_else(|| Error::not_found("user", id))
}

/// Keeps a user from being deleted: for new rows that belong to the user.
pub(crate) async fn hold_owner(h: &Context, id: UserId) -> Result<UserId, Error> {
    hold(h, id, LockType::Share).await
}
