//! What runs the executions. Here it is a task beside the API; it would be the
//! same in processes of its own, as many as you like.

use std::time::{Duration, Instant};

use aura_db::{Database, Error, Execution, LogLevel, NewLog, Outcome, Worker, WorkflowGraph};

use super::App;

/// How long an execution stays with a worker that gives no sign of life.
const LEASE: Duration = Duration::from_secs(30);
pub(crate) async fn run(app: App) {
    // To be found by it in lists and logs, also in containers, where every process has the id 1.
    let worker = Worker::new(format!("api-{:016x}", rand::random::<u64>()));
    let mut wakeups = app.db.executions().wakeups(&worker);
    let mut tidied: Option<Instant> = None;
    while !app.stopping.now() {
        if tidied.is_none_or(|time| time.elapsed() > LEASE) {
            tidied = Some(Instant::now());
            // Workers take what crashed ones held by themselves. This shows it in lists, and
            // finds what was put aside for workflows that were restored with SQL.
            if let Err(error) = app.db.executions().requeue_expired(100).await {
                tracing::warn!("tidying the queue: {}", super::chain(&error));
            }
        }
        match app.db.executions().claim(worker.clone(), LEASE).await {
            Ok(Some(execution)) => {
                match execute(&app, &execution).await {
                    Ok(()) => {}
                    // Canceled, or taken for dead: somebody else's now.
                    Err(Error::LeaseLost { .. }) => tracing::info!(id = %execution.id, "lost"),
                    // The lease runs out, and it is run again.
                    Err(error) => tracing::warn!(id = %execution.id, "{}", super::chain(&error)),
                }
                continue;
            }
            Ok(None) => {}
            // A database that is away for a while is no reason to give up.
            Err(error) => tracing::warn!("claiming: {}", super::chain(&error)),
        }
        tokio::select! {
            () = wakeups.next() => {}
            () = app.stopping.clone().wait() => {}
        }
    }
}

/// Runs one execution. It may have been begun before, by a worker that
/// crashed: real steps have to stand being done twice.
async fn execute(app: &App, execution: &Execution) -> Result<(), Error> {
    let (db, logs) = (&app.db, app.db.logs());
    let log = |message: String| {
        let entry = NewLog::new(execution.workflow_id, LogLevel::Info, message);
        logs.append(entry.execution(execution.id))
    };
    let graph = graph(db, execution).await?;
    log(format!("{} nodes", graph.nodes.len())).await?;
    for node in &graph.nodes {
        if app.stopping.now() {
            // For the next worker.
            db.executions().release(execution).await?;
            return Ok(());
        }
        work().await;
        log(format!("{} is done", node.name)).await?;
        db.executions().extend(execution, LEASE).await?;
    }
    // After the last entry: followers stop when they see it.
    let outcome = Outcome::success(None);
    db.executions().finish(execution, outcome).await?;
    Ok(())
}

/// The workflow as it was when the execution was queued.
async fn graph(db: &Database, execution: &Execution) -> Result<WorkflowGraph, Error> {
    let (id, version) = (execution.workflow_id, execution.workflow_version);
    let flow = db.workflows().get(id).await?;
    let (nodes, connections) = if flow.version == version {
        (flow.nodes, flow.connections)
    } else {
        let earlier = db.workflows().version(id, version).await?;
        (earlier.nodes, earlier.connections)
    };
    Ok(WorkflowGraph::read(nodes.as_ref(), connections.as_ref()))
}

/// A stand-in for what nodes do.
async fn work() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
