//! What the log of a service shows of its users: every operation, and no
//! secret. A process has one log, so these bodies run one after the other in a
//! test of their own.

use std::io::Write;
use std::sync::{Arc, Mutex};

use aura_db::entity::{PasswordHash, users};
use aura_db::sea_orm::{ActiveModelTrait, EntityTrait, Set};
use aura_db::secrecy::ExposeSecret;
use aura_db::users::OwnedRows;
use aura_db::{Database, Error, NewUser, PageRequest, Role, SessionRequest, UserFilter};
use testdb::{Backend, TestDb};
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().expect("the log"))).expect("text")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const OLD: &str = "canary-old-password";
const NEW: &str = "canary-new-password";
const WRONG: &str = "canary-wrong-password";

/// Does everything that has to do with a secret, and returns the others.
async fn exercise(db: &Database) -> Result<Vec<String>, Error> {
    let mut secrets = Vec::new();
    let mut shown = Vec::new();
    let users = db.users();
    let ada = users
        .create(NewUser::new("Ada", "ada@example.org", OLD))
        .await?;
    let login = async |password: &str| {
        let request = SessionRequest::default();
        db.login("ada@example.org", password, request).await
    };
    let issued = login(OLD).await?;
    for wrong in [login(WRONG).await, login("").await] {
        shown.push(format!("{wrong:?}"));
    }
    let who = db.sessions().authenticate(&issued.token).await?;
    let rotated = db.sessions().rotate(&issued.token).await?;
    shown.push(format!("{issued:?} {who:?} {rotated:?}"));
    let rotated = rotated.expect("a new token");
    for issued in [&issued, &rotated] {
        secrets.push(issued.token.expose_secret().to_owned());
        secrets.push(issued.session.token.0.clone());
    }
    secrets.push(ada.hashed_password.0.clone());
    db.sessions().touch(issued.session.id).await?;
    db.sessions().revoke_all(ada.id, None).await?;
    users.verify_password(ada.id, OLD).await?;
    let wrong = users.change_password(ada.id, WRONG, NEW).await;
    users.change_password(ada.id, OLD, NEW).await?;
    users.reset_password(ada.id, OLD).await?;
    let taken = users
        .create(NewUser::new("Ada", "ada@example.org", NEW))
        .await;
    let invalid = users
        .create(NewUser::new("", "x", "canary-".repeat(200)))
        .await;
    shown.push(format!("{wrong:?} {taken:?} {invalid:?}"));
    let list = users.list(UserFilter::new(), PageRequest::first(5)).await?;
    shown.push(format!(
        "{list:?} {}",
        serde_json::to_string(&list).expect("JSON")
    ));
    db.transaction(|tx| async move {
        tx.users().set_role(ada.id, Role::Admin).await?;
        let request = SessionRequest::default();
        tx.users().login("ada@example.org", OLD, request).await
    })
    .await?;
    for row in db.fetch_all(users::Entity::find()).await? {
        secrets.push(row.hashed_password.0);
    }
    users.deactivate(ada.id).await?;
    let missing = users.get(4711.into()).await;
    shown.push(format!("{missing:?} {:?} {db:?} {users:?}", db.stats()));
    users.delete(ada.id, OwnedRows::Refuse).await?;
    tracing::info!("{}", shown.join(" "));
    Ok(secrets)
}

/// An account of each kind that nobody gets in with, and the password that is
/// tried.
async fn refused(db: &Database) -> Result<[(&'static str, &'static str); 7], Error> {
    let users = db.users();
    let create = async |name: &str| {
        let user = NewUser::new(name, format!("{name}@example.org"), OLD);
        Ok::<_, Error>(users.create(user).await?.id)
    };
    create("current").await?;
    users.deactivate(create("inactive").await?).await?;
    users
        .delete(create("deleted").await?, OwnedRows::Refuse)
        .await?;
    let older = bcrypt::hash(OLD, 10).expect("a hash");
    for (name, hash) in [
        ("older", older.as_str()),
        ("unusable", "!"),
        ("broken", "$2b$10$"),
    ] {
        let planted = users::ActiveModel {
            id: Set(create(name).await?),
            hashed_password: Set(PasswordHash(hash.to_owned())),
            ..Default::default()
        };
        planted
            .update(&*db.seaorm().writer().await.expect("open"))
            .await
            .expect("planted");
    }
    Ok([
        ("current", WRONG),
        ("inactive", OLD),
        ("deleted", OLD),
        ("older", WRONG),
        ("unusable", OLD),
        ("broken", OLD),
        ("unknown", OLD),
    ])
}

/// Every refusal computes the same, so that nobody learns from its time whether
/// there is an account.
async fn refusals_cost_the_same(db: &Database, log: &Log) {
    for (name, password) in refused(db).await.expect("accounts") {
        log.take();
        let request = SessionRequest::default();
        let email = format!("{name}@example.org");
        let answer = db.login(&email, password, request).await;
        assert!(matches!(answer, Err(Error::Credentials)), "{name}");
        let log = log.take();
        let computed = |kind: &str| {
            let lines = log
                .lines()
                .filter(|line| line.contains("aura_db::password:"));
            lines.filter(|line| line.contains(kind)).count()
        };
        assert_eq!(
            (computed("argon2id"), computed("bcrypt")),
            (1, 1),
            "{name}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_told_and_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .init();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test = TestDb::migrated(backend).await;
        let variables = [("DB_LOGGING", "true"), ("DB_SLOW_QUERY", "1")];
        let db = Database::connect(test.config_with(&variables)).await;
        let db = db.expect("it connects");
        log.take();
        let secrets = exercise(&db).await.expect("all of it works");
        let logged = log.take();
        refusals_cost_the_same(&db, &log).await;
        db.close().await;
        assert!(logged.contains("INSERT INTO"), "statements are logged");
        assert!(logged.contains("ada@example.org"), "values are shown");
        for secret in secrets
            .iter()
            .map(String::as_str)
            .chain(["canary", "$argon2"])
        {
            let line = logged.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{backend:?}");
        }

        let told = |fields: &str| {
            logged
                .lines()
                .any(|line| line.contains("aura_orm::operation: close") && line.contains(fields))
        };
        for fields in [
            r#"operation{table="users" operation="create" rows=1}"#,
            r#"operation{table="users" operation="login" rows=1}"#,
            r#"operation{table="users" operation="set_role" rows=1}"#,
            r#"operation{table="users" operation="list" rows=1}"#,
            r#"operation{table="sessions" operation="authenticate" rows=1}"#,
            r#"operation{table="sessions" operation="revoke_all" rows=1}"#,
            // The user and the session that ends.
            r#"operation{table="users" operation="deactivate" rows=2}"#,
            r#"operation{table="users" operation="create" rows=1 error=another row of users has this email}"#,
            r#"operation{table="users" operation="get" rows=0 error=there is no user"#,
        ] {
            assert!(told(fields), "{backend:?}: {fields} is not in\n{logged}");
        }
    }
}
