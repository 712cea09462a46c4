use aura_db::entity::{executions, plugins, workflow_versions, workflows};
use aura_db::sea_orm::ActiveValue::Set;
use aura_db::sea_orm::{ActiveModelTrait, EntityTrait};
use aura_db::users::OwnedRows;
use aura_db::{
    Database, Document, Error, ExecutionMode, ExecutionStatus, NewWorkflow, PageRequest, PluginId,
    WorkflowChange, WorkflowFilter, WorkflowStatus,
};
use serde_json::{Value, json};
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    created_as_given, an_owner_is_needed, every_bad_field_at_once,
    documents_come_back_as_written, found_only_while_live, details_have_owner_and_live_plugins,
    plugins_are_attached_once, a_duplicate_is_a_draft_of_its_own, deleted_restored_purged,
    nothing_is_restored_under_a_deleted_owner, a_race_with_the_deletion_of_the_owner,
);

pub(crate) async fn plugin(db: &Database, name: &str) -> PluginId {
    let now = db.now();
    let row = plugins::ActiveModel {
        name: Set(name.to_owned()),
        description: Set(String::new()),
        version: Set("1".to_owned()),
        is_enabled: Set(true),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    row.insert(&*db.seaorm().writer().await.expect("open"))
        .await
        .expect("a plugin")
        .id
}

async fn created_as_given(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let bob = user(&db, "bob").await;
    let flow = db
        .acting_as(ada.id)
        .workflows()
        .create(
            NewWorkflow::new("Greet")
                .description("Says hello")
                .owner(bob.id),
        )
        .await
        .expect("created");
    assert_eq!((flow.name.as_str(), flow.version), ("Greet", 1));
    assert_eq!(flow.description.as_deref(), Some("Says hello"));
    assert_eq!(flow.status, WorkflowStatus::Draft);
    assert_eq!(flow.owner_id, bob.id);
    assert_eq!(
        (flow.created_by, flow.updated_by),
        (Some(ada.id), Some(ada.id))
    );
    assert_eq!((flow.created_at, flow.updated_at), (db.now(), db.now()));
    assert_eq!((flow.nodes, flow.deleted_at), (None, None));
    let own = db
        .acting_as(ada.id)
        .workflows()
        .create(NewWorkflow::new("Own").status(WorkflowStatus::Active))
        .await
        .expect("created");
    assert_eq!((own.owner_id, own.status), (ada.id, WorkflowStatus::Active));
}

async fn an_owner_is_needed(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    assert_eq!(
        refused(db.workflows().create(NewWorkflow::new("x")).await),
        ["owner"]
    );
    let nobodys = NewWorkflow::new("x").owner(4711.into());
    assert_error!(
        db.workflows().create(nobodys).await,
        Error::NotFound { what: "user", .. }
    );
    db.users()
        .delete(ada.id, OwnedRows::Refuse)
        .await
        .expect("deleted");
    let deleted = NewWorkflow::new("x").owner(ada.id);
    assert_error!(
        db.workflows().create(deleted).await,
        Error::NotFound { what: "user", .. }
    );
}

async fn every_bad_field_at_once(db: TestDb) {
    let db = open(&db).await;
    let mut deep = json!([]);
    for _ in 0..127 {
        deep = json!([deep]);
    }
    let new = NewWorkflow::new(" ")
        .description("\0")
        .nodes(json!("text"))
        .connections(deep)
        .settings(json!({"a": "x".repeat(17 * 1024 * 1024)}))
        .metadata(json!({"a\0": 1}));
    assert_eq!(
        refused(db.workflows().create(new).await),
        [
            "name",
            "description",
            "settings",
            "connections",
            "nodes",
            "metadata",
            "owner"
        ]
    );
    let ada = user(&db, "ada").await;
    let long = |count| NewWorkflow::new("ü".repeat(count)).owner(ada.id);
    assert_eq!(refused(db.workflows().create(long(161)).await), ["name"]);
    let flow = db
        .workflows()
        .create(long(160))
        .await
        .expect("160 characters");
    let change = WorkflowChange::new().name("").nodes(Some(json!(1).into()));
    assert_eq!(
        refused(db.workflows().update(flow.id, 1, change).await),
        ["name", "nodes"]
    );
}

/// Order of members, big numbers, odd keys: a document is not ours to change.
async fn documents_come_back_as_written(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let text = r#"{"z":1,"a":{"'; DROP TABLE users; --":"\"\\","":null},"big":9007199254740993,"max":18446744073709551615,"list":[1.5,-0.25,true,[]],"é":"\u2028😀"}"#;
    let written: Value = serde_json::from_str(text).expect("JSON");
    let new = NewWorkflow::new("x")
        .owner(ada.id)
        .nodes(json!([]))
        .settings(written.clone())
        .connections(written.clone())
        .metadata(json!({}));
    let flow = db.workflows().create(new).await.expect("created");
    let read = db.workflows().get(flow.id).await.expect("there");
    assert_eq!(flow, read);
    let settings = read.settings.expect("settings");
    assert_eq!(settings.json(), Ok(written.clone()));
    assert_eq!(settings.as_str(), written.to_string(), "in the same order");
    assert_eq!(read.nodes, Some(Document::from(json!([]))));
    assert_eq!(read.metadata, Some(Document::from(json!({}))));
}

async fn found_only_while_live(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let flow = db
        .workflows()
        .create(NewWorkflow::new("x").owner(ada.id))
        .await
        .expect("created");
    assert_eq!(
        db.workflows().find(flow.id).await.expect("read"),
        Some(flow.clone())
    );
    db.workflows().delete(flow.id).await.expect("deleted");
    assert_eq!(db.workflows().find(flow.id).await.expect("read"), None);
    assert_error!(db.workflows().get(flow.id).await, Error::NotFound { .. });
    assert_error!(
        db.workflows().get_details(flow.id).await,
        Error::NotFound { .. }
    );
    assert_error!(db.workflows().check(flow.id).await, Error::NotFound { .. });
    assert_error!(
        db.workflows()
            .update(flow.id, 1, WorkflowChange::new())
            .await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().activate(flow.id).await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().duplicate(flow.id, None).await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().attach(flow.id, 1.into()).await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().detach(flow.id, 1.into()).await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().history(flow.id, PageRequest::first(1)).await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().version(flow.id, 1).await,
        Error::NotFound { .. }
    );
    assert_error!(
        db.workflows().prune_history(flow.id, 1).await,
        Error::NotFound { .. }
    );
    assert_error!(db.workflows().delete(flow.id).await, Error::NotFound { .. });
}

async fn details_have_owner_and_live_plugins(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let flow = db
        .workflows()
        .create(NewWorkflow::new("x").owner(ada.id))
        .await
        .expect("created");
    let bare = db.workflows().get_details(flow.id).await.expect("there");
    assert_eq!(bare.owner.map(|owner| owner.id), Some(ada.id));
    assert_eq!(bare.plugins, Some(Vec::new()));
    for name in ["mail", "Http", "gone"] {
        let plugin = plugin(&db, name).await;
        assert!(
            db.workflows()
                .attach(flow.id, plugin)
                .await
                .expect("attached")
        );
        if name == "gone" {
            let gone = plugins::ActiveModel {
                id: Set(plugin),
                deleted_at: Set(Some(db.now())),
                ..Default::default()
            };
            gone.update(&*db.seaorm().writer().await.expect("open"))
                .await
                .expect("deleted");
        }
    }
    plugin(&db, "another").await;
    let details = db.workflows().get_details(flow.id).await.expect("there");
    let plugins = details.plugins.as_ref().expect("readable");
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["Http", "mail"]);
    let json = serde_json::to_string(&details).expect("JSON");
    assert!(!json.contains("argon2"), "no hash of the owner's");
}

pub(crate) async fn names(db: &Database, filter: WorkflowFilter) -> Vec<String> {
    let summaries = db
        .workflows()
        .list(filter.clone(), PageRequest::first(100))
        .await
        .expect("a list");
    let full = db
        .workflows()
        .list_full(filter, PageRequest::first(100))
        .await
        .expect("a list");
    let names: Vec<_> = summaries.items.into_iter().map(|flow| flow.name).collect();
    let same: Vec<_> = full.items.into_iter().map(|flow| flow.name).collect();
    assert_eq!(names, same);
    names
}

async fn plugins_are_attached_once(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let flow = db
        .workflows()
        .create(NewWorkflow::new("x").owner(ada.id))
        .await
        .expect("created");
    let http = plugin(&db, "http").await;
    clock.advance(std::time::Duration::from_secs(1));
    let flows = db.acting_as(ada.id).workflows();
    assert!(flows.attach(flow.id, http).await.expect("attached"));
    assert!(!flows.attach(flow.id, http).await.expect("attached already"));
    let after = flows.get(flow.id).await.expect("there");
    assert_eq!((after.version, after.updated_at), (1, db.now()));
    assert_eq!(after.updated_by, Some(ada.id));
    assert_error!(
        flows.attach(flow.id, 4711.into()).await,
        Error::NotFound { what: "plugin", .. }
    );
    assert!(flows.detach(flow.id, http).await.expect("detached"));
    assert!(
        !flows
            .detach(flow.id, http)
            .await
            .expect("nothing to detach")
    );
}

async fn a_duplicate_is_a_draft_of_its_own(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let bob = user(&db, "bob").await;
    let name = "é".repeat(160);
    let new = NewWorkflow::new(&name)
        .owner(ada.id)
        .status(WorkflowStatus::Active)
        .nodes(json!([{"name": "Start"}]))
        .metadata(json!({"tags": ["a"]}));
    let flow = db.workflows().create(new).await.expect("created");
    let http = plugin(&db, "http").await;
    db.workflows()
        .attach(flow.id, http)
        .await
        .expect("attached");
    let copy = db
        .acting_as(bob.id)
        .workflows()
        .duplicate(flow.id, None)
        .await
        .expect("copied");
    assert_ne!(copy.id, flow.id);
    assert_eq!(copy.name, format!("{} (copy)", "é".repeat(153)));
    assert_eq!((copy.owner_id, copy.created_by), (bob.id, Some(bob.id)));
    assert_eq!((copy.status, copy.version), (WorkflowStatus::Draft, 1));
    assert_eq!((copy.nodes, copy.metadata), (flow.nodes, flow.metadata));
    let details = db.workflows().get_details(copy.id).await.expect("there");
    assert_eq!(details.plugins.expect("readable").len(), 1);
    let named = db
        .workflows()
        .duplicate(flow.id, Some("Other".to_owned()))
        .await;
    let named = named.expect("copied");
    assert_eq!((named.name.as_str(), named.owner_id), ("Other", ada.id));
    assert_eq!(
        refused(db.workflows().duplicate(flow.id, Some(String::new())).await),
        ["name"]
    );
}

async fn deleted_restored_purged(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let flow = db
        .workflows()
        .create(NewWorkflow::new("x").owner(ada.id))
        .await
        .expect("created");
    let flow = db
        .workflows()
        .update(flow.id, 1, WorkflowChange::new().name("y"))
        .await
        .expect("changed");
    executions::ActiveModel {
        workflow_id: Set(flow.id),
        workflow_version: Set(2),
        mode: Set(ExecutionMode::Manual),
        status: Set(ExecutionStatus::Queued),
        created_at: Set(db.now()),
        ..Default::default()
    }
    .insert(&*db.seaorm().writer().await.expect("open"))
    .await
    .expect("an execution");
    assert_error!(
        db.workflows().purge(flow.id).await,
        Error::State {
            what: "workflow",
            state: "is not deleted",
            ..
        }
    );
    assert_eq!(
        db.workflows().restore(flow.id).await.expect("as it is").id,
        flow.id
    );
    let flows = db.acting_as(ada.id).workflows();
    flows.delete(flow.id).await.expect("deleted");
    let restored = flows.restore(flow.id).await.expect("restored");
    assert_eq!((restored.deleted_at, restored.version), (None, 2));
    assert_eq!(restored.updated_by, Some(ada.id));
    flows.delete(flow.id).await.expect("deleted");
    flows.purge(flow.id).await.expect("purged");
    assert_error!(flows.purge(flow.id).await, Error::NotFound { .. });
    assert_error!(flows.restore(flow.id).await, Error::NotFound { .. });
    for rows in [
        db.fetch_all(workflow_versions::Entity::find())
            .await
            .expect("rows")
            .len(),
        db.fetch_all(executions::Entity::find())
            .await
            .expect("rows")
            .len(),
        db.fetch_all(workflows::Entity::find())
            .await
            .expect("rows")
            .len(),
    ] {
        assert_eq!(rows, 0);
    }
}

async fn nothing_is_restored_under_a_deleted_owner(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let create = async |name: &str| {
        let new = NewWorkflow::new(name).owner(ada.id);
        db.workflows().create(new).await.expect("created").id
    };
    let (before, with) = (create("before").await, create("with").await);
    db.workflows().delete(before).await.expect("deleted");
    db.users()
        .delete(ada.id, OwnedRows::Delete)
        .await
        .expect("deleted");
    for id in [before, with] {
        assert_error!(
            db.workflows().restore(id).await,
            Error::State {
                state: "belongs to a deleted user",
                ..
            }
        );
    }
    db.users().restore(ada.id).await.expect("restored");
    assert_eq!(names(&db, WorkflowFilter::new()).await, ["with"]);
    db.workflows().restore(before).await.expect("restored");
    assert_eq!(names(&db, WorkflowFilter::new()).await, ["before", "with"]);
}

/// Whoever comes first: either the user stays, or gets no workflow.
async fn a_race_with_the_deletion_of_the_owner(db: TestDb) {
    let db = open(&db).await;
    for round in 0..10 {
        let owner = user(&db, &format!("user{round}")).await.id;
        let create = db.workflows();
        let create = create.create(NewWorkflow::new("x").owner(owner));
        let delete = db.users();
        let delete = delete.delete(owner, OwnedRows::Refuse);
        let (created, deleted) = tokio::join!(create, delete);
        match (created, deleted) {
            (Ok(_), Err(Error::OwnsRows { workflows: 1, .. }))
            | (Err(Error::NotFound { .. }), Ok(())) => {}
            other => panic!("{other:?}"),
        }
    }
}
