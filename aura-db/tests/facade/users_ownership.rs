use std::time::Duration;

use aura_db::users::{NewOwner, OwnedRows};
use aura_db::{Database, Error, UserId};
use testdb::TestDb;

use crate::people::{agent, agent_row, login, opens, session, user_row, workflow, workflow_row};
use crate::support::{PASSWORD, assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    refused_while_owning, deleted_alone, handed_over, the_heir_has_an_agent_of_that_name,
    who_can_inherit, deleted_with_everything, restored_with_the_same, restored_twice,
    transferring, purging, purging_takes_everything, deleting_each_other,
    a_failed_deletion_leaves_everything,
);

/// Deletes a row of a user's own, as another repository would have.
async fn delete_workflow(test: &TestDb, id: aura_db::WorkflowId) {
    test.execute(&format!(
        "UPDATE workflows SET deleted_at = '2025-01-01T00:00:00+00:00' WHERE id = {id}"
    ))
    .await;
}

async fn delete_agent(test: &TestDb, id: aura_db::AgentId) {
    test.execute(&format!(
        "UPDATE agents SET deleted_at = '2025-01-01T00:00:00+00:00' WHERE id = {id}"
    ))
    .await;
}

async fn delete(db: &Database, id: UserId, owned: OwnedRows) -> Result<(), Error> {
    db.users().delete(id, owned).await
}

async fn refused_while_owning(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let issued = session(&db, "ada").await;
    let old = workflow(&db, ada.id, "old").await;
    delete_workflow(&test, old).await;
    workflow(&db, ada.id, "one").await;
    workflow(&db, ada.id, "two").await;
    let helper = agent(&db, ada.id, "helper").await;

    match delete(&db, ada.id, OwnedRows::Refuse).await {
        Err(Error::OwnsRows {
            user,
            workflows: 2,
            agents: 1,
        }) => assert_eq!(user, ada.id),
        other => panic!("{other:?}"),
    }
    assert_eq!(db.users().get(ada.id).await.expect("there"), ada);
    assert!(opens(&db, &issued).await);

    test.execute("DELETE FROM workflows").await;
    assert_error!(
        delete(&db, ada.id, OwnedRows::Refuse).await,
        Error::OwnsRows {
            workflows: 0,
            agents: 1,
            ..
        }
    );
    delete_agent(&test, helper).await;
    let deleted = delete(&db, ada.id, OwnedRows::Refuse).await;
    deleted.expect("what is deleted doesn't count");
}

async fn deleted_alone(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let ada = user(&db, "ada").await;
    user(&db, "bob").await;
    let (issued, other) = (session(&db, "ada").await, session(&db, "bob").await);
    clock.advance(Duration::from_secs(1));
    delete(&db, ada.id, OwnedRows::default())
        .await
        .expect("deleted");
    let row = user_row(&db, ada.id).await;
    assert_eq!(row.deleted_at, Some(db.now()));
    assert_eq!(row.updated_at, db.now());
    assert!(!opens(&db, &issued).await && opens(&db, &other).await);
    let again = delete(&db, ada.id, OwnedRows::Refuse).await;
    assert_error!(again, Error::NotFound { what: "user", .. });

    clock.advance(Duration::from_secs(1));
    let back = db.users().restore(ada.id).await.expect("restored");
    assert_eq!((back.deleted_at, back.updated_at), (None, db.now()));
    assert!(!opens(&db, &issued).await, "without the sessions");
    login(&db, "ada", PASSWORD)
        .await
        .expect("with the password");
}

async fn handed_over(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let (one, old) = (
        workflow(&db, ada, "one").await,
        workflow(&db, ada, "old").await,
    );
    let helper = agent(&db, ada, "helper").await;
    delete_workflow(&test, old).await;
    clock.advance(Duration::from_secs(1));
    delete(&db, ada, OwnedRows::TransferTo(bob))
        .await
        .expect("deleted");
    let row = workflow_row(&db, one).await;
    assert_eq!((row.owner_id, row.deleted_at), (bob, None));
    assert_eq!((row.updated_at, row.version), (db.now(), 1));
    assert_eq!(agent_row(&db, helper).await.owner_id, bob);
    assert_eq!(
        workflow_row(&db, old).await.owner_id,
        ada,
        "what was deleted stays"
    );

    db.users().restore(ada).await.expect("restored");
    assert_eq!(workflow_row(&db, one).await.owner_id, bob, "a gift is one");
    assert!(workflow_row(&db, old).await.deleted_at.is_some());
}

async fn the_heir_has_an_agent_of_that_name(test: TestDb) {
    let db = open(&test).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let one = workflow(&db, ada, "one").await;
    agent(&db, ada, "helper").await;
    let buried = agent(&db, ada, "buried").await;
    let theirs = agent(&db, bob, "helper").await;
    for deleted in [false, true] {
        if deleted {
            delete_agent(&test, theirs).await;
        }
        for result in [
            delete(&db, ada, OwnedRows::TransferTo(bob)).await,
            db.users().transfer(ada, NewOwner(bob)).await.map(|_| ()),
        ] {
            match result {
                Err(Error::Conflict {
                    table,
                    columns,
                    deleted: told,
                }) => {
                    assert_eq!((table.as_str(), told), ("agents", deleted));
                    assert_eq!(columns, ["name", "owner_id"]);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(workflow_row(&db, one).await.owner_id, ada);
        assert!(db.users().find(ada).await.expect("rows").is_some());
    }
    // A name of a deleted agent of one's own is no obstacle.
    test.execute(&format!("DELETE FROM agents WHERE id = {theirs}"))
        .await;
    delete_agent(&test, buried).await;
    agent(&db, bob, "buried").await;
    let given = db
        .users()
        .transfer(ada, NewOwner(bob))
        .await
        .expect("transferred");
    assert_eq!((given.workflows, given.agents), (1, 1));
}

async fn who_can_inherit(test: TestDb) {
    let db = open(&test).await;
    let (ada, gone) = (user(&db, "ada").await.id, user(&db, "gone").await.id);
    let one = workflow(&db, ada, "one").await;
    delete(&db, gone, OwnedRows::Refuse).await.expect("deleted");
    for heir in [gone, 4711.into()] {
        for result in [
            delete(&db, ada, OwnedRows::TransferTo(heir)).await,
            db.users().transfer(ada, NewOwner(heir)).await.map(|_| ()),
            db.users().transfer(heir, NewOwner(ada)).await.map(|_| ()),
        ] {
            match result {
                Err(Error::NotFound { what: "user", key }) => assert_eq!(key, heir.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }
    // Not oneself: a deleted user would own what is not deleted.
    assert_eq!(
        refused(delete(&db, ada, OwnedRows::TransferTo(ada)).await),
        ["heir"]
    );
    assert_eq!(
        refused(db.users().transfer(ada, NewOwner(ada)).await),
        ["heir"]
    );
    assert!(db.users().find(ada).await.expect("rows").is_some());
    assert_eq!(workflow_row(&db, one).await.owner_id, ada);
}

async fn deleted_with_everything(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let one = workflow(&db, ada, "one").await;
    let helper = agent(&db, ada, "helper").await;
    let (other, theirs) = (
        workflow(&db, bob, "one").await,
        agent(&db, bob, "helper").await,
    );
    clock.advance(Duration::from_secs(1));
    delete(&db, ada, OwnedRows::Delete).await.expect("deleted");
    let (flow, assistant) = (workflow_row(&db, one).await, agent_row(&db, helper).await);
    assert_eq!(flow.deleted_at, Some(db.now()));
    assert_eq!(assistant.deleted_at, Some(db.now()));
    assert!(flow.deleted_with_owner && assistant.deleted_with_owner);
    assert_eq!(
        (flow.updated_at, assistant.updated_at),
        (db.now(), db.now())
    );
    assert_eq!((flow.owner_id, assistant.owner_id), (ada, ada));
    assert_eq!(workflow_row(&db, other).await.deleted_at, None);
    assert_eq!(agent_row(&db, theirs).await.deleted_at, None);
}

async fn restored_with_the_same(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let (one, old) = (
        workflow(&db, ada, "one").await,
        workflow(&db, ada, "old").await,
    );
    let (helper, retired) = (
        agent(&db, ada, "helper").await,
        agent(&db, ada, "retired").await,
    );
    let other = workflow(&db, bob, "one").await;
    delete_workflow(&test, old).await;
    delete_agent(&test, retired).await;
    delete(&db, ada, OwnedRows::Delete).await.expect("deleted");
    delete(&db, bob, OwnedRows::Delete).await.expect("deleted");
    clock.advance(Duration::from_secs(1));

    db.users().restore(ada).await.expect("restored");
    let (flow, assistant) = (workflow_row(&db, one).await, agent_row(&db, helper).await);
    assert_eq!((flow.deleted_at, assistant.deleted_at), (None, None));
    assert!(!flow.deleted_with_owner && !assistant.deleted_with_owner);
    assert_eq!(
        (flow.updated_at, assistant.updated_at),
        (db.now(), db.now())
    );
    assert!(
        workflow_row(&db, old).await.deleted_at.is_some(),
        "deleted before, and not with the owner"
    );
    assert!(agent_row(&db, retired).await.deleted_at.is_some());
    assert!(
        workflow_row(&db, other).await.deleted_at.is_some(),
        "another's"
    );
}

async fn restored_twice(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let ada = user(&db, "ada").await;
    let same = db.users().restore(ada.id).await.expect("not deleted");
    assert_eq!(same, ada);
    let one = workflow(&db, ada.id, "one").await;
    delete(&db, ada.id, OwnedRows::Delete)
        .await
        .expect("deleted");
    db.users().restore(ada.id).await.expect("restored");
    // Deleted alone afterwards: a second restore brings nothing back.
    delete_workflow(&test, one).await;
    clock.advance(Duration::from_secs(1));
    let before = user_row(&db, ada.id).await;
    assert_eq!(db.users().restore(ada.id).await.expect("there"), before);
    assert!(workflow_row(&db, one).await.deleted_at.is_some());
    // And neither does the next time.
    delete(&db, ada.id, OwnedRows::Delete)
        .await
        .expect("deleted");
    db.users().restore(ada.id).await.expect("restored");
    assert!(workflow_row(&db, one).await.deleted_at.is_some());
    assert_error!(
        db.users().restore(4711.into()).await,
        Error::NotFound { what: "user", .. }
    );
}

async fn transferring(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let (ada, bob) = (user(&db, "ada").await, user(&db, "bob").await);
    let issued = session(&db, "ada").await;
    let mut flows = Vec::new();
    for name in ["one", "two", "three"] {
        flows.push(workflow(&db, ada.id, name).await);
    }
    delete_workflow(&test, flows[2]).await;
    agent(&db, ada.id, "helper").await;
    let theirs = workflow(&db, bob.id, "one").await;
    let before = workflow_row(&db, theirs).await;
    clock.advance(Duration::from_secs(1));

    let given = db
        .users()
        .transfer(ada.id, NewOwner(bob.id))
        .await
        .expect("given");
    assert_eq!((given.workflows, given.agents), (2, 1));
    assert_eq!(workflow_row(&db, flows[0]).await.owner_id, bob.id);
    assert_eq!(workflow_row(&db, flows[2]).await.owner_id, ada.id);
    assert_eq!(workflow_row(&db, theirs).await, before, "untouched");
    assert_eq!(db.users().get(ada.id).await.expect("there"), ada);
    assert!(opens(&db, &issued).await, "the giver stays");
    let nothing = db
        .users()
        .transfer(ada.id, NewOwner(bob.id))
        .await
        .expect("given");
    assert_eq!((nothing.workflows, nothing.agents), (0, 0));
}

async fn purging(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    match db.users().purge(ada.id).await {
        Err(Error::State {
            what: "user", key, ..
        }) => assert_eq!(key, ada.id.to_string()),
        other => panic!("{other:?}"),
    }
    assert_eq!(db.users().get(ada.id).await.expect("there"), ada);
    delete(&db, ada.id, OwnedRows::Refuse)
        .await
        .expect("deleted");
    db.users().purge(ada.id).await.expect("purged");
    assert!(!db.users().email_exists(&ada.email).await.expect("rows"));
    for result in [
        db.users().purge(ada.id).await,
        db.users().restore(ada.id).await.map(|_| ()),
    ] {
        assert_error!(result, Error::NotFound { what: "user", .. });
    }
}

/// The rows of `testdb`: user 2 is deleted and owns a workflow with versions,
/// logs and an agent.
async fn purging_takes_everything(test: TestDb) {
    test.fill().await;
    let db = open(&test).await;
    let tables = [
        "users",
        "sessions",
        "workflows",
        "workflow_plugins",
        "logs",
        "agents",
    ];
    assert!(test.rows(&tables).await.contains("Zoë"));
    db.users().purge(2.into()).await.expect("purged");
    for (table, left) in [
        ("users WHERE id = 2", "0"),
        ("sessions WHERE user_id = 2", "0"),
        ("workflows WHERE owner_id = 2", "0"),
        ("workflow_plugins WHERE workflow_id = 2", "0"),
        ("logs WHERE workflow_id = 2", "0"),
        ("agents WHERE owner_id = 2", "0"),
        ("workflows", "1"),
        ("agents", "1"),
        ("sessions", "1"),
        ("plugins", "2"),
        ("users", "1"),
    ] {
        let sql = format!("SELECT CAST(count(*) AS text) AS line FROM {table}");
        assert_eq!(test.lines(&sql).await, [left], "{table}");
    }
}

/// Two who are deleted at once and leave everything to each other: one of them
/// stays, with everything. (A deadlock, unless it is run again.)
async fn deleting_each_other(test: TestDb) {
    let db = open(&test).await;
    for round in 0..5 {
        let one = user(&db, &format!("one{round}")).await.id;
        let two = user(&db, &format!("two{round}")).await.id;
        workflow(&db, one, "one").await;
        workflow(&db, two, "two").await;
        let delete = |id, heir| {
            let db = db.clone();
            tokio::spawn(async move { delete(&db, id, OwnedRows::TransferTo(heir)).await })
        };
        let (first, second) = (delete(one, two), delete(two, one));
        let results = [
            first.await.expect("no panic"),
            second.await.expect("no panic"),
        ];
        let heir = match results {
            [Ok(()), Err(Error::NotFound { .. })] => two,
            [Err(Error::NotFound { .. }), Ok(())] => one,
            other => panic!("{other:?}"),
        };
        let sql =
            format!("SELECT CAST(count(*) AS text) AS line FROM workflows WHERE owner_id = {heir}");
        assert_eq!(test.lines(&sql).await, ["2"]);
    }
}

async fn a_failed_deletion_leaves_everything(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let one = workflow(&db, ada, "one").await;
    let issued = session(&db, "ada").await;
    let undone: Result<(), Error> = db
        .transaction(|tx| async move {
            tx.users().delete(ada, OwnedRows::Delete).await?;
            assert_eq!(tx.users().find(ada).await?, None);
            Err(Error::Credentials)
        })
        .await;
    assert_error!(undone, Error::Credentials);
    assert!(opens(&db, &issued).await);
    assert_eq!(workflow_row(&db, one).await.deleted_at, None);
}
