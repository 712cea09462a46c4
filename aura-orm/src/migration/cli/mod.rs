//! The command line of a tool that migrates a schema.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use aura_orm::migration::{Runner, cli};
//!
//! fn main() -> ExitCode {
//!     cli::main(Runner::builder().tool("notes").history("notes_migrations").build())
//! }
//! ```

mod commands;
mod consent;
mod dry_run;
mod generate;
mod output;
mod repair;
mod space;
mod template;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use connection::Config;

use super::{Plan, Runner};
use output::Output;

#[derive(Parser)]
#[command(max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object, for machines
    #[arg(long, global = true)]
    json: bool,
    /// Print every setting and where it came from
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Apply pending migrations
    Up {
        /// Only the first N of them
        #[arg(short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        number: Option<u32>,
        #[command(flatten)]
        locks: Locks,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Reverse the last migration, or the last N
    #[command(visible_alias = "revert")]
    Down {
        /// How many
        #[arg(short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        number: u32,
        #[command(flatten)]
        destructive: Destructive,
    },
    /// Show which migrations are applied and which are pending
    Status,
    /// Drop all tables that the migrations make and apply all migrations
    Fresh(Destructive),
    /// Reverse all migrations and apply them again
    Refresh(Destructive),
    /// Reverse all migrations and remove the history
    Reset(Destructive),
    /// Compare the live schema with the snapshot: exit code 0 is equal, 1 is different, 2
    /// could not look
    Check,
    /// Write the snapshot that `check` compares with, from the live schema
    Snapshot {
        /// Where to; default: `snapshots` in the folder of the package
        #[arg(long)]
        folder: Option<std::path::PathBuf>,
    },
    /// Write a new migration and list it
    Generate {
        /// What it does, for example `add_tags_to_notes`
        #[arg(required_unless_present = "check")]
        name: Option<String>,
        /// With the statements that bring the schema of all migrations to the entities; needs
        /// no database
        #[arg(long)]
        from_entities: bool,
        /// Drop the columns that no entity has, which are a comment otherwise
        #[arg(long, requires = "from_entities")]
        drop: bool,
        /// Write nothing: exit code 0 is no difference, 1 is some, 2 could not look
        #[arg(long, requires = "from_entities", conflicts_with_all = ["name", "drop", "folder"])]
        check: bool,
        /// The folder of the package; default: the one that this was built in
        #[arg(long)]
        folder: Option<std::path::PathBuf>,
    },
    /// Note pending migrations as applied without running them, for a schema that exists
    Baseline {
        /// Up to this one; without it all
        name: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Note one migration as applied or as not applied without running it
    Resolve {
        /// The migration
        name: String,
        #[command(flatten)]
        resolution: ResolutionFlags,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args, Clone, Copy)]
#[group(required = true, multiple = false)]
struct ResolutionFlags {
    /// It was applied
    #[arg(long)]
    applied: bool,
    /// It was not applied
    #[arg(long)]
    not_applied: bool,
}

#[derive(Args, Clone, Copy)]
struct DryRun {
    /// Print the SQL and run none of it
    #[arg(long)]
    dry_run: bool,
}

// On PostgreSQL, where other statements queue behind one that waits for a table lock.
#[derive(Args, Clone, Copy)]
struct Locks {
    /// How long to wait for a table lock before the run is rolled back and tried again
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    lock_timeout: Option<u64>,
    /// How often to try; without it without end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    lock_attempts: Option<u32>,
}

#[derive(Args, Clone, Copy)]
struct Consent {
    /// Don't ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Also on a database that looks like production
    #[arg(long)]
    force: bool,
}

#[derive(Args, Clone, Copy)]
struct Destructive {
    #[command(flatten)]
    locks: Locks,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    consent: Consent,
}

/// What a command that runs steps was asked for.
struct Run {
    plan: Plan,
    locks: Locks,
    dry: DryRun,
    consent: Option<Consent>,
}

impl Run {
    fn destructive(plan: Plan, flags: Destructive) -> Self {
        let Destructive {
            locks,
            dry,
            consent,
        } = flags;
        Self {
            plan,
            locks,
            dry,
            consent: Some(consent),
        }
    }
}

/// Runs the tool: reads the arguments and the `DB_*` variables, and returns the exit code.
///
/// It has a runtime of its own, so `main` is an ordinary function.
#[must_use]
pub fn main(runner: Runner) -> ExitCode {
    let matches = command(&runner).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let output = Output::new(cli.json);
    let on_error = match cli.command {
        Command::Check | Command::Generate { check: true, .. } => 2,
        _ => 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli, runner, &output)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&*error);
            ExitCode::from(on_error)
        }
    }
}

/// The command line under the name of the runner's tool.
fn command(runner: &Runner) -> clap::Command {
    let tool = runner.tool();
    let before = runner.base().map_or_else(String::new, |base| {
        format!(
            " Before them it applies the pending migrations of {}.",
            base.history()
        )
    });
    let about = format!(
        "Applies, reverses and checks the migrations of {tool}, noted in the table {}.{before}\n\n\
         Connects as the DB_* variables say, or those in the file .env; without any of them to \
         the SQLite file ./data/aura.db.",
        runner.history()
    );
    let mut command = Cli::command().name(tool).bin_name(tool).about(about);
    if let Some(version) = runner.settings.version {
        command = command.version(version);
    }
    command
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn run(cli: Cli, runner: Runner, output: &Output) -> Result<u8, Failure> {
    runner.settings.validate()?;
    if let Command::Generate {
        name,
        from_entities,
        drop,
        folder,
        ..
    } = &cli.command
    {
        let Some(name) = name else {
            return Ok(generate::check(&runner, output).await?);
        };
        let package = match folder {
            Some(folder) => folder.clone(),
            None => runner.settings.path("")?,
        };
        let target = generate::Target {
            runner: &runner,
            package: &package,
            name,
        };
        if *from_entities {
            target.generate_from_entities(*drop, output).await?;
        } else {
            target.write(None, output)?;
        }
        return Ok(0);
    }
    let config = Config::from_env()?;
    terminal::log_to_stderr(&config);
    terminal::connecting(&config, cli.verbose);
    let run = match cli.command {
        Command::Status => return commands::status(&runner, &config, output).await,
        Command::Check => return commands::check(&runner, &config, output).await,
        Command::Snapshot { folder } => {
            return commands::snapshot(&runner, &config, folder, output).await;
        }
        Command::Generate { .. } => unreachable!("handled above, because it needs no database"),
        Command::Baseline { name, consent } => {
            return repair::baseline(&runner, &config, name.as_deref(), consent, output).await;
        }
        Command::Resolve {
            name,
            resolution,
            consent,
        } => {
            return repair::resolve(&runner, &config, &name, resolution, consent, output).await;
        }
        Command::Up { number, locks, dry } => Run {
            plan: Plan::Up(number),
            locks,
            dry,
            consent: None,
        },
        Command::Down {
            number,
            destructive,
        } => Run::destructive(Plan::Down(number), destructive),
        Command::Fresh(flags) => Run::destructive(Plan::Fresh, flags),
        Command::Refresh(flags) => Run::destructive(Plan::Refresh, flags),
        Command::Reset(flags) => Run::destructive(Plan::Reset, flags),
    };
    let Run {
        plan,
        locks,
        dry,
        consent,
    } = run;
    if dry.dry_run {
        return dry_run::run(&runner, &config, plan, output).await;
    }
    let runner = runner.with_lock_limit(
        locks.lock_timeout.map(Duration::from_millis),
        locks.lock_attempts,
    );
    let Some(consent) = consent else {
        return commands::run(&runner, &config, plan, None, output).await;
    };
    match consent::to_losses(&runner, &config, plan, consent).await? {
        Some(confirmed) => commands::run(&runner, &config, plan, Some(&confirmed), output).await,
        None => Ok(1),
    }
}
