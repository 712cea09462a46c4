//! `--dry-run`: a script that does what the run would do. It can be run by hand, in
//! `sqlite3` or `psql`.

use connection::{Config, Target};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use serde_json::json;

use super::Failure;
use super::output::Output;
use crate::migration::step::{for_transaction, runs_outside, statements};
use crate::migration::{Direction, Migration, Plan, Runner, State, history};

/// A piece of the script.
struct Part {
    title: String,
    sql: Vec<String>,
    /// Outside of a transaction.
    outside: bool,
    /// It runs Rust code, which a script can't do.
    is_rust: bool,
}

impl Part {
    fn new(title: String, sql: Vec<String>) -> Self {
        Self {
            title,
            sql,
            outside: false,
            is_rust: false,
        }
    }
}

pub(super) async fn run(
    runner: &Runner,
    config: &Config,
    plan: Plan,
    output: &Output,
) -> Result<u8, Failure> {
    let connection = connection::connect_read_only(config).await?;
    let parts = parts(runner, connection.as_ref(), plan).await?;
    print(runner, config, &parts, output);
    let parts: Vec<_> = parts
        .iter()
        .map(|part| {
            let mut object = json!({ "step": part.title, "sql": part.sql });
            if part.outside {
                object["transactional"] = false.into();
            }
            if part.is_rust {
                object["rust"] = true.into();
            }
            object
        })
        .collect();
    output.object(&json!({ "target": config.target_name(), "dry_run": parts }));
    Ok(0)
}

async fn parts(
    runner: &Runner,
    connection: Option<&DatabaseConnection>,
    plan: Plan,
) -> Result<Vec<Part>, Failure> {
    let backend = connection.map_or(DbBackend::Sqlite, ConnectionTrait::get_database_backend);
    let (state, applied) = look(runner, connection).await?;
    let refused = matches!(
        state,
        State::Foreign { .. } | State::Ahead { .. } | State::Diverged { .. }
    );
    if refused && (plan != Plan::Fresh || matches!(state, State::Foreign { .. })) {
        return Err(runner.refuse(state).into());
    }
    let mut parts = Vec::new();
    if let Plan::Up(_) | Plan::Refresh | Plan::Fresh = plan {
        let mut bases = Vec::new();
        let mut next = runner.base();
        while let Some(base) = next {
            bases.push(base);
            next = base.base();
        }
        for base in bases.into_iter().rev() {
            let (state, applied) = look(base, connection).await?;
            if let State::Foreign { .. } | State::Diverged { .. } = state {
                return Err(base.refuse(state).into());
            }
            let steps = base.planned(Plan::Up(None), &applied);
            add_steps(base, backend, &steps, applied.is_empty(), &mut parts);
        }
    }
    let history = runner.history();
    if plan == Plan::Fresh {
        let tables = runner.tables().into_iter().rev().chain([history]);
        let drop = |table| format!("DROP TABLE IF EXISTS \"{table}\"");
        parts.push(Part::new(
            "drop all tables".to_owned(),
            tables.map(drop).collect(),
        ));
    }
    let new = applied.is_empty() || plan.is_from_scratch();
    add_steps(
        runner,
        backend,
        &runner.planned(plan, &applied),
        new,
        &mut parts,
    );
    if plan == Plan::Reset {
        parts.push(Part::new(
            format!("{history}, the history"),
            vec![history::drop(history)],
        ));
    }
    Ok(parts)
}

async fn look(
    runner: &Runner,
    connection: Option<&DatabaseConnection>,
) -> Result<(State, Vec<String>), Failure> {
    Ok(match connection {
        Some(connection) => (
            runner.state(connection).await?,
            runner.applied_names(connection).await?,
        ),
        None => (State::Empty, Vec::new()),
    })
}

fn add_steps(
    runner: &Runner,
    backend: DbBackend,
    steps: &[(&dyn Migration, Direction)],
    new: bool,
    parts: &mut Vec<Part>,
) {
    let history = runner.history();
    let is_up = |(_, direction): &(&dyn Migration, Direction)| *direction == Direction::Up;
    if steps.iter().any(is_up) {
        parts.push(Part::new(
            format!("{history}, the history"),
            vec![history::create(backend, history)],
        ));
    }
    for (step, direction) in steps {
        let mut sql = statements(*step, *direction, backend);
        let outside = backend == DbBackend::Postgres && runs_outside(*step, *direction, new);
        if !outside {
            let inside = |sql: String| for_transaction(&sql).into_owned();
            sql = sql.into_iter().map(inside).collect();
        }
        sql.push(history::record(backend, history, step.name(), *direction));
        parts.push(Part {
            title: format!("{} ({direction})", step.name()),
            sql,
            outside,
            is_rust: step.data().is_some() || !new && is_changing_rows(*step, *direction),
        });
    }
}

/// Whether a step changes rows in batches.
fn is_changing_rows(step: &dyn Migration, direction: Direction) -> bool {
    direction == Direction::Up && step.batches().is_some()
}

fn print(runner: &Runner, config: &Config, parts: &[Part], output: &Output) {
    if parts.is_empty() {
        output.line("-- Nothing to do.");
        return;
    }
    let schema = match &config.target {
        Target::Postgres(postgres) => {
            let schema = postgres.schema.replace('"', "\"\"");
            Some(schema)
        }
        _ => None,
    };
    let begin = match &schema {
        Some(schema) => format!("BEGIN;\nSET LOCAL search_path = \"{schema}\";"),
        None => "BEGIN IMMEDIATE;".to_owned(),
    };
    if schema.is_none() {
        // sqlite3 goes on after an error, and would commit the rest.
        output.line("-- Run with: sqlite3 -bail FILE");
    }
    let end = parts.iter().position(|part| part.is_rust);
    let (script, rest) = parts.split_at(end.unwrap_or(parts.len()));
    let mut is_open = false;
    for part in script {
        if part.outside && is_open {
            output.line("\nCOMMIT;");
        } else if !part.outside && !is_open {
            output.line(&begin);
        }
        is_open = !part.outside;
        output.line(format_args!("\n-- {}", part.title));
        if let (true, Some(schema)) = (part.outside, &schema) {
            output.line(format_args!("SET search_path = \"{schema}\";"));
        }
        for statement in &part.sql {
            output.line(format_args!("{statement};"));
        }
    }
    if is_open {
        output.line("\nCOMMIT;");
    }
    if rest.is_empty() {
        return;
    }
    output.line(format_args!(
        "\n-- The script ends here: the next step runs Rust code. `{} up` does all of it.",
        runner.tool()
    ));
    for part in rest {
        let suffix = if part.is_rust { ", and Rust code" } else { "" };
        output.line(format_args!("\n-- {}{suffix}", part.title));
        for line in part.sql.iter().flat_map(|statement| statement.lines()) {
            output.line(format_args!("-- {line}"));
        }
    }
}
