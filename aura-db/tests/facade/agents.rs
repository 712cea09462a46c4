use std::time::Duration;

use aura_db::agents::AgentSort;
use aura_db::users::OwnedRows;
use aura_db::{
    Agent, AgentChange, AgentFilter, Database, Deleted, Document, Error, MAX_DOCUMENT_DEPTH,
    NewAgent, PageRequest, Role, UserId,
};
use sea_orm::ConnectionTrait;
use serde_json::json;
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

testdb::both!(migrated:
    created_as_given, names_are_unique_per_owner, changed, lists_and_filters,
    deleted_restored_purged, go_with_their_owner, only_admins_by_the_matrix, bad_input,
    the_deepest_config_can_be_read, numbers_of_any_size_are_no_obstacle,
    renamed_to_one_name_at_once,
);

async fn agent(db: &Database, owner: UserId, name: &str) -> Agent {
    let new = NewAgent::new(name, "large").owner(owner);
    db.agents().create(new).await.expect("created")
}

async fn created_as_given(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let ada = user(&db, "ada").await;
    let new = NewAgent::new("Sum", "large-1")
        .description("Adds")
        .config(json!({"z": 1, "a": 0.25}));
    let agent = db
        .acting_as(ada.id)
        .agents()
        .create(new)
        .await
        .expect("created");
    assert_eq!(
        (agent.name.as_str(), agent.model.as_str()),
        ("Sum", "large-1")
    );
    assert_eq!(agent.description.as_deref(), Some("Adds"));
    assert_eq!(
        agent.config,
        Some(Document::from(json!({"z": 1, "a": 0.25})))
    );
    assert_eq!((agent.owner_id, agent.is_enabled), (ada.id, true));
    assert_eq!(
        (agent.created_by, agent.created_at),
        (Some(ada.id), db.now())
    );
    assert_eq!(db.agents().get(agent.id).await.expect("there"), agent);
    assert_eq!(
        db.agents().find(4711.into()).await.expect("an answer"),
        None
    );
    assert_error!(
        db.agents().get(4711.into()).await,
        Error::NotFound { what: "agent", .. }
    );
    let nobodys = NewAgent::new("x", "y").owner(4711.into());
    assert_error!(
        db.agents().create(nobodys).await,
        Error::NotFound { what: "user", .. }
    );
}

async fn names_are_unique_per_owner(db: TestDb) {
    let db = open(&db).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let first = agent(&db, ada, "Sum").await;
    agent(&db, bob, "Sum").await;
    let other = agent(&db, ada, "Other").await;
    let again = || NewAgent::new("Sum", "large").owner(ada);
    let rename = || AgentChange::new().name("Sum");
    let taken = async |now_deleted: bool| {
        for error in [
            db.agents().create(again()).await.expect_err("taken"),
            db.agents()
                .update(other.id, rename())
                .await
                .expect_err("taken"),
        ] {
            let Error::Conflict {
                table,
                columns,
                deleted,
            } = error
            else {
                panic!("{error:?}")
            };
            assert_eq!((table.as_str(), deleted), ("agents", now_deleted));
            assert_eq!(columns, ["name", "owner_id"]);
        }
    };
    taken(false).await;
    db.agents().delete(first.id).await.expect("deleted");
    taken(true).await;
    db.agents().purge(first.id).await.expect("purged");
    db.agents()
        .update(other.id, rename())
        .await
        .expect("free again");
    // Its own name is no conflict.
    db.agents()
        .update(other.id, rename())
        .await
        .expect("the same");
}

async fn changed(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let ada = user(&db, "ada").await.id;
    let new = NewAgent::new("Sum", "large")
        .owner(ada)
        .description("d")
        .config(json!([]));
    let first = db.agents().create(new).await.expect("created");
    clock.advance(Duration::from_secs(1));
    let agents = db.acting_as(ada).agents();
    let same = agents
        .update(first.id, AgentChange::new())
        .await
        .expect("changed");
    assert_eq!(
        (same.name, same.description, same.config),
        (first.name, first.description, first.config)
    );
    let change = AgentChange::new()
        .name("Add")
        .description(None)
        .model("small")
        .config(None);
    let second = agents.update(first.id, change).await.expect("changed");
    assert_eq!(
        (second.name.as_str(), second.model.as_str()),
        ("Add", "small")
    );
    assert_eq!((second.description, second.config), (None, None));
    assert_eq!(
        (second.updated_at, second.updated_by),
        (db.now(), Some(ada))
    );
    assert!(!agents.disable(first.id).await.expect("disabled").is_enabled);
    assert!(agents.enable(first.id).await.expect("enabled").is_enabled);
    let nobody = 4711.into();
    assert_error!(
        agents.update(nobody, AgentChange::new()).await,
        Error::NotFound { .. }
    );
    assert_error!(agents.enable(nobody).await, Error::NotFound { .. });
    assert_error!(agents.disable(nobody).await, Error::NotFound { .. });
    assert_error!(agents.delete(nobody).await, Error::NotFound { .. });
}

async fn names(db: &Database, filter: AgentFilter) -> Vec<String> {
    let list = db
        .agents()
        .list(filter.clone(), PageRequest::first(100))
        .await
        .expect("a list");
    let names: Vec<_> = list.items.into_iter().map(|agent| agent.name).collect();
    let full = db.agents().list_full(filter, PageRequest::first(100)).await;
    let full: Vec<_> = full.expect("a list").items;
    assert!(full.iter().map(|agent| &agent.name).eq(&names));
    names
}

async fn lists_and_filters(db: TestDb) {
    let (db, clock) = open_at(&db).await;
    let (ada, bob) = (user(&db, "ada").await.id, user(&db, "bob").await.id);
    let mut ids = Vec::new();
    for (name, owner) in [("b", ada), ("A", ada), ("ç_", bob), ("gone", bob)] {
        clock.advance(Duration::from_secs(1));
        ids.push(agent(&db, owner, name).await.id);
    }
    db.agents().delete(ids[3]).await.expect("deleted");
    clock.advance(Duration::from_secs(1));
    db.agents().disable(ids[0]).await.expect("disabled");
    let all = AgentFilter::new;
    assert_eq!(names(&db, all()).await, ["b", "A", "ç_"]);
    assert_eq!(
        names(&db, all().sort(AgentSort::Name)).await,
        ["A", "b", "ç_"]
    );
    assert_eq!(
        names(&db, all().sort(AgentSort::UpdatedAt).descending()).await[0],
        "b"
    );
    assert_eq!(names(&db, AgentFilter::owner(bob)).await, ["ç_"]);
    assert_eq!(names(&db, all().enabled(true)).await, ["A", "ç_"]);
    assert_eq!(names(&db, all().text("a")).await, ["A"]);
    assert_eq!(names(&db, all().text("_")).await, ["ç_"]);
    assert_eq!(names(&db, all().deleted(Deleted::Only)).await, ["gone"]);
    assert_eq!(
        refused(
            db.agents()
                .list(all().text("\0"), PageRequest::first(1))
                .await
        ),
        ["text"]
    );
}

async fn deleted_restored_purged(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let id = agent(&db, ada, "Sum").await.id;
    assert_error!(
        db.agents().purge(id).await,
        Error::State {
            what: "agent",
            state: "is not deleted",
            ..
        }
    );
    db.agents().delete(id).await.expect("deleted");
    assert_error!(db.agents().get(id).await, Error::NotFound { .. });
    assert_error!(db.agents().delete(id).await, Error::NotFound { .. });
    let back = db
        .acting_as(ada)
        .agents()
        .restore(id)
        .await
        .expect("restored");
    assert_eq!((back.deleted_at, back.updated_by), (None, Some(ada)));
    assert_eq!(db.agents().restore(id).await.expect("as it is"), back);
    db.agents().delete(id).await.expect("deleted");
    db.agents().purge(id).await.expect("purged");
    assert_error!(db.agents().purge(id).await, Error::NotFound { .. });
    assert_error!(db.agents().restore(id).await, Error::NotFound { .. });
}

async fn go_with_their_owner(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let (before, with) = (
        agent(&db, ada, "before").await.id,
        agent(&db, ada, "with").await.id,
    );
    db.agents().delete(before).await.expect("deleted");
    db.users()
        .delete(ada, OwnedRows::Delete)
        .await
        .expect("deleted");
    assert_eq!(names(&db, AgentFilter::new()).await, [""; 0]);
    assert_error!(
        db.agents().restore(with).await,
        Error::State {
            what: "agent",
            state: "belongs to a deleted user",
            ..
        }
    );
    db.users().restore(ada).await.expect("restored");
    assert_eq!(names(&db, AgentFilter::new()).await, ["with"]);
}

async fn only_admins_by_the_matrix(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    agent(&db, ada.id, "Sum").await;
    for role in [Role::Editor, Role::Viewer, Role::User] {
        db.users().set_role(ada.id, role).await.expect("changed");
        let list = db.restricted_to(&ada).agents();
        let list = list.list(AgentFilter::new(), PageRequest::first(9)).await;
        assert_error!(list, Error::Forbidden { .. });
    }
    db.users()
        .set_role(ada.id, Role::Admin)
        .await
        .expect("changed");
    let list = db.restricted_to(&ada).agents();
    let list = list
        .list(AgentFilter::new(), PageRequest::first(9))
        .await
        .expect("a list");
    assert_eq!(list.items.len(), 1);
}

async fn bad_input(db: TestDb) {
    let db = open(&db).await;
    let new = NewAgent::new(" ", "m".repeat(121))
        .description("\0")
        .config(json!(1));
    assert_eq!(
        refused(db.agents().create(new).await),
        ["name", "description", "model", "config", "owner"]
    );
    let ada = user(&db, "ada").await.id;
    let id = agent(&db, ada, &"é".repeat(120)).await.id;
    let change = AgentChange::new()
        .name("")
        .description(Some("x".repeat(1024 * 1024 + 1)))
        .model("")
        .config(Some(json!("\0").into()));
    assert_eq!(
        refused(db.agents().update(id, change).await),
        ["name", "description", "model", "config", "config"]
    );
}

/// What is accepted can be read again, and one level more is refused.
async fn the_deepest_config_can_be_read(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let mut deep = json!([]);
    for _ in 1..MAX_DOCUMENT_DEPTH {
        deep = json!([deep]);
    }
    let new = |config| NewAgent::new("deep", "large").owner(ada).config(config);
    let agent = db.agents().create(new(deep.clone())).await;
    let id = agent.expect("created").id;
    let read = db.agents().get(id).await.expect("readable");
    assert_eq!(read.config, Some(Document::from(deep.clone())));
    assert_eq!(
        refused(db.agents().create(new(json!([deep]))).await),
        ["config"]
    );
}

/// Another tool may have stored a number that Rust has no type for: that is for
/// who parses it.
async fn numbers_of_any_size_are_no_obstacle(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let id = agent(&db, ada, "Sum").await.id;
    let spoil = async || {
        let sql = "UPDATE agents SET config = '[1e999]'";
        let writer = db.seaorm().writer().await.expect("open");
        writer.execute_unprepared(sql).await.expect("spoilt");
        drop(writer);
        let read = db.agents().get(id).await.expect("readable").config;
        let read = read.expect("a config");
        assert_eq!(read.as_str(), "[1e999]");
        assert!(read.json().is_err());
        let full = db.agents();
        let full = full
            .list_full(AgentFilter::new(), PageRequest::first(9))
            .await;
        assert_eq!(full.expect("a list").items[0].config, Some(read));
    };
    spoil().await;
    let taken = NewAgent::new("Sum", "large").owner(ada);
    assert_error!(db.agents().create(taken).await, Error::Conflict { .. });
    let repair = AgentChange::new().config(None);
    let repaired = db.agents().update(id, repair).await.expect("repaired");
    assert_eq!(repaired.config, None);
    spoil().await;
    db.agents().delete(id).await.expect("deleted");
    db.agents().purge(id).await.expect("purged");
}

async fn renamed_to_one_name_at_once(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (agents, id) = (db.agents(), agent(&db, ada, &n.to_string()).await.id);
        tasks.push(tokio::spawn(async move {
            agents.update(id, AgentChange::new().name("Sum")).await
        }));
    }
    let mut renamed = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(agent) => renamed += usize::from(agent.name == "Sum"),
            Err(Error::Conflict {
                table,
                columns,
                deleted,
            }) => {
                assert_eq!((table.as_str(), deleted), ("agents", false));
                assert_eq!(columns, ["name", "owner_id"]);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(renamed, 1);
}
