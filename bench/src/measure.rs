//! Lets the peers take turns.

use std::time::Instant;

use futures_util::future::{join_all, try_join_all};
use serde_json::Value;

use crate::Result;
use crate::data::Shape;
use crate::databases::{self, Databases, Janitor};
use crate::docs;
use crate::machine::{Machine, version};
use crate::options::Options;
use crate::peer::{CONNECTIONS, Name, Setup, Target};
use crate::process::{Programs, Worker};
use crate::protocol::{Request, Response, Run};
use crate::report::{Figure, Report};
use crate::typeorm;
use crate::workload::{Backend, Durability, Operation, Unit, Workload};

/// What the peak memory is read after.
const MEMORY_OF: Operation = Operation::Mixed;
/// So many seconds each peer runs before it is measured, however short the
/// rounds are: Node.js compiles what runs often only after a while.
const WARM_UP: f64 = 2.0;

/// How a run goes.
struct Plan<'a> {
    options: &'a Options,
    programs: Programs,
    peers: Vec<Name>,
    shape: Shape,
    seconds: f64,
    rounds: u32,
    warm_up: f64,
}

impl Plan<'_> {
    fn setup(&self, peer: Name, target: &Target, durability: Durability) -> Setup {
        Setup {
            peer,
            target: target.clone(),
            durability,
            connections: CONNECTIONS,
            shape: self.shape,
        }
    }

    fn wants(&self, workload: Workload) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|text| workload.key().contains(text))
    }

    fn peers_on(&self, backend: Backend) -> Vec<Name> {
        let mut peers = self.peers.clone();
        peers.retain(|peer| peer.runs_on(backend));
        peers
    }
}

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
    let plan = plan(options)?;
    let mut all = [Backend::Sqlite, Backend::Postgres]
        .into_iter()
        .flat_map(Workload::all);
    if !all.any(|workload| plan.wants(workload)) {
        return Err("--only: no workload has such a name".into());
    }
    let mut report = Report {
        machine: Machine::here(),
        versions: versions(&plan),
        settings: settings(&plan),
        figures: Vec::new(),
    };
    if options.backend != Some(Backend::Postgres) {
        let databases = Databases::make(None, options.folder.as_deref(), plan.shape).await?;
        on_backend(&plan, databases, &mut report).await?;
    }
    match server {
        Some(server) => {
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

fn plan(options: &Options) -> Result<Plan<'_>> {
    let mut peers = options.peer.clone();
    if peers.is_empty() {
        peers.extend(Name::ALL);
    }
    let mut programs = Programs {
        own: std::env::current_exe()?,
        typeorm: None,
    };
    if peers.contains(&Name::TypeOrm) {
        match typeorm::script(!options.quick) {
            Ok(script) => programs.typeorm = Some(script),
            Err(why) => {
                terminal::aside(format_args!("TypeORM is skipped: {why}"));
                peers.retain(|peer| *peer != Name::TypeOrm);
            }
        }
    }
    let (shape, seconds, rounds, warm_up) = if options.quick {
        (Shape::QUICK, 0.02, 1, 0.01)
    } else {
        (Shape::FULL, options.seconds, options.rounds, WARM_UP)
    };
    if !options.quick && cfg!(debug_assertions) {
        terminal::aside("this is not a release build: the figures say little");
    }
    Ok(Plan {
        options,
        programs,
        peers,
        shape,
        seconds,
        rounds,
        warm_up,
    })
}

fn versions(plan: &Plan<'_>) -> Vec<(String, String)> {
    let crates = ["sea-orm", "sqlx", "rusqlite", "tokio-postgres", "diesel"];
    let mut versions: Vec<_> = crates
        .into_iter()
        .map(|name| (name.to_owned(), version(name)))
        .collect();
    if plan.programs.typeorm.is_some() {
        versions.extend(typeorm::versions());
    }
    versions
}

fn settings(plan: &Plan<'_>) -> Vec<(String, String)> {
    let shape = plan.shape;
    [
        ("rounds", format!("{} of {} s", plan.rounds, plan.seconds)),
        (
            "connections",
            format!("{CONNECTIONS} at the most for each peer"),
        ),
        (
            "rows",
            format!(
                "{} users, {} sessions, {} workflows, {} plugins, {} log entries",
                shape.users, shape.sessions, shape.workflows, shape.plugins, shape.logs
            ),
        ),
        (
            "SQLite",
            "one build for all peers in Rust, with the flags of .cargo/config.toml; better-sqlite3 brings its own".to_owned(),
        ),
        (
            "durability on SQLite",
            "WAL with synchronous = FULL for everybody, or NORMAL where it says so".to_owned(),
        ),
        (
            "durability on PostgreSQL",
            "synchronous_commit = on for everybody, no TLS".to_owned(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
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

/// Whether all give the same answers and write the same rows, with the same
/// durability.
async fn check(
    plan: &Plan<'_>,
    databases: &mut Databases,
    peers: &[Name],
    durability: Durability,
) -> Result<()> {
    let backend = databases.backend;
    let mut first: Option<(Name, Value, Value)> = None;
    for &peer in peers {
        let target = databases.copy().await?;
        let setup = plan.setup(peer, &target, durability);
        let mut worker = Worker::open(&plan.programs, &setup).await?;
        let Response::Answers(answers) = worker.ask(&Request::Check {}).await? else {
            return Err(format!("{} gave another answer", peer.title()).into());
        };
        worker.close().await;
        if answers["durability"] != durability.said_by(backend) {
            let (said, wanted) = (&answers["durability"], durability.said_by(backend));
            let name = peer.title();
            return Err(format!("{name}: its durability is {said}, not \"{wanted}\"").into());
        }
        let written = databases::written(&target).await?;
        databases.remove(target).await?;
        match &first {
            None => first = Some((peer, answers, written)),
            Some((other, theirs, rows)) => {
                let pair = format!("{} and {}", other.title(), peer.title());
                if let Some(place) = difference(theirs, &answers) {
                    return Err(format!("{pair} don't give the same answers: {place}").into());
                }
                if let Some(place) = difference(rows, &written) {
                    return Err(format!("{pair} don't write the same rows: {place}").into());
                }
            }
        }
    }
    Ok(())
}

/// The first place where two documents differ.
fn difference(one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        _ if one == other => None,
        (Value::Object(left), Value::Object(right)) if left.len() == right.len() => {
            left.iter().find_map(|(key, value)| {
                let place = difference(value, right.get(key).unwrap_or(&Value::Null))?;
                Some(format!(".{key}{place}"))
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(nth, (one, other))| Some(format!("[{nth}]{}", difference(one, other)?))),
        _ => Some(format!(": {one} and {other}")),
    }
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
        seconds: plan.warm_up,
        seed: 0,
    };
    // What is not measured: caches fill, statements are prepared, code is
    // compiled where it is compiled late.
    for worker in &mut workers {
        worker.ask(&Request::Run(run)).await?;
    }
    run.seconds = plan.seconds;
    let janitor = Janitor::new(target).await?;
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
    use serde_json::json;

    #[test]
    fn everybody_is_first_at_times() {
        assert_eq!(turns(3, 0), [0, 1, 2]);
        assert_eq!(turns(3, 1), [0, 2, 1]);
        assert_eq!(turns(3, 2), [2, 0, 1]);
        assert_eq!(turns(3, 3), [2, 1, 0]);
    }

    #[test]
    fn a_difference_is_told_with_its_place() {
        let one = json!({"rows": [{"id": 1}, {"id": 2}], "durability": "on"});
        let mut other = one.clone();
        assert_eq!(difference(&one, &other), None);
        other["rows"][1]["id"] = json!(3);
        assert_eq!(difference(&one, &other).unwrap(), ".rows[1].id: 2 and 3");
        other["rows"] = json!([]);
        assert!(difference(&one, &other).unwrap().starts_with(".rows: ["));
    }
}
