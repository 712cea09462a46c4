//! What the tool prints: results on stdout, everything about them on stderr;
//! colour only on a terminal.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};
use connection::Config;
use serde::Serialize;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One line for a person; machines don't see it.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            anstream::println!("{text}");
        }
    }

    /// One line for a person beside the result.
    #[expect(clippy::unused_self, reason = "the one place that prints")]
    pub(crate) fn aside(&self, text: impl Display) {
        anstream::eprintln!("{text}");
    }

    /// The result for a machine; a person doesn't see it.
    pub(crate) fn object(&self, value: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string_pretty(value);
            anstream::println!(
                "{}",
                text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
            );
        }
    }

    pub(crate) fn connecting(&self, config: &Config, verbose: bool) {
        if verbose {
            anstream::eprint!("{DIM}{}{DIM:#}", config.describe());
        } else if !self.json {
            anstream::eprintln!("{DIM}{}{DIM:#}", config.target_name());
        }
        for warning in config.warnings() {
            anstream::eprintln!("{WARN}warning:{WARN:#} {warning}");
        }
    }

    pub(crate) fn error(&self, error: &(dyn std::error::Error + 'static)) {
        anstream::eprintln!("{BAD}error:{BAD:#} {error}");
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            // Wrappers that repeat their cause would print it twice.
            let text = cause.to_string();
            if !causes.iter().any(|told: &String| told.contains(&text)) {
                anstream::eprintln!("  {DIM}because:{DIM:#} {text}");
            }
            causes.push(text);
            source = cause.source();
        }
        self.object(&serde_json::json!({ "error": error.to_string(), "causes": causes }));
    }
}

/// Warnings, and statements when `DB_LOGGING` asks for them.
pub(crate) fn log_to_stderr(statements: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = if statements {
        "warn,sqlx::query=info,aura_db=info"
    } else {
        "warn"
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .without_time()
        .with_target(false)
        .init();
}

/// A duration as a person reads it.
pub(crate) fn time(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let ms = micros as f64 / 1000.0;
    if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}
