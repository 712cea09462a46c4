//! Logins, workflows, roles, and what goes wrong.

use aura_db::{NewWorkflow, Role};
use hyper::StatusCode;
use serde_json::{Value, json};
use testdb::TestDb;

use crate::support::{Answer, PASSWORD, Service};

testdb::both!(migrated:
    logging_in_and_out,
    workflows_are_created_saved_and_listed,
    input_is_refused_with_all_that_is_wrong,
    roles_count,
    health_and_metrics_are_told,
    a_database_that_is_away_is_no_secret
);

/// The fields that an answer says are wrong.
fn fields(answer: &Answer) -> Vec<String> {
    assert_eq!(
        answer.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{answer:?}"
    );
    let fields = answer.json()["fields"].as_array().cloned();
    let fields = fields.unwrap_or_default().into_iter();
    fields
        .filter_map(|field| Some(field["field"].as_str()?.to_owned()))
        .collect()
}

async fn logging_in_and_out(test: TestDb) {
    let service = Service::start(&test).await;
    let (ada, token) = service.join("ada", Role::Admin).await;
    assert_eq!(
        service.get("/workflows", &token).await.status,
        StatusCode::OK
    );

    // Which of the two is wrong, nobody learns.
    let mut told = Vec::new();
    for (email, password) in [
        ("ada@example.org", "wrong"),
        ("eve@example.org", PASSWORD),
        ("ada@example.org", &"x".repeat(2_000)),
    ] {
        let login = json!({ "email": email, "password": password });
        let answer = service.post("/login", "", &login).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
        told.push(answer.text);
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");

    // A body that can't be read is not quoted.
    for login in [
        json!({ "email": "ada@example.org", "password": 73_219_463 }),
        json!([]),
    ] {
        let answer = service.post("/login", "", &login).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(!answer.text.contains("73219463"), "{answer:?}");
    }

    for wrong in ["", "x", &token[1..], &token.to_uppercase()] {
        let answer = service.get("/workflows", wrong).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }

    // Each login is a session of its own.
    let other = service.login("ADA@example.org").await;
    let answer = service.delete("/session", &token).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    for (token, status) in [(&token, StatusCode::UNAUTHORIZED), (&other, StatusCode::OK)] {
        assert_eq!(service.get("/workflows", token).await.status, status);
    }
    service
        .db
        .users()
        .deactivate(ada.id)
        .await
        .expect("deactivated");
    let answer = service.get("/workflows", &other).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    service.end().await;
}

async fn workflows_are_created_saved_and_listed(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Editor).await;
    let new = json!({ "name": "Greet", "description": "Hello", "nodes": [{ "name": "Start" }] });
    let created = service.post("/workflows", &token, &new).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let path = created.header("location").expect("a place").to_owned();
    let mut flow = service.get(&path, &token).await.json();
    assert_eq!(flow, created.json());
    assert_eq!(flow["nodes"], new["nodes"]);

    // What was read is changed and sent back.
    flow["name"] = "Greet politely".into();
    flow["description"] = Value::Null;
    let saved = service.put(&path, &token, &flow).await;
    assert_eq!(saved.status, StatusCode::OK, "{saved:?}");
    assert_eq!(saved.json()["version"], 2);
    assert_eq!(saved.json()["description"], Value::Null);
    assert_eq!(saved.json()["nodes"], new["nodes"]);

    let stale = service.put(&path, &token, &flow).await;
    assert_eq!(stale.status, StatusCode::CONFLICT);
    assert_eq!(
        (&stale.json()["read"], &stale.json()["found"]),
        (&json!(1), &json!(2))
    );

    for number in 0..4 {
        let new = json!({ "name": format!("Flow {number}") });
        service.post("/workflows", &token, &new).await;
    }
    let mut names = Vec::new();
    let mut path = "/workflows?size=2".to_owned();
    loop {
        let page = service.get(&path, &token).await.json();
        let items = page["items"].as_array().expect("items");
        names.extend(items.iter().map(|item| item["name"].clone()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/workflows?size=2&after={next}");
    }
    assert_eq!(
        names,
        ["Greet politely", "Flow 0", "Flow 1", "Flow 2", "Flow 3"]
    );
    service.end().await;
}

async fn input_is_refused_with_all_that_is_wrong(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Admin).await;
    let flow = json!({ "name": "Greet" });
    let flow = service.post("/workflows", &token, &flow).await.json();
    let path = format!("/workflows/{}", flow["id"]);

    let bad = json!({ "name": " ", "nodes": "none", "settings": 3, "version": 1 });
    let wrong = ["name", "settings", "nodes"];
    for answer in [
        service.post("/workflows", &token, &bad).await,
        service.put(&path, &token, &bad).await,
    ] {
        assert_eq!(fields(&answer), wrong, "{answer:?}");
    }
    let answer = service.get("/workflows?size=0", &token).await;
    assert_eq!(fields(&answer), ["page.size"]);
    let answer = service.get("/workflows?after=x", &token).await;
    assert_eq!(fields(&answer), ["page.after"]);

    // What has the wrong shape is refused before it is looked at.
    let answer = service.put(&path, &token, &json!({ "name": "x" })).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text.contains("version"), "{answer:?}");
    for (path, status) in [
        ("/workflows/1000", StatusCode::NOT_FOUND),
        ("/workflows/x", StatusCode::BAD_REQUEST),
        ("/workflows?size=x", StatusCode::BAD_REQUEST),
        ("/executions/1000/logs", StatusCode::NOT_FOUND),
        ("/elsewhere", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(service.get(path, &token).await.status, status, "{path}");
    }
    let path = "/workflows/1000/executions";
    let answer = service.post(path, &token, &json!({})).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    service.end().await;
}

async fn roles_count(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, admin) = service.join("ada", Role::Admin).await;
    let (eve, editor) = service.join("eve", Role::Editor).await;
    let (_, viewer) = service.join("vic", Role::Viewer).await;
    let (uma, user) = service.join("uma", Role::User).await;
    let flow = json!({ "name": "Ada's" });
    let adas = service.post("/workflows", &admin, &flow).await.json();
    let adas = format!("/workflows/{}", adas["id"]);
    let umas = NewWorkflow::new("Uma's").owner(uma.id);
    let umas = service.db.workflows().create(umas).await.expect("created");
    let umas = format!("/workflows/{}/executions", umas.id);

    // Viewers see all and change nothing; editors and users have their own, and those of
    // others are hidden from them.
    for (token, seen, read, created, saved) in [
        (&admin, 2, 200, 201, 200),
        (&viewer, 3, 200, 403, 403),
        (&editor, 0, 404, 201, 404),
        (&user, 1, 404, 403, 403),
    ] {
        let list = service.get("/workflows", token).await.json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(seen));
        assert_eq!(service.get(&adas, token).await.status, read);
        let flow = json!({ "name": "Mine", "version": 1 });
        assert_eq!(service.put(&adas, token, &flow).await.status, saved);
        assert_eq!(
            service.post("/workflows", token, &flow).await.status,
            created
        );
    }
    for (token, started) in [(&viewer, 403), (&editor, 404), (&user, 202)] {
        let answer = service.post(&umas, token, &json!({})).await;
        assert_eq!(answer.status, started, "{answer:?}");
    }

    // A demotion counts at once, for sessions that are open too.
    let set = service.db.users().set_role(eve.id, Role::Viewer).await;
    set.expect("a viewer");
    let answer = service
        .post("/workflows", &editor, &json!({ "name": "x" }))
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    service.end().await;
}

async fn health_and_metrics_are_told(test: TestDb) {
    let service = Service::start(&test).await;
    let answer = service.get("/health", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["schema"]["state"], "current");

    service.join("ada", Role::Admin).await;
    let answer = service.get("/metrics", "").await;
    let line = r#"aura_db_operations_total{table="users",operation="login"} 1"#;
    assert!(answer.text.lines().any(|text| text == line), "{answer:?}");
    for line in answer.text.lines() {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<u64>());
        assert!(matches!(value, Some(Ok(_))), "{line}");
    }
    service.end().await;
}

async fn a_database_that_is_away_is_no_secret(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Admin).await;
    service.db.clone().close().await;
    for path in ["/workflows", "/health"] {
        let answer = service.get(path, &token).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.json(), json!({ "error": "try again in a moment" }));
    }
    service.end().await;
}
