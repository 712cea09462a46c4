//! Two tables of the service's own: credentials of other services, and API keys.
//! Which credentials are the caller's, their policy decides.

use aura_db::secrecy::ExposeSecret;
use aura_db::{Page, Sort};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::auth::Caller;
use super::tables::{api_keys, credentials};
use super::workflows::Part;
use super::{ApiError, App};

aura_db::projection! {
    /// A credential without what it holds: executions need that, clients don't.
    #[derive(Serialize)]
    pub(crate) struct Named of credentials {
        id: i64 = Id,
        name: String = Name,
    }
}

pub(crate) async fn list(
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Page<Named>>, ApiError> {
    let credentials = caller.db.repository::<credentials::Entity>();
    let by_key = Sort::default();
    let page = credentials.list_as((), &by_key, part.into()).await?;
    Ok(Json(page))
}

// Without `Debug`: nothing can log it by accident.
#[derive(Deserialize)]
pub(crate) struct New {
    name: String,
    payload: String,
}

pub(crate) async fn create(
    caller: Caller,
    body: Result<Json<New>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    // The reason of a rejection may quote the body.
    let Ok(Json(New { name, payload })) = body else {
        let what = r#"the body must be JSON: {"name": "…", "payload": "…"}"#;
        return Err(ApiError::new(StatusCode::BAD_REQUEST, what));
    };
    let new = credentials::new(&name, &payload);
    let credentials = caller.db.repository::<credentials::Entity>();
    let credentials::Model { id, name, .. } = credentials.insert(new).await?;
    Ok((StatusCode::CREATED, Json(Named { id, name })))
}

pub(crate) async fn remove(caller: Caller, Path(id): Path<i64>) -> Result<StatusCode, ApiError> {
    let credentials = caller.db.repository::<credentials::Entity>();
    credentials.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn issue_key(
    State(app): State<App>,
    caller: Caller,
) -> Result<impl IntoResponse, ApiError> {
    let (token, key) = api_keys::issue(&app.db.acting_as(caller.user.id)).await?;
    let body = json!({
        "prefix": key.prefix,
        "key": token.expose_secret(), // the only time that it is shown
    });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(body)))
}
