//! The routes, and how the service starts and stops.

mod auth;
mod credentials;
mod error;
mod executions;
mod operation;
#[path = "../../own_tables/tables/mod.rs"]
#[allow(dead_code, reason = "it uses two of the three")]
mod tables;
mod worker;
mod workflows;

use std::time::Duration;

use aura_db::{Database, MAX_DOCUMENT_BYTES};
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::error::{ApiError, chain};
pub(crate) use self::tables::runner;

/// How long requests and the worker have to come to an end; container
/// runtimes kill after ten seconds or more.
const GRACE: Duration = Duration::from_secs(5);

/// What all handlers share. `Database` is a handle: its clones share the pools.
#[derive(Clone)]
pub(crate) struct App {
    db: Database,
    stopping: Stopping,
}

fn router(app: App) -> Router {
    let workflow = get(workflows::read).put(workflows::save);
    Router::new()
        .route("/workflows", get(workflows::list).post(workflows::create))
        .route("/workflows/{id}", workflow)
        // A workflow may be larger than axum's 2 MiB. Who isn't logged in is
        // refused before the body is read.
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES))
        .route("/workflows/{id}/executions", post(executions::start))
        .route("/executions/dead", get(executions::dead))
        .route("/executions/{id}", delete(executions::discard))
        .route("/executions/{id}/retry", post(executions::retry))
        .route("/executions/{id}/attempts", get(executions::attempts))
        .route("/executions/{id}/logs", get(executions::follow))
        .route(
            "/credentials",
            get(credentials::list).post(credentials::create),
        )
        .route("/credentials/{id}", delete(credentials::remove))
        .route("/api-keys", post(credentials::issue_key))
        .route("/login", post(auth::login))
        .route("/session", delete(auth::logout))
        .route("/health", get(operation::health))
        .route("/metrics", get(operation::metrics))
        .layer(middleware::from_fn(operation::log))
        .with_state(app)
}

/// Serves until `stop` comes true; then ends what is under way, within bounds,
/// and closes the database.
///
/// Fails when the server or the worker ended before.
pub(crate) async fn serve(
    listener: TcpListener,
    db: Database,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (stopper, stopping) = watch::channel(false);
    let app = App {
        db: db.clone(),
        stopping: Stopping(stopping),
    };
    let server = axum::serve(listener, router(app.clone()))
        .with_graceful_shutdown(app.stopping.clone().wait());
    let mut tasks = JoinSet::new();
    tasks.spawn(worker::run(app));
    tasks.spawn(async {
        if let Err(error) = server.await {
            tracing::error!("serving: {error}");
        }
    });

    let early = tokio::select! {
        () = stop => None,
        // Neither ends by itself. A service that is half there would look well
        // and not be: better that it is started again.
        ended = tasks.join_next() => ended,
    };
    tracing::info!("stopping");
    // The listener closes, streams of logs end, the worker gives back what it
    // holds.
    stopper.send_replace(true);
    let rest = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        // A client that is slow, on purpose or not, can't keep the service alive.
        tracing::warn!("requests were cut off after {GRACE:?}");
        tasks.abort_all();
    }
    // Last, when nobody needs it any more; it waits for statements under way.
    if tokio::time::timeout(GRACE, db.close()).await.is_err() {
        tracing::warn!("the database did not close within {GRACE:?}");
    }
    match early {
        None => Ok(()),
        Some(ended) => Err(std::io::Error::other(format!("a task ended: {ended:?}"))),
    }
}

/// Whether the service is about to end.
#[derive(Clone)]
struct Stopping(watch::Receiver<bool>);

impl Stopping {
    fn now(&self) -> bool {
        *self.0.borrow()
    }

    async fn wait(mut self) {
        // An error means that `serve` is gone, which is the end as well.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}
