//! What the tests of users and sessions share: rows of tables that other
//! repositories write, and looks at the database from outside.

use std::time::{Duration, Instant};

use aura_db::entity::{agents, users, workflows};
use aura_db::sea_orm::sea_query::Query;
use aura_db::sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, Set};
use aura_db::sessions::Issued;
use aura_db::{
    AgentId, Database, Error, SecretString, SessionRequest, User, UserId, WorkflowId,
    WorkflowStatus,
};
use testdb::{Backend, TestDb};

use crate::support::PASSWORD;

/// A workflow of this user's, as another repository would have written it.
pub(crate) async fn workflow(db: &Database, owner: UserId, name: &str) -> WorkflowId {
    let row = workflows::ActiveModel {
        name: Set(name.to_owned()),
        status: Set(WorkflowStatus::Draft),
        version: Set(1),
        owner_id: Set(owner),
        deleted_with_owner: Set(false),
        created_at: Set(db.now()),
        updated_at: Set(db.now()),
        ..Default::default()
    };
    row.insert(&*db.seaorm().writer().await.expect("open"))
        .await
        .expect("a workflow")
        .id
}

/// An agent of this user's.
pub(crate) async fn agent(db: &Database, owner: UserId, name: &str) -> AgentId {
    let row = agents::ActiveModel {
        name: Set(name.to_owned()),
        model: Set("small".to_owned()),
        is_enabled: Set(true),
        owner_id: Set(owner),
        deleted_with_owner: Set(false),
        created_at: Set(db.now()),
        updated_at: Set(db.now()),
        ..Default::default()
    };
    row.insert(&*db.seaorm().writer().await.expect("open"))
        .await
        .expect("an agent")
        .id
}

/// A workflow, deleted or not.
pub(crate) async fn workflow_row(db: &Database, id: WorkflowId) -> workflows::Model {
    let row = workflows::Entity::find().filter(workflows::COLUMN.id.eq(id));
    db.fetch_one(row).await.expect("the workflow")
}

/// An agent, deleted or not.
pub(crate) async fn agent_row(db: &Database, id: AgentId) -> agents::Model {
    let row = agents::Entity::find().filter(agents::COLUMN.id.eq(id));
    db.fetch_one(row).await.expect("the agent")
}

/// A user, deleted or not.
pub(crate) async fn user_row(db: &Database, id: UserId) -> User {
    let row = users::Entity::find().filter(users::COLUMN.id.eq(id));
    db.fetch_one(row).await.expect("the user")
}

/// Puts a hash in a user's row, as an older system left it.
pub(crate) async fn plant(db: &Database, id: UserId, hash: &str) {
    let update = Query::update()
        .table(users::Entity)
        .value(users::Column::HashedPassword, hash)
        .and_where(users::COLUMN.id.eq(id))
        .take();
    assert_eq!(db.execute(update).await.expect("planted"), 1);
}

/// The hash that is stored.
pub(crate) async fn stored_hash(db: &Database, id: UserId) -> String {
    user_row(db, id).await.hashed_password.0
}

/// Logs in as `name@example.org`.
pub(crate) async fn login(
    db: &Database,
    name: &str,
    password: impl Into<SecretString>,
) -> Result<Issued, Error> {
    let email = format!("{name}@example.org");
    db.login(&email, password, SessionRequest::default()).await
}

/// A session of `name@example.org` with [`PASSWORD`].
pub(crate) async fn session(db: &Database, name: &str) -> Issued {
    login(db, name, PASSWORD).await.expect("a session")
}

/// Whether the token opens anything.
pub(crate) async fn opens(db: &Database, issued: &Issued) -> bool {
    db.sessions()
        .authenticate(&issued.token)
        .await
        .expect("an answer")
        .is_some()
}

/// Gives up what takes too long.
pub(crate) async fn pause(started: Instant) {
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "it never comes"
    );
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Until so many wait for locks. (SQLite has no such locks: whoever writes
/// waits for the one writer.)
pub(crate) async fn until_waiting(test: &TestDb, many: usize) {
    const WAITING: &str = "SELECT CAST(a.pid AS text) AS line FROM pg_locks AS l \
                           JOIN pg_stat_activity AS a USING (pid) \
                           WHERE NOT l.granted AND a.datname = current_database()";
    let started = Instant::now();
    while test.backend() == Backend::Postgres && test.lines(WAITING).await.len() < many {
        pause(started).await;
    }
}
