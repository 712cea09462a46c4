use std::time::Duration;

use aura_db::workflows::EarlierVersion;
use aura_db::{
    Database, Error, NewWorkflow, PageRequest, Workflow, WorkflowChange, WorkflowStatus,
};
use serde_json::json;
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    an_update_is_the_next_version, only_what_is_mentioned_changes, a_stale_version_is_told,
    of_two_one_wins, the_history_is_bounded, the_history_is_pruned, a_version_is_restored,
    an_update_in_a_transaction_is_undone_with_it, a_stale_update_spoils_no_transaction,
    the_status_has_no_version, unsound_graphs_are_told,
);

async fn flow(db: &Database) -> Workflow {
    let ada = user(db, "ada").await;
    db.workflows()
        .create(
            NewWorkflow::new("one")
                .owner(ada.id)
                .description("first")
                .nodes(json!([{"name": "Start"}]))
                .settings(json!({"a": 1})),
        )
        .await
        .expect("created")
}

async fn an_update_is_the_next_version(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let first = flow(&db).await;
    clock.advance(Duration::from_mins(1));
    let change = WorkflowChange::new()
        .name("two")
        .description(None)
        .nodes(Some(json!({}).into()))
        .connections(Some(json!({"Start": []}).into()))
        .settings(None)
        .metadata(Some(json!({"tags": []}).into()));
    let second = db
        .acting_as(first.owner_id)
        .workflows()
        .update(first.id, 1, change)
        .await
        .expect("changed");
    assert_eq!((second.name.as_str(), second.version), ("two", 2));
    assert_eq!(
        (second.description.as_deref(), &second.settings),
        (None, &None)
    );
    assert_eq!(
        (second.created_at, second.updated_at),
        (first.created_at, db.now())
    );
    assert_eq!(
        (second.created_by, second.updated_by),
        (None, Some(first.owner_id))
    );
    assert_eq!(second, db.workflows().get(first.id).await.expect("there"));

    let before = db.workflows().version(first.id, 1).await.expect("kept");
    assert_eq!((before.version, before.name.as_str()), (1, "one"));
    assert_eq!(before.description.as_deref(), Some("first"));
    assert_eq!(
        (&before.nodes, &before.settings),
        (&first.nodes, &first.settings)
    );
    assert_eq!(
        (before.created_at, before.created_by),
        (first.updated_at, None)
    );
    let history = db
        .workflows()
        .history(first.id, PageRequest::first(10))
        .await
        .expect("a list");
    assert_eq!(history.items.len(), 1);
    assert_eq!(
        (history.items[0].version, history.items[0].name.as_str()),
        (1, "one")
    );
    assert_error!(
        db.workflows().version(first.id, 2).await,
        Error::NotFound {
            what: "earlier version",
            ..
        }
    );
}

async fn only_what_is_mentioned_changes(db: TestDb) {
    let db = open(&db).await;
    let first = flow(&db).await;
    let second = db
        .workflows()
        .update(first.id, 1, WorkflowChange::new().name("two"))
        .await
        .expect("changed");
    assert_eq!(second.description, first.description);
    assert_eq!(
        (second.nodes, second.settings),
        (first.nodes, first.settings)
    );
}

async fn a_stale_version_is_told(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db).await;
    let change = WorkflowChange::new().name("two");
    db.workflows()
        .update(flow.id, 1, change.clone())
        .await
        .expect("changed");
    for read in [1, 3, 0, -1] {
        let result = db.workflows().update(flow.id, read, change.clone()).await;
        let error = result.expect_err("stale");
        assert!(
            matches!(&error, Error::Stale { what: "workflow", key, read: stale, found: 2 }
                if *key == flow.id.to_string() && *stale == read),
            "{error:?}"
        );
    }
    assert_error!(
        db.workflows().update(4711.into(), 1, change).await,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
    let history = db
        .workflows()
        .history(flow.id, PageRequest::number(1, 10))
        .await
        .expect("a list");
    assert_eq!(history.total, Some(1));
}

async fn of_two_one_wins(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db).await;
    for version in 1..=10 {
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let flows = db.workflows();
                let change = WorkflowChange::new().name(format!("task {task}"));
                tokio::spawn(async move { flows.update(flow.id, version, change).await })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(flow) => won.push(flow.name),
                Err(Error::Stale { found, .. }) => assert_eq!(found, version + 1),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won.len(), 1);
        assert_eq!(
            db.workflows().get(flow.id).await.expect("there").name,
            won[0]
        );
    }
}

async fn the_history_is_bounded(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db).await;
    let flows = &db.workflows();
    // One transaction, because a hundred and five commits take their time.
    db.transaction(|tx| async move {
        for version in 1..=105 {
            let change = WorkflowChange::new().name(format!("{version}"));
            tx.workflows().update(flow.id, version, change).await?;
        }
        Ok::<_, Error>(())
    })
    .await
    .expect("committed");
    let history = flows
        .history(flow.id, PageRequest::number(1, 200))
        .await
        .expect("a list");
    assert_eq!(history.total, Some(100));
    assert_eq!(history.items[0].version, 105);
    assert_eq!(history.items[99].version, 6);
    let page = flows
        .history(flow.id, PageRequest::first(40))
        .await
        .expect("a list");
    let next = page.next.expect("there is more");
    let page = flows
        .history(flow.id, PageRequest::after(next, 40))
        .await
        .expect("a list");
    assert_eq!(page.items[0].version, 65);
}

async fn the_history_is_pruned(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db).await;
    for version in 1..=5 {
        let change = WorkflowChange::new().name(format!("{version}"));
        db.workflows()
            .update(flow.id, version, change)
            .await
            .expect("changed");
    }
    assert_eq!(
        db.workflows()
            .prune_history(flow.id, 2)
            .await
            .expect("pruned"),
        3
    );
    let history = db
        .workflows()
        .history(flow.id, PageRequest::first(10))
        .await
        .expect("a list");
    let versions: Vec<_> = history.items.iter().map(|item| item.version).collect();
    assert_eq!(versions, [5, 4]);
    assert_eq!(
        db.workflows()
            .prune_history(flow.id, 0)
            .await
            .expect("pruned"),
        2
    );
    assert_eq!(
        db.workflows()
            .prune_history(flow.id, u32::MAX)
            .await
            .expect("pruned"),
        0
    );
    assert_eq!(db.workflows().get(flow.id).await.expect("there").version, 6);
}

async fn a_version_is_restored(db: TestDb) {
    let db = open(&db).await;
    let first = flow(&db).await;
    let change = WorkflowChange::new()
        .name("two")
        .settings(None)
        .metadata(Some(json!({"kept": true}).into()));
    db.workflows()
        .update(first.id, 1, change)
        .await
        .expect("changed");
    let third = db
        .workflows()
        .restore_version(first.id, 2, EarlierVersion(1))
        .await
        .expect("restored");
    assert_eq!((third.version, third.name.as_str()), (3, "one"));
    assert_eq!((third.settings, third.nodes), (first.settings, first.nodes));
    assert!(third.metadata.is_some(), "the history doesn't hold it");
    let second = db.workflows().version(first.id, 2).await.expect("kept");
    assert_eq!(second.name, "two");
    assert_error!(
        db.workflows()
            .restore_version(first.id, 2, EarlierVersion(1))
            .await,
        Error::Stale {
            read: 2,
            found: 3,
            ..
        }
    );
    assert_error!(
        db.workflows()
            .restore_version(first.id, 3, EarlierVersion(7))
            .await,
        Error::NotFound {
            what: "earlier version",
            ..
        }
    );
    assert_error!(
        db.workflows()
            .restore_version(4711.into(), 3, EarlierVersion(7))
            .await,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
}

async fn an_update_in_a_transaction_is_undone_with_it(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db).await;
    let result: Result<(), Error> = db
        .transaction(|tx| async move {
            let change = WorkflowChange::new().name("two");
            tx.workflows().update(flow.id, 1, change).await?;
            Err(Error::Credentials)
        })
        .await;
    assert_error!(result, Error::Credentials);
    assert_eq!(db.workflows().get(flow.id).await.expect("there").version, 1);
    assert_error!(
        db.workflows().version(flow.id, 1).await,
        Error::NotFound { .. }
    );
}

async fn a_stale_update_spoils_no_transaction(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db).await;
    let name = db
        .transaction(|tx| async move {
            let flows = tx.workflows();
            let change = WorkflowChange::new().name("two");
            let Err(Error::Stale { found, .. }) = flows.update(flow.id, 7, change.clone()).await
            else {
                panic!("not stale")
            };
            flows.update(flow.id, found, change).await
        })
        .await
        .expect("committed")
        .name;
    assert_eq!(name, "two");
}

async fn the_status_has_no_version(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let flow = flow(&db).await;
    clock.advance(Duration::from_secs(1));
    let flows = db.acting_as(flow.owner_id).workflows();
    let changed = flows.activate(flow.id).await.expect("active");
    assert_eq!(changed.workflow.status, WorkflowStatus::Active);
    assert_eq!(changed.workflow.version, 1);
    assert_eq!(changed.workflow.updated_at, db.now());
    assert_eq!(changed.workflow.updated_by, Some(flow.owner_id));
    assert!(changed.warnings.is_empty());
    let changed = flows.set_status(flow.id, WorkflowStatus::Archived).await;
    assert_eq!(
        changed.expect("archived").workflow.status,
        WorkflowStatus::Archived
    );
    let changed = flows.deactivate(flow.id).await.expect("a draft");
    assert_eq!(changed.workflow.status, WorkflowStatus::Draft);
    let nobody = flows.set_status(4711.into(), WorkflowStatus::Draft);
    assert_error!(nobody.await, Error::NotFound { .. });
}

async fn unsound_graphs_are_told(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let new = NewWorkflow::new("broken")
        .owner(ada.id)
        .nodes(json!([{"name": "A", "id": "1"}, {"name": "B", "id": "2"}]))
        .connections(json!({"A": {"main": [[{"node": "2"}, {"node": "C"}], null]}}));
    let flow = db
        .workflows()
        .create(new)
        .await
        .expect("a draft may be unfinished");
    let graph = db.workflows().check(flow.id).await.expect("there");
    assert_eq!((graph.nodes.len(), graph.edges.len()), (2, 1));
    assert_eq!(graph.problems.len(), 1);
    assert!(!graph.is_sound());
    let error = db.workflows().activate_if_sound(flow.id).await;
    assert_error!(error, Error::Unsound { problems, .. } if problems == graph.problems);
    assert_eq!(
        db.workflows().get(flow.id).await.expect("there").status,
        WorkflowStatus::Draft
    );
    let changed = db.workflows().activate(flow.id).await.expect("active");
    assert_eq!(changed.warnings, graph.problems);
    assert_eq!(changed.workflow.status, WorkflowStatus::Active);
    // A cycle is marked, and no reason to refuse.
    let change =
        WorkflowChange::new().connections(Some(json!({"A": {"main": [[{"node": "A"}]]}}).into()));
    db.workflows()
        .update(flow.id, 1, change)
        .await
        .expect("changed");
    let changed = db
        .workflows()
        .activate_if_sound(flow.id)
        .await
        .expect("sound");
    assert_eq!(changed.warnings.len(), 1);
    assert_eq!(
        refused(db.workflows().history(flow.id, PageRequest::first(0)).await),
        ["page.size"]
    );
}
