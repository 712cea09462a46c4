//! What the tables promise, on SQLite and PostgreSQL.

use aura_db::testing::{TestClock, TestDatabase};
use aura_db::{Error, NewWorkflow, Role, assert_queries};

use crate::tables::deliveries::{self, Status};
use crate::tables::{api_keys, credentials, runner};

#[aura_db::test(migrations = runner)]
async fn a_user_has_own_credentials_and_an_admin_all(db: TestDatabase) -> Result<(), Error> {
    let (ada, bob) = (db.user("ada").await?, db.user("bob").await?);
    let hers = db.restricted_to(&ada).repository::<credentials::Entity>();
    let his = db.restricted_to(&bob).repository::<credentials::Entity>();
    let own = hers.insert(credentials::new("GitHub", "hunter2")).await?;
    assert!(!format!("{own:?}").contains("hunter2"));
    assert_eq!(his.count(()).await?, 0);
    assert!(his.delete(own.id).await.is_err());
    db.users().set_role(bob.id, Role::Admin).await?;
    assert_eq!(his.find_by(()).await?, [own]);
    Ok(())
}

#[aura_db::test(migrations = runner)]
async fn an_api_key_is_found_by_its_token(db: TestDatabase) -> Result<(), Error> {
    let db = db.with_clock(&TestClock::default());
    let ada = db.user("ada").await?;
    let (token, key) = api_keys::issue(&db.acting_as(ada.id)).await?;
    assert_eq!((key.owner_id, key.last_used_at), (ada.id, None));
    let used = assert_queries!(db, 2, api_keys::authenticate(&db, &token))?;
    assert_eq!(used.and_then(|key| key.last_used_at), Some(db.now()));
    Ok(())
}

#[aura_db::test(migrations = runner)]
async fn a_delivery_is_tried_three_times(db: TestDatabase) -> Result<(), Error> {
    let flows = db.acting_as(db.new_user().await?.id).workflows();
    let flow = flows.create(NewWorkflow::new("Greet")).await?;
    let hook = deliveries::new(flow.id, "https://example.org");
    let hook = db.repository::<deliveries::Entity>().insert(hook).await?;
    for attempts in [1, 2] {
        let tried = deliveries::failed(&db, hook.id).await?;
        assert_eq!((tried.attempts, tried.status), (attempts, Status::Pending));
    }
    let last = deliveries::failed(&db, hook.id).await?;
    assert_eq!(last.status, Status::Failed);
    Ok(())
}
