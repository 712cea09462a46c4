//! `cargo xtask generate`: writes everything that is generated from the schema.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testdb::{Backend, TestDb};

/// What the developers of aura-db generate.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the entities, the schema snapshots and docs/schema.md
    Generate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli {
        command: Command::Generate,
    } = Cli::parse();
    match generate().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn generate() -> Result<(), xtask::Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = TestDb::migrated(backend).await;
        let files = xtask::files(&db.config()).await?;
        xtask::write(&root, &files)?;
    }
    Ok(())
}
