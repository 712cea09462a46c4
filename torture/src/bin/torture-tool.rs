//! The tool that is shipped for AURA's schema, for the tests of this crate.

fn main() -> std::process::ExitCode {
    aura_db::migration::cli::main(aura_db::migration::runner())
}
