//! What a role allows, and when: through `restricted_to`.

use aura_db::users::OwnedRows;
use aura_db::{
    Action, Database, Error, NewPlugin, NewUser, NewWorkflow, PageRequest, Resource, Restricted,
    Role, Scope, SessionRequest, User, UserChange, UserFilter, UserId,
};
use serde_json::json;
use testdb::{Backend, TestDb};

use crate::people::{session, until_waiting};
use crate::support::{PASSWORD, assert_error, open, user};

testdb::both!(migrated:
    every_role_and_operation, a_demotion_counts_at_once, a_demotion_waits_for_a_transaction,
    a_demotion_counts_within_a_transaction, a_demotion_of_oneself, who_is_gone_may_nothing,
    nothing_is_done_when_refused, nested_ones_are_restricted, a_transaction_for_a_user,
    an_editor_sees_own_sessions, details_are_what_the_role_may_read,
);

const ROLES: [Role; 4] = [Role::Admin, Role::Editor, Role::Viewer, Role::User];

async fn with_role(db: &Database, name: &str, role: Role) -> User {
    let id = user(db, name).await.id;
    db.users().set_role(id, role).await.expect("a role")
}

/// The matrix of AURA: create, read, update, delete, execute.
#[test]
fn the_matrix() {
    use Resource::{Agent, Execution, Plugin, Workflow};
    let table = [
        (Role::Admin, Scope::Any, ["crudx"; 5]),
        (
            Role::Editor,
            Scope::Own,
            ["-r---", "crudx", "cru--", "-----", "-----"],
        ),
        (
            Role::Viewer,
            Scope::Any,
            ["-----", "-r---", "-r---", "-r---", "-----"],
        ),
        (
            Role::User,
            Scope::Own,
            ["-----", "-r--x", "-----", "-r---", "-----"],
        ),
    ];
    let actions = [
        Action::Create,
        Action::Read,
        Action::Update,
        Action::Delete,
        Action::Execute,
    ];
    for (role, reach, rows) in table {
        for (resource, row) in [Resource::User, Workflow, Plugin, Execution, Agent]
            .into_iter()
            .zip(rows)
        {
            for (action, letter) in actions.into_iter().zip(row.chars()) {
                let may = letter != '-';
                assert_eq!(
                    role.can(action, resource),
                    may,
                    "{role} {action} {resource}"
                );
                assert_eq!(role.scope(action, resource), may.then_some(reach));
            }
        }
    }
}

/// An operation, what it needs, and what came of it.
type Done = (&'static str, Action, Result<(), Error>);

fn done<T>(name: &'static str, needs: Action, result: Result<T, Error>) -> Done {
    (name, needs, result.map(|_| ()))
}

/// Every operation on users and sessions.
async fn operations(db: &Restricted, target: UserId, number: usize) -> Vec<Done> {
    let mut all = on_users(db, target, number).await;
    all.extend(on_passwords(db, target).await);
    all.extend(on_sessions(db, target).await);
    all
}

async fn on_users(db: &Restricted, target: UserId, number: usize) -> Vec<Done> {
    use Action::{Create, Delete, Read, Update};
    let users = db.users();
    let email = format!("new{number}@example.org");
    let new = NewUser::new("n", &*email, "x");
    let first = PageRequest::first(1);
    vec![
        done("create", Create, users.create(new).await),
        done("find", Read, users.find(target).await),
        done("get", Read, users.get(target).await),
        done("by email", Read, users.find_by_email(&email).await),
        done("exists", Read, users.email_exists(&email).await),
        done("list", Read, users.list(UserFilter::new(), first).await),
        done(
            "update",
            Update,
            users.update(target, UserChange::default()).await,
        ),
        done("role", Update, users.set_role(target, Role::User).await),
        done("deactivate", Update, users.deactivate(target).await),
        done("activate", Update, users.activate(target).await),
        done(
            "delete",
            Delete,
            users.delete(target, OwnedRows::Refuse).await,
        ),
        done("restore", Delete, users.restore(target).await),
    ]
}

async fn on_passwords(db: &Restricted, target: UserId) -> Vec<Done> {
    use Action::Update;
    let users = db.users();
    let request = SessionRequest::default();
    let login = users.login("target@example.org", PASSWORD, request);
    vec![
        done(
            "verify",
            Update,
            users.verify_password(target, PASSWORD).await,
        ),
        done(
            "reset",
            Update,
            users.reset_password(target, PASSWORD).await,
        ),
        done(
            "change",
            Update,
            users.change_password(target, PASSWORD, PASSWORD).await,
        ),
        done("login", Update, login.await),
    ]
}

async fn on_sessions(db: &Restricted, target: UserId) -> Vec<Done> {
    use Action::{Delete, Read, Update};
    let sessions = db.sessions();
    let token = aura_db::Token::new("x");
    let request = SessionRequest::default();
    vec![
        done("authenticate", Read, sessions.authenticate(&token).await),
        done("issue", Update, sessions.issue(target, request).await),
        done("touch", Update, sessions.touch(1.into()).await),
        done("rotate", Update, sessions.rotate(&token).await),
        done("revoke", Update, sessions.revoke(1.into()).await),
        done(
            "revoke all",
            Update,
            sessions.revoke_all(target, None).await,
        ),
        done("expired", Delete, sessions.delete_expired().await),
    ]
}

async fn every_role_and_operation(db: TestDb) {
    let db = open(&db).await;
    let target = user(&db, "target").await.id;
    for (number, role) in ROLES.into_iter().enumerate() {
        let actor = with_role(&db, role.as_str(), role).await;
        let restricted = db.restricted_to(&actor);
        for (name, needs, result) in operations(&restricted, target, number).await {
            match result {
                Ok(()) => assert!(role.can(needs, Resource::User), "{role} did {name}"),
                Err(Error::Forbidden {
                    user,
                    action,
                    what: "user",
                }) => {
                    assert!(!role.can(needs, Resource::User), "{role} can't {name}");
                    assert_eq!((user, action), (actor.id, needs), "{name}");
                }
                Err(other) => panic!("{role} {name}: {other:?}"),
            }
        }
    }
    let viewer = db.users().get_by_email("viewer@example.org").await;
    let viewer = viewer.expect("there");
    let refused = db.restricted_to(&viewer).users().get(target).await;
    assert_eq!(
        refused.expect_err("refused").to_string(),
        format!("user {} may not read this user", viewer.id)
    );
}

/// What belongs to a workflow is read as far as the role allows it by itself.
async fn details_are_what_the_role_may_read(db: TestDb) {
    let db = open(&db).await;
    let plugin = NewPlugin::new("mail", "1").config_schema(json!({"type": "object"}));
    let plugin = db.plugins().register(plugin).await.expect("registered").id;
    for role in ROLES {
        let actor = with_role(&db, role.as_str(), role).await;
        let flow = NewWorkflow::new("w").owner(actor.id);
        let flow = db.workflows().create(flow).await.expect("created").id;
        db.workflows().attach(flow, plugin).await.expect("attached");
        let restricted = db.restricted_to(&actor);
        let details = restricted.workflows().get_details(flow).await.expect("own");
        let inside = restricted
            .transaction(|tx| async move { tx.workflows().get_details(flow).await })
            .await;
        assert_eq!(inside.expect("own"), details, "{role}");
        assert_eq!(details.workflow.id, flow);
        let owner = details.owner.map(|owner| owner.id);
        let plugins = details.plugins.map(|plugins| plugins[0].id);
        let may = |resource| role.can(Action::Read, resource);
        assert_eq!(owner, may(Resource::User).then_some(actor.id), "{role}");
        assert_eq!(plugins, may(Resource::Plugin).then_some(plugin), "{role}");
    }
}

async fn a_demotion_counts_at_once(db: TestDb) {
    let db = open(&db).await;
    let admin = with_role(&db, "admin", Role::Admin).await;
    let target = user(&db, "target").await.id;
    // The caller's copy of the user still says admin.
    let restricted = db.restricted_to(&admin);
    restricted.users().get(target).await.expect("allowed");
    let demoted = db.users().set_role(admin.id, Role::Viewer).await;
    demoted.expect("demoted");
    assert_error!(
        restricted.users().get(target).await,
        Error::Forbidden { .. }
    );
    assert_error!(
        restricted.users().set_role(admin.id, Role::Admin).await,
        Error::Forbidden { .. }
    );
    db.users()
        .set_role(admin.id, Role::Admin)
        .await
        .expect("promoted");
    restricted.users().get(target).await.expect("allowed again");
}

/// Who has written as an admin is one until the transaction ends.
async fn a_demotion_waits_for_a_transaction(test: TestDb) {
    let db = open(&test).await;
    let admin = with_role(&db, "admin", Role::Admin).await;
    let target = user(&db, "target").await.id;
    let (db, test, admin) = (&db, &test, &admin);
    let demotion = db
        .restricted_to(admin)
        .transaction(|tx| async move {
            tx.users().set_role(target, Role::Editor).await?;
            let (inside, id) = (db.clone(), admin.id);
            let demotion =
                tokio::spawn(async move { inside.users().set_role(id, Role::Viewer).await });
            until_waiting(test, 1).await;
            tx.users().set_role(target, Role::Viewer).await?;
            assert!(!demotion.is_finished(), "it waits");
            Ok::<_, Error>(demotion)
        })
        .await
        .expect("committed");
    demotion.await.expect("no panic").expect("demoted");
    let target = db.users().get(target).await.expect("there");
    assert_eq!(target.role, Role::Viewer, "all that was allowed is done");
    let refused = db.restricted_to(admin).users().get(target.id).await;
    assert_error!(refused, Error::Forbidden { .. });
}

/// Who has only read loses the right in the middle. (On SQLite nobody else
/// writes while a transaction is open.)
async fn a_demotion_counts_within_a_transaction(test: TestDb) {
    if test.backend() == Backend::Sqlite {
        return;
    }
    let db = open(&test).await;
    let admin = with_role(&db, "admin", Role::Admin).await;
    let (db, admin) = (&db, &admin);
    db.restricted_to(admin)
        .transaction(|tx| async move {
            tx.users().get(admin.id).await?;
            db.users().set_role(admin.id, Role::Viewer).await?;
            assert_error!(tx.users().get(admin.id).await, Error::Forbidden { .. });
            let back = tx.users().set_role(admin.id, Role::Admin).await;
            assert_error!(back, Error::Forbidden { .. });
            Ok::<_, Error>(())
        })
        .await
        .expect("committed");
    let role = db.users().get(admin.id).await.expect("there").role;
    assert_eq!(role, Role::Viewer);
}

async fn a_demotion_of_oneself(db: TestDb) {
    let db = open(&db).await;
    let admin = &with_role(&db, "admin", Role::Admin).await;
    let refused: Result<(), Error> = db
        .restricted_to(admin)
        .transaction(|tx| async move {
            tx.users().set_role(admin.id, Role::User).await?;
            tx.users().set_role(admin.id, Role::Admin).await?;
            Ok(())
        })
        .await;
    assert_error!(refused, Error::Forbidden { .. });
    let role = db.users().get(admin.id).await.expect("there").role;
    assert_eq!(role, Role::Admin, "undone with all the rest");
}

async fn who_is_gone_may_nothing(db: TestDb) {
    let db = open(&db).await;
    let target = user(&db, "target").await.id;
    let off = with_role(&db, "off", Role::Admin).await;
    db.users().deactivate(off.id).await.expect("deactivated");
    let gone = with_role(&db, "gone", Role::Admin).await;
    let deleted = db.users().delete(gone.id, OwnedRows::Refuse).await;
    deleted.expect("deleted");
    let purged = with_role(&db, "purged", Role::Admin).await;
    let deleted = db.users().delete(purged.id, OwnedRows::Refuse).await;
    deleted.expect("deleted");
    db.users().purge(purged.id).await.expect("purged");
    for (number, actor) in [off, gone, purged].iter().enumerate() {
        let restricted = db.restricted_to(actor);
        for (name, _, result) in operations(&restricted, target, number).await {
            match result {
                Err(Error::Forbidden { user, .. }) => assert_eq!(user, actor.id),
                other => panic!("{} {name}: {other:?}", actor.name),
            }
        }
    }
    db.users().get(target).await.expect("untouched");
}

async fn nothing_is_done_when_refused(test: TestDb) {
    let db = open(&test).await;
    let viewer = with_role(&db, "viewer", Role::Viewer).await;
    let target = user(&db, "target").await.id;
    session(&db, "target").await;
    let before = test.rows(&["users", "sessions"]).await;
    operations(&db.restricted_to(&viewer), target, 0).await;
    assert_eq!(test.rows(&["users", "sessions"]).await, before);

    // Inside of a transaction a refusal spoils nothing.
    let viewer = &viewer;
    db.transaction(|tx| async move {
        let restricted = tx.restricted_to(viewer);
        let refused = restricted.users().deactivate(target).await;
        assert_error!(refused, Error::Forbidden { .. });
        tx.users().set_role(target, Role::Editor).await
    })
    .await
    .expect("committed");
}

async fn nested_ones_are_restricted(db: TestDb) {
    let db = open(&db).await;
    let editor = &with_role(&db, "editor", Role::Editor).await;
    db.restricted_to(editor)
        .transaction(|tx| async move {
            tx.users().get(editor.id).await?;
            let nested: Result<(), Error> = tx
                .transaction(|inner| async move {
                    inner.users().get(editor.id).await?;
                    inner.users().set_role(editor.id, Role::Admin).await?;
                    Ok(())
                })
                .await;
            assert_error!(nested, Error::Forbidden { .. });
            tx.users().get(editor.id).await
        })
        .await
        .expect("committed");
    let role = db.users().get(editor.id).await.expect("there").role;
    assert_eq!(role, Role::Editor);
}

/// A part of a transaction for one user, another for the system.
async fn a_transaction_for_a_user(db: TestDb) {
    let db = open(&db).await;
    let admin = &with_role(&db, "admin", Role::Admin).await;
    let target = user(&db, "target").await.id;
    db.transaction(|tx| async move {
        tx.restricted_to(admin)
            .users()
            .set_role(target, Role::Editor)
            .await?;
        tx.users().set_role(admin.id, Role::User).await?;
        let again = tx.restricted_to(admin).users().get(target).await;
        assert_error!(again, Error::Forbidden { .. });
        Ok::<_, Error>(())
    })
    .await
    .expect("committed");
    let target = db.users().get(target).await.expect("there");
    assert_eq!(
        (target.role, target.updated_by),
        (Role::Editor, Some(admin.id))
    );
}

async fn an_editor_sees_own_sessions(db: TestDb) {
    let db = open(&db).await;
    let editor = with_role(&db, "editor", Role::Editor).await;
    let admin = with_role(&db, "admin", Role::Admin).await;
    session(&db, "editor").await;
    session(&db, "admin").await;
    let restricted = db.restricted_to(&editor);
    let own = restricted.sessions().list(editor.id).await.expect("own");
    assert_eq!(own.len(), 1);
    assert_error!(
        restricted.sessions().list(admin.id).await,
        Error::Forbidden {
            action: Action::Read,
            ..
        }
    );
    let any = db.restricted_to(&admin).sessions().list(editor.id).await;
    assert_eq!(any.expect("an admin's").len(), 1);
}
