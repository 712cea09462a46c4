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

use crate::Repository;
use crate::context::{Context, Op};
use crate::error::Error;
use crate::password::{Caller, NewPassword};
use crate::repositories::filter::{reads, setters};
use crate::unicode;
use crate::validate::{Check, MAX_EMAIL, normal_email};
use aura_orm::page::{Page, PageRequest};
use aura_orm::repository::Deleted;
use entity::{Action, Resource, Role, UserId, sessions, users};
use sea_orm::sea_query::Query;
use sea_orm::{
    ActiveValue::{NotSet, Set, Unchanged},
    ColumnTrait,
};

pub use entity::users::Model as User;
pub use filter::{UserFilter, UserSort};
pub use ownership::{NewOwner, OwnedRows, Transferred};

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
    /// [`Error::Validation`] for a password that is empty or too long; [`Error::Busy`] when
    /// too many passwords are being hashed.
    pub async fn hashed(self) -> Result<Self, Error> {
        let mut check = Check::default();
        self.password.check(&mut check);
        check.done()?;
        let password = self.password.into_hash(Caller::Outside).await?.into();
        Ok(Self { password, ..self })
    }

    /// With another role.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }
}

/// What changes about a user; what isn't set stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    name: Option<String>,
    email: Option<String>,
}

impl UserChange {
    /// Creates a change of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

setters!(UserChange {
    /// Sets the name, of at most 120 characters.
    name(name: impl Into<String>) => name = Some(name.into()),
    /// Sets the address to log in with, of at most 160 characters.
    email(email: impl Into<String>) => email = Some(email.into()),
});

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

reads!(Users of users: UserId, User);

impl Users {
    fn rows(&self, operation: &'static str) -> Repository<users::Entity> {
        self.0.rows().named(operation)
    }

    /// Creates a user. In a transaction the password is best hashed before:
    /// [`NewUser::hashed`].
    ///
    /// # Errors
    ///
    /// [`Error::Validation`]; [`Error::Conflict`] when another user, or a deleted one, has
    /// the address; [`Error::Busy`] when too many passwords are being hashed.
    pub async fn create(&self, new: NewUser) -> Result<User, Error> {
        let mut check = Check::default();
        check.name("name", &new.name, 120);
        let email = check.email("email", &new.email);
        new.password.check(&mut check);
        check.done()?;
        let row = users::ActiveModel {
            name: Set(new.name),
            email: Set(email),
            hashed_password: Set(new.password.into_hash(Caller::of(&self.0)).await?),
            role: Set(new.role),
            is_active: Set(true),
            ..Default::default()
        };
        self.rows("create").insert(row).await
    }

    /// Returns the user with this address, in whatever case, unless deleted.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn find_by_email(&self, email: &str) -> Result<Option<User>, Error> {
        for email in sought(email) {
            let rows = self.rows("find_by_email");
            let found = rows.first(users::COLUMN.email.eq(email)).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns the user with this address.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get_by_email(&self, email: &str) -> Result<User, Error> {
        let user = self.find_by_email(email).await?;
        user.ok_or_else(|| Error::not_found("user", email))
    }

    /// Returns a page of the users.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] when the page or the text can't be used.
    pub async fn list(&self, filter: UserFilter, page: PageRequest) -> Result<Page<User>, Error> {
        filter.0.page(&self.0, "list", page).await
    }

    /// Returns whether a user, deleted or not, has this address, so that no other can.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn email_exists(&self, email: &str) -> Result<bool, Error> {
        for email in sought(email) {
            let rows = self.rows("email_exists").deleted(Deleted::Included);
            if rows.exists(users::COLUMN.email.eq(email)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Changes the name or the address.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`]; [`Error::NotFound`]; [`Error::Conflict`] when another user has
    /// the address.
    pub async fn update(&self, id: UserId, change: UserChange) -> Result<User, Error> {
        let mut check = Check::default();
        if let Some(name) = &change.name {
            check.name("name", name, 120);
        }
        let email = change.email.map(|email| check.email("email", &email));
        check.done()?;
        let row = users::ActiveModel {
            name: change.name.map_or(NotSet, Set),
            email: email.map_or(NotSet, Set),
            ..changed(id)
        };
        self.0.rows::<users::Entity>().update(row).await
    }

    /// Gives the user another role, which counts from the next operation on.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn set_role(&self, id: UserId, role: Role) -> Result<User, Error> {
        let row = users::ActiveModel {
            role: Set(role),
            ..changed(id)
        };
        self.rows("set_role").update(row).await
    }

    /// Lets the user log in again.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn activate(&self, id: UserId) -> Result<User, Error> {
        let row = users::ActiveModel {
            is_active: Set(true),
            ..changed(id)
        };
        self.rows("activate").update(row).await
    }

    /// Locks the user out: no login succeeds with the account, and its sessions end
    /// now.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn deactivate(&self, id: UserId) -> Result<User, Error> {
        self.0
            .atomic(op("deactivate", Action::Update), |h| async move {
                let row = users::ActiveModel {
                    is_active: Set(false),
                    ..changed(id)
                };
                let user = h.rows::<users::Entity>().update(row).await?;
                end_sessions(&h, id).await?;
                Ok(user)
            })
            .await
    }
}

/// Returns a change of a user, of nothing yet.
fn changed(id: UserId) -> users::ActiveModel {
    users::ActiveModel {
        id: Unchanged(id),
        ..Default::default()
    }
}

/// Returns an address as it is stored, and then in the other forms that an older row may
/// have it in; none when it can't be one.
fn sought(email: &str) -> Vec<String> {
    let mut forms = vec![normal_email(email)];
    for older in unicode::forms(email.trim()) {
        let older = older.to_ascii_lowercase();
        if !forms.contains(&older) {
            forms.push(older);
        }
    }
    forms.retain(|email| email.len() <= 4 * MAX_EMAIL && !email.contains('\0'));
    forms
}

/// Ends all sessions of a user.
async fn end_sessions(h: &Context, id: UserId) -> Result<(), Error> {
    let delete = Query::delete()
        .from_table(sessions::Entity)
        .and_where(sessions::COLUMN.user_id.eq(id))
        .take();
    h.delete(&delete).await.map(|_| ())
}
