//! How an attempt ended.

use std::time::Duration;

use entity::{Document, ExecutionStatus, executions};
use sea_orm::sea_query::UpdateStatement;
use serde_json::json;

use crate::error::FieldError;
use crate::repositories::set_json;
use crate::validate::Check;

/// How many bytes are kept of the text of a result that can't be stored.
const KEPT_BYTES: usize = 4 * 1024;

/// The first pause before another attempt; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub(super) end: End,
    pub(super) data: Option<Document>,
    pub(super) error: Option<Document>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Success,
    Error,
    /// To be tried again after this time, if it was set.
    Retryable(Option<Duration>),
}

impl Outcome {
    /// It ended well, with this result; without one, its data stays.
    #[must_use]
    pub fn success(data: Option<Document>) -> Self {
        Self {
            end: End::Success,
            data,
            error: None,
        }
    }

    /// It failed for good, and this is why.
    #[must_use]
    pub fn error(error: impl Into<Document>) -> Self {
        Self {
            end: End::Error,
            data: None,
            error: Some(error.into()),
        }
    }

    /// It failed, this is why, and another attempt may succeed: after 5 seconds at first, and
    /// each time after twice as long, up to an hour, less up to a half at random. After the
    /// last attempt the execution is dead.
    #[must_use]
    pub fn retryable(error: impl Into<Document>) -> Self {
        Self {
            end: End::Retryable(None),
            ..Self::error(error)
        }
    }

    /// Sets the pause before the next attempt, where there is one.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        if let End::Retryable(set) = &mut self.end {
            *set = Some(pause);
        }
        self
    }

    /// With what it had done so far.
    #[must_use]
    pub fn data(mut self, json: impl Into<Document>) -> Self {
        self.data = Some(json.into());
        self
    }

    /// Returns it as it can be stored: what can't be is an error that says so, with the
    /// beginning of the text. Run again, it would come to the same.
    pub(super) fn storable(self) -> Self {
        for (name, document) in [("data", &self.data), ("error", &self.error)] {
            let Some(document) = document else { continue };
            let mut check = Check::default();
            check.document(name, Some(document));
            if let [FieldError { field, problem }, ..] = check.problems() {
                let error = not_storable(field, problem, document);
                return Self::error(error);
            }
        }
        self
    }

    /// Has an update write its documents.
    pub(super) fn set_documents(&self, update: &mut UpdateStatement) {
        use executions::Column;
        for (column, json) in [(Column::Data, &self.data), (Column::Error, &self.error)] {
            if let Some(json) = json {
                set_json(update, column, Some(json));
            }
        }
    }

    /// Returns the status of what ended.
    pub(super) fn status(&self) -> ExecutionStatus {
        match self.end {
            End::Success => ExecutionStatus::Success,
            End::Error => ExecutionStatus::Error,
            End::Retryable(_) => ExecutionStatus::Waiting,
        }
    }
}

fn not_storable(field: &str, problem: &str, document: &Document) -> Document {
    let text = document.as_str();
    let kept = text.floor_char_boundary(KEPT_BYTES);
    let text_kept = text[..kept]
        .replace('\0', "\u{fffd}")
        .replace("\\u0000", "\\ufffd");
    Document::from(json!({
        "code": "result_not_storable",
        "problem": format!("{field} {problem}"),
        "bytes": text.len(),
        "text": text_kept,
    }))
}

/// Returns the pause before the attempt after this one. `random` is between 0 and 1.
pub(super) fn pause(attempt: i64, random: f64) -> Duration {
    let doublings = u32::try_from(attempt.clamp(1, 16) - 1).unwrap_or(0);
    let most = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(doublings));
    most.mul_f64(1.0 - random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour() {
        for (attempt, most) in [
            (0, 5),
            (1, 5),
            (2, 10),
            (3, 20),
            (11, 3_600),
            (i64::MAX, 3_600),
        ] {
            let most = Duration::from_secs(most);
            assert_eq!(pause(attempt, 0.0), most, "{attempt}");
            assert_eq!(pause(attempt, 1.0), most / 2, "{attempt}");
        }
    }

    #[test]
    fn what_cant_be_stored_is_an_error_with_its_beginning() {
        let nul: Document = r#"{"a":"x\u0000y"}"#.parse().expect("JSON");
        let large = Document::from(json!("é".repeat(9 << 20)));
        for (outcome, bytes) in [
            (Outcome::success(Some(nul.clone())), nul.as_str().len()),
            (Outcome::retryable(nul.clone()), nul.as_str().len()),
            (Outcome::success(Some(large.clone())), large.as_str().len()),
        ] {
            let stored = outcome.storable();
            assert_eq!((stored.end, &stored.data), (End::Error, &None));
            let error = stored.error.expect("why").json().expect("JSON");
            assert_eq!(error["code"], "result_not_storable");
            assert_eq!(error["bytes"], bytes);
            let text = error["text"].as_str().expect("a text");
            assert!(text.len() <= KEPT_BYTES && text.len() > 10, "{text}");
            assert!(!text.contains("\\u0000"), "{text}");
        }
        let fine = Outcome::success(Some(Document::from(json!(1)))).storable();
        assert_eq!(fine.end, End::Success);
    }
}
