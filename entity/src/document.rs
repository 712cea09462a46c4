//! JSON documents, kept as the text that they were written as.

mod outline;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sea_orm::sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr};
use sea_orm::sqlx::{self, Row, TypeInfo, ValueRef};
use sea_orm::{
    ActiveValue, ColIdx, DbErr, IntoActiveValue, QueryResult, RuntimeErr, TryGetError, TryGetable,
    Value,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value as Json;
use serde_json::value::RawValue;

pub use self::outline::Outline;

/// A JSON document that is read and written whole: a workflow's nodes, an
/// execution's data.
///
/// It is the text, as it was written: numbers of any length, the order of
/// members, members of the same name and blanks stay what they are. It is
/// parsed when somebody asks ([`Document::json`], [`Document::read`]). Two are
/// equal when their texts are.
///
/// `serde_json` passes the text through in both directions, without the blanks
/// around it; other formats, `#[serde(flatten)]` and untagged enums can't
/// deserialize it.
///
/// ```
/// use entity::Document;
///
/// let document: Document = r#"{"b": 1.50, "a": 9007199254740993}"#.parse()?;
/// assert_eq!(document.as_str(), r#"{"b": 1.50, "a": 9007199254740993}"#);
/// assert_eq!(document.json()?["b"], 1.5);
/// assert_eq!(Document::from(serde_json::json!([1])).as_str(), "[1]");
///
/// let error = "[1, }".parse::<Document>().expect_err("not JSON");
/// assert_eq!((error.line(), error.column()), (1, 5));
/// # Ok::<_, entity::DocumentError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Document(Box<str>);

impl Document {
    /// The text, as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the text. Integers beyond 64 bits and decimals are rounded to what
    /// an `f64` holds, and of several members of the same name the last counts.
    ///
    /// Fails when a number is beyond an `f64`, or there are more than 127
    /// arrays and objects inside each other.
    pub fn json(&self) -> Result<Json, DocumentError> {
        self.read()
    }

    /// Parses the text as something of the caller's, which may borrow from it.
    ///
    /// Fails when it is of another shape, and like [`Document::json`].
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DocumentError> {
        serde_json::from_str(&self.0).map_err(|error| DocumentError::of(&error))
    }

    /// What can be told without parsing it: in one pass, without allocating,
    /// for a document of any depth.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outline::of(&self.0)
    }

    fn checked(text: Box<str>) -> Result<Self, DocumentError> {
        // Without recursion, and numbers of any size.
        serde_json::from_str::<IgnoredAny>(&text).map_err(|error| DocumentError::of(&error))?;
        Self::paired(text)
    }

    /// Text that is JSON to the letter, unless half of a surrogate pair is
    /// escaped in it: the grammar allows that, and nobody could read it.
    fn paired(text: Box<str>) -> Result<Self, DocumentError> {
        match Outline::of(&text).unpaired {
            None => Ok(Self(text)),
            Some(at) => Err(DocumentError::at(&text, at, "half of a surrogate pair")),
        }
    }
}

/// The text.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fails with what is wrong, and where.
impl FromStr for Document {
    type Err = DocumentError;

    fn from_str(text: &str) -> Result<Self, DocumentError> {
        Self::checked(text.into())
    }
}

/// Fails with what is wrong, and where.
impl TryFrom<String> for Document {
    type Error = DocumentError;

    fn try_from(text: String) -> Result<Self, DocumentError> {
        Self::checked(text.into())
    }
}

impl From<Document> for String {
    fn from(document: Document) -> Self {
        document.0.into()
    }
}

/// Without blanks. Without recursion too, because a value that code has built
/// may be of any depth.
impl From<Json> for Document {
    fn from(json: Json) -> Self {
        Self(outline::written(json).into())
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Looked over again, because a database may hold anything.
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::paired(raw.into()).map_err(de::Error::custom)
    }
}

/// Bound as text. What writes it casts it to `json_text`, as the columns of the
/// tables do by themselves: PostgreSQL has no text for a `json` column.
impl From<Document> for Value {
    fn from(document: Document) -> Self {
        Self::String(Some(document.into()))
    }
}

impl Nullable for Document {
    fn null() -> Value {
        Value::String(None)
    }
}

impl ValueType for Document {
    /// Takes text as it is, like reading a row.
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        match value {
            Value::String(Some(text)) => Ok(Self(text.into())),
            Value::Json(Some(json)) => Ok((*json).into()),
            _ => Err(ValueTypeErr),
        }
    }

    fn type_name() -> String {
        "Document".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::String
    }

    fn column_type() -> ColumnType {
        ColumnType::Json
    }
}

impl IntoActiveValue<Self> for Document {
    fn into_active_value(self) -> ActiveValue<Self> {
        ActiveValue::Set(self)
    }
}

impl TryGetable for Document {
    /// Takes the text as it is. Both databases look at what is written to a
    /// column of documents; what can't be read is noticed by who reads it.
    fn try_get_by<I: ColIdx>(row: &QueryResult, column: I) -> Result<Self, TryGetError> {
        let Some(postgres) = row.try_as_pg_row() else {
            return String::try_get_by(row, column).map(|text| Self(text.into()));
        };
        let failed =
            |error| TryGetError::DbErr(DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))));
        let value = postgres
            .try_get_raw(column.as_sqlx_postgres_index())
            .map_err(failed)?;
        if value.is_null() {
            return Err(TryGetError::Null(format!("{column:?}")));
        }
        let kind = value.type_info();
        if !matches!(kind.name(), "JSON" | "JSONB") {
            return Err(failed(sqlx::Error::ColumnDecode {
                index: format!("{column:?}"),
                source: format!("a document is not in a column of type {}", kind.name()).into(),
            }));
        }
        let text: &str = postgres
            .try_get_unchecked(column.as_sqlx_postgres_index())
            .map_err(failed)?;
        // The text of `jsonb` comes behind the number of its format's version.
        Ok(Self(text.strip_prefix('\u{1}').unwrap_or(text).into()))
    }
}

/// Why text is not a [`Document`], or a document can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at line {line} column {column}")]
pub struct DocumentError {
    problem: String,
    line: usize,
    column: usize,
}

impl DocumentError {
    /// What is wrong, without the place.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// In which line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// At which byte of the line, from 1; 0 when the line was not begun.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    fn of(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let problem = error.to_string();
        let place = format!(" at line {line} column {column}");
        Self {
            problem: problem.strip_suffix(&place).unwrap_or(&problem).to_owned(),
            line,
            column,
        }
    }

    fn at(text: &str, offset: usize, problem: &str) -> Self {
        let before = &text.as_bytes()[..offset];
        let line = before.split(|byte| *byte == b'\n').count();
        let begin = before.iter().rposition(|byte| *byte == b'\n');
        Self {
            problem: problem.to_owned(),
            line,
            column: offset - begin.map_or(0, |at| at + 1) + 1,
        }
    }
}
