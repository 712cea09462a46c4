//! What can't be stored.

use aura_db::Document;
use aura_db::sea_orm::ActiveValue::{self, Set};
use aura_db::sea_orm::sea_query;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::outcome::Failed;

/// The fields that are refused, each once.
#[derive(Default)]
pub(super) struct Check(Vec<&'static str>);

/// What a field is changed to, unless it is emptied.
pub(super) fn given<T>(change: &ActiveValue<Option<T>>) -> Option<&T>
where
    Option<T>: Into<sea_query::Value>,
{
    match change {
        Set(value) => value.as_ref(),
        _ => None,
    }
}

impl Check {
    pub(super) fn refuse(&mut self, field: &'static str, when: bool) {
        if when && !self.0.contains(&field) {
            self.0.push(field);
        }
    }

    /// At most so many characters, and no U+0000.
    pub(super) fn text(&mut self, field: &'static str, text: &str, max: usize) {
        self.refuse(field, text.chars().count() > max || text.contains('\0'));
    }

    /// Text with something in it.
    pub(super) fn name(&mut self, field: &'static str, text: &str, max: usize) {
        self.refuse(field, text.trim().is_empty());
        self.text(field, text, max);
    }

    pub(super) fn optional(&mut self, field: &'static str, text: Option<&String>, max: usize) {
        if let Some(text) = text {
            self.text(field, text, max);
        }
    }

    /// An address: returned as it is stored.
    pub(super) fn email(&mut self, text: &str) -> String {
        let email = stored(text);
        let parts: Vec<&str> = email.split('@').collect();
        let sound = parts.len() == 2
            && parts.iter().all(|part| !part.is_empty())
            && !parts[1].starts_with('.')
            && !parts[1].ends_with('.')
            && !email.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\u{200b}');
        self.refuse("email", !sound);
        self.text("email", &email, 160);
        email
    }

    pub(super) fn password(&mut self, text: &str) {
        self.refuse("password", text.is_empty() || text.len() > 1024);
    }

    /// Any JSON within the limits. What is too deep can't be parsed either.
    pub(super) fn json(&mut self, field: &'static str, document: Option<&Document>) {
        let refused = |json: &Document| json.json().map_or(true, |json| nul(&json));
        self.refuse(field, document.is_some_and(refused));
    }

    /// An object or an array within the limits.
    pub(super) fn container(&mut self, field: &'static str, json: Option<&Document>) {
        let other = |json: &Document| !json.as_str().starts_with(['[', '{']);
        self.refuse(field, json.is_some_and(other));
        self.json(field, json);
    }

    pub(super) fn done(self) -> Result<(), Failed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Failed::validation(&self.0))
        }
    }
}

/// An address as it is stored.
pub(super) fn stored(email: &str) -> String {
    let email: String = email.trim().nfc().collect();
    email.to_ascii_lowercase()
}

/// A time as it is stored: to the microsecond, and not earlier.
pub(super) fn micros(time: DateTime<Utc>) -> DateTime<Utc> {
    let whole = chrono::SubsecRound::trunc_subsecs(time, 6);
    let finer = TimeDelta::microseconds(i64::from(whole < time));
    whole + finer
}

/// Whether text is in text, without ASCII case.
pub(super) fn holds(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase()
        .contains(&part.to_ascii_lowercase())
}

fn nul(json: &Value) -> bool {
    match json {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || nul(value)),
        _ => false,
    }
}

/// What a column of a row is set to.
pub(super) fn set<T: Clone + Default + Into<aura_db::sea_orm::Value>>(
    value: &aura_db::sea_orm::ActiveValue<T>,
) -> T {
    value.try_as_ref().cloned().unwrap_or_default()
}
