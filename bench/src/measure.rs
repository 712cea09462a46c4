//! Lets the peers take turns.

use std::time::Instant;

use futures_util::future::{join_all, try_join_all};

use crate::Result;
use crate::check::check;
use crate::databases::{self, Databases, Janitor};
use crate::docs;
use crate::machine::Machine;
use crate::options::Options;
use crate::peer::{Name, Target};
use crate::pin::{self, PinnedServer};
use crate::plan::Plan;
use crate::process::Worker;
use crate::protocol::{Request, Response, Run};
use crate::report::{Figure, Report};
use crate::workload::{Backend, Durability, Operation, Unit, Workload};

/// What the peak memory is read after.
const MEMORY_OF: Operation = Operation::Mixed;

/// Measures what was asked for, and tells it.
pub(crate) async fn all(options: &Options) -> Result<()> {
    let server = match options.backend {
        Some(Backend::Sqlite) => None,
        _ => databases::server()?,
    };
    let done = tokio::select! {
        done = measured(options, server.as_ref()) => done,
        _ = tokio::signal::ctrl_c() => Err("stopped".into()),
    };
    if let Some(server) = &server {
        databases::clear(server).await?;
    }
    let report = done?;
    terminal::line(report.text().trim_end());
    if let Some(path) = &options.json {
        let mut text = serde_json::to_string_pretty(&report)?;
        text.push('\n');
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.write_docs {
        docs::write(&report)?;
    }
    Ok(())
}

async fn measured(options: &Options, server: Option<&Target>) -> Result<Report> {
    let plan = Plan::new(options)?;
    let mut all = [Backend::Sqlite, Backend::Postgres]
        .into_iter()
        .flat_map(Workload::all);
    if !all.any(|workload| plan.wants(workload)) {
        return Err("--only: no workload has such a name".into());
    }
    let mut report = Report {
        machine: Machine::here(),
        versions: plan.versions(),
        settings: plan.settings(),
        figures: Vec::new(),
    };
    if options.backend != Some(Backend::Postgres) {
        let databases = Databases::make(None, options.folder.as_deref(), plan.shape).await?;
        on_backend(&plan, databases, &mut report).await?;
    }
    match server {
        Some(server) => {
            let _pinned = match plan.processors {
                Some(processors) => Some(PinnedServer::new(server, processors.server).await?),
                None => None,
            };
            report.settings.push(pin::describe(plan.processors));
            let databases = Databases::make(Some(server), None, plan.shape).await?;
            on_backend(&plan, databases, &mut report).await?;
        }
        None if options.backend == Some(Backend::Postgres) => {
            return Err("no PostgreSQL: run it with ./scripts/with-postgres, or set DB_*".into());
        }
        None if options.backend.is_none() => terminal::aside(
            "PostgreSQL is skipped: run it with ./scripts/with-postgres, or set DB_*",
        ),
        None => {}
    }
    Ok(report)
}

async fn on_backend(plan: &Plan<'_>, mut databases: Databases, report: &mut Report) -> Result<()> {
    let backend = databases.backend;
    report.versions.push(databases.version.clone());
    report.settings.extend(databases.settings.clone());
    let peers = plan.peers_on(backend);
    if peers.is_empty() {
        return Ok(());
    }
    for durability in [Durability::Full, Durability::Normal] {
        if backend == Backend::Sqlite || durability == Durability::Full {
            check(plan, &mut databases, &peers, durability).await?;
        }
    }
    for workload in Workload::all(backend) {
        if !plan.wants(workload) {
            continue;
        }
        terminal::aside(format_args!(
            "{}: {} …",
            backend.name(),
            workload.title(backend)
        ));
        let does = |peer: &Name| peer.does(workload.operation);
        let peers: Vec<Name> = peers.iter().copied().filter(does).collect();
        if peers.is_empty() {
            continue;
        }
        let target = databases.copy().await?;
        let figures = match workload.operation {
            Operation::Start => starts(plan, backend, workload, &target, &peers).await?,
            _ => rounds(plan, backend, workload, &target, &peers).await?,
        };
        report.figures.extend(figures);
        databases.remove(target).await?;
    }
    Ok(())
}

fn figure(backend: Backend, workload: Workload, peer: Name) -> Figure {
    Figure {
        backend,
        workload: workload.key(),
        title: workload.title(backend),
        unit: workload.unit(),
        peer,
        samples: Vec::new(),
        p50_us: Vec::new(),
        p99_us: Vec::new(),
    }
}

/// The indexes of the peers in the order of a round. Each is first at times,
/// and comes after another one in the next round.
fn turns(peers: usize, round: u32) -> Vec<usize> {
    let mut turns: Vec<_> = (0..peers)
        .map(|nth| (nth + round as usize) % peers)
        .collect();
    if round % 2 == 1 {
        turns.reverse();
    }
    turns
}

async fn rounds(
    plan: &Plan<'_>,
    backend: Backend,
    workload: Workload,
    target: &Target,
    peers: &[Name],
) -> Result<Vec<Figure>> {
    let mut figures: Vec<_> = peers
        .iter()
        .map(|&peer| figure(backend, workload, peer))
        .collect();
    let mut workers = try_join_all(peers.iter().map(async |&peer| {
        let setup = plan.setup(peer, target, workload.durability);
        Worker::open(&plan.programs, &setup).await
    }))
    .await?;
    for worker in &mut workers {
        worker.ask(&Request::Prepare {}).await?;
    }
    let mut run = Run {
        operation: workload.operation,
        tasks: workload.tasks,
        seconds: 0.0,
        seed: 0,
    };
    // What is not measured: caches fill, statements are prepared, code is
    // compiled where it is compiled late.
    for (worker, &peer) in workers.iter_mut().zip(peers) {
        run.seconds = plan.warm_up(peer);
        if run.seconds > 0.0 {
            worker.ask(&Request::Run(run)).await?;
        }
    }
    run.seconds = plan.seconds;
    let janitor = Janitor::new(target).await?;
    if workload.operation == Operation::Queue {
        // The tables of queues are empty before.
        janitor.analyze().await?;
    }
    for round in 0..plan.rounds {
        run.seed = u64::from(round) + 1;
        for nth in turns(peers.len(), round) {
            janitor.clear_up().await?;
            let Response::Measured(measured) = workers[nth].ask(&Request::Run(run)).await? else {
                return Err(format!("{} gave another answer", peers[nth].title()).into());
            };
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let done = (measured.calls * workload.operation.weight()) as f64;
            figures[nth].samples.push(done / measured.seconds);
            figures[nth].p50_us.push(measured.p50_us);
            figures[nth].p99_us.push(measured.p99_us);
        }
    }
    janitor.close().await?;
    if workload.operation == MEMORY_OF && workload.durability == Durability::Full {
        for (nth, worker) in workers.iter().enumerate() {
            if let Some(memory) = worker.peak_memory() {
                figures.push(Figure {
                    workload: "memory".to_owned(),
                    title: "peak memory, mixed".to_owned(),
                    unit: Unit::Mebibytes,
                    samples: vec![memory],
                    p50_us: Vec::new(),
                    p99_us: Vec::new(),
                    ..figures[nth].clone()
                });
            }
        }
    }
    join_all(workers.into_iter().map(Worker::close)).await;
    Ok(figures)
}

/// The time from the start of a process to its first answer.
async fn starts(
    plan: &Plan<'_>,
    backend: Backend,
    workload: Workload,
    target: &Target,
    peers: &[Name],
) -> Result<Vec<Figure>> {
    /// In each round; one alone says little about something so short.
    const TIMES: u32 = 4;
    let mut figures: Vec<_> = peers
        .iter()
        .map(|&peer| figure(backend, workload, peer))
        .collect();
    for round in 0..plan.rounds * TIMES {
        for nth in turns(peers.len(), round) {
            let setup = plan.setup(peers[nth], target, workload.durability);
            let begun = Instant::now();
            let mut worker = Worker::start(&plan.programs, &setup).await?;
            let session = i64::from(round) % plan.shape.sessions + 1;
            worker.send(&Request::First { session }).await?;
            worker.hear().await?;
            worker.hear().await?;
            figures[nth]
                .samples
                .push(begun.elapsed().as_secs_f64() * 1e3);
            worker.close().await;
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_at_times() {
        assert_eq!(turns(3, 0), [0, 1, 2]);
        assert_eq!(turns(3, 1), [0, 2, 1]);
        assert_eq!(turns(3, 2), [2, 0, 1]);
        assert_eq!(turns(3, 3), [2, 1, 0]);
    }
}
