//! Writes log entries as a service does, and says what was committed: a line
//! `<task>:<number>` for each operation that it was told has succeeded. For the
//! tests, which end it in every way.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use aura_db::{Config, Database, Durability};
use clap::Parser;
use torture::{Operation, write};

#[derive(Debug, Parser)]
struct Arguments {
    /// The workflow that the entries belong to.
    #[arg(long)]
    workflow: i64,
    /// What the entries' messages begin with.
    #[arg(long)]
    run: u32,
    /// So many write at once.
    #[arg(long, default_value_t = 64)]
    tasks: u32,
    /// So many operations each; without end when not said.
    #[arg(long)]
    operations: Option<u32>,
    /// Milliseconds between two operations of a task.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Don't wait for the disk.
    #[arg(long)]
    quick: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut config = Config::from_env()?;
    if arguments.quick {
        config.durability = Durability::Normal;
    }
    let db = Database::connect(config).await?;
    say("ready")?;
    let tasks: Vec<_> = (0..arguments.tasks)
        .map(|task| {
            let db = db.clone();
            let (workflow, run) = (arguments.workflow.into(), arguments.run);
            let pause = Duration::from_millis(arguments.pause);
            tokio::spawn(async move {
                for number in 0..arguments.operations.unwrap_or(u32::MAX) {
                    let operation = Operation { task, number };
                    match write(&db, workflow, run, operation).await {
                        Ok(()) => say(&operation.to_string()).map_err(|error| error.to_string())?,
                        Err(error) => say(&format!("failed {operation} {}", causes(&error)))
                            .map_err(|error| error.to_string())?,
                    }
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    db.close().await;
    Ok(())
}

/// The error and what led to it, in one line.
fn causes(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push_str(": ");
        chain.push_str(&error.to_string());
        cause = error.source();
    }
    chain.replace('\n', " ")
}

/// Says a line: in one piece, so that none is cut short by the end.
fn say(line: &str) -> std::io::Result<()> {
    std::io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
}
