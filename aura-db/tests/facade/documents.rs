//! Documents are the text that was written: on every path, on both databases.

use std::time::Duration;

use aura_db::entity::{logs, workflows};
use aura_db::sea_orm::sea_query::Expr;
use aura_db::sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait,
    IntoActiveModel, QueryFilter, QueryResult, Statement,
};
use aura_db::workflows::EarlierVersion;
use aura_db::{
    AgentChange, Database, Document, Error, ExecutionMode, GraphProblem, LogFilter, LogLevel,
    NewAgent, NewExecution, NewLog, NewPlugin, NewWorkflow, Outcome, PageRequest, RowError, UserId,
    Workflow, WorkflowChange, WorkflowFilter, WorkflowId,
};
use serde_json::{Value, json};
use testdb::{Backend, TestDb};

use crate::support::{assert_error, claim_of, open, refused, user};

testdb::both!(migrated:
    workflows_keep_their_text, other_documents_keep_their_text, log_metadata_keeps_its_numbers,
    plain_seaorm_keeps_the_text, plain_seaorm_in_bulk_and_without_documents,
    what_cannot_be_stored_is_refused, a_number_that_no_type_holds_is_a_problem_of_the_graph,
    a_column_of_another_type_is_told, documents_of_other_tables,
);

/// Each holds something that a parser would not give back.
const TEXTS: &[&str] = &[
    r#"{"max": 9007199254740993, "more": 18446744073709551617}"#,
    "[0.1234567890123456789012345678901234567890, -1.50, 1E+2, 1e-07, 1e400]",
    r#"{"z": 1, "a": 2, "z": 3, "": null}"#,
    " \t[\r\n  { } ,\n [ ]\t] \n",
    r#"["\u00e9\/é", "\ud83d\ude00 😀 \u2028", "'; DROP TABLE users; -- $1 ?1 \\u0000"]"#,
];

fn document(text: &str) -> Document {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn text(document: Option<&Document>) -> &str {
    document.expect("a document").as_str()
}

async fn flow(db: &Database, owner: UserId, text: &str) -> Workflow {
    let new = NewWorkflow::new("x")
        .owner(owner)
        .nodes(document(text))
        .connections(document(text))
        .settings(document(text))
        .metadata(document(text));
    db.workflows().create(new).await.expect("created")
}

fn all(flow: &Workflow) -> [&str; 4] {
    [
        &flow.nodes,
        &flow.connections,
        &flow.settings,
        &flow.metadata,
    ]
    .map(|document| text(document.as_ref()))
}

async fn workflows_keep_their_text(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let workflows = db.workflows();
    for (one, other) in TEXTS.iter().zip(TEXTS.iter().rev()) {
        let made = flow(&db, ada, one).await;
        assert_eq!(all(&made), [*one; 4]);
        assert_eq!(workflows.get(made.id).await.expect("there"), made);

        let change = WorkflowChange::new()
            .nodes(Some(document(other)))
            .connections(Some(document(other)))
            .settings(Some(document(other)))
            .metadata(Some(document(other)));
        let changed = workflows.update(made.id, 1, change).await.expect("changed");
        assert_eq!(all(&changed), [*other; 4]);
        let before = workflows.version(made.id, 1).await.expect("kept");
        for kept in [&before.nodes, &before.connections, &before.settings] {
            assert_eq!(text(kept.as_ref()), *one);
        }
        let back = workflows
            .restore_version(made.id, 2, EarlierVersion(1))
            .await
            .expect("back");
        assert_eq!(all(&back), [*one, *one, *one, *other]);
        let copy = workflows.duplicate(made.id, None).await.expect("a copy");
        assert_eq!(all(&copy), all(&back));
        let details = workflows.get_details(made.id).await.expect("there");
        assert_eq!(details.workflow, back);
        let told = serde_json::to_string(&back).expect("JSON");
        assert!(
            told.contains(&format!(r#""nodes":{}"#, one.trim())),
            "{told}"
        );

        let none = WorkflowChange::new().nodes(None).metadata(None);
        let none = workflows.update(made.id, 3, none).await.expect("changed");
        assert_eq!((&none.nodes, &none.metadata), (&None, &None));
        assert_eq!(text(none.settings.as_ref()), *one);
    }
    let list = workflows.list_full(WorkflowFilter::new(), PageRequest::first(50));
    assert_eq!(list.await.expect("a list").items.len(), 2 * TEXTS.len());
}

async fn other_documents_keep_their_text(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let lease = Duration::from_mins(1);
    for (number, written) in TEXTS.iter().enumerate() {
        let flow = flow(&db, ada, written).await.id;
        let executions = db.executions();
        let new = NewExecution::new(flow, ExecutionMode::Manual).data(document(written));
        let queued = executions.enqueue(new).await.expect("queued");
        assert_eq!(text(queued.data.as_ref()), *written);
        let held = executions.claim("w", lease).await.expect("an answer");
        assert_eq!(text(held.expect("queued").data.as_ref()), *written);
        let longer = format!("[{written}]");
        let waits = executions.wait(
            claim_of(&db, queued.id, "w").await,
            None,
            Some(document(&longer)),
        );
        assert_eq!(text(waits.await.expect("held").data.as_ref()), longer);
        executions.resume(queued.id).await.expect("it waits");
        executions.claim("w", lease).await.expect("an answer");
        let outcome = Outcome::error(document(written)).data(document(written));
        let done = executions
            .finish(claim_of(&db, queued.id, "w").await, outcome)
            .await
            .expect("held");
        let (data, error) = (text(done.data.as_ref()), text(done.error.as_ref()));
        assert_eq!((data, error), (*written, *written));

        let new = NewAgent::new(number.to_string(), "large").owner(ada);
        let agent = db.agents().create(new.config(document(written))).await;
        let agent = agent.expect("created");
        assert_eq!(text(agent.config.as_ref()), *written);
        let change = AgentChange::new().config(Some(document(&longer)));
        let changed = db.agents().update(agent.id, change).await.expect("changed");
        assert_eq!(text(changed.config.as_ref()), longer);

        let schema = r#"{ "default": 0.10000000000000000000000000001, "type": "object" }"#;
        let new = NewPlugin::new("http", number.to_string()).config_schema(document(schema));
        let plugin = db.plugins().register(new).await.expect("registered");
        assert_eq!(text(plugin.config_schema.as_ref()), schema, "also again");
    }
}

/// PostgreSQL keeps numbers in `jsonb`, and nothing else of how it was written.
async fn log_metadata_keeps_its_numbers(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let flow = flow(&db, ada, "[]").await.id;
    let numbers = "[9007199254740993, 0.1234567890123456789012345678901234567890]";
    let new = |text| NewLog::new(flow, LogLevel::Info, "x").metadata(document(text));
    let log = db.logs().append(new(numbers)).await.expect("appended");
    assert_eq!(text(log.metadata.as_ref()), numbers);
    let many = vec![new(numbers), NewLog::new(flow, LogLevel::Info, "none")];
    assert_eq!(db.logs().append_many(many).await.expect("appended"), 2);
    let list = db
        .logs()
        .list(LogFilter::new(), PageRequest::first(9))
        .await;
    let list = list.expect("a list").items;
    assert_eq!(list[0].metadata, None);
    assert_eq!(text(list[1].metadata.as_ref()), numbers);

    // Every f64, and not what PostgreSQL writes out with thousands of digits.
    for number in [f64::MAX, f64::MIN_POSITIVE, 5e-324] {
        let log = NewLog::new(flow, LogLevel::Info, "x").metadata(json!([number]));
        let log = db.logs().append(log).await.expect("appended");
        let read = log.metadata.expect("metadata");
        assert_eq!(read.json(), Ok(json!([number])));
    }
    for number in ["1e400", "-1e-400", "1e999999999999", &"1".repeat(351)] {
        let log = db.logs().append(new(number)).await;
        assert_eq!(refused(log), ["metadata"], "{number}");
        let logs = db.logs().append_many(vec![new(number)]).await;
        assert_eq!(refused(logs), ["metadata"], "{number}");
    }
}

async fn plain_seaorm_keeps_the_text(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let plain = &*db.seaorm().writer().await.expect("open");
    for (one, other) in TEXTS.iter().zip(TEXTS.iter().rev()) {
        let new = workflows::ActiveModel {
            name: Set("x".to_owned()),
            owner_id: Set(ada),
            nodes: Set(Some(document(one))),
            settings: Set(None),
            ..Default::default()
        };
        let made = new.insert(plain).await.expect("inserted");
        assert_eq!(text(made.nodes.as_ref()), *one);
        assert_eq!(made.settings, None);

        let mut change = made.clone().into_active_model();
        change.nodes = Set(None);
        change.settings = Set(Some(document(other)));
        let changed = change.update(plain).await.expect("updated");
        assert_eq!(
            (changed.nodes.as_ref(), text(changed.settings.as_ref())),
            (None, *other)
        );

        let change = workflows::ActiveModel {
            nodes: Set(Some(document(other))),
            ..Default::default()
        };
        let of = workflows::COLUMN.id.eq(made.id);
        let many = workflows::Entity::update_many()
            .set(change)
            .filter(of.clone());
        assert_eq!(many.exec(plain).await.expect("updated").rows_affected, 1);
        // What SeaORM hands on as it is has to be cast by who writes it.
        let connections = Expr::val(document(one)).cast_as("json_text");
        let many = workflows::Entity::update_many()
            .col_expr(workflows::Column::Connections, connections)
            .filter(of);
        many.exec(plain).await.expect("updated");
        let read = workflows::Entity::find_by_id(made.id)
            .one(&db.seaorm().reader().await.expect("open"))
            .await;
        let read = read.expect("rows").expect("a row");
        assert_eq!(text(read.nodes.as_ref()), *other);
        assert_eq!(text(read.connections.as_ref()), *one);
        assert_eq!(db.workflows().get(made.id).await.expect("there"), read);
    }
}

async fn plain_seaorm_in_bulk_and_without_documents(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let row = |text: &&str| workflows::ActiveModel {
        name: Set("x".to_owned()),
        owner_id: Set(ada),
        nodes: Set(Some(document(text))),
        ..Default::default()
    };
    let rows: Vec<_> = TEXTS.iter().map(row).collect();
    let writer = db.seaorm().writer().await.expect("open");
    let many = workflows::Entity::insert_many(rows).exec(&*writer);
    many.await.expect("inserted");
    drop(writer);
    let list = db.workflows();
    let list = list
        .list_full(WorkflowFilter::new(), PageRequest::first(50))
        .await;
    let list = list.expect("a list").items;
    let read: Vec<_> = list.iter().map(|flow| text(flow.nodes.as_ref())).collect();
    assert_eq!(read, TEXTS);

    let log = logs::ActiveModel {
        level: Set(LogLevel::Info),
        message: Set("x".to_owned()),
        workflow_id: Set(list[0].id),
        metadata: Set(Some(json!({"a": 1}).into())),
        ..Default::default()
    };
    let log = log
        .insert(&*db.seaorm().writer().await.expect("open"))
        .await
        .expect("inserted");
    let read = log.metadata.expect("metadata").json();
    assert_eq!(read, Ok(json!({"a": 1})));
}

async fn what_cannot_be_stored_is_refused(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let create = async |text: &str| {
        let new = NewWorkflow::new("x").owner(ada).nodes(document(text));
        db.workflows().create(new).await
    };
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    create(&nested(127)).await.expect("not too deep");
    create(r#"["\\u0000"]"#).await.expect("no U+0000");
    for text in [
        nested(128).as_str(),
        nested(1_000_000).as_str(),
        "1e400",
        "\"x\"",
        r#"["\u0000"]"#,
    ] {
        assert_eq!(refused(create(text).await), ["nodes"]);
    }
    let large = |bytes: usize| format!("[\"{}\"]", "x".repeat(bytes - 4));
    let most = aura_db::MAX_DOCUMENT_BYTES;
    create(&large(most)).await.expect("not too large");
    assert_eq!(refused(create(&large(most + 1)).await), ["nodes"]);
    // Blanks count: they are stored.
    assert_eq!(refused(create(&(large(most) + " ")).await), ["nodes"]);
    // Values that code has built have no bounds.
    let deep = (0..100_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    let new = NewWorkflow::new("x").owner(ada).nodes(deep);
    assert_eq!(refused(db.workflows().create(new).await), ["nodes"]);
}

async fn a_number_that_no_type_holds_is_a_problem_of_the_graph(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let new = NewWorkflow::new("x")
        .owner(ada)
        .nodes(document(r#"[{"name": "A", "x": 1e400}]"#));
    let id = db.workflows().create(new).await.expect("created").id;
    let graph = db.workflows().check(id).await.expect("checked");
    let [GraphProblem::Unreadable { place, expected }] = graph.problems.as_slice() else {
        panic!("{:?}", graph.problems)
    };
    assert_eq!(place, "/nodes");
    assert!(
        expected.contains("number out of range at line 1 column"),
        "{expected}"
    );
    let active = db.workflows().activate(id).await.expect("with a warning");
    assert_eq!(active.warnings, graph.problems);
    assert_error!(
        db.workflows().activate_if_sound(id).await,
        Error::Unsound { .. }
    );
}

async fn a_column_of_another_type_is_told(db: TestDb) {
    let db = open(&db).await;
    let id = user(&db, "ada").await.id;
    let row = |sql: &str| Statement::from_string(db.backend(), sql);
    let sql = "SELECT id, NULL AS none, 7 AS number FROM users";
    let row = db
        .seaorm()
        .reader()
        .await
        .expect("open")
        .query_one_raw(row(sql))
        .await;
    let row = row.expect("a row").expect("one");
    assert_eq!(row.try_get::<UserId>("", "id"), Ok(id));
    assert_eq!(row.try_get::<Option<Document>>("", "none"), Ok(None));
    assert!(row.try_get::<Document>("", "none").is_err());
    let error = row.try_get::<Document>("", "number").expect_err("a number");
    assert!(error.to_string().contains("number"), "{error}");
    assert!(row.try_get_by_index::<Document>(2).is_err());
    assert!(row.try_get::<Document>("", "missing").is_err());
}

/// Somebody's own may be `jsonb`, whose bytes are not only its text.
async fn documents_of_other_tables(test: TestDb) {
    let db = open(&test).await;
    test.execute("CREATE TABLE theirs (id bigint, a json, b jsonb)")
        .await;
    let values = r#"'{ "a": 1 }', '{"b": 2.50}'"#;
    test.execute(&format!(
        "INSERT INTO theirs VALUES (1, {values}), (2, NULL, NULL)"
    ))
    .await;
    let sql = "SELECT a, b FROM theirs ORDER BY id";
    let reader = db.seaorm().reader().await.expect("open");
    let statement = Statement::from_string(reader.get_database_backend(), sql);
    let rows = reader.query_all_raw(statement).await;
    let read: Vec<_> = rows
        .expect("rows")
        .iter()
        .map(QueryResult::try_get_many_by_index::<(Option<Document>, Option<Document>)>)
        .collect();
    assert_eq!(
        read,
        [
            Ok((
                Some(document(r#"{ "a": 1 }"#)),
                Some(document(r#"{"b": 2.50}"#))
            )),
            Ok((None, None))
        ]
    );
}

/// Only around its own condition does SQLite store what is no JSON.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_is_told_by_who_parses_it() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let db = open(&test).await;
    let ada = user(&db, "ada").await.id;
    let id = flow(&db, ada, "[]").await.id;
    let spoil = async |value: &str| {
        let sql = format!("UPDATE workflows SET nodes = {value}");
        test.execute(&format!("PRAGMA ignore_check_constraints = ON; {sql}"))
            .await;
    };
    let inconsistent = |error: Error, id: WorkflowId| {
        let Error::Inconsistent(RowError {
            table,
            column,
            id: row,
            ..
        }) = error
        else {
            panic!("{error:?}")
        };
        let expected = ("workflows".to_owned(), Some("nodes".to_owned()), Some(id.0));
        assert_eq!((table, column, row), expected);
    };
    spoil("'[nothing'").await;
    let workflows = db.workflows();
    let read = workflows.get(id).await.expect("readable as text");
    assert_eq!(text(read.nodes.as_ref()), "[nothing");
    assert!(serde_json::to_string(&read).is_err());
    inconsistent(workflows.check(id).await.expect_err("no JSON"), id);
    inconsistent(workflows.activate(id).await.expect_err("no JSON"), id);

    // What doesn't need the documents doesn't read them.
    spoil("X'FF'").await;
    inconsistent(workflows.get(id).await.expect_err("no text"), id);
    inconsistent(
        workflows.duplicate(id, None).await.expect_err("no text"),
        id,
    );
    let none = workflows.prune_history(id, 0).await;
    assert_eq!(none.expect("pruned"), 0);
    workflows.delete(id).await.expect("deleted");
    workflows.purge(id).await.expect("purged");
}
