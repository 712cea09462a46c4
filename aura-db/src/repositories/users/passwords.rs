//! Checking and changing passwords.

use entity::{Action, PasswordHash, RepositoryEntity, UserId, users};
use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, QueryFilter, QuerySelect};
use secrecy::SecretString;

use super::login::ATTEMPTS;
use super::{Users, end_sessions, op};
use crate::error::Error;
use crate::password::{self, Caller, NewPassword};
use crate::validate::Check;

impl Users {
    /// Whether this is the user's password. For a login use
    /// [`Users::login`], which also opens the session.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::Busy`] when too many passwords are
    /// being hashed.
    pub async fn verify_password(
        &self,
        id: UserId,
        password: impl Into<SecretString>,
    ) -> Result<bool, Error> {
        let hash = self.hash_of("verify_password", id).await?;
        let (password, caller) = (password.into(), Caller::of(&self.0));
        let verified = password::verify_for(&password, &hash, caller).await?;
        Ok(verified.matches())
    }

    /// Changes the password of somebody who knows the old one; all the user's
    /// sessions end. It computes two hashes: not for a transaction, which would
    /// keep others waiting meanwhile.
    ///
    /// Fails with [`Error::Credentials`] when the old one is wrong, or was
    /// changed in between; with [`Error::Validation`] and [`Error::NotFound`]; with
    /// [`Error::Busy`] when too many passwords are being hashed.
    pub async fn change_password(
        &self,
        id: UserId,
        old: impl Into<SecretString>,
        new: impl Into<SecretString>,
    ) -> Result<(), Error> {
        let new = new.into();
        let mut check = Check::default();
        check.password("password", &new);
        check.done()?;
        let (old, caller) = (old.into(), Caller::of(&self.0));
        for _ in 0..ATTEMPTS {
            let verified = self.hash_of("change_password", id).await?;
            let old = password::verify_for(&old, &verified, caller);
            if !old.await?.matches() {
                return Err(Error::Credentials);
            }
            let hash = password::hash_for(&new, caller).await?;
            let stored = self.store_hash("change_password", id, &hash, Some(&verified));
            if stored.await? {
                return Ok(());
            }
            // A login has renewed the hash, or the password is another.
        }
        Err(Error::Credentials)
    }

    /// Gives the user a new password, whatever the old one was; all the user's
    /// sessions end. In a transaction give it a [`password::hash`] that was made before.
    ///
    /// Fails with [`Error::Validation`] and [`Error::NotFound`]; with [`Error::Busy`] when
    /// too many passwords are being hashed.
    pub async fn reset_password(
        &self,
        id: UserId,
        new: impl Into<NewPassword>,
    ) -> Result<(), Error> {
        let new = new.into();
        let mut check = Check::default();
        new.check(&mut check);
        check.done()?;
        let hash = new.into_hash(Caller::of(&self.0)).await?;
        if self.store_hash("reset_password", id, &hash, None).await? {
            Ok(())
        } else {
            Err(Error::not_found("user", id))
        }
    }

    async fn hash_of(&self, name: &'static str, id: UserId) -> Result<PasswordHash, Error> {
        self.0
            .read(op(name, Action::Update), |h| async move {
                let hash = users::Entity::not_deleted()
                    .select_only()
                    .column(users::Column::HashedPassword)
                    .filter(users::COLUMN.id.eq(id));
                h.scalar(hash)
                    .await?
                    .ok_or_else(|| Error::not_found("user", id))
            })
            .await
    }

    /// Stores a hash, when asked only instead of the one that was verified, and
    /// ends the sessions. `false` when there is no such user.
    async fn store_hash(
        &self,
        name: &'static str,
        id: UserId,
        hash: &PasswordHash,
        verified: Option<&PasswordHash>,
    ) -> Result<bool, Error> {
        self.0
            .atomic(op(name, Action::Update), |h| async move {
                let verified = verified.map(|hash| users::COLUMN.hashed_password.eq(hash.clone()));
                let user = Condition::all()
                    .add(users::COLUMN.id.eq(id))
                    .add_option(verified);
                let change = users::ActiveModel {
                    hashed_password: Set(hash.clone()),
                    ..Default::default()
                };
                if h.rows::<users::Entity>().update_where(user, change).await? == 0 {
                    return Ok(false);
                }
                // After the update: a login that is under way holds the row.
                end_sessions(&h, id).await.map(|()| true)
            })
            .await
    }
}
