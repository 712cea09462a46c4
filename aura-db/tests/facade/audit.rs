//! Who is noted for what: `acting_as` and `restricted_to`.

use std::sync::Arc;
use std::time::Duration;

use aura_db::testing::TestClock;
use aura_db::users::{NewOwner, OwnedRows};
use aura_db::{Database, Error, NewUser, Role, User, UserChange, UserId};
use testdb::TestDb;

use crate::people::{agent, agent_row, session, user_row, workflow, workflow_row};
use crate::support::{PASSWORD, open, open_at, user};

testdb::both!(migrated:
    nobody, every_path, what_is_owned, the_last_counts, another_clock_keeps_the_actor,
    the_trail_outlives_the_user,
);

fn trail(user: &User) -> (Option<UserId>, Option<UserId>) {
    (user.created_by, user.updated_by)
}

async fn nobody(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let admin = user(&db, "admin").await.id;
    let new = NewUser::new("Ada", "ada@example.org", PASSWORD);
    let ada = db.acting_as(admin).users().create(new).await;
    let ada = ada.expect("created");
    assert_eq!(trail(&ada), (Some(admin), Some(admin)));
    clock.advance(Duration::from_secs(1));
    let ada = db.users().set_role(ada.id, Role::Editor).await;
    assert_eq!(
        trail(&ada.expect("changed")),
        (Some(admin), None),
        "the last change was nobody's"
    );
    assert_eq!(trail(&user(&db, "bob").await), (None, None));
}

async fn every_path(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let admin = user(&db, "admin").await;
    let ada = user(&db, "ada").await.id;
    let acting = db.acting_as(admin.id);
    let users = acting.users();
    let clean = async || {
        // Nobody's, so that the next one is seen.
        let change = UserChange::new().name("Ada");
        let cleaned = db.users().update(ada, change).await.expect("cleaned");
        assert_eq!(cleaned.updated_by, None);
        clock.advance(Duration::from_secs(1));
    };
    let noted = async |what: &str| {
        let row = user_row(&db, ada).await;
        assert_eq!(trail(&row), (None, Some(admin.id)), "{what}");
        assert_eq!(row.updated_at, db.now(), "{what}");
    };
    let change = UserChange::new().email("lovelace@example.org");
    users.update(ada, change).await.expect("updated");
    noted("update").await;
    clean().await;
    users.set_role(ada, Role::Editor).await.expect("a role");
    noted("set_role").await;
    clean().await;
    users.deactivate(ada).await.expect("deactivated");
    noted("deactivate").await;
    clean().await;
    users.activate(ada).await.expect("activated");
    noted("activate").await;
    clean().await;
    let changed = users.change_password(ada, PASSWORD, "new").await;
    changed.expect("changed");
    noted("change_password").await;
    clean().await;
    users.reset_password(ada, PASSWORD).await.expect("reset");
    noted("reset_password").await;
    clean().await;
    let deleted = users.delete(ada, OwnedRows::Refuse).await;
    deleted.expect("deleted");
    noted("delete").await;
    db.users().restore(ada).await.expect("restored");
    assert_eq!(user_row(&db, ada).await.updated_by, None);
    let deleted = db.users().delete(ada, OwnedRows::Refuse).await;
    deleted.expect("deleted");
    clock.advance(Duration::from_secs(1));
    users.restore(ada).await.expect("restored");
    noted("restore").await;

    // The same through a restricted handle.
    clean().await;
    let admin = db.users().set_role(admin.id, Role::Admin).await;
    let admin = admin.expect("an admin");
    let restricted = db.restricted_to(&admin);
    restricted.users().deactivate(ada).await.expect("allowed");
    noted("restricted").await;
}

async fn what_is_owned(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let admin = user(&db, "admin").await.id;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let flow = workflow(&db, ada, "flow").await;
    let helper = agent(&db, ada, "helper").await;
    let noted = async |by: Option<UserId>, what: &str| {
        let (flow, helper) = (workflow_row(&db, flow).await, agent_row(&db, helper).await);
        assert_eq!((flow.updated_by, helper.updated_by), (by, by), "{what}");
        let now = (db.now(), db.now());
        assert_eq!((flow.updated_at, helper.updated_at), now, "{what}");
        assert_eq!((flow.created_by, helper.created_by), (None, None));
        clock.advance(Duration::from_secs(1));
    };
    let (acting, alone) = (db.acting_as(admin), db.users());
    let acting = acting.users();
    acting
        .transfer(ada, NewOwner(bob))
        .await
        .expect("transferred");
    noted(Some(admin), "transfer").await;
    alone
        .transfer(bob, NewOwner(ada))
        .await
        .expect("transferred");
    noted(None, "transfer by nobody").await;
    let deleted = acting.delete(ada, OwnedRows::Delete).await;
    deleted.expect("deleted");
    noted(Some(admin), "delete").await;
    alone.restore(ada).await.expect("restored");
    noted(None, "restore by nobody").await;
    let deleted = alone.delete(ada, OwnedRows::Delete).await;
    deleted.expect("deleted");
    noted(None, "delete by nobody").await;
    acting.restore(ada).await.expect("restored");
    noted(Some(admin), "restore").await;
    let deleted = alone.delete(ada, OwnedRows::TransferTo(bob)).await;
    deleted.expect("deleted");
    noted(None, "handed over").await;
}

async fn the_last_counts(db: TestDb) {
    let db = open(&db).await;
    let (one, two) = (user(&db, "one").await.id, user(&db, "two").await.id);
    let new = || NewUser::new("n", "n@example.org", "x");
    let created = db
        .acting_as(one)
        .transaction(|tx| async move {
            let created = tx.users().create(new()).await?;
            assert_eq!(created.created_by, Some(one), "the transaction's");
            tx.transaction(|inner| async move {
                let inner = inner.acting_as(two);
                inner.users().set_role(created.id, Role::Viewer).await
            })
            .await
        })
        .await;
    let created: Result<User, Error> = created;
    assert_eq!(trail(&created.expect("committed")), (Some(one), Some(two)));
}

async fn another_clock_keeps_the_actor(db: TestDb) {
    let db: Database = open(&db).await;
    let admin = user(&db, "admin").await.id;
    let clock = TestClock::default();
    let db = db.acting_as(admin).with_clock(Arc::new(clock));
    let ada = user(&db, "ada").await;
    assert_eq!(trail(&ada), (Some(admin), Some(admin)));
    assert_eq!(ada.created_at, db.now());
}

async fn the_trail_outlives_the_user(db: TestDb) {
    let db = open(&db).await;
    let admin = user(&db, "admin").await.id;
    let ada = user(&db.acting_as(admin), "ada").await.id;
    let deleted = db.users().delete(admin, OwnedRows::Refuse).await;
    deleted.expect("deleted");
    db.users().purge(admin).await.expect("purged");
    session(&db, "ada").await;
    assert_eq!(
        trail(&user_row(&db, ada).await),
        (Some(admin), Some(admin)),
        "neither the purge nor a login changes it"
    );
}
