use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use aura_db::secrecy::ExposeSecret;
use aura_db::users::OwnedRows;
use aura_db::{Error, NewPassword, NewUser, PasswordHash, UserId, password};
use testdb::TestDb;

use crate::people::{login, opens, plant, session, stored_hash, user_row};
use crate::support::{PASSWORD, assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    a_password_is_nowhere, verifying, changing, only_one_change_wins, resetting,
    logging_in, who_may_not_log_in, bcrypt_is_renewed, bcrypt_looks_at_72_bytes,
    renewed_by_many_at_once, other_parameters_are_renewed, what_never_matches,
    absurd_parameters_cost_nothing, a_password_that_is_too_long, hashed_before,
);

const CURRENT: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

fn argon2(algorithm: Algorithm, version: Version, params: (u32, u32, u32)) -> String {
    let params = Params::new(params.0, params.1, params.2, None).expect("usable");
    Argon2::new(algorithm, version, params)
        .hash_password(PASSWORD.as_bytes())
        .expect("a hash")
        .to_string()
}

fn bcrypt(version: bcrypt::Version, password: &str) -> String {
    bcrypt::hash_with_result(password, 4)
        .expect("a hash")
        .format_for_version(version)
}

async fn verifies(db: &aura_db::Database, id: UserId, password: &str) -> bool {
    let answer = db.users().verify_password(id, password).await;
    answer.expect("an answer")
}

async fn a_password_is_nowhere(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let issued = session(&db, "ada").await;
    assert!(stored_hash(&db, ada.id).await.starts_with(CURRENT));
    user(&db, "bob").await;
    let everything = test.rows(&["users", "sessions"]).await;
    assert!(everything.contains("bob@example.org"));
    assert!(!everything.contains(PASSWORD));
    assert!(!everything.contains(issued.token.expose_secret()));
}

/// So that a transaction doesn't keep others waiting meanwhile.
async fn hashed_before(test: TestDb) {
    let db = open(&test).await;
    let new = NewUser::new("Ada", "ada@example.org", PASSWORD);
    let new = &new.hashed().await.expect("hashed");
    assert!(!format!("{new:?}").contains(PASSWORD));
    assert!(!format!("{new:?}").contains("argon2id"));
    let created = db.transaction(|tx| async move { tx.users().create(new.clone()).await });
    let ada = created.await.expect("created").id;
    let NewPassword::Hashed(hash) = &new.password else {
        panic!("it is hashed");
    };
    assert_eq!(stored_hash(&db, ada).await, hash.0);
    login(&db, "ada", PASSWORD).await.expect("a session");
    let other = password::hash(&"another".into()).await.expect("hashed");
    let other = &other;
    let reset =
        db.transaction(|tx| async move { tx.users().reset_password(ada, other.clone()).await });
    reset.await.expect("reset");
    assert!(verifies(&db, ada, "another").await);
    // Of an older system, or none.
    let old = PasswordHash(bcrypt(bcrypt::Version::TwoB, PASSWORD));
    let old = NewUser::new("Bob", "bob@example.org", old);
    let bob = db.users().create(old).await.expect("created").id;
    assert!(verifies(&db, bob, PASSWORD).await);
    let nobody = NewUser::new("Bot", "bot@example.org", password::unusable());
    db.users().create(nobody).await.expect("created");
    assert_error!(login(&db, "bot", "!").await, Error::Credentials);
    for wrong in ["", "\0", &"x".repeat(256)] {
        let wrong = PasswordHash(wrong.to_owned());
        let wrong = NewUser::new("Eve", "eve@example.org", wrong);
        assert_eq!(refused(db.users().create(wrong).await), ["password"]);
    }
    let empty = NewUser::new("Eve", "eve@example.org", "").hashed().await;
    assert_eq!(refused(empty), ["password"]);
}

async fn verifying(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    assert!(verifies(&db, ada.id, PASSWORD).await);
    for wrong in ["", "correct", &PASSWORD.to_uppercase(), &"x".repeat(1025)] {
        assert!(!verifies(&db, ada.id, wrong).await, "{wrong}");
    }
    let nul = NewUser::new("Nul", "nul@example.org", "a\0b");
    let nul = db.users().create(nul).await.expect("a password is bytes");
    assert!(verifies(&db, nul.id, "a\0b").await);
    assert!(!verifies(&db, nul.id, "a").await);
}

async fn changing(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    user(&db, "bob").await;
    let (issued, other) = (session(&db, "ada").await, session(&db, "bob").await);
    clock.advance(Duration::from_secs(1));

    let wrong = db.users().change_password(ada.id, "wrong", "new").await;
    assert_error!(wrong, Error::Credentials);
    assert!(opens(&db, &issued).await);
    assert_eq!(user_row(&db, ada.id).await, ada);

    let changed = db.users().change_password(ada.id, PASSWORD, "new").await;
    changed.expect("changed");
    assert!(verifies(&db, ada.id, "new").await);
    assert!(!verifies(&db, ada.id, PASSWORD).await);
    assert!(!opens(&db, &issued).await, "the sessions ended");
    assert!(opens(&db, &other).await, "of nobody else");
    assert_eq!(user_row(&db, ada.id).await.updated_at, db.now());
}

async fn only_one_change_wins(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let tasks: Vec<_> = (0..6)
        .map(|number| {
            let db = db.clone();
            tokio::spawn(async move {
                let new = format!("new {number}");
                let changed = db.users().change_password(ada, PASSWORD, new.clone()).await;
                (new, changed)
            })
        })
        .collect();
    let mut winner = None;
    for task in tasks {
        match task.await.expect("no panic") {
            (new, Ok(())) => assert_eq!(winner.replace(new), None, "two won"),
            (_, Err(Error::Credentials)) => {}
            (_, Err(other)) => panic!("{other:?}"),
        }
    }
    assert!(verifies(&db, ada, &winner.expect("one won")).await);
}

async fn resetting(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = session(&db, "ada").await;
    db.users().reset_password(ada, "new").await.expect("reset");
    assert!(!opens(&db, &issued).await);
    assert_error!(login(&db, "ada", PASSWORD).await, Error::Credentials);
    let issued = login(&db, "ada", "new").await.expect("a session");
    // The same one again is a new hash, and ends the sessions too.
    let before = stored_hash(&db, ada).await;
    db.users().reset_password(ada, "new").await.expect("reset");
    assert_ne!(stored_hash(&db, ada).await, before);
    assert!(!opens(&db, &issued).await);
}

async fn logging_in(db: TestDb) {
    let (db, _) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let request = aura_db::SessionRequest {
        user_agent: Some("Firefox".to_owned()),
        ip_address: Some("2001:db8::1".to_owned()),
        lifetime: Duration::from_mins(1),
    };
    let issued = db.login(" Ada@EXAMPLE.org", PASSWORD, request).await;
    let issued = issued.expect("a session");
    let who = db.sessions().authenticate(&issued.token).await;
    let who = who.expect("an answer").expect("logged in");
    assert_eq!((who.user, &who.session), (ada.clone(), &issued.session));
    assert_eq!(who.session.user_id, ada.id);
    assert_eq!(who.session.user_agent.as_deref(), Some("Firefox"));
    assert_eq!(who.session.ip_address.as_deref(), Some("2001:db8::1"));
    assert_eq!(who.session.expires_at, db.now() + Duration::from_mins(1));
    assert_eq!(user_row(&db, ada.id).await, ada, "a login changes nobody");
    // Inside of a transaction it is a part of it.
    let undone: Result<(), Error> = db
        .transaction(|tx| async move {
            let request = aura_db::SessionRequest::default();
            tx.users()
                .login("ada@example.org", PASSWORD, request)
                .await?;
            Err(Error::Credentials)
        })
        .await;
    assert_error!(undone, Error::Credentials);
    assert_eq!(db.sessions().list(ada.id).await.expect("rows").len(), 1);
}

async fn who_may_not_log_in(db: TestDb) {
    let db = open(&db).await;
    user(&db, "ada").await;
    let off = user(&db, "off").await.id;
    db.users().deactivate(off).await.expect("deactivated");
    let gone = user(&db, "gone").await.id;
    db.users()
        .delete(gone, OwnedRows::Refuse)
        .await
        .expect("deleted");
    let mut told = std::collections::BTreeSet::new();
    for (name, password) in [
        ("ada", "wrong"),
        ("ada", ""),
        ("ada", &"x".repeat(1025)),
        ("nobody", PASSWORD),
        ("a\0da", PASSWORD),
        ("off", PASSWORD),
        ("gone", PASSWORD),
    ] {
        match login(&db, name, password).await {
            Err(error @ Error::Credentials) => told.insert(format!("{error} {error:?}")),
            other => panic!("{name}: {other:?}"),
        };
    }
    assert_eq!(told.len(), 1, "nobody can tell them apart: {told:?}");
    db.users().restore(gone).await.expect("restored");
    login(&db, "gone", PASSWORD).await.expect("back again");
}

async fn bcrypt_is_renewed(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    for version in [
        bcrypt::Version::TwoA,
        bcrypt::Version::TwoB,
        bcrypt::Version::TwoY,
    ] {
        let old = bcrypt(version, PASSWORD);
        plant(&db, ada.id, &old).await;
        clock.advance(Duration::from_secs(1));
        assert!(verifies(&db, ada.id, PASSWORD).await, "{old}");
        assert_error!(login(&db, "ada", "wrong").await, Error::Credentials);
        assert_eq!(stored_hash(&db, ada.id).await, old, "not by a wrong one");

        let issued = session(&db, "ada").await;
        let renewed = stored_hash(&db, ada.id).await;
        assert!(renewed.starts_with(CURRENT), "{renewed}");
        assert!(opens(&db, &issued).await);
        assert_eq!(
            user_row(&db, ada.id).await.updated_at,
            ada.updated_at,
            "the user has not changed"
        );
        session(&db, "ada").await;
        assert_eq!(stored_hash(&db, ada.id).await, renewed, "only once");
        assert!(opens(&db, &issued).await, "and ends no session");
    }
    // 2x marks hashes of a broken program.
    plant(&db, ada.id, &bcrypt(bcrypt::Version::TwoX, PASSWORD)).await;
    assert_error!(login(&db, "ada", PASSWORD).await, Error::Credentials);
    // A change of the password works on an old hash as well.
    plant(&db, ada.id, &bcrypt(bcrypt::Version::TwoB, PASSWORD)).await;
    let changed = db.users().change_password(ada.id, PASSWORD, "new").await;
    changed.expect("changed");
    assert!(stored_hash(&db, ada.id).await.starts_with(CURRENT));
}

async fn bcrypt_looks_at_72_bytes(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let long = "é".repeat(50);
    plant(&db, ada, &bcrypt(bcrypt::Version::TwoB, &long)).await;
    login(&db, "ada", long.clone()).await.expect("as before");
    // From now on all of it counts.
    let cut = "é".repeat(49);
    assert_error!(login(&db, "ada", cut).await, Error::Credentials);
    login(&db, "ada", long).await.expect("the whole");
}

/// The right password is never refused, whoever renews the hash first.
async fn renewed_by_many_at_once(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    plant(&db, ada, &bcrypt(bcrypt::Version::TwoB, PASSWORD)).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move { login(&db, "ada", PASSWORD).await })
        })
        .collect();
    for task in tasks {
        let issued = task.await.expect("no panic").expect("a session");
        assert!(opens(&db, &issued).await);
    }
    assert!(stored_hash(&db, ada).await.starts_with(CURRENT));
}

async fn other_parameters_are_renewed(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let id = Algorithm::Argon2id;
    for old in [
        argon2(id, Version::V0x13, (64, 1, 1)),
        argon2(id, Version::V0x13, (19_456, 2, 2)),
        argon2(id, Version::V0x13, (19_457, 2, 1)),
        argon2(id, Version::V0x10, (19_456, 2, 1)),
    ] {
        plant(&db, ada, &old).await;
        session(&db, "ada").await;
        let renewed = stored_hash(&db, ada).await;
        assert!(renewed.starts_with(CURRENT) && renewed != old, "{old}");
    }
}

async fn what_never_matches(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let good = stored_hash(&db, ada).await;
    let (head, output) = good.rsplit_once('$').expect("a PHC string");
    let (params, _) = head.rsplit_once('$').expect("a salt");
    let bcrypted = bcrypt(bcrypt::Version::TwoB, PASSWORD);
    let v13 = Version::V0x13;
    let corrupted = [
        "!".to_owned(),
        String::new(),
        PASSWORD.to_owned(),
        "$".repeat(60),
        "é".repeat(30),
        "$2b$é0$".to_owned() + &"x".repeat(52),
        good[..good.len() - 1].to_owned(),
        head.to_owned(),
        format!("{head}$"),
        format!("{params}$${output}"),
        format!("{good}$"),
        good.replace("v=19", "v=99"),
        good.replace("t=2", "t=0"),
        good.replace("p=1", "p=0"),
        good.replace("m=19456", "m=7"),
        good.replace("m=19456", "m=-1"),
        good.replace("$argon2id", "$argon2"),
        argon2(Algorithm::Argon2i, v13, (64, 1, 1)),
        argon2(Algorithm::Argon2d, v13, (64, 1, 1)),
        bcrypted[..59].to_owned(),
        bcrypted.replace("$2b$04", "$2b$03"),
        bcrypted.replace("$2b$04", "$2b$xx"),
        bcrypted.replace("$2b$", "$2$"),
    ];
    for hash in corrupted {
        plant(&db, ada, &hash).await;
        let request = aura_db::SessionRequest::default();
        let answer = db.login("ada@example.org", PASSWORD, request).await;
        assert_error!(answer, Error::Credentials);
        assert!(!verifies(&db, ada, "").await, "{hash}");
        assert!(!verifies(&db, ada, "!").await, "{hash}");
        assert_eq!(stored_hash(&db, ada).await, hash, "left as it is");
    }
}

async fn absurd_parameters_cost_nothing(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let good = stored_hash(&db, ada).await;
    let started = Instant::now();
    assert_error!(login(&db, "ada", "wrong").await, Error::Credentials);
    let usual = started.elapsed();
    let bcrypted = bcrypt(bcrypt::Version::TwoB, PASSWORD);
    for hash in [
        good.replace("m=19456", "m=4194304"),
        good.replace("m=19456", "m=4294967295"),
        good.replace("t=2", "t=4294967295"),
        good.replace("p=1", "p=16777215"),
        bcrypted.replace("$04$", "$31$"),
        bcrypted.replace("$04$", "$17$"),
    ] {
        plant(&db, ada, &hash).await;
        let started = Instant::now();
        assert_error!(login(&db, "ada", PASSWORD).await, Error::Credentials);
        let took = started.elapsed();
        // Hours, if they were computed.
        assert!(
            took < usual * 20 + Duration::from_secs(20),
            "{hash}: {took:?}"
        );
    }
}

/// Its length can't be told from the time: as much is computed as for others.
/// The quickest of each kind are compared, in turns, until they agree: a busy
/// machine slows each of them now and then, and none that hashes is ever as
/// quick as one that doesn't.
async fn a_password_that_is_too_long(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let long = "x".repeat(10_000_000);
    let kinds = [
        ("ada", "wrong"),
        ("ada", long.as_str()),
        ("nobody", "wrong"),
        ("nobody", &long),
    ];
    let mut quickest = [Duration::MAX; 4];
    let mut rounds = 0;
    while rounds < 3 || quickest.iter().any(|time| *time * 3 < quickest[0]) {
        rounds += 1;
        assert!(rounds < 30, "{quickest:?}");
        for (time, (name, password)) in quickest.iter_mut().zip(kinds) {
            let started = Instant::now();
            assert_error!(login(&db, name, password).await, Error::Credentials);
            *time = started.elapsed().min(*time);
        }
    }
    assert_error!(
        db.users().change_password(ada, long.as_str(), "new").await,
        Error::Credentials
    );
}
