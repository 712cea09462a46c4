//! Lists of workflows.

use aura_db::{
    Deleted, Document, NewWorkflow, PageRequest, WorkflowFilter, WorkflowSort, WorkflowStatus,
};
use serde_json::{Value, json};
use testdb::TestDb;

use crate::support::{open, open_at, refused, user};
use crate::workflows::{names, plugin};

testdb::both!(migrated: filters, scheduled_ones, sorted_alike, summaries_read_no_documents);

async fn filters(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let bob = user(&db, "bob").await;
    let add = async |name: &str, owner, status| {
        let new = NewWorkflow::new(name).owner(owner).status(status);
        let new = new.description(format!("100% of {name}_"));
        db.workflows().create(new).await.expect("created").id
    };
    let one = add("One", ada.id, WorkflowStatus::Active).await;
    add("Two", ada.id, WorkflowStatus::Draft).await;
    add("One", bob.id, WorkflowStatus::Archived).await;
    let gone = add("Gone", bob.id, WorkflowStatus::Active).await;
    db.workflows().delete(gone).await.expect("deleted");
    let http = plugin(&db, "http").await;
    db.workflows().attach(one, http).await.expect("attached");

    let all = WorkflowFilter::new;
    assert_eq!(names(&db, all()).await, ["One", "Two", "One"]);
    assert_eq!(
        names(&db, WorkflowFilter::owner(ada.id)).await,
        ["One", "Two"]
    );
    assert_eq!(
        names(&db, all().status(WorkflowStatus::Draft)).await,
        ["Two"]
    );
    assert_eq!(
        names(&db, all().status(WorkflowStatus::Active)).await,
        ["One"]
    );
    assert_eq!(names(&db, all().plugin(http)).await, ["One"]);
    assert_eq!(
        names(&db, all().name("One").owned_by(bob.id)).await,
        ["One"]
    );
    assert_eq!(names(&db, all().name("one")).await, [""; 0]);
    assert_eq!(names(&db, all().text("tWO_")).await, ["Two"]);
    assert_eq!(names(&db, all().text("0% o")).await, ["One", "Two", "One"]);
    assert_eq!(names(&db, all().text("T_o")).await, [""; 0]);
    assert_eq!(names(&db, all().deleted(Deleted::Only)).await, ["Gone"]);
    assert_eq!(names(&db, all().deleted(Deleted::Included)).await.len(), 4);
    let long = all().text("x".repeat(201));
    assert_eq!(
        refused(db.workflows().list(long, PageRequest::first(1)).await),
        ["text"]
    );
}

async fn scheduled_ones(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let add = async |name: &str, settings: Value, nodes: Value| {
        let new = NewWorkflow::new(name)
            .owner(ada.id)
            .status(WorkflowStatus::Active)
            .settings(settings)
            .nodes(nodes);
        db.workflows().create(new).await.expect("created").id
    };
    add(
        "by settings",
        json!({"schedule": {"every": "day"}}),
        json!([]),
    )
    .await;
    add(
        "n8n",
        json!({}),
        json!([{"type": "n8n-nodes-base.ScheduleTrigger"}, "odd", 1]),
    )
    .await;
    add(
        "by name",
        json!([]),
        json!({"Tick": {"type": "cron"}, "odd": ["type"]}),
    )
    .await;
    let off = add("off", json!({"schedule": "daily"}), json!([])).await;
    db.workflows().deactivate(off).await.expect("a draft");
    add("null", json!({"schedule": null}), json!([{"type": "http"}])).await;
    add(
        "deeper",
        json!([{"schedule": 1}]),
        json!([[{"type": "cron"}], {"type": {"type": "x"}}]),
    )
    .await;
    db.workflows()
        .create(
            NewWorkflow::new("empty")
                .owner(ada.id)
                .status(WorkflowStatus::Active),
        )
        .await
        .expect("created");
    // Of two members of one name the last counts, however it is written.
    for (name, settings, nodes) in [
        ("last", r#"{"schedule": null, "schedul\u0065": 1}"#, "[]"),
        ("first", r#"{"schedule": 1, "schedule": null}"#, "[]"),
        ("last node", "{}", r#"[{"type": "http", "type": "cron"}]"#),
        (
            "first node",
            "{}",
            r#"[{"type": "cron", "typ\u0065": "http"}]"#,
        ),
        ("escaped", "{}", r#"{"n": {"type": "\u0063ron"}}"#),
    ] {
        let document = |text: &str| text.parse::<Document>().expect("JSON");
        let new = NewWorkflow::new(name)
            .owner(ada.id)
            .status(WorkflowStatus::Active)
            .settings(document(settings))
            .nodes(document(nodes));
        db.workflows().create(new).await.expect("created");
    }
    assert_eq!(
        names(&db, WorkflowFilter::scheduled()).await,
        [
            "by settings",
            "n8n",
            "by name",
            "last",
            "last node",
            "escaped"
        ]
    );
}

async fn sorted_alike(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let mut ids = Vec::new();
    for name in ["b", "Z", "a", "é", "Ä", "b", "~"] {
        clock.advance(std::time::Duration::from_millis(1500));
        let new = NewWorkflow::new(name).owner(ada.id);
        ids.push(db.workflows().create(new).await.expect("created").id);
    }
    clock.advance(std::time::Duration::from_secs(1));
    db.workflows().activate(ids[0]).await.expect("active");
    let all = WorkflowFilter::new;
    let by_name = ["Z", "a", "b", "b", "~", "Ä", "é"];
    assert_eq!(names(&db, all().sort(WorkflowSort::Name)).await, by_name);
    let newest = all().sort(WorkflowSort::UpdatedAt).descending();
    assert_eq!(names(&db, newest.clone()).await[..3], ["b", "~", "b"]);
    let oldest = all().sort(WorkflowSort::CreatedAt);
    assert_eq!(names(&db, oldest.clone()).await[..2], ["b", "Z"]);
    // By keyset, two at a time, the same as at once.
    for filter in [
        all().sort(WorkflowSort::Name),
        newest,
        oldest,
        all().descending(),
    ] {
        let expected = names(&db, filter.clone()).await;
        let mut walked = Vec::new();
        let mut page = PageRequest::first(2);
        loop {
            let part = db
                .workflows()
                .list(filter.clone(), page)
                .await
                .expect("a page");
            walked.extend(part.items.into_iter().map(|flow| flow.name));
            let Some(next) = part.next else { break };
            page = PageRequest::after(next, 2);
        }
        assert_eq!(walked, expected);
    }
}

async fn summaries_read_no_documents(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let new = NewWorkflow::new("x")
        .owner(ada.id)
        .nodes(json!([{"name": "secret node"}]));
    db.workflows().create(new).await.expect("created");
    let list = db
        .workflows()
        .list(WorkflowFilter::new(), PageRequest::number(1, 10))
        .await
        .expect("a list");
    assert_eq!(list.total, Some(1));
    let json = serde_json::to_string(&list).expect("JSON");
    assert!(!json.contains("secret node"), "{json}");
}
