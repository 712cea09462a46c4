//! The commands that look at a database or change it.

use connection::{Config, Target};
use migration::change::Change;
use migration::{Direction, Done, Event, HISTORY, Loss, Plan, Runner, State};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use serde_json::json;

use terminal::{BAD, DIM, GOOD, WARN};

use super::output::{Output, time};
use super::{Consent, Failure};

pub(crate) async fn run(
    config: &Config,
    plan: Plan,
    agreed: Option<&[Loss]>,
    output: &Output,
) -> Result<u8, Failure> {
    let started = std::time::Instant::now();
    let tell = |event: Event<'_>| match event {
        Event::Waiting { holder } => {
            terminal::aside(format_args!("{WARN}waiting{WARN:#} for {holder} …"));
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
    };
    let runner = Runner::default();
    let done = match agreed {
        Some(agreed) => runner.run_agreed(config, plan, agreed, tell).await?,
        None => runner.run(config, plan, tell).await?,
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
    let told = |number: usize, verb| match number {
        0 => None,
        1 => Some(format!("1 migration {verb}")),
        more => Some(format!("{more} migrations {verb}")),
    };
    let parts = [
        told(count(Direction::Down), "reversed"),
        told(count(Direction::Up), "applied"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The history, and how the schema relates to this build.
async fn look(
    connection: Option<&DatabaseConnection>,
) -> Result<(State, Vec<migration::Applied>), Failure> {
    Ok(match connection {
        Some(connection) => (
            migration::state(connection).await?,
            migration::applied(connection).await?,
        ),
        None => (State::Empty, Vec::new()),
    })
}

pub(crate) async fn status(config: &Config, output: &Output) -> Result<u8, Failure> {
    let connection = connection::connect_read_only(config).await?;
    let (state, applied) = look(connection.as_ref()).await?;
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
    let pending: Vec<&str> = Runner::default()
        .steps(Plan::Up(None), &names)
        .into_iter()
        .map(|(change, _)| change.name())
        .collect();
    for name in &pending {
        output.line(format_args!("  {WARN}pending{WARN:#}  {:23}  {name}", ""));
    }
    output.line(&state);
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
        "message": state.to_string(),
        "applied": applied.iter().map(|step| json!({ "name": step.name, "at": moment(step.at) })).collect::<Vec<_>>(),
        "pending": pending,
    }));
    Ok(0)
}

pub(crate) async fn check(config: &Config, output: &Output) -> Result<u8, Failure> {
    let Some(connection) = connection::connect_read_only(config).await? else {
        return Err(migration::Error::NoDatabase(config.target_name()).into());
    };
    let differences = migration::check(&connection).await?;
    for difference in &differences {
        output.line(format_args!("  {BAD}{difference}{BAD:#}"));
    }
    output.line(match differences.len() {
        0 => "The schema is as expected.".to_owned(),
        1 => "One difference.".to_owned(),
        more => format!("{more} differences."),
    });
    output.object(&json!({ "target": config.target_name(), "differences": differences }));
    Ok(u8::from(!differences.is_empty()))
}

/// Prints a script that does what the run would do. It can be run by hand, in
/// `sqlite3` or `psql`.
pub(crate) async fn dry_run(config: &Config, plan: Plan, output: &Output) -> Result<u8, Failure> {
    let connection = connection::connect_read_only(config).await?;
    let (state, applied) = look(connection.as_ref()).await?;
    let refused = matches!(
        state,
        State::Foreign { .. } | State::Ahead { .. } | State::Diverged { .. }
    );
    if refused && (plan != Plan::Fresh || matches!(state, State::Foreign { .. })) {
        return Err(migration::Error::Schema(state).into());
    }
    let backend = connection
        .as_ref()
        .map_or(DbBackend::Sqlite, ConnectionTrait::get_database_backend);
    let runner = Runner::default();
    let names: Vec<String> = applied.into_iter().map(|step| step.name).collect();
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    if plan == Plan::Fresh {
        let tables = runner.owned().into_iter().rev().chain([HISTORY]);
        parts.push((
            "drop all tables".to_owned(),
            tables
                .map(|table| format!("DROP TABLE IF EXISTS \"{table}\""))
                .collect(),
        ));
    }
    let steps = runner.steps(plan, &names);
    if steps
        .iter()
        .any(|(_, direction)| *direction == Direction::Up)
    {
        parts.push((
            format!("{HISTORY}, the history"),
            vec![migration::change::create_history(backend)],
        ));
    }
    for (change, direction) in &steps {
        parts.push((
            format!("{} ({direction})", change.name()),
            statements(&**change, *direction, backend),
        ));
    }
    if plan == Plan::Reset {
        parts.push((
            format!("{HISTORY}, the history"),
            vec![format!("DROP TABLE IF EXISTS \"{HISTORY}\"")],
        ));
    }
    if parts.is_empty() {
        output.line("-- Nothing to do.");
    } else {
        output.line(match &config.target {
            Target::Postgres(postgres) => {
                let schema = postgres.schema.replace('"', "\"\"");
                format!("BEGIN;\nSET LOCAL search_path = \"{schema}\";")
            }
            // sqlite3 goes on after an error, and would commit the rest.
            _ => "-- Run with: sqlite3 -bail FILE\nBEGIN IMMEDIATE;".to_owned(),
        });
        for (title, statements) in &parts {
            output.line(format_args!("\n-- {title}"));
            for statement in statements {
                output.line(format_args!("{statement};"));
            }
        }
        output.line("\nCOMMIT;");
    }
    let parts: Vec<_> = parts
        .iter()
        .map(|(title, sql)| json!({ "step": title, "sql": sql }))
        .collect();
    output.object(&json!({ "target": config.target_name(), "dry_run": parts }));
    Ok(0)
}

fn statements(change: &dyn Change, direction: Direction, backend: DbBackend) -> Vec<String> {
    let name = change.name();
    let now = match backend {
        DbBackend::Postgres => "extract(epoch from now())::bigint",
        _ => "unixepoch()",
    };
    let (mut statements, record) = match direction {
        Direction::Up => (
            change.up(backend),
            format!("INSERT INTO {HISTORY} (version, applied_at) VALUES ('{name}', {now})"),
        ),
        Direction::Down => (
            change.down(backend),
            format!("DELETE FROM {HISTORY} WHERE version = '{name}'"),
        ),
    };
    statements.push(record);
    statements
}

/// Shows what would be lost, and asks. `None` when the person said no.
pub(crate) async fn agreement(
    config: &Config,
    plan: Plan,
    consent: Consent,
) -> Result<Option<Vec<Loss>>, Failure> {
    terminal::refuse_production(config, "do this", consent.force)?;
    // Counting may take its time.
    let config = config.clone().without_timeouts();
    let losses = match connection::connect_read_only(&config).await? {
        Some(connection) => Runner::default().losses(&connection, plan).await?,
        None => Vec::new(),
    };
    if losses.is_empty() {
        return Ok(Some(losses));
    }
    terminal::aside(format_args!("{BAD}This deletes, for good:{BAD:#}"));
    for Loss { table, rows } in &losses {
        let noun = if *rows == 1 { "row" } else { "rows" };
        terminal::aside(format_args!("  {table:<20} {rows:>12} {noun}"));
    }
    if consent.yes {
        return Ok(Some(losses));
    }
    let answer = terminal::ask("Type yes to go on: ");
    let answer = answer.ok_or("nobody is here to ask; to do it anyway add --yes")?;
    if answer.eq_ignore_ascii_case("yes") {
        return Ok(Some(losses));
    }
    terminal::aside("Nothing was changed.");
    Ok(None)
}
