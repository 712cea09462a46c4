//! Sequences of calls of the whole public API, on SQLite, on PostgreSQL and on
//! a model in memory: every call must come to the same in all three.
//!
//! The sequences are random and the same each time. `AURA_STEPS` asks for more
//! steps than every change needs, `AURA_SEED` for others. A divergence is
//! shrunk, and told as the shortest sequence that was found to lead to it.

mod canary;
mod counts;
mod draw;
mod ids;
mod logical;
mod model;
mod notes;
mod outcome;
mod side;
mod source;
mod steps;

use std::cell::RefCell;
use std::fmt::Write;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use testdb::{Backend, process};

use self::counts::Counts;
use self::draw::Raw;
use self::model::{Ctx, Model};
use self::outcome::Outcome;
use self::side::{Door, Side};
use self::steps::pages::Pages;
use self::steps::{Call, Step, What, Who};

/// So many steps are run for every change, and up to as many again while
/// something was not reached.
const STEPS: usize = 10_000;
/// So many one sequence has at the most.
const LENGTH: usize = 300;
/// During so many of them everything is logged, and looked at for secrets.
const WATCHED: usize = 1_000;
const SEED: u64 = 20_261_123;

fn asked(name: &str) -> Option<u64> {
    process::asked(name).map(|number| number.parse().expect("a number"))
}

/// The raw steps of a sequence about this.
fn sequence_about(theme: usize) -> impl Strategy<Value = Vec<Raw>> {
    let steps = vec((any::<u16>(), any::<[u8; 24]>()), LENGTH / 2..=LENGTH);
    steps.prop_map(move |steps| {
        let raw = |(kind, bytes)| Raw { theme, kind, bytes };
        steps.into_iter().map(raw).collect()
    })
}

#[test]
fn both_databases_do_what_the_model_says() {
    let seed = asked("AURA_SEED").unwrap_or(SEED);
    let steps =
        asked("AURA_STEPS").map_or(STEPS, |steps| usize::try_from(steps).expect("a number"));
    let watched =
        asked("AURA_WATCHED").map_or(WATCHED, |steps| usize::try_from(steps).expect("a number"));
    // Tells how each diverging sequence ends, and goes on without shrinking.
    let survey = process::asked("AURA_SURVEY").is_some();
    println!("AURA_SEED={seed} AURA_STEPS={steps}");

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let sides = runtime.block_on(async {
        [
            Side::open(Backend::Sqlite).await,
            Side::open(Backend::Postgres).await,
        ]
    });
    let counts = RefCell::new(Counts::default());
    canary::install();
    canary::planted_leaks_are_found();

    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut round = 0_usize;
    let done = |counts: &Counts| {
        let run = counts.steps();
        run >= steps && (counts.missing().is_empty() || run >= 2 * steps)
    };
    while !done(&counts.borrow()) {
        canary::watch(counts.borrow().steps() < watched);
        bytes[8..16].copy_from_slice(&(round as u64).to_le_bytes());
        round += 1;
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: if survey { 0 } else { 2_000 },
            max_shrink_time: 120_000,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let failing = RefCell::new(false);
        let result = runner.run(&sequence_about(round), |raws| {
            let mut counted = Counts::default();
            let story = runtime.block_on(sequence(&sides, &raws, &mut counted));
            if !*failing.borrow() {
                counts.borrow_mut().add(&counted);
            }
            story.map_err(|story| {
                *failing.borrow_mut() = true;
                TestCaseError::fail(story)
            })
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(story, _)) if survey => {
                let lines: Vec<&str> = story.message().lines().collect();
                println!(
                    "round {round}: {}",
                    lines[lines.len().saturating_sub(7)..].join("\n")
                );
            }
            Err(TestError::Fail(story, _)) => panic!("AURA_SEED={seed}, round {round}:\n{story}"),
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
    }
    canary::watch(false);
    let (lines, leaks) = canary::seen();
    println!("{lines} lines were looked at for secrets");
    assert!(
        lines > 20 * watched.min(steps),
        "hardly anything was logged"
    );
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    let counts = counts.into_inner();
    println!("{counts}");
    let missing = counts.missing();
    assert!(missing.is_empty(), "not covered:\n{}", missing.join("\n"));
    Counts::check_stats(&sides);
    for side in sides {
        runtime.block_on(side.close());
    }
}

/// Runs one sequence on empty databases; fails with its story when they
/// diverge.
async fn sequence(sides: &[Side; 2], raws: &[Raw], counts: &mut Counts) -> Result<(), String> {
    let [sqlite, postgres] = sides;
    tokio::join!(sqlite.empty(), postgres.empty());
    let mut model = Model::default();
    let mut story = String::new();
    let mut rest = raws.iter();
    while let Some((step, expected)) = steps::next(&mut model, Ctx::default(), false, &mut rest) {
        tell(&mut story, &step, &expected, 0);
        compare(sides, &step, &expected, counts)
            .await
            .map_err(|end| format!("{story}{end}"))?;
    }
    for call in everything() {
        let expected = model.call(Ctx::default(), &call);
        let step = Step {
            tick: Duration::ZERO,
            who: Who::Same,
            what: What::Call(call),
        };
        compare(sides, &step, &expected, &mut Counts::default())
            .await
            .map_err(|end| format!("{story}at the end:\n{end}"))?;
    }
    // Sessions and earlier versions are listed by whose they are.
    for call in model.rest() {
        let expected = model.call(Ctx::default(), &call);
        let step = Step {
            tick: Duration::ZERO,
            who: Who::Same,
            what: What::Call(call),
        };
        compare(sides, &step, &expected, &mut Counts::default())
            .await
            .map_err(|end| format!("{story}at the end:\n{end}"))?;
    }
    for side in sides {
        canary::look_at_rows(side).await;
    }
    Ok(())
}

/// Lists of all that there is.
fn everything() -> [Call; 7] {
    [
        Call::Users(steps::users::Call::List(
            steps::users::Query::ALL,
            Pages::ALL,
        )),
        Call::Plugins(steps::plugins::Call::ListFull(
            steps::plugins::Query::ALL,
            Pages::ALL,
        )),
        Call::Workflows(steps::workflows::Call::ListFull(
            steps::workflows::Query::ALL,
            Pages::ALL,
        )),
        Call::Executions(steps::executions::Call::ListFull(
            steps::executions::Query::ALL,
            Pages::ALL,
        )),
        Call::Logs(steps::logs::Call::List(steps::logs::Query::ALL, Pages::ALL)),
        Call::Agents(steps::agents::Call::ListFull(
            steps::agents::Query::ALL,
            Pages::ALL,
        )),
        Call::Notes(steps::notes::Call::List(
            steps::notes::Query::ALL,
            Pages::ALL,
        )),
    ]
}

async fn compare(
    [sqlite, postgres]: &[Side; 2],
    step: &Step,
    expected: &Outcome,
    counts: &mut Counts,
) -> Result<(), String> {
    let doors = [sqlite, postgres].map(|side| Door::Database(side.db.clone()));
    let (left, right) = tokio::join!(sqlite.run(&doors[0], step), postgres.run(&doors[1], step));
    if !(left.agrees(&right) && left.agrees(expected)) {
        return Err(format!(
            "\nmodel:      {expected:?}\n\nSQLite:     {left:?}\n\nPostgreSQL: {right:?}\n"
        ));
    }
    counts.count(step, expected);
    Ok(())
}

/// A step in a line, and what the model says that it comes to.
fn tell(story: &mut String, step: &Step, outcome: &Outcome, depth: usize) {
    let indent = "    ".repeat(depth);
    if !step.tick.is_zero() {
        let _ = writeln!(story, "{indent}{:?} later", step.tick);
    }
    let who = match step.who {
        Who::Same => String::new(),
        who => format!("{who:?} "),
    };
    match &step.what {
        What::Call(call) => {
            let _ = writeln!(story, "{indent}{who}{call:?}: {}", outcome.label());
        }
        What::Transaction {
            isolation, steps, ..
        } => {
            let _ = writeln!(story, "{indent}{who}transaction at {isolation:?} {{");
            for (step, outcome) in steps.iter().zip(&outcome.inner) {
                tell(story, step, outcome, depth + 1);
            }
            let _ = writeln!(story, "{indent}}} {}", outcome.label());
        }
    }
}
