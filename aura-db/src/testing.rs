//! For the tests of applications (feature `testing`): a migrated throw-away
//! database in one line, a clock to set, and rows to begin with.
//!
//! ```
//! use std::time::Duration;
//! use aura_db::testing::{TestClock, TestDatabase};
//! use aura_db::SessionRequest;
//!
//! # #[tokio::main] async fn main() -> Result<(), aura_db::Error> {
//! let clock = TestClock::default();
//! let db = TestDatabase::sqlite().await?.with_clock(&clock);
//! let ada = db.user("ada").await?;
//! let issued = db.sessions().issue(ada.id, SessionRequest::default()).await?;
//!
//! clock.advance(Duration::from_secs(8 * 24 * 60 * 60));
//! assert!(db.sessions().authenticate(&issued.token).await?.is_none());
//! # Ok(()) }
//! ```

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use connection::Config;

use crate::repositories::users::{NewUser, User};
use crate::{Clock, Database, Error};

/// The password of every user that [`TestDatabase::user`] makes.
pub const PASSWORD: &str = "correct horse battery staple";

/// A clock that stands still until it is moved. Its clones show the same time.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<Mutex<DateTime<Utc>>>);

impl Default for TestClock {
    /// A clock that shows the first moment of 2026.
    fn default() -> Self {
        Self::at(DateTime::UNIX_EPOCH + TimeDelta::days(20_454))
    }
}

impl TestClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add_signed(by).unwrap_or(*now);
    }

    /// Sets it, also back.
    pub fn set(&self, to: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        use chrono::SubsecRound;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trunc_subsecs(6)
    }
}

/// A migrated database that is gone when this is dropped.
#[derive(Debug)]
pub struct TestDatabase {
    db: Database,
    _folder: Option<tempfile::TempDir>,
}

impl Deref for TestDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.db
    }
}

impl TestDatabase {
    /// A SQLite file in a temporary folder.
    ///
    /// Fails when there is no room for it.
    pub async fn sqlite() -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("aura-db-")
            .tempdir()
            .map_err(|source| Error::Unavailable {
                context: "making a temporary folder",
                reason: "the system's folder for temporary files can't be used",
                source: Box::new(source),
            })?;
        let config = Config::sqlite(folder.path().join("aura.db"));
        Ok(Self {
            _folder: Some(folder),
            ..Self::with(config).await?
        })
    }

    /// The database that the settings lead to, migrated, for instance an empty
    /// one on a PostgreSQL server. Its rows stay.
    ///
    /// Fails like [`Database::connect`].
    pub async fn with(mut config: Config) -> Result<Self, Error> {
        config.synchronize = true;
        Ok(Self {
            db: Database::connect(config).await?,
            _folder: None,
        })
    }

    /// With this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: &TestClock) -> Self {
        self.db = self.db.with_clock(Arc::new(clock.clone()));
        self
    }

    /// An active user of this name, whose address is `name@example.org` and
    /// whose password is [`PASSWORD`].
    ///
    /// Fails when there is one already.
    pub async fn user(&self, name: &str) -> Result<User, Error> {
        let email = format!("{name}@example.org");
        self.db
            .users()
            .create(NewUser::new(name, email, PASSWORD))
            .await
    }
}
