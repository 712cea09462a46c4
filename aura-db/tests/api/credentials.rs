//! Tables of the service's own: credentials and API keys.

use aura_db::Role;
use hyper::StatusCode;
use serde_json::json;
use testdb::TestDb;

use crate::support::Service;

testdb::both!(migrated: credentials_are_their_owners, an_api_key_is_its_user);

const PAYLOAD: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

async fn credentials_are_their_owners(test: TestDb) {
    let service = Service::start(&test).await;
    service.keep_secret(PAYLOAD);
    let (_, admin) = service.join("ada", Role::Admin).await;
    let (_, uma) = service.join("uma", Role::User).await;
    let (_, bob) = service.join("bob", Role::User).await;
    let new = json!({ "name": "GitHub", "payload": PAYLOAD });
    let made = service.post("/credentials", &uma, &new).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.json()["name"], "GitHub");
    let path = format!("/credentials/{}", made.json()["id"]);

    // A name is taken for its owner only.
    let again = service.post("/credentials", &uma, &new).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
    let his = service.post("/credentials", &bob, &new).await;
    assert_eq!(his.status, StatusCode::CREATED, "{his:?}");
    for (token, seen) in [(&uma, 1), (&bob, 1), (&admin, 2)] {
        let list = service.get("/credentials?size=10", token).await.json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(seen));
    }
    let page = service.get("/credentials?size=1", &admin).await.json();
    let next = page["next"].as_str().expect("a second page");
    let path_of_next = format!("/credentials?size=1&after={next}");
    let page = service.get(&path_of_next, &admin).await.json();
    assert_eq!(page["items"][0]["id"], his.json()["id"]);

    let wrong = json!({ "name": "GitHub", "payload": [PAYLOAD] });
    let refused = service.post("/credentials", &uma, &wrong).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let long = json!({ "name": "x".repeat(121), "payload": PAYLOAD });
    let refused = service.post("/credentials", &uma, &long).await;
    assert_eq!(
        refused.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{refused:?}"
    );

    for (token, status) in [
        (&bob, StatusCode::NOT_FOUND),
        (&uma, StatusCode::NO_CONTENT),
        (&uma, StatusCode::NOT_FOUND),
    ] {
        let answer = service.delete(&path, token).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    service.end().await;
}

async fn an_api_key_is_its_user(test: TestDb) {
    let service = Service::start(&test).await;
    let (uma, token) = service.join("uma", Role::Viewer).await;
    let issued = service.post("/api-keys", &token, &json!({})).await;
    assert_eq!(issued.status, StatusCode::CREATED);
    assert_eq!(issued.header("cache-control"), Some("no-store"));
    let key = issued.json()["key"].as_str().expect("a key").to_owned();
    service.keep_secret(&key);

    let read = service.get_by_key("/workflows", &key).await;
    assert_eq!(read.status, StatusCode::OK, "{read:?}");
    for wrong in ["", "x", &key[1..], &key.to_uppercase(), &token] {
        let refused = service.get_by_key("/workflows", wrong).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
    // It outlives the session that it was made in, and not its user.
    service.delete("/session", &token).await;
    let read = service.get_by_key("/workflows", &key).await;
    assert_eq!(read.status, StatusCode::OK);
    let left = service.db.users().deactivate(uma.id).await;
    left.expect("deactivated");
    let refused = service.get_by_key("/workflows", &key).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    service.end().await;
}
