//! Addresses and passwords that look the same and are typed differently: `é` is one
//! character of some keyboards, and `e` with an accent of others.

use argon2::{Argon2, PasswordHasher};
use aura_db::{Database, Error, NewUser, SessionRequest};
use testdb::TestDb;

use crate::people::{login, plant, stored_hash};
use crate::support::{PASSWORD, assert_error, open, refused, user};

testdb::both!(migrated:
    one_address_in_every_form, an_address_of_before_is_found,
    an_invisible_character_is_refused, one_password_in_every_form,
    a_hash_of_another_form_is_renewed,
);

const COMPOSED: &str = "ren\u{e9}@b\u{fc}cher.example";
const DECOMPOSED: &str = "Rene\u{301}@bu\u{308}cher.example";

async fn logs_in(db: &Database, email: &str) {
    let session = db.login(email, PASSWORD, SessionRequest::default()).await;
    session.unwrap_or_else(|error| panic!("{email}: {error}"));
}

async fn one_address_in_every_form(test: TestDb) {
    let db = open(&test).await;
    let new = |email| NewUser::new("René", email, PASSWORD);
    let rene = db.users().create(new(DECOMPOSED)).await.expect("created");
    assert_eq!(rene.email, COMPOSED);
    assert_error!(
        db.users().create(new(COMPOSED)).await,
        Error::Conflict { .. }
    );
    for email in [COMPOSED, DECOMPOSED] {
        let found = db.users().find_by_email(email).await.expect("rows");
        assert_eq!(found.as_ref(), Some(&rene), "{email}");
        assert!(db.users().email_exists(email).await.expect("an answer"));
        logs_in(&db, email).await;
    }
}

/// What was stored as it was typed.
async fn an_address_of_before_is_found(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    test.execute(&format!(
        "UPDATE users SET email = 'rene\u{301}@bu\u{308}cher.example' WHERE id = {}",
        ada.id
    ))
    .await;
    for email in [COMPOSED, DECOMPOSED] {
        let found = db.users().find_by_email(email).await.expect("rows");
        assert_eq!(found.map(|found| found.id), Some(ada.id), "{email}");
        assert!(db.users().email_exists(email).await.expect("an answer"));
        logs_in(&db, email).await;
    }
    let none = "reno\u{301}@b\u{fc}cher.example";
    assert!(!db.users().email_exists(none).await.expect("an answer"));
    assert_eq!(db.users().find_by_email(none).await.expect("rows"), None);
}

async fn an_invisible_character_is_refused(test: TestDb) {
    let db = open(&test).await;
    for wrong in [
        "ada\u{200b}@example.org",
        "ada@exam\u{ad}ple.org",
        "\u{feff}ada@example.org",
        "ada\u{2060}@example.org",
        "ada\u{202e}@example.org",
        "ada\u{fe0f}@example.org",
    ] {
        let created = db
            .users()
            .create(NewUser::new("Ada", wrong, PASSWORD))
            .await;
        let told = created.as_ref().map_err(ToString::to_string);
        let told = told.expect_err("refused");
        assert!(told.contains("invisible character"), "{wrong:?}: {told}");
        assert_eq!(refused(created), ["email"], "{wrong:?}");
    }
}

async fn one_password_in_every_form(test: TestDb) {
    let db = open(&test).await;
    let (composed, decomposed) = ("p\u{e9}che \u{1e69}", "pe\u{301}che s\u{323}\u{307}");
    for (name, chosen, other) in [("ada", composed, decomposed), ("bob", decomposed, composed)] {
        let email = format!("{name}@example.org");
        let new = NewUser::new(name, email, chosen);
        let id = db.users().create(new).await.expect("created").id;
        let hash = stored_hash(&db, id).await;
        for password in [chosen, other] {
            login(&db, name, password).await.expect("a session");
            let same = db.users().verify_password(id, password).await;
            assert!(same.expect("an answer"), "{password}");
        }
        assert_eq!(
            stored_hash(&db, id).await,
            hash,
            "it is of the form that counts"
        );
        assert_error!(login(&db, name, "p\u{e8}che").await, Error::Credentials);
    }
}

/// Of before, when a password was hashed as it was typed.
async fn a_hash_of_another_form_is_renewed(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    for (hashed, typed) in [
        ("pe\u{301}che", "pe\u{301}che"),
        ("pe\u{301}che", "p\u{e9}che"),
        ("p\u{e9}che", "pe\u{301}che"),
    ] {
        let old = Argon2::default().hash_password(hashed.as_bytes());
        let old = old.expect("a hash").to_string();
        plant(&db, ada.id, &old).await;
        login(&db, "ada", typed).await.expect("a session");
        let kept = stored_hash(&db, ada.id).await == old;
        assert_eq!(kept, hashed == "p\u{e9}che", "{hashed:?} {typed:?}");
        login(&db, "ada", "p\u{e9}che").await.expect("a session");
    }
}
