//! What a step came to, in words that both databases and the model share.

use aura_db::{Action, ExecutionId, GraphProblem, UserId, WorkflowId};
use serde::Serialize;
use serde_json::Value;

/// An error with its data; ids are handles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failed {
    NotFound {
        what: String,
        key: String,
    },
    Conflict {
        table: String,
        columns: Vec<String>,
        deleted: bool,
    },
    Stale {
        what: String,
        id: i64,
        read: i64,
        found: i64,
    },
    /// Of this table. The constraint has a name on PostgreSQL only.
    ForeignKey(String),
    NotNull {
        table: String,
        column: String,
    },
    /// The fields. What is wrong with them only the databases compare.
    Validation(Vec<String>),
    State {
        what: String,
        id: i64,
    },
    LeaseLost {
        execution: ExecutionId,
        worker: String,
    },
    OwnsRows {
        user: UserId,
        workflows: u64,
        agents: u64,
    },
    Credentials,
    Forbidden {
        user: UserId,
        action: Action,
        what: &'static str,
    },
    Unsound {
        workflow: WorkflowId,
        problems: Vec<GraphProblem>,
    },
    Aborted,
    /// The closure of a transaction wanted an end of it.
    Chosen,
    /// No step may end so.
    Unexpected(String),
}

impl Failed {
    pub(crate) fn not_found(what: &str, key: &(impl ToString + ?Sized)) -> Self {
        Self::NotFound {
            what: what.to_owned(),
            key: key.to_string(),
        }
    }

    pub(crate) fn conflict(table: &str, columns: &[&str], deleted: bool) -> Self {
        Self::Conflict {
            table: table.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            deleted,
        }
    }

    pub(crate) fn validation(fields: &[&str]) -> Self {
        Self::Validation(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    /// The name of the error.
    pub(crate) fn kind(&self) -> String {
        let debug = format!("{self:?}");
        let end = debug.find(|c: char| !c.is_alphanumeric());
        debug[..end.unwrap_or(debug.len())].to_owned()
    }
}

/// What a step returned, as JSON, or its error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Value, Failed>,
    /// Of the steps in a transaction.
    pub(crate) inner: Vec<Outcome>,
    /// The words of a validation error, which the model doesn't know.
    pub(crate) words: Option<String>,
}

impl Outcome {
    pub(crate) fn ok(value: impl Serialize) -> Self {
        Self::of(Ok(json_of(value)))
    }

    pub(crate) fn of(result: Result<Value, Failed>) -> Self {
        Self {
            result,
            inner: Vec::new(),
            words: None,
        }
    }

    /// Success, or which kind of it, or which error: what is counted.
    pub(crate) fn label(&self) -> String {
        match &self.result {
            Ok(Value::Null) => "none".to_owned(),
            Ok(Value::Bool(false)) => "no".to_owned(),
            Ok(_) => "ok".to_owned(),
            Err(failed) => failed.kind(),
        }
    }

    /// The same, also to the order of the members of documents; the words only
    /// when both have them.
    pub(crate) fn agrees(&self, with: &Self) -> bool {
        let result = match (&self.result, &with.result) {
            (Ok(left), Ok(right)) => format!("{left}") == format!("{right}"),
            (left, right) => left == right,
        };
        let words = match (&self.words, &with.words) {
            (Some(left), Some(right)) => left == right,
            _ => true,
        };
        let inner = self.inner.len() == with.inner.len()
            && self
                .inner
                .iter()
                .zip(&with.inner)
                .all(|(left, right)| left.agrees(right));
        result && words && inner
    }
}

pub(crate) fn json_of(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("it is JSON")
}
