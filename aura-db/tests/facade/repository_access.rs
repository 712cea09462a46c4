//! What the roles of users allow with an application's own entity.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{
    ActiveValue::{NotSet, Set},
    Condition, IntoActiveModel,
};
use aura_db::{
    Action, Database, Deleted, Error, PageRequest, Repository, RepositoryEntity, Role, Scope, Sort,
    User, UserId,
};
use testdb::TestDb;

use crate::repository::{quota, with_credentials};
use crate::support::{assert_error, user};

testdb::both!(migrated:
    a_policy_says_what_a_role_may_do,
    rows_of_others_are_hidden,
    a_filter_of_alternatives_reaches_own_rows_only,
    new_rows_belong_to_the_user,
    a_demotion_counts_at_once,
    without_a_policy_everything_is_refused,
    related_rows_have_a_policy_of_their_own,
);

mod secret {
    use super::*;

    /// The table of credentials, with a policy.
    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "credentials")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) name: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub(super) note: Option<String>,
        pub(super) uses: i64,
        pub(super) owner_id: UserId,
        pub(super) version: i64,
        pub(super) created_at: DateTimeUtc,
        pub(super) updated_at: DateTimeUtc,
        pub(super) deleted_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}

    impl Related<quota::Entity> for Entity {
        fn to() -> RelationDef {
            Entity::belongs_to(quota::Entity)
                .from(Column::OwnerId)
                .to(quota::Column::UserId)
                .into()
        }
    }
}

/// Admins may do everything, viewers read everything, editors do everything but delete to
/// what they own, and users nothing.
impl RepositoryEntity for secret::Entity {
    fn name() -> &'static str {
        "secret"
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        match role {
            "admin" => Some(Scope::Any),
            "viewer" => (action == Action::Read).then_some(Scope::Any),
            "editor" => (action != Action::Delete).then_some(Scope::Own),
            _ => None,
        }
    }
}

fn secret(name: &str) -> secret::ActiveModel {
    secret::ActiveModel {
        name: Set(name.to_owned()),
        uses: Set(0),
        version: Set(1),
        ..Default::default()
    }
}

async fn with_role(db: &Database, name: &str, role: Role) -> User {
    let user = user(db, name).await;
    let user = db.users().set_role(user.id, role).await;
    user.expect("changed")
}

/// What became of an operation.
fn outcome<T>(result: Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Error::Forbidden { what: "secret", .. }) => "forbidden",
        Err(Error::NotFound { .. }) => "missing",
        Err(other) => panic!("{other:?}"),
    }
}

/// Does everything to a row and returns what became of it, reads, then writes, then deletes.
async fn everything(
    secrets: &Repository<secret::Entity>,
    row: &secret::Model,
) -> [Vec<&'static str>; 3] {
    let id = row.id;
    let named = || secret::COLUMN.id.eq(id);
    let change = || secret::ActiveModel {
        note: Set(Some("x".to_owned())),
        ..row.clone().into_active_model()
    };
    let reads = vec![
        outcome(secrets.get(id).await),
        outcome(secrets.find_by(named()).await),
        outcome(secrets.count(()).await),
        outcome(secrets.exists(named()).await),
        outcome(secrets.sum::<i64>(secret::Column::Uses, ()).await),
        outcome(
            secrets
                .list((), &Sort::default(), PageRequest::first(5))
                .await,
        ),
        outcome(
            secrets
                .query([secret::Column::Id])
                .and("id", "eq", id)
                .count()
                .await,
        ),
    ];
    let writes = vec![
        outcome(secrets.update(change()).await),
        outcome(secrets.increment(id, secret::Column::Uses, 1).await),
        outcome(secrets.save(change()).await),
        outcome(secrets.update_where(named(), change()).await),
    ];
    let deletes = vec![
        outcome(secrets.delete(id).await),
        outcome(secrets.restore(id).await),
        outcome(secrets.delete_where(named()).await),
        outcome(secrets.purge(id).await),
    ];
    [reads, writes, deletes]
}

async fn a_policy_says_what_a_role_may_do(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let all = db.acting_as(ada).repository::<secret::Entity>();
    let matrix = [
        (Role::Admin, ["done"; 3]),
        (Role::Viewer, ["done", "forbidden", "forbidden"]),
        (Role::User, ["forbidden"; 3]),
    ];
    for (role, expected) in matrix {
        let row = all.insert(secret(role.as_str())).await.expect("inserted");
        let actor = with_role(&db, role.as_str(), role).await;
        let restricted = db.restricted_to(&actor);
        let secrets = restricted.repository::<secret::Entity>();
        let outcomes = everything(&secrets, &row).await;
        for (outcomes, expected) in outcomes.iter().zip(expected) {
            assert!(
                outcomes.iter().all(|outcome| *outcome == expected),
                "{role}: {outcomes:?}"
            );
        }
        // In a transaction too.
        let inside = restricted
            .transaction(|tx| {
                let row = row.clone();
                async move {
                    let secrets = tx.repository::<secret::Entity>();
                    Ok::<_, Error>(outcome(secrets.find(row.id).await))
                }
            })
            .await;
        assert_eq!(inside.expect("committed"), expected[0], "{role}");
    }
}

async fn rows_of_others_are_hidden(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let editor = with_role(&db, "editor", Role::Editor).await;
    let all = db.acting_as(ada).repository::<secret::Entity>();
    let theirs = all.insert(secret("a")).await.expect("inserted");
    let restricted = db.restricted_to(&editor);
    let secrets = restricted.repository::<secret::Entity>();
    let mine = secrets.insert(secret("a")).await.expect("inserted");
    assert_eq!(mine.owner_id, editor.id);

    let named = secret::COLUMN.name.eq("a");
    assert_eq!(
        secrets.find_by(named.clone()).await.expect("read"),
        std::slice::from_ref(&mine)
    );
    assert_eq!(secrets.count(()).await.expect("read"), 1);
    assert_eq!(secrets.find(theirs.id).await.expect("read"), None);
    assert_eq!(
        secrets.find(mine.id).await.expect("read"),
        Some(mine.clone())
    );
    assert_eq!(
        secrets.find_many([theirs.id, mine.id]).await.expect("read"),
        std::slice::from_ref(&mine)
    );
    assert!(
        !secrets
            .exists(secret::COLUMN.id.eq(theirs.id))
            .await
            .expect("read")
    );
    let with_deleted = secrets.deleted(Deleted::Included);
    assert_eq!(with_deleted.count(()).await.expect("read"), 1);
    let page = secrets
        .list((), &Sort::default(), PageRequest::number(1, 5))
        .await;
    assert_eq!(page.expect("a page").total, Some(1));

    let change = || secret::ActiveModel {
        note: Set(Some("x".to_owned())),
        ..theirs.clone().into_active_model()
    };
    assert_eq!(outcome(secrets.update(change()).await), "missing");
    let uses = secret::Column::Uses;
    assert_eq!(
        outcome(secrets.increment(theirs.id, uses, 1).await),
        "missing"
    );
    let all_of_them = secrets.update_where(named, change_note("y")).await;
    assert_eq!(all_of_them.expect("updated"), 1);
    assert_eq!(all.get(theirs.id).await.expect("there"), theirs);
    assert_eq!(outcome(secrets.delete(mine.id).await), "forbidden");
}

fn change_note(note: &str) -> secret::ActiveModel {
    secret::ActiveModel {
        note: Set(Some(note.to_owned())),
        ..Default::default()
    }
}

async fn a_filter_of_alternatives_reaches_own_rows_only(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let editor = with_role(&db, "editor", Role::Editor).await;
    let all = db.acting_as(ada).repository::<secret::Entity>();
    let theirs = all.insert(secret("a")).await.expect("inserted");
    let secrets = db.restricted_to(&editor).repository::<secret::Entity>();
    let mine = secrets.insert(secret("b")).await.expect("inserted");
    let any = || {
        Condition::any()
            .add(secret::COLUMN.id.eq(theirs.id))
            .add(secret::COLUMN.id.gt(0))
    };
    assert_eq!(secrets.count(any()).await.expect("read"), 1);
    let changed = secrets.update_where(any(), change_note("x")).await;
    assert_eq!(changed.expect("updated"), 1);
    let select = secret::Entity::find().filter(any());
    let changed = secrets.update_where(select, change_note("y")).await;
    assert_eq!(changed.expect("updated"), 1);
    let either = secrets
        .query([secret::Column::Id])
        .filter(&serde_json::json!({ "or": [{ "id": theirs.id }, { "not": { "id": 0 } }] }))
        .list(PageRequest::first(5))
        .await
        .expect("a page");
    assert_eq!(either.items.len(), 1);
    assert_eq!(either.items[0].id, mine.id);
    assert_eq!(all.get(theirs.id).await.expect("there"), theirs);
}

async fn new_rows_belong_to_the_user(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let editor = with_role(&db, "editor", Role::Editor).await;
    let secrets = db.restricted_to(&editor).repository::<secret::Entity>();
    let for_ada = || secret::ActiveModel {
        owner_id: Set(ada),
        ..secret("a")
    };
    assert_eq!(outcome(secrets.insert(for_ada()).await), "forbidden");
    assert_eq!(outcome(secrets.save(for_ada()).await), "forbidden");
    let many = [secret("b"), for_ada()];
    assert_eq!(outcome(secrets.insert_many(many).await), "forbidden");
    let unique = [secret::Column::OwnerId, secret::Column::Name];
    assert_eq!(
        outcome(secrets.upsert(for_ada(), &unique).await),
        "forbidden"
    );
    let mine = secrets.insert(secret("a")).await.expect("inserted");
    // What a row that was read has unchanged is inserted too.
    let copy = || {
        let theirs = secret::Model {
            owner_id: ada,
            name: "copy".to_owned(),
            ..mine.clone()
        };
        secret::ActiveModel {
            id: NotSet,
            ..theirs.into_active_model()
        }
    };
    assert_eq!(outcome(secrets.insert(copy()).await), "forbidden");
    assert_eq!(outcome(secrets.save(copy()).await), "forbidden");
    assert_eq!(outcome(secrets.insert_many([copy()]).await), "forbidden");
    assert_eq!(outcome(secrets.upsert(copy(), &unique).await), "forbidden");
    // An owner is no number to add to.
    let moved = secrets.increment(mine.id, secret::Column::OwnerId, 1).await;
    assert_error!(moved, Error::Validation(_));
    // Without a user no row is one's own.
    let rows = db.repository::<secret::Entity>().with_role("editor");
    assert_eq!(outcome(rows.count(()).await), "forbidden");
    let give_away = secret::ActiveModel {
        owner_id: Set(ada),
        ..mine.clone().into_active_model()
    };
    assert_eq!(
        outcome(secrets.update(give_away.clone()).await),
        "forbidden"
    );
    assert_eq!(
        outcome(secrets.update_where((), give_away).await),
        "forbidden"
    );
    let admin = with_role(&db, "admin", Role::Admin).await;
    let any = db.restricted_to(&admin).repository::<secret::Entity>();
    let hers = any.insert(for_ada()).await.expect("inserted");
    assert_eq!(hers.owner_id, ada);
    // What conflicts with a row of another user's stays as it is.
    let taken = secrets.upsert(
        secret::ActiveModel {
            owner_id: Set(editor.id),
            ..secret("a")
        },
        &unique,
    );
    assert_eq!(taken.await.expect("updated").id, mine.id);
}

async fn a_demotion_counts_at_once(test: TestDb) {
    let (db, _) = with_credentials(&test).await;
    let editor = with_role(&db, "editor", Role::Editor).await;
    let secrets = db.restricted_to(&editor).repository::<secret::Entity>();
    secrets.insert(secret("a")).await.expect("inserted");
    db.users()
        .set_role(editor.id, Role::User)
        .await
        .expect("changed");
    let error = secrets.insert(secret("b")).await.expect_err("forbidden");
    assert!(
        matches!(error, Error::Forbidden { user, action: Action::Create, what: "secret" }
            if user == editor.id),
        "{error:?}"
    );
    db.users()
        .set_role(editor.id, Role::Editor)
        .await
        .expect("changed");
    assert_eq!(secrets.count(()).await.expect("read"), 1);
    db.users().deactivate(editor.id).await.expect("changed");
    assert_eq!(outcome(secrets.count(()).await), "forbidden");
}

async fn without_a_policy_everything_is_refused(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let admin = with_role(&db, "admin", Role::Admin).await;
    let restricted = db.restricted_to(&admin);
    let quotas = restricted.repository::<quota::Entity>();
    let key = || (ada, "runs".to_owned());
    assert_error!(
        quotas.find(key()).await,
        Error::Forbidden {
            action: Action::Read,
            what: "quotas",
            ..
        }
    );
    assert_error!(quotas.delete(key()).await, Error::Forbidden { .. });
    assert_error!(quotas.count(()).await, Error::Forbidden { .. });
}

async fn related_rows_have_a_policy_of_their_own(test: TestDb) {
    let (db, _) = with_credentials(&test).await;
    let admin = with_role(&db, "admin", Role::Admin).await;
    let secrets = db.restricted_to(&admin).repository::<secret::Entity>();
    let row = secrets.insert(secret("a")).await.expect("inserted");
    assert_error!(
        secrets.load_many::<quota::Entity>(&[row]).await,
        Error::Forbidden {
            action: Action::Read,
            what: "quotas",
            ..
        }
    );
}
