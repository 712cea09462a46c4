//! The commands that look at a database or change it.

use std::path::PathBuf;

use connection::Config;
use sea_orm::DbBackend;
use serde_json::json;
use terminal::{BAD, DIM, GOOD, WARN};

use super::Failure;
use super::output::{Output, time};
use super::space::Space;
use crate::migration::{Direction, Done, Error, Event, Loss, Plan, Runner, State};

/// Prints what a run reports.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed to Runner::run as it is"
)]
pub(super) fn report(output: &Output, event: Event<'_>) {
    match event {
        Event::Waiting { holder } => {
            terminal::aside(format_args!("{WARN}waiting{WARN:#} for {holder} …"));
        }
        Event::Blocked(blocker) => {
            terminal::aside(format_args!("{WARN}waiting{WARN:#} for {blocker} …"));
        }
        Event::Retrying { attempt, pause } => terminal::aside(format_args!(
            "{WARN}rolled back{WARN:#}, because a table lock wasn't granted (attempt {attempt}); \
             trying again in {}",
            time(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX))
        )),
        Event::InvalidIndex { name } => terminal::aside(format_args!(
            "{WARN}dropping{WARN:#} the index {name}, which a killed build left invalid"
        )),
        // One line in a hundred: each is some thousands of rows.
        Event::Batch { name, number } => {
            if number.is_multiple_of(100) {
                terminal::aside(format_args!("{name}: {number} batches of rows so far …"));
            }
        }
        Event::Done(Done {
            name,
            direction,
            micros,
        }) => {
            let (style, verb) = match direction {
                Direction::Up => (GOOD, "applied "),
                Direction::Down => (WARN, "reversed"),
            };
            output.line(format_args!(
                "  {style}{verb}{style:#}  {name:<44} {DIM}{:>10}{DIM:#}",
                time(*micros)
            ));
        }
    }
}

pub(super) async fn run(
    runner: &Runner,
    config: &Config,
    plan: Plan,
    confirmed: Option<&[Loss]>,
    output: &Output,
) -> Result<u8, Failure> {
    let started = std::time::Instant::now();
    let on_event = |event: Event<'_>| report(output, event);
    let done = match confirmed {
        Some(confirmed) => {
            runner
                .run_confirmed(config, plan, confirmed, on_event)
                .await?
        }
        None => runner.run(config, plan, on_event).await?,
    };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    output.object(&json!({ "target": config.target_name(), "done": done, "micros": micros }));
    output.line(match (done.as_slice(), plan) {
        ([], Plan::Up(_)) => "Nothing to do: the schema is up to date.".to_owned(),
        ([], Plan::Reset) => "No migration was applied; the history is removed.".to_owned(),
        ([], _) => "Nothing to do: no migration is applied.".to_owned(),
        (done, _) => format!("{} in {}.", summary(done), time(micros)),
    });
    Ok(0)
}

fn summary(done: &[Done]) -> String {
    let count = |direction| {
        done.iter()
            .filter(|step| step.direction == direction)
            .count()
    };
    let part = |number: usize, verb| match number {
        0 => None,
        1 => Some(format!("1 migration {verb}")),
        more => Some(format!("{more} migrations {verb}")),
    };
    let parts = [
        part(count(Direction::Down), "reversed"),
        part(count(Direction::Up), "applied"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

pub(super) async fn status(
    runner: &Runner,
    config: &Config,
    output: &Output,
) -> Result<u8, Failure> {
    let connection = connection::connect_read_only(config).await?;
    let (state, applied) = match &connection {
        Some(connection) => (
            runner.state(connection).await?,
            runner.applied(connection).await?,
        ),
        None => (State::Empty, Vec::new()),
    };
    let moment = |seconds| {
        chrono::DateTime::from_timestamp(seconds, 0)
            .map(|time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
    };
    for step in &applied {
        let at = moment(step.at).unwrap_or_default();
        output.line(format_args!(
            "  {GOOD}applied{GOOD:#}  {DIM}{at:23}{DIM:#}  {}",
            step.name
        ));
    }
    let names: Vec<String> = applied.iter().map(|step| step.name.clone()).collect();
    let pending: Vec<&str> = runner
        .planned(Plan::Up(None), &names)
        .into_iter()
        .map(|(step, _)| step.name())
        .collect();
    for name in &pending {
        output.line(format_args!("  {WARN}pending{WARN:#}  {:23}  {name}", ""));
    }
    output.line(runner.explain(&state));
    if let Some(base) = runner.base() {
        let state = match &connection {
            Some(connection) => base.state(connection).await?,
            None => State::Empty,
        };
        if state != State::Current {
            output.line(format_args!("{}: {state}", base.history()));
        }
    }
    let space = match &connection {
        Some(connection) => space(connection, config, output).await?,
        None => None,
    };
    output.object(&json!({
        "target": config.target_name(),
        "state": match &state {
            State::Empty => "empty",
            State::Current => "current",
            State::Behind { .. } => "behind",
            State::Ahead { .. } => "ahead",
            State::Diverged { .. } => "diverged",
            State::Foreign { .. } => "foreign",
        },
        "message": runner.explain(&state),
        "applied": applied.iter().map(|step| json!({ "name": step.name, "at": moment(step.at) })).collect::<Vec<_>>(),
        "pending": pending,
        "space": space,
    }));
    Ok(0)
}

/// Reads how much of the file is free, and reports it when it is much.
async fn space(
    connection: &sea_orm::DatabaseConnection,
    config: &Config,
    output: &Output,
) -> Result<Option<Space>, Failure> {
    let space = Space::read(connection).await?;
    if let Some(space) = &space {
        space.report(config, output);
    }
    Ok(space)
}

pub(super) async fn check(
    runner: &Runner,
    config: &Config,
    output: &Output,
) -> Result<u8, Failure> {
    let connection = existing(runner, config).await?;
    let differences = runner.check(&connection).await?;
    for difference in &differences {
        output.line(format_args!("  {BAD}{difference}{BAD:#}"));
    }
    output.line(match differences.len() {
        0 => "The schema is as expected.".to_owned(),
        1 => "One difference.".to_owned(),
        more => format!("{more} differences."),
    });
    let space = space(&connection, config, output).await?;
    output.object(&json!({
        "target": config.target_name(),
        "differences": differences,
        "space": space,
    }));
    Ok(u8::from(!differences.is_empty()))
}

pub(super) async fn snapshot(
    runner: &Runner,
    config: &Config,
    folder: Option<PathBuf>,
    output: &Output,
) -> Result<u8, Failure> {
    let connection = existing(runner, config).await?;
    let state = runner.state(&connection).await?;
    if state != State::Current {
        return Err(runner.refuse(state).into());
    }
    let catalog = runner.catalog(&connection).await?;
    let backend = match connection.get_database_backend() {
        DbBackend::Postgres => "postgres",
        _ => "sqlite",
    };
    let folder = match folder {
        Some(folder) => folder,
        None => runner.settings.path("snapshots")?,
    };
    let path = folder.join(format!("{backend}.json"));
    let failed = |source| Error::Generate {
        path: path.display().to_string(),
        source,
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let text = serde_json::to_string_pretty(&catalog)? + "\n";
    std::fs::write(&path, text).map_err(failed)?;
    output.line(format_args!("Wrote {}", path.display()));
    output.object(&json!({ "target": config.target_name(), "path": path }));
    Ok(0)
}

/// Opens the database to look at it.
async fn existing(
    runner: &Runner,
    config: &Config,
) -> Result<sea_orm::DatabaseConnection, Failure> {
    let connection = connection::connect_read_only(config).await?;
    Ok(connection.ok_or_else(|| Error::NoDatabase {
        target: config.target_name(),
        tool: runner.tool(),
    })?)
}
