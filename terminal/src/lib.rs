//! How the command-line tools speak to people: results on stdout, everything
//! about them on stderr, colour only on a terminal. A closed or full output is
//! no reason to panic in the middle of the work.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use connection::Config;

/// For what went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what to look at.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// For what went wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// For what is beside the point.
pub const DIM: Style = Style::new().dimmed();

/// Writes a line of the result. What can't be written there is written to
/// stderr: it may be a password that is shown only once.
pub fn line(text: impl Display) {
    if writeln!(anstream::stdout(), "{text}").is_err() {
        aside(text);
    }
}

/// Writes a line about the result.
pub fn aside(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Asks for a line of text. `None` when nobody is there to ask.
#[must_use]
pub fn ask(question: &str) -> Option<String> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(answer.trim().to_owned())
}

/// Says what is connected to, with all settings when they are asked for, and
/// what is odd about them.
pub fn connecting(config: &Config, verbose: bool) {
    let text = if verbose {
        config.describe()
    } else {
        config.target_name()
    };
    aside(format_args!("{DIM}{}{DIM:#}", text.trim_end()));
    for warning in config.warnings() {
        aside(format_args!("{WARN}warning:{WARN:#} {warning}"));
    }
}

/// Says what went wrong, and why.
pub fn error(error: &(dyn std::error::Error + 'static)) {
    aside(format_args!("{BAD}error:{BAD:#} {error}"));
    for cause in connection::causes(error) {
        aside(format_args!("  {DIM}because:{DIM:#} {cause}"));
    }
}

/// Refuses what is not to happen by accident on somebody's production.
pub fn refuse_production(config: &Config, doing: &str, force: bool) -> Result<(), String> {
    if force || !config.looks_like_production() {
        return Ok(());
    }
    Err(format!(
        "{} looks like production (AURA_ENV=production, or a server on another host); to {doing} there add --force",
        config.target_name()
    ))
}

/// Writes warnings to stderr, and statements when `DB_LOGGING` asks for them.
pub fn log_to_stderr(config: &Config) {
    use tracing_subscriber::EnvFilter;
    let filter = if config.logging {
        "warn,sqlx::query=info,aura_db=info,aura_orm::migration=info"
    } else {
        "warn"
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}
