use std::time::Duration;

use aura_db::users::OwnedRows;
use aura_db::{Database, Error, NewUser, Role, User, UserChange};
use testdb::TestDb;

use crate::people::{opens, session, user_row};
use crate::support::{PASSWORD, assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    creating, found_by_id_and_address, addresses_are_taken, a_taken_address_spoils_nothing,
    every_wrong_field_is_told, the_longest_of_everything, addresses, updating,
    an_update_of_nothing, a_role, locked_out_and_let_in, missing_users,
    one_of_many_gets_an_address, a_missing_user_spoils_no_transaction,
);

fn change(name: Option<&str>, email: Option<&str>) -> UserChange {
    let mut change = UserChange::new();
    if let Some(name) = name {
        change = change.name(name);
    }
    if let Some(email) = email {
        change = change.email(email);
    }
    change
}

async fn creating(db: TestDb) {
    let (db, _) = open_at(&db).await;
    let new = NewUser::new("  Ada Lovelace ", "\u{a0} Ada@Example.ORG\n", PASSWORD);
    let ada = db
        .users()
        .create(new.role(Role::Editor))
        .await
        .expect("created");
    assert_eq!(ada.name, "  Ada Lovelace ", "a name is kept as it is");
    assert_eq!(ada.email, "ada@example.org");
    assert_eq!((ada.role, ada.is_active), (Role::Editor, true));
    assert_eq!((ada.created_at, ada.updated_at), (db.now(), db.now()));
    assert_eq!(
        (ada.deleted_at, ada.created_by, ada.updated_by),
        (None, None, None)
    );
    assert_eq!(user_row(&db, ada.id).await, ada, "stored as it is told");
    assert_eq!(user(&db, "bob").await.role, Role::User);
}

async fn found_by_id_and_address(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    user(&db, "bob").await;
    let users = db.users();
    assert_eq!(users.find(ada.id).await.expect("rows"), Some(ada.clone()));
    assert_eq!(users.get(ada.id).await.expect("there"), ada);
    for email in ["ada@example.org", " ADA@Example.org\t"] {
        assert_eq!(
            users.find_by_email(email).await.expect("rows"),
            Some(ada.clone())
        );
        assert_eq!(users.get_by_email(email).await.expect("there"), ada);
        assert!(users.email_exists(email).await.expect("rows"));
    }

    users
        .delete(ada.id, OwnedRows::Refuse)
        .await
        .expect("deleted");
    assert_eq!(users.find(ada.id).await.expect("rows"), None);
    assert_eq!(users.find_by_email(&ada.email).await.expect("rows"), None);
    assert!(
        users.email_exists(&ada.email).await.expect("rows"),
        "nobody else can have it"
    );
}

async fn missing_users(db: TestDb) {
    let db = open(&db).await;
    let users = db.users();
    let missing = 4711.into();
    assert_eq!(users.find(missing).await.expect("rows"), None);
    let long = format!("{}@example.org", "x".repeat(10_000_000));
    for email in ["", "nobody@example.org", "a\0da@example.org", long.as_str()] {
        assert_eq!(users.find_by_email(email).await.expect("rows"), None);
        assert!(!users.email_exists(email).await.expect("rows"));
        assert_error!(
            users.get_by_email(email).await,
            Error::NotFound { what: "user", .. }
        );
    }
    let gone = user(&db, "gone").await.id;
    users
        .delete(gone, OwnedRows::Refuse)
        .await
        .expect("deleted");
    for id in [missing, gone] {
        let results = [
            users.get(id).await.map(|_| ()),
            users.update(id, change(Some("x"), None)).await.map(|_| ()),
            users.update(id, change(None, None)).await.map(|_| ()),
            users.set_role(id, Role::Admin).await.map(|_| ()),
            users.activate(id).await.map(|_| ()),
            users.deactivate(id).await.map(|_| ()),
            users.verify_password(id, PASSWORD).await.map(|_| ()),
            users.change_password(id, PASSWORD, "new").await,
            users.reset_password(id, "new").await,
            users.delete(id, OwnedRows::Delete).await,
        ];
        for (at, result) in results.into_iter().enumerate() {
            match result {
                Err(Error::NotFound { what: "user", key }) => assert_eq!(key, id.to_string()),
                other => panic!("{at}: {other:?}"),
            }
        }
    }
    assert_eq!(user_row(&db, gone).await.role, Role::User, "as it was");
}

/// Nothing was written, so the caller's transaction goes on.
async fn a_missing_user_spoils_no_transaction(db: TestDb) {
    let db = open(&db).await;
    db.transaction(|tx| async move {
        let users = tx.users();
        let missing = 4711.into();
        for result in [
            users.deactivate(missing).await.map(|_| ()),
            users.set_role(missing, Role::Admin).await.map(|_| ()),
            users.reset_password(missing, "new").await,
            users.delete(missing, OwnedRows::Delete).await,
            users.purge(missing).await,
            users.restore(missing).await.map(|_| ()),
        ] {
            assert_error!(result, Error::NotFound { .. });
        }
        users
            .create(NewUser::new("Ada", "ada@example.org", "x"))
            .await
    })
    .await
    .expect("committed");
    assert!(
        db.users()
            .email_exists("ada@example.org")
            .await
            .expect("rows")
    );
}

async fn addresses_are_taken(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let again = || NewUser::new("Another", " ADA@example.org", PASSWORD);
    match db.users().create(again()).await {
        Err(Error::Conflict {
            table,
            columns,
            deleted: false,
        }) => assert_eq!(
            (table.as_str(), columns),
            ("users", vec!["email".to_owned()])
        ),
        other => panic!("{other:?}"),
    }

    db.users()
        .delete(ada.id, OwnedRows::Refuse)
        .await
        .expect("deleted");
    let taken = db.users().create(again()).await;
    let told = taken.as_ref().map_err(ToString::to_string);
    assert_eq!(
        told.expect_err("taken"),
        "a deleted row of users has this email: restore it, or purge it to use it again"
    );
    assert_error!(taken, Error::Conflict { deleted: true, .. });

    db.users().purge(ada.id).await.expect("purged");
    db.users().create(again()).await.expect("free again");
}

async fn a_taken_address_spoils_nothing(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let bob = user(&db, "bob").await.id;
    db.transaction(|tx| async move {
        let users = tx.users();
        let taken = users.create(NewUser::new("x", "ada@example.org", "x"));
        assert_error!(taken.await, Error::Conflict { .. });
        let taken = users.update(bob, change(None, Some("ADA@example.org")));
        assert_error!(taken.await, Error::Conflict { deleted: false, .. });
        tx.users().update(bob, change(Some("Robert"), None)).await
    })
    .await
    .expect("committed");
    assert_eq!(db.users().get(bob).await.expect("there").name, "Robert");
    assert_eq!(db.users().get(ada.id).await.expect("there"), ada);
}

async fn every_wrong_field_is_told(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let create = async |name: &str, email: &str, password: &str| {
        let new = NewUser::new(name, email, password);
        refused(db.users().create(new).await)
    };
    let long = "é".repeat(121);
    assert_eq!(create("", "", "").await, ["name", "email", "password"]);
    assert_eq!(
        create(
            &long,
            &format!("{}@x.org", "ü".repeat(155)),
            &"x".repeat(1025)
        )
        .await,
        ["name", "email", "password"]
    );
    assert_eq!(create(" \t\u{a0}", "ada", "x").await, ["name", "email"]);
    assert_eq!(create("a\0", "ada@example.org", "x").await, ["name"]);

    let update = async |change| refused(db.users().update(ada.id, change).await);
    assert_eq!(update(change(Some(""), Some("@"))).await, ["name", "email"]);
    assert_eq!(update(change(Some(&long), None)).await, ["name"]);
    assert_eq!(
        refused(db.users().change_password(ada.id, PASSWORD, "").await),
        ["password"]
    );
    assert_eq!(
        refused(db.users().reset_password(ada.id, "x".repeat(1025)).await),
        ["password"]
    );
    assert_eq!(db.users().get(ada.id).await.expect("there"), ada);

    let error = db.users().create(NewUser::new("", "x@y", "")).await;
    assert_eq!(
        error.expect_err("refused").to_string(),
        "not valid: name: must not be empty; password: must not be empty"
    );
}

async fn the_longest_of_everything(db: TestDb) {
    let db = open(&db).await;
    let name = "李".repeat(120);
    let email = format!("{}@example.org", "ü".repeat(148));
    let password = "x".repeat(1024);
    let new = NewUser::new(&*name, &*email, password.clone());
    let user = db.users().create(new).await.expect("within the limits");
    assert_eq!((&user.name, &user.email), (&name, &email));
    assert!(
        db.users()
            .verify_password(user.id, password)
            .await
            .expect("an answer")
    );
    let found = db.users().get_by_email(&email).await.expect("there");
    assert_eq!(found, user);
    let name = "'; DROP TABLE users; --\u{202e}🦀";
    let changed = db.users().update(user.id, change(Some(name), None)).await;
    assert_eq!(changed.expect("changed").name, name);
}

async fn addresses(db: TestDb) {
    let db = open(&db).await;
    for wrong in [
        "ada",
        "@",
        "ada@",
        "@example.org",
        "a@b@c",
        "a da@example.org",
        "ada@exa mple.org",
        "ada@.org",
        "ada@org.",
        "ada\u{7}@example.org",
        "ada\u{2003}x@example.org",
        "ada\0@example.org",
    ] {
        let fields = refused(db.users().create(NewUser::new("Ada", wrong, "x")).await);
        assert!(fields.iter().all(|field| *field == "email"), "{wrong:?}");
        assert!(!fields.is_empty(), "{wrong:?}");
    }
    for right in [
        "a@b",
        "ada+tag@example.org",
        "o'brien@example.org",
        "ÄDA@bücher.example",
    ] {
        let user = db.users().create(NewUser::new("Ada", right, "x")).await;
        let user = user.unwrap_or_else(|error| panic!("{right}: {error}"));
        let found = db.users().find_by_email(&right.to_ascii_uppercase()).await;
        assert_eq!(found.expect("rows"), Some(user), "{right}");
    }
}

async fn updating(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let bob = user(&db, "bob").await;
    clock.advance(Duration::from_secs(1));
    let update = async |change| db.users().update(ada.id, change).await;

    let renamed = update(change(Some("Ada L."), None)).await.expect("renamed");
    let expected = User {
        name: "Ada L.".to_owned(),
        updated_at: db.now(),
        ..ada.clone()
    };
    assert_eq!(renamed, expected);
    assert_eq!(db.users().get(ada.id).await.expect("there"), expected);

    let same = update(change(None, Some("ADA@example.org"))).await;
    assert_eq!(same.expect("its own address").email, "ada@example.org");
    let moved = update(change(Some("Ada"), Some(" Lovelace@Example.org ")))
        .await
        .expect("moved");
    assert_eq!(
        (moved.name.as_str(), moved.email.as_str()),
        ("Ada", "lovelace@example.org")
    );

    let taken = update(change(Some("Bob"), Some("Bob@example.org"))).await;
    assert_error!(taken, Error::Conflict { deleted: false, .. });
    db.users()
        .delete(bob.id, OwnedRows::Refuse)
        .await
        .expect("deleted");
    let taken = update(change(None, Some("bob@example.org"))).await;
    assert_error!(taken, Error::Conflict { deleted: true, .. });
    assert_eq!(db.users().get(ada.id).await.expect("there"), moved);
}

async fn an_update_of_nothing(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    clock.advance(Duration::from_secs(1));
    let same = db.users().update(ada.id, UserChange::default()).await;
    assert_eq!(same.expect("there"), ada);
    assert_eq!(user_row(&db, ada.id).await, ada);
}

async fn a_role(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let issued = session(&db, "ada").await;
    for role in [Role::Admin, Role::Editor, Role::Viewer, Role::User] {
        clock.advance(Duration::from_secs(1));
        let changed = db.users().set_role(ada.id, role).await.expect("changed");
        assert_eq!((changed.role, changed.updated_at), (role, db.now()));
        let who = db.sessions().authenticate(&issued.token).await;
        let who = who.expect("an answer").expect("still logged in");
        assert_eq!(who.user, changed);
    }
}

async fn locked_out_and_let_in(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    user(&db, "bob").await;
    let (phone, desk) = (session(&db, "ada").await, session(&db, "ada").await);
    let other = session(&db, "bob").await;
    clock.advance(Duration::from_secs(1));

    let locked = db.users().deactivate(ada.id).await.expect("deactivated");
    assert_eq!((locked.is_active, locked.updated_at), (false, db.now()));
    assert!(!opens(&db, &phone).await && !opens(&db, &desk).await);
    assert!(opens(&db, &other).await, "nobody else is locked out");
    assert_eq!(
        db.users().get(ada.id).await.expect("still there"),
        locked,
        "not deleted"
    );
    let again = db.users().deactivate(ada.id).await.expect("deactivated");
    assert!(!again.is_active);

    let active = db.users().activate(ada.id).await.expect("activated");
    assert!(active.is_active);
    assert!(!opens(&db, &phone).await, "the old sessions are gone");
    session(&db, "ada").await;
}

/// Of all who want the same address at once, one gets it, and the others are
/// told.
async fn one_of_many_gets_an_address(db: TestDb) {
    async fn want(db: Database, number: usize) -> Result<User, Error> {
        if number.is_multiple_of(2) {
            let new = NewUser::new("new", "wanted@example.org", "x");
            db.users().create(new).await
        } else {
            let own = format!("u{number}@example.org");
            let id = db.users().get_by_email(&own).await?.id;
            let change = change(None, Some("Wanted@example.org"));
            db.users().update(id, change).await
        }
    }
    let db = open(&db).await;
    for number in [1, 3, 5, 7] {
        user(&db, &format!("u{number}")).await;
    }
    let tasks: Vec<_> = (0..8)
        .map(|number| tokio::spawn(want(db.clone(), number)))
        .collect();
    let mut winners = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(user) => {
                assert_eq!(user.email, "wanted@example.org");
                winners += 1;
            }
            Err(Error::Conflict { table, columns, .. }) => {
                assert_eq!(
                    (table.as_str(), columns),
                    ("users", vec!["email".to_owned()])
                );
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners, 1);
}
