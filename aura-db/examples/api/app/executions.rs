//! Starting executions, and following what they write.

use std::time::Duration;

use aura_db::logs::{Log, Tail, TailFrom, TailPosition};
use aura_db::{
    Document, Error, Execution, ExecutionAttempt, ExecutionFilter, ExecutionId, ExecutionMode,
    ExecutionStatus, ExecutionSummary, LogFilter, NewExecution, Page,
};
use aura_db::{Restricted, WorkflowId};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::{BoxError, Json};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;

use super::auth::Caller;
use super::workflows::Part;
use super::{ApiError, App, Stopping};

/// How often a follower asks whether the execution has ended.
const CHECK: Duration = Duration::from_millis(500);

/// Queues an execution; the body, if there is one, is what it begins with. A client that
/// doesn't know whether its request arrived sends it again with the same `idempotency-key`, and
/// is answered with the execution of the first (200 instead of 202).
pub(crate) async fn start(
    caller: Caller,
    Path(id): Path<WorkflowId>,
    headers: HeaderMap,
    body: Option<Json<Document>>,
) -> Result<impl IntoResponse, ApiError> {
    let mut new = NewExecution::new(id, ExecutionMode::Manual);
    new.data = body.map(|Json(data)| data);
    let executions = caller.db.executions();
    let (execution, status) = match headers.get("idempotency-key") {
        Some(key) => {
            // What isn't text is no key, and is refused as one that is empty.
            let key = key.to_str().unwrap_or_default();
            let queued = executions.enqueue_once(new, key).await?;
            let status = if queued.is_new {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            (queued.execution, status)
        }
        None => (executions.enqueue(new).await?, StatusCode::ACCEPTED),
    };
    let location = format!("/executions/{}/logs", execution.id);
    Ok((status, [(header::LOCATION, location)], Json(execution)))
}

/// How the attempts of an execution ended that failed.
pub(crate) async fn attempts(
    caller: Caller,
    Path(id): Path<ExecutionId>,
) -> Result<Json<Vec<ExecutionAttempt>>, ApiError> {
    Ok(Json(caller.db.executions().attempts(id).await?))
}

/// What failed as often as it may: `{"items": […], "next": "…"}`.
pub(crate) async fn dead(
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Page<ExecutionSummary>>, ApiError> {
    let dead = ExecutionFilter::new().status(ExecutionStatus::Dead);
    Ok(Json(caller.db.executions().list(dead, part.into()).await?))
}

/// Queues a dead execution again.
pub(crate) async fn retry(
    caller: Caller,
    Path(id): Path<ExecutionId>,
) -> Result<Json<Execution>, ApiError> {
    Ok(Json(caller.db.executions().retry(id).await?))
}

/// Deletes a dead execution with its logs.
pub(crate) async fn discard(
    caller: Caller,
    Path(id): Path<ExecutionId>,
) -> Result<StatusCode, ApiError> {
    caller.db.executions().discard(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The log as server-sent events: `log` for each entry, from the first on, and
/// `end` with the status. A stream that ends without it was cut off (the
/// service restarts): browsers connect again and go on after the last event id.
pub(crate) async fn follow(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ExecutionId>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    caller.db.executions().get(id).await?;
    let from = match headers.get("last-event-id") {
        Some(id) => serde_json::from_slice(id.as_bytes())
            .map(TailFrom::After)
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "an unknown event id"))?,
        None => TailFrom::Start,
    };
    let logs = caller.db.logs();
    let follower = Follower {
        tail: logs.tail(LogFilter::execution(id), from).await?,
        db: caller.db,
        id,
        stopping: app.stopping,
    };
    Ok(Sse::new(follower.events()).keep_alive(KeepAlive::default()))
}

struct Follower {
    tail: Tail,
    db: Restricted,
    id: ExecutionId,
    stopping: Stopping,
}

enum News {
    Entries(Vec<Log>),
    End(ExecutionStatus),
    Stopping,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, BoxError>> {
        let news = stream::unfold(Some(self), |follower| async {
            let mut follower = follower?;
            let (events, next) = match follower.news().await {
                Ok(News::Entries(logs)) => {
                    let events = entries(&logs, &follower.tail.position());
                    (events, Some(follower))
                }
                Ok(News::End(status)) => (vec![event("end", &json!({ "status": status }))], None),
                Ok(News::Stopping) => return None,
                // The status line is sent already, so this is told here.
                Err(error) => {
                    let error = ApiError::from(error);
                    (vec![event("error", error.message())], None)
                }
            };
            Some((stream::iter(events), next))
        });
        news.flatten()
    }

    async fn news(&mut self) -> Result<News, Error> {
        // Whatever is dropped here loses nothing.
        let status = tokio::select! {
            logs = self.tail.next() => return Ok(News::Entries(logs?)),
            status = ended(&self.db, self.id) => status?,
            () = self.stopping.clone().wait() => return Ok(News::Stopping),
        };
        // A look after the end finds everything that was written before it.
        let rest = self.tail.poll().await?;
        Ok(if rest.is_empty() {
            News::End(status)
        } else {
            News::Entries(rest)
        })
    }
}

/// Waits until the execution has ended, and says how.
async fn ended(db: &Restricted, id: ExecutionId) -> Result<ExecutionStatus, Error> {
    loop {
        let status = db.executions().get(id).await?.status;
        if status.has_ended() {
            return Ok(status);
        }
        tokio::time::sleep(CHECK).await;
    }
}

/// The last one carries the place to go on from.
fn entries(logs: &[Log], position: &TailPosition) -> Vec<Result<Event, BoxError>> {
    let mut events: Vec<_> = logs.iter().map(|log| event("log", log)).collect();
    if let Some(last) = events.pop() {
        events.push(last.and_then(|event| Ok(event.id(serde_json::to_string(position)?))));
    }
    events
}

fn event(name: &str, data: &impl serde::Serialize) -> Result<Event, BoxError> {
    Ok(Event::default().event(name).json_data(data)?)
}
