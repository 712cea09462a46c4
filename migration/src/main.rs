//! `cargo run -p migration -- up`: applies, reverses and checks the schema.

fn main() -> std::process::ExitCode {
    migration::cli::main(migration::runner())
}
