//! `cargo run -p seed`: fills a database with demo data, or with load.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use aura_db::migration::State;
use aura_db::{Config, Database, Environment, Target};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use seed::load::{Outcome, Volume};
use seed::{demo, load};
use terminal::{DIM, GOOD, WARN};

/// Fills an aura-db database with demo data, or with load to measure with.
///
/// Connects as the DB_* variables say (see .env.example); without any of them
/// to the SQLite file ./data/aura.db. Running it again changes nothing.
#[derive(Parser)]
#[command(name = "seed", version, max_term_width = 100)]
struct Cli {
    /// What to write
    #[arg(long, value_enum, default_value_t = Profile::Demo)]
    profile: Profile,
    /// Apply pending migrations first
    #[arg(long)]
    migrate: bool,
    /// Also on a database that looks like production
    #[arg(long)]
    force: bool,
    /// Print every setting and where it came from
    #[arg(long, short)]
    verbose: bool,
    /// load: how many users
    #[arg(long, default_value_t = 100, value_name = "N")]
    users: u32,
    /// load: how many workflows
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    workflows: u32,
    /// load: how many log entries
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    logs: u32,
    /// load: the same seed gives the same rows
    #[arg(long, default_value_t = 1, value_name = "S")]
    rng_seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Two users, two plugins and a workflow
    Demo,
    /// Many rows
    Load,
}

macro_rules! told {
    ($($text:tt)*) => { terminal::line(format_args!($($text)*)) };
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let environment = Environment::load()?;
    // One transaction that takes as long as it takes.
    let config = Config::from_environment(&environment)?.without_timeouts();
    terminal::log_to_stderr(&config);
    terminal::connecting(&config, cli.verbose);
    terminal::refuse_production(&config, "seed", cli.force)?;
    if matches!(config.target, Target::Memory) {
        return Err(
            "a database in memory is gone when this command ends; set DB_PATH to a file".into(),
        );
    }
    if cli.migrate {
        let done = aura_db::migration::up(&config).await?;
        told!(
            "  {GOOD}migrated{GOOD:#}  {}",
            match done.len() {
                0 => "the schema was up to date".to_owned(),
                1 => "1 migration applied".to_owned(),
                more => format!("{more} migrations applied"),
            }
        );
    }
    if config.is_missing_file() {
        // Opening it would create it, for nothing.
        return Err(not_ready(&State::Empty));
    }
    let db = Database::open(config).await?;
    let result = seed(&cli, &db, &environment).await;
    db.close().await;
    result
}

async fn seed(cli: &Cli, db: &Database, environment: &Environment) -> Result<(), Failure> {
    match db.schema_state().await? {
        State::Current => {}
        state => return Err(not_ready(&state)),
    }
    match cli.profile {
        Profile::Demo => run_demo(db, environment).await?,
        Profile::Load => {
            let Cli {
                users,
                workflows,
                logs,
                rng_seed,
                ..
            } = *cli;
            run_load(
                db,
                Volume {
                    users,
                    workflows,
                    logs,
                    rng_seed,
                },
            )
            .await?;
        }
    }
    summary(db).await
}

fn not_ready(state: &State) -> Failure {
    let explanation = aura_db::migration::runner().explain(state);
    match state {
        State::Empty | State::Behind { .. } => format!("{explanation}, or add --migrate").into(),
        _ => explanation.into(),
    }
}

async fn run_demo(db: &Database, environment: &Environment) -> Result<(), Failure> {
    let report = demo::run(db, environment).await?;
    for (kind, what) in &report.created {
        told!("  {GOOD}created{GOOD:#}   {kind:<8}  {what}");
    }
    if report.created.is_empty() {
        told!("Nothing to do: the demo data is there.");
    }
    let passwords = report.passwords();
    if !passwords.is_empty() {
        told!("\n{WARN}Passwords, shown this once:{WARN:#}");
        for line in passwords {
            told!("  {line}");
        }
    }
    Ok(())
}

async fn run_load(db: &Database, volume: Volume) -> Result<(), Failure> {
    let started = Instant::now();
    let total = |table: &str| match table {
        "users" => volume.users,
        "workflows" => volume.workflows,
        _ => volume.logs,
    };
    let terminal = std::io::stderr().is_terminal();
    let mut bar = ProgressBar::hidden();
    let mut told = 0;
    let outcome = load::run(db, volume, &mut |table, done| {
        let all = total(table);
        if terminal {
            if done == 0 {
                bar.finish_and_clear();
                bar = ProgressBar::new(u64::from(all))
                    .with_style(style())
                    .with_message(table);
            }
            bar.set_position(u64::from(done));
        } else {
            // Plain lines: at every quarter.
            let quarter = if all == 0 {
                4
            } else {
                u64::from(done) * 4 / u64::from(all)
            };
            if done == 0 {
                told = 0;
            } else if quarter > told {
                told = quarter;
                terminal::aside(format_args!("  {table}: {done} of {all}"));
            }
        }
    })
    .await?;
    bar.finish_and_clear();
    match outcome {
        Outcome::Written([users, workflows, logs]) => told!(
            "  {GOOD}written{GOOD:#}   {users} users, {workflows} workflows, {logs} log entries in {:.1} s",
            started.elapsed().as_secs_f64()
        ),
        Outcome::AlreadyThere(users) => told!(
            "Nothing to do: {users} users of --rng-seed {} are there; another seed writes more.",
            volume.rng_seed
        ),
    }
    Ok(())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {msg:<10} {bar:40} {human_pos} of {human_len}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

async fn summary(db: &Database) -> Result<(), Failure> {
    told!("\nIn the database:");
    for (table, rows) in seed::counts(db).await? {
        if rows > 0 {
            told!("  {table:<18} {rows:>10}");
        }
    }
    told!("\nNext:");
    told!("  cargo run -p migration -- status   {DIM}# which migrations are applied{DIM:#}");
    told!("  cargo run -p migration -- check    {DIM}# is the schema as expected{DIM:#}");
    Ok(())
}
