//! Executions, their logs as they are written, and the end of the service.

use std::time::Duration;

use aura_db::{Database, Document, ExecutionId, ExecutionStatus, Role};
use hyper::StatusCode;
use serde_json::json;
use testdb::TestDb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Event, Service};

testdb::both!(migrated:
    an_execution_is_followed_to_its_end,
    a_follower_goes_on_where_it_was,
    a_canceled_execution_ends_its_followers,
    a_dead_execution_is_retried_or_discarded,
    an_execution_is_started_once,
    the_service_ends_while_it_is_followed,
    a_client_that_stalls_keeps_nothing_alive
);

/// Starts an execution of a new workflow with so many nodes.
pub(crate) async fn start(client: &Client, token: &str, nodes: usize) -> i64 {
    let nodes: Vec<_> = (0..nodes)
        .map(|number| json!({ "name": format!("node {number}") }))
        .collect();
    let new = json!({ "name": "Count", "nodes": nodes });
    let flow = client.post("/workflows", token, &new).await.json();
    let path = format!("/workflows/{}/executions", flow["id"]);
    let started = client.post(&path, token, &json!({ "why": "a test" })).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{started:?}");
    assert_eq!(started.json()["status"], "queued");
    assert_eq!(started.json()["data"], json!({ "why": "a test" }));
    started.json()["id"].as_i64().expect("an id")
}

/// What an execution of so many nodes writes.
fn lines(nodes: usize) -> Vec<String> {
    std::iter::once(format!("{nodes} nodes"))
        .chain((0..nodes).map(|number| format!("node {number} is done")))
        .collect()
}

/// The messages of a stream's `log` events, and the last event if it is another.
fn messages(events: &[Event]) -> (Vec<String>, Option<&Event>) {
    let logs = events.iter().take_while(|event| event.name == "log");
    let messages: Vec<_> = logs
        .map(|event| event.data["message"].as_str().expect("text").to_owned())
        .collect();
    assert!(events.len() <= messages.len() + 1, "{events:?}");
    let end = events.get(messages.len());
    (messages, end)
}

async fn an_execution_is_followed_to_its_end(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, admin) = service.join("ada", Role::Admin).await;
    let (_, viewer) = service.join("vic", Role::Viewer).await;
    let (_, stranger) = service.join("uma", Role::User).await;
    let execution = start(&service, &admin, 20).await;
    let path = format!("/executions/{execution}/logs");
    for (token, status) in [(stranger.as_str(), 404), ("", 401)] {
        assert_eq!(service.get(&path, token).await.status, status);
    }

    let (first, second) = tokio::join!(
        service.follow(execution, &admin, None),
        service.follow(execution, &viewer, None),
    );
    let (first, second) = tokio::join!(first.rest(), second.rest());
    // Who comes late is told the same.
    let late = service.follow(execution, &admin, None).await.rest().await;
    for events in [first, second, late] {
        service.hear(&format!("{events:?}"));
        let (messages, end) = messages(&events);
        assert_eq!(messages, lines(20));
        let end = end.expect("an end");
        assert_eq!(
            (end.name.as_str(), &end.data["status"]),
            ("end", &json!("success"))
        );
    }
    let found = service.db.executions().get(ExecutionId(execution)).await;
    assert_eq!(found.expect("found").status, ExecutionStatus::Success);
    service.end().await;
}

async fn a_follower_goes_on_where_it_was(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Admin).await;
    let execution = start(&service, &token, 20).await;
    // A browser whose connection breaks after each event that has an id.
    let mut told = Vec::new();
    let mut last: Option<String> = None;
    'connections: loop {
        let mut events = service.follow(execution, &token, last.as_deref()).await;
        while let Some(event) = events.next().await {
            let cut = event.id.is_some();
            last = event.id.clone().or(last);
            told.push(event);
            if cut {
                continue 'connections;
            }
        }
        break;
    }
    let (messages, end) = messages(&told);
    assert_eq!(messages, lines(20));
    assert_eq!(end.map(|end| end.name.as_str()), Some("end"));

    let request = hyper::Request::builder()
        .uri(format!("/executions/{execution}/logs"))
        .header("authorization", format!("Bearer {token}"))
        .header("last-event-id", "17");
    let request = request
        .body(http_body_util::Full::default())
        .expect("a request");
    assert_eq!(
        service.send(request).await.status(),
        StatusCode::BAD_REQUEST
    );
    service.end().await;
}

async fn an_execution_is_started_once(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Admin).await;
    let flow = json!({ "name": "Count", "nodes": [] });
    let flow = service.post("/workflows", &token, &flow).await.json();
    let path = format!("/workflows/{}/executions", flow["id"]);
    let body = json!({ "order": 1 });
    let first = service.post_once(&path, &token, "order-1", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    let again = service.post_once(&path, &token, "order-1", &body).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert_eq!(again.headers["location"], first.headers["location"]);
    let other = json!({ "order": 2 });
    let other = service.post_once(&path, &token, "order-1", &other).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{other:?}");
    for key in ["", "é"] {
        let refused = service.post_once(&path, &token, key, &body).await;
        assert_eq!(
            refused.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{refused:?}"
        );
    }
    let next = service.post_once(&path, &token, "order-2", &body).await;
    assert_eq!(next.status, StatusCode::ACCEPTED, "{next:?}");
    service.end().await;
}

async fn a_dead_execution_is_retried_or_discarded(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, admin) = service.join("ada", Role::Admin).await;
    let (_, stranger) = service.join("uma", Role::User).await;
    let (one, two) = (
        start(&service, &admin, 1).await,
        start(&service, &admin, 1).await,
    );
    for id in [one, two] {
        service.follow(id, &admin, None).await.rest().await;
    }
    test.execute("UPDATE executions SET status = 'dead'").await;
    let attempt = format!(
        "INSERT INTO execution_attempts (execution_id, claim_no, attempt, worker_id, reason) \
         VALUES ({one}, 1, 1, 'w', 'no')"
    );
    test.execute(&attempt).await;
    let attempts = format!("/executions/{one}/attempts");
    let kept = service.get(&attempts, &admin).await.json();
    assert_eq!(
        (&kept[0]["reason"], &kept[0]["worker_id"], &kept[1]),
        (&json!("no"), &json!("w"), &json!(null))
    );
    let hidden = service.get(&attempts, &stranger).await.status;
    assert_eq!(hidden, StatusCode::NOT_FOUND);
    let dead = async || {
        let list = service.get("/executions/dead", &admin).await.json();
        let items = list["items"].as_array().expect("items").iter();
        items.map(|item| item["id"].as_i64()).collect::<Vec<_>>()
    };
    assert_eq!(dead().await, [Some(two), Some(one)]);
    let retry = format!("/executions/{one}/retry");
    let refused = service.post(&retry, &stranger, &json!({})).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    let queued = service.post(&retry, &admin, &json!({})).await.json();
    assert_eq!(
        (&queued["status"], &queued["attempts"]),
        (&json!("queued"), &json!(0))
    );
    let events = service.follow(one, &admin, None).await.rest().await;
    let end = events.last().expect("an end");
    assert_eq!(
        (end.name.as_str(), &end.data["status"]),
        ("end", &json!("success"))
    );
    let again = service.post(&retry, &admin, &json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
    let gone = service.delete(&format!("/executions/{two}"), &admin).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(dead().await, []);
    service.end().await;
}

async fn a_canceled_execution_ends_its_followers(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Admin).await;
    let execution = start(&service, &token, 10_000).await;
    let mut events = service.follow(execution, &token, None).await;
    events.next().await.expect("a log entry");
    let canceled = service.db.executions().cancel(ExecutionId(execution)).await;
    canceled.expect("canceled");
    let events = events.rest().await;
    assert_eq!(
        events.last().map(|end| &end.data["status"]),
        Some(&json!("canceled"))
    );

    // The worker goes on with the next.
    let next = start(&service, &token, 0).await;
    let events = service.follow(next, &token, None).await.rest().await;
    assert_eq!(messages(&events).0, lines(0));
    service.end().await;
}

async fn the_service_ends_while_it_is_followed(test: TestDb) {
    let service = Service::start(&test).await;
    let (_, token) = service.join("ada", Role::Admin).await;
    let execution = start(&service, &token, 10_000).await;
    let waiting = start(&service, &token, 0).await;
    let mut running = service.follow(execution, &token, None).await;
    let idle = service.follow(waiting, &token, None).await;
    running.next().await.expect("a log entry");
    service.end().await; // promptly

    // The streams end in order, without an event that says so.
    assert!(running.rest().await.iter().all(|event| event.name == "log"));
    assert!(idle.rest().await.is_empty());

    // What was under way is anybody's now.
    let db = Database::connect(test.config()).await.expect("it connects");
    let lease = Duration::from_mins(1);
    for id in [execution, waiting] {
        let claimed = db.executions().claim("another", lease).await;
        let claimed = claimed.expect("claimed").expect("one");
        assert_eq!(claimed.id, ExecutionId(id));
        assert_eq!(
            claimed.data,
            Some(Document::from(json!({ "why": "a test" })))
        );
    }
    db.close().await;
}

async fn a_client_that_stalls_keeps_nothing_alive(test: TestDb) {
    let service = Service::start(&test).await;
    let mut stalled = service.connect().await;
    let head = "POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 100\r\nexpect: 100-continue\r\n\r\n";
    stalled.write_all(head.as_bytes()).await.expect("sent");
    let mut told = [0; 12];
    stalled.read_exact(&mut told).await.expect("an answer");
    // The service waits for the body, which never comes.
    assert_eq!(&told, b"HTTP/1.1 100");
    service.end_within(Duration::from_secs(9)).await;
}
