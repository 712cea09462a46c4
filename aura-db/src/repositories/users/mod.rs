//! People and their passwords.
//!
//! ```
//! # use aura_db::{NewUser, Role, testing::TestDatabase};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let db = TestDatabase::sqlite().await?;
//! let ada = db.users().create(NewUser::new("Ada", "Ada@Example.org", "a long secret")).await?;
//! assert_eq!(ada.email, "ada@example.org");
//! assert!(db.users().verify_password(ada.id, "a long secret").await?);
//!
//! db.users().set_role(ada.id, Role::Editor).await?;
//! assert!(db.users().email_exists("ADA@example.org").await?);
//! # Ok(()) }
//! ```

mod filter;
mod login;
mod ownership;
mod passwords;

use crate::context::{Context, Op};
use crate::error::Error;
use crate::password::NewPassword;
use crate::validate::{Check, MAX_EMAIL, normal_email};
use aura_orm::page::{Page, PageRequest};
use aura_orm::{CachedSql, ModelOf, TypedStatement};
use entity::{Action, Live, Resource, Role, UserId, sessions, users};
use sea_orm::sea_query::{Query, UpdateStatement};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, EntityTrait, QueryFilter,
};

pub use entity::users::Model as User;
pub use filter::{UserFilter, UserSort};
pub(crate) use ownership::hold_owner;
pub use ownership::{OwnedRows, Transferred};

/// A user to be created.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// What the user is called; at most 120 characters.
    pub name: String,
    /// The address to log in with; at most 160 characters. Stored trimmed and
    /// in lower case.
    pub email: String,
    /// At most 1,024 bytes, or its hash.
    pub password: NewPassword,
    /// What the user may do.
    pub role: Role,
}

impl NewUser {
    /// A user with the role `user`.
    pub fn new(
        name: impl Into<String>,
        email: impl Into<String>,
        password: impl Into<NewPassword>,
    ) -> Self {
        Self {
            name: name.into(),
            email: email.into(),
            password: password.into(),
            role: Role::User,
        }
    }

    /// Hashes the password now, so that [`Users::create`] in a transaction doesn't, which
    /// would keep others waiting meanwhile.
    ///
    /// ```
    /// # use aura_db::{Error, NewUser, testing::TestDatabase};
    /// # #[tokio::main] async fn main() -> Result<(), Error> {
    /// # let db = TestDatabase::sqlite().await?;
    /// let new = &NewUser::new("Ada", "ada@example.org", "a long secret").hashed().await?;
    /// let ada = db
    ///     .transaction(|tx| async move { tx.users().create(new.clone()).await })
    ///     .await?;
    /// # assert!(db.users().verify_password(ada.id, "a long secret").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for a password that is empty or too long.
    pub async fn hashed(self) -> Result<Self, Error> {
        let mut check = Check::default();
        self.password.check(&mut check);
        check.done()?;
        let password = self.password.into_hash().await?.into();
        Ok(Self { password, ..self })
    }

    /// With another role.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }
}

/// What changes about a user; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// A new name.
    pub name: Option<String>,
    /// A new address.
    pub email: Option<String>,
}

/// The users. From [`Database::users`](crate::Database::users).
#[derive(Debug, Clone)]
pub struct Users(pub(crate) Context);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "users",
        name,
        needs: (action, Resource::User),
    }
}

impl Users {
    /// Creates a user. In a transaction the password is best hashed before:
    /// [`NewUser::hashed`].
    ///
    /// Fails with [`Error::Validation`], and with [`Error::Conflict`] when
    /// another user, or a deleted one, has the address.
    pub async fn create(&self, new: NewUser) -> Result<User, Error> {
        let mut check = Check::default();
        check.name("name", &new.name, 120);
        let email = check.email("email", &new.email);
        new.password.check(&mut check);
        check.done()?;
        let hash = new.password.clone().into_hash().await?;
        let (new, email, hash) = (&new, &email, &hash);
        self.0
            .write(op("create", Action::Create), |h| async move {
                let now = h.now();
                let row = users::ActiveModel {
                    id: NotSet,
                    name: Set(new.name.clone()),
                    email: Set(email.clone()),
                    hashed_password: Set(hash.clone()),
                    role: Set(new.role),
                    is_active: Set(true),
                    created_at: Set(now),
                    updated_at: Set(now),
                    deleted_at: Set(None),
                    created_by: Set(h.actor()),
                    updated_by: Set(h.actor()),
                };
                match h.insert_unless_taken(row, &[users::Column::Email]).await? {
                    Some(user) => Ok(user),
                    None => Err(taken(&h, email, None).await?.unwrap_or(conflict(false))),
                }
            })
            .await
    }

    /// The user with this id, unless deleted.
    pub async fn find(&self, id: UserId) -> Result<Option<User>, Error> {
        self.0
            .read(op("find", Action::Read), |h| async move {
                h.fetch_optional(live_by_id(id)).await
            })
            .await
    }

    /// The user with this id.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get(&self, id: UserId) -> Result<User, Error> {
        self.find(id)
            .await?
            .ok_or_else(|| Error::not_found("user", id))
    }

    /// The user with this address, in whatever case, unless deleted.
    pub async fn find_by_email(&self, email: &str) -> Result<Option<User>, Error> {
        let Some(email) = &sought(email) else {
            return Ok(None);
        };
        self.0
            .read(op("find_by_email", Action::Read), |h| async move {
                h.fetch_optional(
                    users::Entity::live().filter(users::COLUMN.email.eq(email.clone())),
                )
                .await
            })
            .await
    }

    /// The user with this address.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get_by_email(&self, email: &str) -> Result<User, Error> {
        self.find_by_email(email)
            .await?
            .ok_or_else(|| Error::not_found("user", email))
    }

    /// A part of the users.
    ///
    /// Fails with [`Error::Validation`] when the page or the text can't be used.
    pub async fn list(&self, filter: UserFilter, page: PageRequest) -> Result<Page<User>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                h.page(filter.select()?, &filter.sorted(), page.clone())
                    .await
            })
            .await
    }

    /// Whether somebody, deleted or not, has this address, so that nobody else
    /// can.
    pub async fn email_exists(&self, email: &str) -> Result<bool, Error> {
        let Some(email) = &sought(email) else {
            return Ok(false);
        };
        self.0
            .read(op("email_exists", Action::Read), |h| async move {
                h.exists(users::Entity::find().filter(users::COLUMN.email.eq(email.clone())))
                    .await
            })
            .await
    }

    /// Changes the name or the address, or nothing when nothing is asked for.
    ///
    /// Fails with [`Error::Validation`], [`Error::NotFound`], and
    /// [`Error::Conflict`] when another user has the address.
    pub async fn update(&self, id: UserId, change: UserChange) -> Result<User, Error> {
        let mut check = Check::default();
        if let Some(name) = &change.name {
            check.name("name", name, 120);
        }
        let email = change
            .email
            .as_deref()
            .map(|email| check.email("email", email));
        check.done()?;
        let (name, email) = (&change.name, &email);
        self.0
            .atomic(op("update", Action::Update), |h| async move {
                let user = h.fetch_optional(live_by_id(id)).await?;
                let user = user.ok_or_else(|| Error::not_found("user", id))?;
                if name.is_none() && email.is_none() {
                    return Ok(user);
                }
                if let Some(email) = email
                    && let Some(error) = taken(&h, email, Some(id)).await?
                {
                    return Err(error);
                }
                let mut update = h.audited_update::<users::Entity>(h.now());
                if let Some(name) = name {
                    update.value(users::Column::Name, name.clone());
                }
                if let Some(email) = email {
                    update.value(users::Column::Email, email.clone());
                }
                one(&h, id, update).await
            })
            .await
    }

    /// Gives the user another role, which counts from the next operation on.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn set_role(&self, id: UserId, role: Role) -> Result<User, Error> {
        self.0
            .write(op("set_role", Action::Update), |h| async move {
                let mut update = h.audited_update::<users::Entity>(h.now());
                update.value(users::Column::Role, role);
                one(&h, id, update).await
            })
            .await
    }

    /// Lets the user log in again.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn activate(&self, id: UserId) -> Result<User, Error> {
        self.0
            .write(op("activate", Action::Update), |h| async move {
                let mut update = h.audited_update::<users::Entity>(h.now());
                update.value(users::Column::IsActive, true);
                one(&h, id, update).await
            })
            .await
    }

    /// Locks the user out: nobody logs in with the account, and its sessions
    /// end now.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn deactivate(&self, id: UserId) -> Result<User, Error> {
        self.0
            .atomic(op("deactivate", Action::Update), |h| async move {
                let mut update = h.audited_update::<users::Entity>(h.now());
                update.value(users::Column::IsActive, false);
                let user = one(&h, id, update).await?;
                end_sessions(&h, id).await?;
                Ok(user)
            })
            .await
    }
}

/// An address as it is stored, unless it is none that could be.
fn sought(email: &str) -> Option<String> {
    let email = normal_email(email);
    (email.len() <= 4 * MAX_EMAIL && !email.contains('\0')).then_some(email)
}

/// The error that tells whose address it is, when somebody but `except` has it.
async fn taken(h: &Context, email: &str, except: Option<UserId>) -> Result<Option<Error>, Error> {
    let holder = users::Entity::find()
        .filter(users::COLUMN.email.eq(email.to_owned()))
        .filter(Condition::all().add_option(except.map(|id| users::COLUMN.id.ne(id))));
    let holder = h.fetch_optional(holder).await?;
    Ok(holder.map(|holder| conflict(holder.deleted_at.is_some())))
}

fn conflict(deleted: bool) -> Error {
    Error::Conflict {
        table: "users".to_owned(),
        columns: vec!["email".to_owned()],
        deleted,
    }
}

async fn one(h: &Context, id: UserId, mut update: UpdateStatement) -> Result<User, Error> {
    update
        .and_where(users::COLUMN.id.eq(id))
        .and_where(users::COLUMN.deleted_at.is_null());
    h.update_returning::<users::Entity>(update)
        .await?
        .pop()
        .ok_or_else(|| Error::not_found("user", id))
}

async fn end_sessions(h: &Context, id: UserId) -> Result<(), Error> {
    let delete = Query::delete()
        .from_table(sessions::Entity)
        .and_where(sessions::COLUMN.user_id.eq(id))
        .take();
    h.delete(&delete).await.map(|_| ())
}

/// A user who is not deleted.
pub(crate) fn live_by_id(id: UserId) -> impl TypedStatement<Decoder = ModelOf<users::Entity>> {
    static LIVE: CachedSql = CachedSql::short_read();
    LIVE.with(vec![id.into()], move || {
        Ok(users::Entity::live().filter(users::COLUMN.id.eq(id)))
    })
}
