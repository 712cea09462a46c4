use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::plugins::PluginSort;
use aura_db::users::OwnedRows;
use aura_db::{
    Action, Database, Deleted, Document, Error, MAX_DOCUMENT_DEPTH, NewPlugin, NewWorkflow,
    PageRequest, Plugin, PluginFilter, Role, RowError,
};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    registered_once, registered_by_many_at_once, registering_restores, found_while_live,
    lists_and_filters, switched, configs_are_checked, schemas_are_checked, deleted_restored_purged,
    bad_input, the_deepest_schema_can_be_read, schemas_that_cannot_be_parsed,
    configs_of_any_depth, an_editor_does_not_restore,
);

async fn register(db: &Database, name: &str) -> Plugin {
    db.plugins()
        .register(NewPlugin::new(name, "1"))
        .await
        .expect("registered")
}

async fn registered_once(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let (ada, bob) = (user(&db, "ada").await, user(&db, "bob").await);
    let new = NewPlugin::new("http", "1.0.0")
        .description("Requests")
        .author("AURA");
    let first = db
        .acting_as(ada.id)
        .plugins()
        .register(new)
        .await
        .expect("registered");
    assert_eq!(
        (first.name.as_str(), first.version.as_str()),
        ("http", "1.0.0")
    );
    assert_eq!(
        (first.description.as_str(), first.author.as_deref()),
        ("Requests", Some("AURA"))
    );
    assert!(first.is_enabled);
    assert_eq!(
        (first.created_by, first.updated_by),
        (Some(ada.id), Some(ada.id))
    );
    db.plugins().disable(first.id).await.expect("disabled");
    clock.advance(Duration::from_secs(5));
    let schema = json!({"type": "object"});
    let new = NewPlugin::new("http", "2.0.0").config_schema(schema.clone());
    let second = db
        .acting_as(bob.id)
        .plugins()
        .register(new)
        .await
        .expect("registered");
    assert_eq!((second.id, second.version.as_str()), (first.id, "2.0.0"));
    assert_eq!((second.description.as_str(), &second.author), ("", &None));
    assert_eq!(second.config_schema, Some(Document::from(schema)));
    assert!(!second.is_enabled, "whoever disabled it had a reason");
    assert_eq!(
        (second.created_at, second.updated_at),
        (first.created_at, db.now())
    );
    assert_eq!(
        (second.created_by, second.updated_by),
        (Some(ada.id), Some(bob.id))
    );
    assert_eq!(db.plugins().get(first.id).await.expect("there"), second);
}

async fn registered_by_many_at_once(db: TestDb) {
    let db = open(&db).await;
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let plugins = db.plugins();
            let new = NewPlugin::new("http", n.to_string());
            tokio::spawn(async move { plugins.register(new).await.expect("registered").id })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for task in tasks {
        ids.insert(task.await.expect("no panic"));
    }
    assert_eq!(ids.len(), 1);
    let all = db
        .plugins()
        .list(PluginFilter::new(), PageRequest::number(1, 9))
        .await
        .expect("a list");
    assert_eq!(all.total, Some(1));
}

async fn registering_restores(db: TestDb) {
    let db = open(&db).await;
    let id = register(&db, "http").await.id;
    db.plugins().delete(id).await.expect("deleted");
    let back = register(&db, "http").await;
    assert_eq!((back.id, back.deleted_at), (id, None));
    assert!(back.is_enabled);
}

async fn found_while_live(db: TestDb) {
    let db = open(&db).await;
    let plugin = register(&db, "http").await;
    let plugins = db.plugins();
    assert_eq!(
        plugins.find(plugin.id).await.expect("an answer"),
        Some(plugin.clone())
    );
    assert_eq!(plugins.get_by_name("http").await.expect("there"), plugin);
    assert_eq!(plugins.find_by_name("HTTP").await.expect("an answer"), None);
    assert_eq!(plugins.find_by_name("\0").await.expect("an answer"), None);
    plugins.delete(plugin.id).await.expect("deleted");
    assert_eq!(plugins.find(plugin.id).await.expect("an answer"), None);
    assert_eq!(plugins.find_by_name("http").await.expect("an answer"), None);
    assert_error!(
        plugins.get(plugin.id).await,
        Error::NotFound { what: "plugin", .. }
    );
    assert_error!(
        plugins.get_by_name("http").await,
        Error::NotFound { what: "plugin", key } if key == "http"
    );
    assert_error!(plugins.enable(plugin.id).await, Error::NotFound { .. });
    assert_error!(plugins.disable(plugin.id).await, Error::NotFound { .. });
    assert_error!(plugins.delete(plugin.id).await, Error::NotFound { .. });
    assert_error!(
        plugins.validate_config(plugin.id, json!({})).await,
        Error::NotFound { .. }
    );
}

async fn listed(db: &Database) -> Vec<String> {
    let list = db
        .plugins()
        .list(PluginFilter::new(), PageRequest::first(9))
        .await;
    let items = list.expect("a list").items.into_iter();
    items.map(|plugin| plugin.name).collect()
}

async fn names(db: &Database, filter: PluginFilter) -> Vec<String> {
    let list = db
        .plugins()
        .list(filter.clone(), PageRequest::first(100))
        .await
        .expect("a list");
    let names: Vec<_> = list.items.into_iter().map(|plugin| plugin.name).collect();
    let full = db
        .plugins()
        .list_full(filter, PageRequest::first(100))
        .await;
    let full: Vec<_> = full.expect("a list").items;
    assert!(full.iter().map(|plugin| &plugin.name).eq(&names));
    names
}

async fn lists_and_filters(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    for (name, author) in [("mail", "A"), ("Http", "B"), ("gone", "A"), ("älter", "a")] {
        clock.advance(Duration::from_secs(1));
        let new = NewPlugin::new(name, "1")
            .author(author)
            .description(format!("does {name}%"));
        db.plugins().register(new).await.expect("registered");
    }
    let gone = db.plugins().get_by_name("gone").await.expect("there").id;
    db.plugins().delete(gone).await.expect("deleted");
    let mail = db.plugins().get_by_name("mail").await.expect("there").id;
    clock.advance(Duration::from_secs(1));
    db.plugins().disable(mail).await.expect("disabled");
    let all = PluginFilter::new;
    assert_eq!(names(&db, all()).await, ["Http", "mail", "älter"]);
    assert_eq!(
        names(&db, all().descending()).await,
        ["älter", "mail", "Http"]
    );
    assert_eq!(
        names(&db, all().sort(PluginSort::Id)).await,
        ["mail", "Http", "älter"]
    );
    let newest = all().sort(PluginSort::UpdatedAt).descending();
    assert_eq!(names(&db, newest).await[0], "mail");
    assert_eq!(names(&db, all().enabled(false)).await, ["mail"]);
    assert_eq!(names(&db, all().author("A")).await, ["mail"]);
    assert_eq!(names(&db, all().text("HTTP%")).await, ["Http"]);
    assert_eq!(names(&db, all().deleted(Deleted::Only)).await, ["gone"]);
    assert_eq!(names(&db, all().deleted(Deleted::Included)).await.len(), 4);
    let bad = all().text("\0").author("x".repeat(161));
    assert_eq!(
        refused(db.plugins().list(bad, PageRequest::first(1)).await),
        ["text", "author"]
    );
}

async fn switched(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let id = register(&db, "http").await.id;
    clock.advance(Duration::from_secs(1));
    let off = db
        .acting_as(ada.id)
        .plugins()
        .disable(id)
        .await
        .expect("disabled");
    assert_eq!((off.is_enabled, off.updated_at), (false, db.now()));
    assert_eq!(off.updated_by, Some(ada.id));
    assert!(db.plugins().enable(id).await.expect("enabled").is_enabled);
}

async fn configs_are_checked(db: TestDb) {
    let db = open(&db).await;
    let any = register(&db, "any").await.id;
    let problems = db.plugins().validate_config(any, json!(["whatever"])).await;
    assert!(problems.expect("checked").is_empty());
    let schema = json!({
        "type": "object",
        "required": ["url"],
        "properties": {"url": {"type": "string"}, "retries": {"type": "integer", "maximum": 5}},
        "additionalProperties": false,
    });
    let new = NewPlugin::new("http", "1").config_schema(schema);
    let id = db.plugins().register(new).await.expect("registered").id;
    let good = json!({"url": "http://127.0.0.1", "retries": 5});
    let problems = db
        .plugins()
        .validate_config(id, good)
        .await
        .expect("checked");
    assert!(problems.is_empty(), "{problems:?}");
    let bad = json!({"url": 1, "retries": 777_001, "key": "s3cret"});
    let problems = db
        .plugins()
        .validate_config(id, bad)
        .await
        .expect("checked");
    let paths: BTreeSet<_> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(paths, BTreeSet::from(["", "/retries", "/url"]));
    let told = format!("{problems:?}");
    assert!(
        !told.contains("s3cret") && !told.contains("777001"),
        "{told}"
    );
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!([deep]);
    }
    assert_eq!(
        refused(db.plugins().validate_config(id, deep).await),
        ["config"]
    );
}

async fn schemas_are_checked(db: TestDb) {
    let db = open(&db).await;
    for schema in [
        json!({"type": "nonsense"}),
        json!({"$ref": "http://127.0.0.1:9/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$ref": "#"}),
        json!({"pattern": "("}),
        json!("text"),
    ] {
        let new = NewPlugin::new("http", "1").config_schema(schema.clone());
        assert_eq!(
            refused(db.plugins().register(new).await),
            ["config_schema"],
            "{schema}"
        );
    }
    assert_eq!(names(&db, PluginFilter::new()).await, [""; 0]);
}

async fn deleted_restored_purged(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let id = register(&db, "http").await.id;
    let new = NewWorkflow::new("x").owner(ada.id);
    let flow = db.workflows().create(new).await.expect("created").id;
    db.workflows().attach(flow, id).await.expect("attached");
    let attached = async || {
        let details = db.workflows().get_details(flow).await.expect("there");
        details.plugins.expect("readable").len()
    };
    assert_error!(
        db.plugins().purge(id).await,
        Error::State {
            what: "plugin",
            state: "is not deleted",
            ..
        }
    );
    db.acting_as(ada.id)
        .plugins()
        .delete(id)
        .await
        .expect("deleted");
    assert_eq!(attached().await, 0);
    let back = db.plugins().restore(id).await.expect("restored");
    assert_eq!((back.deleted_at, back.updated_by), (None, None));
    assert_eq!(attached().await, 1);
    assert_eq!(db.plugins().restore(id).await.expect("as it is"), back);
    db.plugins().delete(id).await.expect("deleted");
    db.plugins().purge(id).await.expect("purged");
    assert_eq!(attached().await, 0);
    assert_error!(db.plugins().purge(id).await, Error::NotFound { .. });
    assert_error!(db.plugins().restore(id).await, Error::NotFound { .. });
    db.users()
        .delete(ada.id, OwnedRows::Delete)
        .await
        .expect("deleted");
}

async fn bad_input(db: TestDb) {
    let db = open(&db).await;
    let new = NewPlugin::new("", "v".repeat(33))
        .description("d".repeat(241))
        .author("\0")
        .config_schema(json!({"\0": 1}));
    assert_eq!(
        refused(db.plugins().register(new).await),
        ["name", "description", "version", "author", "config_schema"]
    );
    let new = NewPlugin::new("é".repeat(120), "é".repeat(32))
        .description("é".repeat(240))
        .author("é".repeat(160));
    db.plugins().register(new).await.expect("as long as may be");
}

/// What is accepted can be read again, and one level more is refused.
async fn the_deepest_schema_can_be_read(db: TestDb) {
    let db = open(&db).await;
    let mut example = json!([]);
    for _ in 1..MAX_DOCUMENT_DEPTH - 1 {
        example = json!([example]);
    }
    let deepest = json!({ "default": example });
    let new = |schema| NewPlugin::new("http", "1").config_schema(schema);
    let plugin = db.plugins().register(new(deepest.clone())).await;
    let id = plugin.expect("registered").id;
    let read = db.plugins().get(id).await.expect("readable");
    assert_eq!(read.config_schema, Some(Document::from(deepest.clone())));
    let deeper = json!({ "default": [deepest["default"]] });
    assert_eq!(
        refused(db.plugins().register(new(deeper)).await),
        ["config_schema"]
    );
    assert_eq!(names(&db, PluginFilter::new()).await, ["http"]);
}

/// Another tool may have stored a number that Rust has no type for: that is for
/// who parses it.
async fn schemas_that_cannot_be_parsed(db: TestDb) {
    let db = open(&db).await;
    let id = register(&db, "http").await.id;
    let sql = "UPDATE plugins SET config_schema = '[1e999]'";
    let writer = db.seaorm().writer().await.expect("open");
    writer.execute_unprepared(sql).await.expect("spoilt");
    drop(writer);
    let read = db.plugins().get(id).await.expect("readable").config_schema;
    assert_eq!(read.expect("a schema").as_str(), "[1e999]");
    assert_error!(
        db.plugins().validate_config(id, json!({})).await,
        Error::Inconsistent(RowError { id: Some(found), .. }) if found == id.0
    );
    let schema: Document = "[1e999]".parse().expect("JSON");
    let new = NewPlugin::new("other", "1").config_schema(schema);
    assert_eq!(refused(db.plugins().register(new).await), ["config_schema"]);
    assert_eq!(listed(&db).await, ["http"]);
    db.plugins().delete(id).await.expect("deleted");
    db.plugins().purge(id).await.expect("purged");
}

/// Dropping this value as usual would overflow the stack and end the process.
async fn configs_of_any_depth(db: TestDb) {
    let db = open(&db).await;
    let deep = || (0..100_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    let any = register(&db, "any").await.id;
    let problems = db.plugins().validate_config(any, deep()).await;
    assert!(problems.expect("checked").is_empty());
    assert_error!(
        db.plugins().validate_config(4711.into(), deep()).await,
        Error::NotFound { .. }
    );
    let new = NewPlugin::new("http", "1").config_schema(json!({}));
    let id = db.plugins().register(new).await.expect("registered").id;
    assert_eq!(
        refused(db.plugins().validate_config(id, deep()).await),
        ["config"]
    );
}

/// Editors register plugins; restoring takes who may delete them.
async fn an_editor_does_not_restore(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    db.users()
        .set_role(ada.id, Role::Editor)
        .await
        .expect("changed");
    let editor = db.restricted_to(&ada).plugins();
    let new = |version| NewPlugin::new("http", version);
    let first = editor.register(new("1")).await.expect("registered");
    let second = editor.register(new("2")).await.expect("updated");
    assert_eq!((second.id, second.version.as_str()), (first.id, "2"));
    db.plugins().delete(first.id).await.expect("deleted");
    assert_error!(
        editor.register(new("3")).await,
        Error::Forbidden {
            action: Action::Delete,
            ..
        }
    );
    assert_eq!(names(&db, PluginFilter::new()).await, [""; 0]);
    let admin = db.users().set_role(ada.id, Role::Admin).await;
    admin.expect("changed");
    let third = editor.register(new("3")).await.expect("restored");
    assert_eq!((third.id, third.deleted_at), (first.id, None));
    assert_eq!(third.version, "3");
}
