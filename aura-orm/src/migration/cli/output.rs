//! What the tool prints: lines for a person, or one JSON object for a machine.

use std::fmt::Display;

use serde::Serialize;

pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One line for a person; machines don't see it.
    pub(super) fn line(&self, text: impl Display) {
        if !self.json {
            terminal::line(text);
        }
    }

    /// The result for a machine; a person doesn't see it.
    pub(super) fn object(&self, value: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string_pretty(value);
            terminal::line(text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")));
        }
    }

    pub(super) fn error(&self, error: &(dyn std::error::Error + 'static)) {
        terminal::error(error);
        let causes = connection::causes(error);
        self.object(&serde_json::json!({ "error": error.to_string(), "causes": causes }));
    }
}

/// A duration as a person reads it.
pub(super) fn time(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let ms = micros as f64 / 1000.0;
    if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}
