//! What the writes of an application's own entity leave behind.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{
    ActiveValue::{NotSet, Set, Unchanged},
    IntoActiveModel, JoinType, QuerySelect,
};
use aura_db::{Deleted, Error};
use testdb::TestDb;

use crate::repository::{credential, quota, with_credentials};
use crate::support::{assert_error, refused};

testdb::both!(migrated:
    an_update_writes_what_is_set,
    a_stale_update_is_refused,
    updates_by_a_filter,
    an_upsert_inserts_or_updates,
    increments_are_all_counted,
    a_saved_row_is_inserted_or_updated,
    many_rows_are_inserted_or_none,
    what_is_not_valid_is_not_written,
    a_transaction_undoes_its_writes,
);

async fn an_update_writes_what_is_set(test: TestDb) {
    let (db, [ada, bob]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let row = credentials.insert(credential("a")).await.expect("inserted");
    // Nothing is set: nothing is written.
    let same = credentials.update(row.clone().into_active_model()).await;
    assert_eq!(same.expect("there"), row);
    let mut change = row.clone().into_active_model();
    change.note = Set(Some("x".to_owned()));
    let changed = db.acting_as(bob).repository::<credential::Entity>();
    let changed = changed.update(change).await.expect("updated");
    let expected = credential::Model {
        note: Some("x".to_owned()),
        version: 2,
        updated_at: db.now(),
        updated_by: Some(bob),
        ..row.clone()
    };
    assert_eq!(changed, expected);
    // Of the row only the key and the lock have to be known.
    let blind = credential::ActiveModel {
        id: Unchanged(row.id),
        version: Unchanged(2),
        name: Set("b".to_owned()),
        ..Default::default()
    };
    let blind = credentials.update(blind).await.expect("updated");
    assert_eq!((&*blind.name, blind.version), ("b", 3));
    assert_eq!(credentials.get(row.id).await.expect("there"), blind);

    assert_eq!(refused(credentials.update(credential("x")).await), ["key"]);
    let without_lock = credential::ActiveModel {
        id: Unchanged(row.id),
        ..credential("x")
    };
    assert_eq!(refused(credentials.update(without_lock).await), ["version"]);
    let missing = credential::ActiveModel {
        id: Unchanged(-1),
        version: Unchanged(1),
        ..credential("x")
    };
    assert_error!(credentials.update(missing).await, Error::NotFound { .. });
    credentials.delete(row.id).await.expect("deleted");
    let deleted = credential::ActiveModel {
        name: Set("c".to_owned()),
        ..blind.into_active_model()
    };
    assert_error!(credentials.update(deleted).await, Error::NotFound { .. });
}

async fn a_stale_update_is_refused(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let row = credentials.insert(credential("a")).await.expect("inserted");
    let change = |note: &str| credential::ActiveModel {
        note: Set(Some(note.to_owned())),
        ..row.clone().into_active_model()
    };
    let first = credentials.update(change("first")).await.expect("updated");
    let error = credentials
        .update(change("second"))
        .await
        .expect_err("stale");
    assert!(
        matches!(&error, Error::Stale { what: "credential", key, read: 1, found: 2 }
            if *key == row.id.to_string()),
        "{error:?}"
    );
    assert_eq!(credentials.get(row.id).await.expect("there"), first);
    // Inside of a transaction too, which goes on.
    let inside = db
        .transaction(|tx| {
            let stale = change("third");
            async move {
                let credentials = tx.repository::<credential::Entity>();
                let error = credentials.update(stale).await.expect_err("stale");
                assert!(matches!(error, Error::Stale { .. }), "{error:?}");
                credentials.count(()).await
            }
        })
        .await;
    assert_eq!(inside.expect("committed"), 1);
}

async fn updates_by_a_filter(test: TestDb) {
    let (db, [ada, bob]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let mut rows = Vec::new();
    for (owner, name) in [(ada, "a"), (ada, "b"), (bob, "c"), (bob, "d")] {
        let row = credential::ActiveModel {
            owner_id: Set(owner),
            ..credential(name)
        };
        rows.push(credentials.insert(row).await.expect("inserted"));
    }
    credentials.delete(rows[1].id).await.expect("deleted");
    let note = |text: &str| credential::ActiveModel {
        note: Set(Some(text.to_owned())),
        ..Default::default()
    };
    let of_ada = credential::COLUMN.owner_id.eq(ada);
    let changed = credentials.update_where(of_ada, note("ada's")).await;
    assert_eq!(changed.expect("updated"), 1, "the other is deleted");
    // A select with a join.
    let relation = credential::Entity::belongs_to(aura_db::entity::users::Entity)
        .from(credential::Column::OwnerId)
        .to(aura_db::entity::users::Column::Id)
        .into();
    let of_bob = credential::Entity::find()
        .join(JoinType::InnerJoin, relation)
        .filter(aura_db::entity::users::COLUMN.name.eq("bob"));
    let changed = credentials
        .update_where(of_bob.clone(), note("bob's"))
        .await;
    assert_eq!(changed.expect("updated"), 2);
    let notes: Vec<_> = credentials
        .find_by(())
        .await
        .expect("read")
        .into_iter()
        .map(|row| (row.name, row.note.unwrap_or_default(), row.version))
        .collect();
    let row = |name: &str, note: &str| (name.to_owned(), note.to_owned(), 2);
    assert_eq!(
        notes,
        [row("a", "ada's"), row("c", "bob's"), row("d", "bob's")]
    );
    let unchanged = <credential::ActiveModel as Default>::default();
    let nothing = credentials.update_where((), unchanged);
    assert_eq!(nothing.await.expect("nothing to do"), 0);
    assert_eq!(credentials.delete_where(of_bob).await.expect("deleted"), 2);
    assert_eq!(credentials.count(()).await.expect("read"), 1);
    let deleted = credentials.deleted(Deleted::Only).count(()).await;
    assert_eq!(deleted.expect("read"), 3);
}

async fn an_upsert_inserts_or_updates(test: TestDb) {
    let (db, [ada, bob]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let unique = [credential::Column::OwnerId, credential::Column::Name];
    let with_note = |note: &str| credential::ActiveModel {
        owner_id: Set(ada),
        note: Set(Some(note.to_owned())),
        ..credential("a")
    };
    let first = credentials.upsert(with_note("1"), &unique).await;
    let first = first.expect("inserted");
    assert_eq!((first.version, first.created_by), (1, Some(ada)));
    let by_bob = db.acting_as(bob).repository::<credential::Entity>();
    let second = by_bob.upsert(with_note("2"), &unique).await;
    let expected = credential::Model {
        note: Some("2".to_owned()),
        version: 2,
        updated_by: Some(bob),
        ..first.clone()
    };
    assert_eq!(second.expect("updated"), expected);
    credentials.delete(first.id).await.expect("deleted");
    assert_error!(
        credentials.upsert(with_note("3"), &unique).await,
        Error::Conflict { columns, deleted: true, .. } if columns == ["name", "owner_id"]
    );

    let quotas = db.repository::<quota::Entity>();
    let unique = [quota::Column::UserId, quota::Column::Kind];
    for used in [1, 2] {
        let row = quota::ActiveModel {
            user_id: Set(ada),
            kind: Set("runs".to_owned()),
            used: Set(used),
        };
        let row = quotas.upsert(row, &unique).await.expect("written");
        assert_eq!(row.used, used);
    }
    assert_eq!(quotas.count(()).await.expect("read"), 1);
}

async fn increments_are_all_counted(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let row = credentials.insert(credential("a")).await.expect("inserted");
    let tasks = (0..8).map(|_| {
        let credentials = credentials.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                let uses = credential::Column::Uses;
                credentials.increment(row.id, uses, 3).await.expect("added");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    let added = credentials.get(row.id).await.expect("there");
    assert_eq!((added.uses, added.version), (120, 41));
    let uses = credential::Column::Uses;
    assert_error!(
        credentials.increment(-1, uses, 1).await,
        Error::NotFound { .. }
    );
}

async fn a_saved_row_is_inserted_or_updated(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let inserted = credentials.save(credential("a")).await.expect("inserted");
    let mut change = inserted.clone().into_active_model();
    change.name = Set("b".to_owned());
    let updated = credentials.save(change).await.expect("updated");
    assert_eq!((updated.id, &*updated.name), (inserted.id, "b"));
    let quotas = db.repository::<quota::Entity>();
    for used in [1, 2] {
        let row = quota::ActiveModel {
            user_id: Set(ada),
            kind: Set("runs".to_owned()),
            used: Set(used),
        };
        assert_eq!(quotas.save(row).await.expect("saved").used, used);
    }
    assert_eq!(quotas.count(()).await.expect("read"), 1);
    let mut without_key = inserted.into_active_model();
    without_key.id = NotSet;
    without_key.name = Set("c".to_owned());
    let copy = credentials.save(without_key.reset_all()).await;
    assert_eq!(copy.expect("inserted").name, "c");
}

async fn many_rows_are_inserted_or_none(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let rows = |from: i64| (from..from + 2_500).map(|number| credential(&number.to_string()));
    let inserted = credentials.insert_many(rows(0)).await;
    assert_eq!(inserted.expect("inserted"), 2_500);
    let mine = credential::COLUMN.created_by.eq(ada);
    assert_eq!(credentials.count(mine).await.expect("read"), 2_500);
    // The last is there already.
    assert_error!(
        credentials.insert_many(rows(-2_499)).await,
        Error::Conflict { .. }
    );
    let invalid = rows(5_000).chain([credential(" ")]);
    assert_eq!(refused(credentials.insert_many(invalid).await), ["name"]);
    assert_eq!(credentials.count(()).await.expect("read"), 2_500);
    assert_eq!(credentials.insert_many([]).await.expect("nothing"), 0);
}

async fn what_is_not_valid_is_not_written(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let row = credentials.insert(credential("a")).await.expect("inserted");
    let long = "é".repeat(21);
    let unique = [credential::Column::OwnerId, credential::Column::Name];
    for name in [" ", &*long] {
        let change = || credential::ActiveModel {
            name: Set(name.to_owned()),
            ..row.clone().into_active_model()
        };
        assert_eq!(
            refused(credentials.insert(credential(name)).await),
            ["name"]
        );
        assert_eq!(refused(credentials.update(change()).await), ["name"]);
        assert_eq!(refused(credentials.save(change()).await), ["name"]);
        let all = credentials.update_where((), credential(name)).await;
        assert_eq!(refused(all), ["name"]);
        let upserted = credentials.upsert(credential(name), &unique).await;
        assert_eq!(refused(upserted), ["name"]);
    }
    let error = credentials
        .insert(credential(&long))
        .await
        .expect_err("long");
    assert_eq!(
        error.to_string(),
        "not valid: name: must have at most 20 characters, and has 21"
    );
    let longest = credential(&"é".repeat(20));
    credentials.insert(longest).await.expect("it fits");
    assert_eq!(credentials.get(row.id).await.expect("there"), row);
}

async fn a_transaction_undoes_its_writes(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let db = db.acting_as(ada);
    let credentials = db.repository::<credential::Entity>();
    let kept = credentials
        .insert(credential("kept"))
        .await
        .expect("inserted");
    let undone: Result<(), Error> = db
        .transaction(|tx| async move {
            let credentials = tx.repository::<credential::Entity>();
            credentials.insert(credential("new")).await?;
            credentials.delete(kept.id).await?;
            assert_eq!(credentials.count(()).await?, 1);
            Err(Error::Ended)
        })
        .await;
    assert_error!(undone, Error::Ended);
    let names = credentials.find_by(()).await.expect("read");
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].name, "kept");
}
