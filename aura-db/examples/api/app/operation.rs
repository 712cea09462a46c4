//! For whoever runs the service. These routes ask for no token: keep them
//! inside the network.

use std::fmt::Write;
use std::time::Instant;

use aura_db::{Health, SchemaHealth};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::{ApiError, App};

/// 200 while requests can be served.
pub(crate) async fn health(State(app): State<App>) -> Result<(StatusCode, Json<Health>), ApiError> {
    let health = app.db.health().await?;
    let status = match health.schema {
        SchemaHealth::Unusable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    Ok((status, Json(health)))
}

/// The database's numbers, in the text format of Prometheus.
pub(crate) async fn metrics(State(app): State<App>) -> String {
    let stats = app.db.stats();
    let mut text = String::new();
    // Writing to a `String` can't fail.
    for one in &stats.operations {
        let labels = format!(
            "{{table=\"{}\",operation=\"{}\"}}",
            one.table, one.operation
        );
        let _ = writeln!(text, "aura_db_operations_total{labels} {}", one.count);
        let _ = writeln!(text, "aura_db_errors_total{labels} {}", one.errors);
        let micros = one.total_micros;
        let _ = writeln!(text, "aura_db_operation_micros_total{labels} {micros}");
    }
    for (name, value) in [
        ("commits", stats.commits),
        ("rollbacks", stats.rollbacks),
        ("retries", stats.retries),
        ("pool_waits", stats.pool_waits),
        ("pool_wait_micros", stats.pool_wait_micros),
    ] {
        let _ = writeln!(text, "aura_db_{name}_total {value}");
    }
    text
}

/// A line for each request; only its path, because the rest may hold secrets.
pub(crate) async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), started.elapsed());
    tracing::info!(%method, path, status, ?took, "request");
    response
}
