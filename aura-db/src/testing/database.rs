//! A database for each test.

use std::any::TypeId;
use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aura_orm::testing::{Backend, TemporaryDatabase};
use connection::{Config, Durability};
use migration::Runner;
use tokio::sync::OnceCell;

use super::TestClock;
use crate::repositories::users::{NewUser, User};
use crate::{Database, Error, NewPassword};

/// The password of every user that [`TestDatabase::user`] makes.
pub const PASSWORD: &str = "correct horse battery staple";

/// A migrated database that is gone when this is dropped.
///
/// It is a [`Database`], with what tests need besides.
#[derive(Debug)]
pub struct TestDatabase {
    db: Database,
    /// The last number of each factory's rows.
    numbers: Mutex<HashMap<TypeId, u64>>,
    temporary: Option<TemporaryDatabase>,
}

impl Deref for TestDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.db
    }
}

impl TestDatabase {
    /// Creates a SQLite file in a temporary folder, with AURA's tables.
    ///
    /// # Errors
    ///
    /// As [`TestDatabase::create`].
    pub async fn sqlite() -> Result<Self, Error> {
        Self::migrated(Backend::Sqlite, &[migration::runner()]).await
    }

    /// Creates a database on the server of the tests, with AURA's tables: see
    /// [the module](super#the-server).
    ///
    /// # Errors
    ///
    /// As [`TestDatabase::create`].
    pub async fn postgres() -> Result<Self, Error> {
        Self::migrated(Backend::Postgres, &[migration::runner()]).await
    }

    /// Creates a database with AURA's tables and those of an application.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] when `TEST_DATABASE_URL` isn't set or can't be used, when its
    /// user may not create databases, and when there is no temporary folder;
    /// [`Error::Unavailable`] when the server doesn't answer; [`Error::Schema`] when a
    /// migration fails.
    pub async fn create(backend: Backend, own: Runner) -> Result<Self, Error> {
        Self::migrated(backend, &[migration::runner(), own]).await
    }

    async fn migrated(backend: Backend, schema: &[Runner]) -> Result<Self, Error> {
        let temporary = TemporaryDatabase::create(backend, schema).await?;
        let mut config = temporary.config().clone();
        config.durability = Durability::Normal;
        Ok(Self {
            db: Database::connect(config).await?,
            numbers: Mutex::default(),
            temporary: Some(temporary),
        })
    }

    /// Opens the database that the settings lead to and migrates it. Its rows stay, also at
    /// the end.
    ///
    /// # Errors
    ///
    /// As [`Database::connect`].
    pub async fn with(mut config: Config) -> Result<Self, Error> {
        config.synchronize = true;
        Ok(Self {
            db: Database::connect(config).await?,
            numbers: Mutex::default(),
            temporary: None,
        })
    }

    /// Returns the same database with this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: &TestClock) -> Self {
        self.db = self.db.with_clock(Arc::new(clock.clone()));
        self
    }

    /// Returns a folder for the files of the test, which is deleted with the database; `None`
    /// of [`TestDatabase::with`].
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.temporary.as_ref().map(TemporaryDatabase::folder)
    }

    /// Creates an active user of this name, whose address is `name@example.org` and whose
    /// password is [`PASSWORD`]. It is hashed once for a process.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when there is one already.
    pub async fn user(&self, name: &str) -> Result<User, Error> {
        static HASH: OnceCell<NewPassword> = OnceCell::const_new();
        let hash = async || {
            let new = NewUser::new("", "", PASSWORD).hashed().await?;
            Ok::<_, Error>(new.password)
        };
        let password = HASH.get_or_try_init(hash).await?.clone();
        let email = format!("{name}@example.org");
        self.db
            .users()
            .create(NewUser::new(name, email, password))
            .await
    }

    /// Creates another user, named `user1`, `user2` and so on, for rows that need some
    /// owner.
    ///
    /// # Errors
    ///
    /// As [`TestDatabase::user`].
    pub async fn new_user(&self) -> Result<User, Error> {
        let number = self.next_number::<entity::users::Entity>();
        self.user(&format!("user{number}")).await
    }

    /// Returns the next number of a factory's rows, from 1.
    pub(super) fn next_number<E: 'static>(&self) -> u64 {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = numbers.entry(TypeId::of::<E>()).or_default();
        *number += 1;
        *number
    }
}
