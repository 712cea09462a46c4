//! A password becomes a session.

use entity::{Action, PasswordHash, UserId, users};
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use secrecy::SecretString;

use super::{Users, op, sought};
use crate::context::Context;
use crate::error::Error;
use crate::password::{self, Caller};
use crate::repositories::sessions::{Issued, Ready, SessionRequest, is_active};

/// An older hash that another login replaces at the same moment is looked up
/// again.
pub(super) const ATTEMPTS: u32 = 3;

impl Users {
    /// Checks a password and opens a session, in one step: a password that is
    /// changed in between wins, and there is no session. An unknown address
    /// takes as long as a wrong password.
    ///
    /// A hash of an older kind (bcrypt, other parameters) is replaced.
    ///
    /// Fails with [`Error::Credentials`] when the address or the password is
    /// wrong, or the user is deleted or not active, with
    /// [`Error::Validation`], and with [`Error::Busy`] when too many passwords are being
    /// hashed, whatever the account.
    pub async fn login(
        &self,
        email: &str,
        password: impl Into<SecretString>,
        request: SessionRequest,
    ) -> Result<Issued, Error> {
        let password = password.into();
        let (ready, caller) = (Ready::new(request)?, Caller::of(&self.0));
        for _ in 0..ATTEMPTS {
            let known = self.known(email).await?;
            let hash = known
                .as_ref()
                .map_or_else(password::unusable, |(_, hash)| hash.clone());
            let verified = password::verify_for(&password, &hash, caller).await?;
            let (Some((id, _)), true) = (known, verified.matches()) else {
                return Err(Error::Credentials);
            };
            if !verified.outdated() {
                let issued = self.open(id, &hash, &ready).await?;
                return issued.ok_or(Error::Credentials);
            }
            let fresh = password::hash_for(&password, caller).await?;
            if let Some(issued) = self.renew(id, &hash, &fresh, &ready).await? {
                return Ok(issued);
            }
            // Another login has renewed the hash, or the password is another:
            // who is right is seen by asking again.
        }
        Err(Error::Credentials)
    }

    async fn open(
        &self,
        id: UserId,
        hash: &PasswordHash,
        ready: &Ready,
    ) -> Result<Option<Issued>, Error> {
        self.0
            .write(op("login", Action::Update), |h| async move {
                ready.insert(&h, id, Some(hash)).await
            })
            .await
    }

    /// Replaces the hash that was verified and opens the session.
    async fn renew(
        &self,
        id: UserId,
        hash: &PasswordHash,
        fresh: &PasswordHash,
        ready: &Ready,
    ) -> Result<Option<Issued>, Error> {
        self.0
            .atomic(op("login", Action::Update), |h| async move {
                if rehash(&h, id, hash, fresh).await? {
                    ready.insert(&h, id, Some(fresh)).await
                } else {
                    Ok(None)
                }
            })
            .await
    }

    /// The id and hash of somebody who may log in.
    async fn known(&self, email: &str) -> Result<Option<(UserId, PasswordHash)>, Error> {
        for email in &sought(email) {
            let user = self
                .0
                .read(op("login_lookup", Action::Update), |h| async move {
                    let user = users::Entity::find()
                        .filter(users::COLUMN.email.eq(email.clone()))
                        .filter(is_active());
                    h.fetch_optional(user).await
                })
                .await?;
            if let Some(user) = user {
                return Ok(Some((user.id, user.hashed_password)));
            }
        }
        Ok(None)
    }
}

/// Replaces a hash, unless it was changed since.
async fn rehash(
    h: &Context,
    id: UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> Result<bool, Error> {
    let update = Query::update()
        .table(users::Entity)
        .value(users::Column::HashedPassword, new.clone())
        .and_where(users::COLUMN.id.eq(id))
        .and_where(users::COLUMN.hashed_password.eq(old.clone()))
        .take();
    Ok(h.update(&update).await? > 0)
}
