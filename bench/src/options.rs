//! The arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::peer::Name;
use crate::pin::Pin;
use crate::workload::Backend;

/// Measures aura-db beside its peers, on SQLite and, where a server is at hand,
/// on PostgreSQL.
///
/// A server is one that the DB_* variables name, or PGPORT, PGUSER and
/// PGPASSWORD, as ./scripts/with-postgres sets them. Everything happens in
/// databases of its own, whose names begin with `aura_bench_`.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Only workloads whose name in the JSON file holds this text (authenticate-8,
    /// details, summaries, documents, logs, append, `append_many`, update, mixed,
    /// own-row, own-row-cached, own-page, own-insert, transaction, repository-find,
    /// built-in-find, start, …-normal);
    /// may be repeated
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,

    /// Only this peer; may be repeated
    #[arg(long, value_name = "NAME")]
    pub peer: Vec<Name>,

    /// Only this kind of database
    #[arg(long)]
    pub backend: Option<Backend>,

    /// How long a round takes
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub seconds: f64,

    /// How often each peer has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Each workload once, very shortly, on few rows: whether all of it works.
    /// Installs nothing
    #[arg(long, conflicts_with_all = ["seconds", "rounds", "write_docs"])]
    pub quick: bool,

    /// Writes the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Writes docs/performance.md and its charts
    #[arg(long)]
    pub write_docs: bool,

    /// On which processors PostgreSQL and the peers on it run, on Linux
    #[arg(long, default_value = "none")]
    pub pin: Pin,

    /// Where the SQLite files are made, instead of the system's temporary folder
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// What else it does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints how much better or worse the second run is
    Compare { before: PathBuf, after: PathBuf },
    /// The process of one peer; started by the others
    #[command(hide = true)]
    Worker,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.001 to 600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
