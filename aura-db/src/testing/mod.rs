//! Tests of applications (feature `testing`): a migrated throw-away database for each test,
//! on SQLite and on PostgreSQL from one body, rows to begin with, a clock to set, and the
//! count of statements.
//!
//! ```test_harness
//! use aura_db::testing::TestDatabase;
//! use aura_db::{Error, NewWorkflow, assert_queries};
//!
//! #[aura_db::test] // with tables of your own: #[aura_db::test(migrations = crate::runner)]
//! async fn a_workflow_is_found(db: TestDatabase) -> Result<(), Error> {
//!     let ada = db.user("ada").await?;
//!     let flow = db.acting_as(ada.id).workflows().create(NewWorkflow::new("Greet")).await?;
//!     let found = assert_queries!(db, 1, async { db.workflows().get(flow.id).await })?;
//!     assert_eq!(found.name, "Greet");
//!     Ok(())
//! }
//! ```
//!
//! [`#[aura_db::test]`](crate::test) makes the tests `a_workflow_is_found::sqlite` and
//! `a_workflow_is_found::postgres` of it. Other runners of tests call [`run()`], or create a
//! [`TestDatabase`] themselves.
//!
//! # The server
//!
//! The tests on PostgreSQL run on the server that `TEST_DATABASE_URL` names in the
//! environment or in `.env`:
//! `postgres://user:password@localhost:5432/postgres`, of a user who may create databases.
//! Without it they fail. Each test has a database of its own there, named `aura_test_…`,
//! which is dropped at the end of the test, also of one that panics; those of a process that
//! was killed are dropped by the next test. No other database is touched.
//!
//! A database is a copy of a template (`aura_template_…`) that is migrated once for each set
//! of steps, and dropped a week later. So it is as fast to have as a transaction that is
//! rolled back, and the code under test may commit; there is no variant of the harness that
//! rolls back.
//!
//! # Rows
//!
//! [`Factory`] says what a row of an entity looks like, and [`TestDatabase::factory`] creates
//! some, with the columns set that the test is about. [`TestDatabase::user`] and
//! [`TestDatabase::new_user`] create users.
//!
//! # N+1
//!
//! [`assert_queries!`](crate::assert_queries) panics when a piece of code runs more statements
//! than expected, or fewer, and lists them. It catches a query for each row of a list.
//!
//! # Time
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

mod clock;
mod database;
mod factory;
mod queries;
mod run;

pub use aura_orm::testing::{Backend, SERVER_VARIABLE};
pub use clock::TestClock;
pub use database::{PASSWORD, TestDatabase};
pub use factory::{Factory, RowFactory};
pub use queries::QueryCount;
pub use run::run;
