//! The command line of the migration tool.

mod commands;
mod generate;
mod output;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use connection::Config;
use migration::Plan;

use output::Output;

/// Applies, reverses and checks the schema of aura-db.
///
/// Connects as the DB_* variables say (see .env.example); without any of them
/// to the SQLite file ./data/aura.db.
#[derive(Parser)]
#[command(name = "migration", version, max_term_width = 100)]
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
        dry: DryRun,
    },
    /// Reverse the last migration, or the last N
    #[command(visible_alias = "revert")]
    Down {
        /// How many
        #[arg(short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        number: u32,
        #[command(flatten)]
        dry: DryRun,
        #[command(flatten)]
        consent: Consent,
    },
    /// Show which migrations are applied and which are pending
    Status,
    /// Drop all tables of aura-db and apply all migrations
    Fresh(Destructive),
    /// Reverse all migrations and apply them again
    Refresh(Destructive),
    /// Reverse all migrations and remove the history
    Reset(Destructive),
    /// Compare the live schema with the expected one: exit code 0 is equal, 1
    /// is different, 2 could not look
    Check,
    /// Write a new migration and list it
    Generate {
        /// What it does, for example `add_tags_to_workflows`
        name: String,
    },
}

#[derive(Args, Clone, Copy)]
struct DryRun {
    /// Print the SQL and run none of it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Clone, Copy)]
struct Consent {
    /// Don't ask before data is lost
    #[arg(long, short)]
    yes: bool,
    /// Also on a database that looks like production
    #[arg(long)]
    force: bool,
}

#[derive(Args, Clone, Copy)]
struct Destructive {
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) async fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    let on_error = if matches!(cli.command, Command::Check) {
        2
    } else {
        1
    };
    match run(cli, &output).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&*error);
            ExitCode::from(on_error)
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn run(cli: Cli, output: &Output) -> Result<u8, Failure> {
    if let Command::Generate { name } = &cli.command {
        generate::run(name, output)?;
        return Ok(0);
    }
    let config = Config::from_env()?;
    terminal::log_to_stderr(&config);
    terminal::connecting(&config, cli.verbose);
    let (plan, dry, consent) = match cli.command {
        Command::Status => return commands::status(&config, output).await,
        Command::Check => return commands::check(&config, output).await,
        Command::Generate { .. } => unreachable!("handled above, because it needs no database"),
        Command::Up { number, dry } => (Plan::Up(number), dry, None),
        Command::Down {
            number,
            dry,
            consent,
        } => (Plan::Down(number), dry, Some(consent)),
        Command::Fresh(Destructive { dry, consent }) => (Plan::Fresh, dry, Some(consent)),
        Command::Refresh(Destructive { dry, consent }) => (Plan::Refresh, dry, Some(consent)),
        Command::Reset(Destructive { dry, consent }) => (Plan::Reset, dry, Some(consent)),
    };
    if dry.dry_run {
        return commands::dry_run(&config, plan, output).await;
    }
    let Some(consent) = consent else {
        return commands::run(&config, plan, None, output).await;
    };
    match commands::agreement(&config, plan, consent).await? {
        Some(agreed) => commands::run(&config, plan, Some(&agreed), output).await,
        None => Ok(1),
    }
}
