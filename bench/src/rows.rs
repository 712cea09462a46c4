//! The rows as every peer hands them over. Whoever has them in types of its own
//! moves the fields; nothing is copied for the comparison's sake.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::Result;

/// A moment in a row.
pub(crate) type Time = DateTime<Utc>;

/// One of a closed set of words.
pub(crate) type Word = Cow<'static, str>;

/// A JSON document as the peer hands it over.
#[derive(Debug)]
pub(crate) enum Json {
    /// As it is stored.
    Text(String),
    /// Parsed.
    Value(Value),
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Json {
    /// Parses what is there as text.
    pub(crate) fn parse(json: &mut Option<Self>) -> Result<()> {
        if let Some(Self::Text(text)) = json {
            *json = Some(Self::Value(serde_json::from_str(text)?));
        }
        Ok(())
    }

    /// Returns the number of an execution, which is all that its data has.
    pub(crate) fn run(&self) -> Result<i64> {
        let value: Value = serde_json::from_str(&self.as_text())?;
        Ok(value["run"].as_i64().ok_or("another's data")?)
    }

    /// Returns the text that is stored.
    pub(crate) fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Value(value) => Cow::Owned(value.to_string()),
        }
    }

    /// Returns the text that is stored.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Value(value) => value.to_string(),
        }
    }
}

/// Answers are compared by what they say, so text is parsed for that.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serde_json::from_str::<Value>(text)
                .map_err(serde::ser::Error::custom)?
                .serialize(serializer),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

/// To the millisecond, which is as fine as JavaScript's.
fn time<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn maybe<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(moment) => self::time(moment, serializer),
        None => serializer.serialize_none(),
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct User {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub hashed_password: String,
    pub role: Word,
    pub is_active: bool,
    #[serde(serialize_with = "time")]
    pub created_at: Time,
    #[serde(serialize_with = "time")]
    pub updated_at: Time,
    #[serde(serialize_with = "maybe")]
    pub deleted_at: Option<Time>,
    pub created_by: Option<i64>,
    pub updated_by: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Session {
    pub id: i64,
    pub token: String,
    pub user_agent: Option<String>,
    pub ip_address: Option<String>,
    #[serde(serialize_with = "time")]
    pub expires_at: Time,
    #[serde(serialize_with = "time")]
    pub last_seen_at: Time,
    #[serde(serialize_with = "time")]
    pub created_at: Time,
    #[serde(serialize_with = "time")]
    pub updated_at: Time,
    pub user_id: i64,
}

/// Whose token it is.
#[derive(Debug, Serialize)]
pub(crate) struct Account {
    pub session: Session,
    pub user: User,
}

#[derive(Debug, Serialize)]
pub(crate) struct Plugin {
    pub id: i64,
    pub name: String,
    pub description: String,
    pub version: String,
    pub author: Option<String>,
    pub is_enabled: bool,
    #[serde(serialize_with = "time")]
    pub created_at: Time,
    #[serde(serialize_with = "time")]
    pub updated_at: Time,
    #[serde(serialize_with = "maybe")]
    pub deleted_at: Option<Time>,
    pub created_by: Option<i64>,
    pub updated_by: Option<i64>,
    pub config_schema: Option<Json>,
}

/// A workflow without its documents.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub id: i64,
    pub name: String,
    pub description: Option<String>,
    pub status: Word,
    pub version: i64,
    pub owner_id: i64,
    #[serde(serialize_with = "time")]
    pub created_at: Time,
    #[serde(serialize_with = "time")]
    pub updated_at: Time,
    #[serde(serialize_with = "maybe")]
    pub deleted_at: Option<Time>,
    pub created_by: Option<i64>,
    pub updated_by: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Workflow {
    #[serde(flatten)]
    pub summary: Summary,
    pub deleted_with_owner: bool,
    pub settings: Option<Json>,
    pub connections: Option<Json>,
    pub nodes: Option<Json>,
    pub metadata: Option<Json>,
}

/// A workflow with its owner and its plugins by name.
#[derive(Debug, Serialize)]
pub(crate) struct Details {
    pub workflow: Workflow,
    pub owner: User,
    pub plugins: Vec<Plugin>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Log {
    pub id: i64,
    pub level: Word,
    pub message: String,
    pub workflow_id: i64,
    pub execution_id: Option<i64>,
    #[serde(serialize_with = "time")]
    pub created_at: Time,
    pub metadata: Option<Json>,
}

/// A row of the application's own table.
#[derive(Debug, Serialize)]
pub(crate) struct Delivery {
    pub id: i64,
    pub workflow_id: i64,
    pub url: String,
    pub event: String,
    pub status: String,
    pub attempts: i64,
    pub response_code: Option<i64>,
    pub error: Option<String>,
    pub payload: String,
    #[serde(serialize_with = "time")]
    pub created_at: Time,
    #[serde(serialize_with = "maybe")]
    pub delivered_at: Option<Time>,
}

/// A try to deliver, in another own table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Attempt {
    pub id: i64,
    pub delivery_id: i64,
    pub response_code: i64,
    pub ms: i64,
}

/// A delivery with its attempts by id.
#[derive(Debug, Serialize)]
pub(crate) struct Attempted {
    pub delivery: Delivery,
    pub attempts: Vec<Attempt>,
}

impl Attempted {
    /// Puts attempts, sorted by id, to their deliveries.
    pub(crate) fn of(deliveries: Vec<Delivery>, attempts: Vec<Attempt>) -> Vec<Self> {
        let mut of: HashMap<i64, Vec<Attempt>> = HashMap::new();
        for attempt in attempts {
            of.entry(attempt.delivery_id).or_default().push(attempt);
        }
        let with = |delivery: Delivery| Self {
            attempts: of.remove(&delivery.id).unwrap_or_default(),
            delivery,
        };
        deliveries.into_iter().map(with).collect()
    }
}

/// Turns the rows of a peer's own type into these.
pub(crate) fn all<R, T: From<R>>(rows: Vec<R>) -> Vec<T> {
    rows.into_iter().map(T::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_compared_by_what_they_say() {
        let text = Json::from(r#"{ "b": 1, "a": [2] }"#.to_owned());
        let value = Json::Value(serde_json::json!({"a": [2], "b": 1}));
        let told = [text, value].map(|json| serde_json::to_value(json).unwrap());
        assert_eq!(told[0], told[1]);
    }
}
