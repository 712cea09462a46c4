//! Workflows. What the caller may see and do is decided by the database handle
//! of the [`Caller`], so no handler can forget to ask.

use aura_db::{
    Cursor, Document, NewWorkflow, Page, PageRequest, Workflow, WorkflowChange, WorkflowFilter,
};
use aura_db::{WorkflowId, WorkflowSummary};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::ApiError;
use super::auth::Caller;

#[derive(Deserialize)]
pub(crate) struct Part {
    after: Option<Cursor>,
    size: Option<u64>,
}

impl From<Part> for PageRequest {
    fn from(part: Part) -> Self {
        let size = part.size.unwrap_or(50);
        match part.after {
            Some(cursor) => Self::after(cursor, size),
            None => Self::first(size),
        }
    }
}

/// `{"items": […], "next": "…"}`; the next page is `?after=` with `next`.
pub(crate) async fn list(
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Page<WorkflowSummary>>, ApiError> {
    let workflows = caller.db.workflows();
    let page = workflows.list(WorkflowFilter::new(), part.into()).await?;
    Ok(Json(page))
}

pub(crate) async fn read(
    caller: Caller,
    Path(id): Path<WorkflowId>,
) -> Result<Json<Workflow>, ApiError> {
    Ok(Json(caller.db.workflows().get(id).await?))
}

#[derive(Deserialize)]
pub(crate) struct Content {
    name: String,
    description: Option<String>,
    settings: Option<Document>,
    connections: Option<Document>,
    nodes: Option<Document>,
}

pub(crate) async fn create(
    caller: Caller,
    body: Result<Json<Content>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Json(content) = body?;
    let new = NewWorkflow::new(content.name)
        .description(content.description)
        .settings(content.settings)
        .connections(content.connections)
        .nodes(content.nodes);
    let flow = caller.db.workflows().create(new).await?;
    let location = [(header::LOCATION, format!("/workflows/{}", flow.id))];
    Ok((StatusCode::CREATED, location, Json(flow)))
}

#[derive(Deserialize)]
pub(crate) struct Save {
    /// The one that the client read and changed.
    version: i64,
    // Not flattened from `Content`: that would need the documents parsed.
    name: String,
    description: Option<String>,
    settings: Option<Document>,
    connections: Option<Document>,
    nodes: Option<Document>,
}

pub(crate) async fn save(
    caller: Caller,
    Path(id): Path<WorkflowId>,
    body: Result<Json<Save>, JsonRejection>,
) -> Result<Json<Workflow>, ApiError> {
    let Json(save) = body?;
    // PUT says all of it: what is missing is taken away.
    let change = WorkflowChange::new()
        .name(save.name)
        .description(save.description)
        .settings(save.settings)
        .connections(save.connections)
        .nodes(save.nodes);
    let workflows = caller.db.workflows();
    let saved = workflows.update(id, save.version, change).await?;
    Ok(Json(saved))
}
