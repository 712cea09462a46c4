//! `cargo run -p migration -- up`: applies, reverses and checks the schema.

mod cli;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    cli::main().await
}
