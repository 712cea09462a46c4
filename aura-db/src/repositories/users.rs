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

use chrono::{DateTime, Utc};
use entity::{
    Action, Live, PasswordHash, Resource, Role, UserId, agents, sessions, users, workflows,
};
use sea_orm::sea_query::{LockType, Query, UpdateStatement};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};
use secrecy::SecretString;

use crate::engine::{Handle, Op};
use crate::error::Error;
use crate::page::{Deleted, List, MAX_SEARCH, Page, Sorted, holds};
use crate::password;
use crate::validate::{Check, normal_email};

pub use entity::users::Model as User;

/// A user to be created.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// What the user is called; at most 120 characters.
    pub name: String,
    /// The address to log in with; at most 160 characters. Stored trimmed and
    /// in lower case.
    pub email: String,
    /// At most 1,024 bytes.
    pub password: SecretString,
    /// What the user may do.
    pub role: Role,
}

impl NewUser {
    /// A user with the role `user`.
    pub fn new(
        name: impl Into<String>,
        email: impl Into<String>,
        password: impl Into<SecretString>,
    ) -> Self {
        Self {
            name: name.into(),
            email: email.into(),
            password: password.into(),
            role: Role::User,
        }
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

/// Which users, and in which order.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    role: Option<Role>,
    active: Option<bool>,
    text: Option<String>,
    deleted: Deleted,
    sort: UserSort,
    descending: bool,
}

/// What users are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserSort {
    /// The id: the order in which they were created.
    #[default]
    Id,
    /// The name, by code point.
    Name,
    /// The address.
    Email,
    /// When they were created.
    CreatedAt,
    /// When they were last changed.
    UpdatedAt,
}

impl UserFilter {
    /// All users that are not deleted, by id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those with this role.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Those that are active, or that are not.
    #[must_use]
    pub fn active(mut self, active: bool) -> Self {
        self.active = Some(active);
        self
    }

    /// Those whose name or address holds this text, without ASCII case.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Deleted ones too, or only those.
    #[must_use]
    pub fn deleted(mut self, deleted: Deleted) -> Self {
        self.deleted = deleted;
        self
    }

    /// In this order.
    #[must_use]
    pub fn sort(mut self, sort: UserSort) -> Self {
        self.sort = sort;
        self
    }

    /// In the opposite order.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    fn select(&self) -> Result<Select<users::Entity>, Error> {
        let mut check = Check::default();
        check.optional("text", self.text.as_deref(), MAX_SEARCH);
        check.done()?;
        let select = users::Entity::find().filter(
            Condition::all()
                .add_option(self.role.map(|role| users::COLUMN.role.eq(role)))
                .add_option(self.active.map(|active| users::COLUMN.is_active.eq(active)))
                .add_option(self.text.as_deref().map(|text| {
                    Condition::any()
                        .add(holds(users::Column::Name, text))
                        .add(holds(users::Column::Email, text))
                })),
        );
        Ok(self.deleted.filter(select))
    }

    fn sorted(&self) -> Sorted<users::Column> {
        Sorted {
            by: match self.sort {
                UserSort::Id => users::Column::Id,
                UserSort::Name => users::Column::Name,
                UserSort::Email => users::Column::Email,
                UserSort::CreatedAt => users::Column::CreatedAt,
                UserSort::UpdatedAt => users::Column::UpdatedAt,
            },
            id: users::Column::Id,
            descending: self.descending,
        }
    }
}

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

/// How many rows changed their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// Workflows.
    pub workflows: u64,
    /// Agents.
    pub agents: u64,
}

/// The users. From [`Database::users`](crate::Database::users).
#[derive(Debug, Clone)]
pub struct Users(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "users",
        name,
        needs: (action, Resource::User),
    }
}

impl Users {
    /// Creates a user.
    ///
    /// Fails with [`Error::Validation`], and with [`Error::Conflict`] when
    /// another user, or a deleted one, has the address.
    pub async fn create(&self, new: NewUser) -> Result<User, Error> {
        let mut check = Check::default();
        check.name("name", &new.name, 120);
        let email = check.email("email", &new.email);
        check.password("password", &new.password);
        check.done()?;
        let hash = password::hash(&new.password).await?;
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
                    created_by: Set(h.actor),
                    updated_by: Set(h.actor),
                };
                match h.insert_unless_taken(row).await? {
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
                h.fetch_optional(users::Entity::live().filter(users::COLUMN.id.eq(id)))
                    .await
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
        let email = &normal_email(email);
        if email.contains('\0') {
            return Ok(None);
        }
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
    pub async fn list(&self, filter: UserFilter, page: Page) -> Result<List<User>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                h.page(
                    filter.select()?,
                    filter.sorted(),
                    page.clone(),
                    crate::engine::run::entity_row::<users::Entity>,
                )
                .await
            })
            .await
    }

    /// Whether somebody, deleted or not, has this address, so that nobody else
    /// can.
    pub async fn email_exists(&self, email: &str) -> Result<bool, Error> {
        let email = &normal_email(email);
        if email.contains('\0') {
            return Ok(false);
        }
        self.0
            .read(op("email_exists", Action::Read), |h| async move {
                h.exists(users::Entity::find().filter(users::COLUMN.email.eq(email.clone())))
                    .await
            })
            .await
    }

    /// Changes the name or the address.
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
                if let Some(email) = email
                    && let Some(error) = taken(&h, email, Some(id)).await?
                {
                    return Err(error);
                }
                let mut update = h.amend::<users::Entity>(h.now());
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
                let mut update = h.amend::<users::Entity>(h.now());
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
                let mut update = h.amend::<users::Entity>(h.now());
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
                let mut update = h.amend::<users::Entity>(h.now());
                update.value(users::Column::IsActive, false);
                let user = one(&h, id, update).await?;
                end_sessions(&h, id).await?;
                Ok(user)
            })
            .await
    }

    /// Whether this is the user's password. For a login use
    /// [`Users::login`], which also opens the session.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn verify_password(
        &self,
        id: UserId,
        password: impl Into<SecretString>,
    ) -> Result<bool, Error> {
        let hash = self.hash_of("verify_password", id).await?;
        Ok(password::verify(&password.into(), &hash).await?.matches())
    }

    /// Changes the password of somebody who knows the old one; all the user's
    /// sessions end.
    ///
    /// Fails with [`Error::Credentials`] when the old one is wrong, or was
    /// changed in between; with [`Error::Validation`] and [`Error::NotFound`].
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
        let verified = self.hash_of("change_password", id).await?;
        if !password::verify(&old.into(), &verified).await?.matches() {
            return Err(Error::Credentials);
        }
        let hash = password::hash(&new).await?;
        self.store_hash("change_password", id, &hash, Some(&verified))
            .await
    }

    /// Gives the user a new password, whatever the old one was; all the user's
    /// sessions end.
    ///
    /// Fails with [`Error::Validation`] and [`Error::NotFound`].
    pub async fn reset_password(
        &self,
        id: UserId,
        new: impl Into<SecretString>,
    ) -> Result<(), Error> {
        let new = new.into();
        let mut check = Check::default();
        check.password("password", &new);
        check.done()?;
        let hash = password::hash(&new).await?;
        self.store_hash("reset_password", id, &hash, None).await
    }

    async fn hash_of(&self, name: &'static str, id: UserId) -> Result<PasswordHash, Error> {
        self.0
            .read(op(name, Action::Update), |h| async move {
                let hash = users::Entity::live()
                    .select_only()
                    .column(users::Column::HashedPassword)
                    .filter(users::COLUMN.id.eq(id));
                h.scalar(hash)
                    .await?
                    .ok_or_else(|| Error::not_found("user", id))
            })
            .await
    }

    async fn store_hash(
        &self,
        name: &'static str,
        id: UserId,
        hash: &PasswordHash,
        verified: Option<&PasswordHash>,
    ) -> Result<(), Error> {
        self.0
            .atomic(op(name, Action::Update), |h| async move {
                let mut update = h.amend::<users::Entity>(h.now());
                update
                    .value(users::Column::HashedPassword, hash.clone())
                    .and_where(users::COLUMN.id.eq(id))
                    .and_where(users::COLUMN.deleted_at.is_null());
                if let Some(verified) = verified {
                    update.and_where(users::COLUMN.hashed_password.eq(verified.clone()));
                }
                if h.update(&update).await? == 0 {
                    return Err(match verified {
                        Some(_) => Error::Credentials,
                        None => Error::not_found("user", id),
                    });
                }
                // After the update: a login that is under way holds the row.
                end_sessions(&h, id).await
            })
            .await
    }

    /// Deletes the user, who can be restored; the sessions end now.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::OwnsRows`] when the
    /// user owns workflows or agents and `owned` doesn't say what becomes of
    /// them.
    pub async fn delete(&self, id: UserId, owned: OwnedRows) -> Result<(), Error> {
        self.0
            .atomic(op("delete", Action::Delete), |h| async move {
                let user = lock(&h, id).await?;
                match owned {
                    OwnedRows::Refuse => refuse_owner(&h, id).await?,
                    OwnedRows::TransferTo(heir) => {
                        transfer(&h, id, heir).await?;
                    }
                    OwnedRows::Delete => delete_owned(&h, id).await?,
                }
                let mut update = h.amend::<users::Entity>(h.now());
                update
                    .value(users::Column::DeletedAt, h.now())
                    .and_where(users::COLUMN.id.eq(user));
                h.update(&update).await?;
                end_sessions(&h, id).await
            })
            .await
    }

    /// Gives everything that one user owns and that is not deleted to another.
    ///
    /// Fails with [`Error::NotFound`] when one of them doesn't exist, and with
    /// [`Error::Conflict`] when both have an agent of the same name.
    pub async fn transfer(&self, from: UserId, to: UserId) -> Result<Transferred, Error> {
        self.0
            .atomic(op("transfer", Action::Update), |h| async move {
                lock(&h, from).await?;
                transfer(&h, from, to).await
            })
            .await
    }

    /// Brings a deleted user back, with the workflows and agents that were
    /// deleted together with the user, and without sessions.
    ///
    /// Fails with [`Error::NotFound`] when there is no such user, deleted or
    /// not. Restoring one who isn't deleted changes nothing.
    pub async fn restore(&self, id: UserId) -> Result<User, Error> {
        self.0
            .atomic(op("restore", Action::Delete), |h| async move {
                let mut update = h.amend::<users::Entity>(h.now());
                update
                    .value(users::Column::DeletedAt, Option::<DateTime<Utc>>::None)
                    .and_where(users::COLUMN.id.eq(id))
                    .and_where(users::COLUMN.deleted_at.is_not_null());
                let Some(user) = h.update_returning::<users::Entity>(update).await?.pop() else {
                    let there = users::Entity::live().filter(users::COLUMN.id.eq(id));
                    return h
                        .fetch_optional(there)
                        .await?
                        .ok_or_else(|| Error::not_found("user", id));
                };
                let mut update = h.amend::<workflows::Entity>(h.now());
                update
                    .value(workflows::Column::DeletedAt, Option::<DateTime<Utc>>::None)
                    .value(workflows::Column::DeletedWithOwner, false)
                    .and_where(workflows::COLUMN.owner_id.eq(id))
                    .and_where(workflows::COLUMN.deleted_with_owner.eq(true));
                h.update(&update).await?;
                let mut update = h.amend::<agents::Entity>(h.now());
                update
                    .value(agents::Column::DeletedAt, Option::<DateTime<Utc>>::None)
                    .value(agents::Column::DeletedWithOwner, false)
                    .and_where(agents::COLUMN.owner_id.eq(id))
                    .and_where(agents::COLUMN.deleted_with_owner.eq(true));
                h.update(&update).await?;
                Ok(user)
            })
            .await
    }

    /// Removes a deleted user for good, with everything that the user owned:
    /// workflows with their history, executions and logs, and agents.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::State`] when the user
    /// isn't deleted.
    pub async fn purge(&self, id: UserId) -> Result<(), Error> {
        self.0
            .atomic(op("purge", Action::Delete), |h| async move {
                crate::repositories::purge::<users::Entity>(&h, "user", id.0).await
            })
            .await
    }
}

/// The error that tells whose address it is, when somebody but `except` has it.
async fn taken(h: &Handle, email: &str, except: Option<UserId>) -> Result<Option<Error>, Error> {
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

async fn one(h: &Handle, id: UserId, mut update: UpdateStatement) -> Result<User, Error> {
    update
        .and_where(users::COLUMN.id.eq(id))
        .and_where(users::COLUMN.deleted_at.is_null());
    h.update_returning::<users::Entity>(update)
        .await?
        .pop()
        .ok_or_else(|| Error::not_found("user", id))
}

async fn end_sessions(h: &Handle, id: UserId) -> Result<(), Error> {
    let delete = Query::delete()
        .from_table(sessions::Entity)
        .and_where(sessions::COLUMN.user_id.eq(id))
        .take();
    h.delete(&delete).await.map(|_| ())
}

/// Makes sure that a user exists, is not deleted, and stays so until the
/// transaction ends.
async fn hold(h: &Handle, id: UserId, how: LockType) -> Result<UserId, Error> {
    let mut user = users::Entity::live()
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

/// Keeps everybody else from changing the user, or giving the user anything.
async fn lock(h: &Handle, id: UserId) -> Result<UserId, Error> {
    hold(h, id, LockType::Update).await
}

/// Keeps the user from being deleted: for new workflows and agents.
pub(crate) async fn hold_owner(h: &Handle, id: UserId) -> Result<UserId, Error> {
    hold(h, id, LockType::Share).await
}

async fn refuse_owner(h: &Handle, id: UserId) -> Result<(), Error> {
    let workflows = h
        .count(workflows::Entity::live().filter(workflows::COLUMN.owner_id.eq(id)))
        .await?;
    let agents = h
        .count(agents::Entity::live().filter(agents::COLUMN.owner_id.eq(id)))
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

async fn transfer(h: &Handle, from: UserId, to: UserId) -> Result<Transferred, Error> {
    hold_owner(h, to).await?;
    let mine = agents::Entity::live().filter(agents::COLUMN.owner_id.eq(from));
    let names = mine
        .select_only()
        .column(agents::Column::Name)
        .order_by_asc(agents::Column::Id);
    let same = agents::Entity::find()
        .filter(agents::COLUMN.owner_id.eq(to))
        .filter(
            agents::COLUMN
                .name
                .in_subquery(sea_orm::QueryTrait::into_query(names)),
        );
    if from != to
        && let Some(same) = h.fetch_optional(same).await?
    {
        return Err(Error::Conflict {
            table: "agents".to_owned(),
            columns: vec!["owner_id".to_owned(), "name".to_owned()],
            deleted: same.deleted_at.is_some(),
        });
    }
    let mut update = h.amend::<workflows::Entity>(h.now());
    update
        .value(workflows::Column::OwnerId, to)
        .and_where(workflows::COLUMN.owner_id.eq(from))
        .and_where(workflows::COLUMN.deleted_at.is_null());
    let workflows = h.update(&update).await?;
    let mut update = h.amend::<agents::Entity>(h.now());
    update
        .value(agents::Column::OwnerId, to)
        .and_where(agents::COLUMN.owner_id.eq(from))
        .and_where(agents::COLUMN.deleted_at.is_null());
    let agents = h.update(&update).await?;
    Ok(Transferred { workflows, agents })
}

async fn delete_owned(h: &Handle, id: UserId) -> Result<(), Error> {
    let now = h.now();
    let mut update = h.amend::<workflows::Entity>(now);
    update
        .value(workflows::Column::DeletedAt, now)
        .value(workflows::Column::DeletedWithOwner, true)
        .and_where(workflows::COLUMN.owner_id.eq(id))
        .and_where(workflows::COLUMN.deleted_at.is_null());
    h.update(&update).await?;
    let mut update = h.amend::<agents::Entity>(now);
    update
        .value(agents::Column::DeletedAt, now)
        .value(agents::Column::DeletedWithOwner, true)
        .and_where(agents::COLUMN.owner_id.eq(id))
        .and_where(agents::COLUMN.deleted_at.is_null());
    h.update(&update).await.map(|_| ())
}
