//! What the tests share.

use std::sync::Arc;

use aura_db::testing::TestClock;
use aura_db::{Database, Error, FieldError, NewUser, User};
use testdb::TestDb;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The database of a test.
pub(crate) async fn open(db: &TestDb) -> Database {
    Database::connect(db.plain_config())
        .await
        .expect("it connects")
}

/// The database of a test with a clock that stands still.
pub(crate) async fn open_at(db: &TestDb) -> (Database, TestClock) {
    let clock = TestClock::default();
    let db = open(db).await.with_clock(Arc::new(clock.clone()));
    (db, clock)
}

/// A user of this name, `name@example.org`.
pub(crate) async fn user(db: &Database, name: &str) -> User {
    db.users()
        .create(NewUser::new(name, format!("{name}@example.org"), PASSWORD))
        .await
        .expect("a new user")
}

/// The fields that an error refuses.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Vec<&'static str> {
    match result {
        Err(Error::Validation(errors)) => errors
            .iter()
            .map(|FieldError { field, .. }| *field)
            .collect(),
        other => panic!("not refused: {other:?}"),
    }
}

/// Asserts what an error is.
macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}
pub(crate) use assert_error;
