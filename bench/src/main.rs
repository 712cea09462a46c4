//! aura-db beside its peers: the same operations on the same schema and data,
//! each peer as its own documentation tells, in one run.
//!
//! Each peer runs in a process of its own, which opens the database and does
//! what it is told (`worker`, `protocol`). This process makes the databases,
//! checks that all answers are the same, and lets the peers take turns.

mod chart;
mod check;
mod compare;
mod data;
mod databases;
mod deliveries;
mod docs;
mod machine;
mod measure;
mod node;
mod options;
mod peer;
mod peers;
mod pin;
mod plan;
mod process;
mod protocol;
mod report;
mod rows;
mod run;
mod stats;
mod table;
mod worker;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

/// What may go wrong here is only told.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Worker) => worker::serve().await,
        Some(Command::Compare { before, after }) => compare::print(before, after),
        None => measure::all(&options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::aside(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
