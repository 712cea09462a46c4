use std::time::Duration;

use aura_db::secrecy::ExposeSecret;
use aura_db::sessions::{SESSION_LIFETIME, TOUCH_INTERVAL};
use aura_db::users::OwnedRows;
use aura_db::{Database, Error, Session, SessionId, SessionRequest, Token, UserId};
use testdb::TestDb;

use crate::people::{opens, session};
use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    issuing, who_gets_none, lifetimes, what_a_client_says, authenticating, expiring,
    tokens_of_nobody, idle_sessions, touching, touching_what_is_not_valid,
    touching_with_a_clock_that_goes_back, listing, revoking, revoking_all_others, rotating,
    what_is_not_rotated, deleting_expired_ones, secrets_are_not_shown, in_a_transaction,
);

async fn issue(db: &Database, user: UserId) -> aura_db::sessions::Issued {
    let issued = db.sessions().issue(user, SessionRequest::default()).await;
    issued.expect("a session")
}

async fn ids(db: &Database, user: UserId) -> Vec<SessionId> {
    let list = db.sessions().list(user).await.expect("rows");
    list.into_iter().map(|session| session.id).collect()
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    let mut hex = String::new();
    for byte in sha2::Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").expect("text");
    }
    hex
}

async fn issuing(test: TestDb) {
    let (db, _) = open_at(&test).await;
    let ada = user(&db, "ada").await;
    let issued = issue(&db, ada.id).await;
    let token = issued.token.expose_secret();
    assert_eq!(token.len(), 43, "256 bits");
    assert!(
        token
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    );
    let Session {
        user_agent: None,
        ip_address: None,
        user_id,
        expires_at,
        last_seen_at,
        created_at,
        updated_at,
        ..
    } = issued.session
    else {
        panic!("{issued:?}")
    };
    assert_eq!(user_id, ada.id);
    assert_eq!(expires_at, db.now() + SESSION_LIFETIME);
    assert_eq!([last_seen_at, created_at, updated_at], [db.now(); 3]);

    let stored = test.rows(&["sessions"]).await;
    assert!(!stored.contains(token), "a stolen dump opens nothing");
    let hex = issued.session.token.0.clone();
    assert_eq!(hex, sha256(token));
    assert!(stored.contains(&hex));
    // What is stored is no token.
    let stolen = db.sessions().authenticate(&Token::new(hex)).await;
    assert_eq!(stolen.expect("an answer"), None);
    assert_ne!(issue(&db, ada.id).await.token.expose_secret(), token);
}

async fn who_gets_none(db: TestDb) {
    let db = open(&db).await;
    let (off, gone) = (user(&db, "off").await.id, user(&db, "gone").await.id);
    db.users().deactivate(off).await.expect("deactivated");
    let deleted = db.users().delete(gone, OwnedRows::Refuse).await;
    deleted.expect("deleted");
    for id in [off, gone, 4711.into()] {
        let issued = db.sessions().issue(id, SessionRequest::default()).await;
        assert_error!(
            issued,
            Error::NotFound { what: "active user", ref key } if *key == id.to_string()
        );
        assert!(ids(&db, id).await.is_empty());
    }
}

async fn lifetimes(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let issue = async |lifetime| {
        let request = SessionRequest {
            lifetime,
            ..SessionRequest::default()
        };
        db.sessions().issue(ada, request).await
    };
    let ten_years = Duration::from_hours(10 * 366 * 24);
    for wrong in [
        Duration::ZERO,
        ten_years + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        assert_eq!(refused(issue(wrong).await), ["lifetime"]);
    }
    let long = issue(ten_years).await.expect("a session");
    assert_eq!(long.session.expires_at, db.now() + ten_years);
    let short = issue(Duration::from_nanos(1)).await.expect("a session");
    assert!(opens(&db, &short).await);
    clock.advance(Duration::from_micros(1));
    assert!(!opens(&db, &short).await);
    clock.set(long.session.expires_at - Duration::from_micros(1));
    assert!(opens(&db, &long).await);
}

async fn what_a_client_says(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let issue = async |agent: &str, address: &str| {
        let request = SessionRequest {
            user_agent: Some(agent.to_owned()),
            ip_address: Some(address.to_owned()),
            ..SessionRequest::default()
        };
        db.sessions().issue(ada, request).await
    };
    let long = "🦀é".repeat(5_000);
    let issued = issue(&long, &"é".repeat(64)).await.expect("a session");
    let agent = issued.session.user_agent.clone().expect("told");
    assert_eq!(agent.chars().count(), 255);
    assert!(long.starts_with(&agent));
    let list = db.sessions().list(ada).await.expect("rows");
    assert_eq!(list, [issued.session]);
    let whole = "é".repeat(255);
    let issued = issue(&whole, "").await.expect("a session");
    assert_eq!(issued.session.user_agent, Some(whole));
    assert_eq!(issued.session.ip_address.as_deref(), Some(""));

    assert_eq!(refused(issue("", &"x".repeat(65)).await), ["ip_address"]);
    let both = issue("a\0", "\0").await;
    assert_eq!(refused(both), ["user_agent", "ip_address"]);
    assert_eq!(ids(&db, ada).await.len(), 2);
}

async fn authenticating(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (user(&db, "ada").await, user(&db, "bob").await);
    let (first, second) = (issue(&db, ada.id).await, issue(&db, bob.id).await);
    for (issued, user) in [(&first, &ada), (&second, &bob)] {
        let sent = Token::new(issued.token.expose_secret());
        let who = db.sessions().authenticate(&sent).await.expect("an answer");
        let who = who.expect("a session");
        assert_eq!((&who.user, &who.session), (user, &issued.session));
    }
    // Not active any more, by hand: the sessions are still there.
    let mut off = aura_db::sea_orm::sea_query::Query::update();
    off.table(aura_db::entity::users::Entity)
        .value(aura_db::entity::users::Column::IsActive, false);
    db.execute(off).await.expect("off");
    assert!(!opens(&db, &first).await);
    assert!(!db.sessions().touch(first.session.id).await.expect("rows"));
    assert!(ids(&db, ada.id).await.is_empty());
    let rotated = db.sessions().rotate(&first.token).await.expect("an answer");
    assert!(rotated.is_none());
}

async fn expiring(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = issue(&db, ada).await;
    clock.set(issued.session.expires_at - Duration::from_micros(1));
    assert!(opens(&db, &issued).await);
    clock.set(issued.session.expires_at);
    assert!(!opens(&db, &issued).await, "at its end it is over");
    assert!(ids(&db, ada).await.is_empty());
    assert!(!db.sessions().touch(issued.session.id).await.expect("rows"));
    let rotated = db.sessions().rotate(&issued.token).await.expect("rows");
    assert!(rotated.is_none());
}

async fn tokens_of_nobody(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = issue(&db, ada).await;
    let token = issued.token.expose_secret();
    for text in [
        String::new(),
        "unknown".to_owned(),
        "a\0b".to_owned(),
        "x".repeat(10_000_000),
        format!("{token}\0"),
        format!("{token} "),
        token[..42].to_owned(),
        token.to_lowercase() + "x",
        "' OR '1'='1".to_owned(),
    ] {
        let token = Token::new(text);
        let sessions = db.sessions();
        assert_eq!(sessions.authenticate(&token).await.expect("rows"), None);
        let within = sessions.authenticate_within(&token, Duration::MAX).await;
        assert_eq!(within.expect("rows"), None);
        assert!(sessions.rotate(&token).await.expect("rows").is_none());
    }
    assert!(opens(&db, &issued).await);
}

async fn idle_sessions(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = issue(&db, ada).await;
    let within = async |idle| {
        let who = db.sessions().authenticate_within(&issued.token, idle).await;
        who.expect("an answer").is_some()
    };
    let hour = Duration::from_hours(1);
    let seen = issued.session.last_seen_at;
    assert!(within(Duration::ZERO).await, "seen just now");
    clock.set(seen + hour);
    assert!(within(hour).await, "exactly so long is not longer");
    assert!(!within(Duration::from_nanos(3_599_999_999_999)).await);
    clock.advance(Duration::from_micros(1));
    assert!(!within(hour).await);
    assert!(!within(hour + Duration::from_nanos(999)).await);
    assert!(within(hour + Duration::from_micros(1)).await);
    assert!(within(hour * 2).await && within(Duration::MAX).await);
    assert!(!within(Duration::ZERO).await);
    assert!(opens(&db, &issued).await, "no limit unless asked for");
    assert!(db.sessions().touch(issued.session.id).await.expect("rows"));
    assert!(within(hour).await);
    clock.advance(SESSION_LIFETIME);
    assert!(!within(Duration::MAX).await, "expired");
}

async fn seen(db: &Database, user: UserId) -> chrono::DateTime<chrono::Utc> {
    let list = db.sessions().list(user).await.expect("rows");
    assert_eq!(list[0].last_seen_at, list[0].updated_at);
    list[0].last_seen_at
}

async fn touching(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = issue(&db, ada).await;
    let start = db.now();
    let touch = async || db.sessions().touch(issued.session.id).await.expect("rows");
    assert!(touch().await);
    clock.set(start + TOUCH_INTERVAL - Duration::from_micros(1));
    assert!(touch().await);
    assert_eq!(seen(&db, ada).await, start, "at most once a minute");
    clock.advance(Duration::from_micros(1));
    assert!(touch().await);
    assert_eq!(seen(&db, ada).await, start + TOUCH_INTERVAL);
    let list = db.sessions().list(ada).await.expect("rows");
    assert_eq!(
        list[0].expires_at, issued.session.expires_at,
        "it doesn't live longer"
    );
}

async fn touching_what_is_not_valid(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = issue(&db, ada).await;
    assert!(!db.sessions().touch(4711.into()).await.expect("rows"));
    db.sessions()
        .revoke(issued.session.id)
        .await
        .expect("revoked");
    assert!(!db.sessions().touch(issued.session.id).await.expect("rows"));
}

/// A machine whose clock was wrong: what is noted is the time it shows now.
async fn touching_with_a_clock_that_goes_back(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let start = db.now();
    clock.advance(Duration::from_hours(1));
    let issued = issue(&db, ada).await;
    clock.set(start);
    assert!(opens(&db, &issued).await);
    assert!(db.sessions().touch(issued.session.id).await.expect("rows"));
    assert_eq!(seen(&db, ada).await, start);
}

async fn listing(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let first = issue(&db, ada).await.session;
    issue(&db, bob).await;
    clock.advance(Duration::from_mins(1));
    let second = issue(&db, ada).await.session;
    let list = db.sessions().list(ada).await.expect("rows");
    assert_eq!(list, [second.clone(), first], "the newest first");
    clock.set(second.expires_at - Duration::from_secs(30));
    let list = db.sessions().list(ada).await.expect("rows");
    assert_eq!(list, [second], "only valid ones");
    assert!(ids(&db, 4711.into()).await.is_empty());
}

async fn revoking(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let (one, two) = (issue(&db, ada).await, issue(&db, ada).await);
    let sessions = db.sessions();
    assert!(sessions.revoke(one.session.id).await.expect("revoked"));
    assert!(!opens(&db, &one).await && opens(&db, &two).await);
    assert!(!sessions.revoke(one.session.id).await.expect("nothing left"));
    assert!(!sessions.revoke(4711.into()).await.expect("nothing there"));
}

async fn revoking_all_others(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let (one, two) = (issue(&db, ada).await, issue(&db, ada).await);
    issue(&db, ada).await;
    let other = issue(&db, bob).await;
    let sessions = db.sessions();
    let here = Some(one.session.id);
    assert_eq!(sessions.revoke_all(ada, here).await.expect("revoked"), 2);
    assert!(opens(&db, &one).await && !opens(&db, &two).await);
    assert_eq!(sessions.revoke_all(ada, here).await.expect("none"), 0);
    // A session of somebody else's protects nothing.
    let foreign = Some(other.session.id);
    assert_eq!(sessions.revoke_all(ada, foreign).await.expect("revoked"), 1);
    assert!(opens(&db, &other).await);
    assert_eq!(sessions.revoke_all(bob, None).await.expect("revoked"), 1);
    assert_eq!(
        sessions.revoke_all(4711.into(), None).await.expect("none"),
        0
    );
}

async fn rotating(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let old = issue(&db, ada).await;
    clock.advance(Duration::from_mins(1));
    let new = db.sessions().rotate(&old.token).await.expect("an answer");
    let new = new.expect("a new token");
    assert_eq!(new.token.expose_secret().len(), 43);
    assert_ne!(new.token.expose_secret(), old.token.expose_secret());
    assert!(!opens(&db, &old).await, "dead at once");
    assert!(opens(&db, &new).await);
    assert_eq!(new.session.id, old.session.id, "the same session");
    assert_eq!(new.session.expires_at, old.session.expires_at);
    assert_eq!(new.session.last_seen_at, db.now());
    assert_eq!(new.session.updated_at, db.now());
    assert_eq!(new.session.created_at, old.session.created_at);
    assert_eq!(db.sessions().list(ada).await.expect("rows"), [new.session]);
    let again = db.sessions().rotate(&old.token).await.expect("an answer");
    assert!(again.is_none());
}

async fn what_is_not_rotated(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let (one, two) = (issue(&db, ada).await, issue(&db, ada).await);
    db.sessions().revoke(one.session.id).await.expect("revoked");
    let rotated = db.sessions().rotate(&one.token).await.expect("rows");
    assert!(rotated.is_none());
    db.users().deactivate(ada).await.expect("deactivated");
    let rotated = db.sessions().rotate(&two.token).await.expect("rows");
    assert!(rotated.is_none());
}

async fn deleting_expired_ones(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let ada = user(&db, "ada").await.id;
    issue(&db, ada).await;
    issue(&db, ada).await;
    clock.advance(Duration::from_secs(1));
    let last = issue(&db, ada).await;
    let delete = async || db.sessions().delete_expired().await.expect("deleted");
    assert_eq!(delete().await, 0);
    clock.set(last.session.expires_at - Duration::from_secs(1));
    assert_eq!(delete().await, 2, "what ends now has ended");
    assert!(opens(&db, &last).await);
    clock.set(last.session.expires_at);
    assert_eq!(delete().await, 1);
    assert_eq!(test.rows(&["sessions"]).await, "");
}

async fn secrets_are_not_shown(db: TestDb) {
    let db = open(&db).await;
    user(&db, "ada").await;
    let issued = session(&db, "ada").await;
    let who = db.sessions().authenticate(&issued.token).await;
    let who = who.expect("an answer").expect("a session");
    let secrets = [
        issued.token.expose_secret(),
        &issued.session.token.0,
        &who.user.hashed_password.0,
    ];
    let json = serde_json::to_string(&who).expect("it serializes");
    assert!(json.contains("ada@example.org") && json.contains("expires_at"));
    let shown = [
        format!("{:?} {:#?}", issued.token, issued.token),
        format!("{issued:?} {issued:#?}"),
        format!("{who:?} {who:#?}"),
        format!("{:?}", who.user),
        format!("{:?}", db.sessions()),
        json,
        serde_json::to_string(&who.user).expect("it serializes"),
        serde_json::to_string(&who.session).expect("it serializes"),
    ];
    for text in shown {
        for secret in secrets {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

async fn in_a_transaction(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let issued = db
        .transaction(|tx| async move {
            let issued = tx.sessions().issue(ada, SessionRequest::default()).await?;
            let who = tx.sessions().authenticate(&issued.token).await?;
            assert!(who.is_some(), "its own writes are seen");
            Ok::<_, Error>(issued)
        })
        .await
        .expect("committed");
    let undone: Result<(), Error> = db
        .transaction(|tx| async move {
            assert_eq!(tx.sessions().revoke_all(ada, None).await?, 1);
            Err(Error::Credentials)
        })
        .await;
    assert_error!(undone, Error::Credentials);
    assert!(opens(&db, &issued).await);
}
