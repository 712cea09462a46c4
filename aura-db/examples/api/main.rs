//! A small but complete HTTP API on aura-db: logins, workflows with versions,
//! executions that a worker runs, and their logs as they are written. Credentials and
//! API keys are tables of its own, those of the example `own_tables`.
//!
//! ```sh
//! cargo run -p seed -- --migrate      # demo users; prints their passwords
//! cargo run -p aura-db --example api  # DB_* as everywhere, LISTEN=127.0.0.1:8080
//!
//! curl -H 'content-type: application/json' localhost:8080/login \
//!     -d '{"email": "admin@aura.local", "password": "…"}'
//! curl -H "authorization: Bearer $TOKEN" localhost:8080/workflows
//! curl -H "authorization: Bearer $TOKEN" -H 'idempotency-key: 1' -X POST \
//!     localhost:8080/workflows/1/executions
//! curl -H "authorization: Bearer $TOKEN" -N localhost:8080/executions/1/logs
//! curl -H "authorization: Bearer $TOKEN" localhost:8080/executions/dead
//! curl -H "authorization: Bearer $TOKEN" localhost:8080/executions/1/attempts
//! curl -H "authorization: Bearer $TOKEN" -X POST localhost:8080/executions/1/retry
//! curl -H "authorization: Bearer $TOKEN" -X POST localhost:8080/api-keys
//! curl -H "x-api-key: $KEY" localhost:8080/credentials
//! ```
//!
//! It speaks plain HTTP and limits nobody's rate: put a reverse proxy in front.

mod app;

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use aura_db::{Config, Database, Environment};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter) // RUST_LOG
        .with_ansi(std::io::stdout().is_terminal())
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", app::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    // Before anything else: a signal that comes while it starts counts too.
    let stop = stop_signal()?;
    let environment = Environment::load()?;
    let listen = environment.get("LISTEN").map(|(address, _)| address);
    // Of several processes that start at once, one migrates and the others wait.
    let config = Config::from_environment(&environment)?;
    app::runner().up(&config).await?;
    let db = Database::connect(config).await?;
    let listener = TcpListener::bind(listen.unwrap_or("127.0.0.1:8080")).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    app::serve(listener, db, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Comes true at Ctrl-C, and at SIGTERM, with which systemd, Docker and
/// Kubernetes end a service.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Comes true at Ctrl-C.
#[cfg(windows)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}
