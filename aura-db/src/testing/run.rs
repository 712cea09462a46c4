//! What `#[aura_db::test]` expands to.

use aura_orm::testing::Backend;
use migration::Runner;

use super::TestDatabase;

/// Runs the body of a test on a new database, with the tables of this runner beside AURA's,
/// and returns what it returns. The runtime is tokio's, with two threads, as a service has.
///
/// [`#[aura_db::test]`](crate::test) calls it.
///
/// # Panics
///
/// When the database can't be created: see [`TestDatabase::create`]. Must not be called
/// within a runtime.
pub fn run<F, R>(backend: Backend, migrations: Option<fn() -> Runner>, body: F) -> R::Output
where
    F: FnOnce(TestDatabase) -> R,
    R: Future,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for the test: {error}"));
    runtime.block_on(async {
        let db = match migrations {
            Some(own) => TestDatabase::create(backend, own()).await,
            None => match backend {
                Backend::Sqlite => TestDatabase::sqlite().await,
                Backend::Postgres => TestDatabase::postgres().await,
            },
        };
        let db = db.unwrap_or_else(|error| panic!("no database for the test: {error:?}"));
        body(db).await
    })
}
