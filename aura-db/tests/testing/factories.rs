//! Rows of an application's entities.

use aura_db::sea_orm::{ColumnTrait, Set};
use aura_db::testing::{PASSWORD, TestClock, TestDatabase};
use aura_db::{Clock, Error};

use crate::notes::{self, runner};

#[aura_db::test(migrations = runner)]
async fn rows_are_numbered_and_have_their_owners(db: TestDatabase) -> Result<(), Error> {
    let clock = TestClock::default();
    let db = db.with_clock(&clock);
    let first = db.factory::<notes::Entity>().create().await?;
    let more = db.factory::<notes::Entity>().create_many(2).await?;
    let titles: Vec<&str> = more.iter().map(|note| &*note.title).collect();
    assert_eq!(
        (&*first.title, &*titles),
        ("note 1", &["note 2", "note 3"][..])
    );
    assert_eq!(first.created_at, clock.now(), "the conventions apply");
    let owners: Vec<_> = [&first]
        .into_iter()
        .chain(&more)
        .map(|note| note.owner_id)
        .collect();
    assert_eq!(owners, [1, 2, 3].map(|id| Some(id.into())));
    let owner = db.users().get(1.into()).await?;
    assert!(db.users().verify_password(owner.id, PASSWORD).await?);
    Ok(())
}

#[aura_db::test(migrations = runner)]
async fn what_a_test_sets_stays(db: TestDatabase) -> Result<(), Error> {
    let ada = db.user("ada").await?;
    let factory = db
        .factory::<notes::Entity>()
        .with(|row| row.title = Set("first".to_owned()))
        .with(|row| row.title = Set("last".to_owned()))
        .with(|row| row.owner_id = Set(Some(ada.id)));
    let unsaved = factory.build().await?;
    assert_eq!(unsaved.owner_id, Set(Some(ada.id)));
    let notes = db.repository::<notes::Entity>();
    assert_eq!(notes.count(notes::COLUMN.owner_id.is_not_null()).await?, 0);

    let note = factory.create().await?;
    assert_eq!((&*note.title, note.owner_id), ("last", Some(ada.id)));
    let another = db.users().find((ada.id.0 + 1).into()).await?;
    assert_eq!(another, None, "no other owner was created");
    let orphan = db
        .factory::<notes::Entity>()
        .with(|row| row.owner_id = Set(None));
    assert_eq!(orphan.create().await?.owner_id, None);

    // The repository refuses what it always refuses.
    let taken = factory.create().await.expect_err("taken");
    assert!(matches!(taken, Error::Conflict { .. }), "{taken}");
    let empty = db
        .factory::<notes::Entity>()
        .with(|row| row.title = Set(String::new()));
    let empty = empty.create_many(2).await.expect_err("empty");
    assert!(matches!(empty, Error::Validation(_)), "{empty}");
    Ok(())
}
