//! Whose rows a user reaches: those that another table says are the user's own, and those
//! that the user may read and not write.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{ActiveValue::Set, Condition, IntoActiveModel, QuerySelect, QueryTrait};
use aura_db::workflows::EarlierVersion;
use aura_db::{
    Action, Database, Error, NewWorkflow, PageRequest, Repository, RepositoryEntity, Role, Scope,
    Sort, User, WorkflowId,
};
use testdb::TestDb;

use crate::support::{assert_error, open, own_types, refused, user};

testdb::both!(migrated:
    rows_of_own_workflows_are_reached,
    some_columns_are_listed,
    what_may_be_read_and_not_written_is_forbidden,
    a_key_of_another_is_not_found_out,
    aura_tables_are_hidden_alike,
);

mod delivery {
    use super::*;

    /// Belongs to a workflow, and so to its owner.
    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "deliveries")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) workflow_id: WorkflowId,
        pub(super) attempts: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for delivery::Entity {
    fn name() -> &'static str {
        "delivery"
    }

    fn policy(role: &str, _: Action) -> Option<Scope> {
        match role {
            "admin" => Some(Scope::Any),
            "user" => Some(Scope::Own),
            _ => None,
        }
    }

    fn own_rows(user: i64) -> Option<Condition> {
        use aura_db::entity::workflows;
        let own = workflows::Entity::find()
            .select_only()
            .column(workflows::Column::Id)
            .filter(workflows::Column::OwnerId.eq(user));
        Some(Condition::all().add(delivery::Column::WorkflowId.in_subquery(own.into_query())))
    }
}

mod post {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "posts")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) likes: i64,
        pub(super) owner_id: i64,
        pub(super) deleted_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Everyone reads all posts, and writes own ones.
impl RepositoryEntity for post::Entity {
    fn name() -> &'static str {
        "post"
    }

    fn policy(_: &str, action: Action) -> Option<Scope> {
        Some(match action {
            Action::Read => Scope::Any,
            _ => Scope::Own,
        })
    }
}

async fn with_tables(test: &TestDb) -> (Database, [User; 2]) {
    let db = open(test).await;
    let users = [user(&db, "ada").await, user(&db, "bob").await];
    let (key, time) = own_types(&db);
    test.execute(&format!(
        "CREATE TABLE deliveries (id {key}, workflow_id bigint NOT NULL REFERENCES workflows (id),
         attempts bigint NOT NULL)"
    ))
    .await;
    test.execute(&format!(
        "CREATE TABLE posts (id {key}, likes bigint NOT NULL, owner_id bigint NOT NULL,
         deleted_at {time})"
    ))
    .await;
    (db, users)
}

async fn workflow(db: &Database, owner: &User) -> WorkflowId {
    let new = NewWorkflow::new("w").owner(owner.id);
    db.workflows().create(new).await.expect("created").id
}

fn delivery(workflow: WorkflowId) -> delivery::ActiveModel {
    delivery::ActiveModel {
        workflow_id: Set(workflow),
        attempts: Set(0),
        ..Default::default()
    }
}

aura_db::projection! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Attempts of delivery {
        id: i64 = Id,
        attempts: i64 = Attempts,
    }
}

/// A list of some columns goes on by cursor, and shows own rows only.
async fn some_columns_are_listed(test: TestDb) {
    let (db, [ada, bob]) = with_tables(&test).await;
    let (adas, bobs) = (workflow(&db, &ada).await, workflow(&db, &bob).await);
    let all = db.repository::<delivery::Entity>();
    for (attempts, flow) in [(3, adas), (5, bobs), (1, adas), (2, adas)] {
        let row = delivery::ActiveModel {
            attempts: Set(attempts),
            ..delivery(flow)
        };
        all.insert(row).await.expect("inserted");
    }
    let own = db.restricted_to(&ada).repository::<delivery::Entity>();
    let most = Sort::desc(delivery::Column::Attempts);
    let first = own
        .list_as::<Attempts>((), &most, PageRequest::first(2))
        .await;
    let first = first.expect("a page");
    let next = first.next.expect("another page");
    let second = own
        .list_as::<Attempts>((), &most, PageRequest::after(next, 2))
        .await;
    let rows = first.items.into_iter().chain(second.expect("a page").items);
    let attempts: Vec<i64> = rows.map(|row| row.attempts).collect();
    assert_eq!(attempts, [3, 2, 1]);
}

async fn rows_of_own_workflows_are_reached(test: TestDb) {
    let (db, [ada, bob]) = with_tables(&test).await;
    let (adas, bobs) = (workflow(&db, &ada).await, workflow(&db, &bob).await);
    let all = db.repository::<delivery::Entity>();
    let theirs = all.insert(delivery(bobs)).await.expect("inserted");
    let restricted = db.restricted_to(&ada);
    let own = restricted.repository::<delivery::Entity>();
    let mine = own.insert(delivery(adas)).await.expect("inserted");

    assert_eq!(
        own.find_by(()).await.expect("read"),
        std::slice::from_ref(&mine)
    );
    assert_eq!(own.find(mine.id).await.expect("read"), Some(mine.clone()));
    assert_eq!(own.find(theirs.id).await.expect("read"), None);
    assert_error!(
        own.get(theirs.id).await,
        Error::NotFound {
            what: "delivery",
            ..
        }
    );
    let attempts = delivery::Column::Attempts;
    let again = own.increment(mine.id, attempts, 1).await.expect("added");
    assert_eq!(again.attempts, 1);
    assert_error!(
        own.increment(theirs.id, attempts, 1).await,
        Error::NotFound { .. }
    );
    assert_error!(own.delete(theirs.id).await, Error::NotFound { .. });

    // Nor does an error say whether there is such a workflow.
    let nowhere = WorkflowId(9_999);
    let changed = delivery::ActiveModel {
        workflow_id: Set(nowhere),
        ..again.clone().into_active_model()
    };
    for result in [
        own.insert(delivery(nowhere)).await,
        own.update(changed.clone()).await,
        own.save(changed).await,
    ] {
        assert_error!(result, Error::Forbidden { .. });
    }
    assert_error!(
        all.insert(delivery(nowhere)).await,
        Error::ForeignKey { .. }
    );

    // Neither a new row nor one of theirs may go to another's workflow.
    assert_error!(
        own.insert(delivery(bobs)).await,
        Error::Forbidden {
            action: Action::Create,
            ..
        }
    );
    let moved = || delivery::ActiveModel {
        workflow_id: Set(bobs),
        ..again.clone().into_active_model()
    };
    assert_error!(
        own.update(moved()).await,
        Error::Forbidden {
            action: Action::Update,
            ..
        }
    );
    assert_error!(own.save(moved()).await, Error::Forbidden { .. });
    assert_error!(own.update_where((), moved()).await, Error::Forbidden { .. });
    assert_error!(
        own.insert_many([delivery(adas)]).await,
        Error::Forbidden { .. }
    );
    assert_eq!(
        all.find_by(()).await.expect("read"),
        [theirs.clone(), again.clone()]
    );
    let inside: Result<(), Error> = restricted
        .transaction(|tx| async move {
            let own = tx.repository::<delivery::Entity>();
            assert_error!(own.insert(delivery(bobs)).await, Error::Forbidden { .. });
            Ok(())
        })
        .await;
    assert_error!(inside, Error::Aborted);
    assert_eq!(own.delete_where(()).await.expect("deleted"), 1);
    assert_eq!(all.find_by(()).await.expect("read"), [theirs]);
}

/// Does all that needs a row of one's own, and returns the errors.
async fn refusals(posts: &Repository<post::Entity>, row: &post::Model) -> Vec<Error> {
    let change = post::ActiveModel {
        likes: Set(9),
        ..row.clone().into_active_model()
    };
    let results = [
        posts.update(change).await.map(|_| ()),
        posts
            .increment(row.id, post::Column::Likes, 1)
            .await
            .map(|_| ()),
        posts.delete(row.id).await,
        posts.restore(row.id).await.map(|_| ()),
        posts.purge(row.id).await,
    ];
    let errors = results
        .into_iter()
        .map(|result| result.expect_err("refused"));
    errors.collect()
}

async fn what_may_be_read_and_not_written_is_forbidden(test: TestDb) {
    let (db, [ada, bob]) = with_tables(&test).await;
    let new = || post::ActiveModel {
        likes: Set(0),
        ..Default::default()
    };
    let bobs = db.restricted_to(&bob).repository::<post::Entity>();
    let theirs = bobs.insert(new()).await.expect("inserted");
    assert_eq!(theirs.owner_id, bob.id.0);
    let posts = db.restricted_to(&ada).repository::<post::Entity>();
    assert_eq!(posts.get(theirs.id).await.expect("readable"), theirs);
    for error in refusals(&posts, &theirs).await {
        let shown = error.to_string();
        assert_error!(Err::<(), _>(error), Error::Forbidden { what: "post", .. });
        assert!(
            shown.starts_with(&format!("user {} may not ", ada.id)),
            "{shown}"
        );
    }
    // One that can't be read is hidden.
    bobs.delete(theirs.id).await.expect("deleted");
    for error in refusals(&posts, &theirs).await {
        assert_error!(Err::<(), _>(error), Error::NotFound { .. });
    }
    assert_eq!(posts.count(()).await.expect("read"), 0);
}

/// The repositories of AURA's tables say the same of the rows of others.
async fn aura_tables_are_hidden_alike(test: TestDb) {
    let (db, [ada, bob]) = with_tables(&test).await;
    let ada = db
        .users()
        .set_role(ada.id, Role::Editor)
        .await
        .expect("changed");
    let theirs = workflow(&db, &bob).await;
    let workflows = db.restricted_to(&ada).workflows();
    assert_eq!(workflows.find(theirs).await.expect("an answer"), None);
    let change = aura_db::WorkflowChange::new().name("x");
    let page = aura_db::PageRequest::first(1);
    let results = [
        workflows.get(theirs).await.map(|_| ()),
        workflows.get_details(theirs).await.map(|_| ()),
        workflows.update(theirs, 1, change).await.map(|_| ()),
        workflows
            .restore_version(theirs, 1, EarlierVersion(1))
            .await
            .map(|_| ()),
        workflows.history(theirs, page).await.map(|_| ()),
        workflows.activate(theirs).await.map(|_| ()),
        workflows.duplicate(theirs, None).await.map(|_| ()),
        workflows.delete(theirs).await,
        workflows.restore(theirs).await.map(|_| ()),
        workflows.purge(theirs).await,
    ];
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Err(Error::NotFound {
                what: "workflow", ..
            }) => {}
            other => panic!("{index}: {other:?}"),
        }
    }
    let for_bob = NewWorkflow::new("w").owner(bob.id);
    assert_error!(workflows.create(for_bob).await, Error::Forbidden { .. });
    // An entity of AURA's has a repository, too, with the same policy.
    let rows = db
        .restricted_to(&ada)
        .repository::<aura_db::entity::workflows::Entity>();
    assert_eq!(rows.count(()).await.expect("read"), 0);
}

/// A key that another's hidden row has is refused as one that none has.
async fn a_key_of_another_is_not_found_out(test: TestDb) {
    let (db, [ada, bob]) = with_tables(&test).await;
    let (adas, bobs) = (workflow(&db, &ada).await, workflow(&db, &bob).await);
    let all = db.repository::<delivery::Entity>();
    let theirs = all.insert(delivery(bobs)).await.expect("inserted");
    let own = db.restricted_to(&ada).repository::<delivery::Entity>();
    let mine = own.insert(delivery(adas)).await.expect("inserted");
    let with_key = |id: i64| delivery::ActiveModel {
        id: Set(id),
        ..delivery(adas)
    };
    let posts = db.restricted_to(&ada).repository::<post::Entity>();
    for id in [theirs.id, 9_999] {
        assert_eq!(refused(own.insert(with_key(id)).await), ["key"]);
        assert_error!(own.save(with_key(id)).await, Error::NotFound { .. });
        let post = post::ActiveModel {
            id: Set(id),
            likes: Set(0),
            ..Default::default()
        };
        assert_eq!(refused(posts.insert_many([post.clone()]).await), ["key"]);
        let unique = [post::Column::Id];
        assert_eq!(refused(posts.upsert(post, &unique).await), ["key"]);
    }
    own.save(with_key(mine.id)).await.expect("one's own");
    assert_eq!(all.count(()).await.expect("counted"), 2);
    // Who reaches all rows may choose.
    all.insert(with_key(77)).await.expect("inserted");
}
