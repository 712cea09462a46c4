//! What is measured.

use std::fmt::Write;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::data::ENTRIES;

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// As it is spelt in arguments and file names.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// Every commit is on the disk: SQLite's `synchronous = FULL`, PostgreSQL's
    /// `synchronous_commit = on`.
    Full,
    /// SQLite's `synchronous = NORMAL`: a power cut may undo the last commits.
    Normal,
}

impl Durability {
    /// What a connection says about itself when it has this durability.
    pub(crate) fn said_by(self, backend: Backend) -> &'static str {
        match (backend, self) {
            (Backend::Sqlite, Self::Full) => "wal 2",
            (Backend::Sqlite, Self::Normal) => "wal 1",
            (Backend::Postgres, _) => "on",
        }
    }
}

/// Something that a service does with its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// The session of a token, with its user.
    Authenticate,
    /// A workflow with its owner and plugins.
    Details,
    /// 50 workflows of an owner without their documents, last changed first.
    Summaries,
    /// The same with their documents.
    Documents,
    /// 50 log entries, far from the newest.
    Logs,
    /// One log entry, in a commit of its own.
    Append,
    /// 1,000 log entries in one commit.
    AppendMany,
    /// A workflow is read, changed and written, if nobody else did meanwhile.
    Update,
    /// 40 % authenticate, 20 % details, 10 % summaries, 10 % logs, 15 % append,
    /// 5 % update.
    Mixed,
    /// A row of an application's own table, by its key.
    OwnRow,
    /// The same by a statement that is built once.
    OwnRowCached,
    /// 50 rows of an own table that follow another, of one workflow.
    OwnPage,
    /// A row for an own table, in a commit of its own.
    OwnInsert,
    /// A row of an own table is read and two are inserted, in one transaction.
    Transaction,
    /// A row of an own table by its key, from the repository of any entity.
    RepositoryFind,
    /// Inserts a row by it.
    RepositoryInsert,
    /// Changes two columns of a row by it, and returns the row.
    RepositoryUpdate,
    /// 50 rows that follow another, of one workflow, by its `list`.
    RepositoryList,
    /// The same by `query`, with names of columns and operators that a client sent.
    RepositoryQuery,
    /// The same with the three rows of another own table that each of them has.
    RepositoryRelated,
    /// A plugin by its key, from the repository of this workspace.
    BuiltInFind,
    /// The same from the repository of any entity.
    BuiltInRepositoryFind,
    /// An execution is queued, the next is claimed and finished, each in a commit of its own.
    Queue,
    /// From the start of the process to the answer to an `Authenticate`.
    Start,
}

impl Operation {
    /// All of them, in the order of the report.
    const ALL: [Self; 24] = [
        Self::Authenticate,
        Self::Details,
        Self::Summaries,
        Self::Documents,
        Self::Logs,
        Self::Append,
        Self::AppendMany,
        Self::Update,
        Self::Mixed,
        Self::OwnRow,
        Self::OwnRowCached,
        Self::OwnPage,
        Self::OwnInsert,
        Self::Transaction,
        Self::RepositoryFind,
        Self::RepositoryInsert,
        Self::RepositoryUpdate,
        Self::RepositoryList,
        Self::RepositoryQuery,
        Self::RepositoryRelated,
        Self::BuiltInFind,
        Self::BuiltInRepositoryFind,
        Self::Queue,
        Self::Start,
    ];

    /// Returns how many of it are under way at once, in each of its workloads.
    fn tasks(self) -> &'static [u32] {
        match self {
            Self::Authenticate | Self::Append | Self::Queue => &[1, 8, 64],
            Self::Details
            | Self::OwnRow
            | Self::OwnRowCached
            | Self::OwnPage
            | Self::OwnInsert
            | Self::Transaction => &[1, 8],
            Self::Summaries
            | Self::Documents
            | Self::Logs
            | Self::AppendMany
            | Self::Update
            | Self::RepositoryFind
            | Self::RepositoryInsert
            | Self::RepositoryUpdate
            | Self::RepositoryList
            | Self::RepositoryQuery
            | Self::RepositoryRelated
            | Self::BuiltInFind
            | Self::BuiltInRepositoryFind
            | Self::Start => &[1],
            Self::Mixed => &[8],
        }
    }

    /// How much one call counts.
    pub(crate) fn weight(self) -> u64 {
        match self {
            Self::AppendMany => ENTRIES,
            _ => 1,
        }
    }

    fn writes(self) -> bool {
        matches!(
            self,
            Self::Append
                | Self::AppendMany
                | Self::Update
                | Self::Mixed
                | Self::OwnInsert
                | Self::Transaction
                | Self::RepositoryInsert
                | Self::RepositoryUpdate
                | Self::Queue
        )
    }

    fn title(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Details => "workflow with owner and plugins",
            Self::Summaries => "50 workflows, summaries",
            Self::Documents => "50 workflows, full documents",
            Self::Logs => "50 log entries, deep",
            Self::Append => "append a log entry",
            Self::AppendMany => "append 1,000 log entries",
            Self::Update => "read, change and write a workflow",
            Self::Mixed => "mixed, 80 % reads",
            Self::OwnRow => "own table, a row by its key",
            Self::OwnRowCached => "own table, a row by its key, statement built once",
            Self::OwnPage => "own table, 50 rows of a workflow",
            Self::OwnInsert => "own table, insert a row",
            Self::Transaction => "own table, read a row and insert two in a transaction",
            Self::RepositoryFind => "repository, a row by its key",
            Self::RepositoryInsert => "repository, insert a row",
            Self::RepositoryUpdate => "repository, change a row",
            Self::RepositoryList => "repository, 50 rows of a workflow",
            Self::RepositoryQuery => "repository, 50 rows that a client filters",
            Self::RepositoryRelated => "repository, 50 rows with three related ones each",
            Self::BuiltInFind => "a plugin by its key",
            Self::BuiltInRepositoryFind => "repository, a plugin by its key",
            Self::Queue => "queue, claim and finish an execution",
            Self::Start => "cold start to first answer",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Details => "details",
            Self::Summaries => "summaries",
            Self::Documents => "documents",
            Self::Logs => "logs",
            Self::Append => "append",
            Self::AppendMany => "append_many",
            Self::Update => "update",
            Self::Mixed => "mixed",
            Self::OwnRow => "own-row",
            Self::OwnRowCached => "own-row-cached",
            Self::OwnPage => "own-page",
            Self::OwnInsert => "own-insert",
            Self::Transaction => "transaction",
            Self::RepositoryFind => "repository-find",
            Self::RepositoryInsert => "repository-insert",
            Self::RepositoryUpdate => "repository-update",
            Self::RepositoryList => "repository-list",
            Self::RepositoryQuery => "repository-query",
            Self::RepositoryRelated => "repository-related",
            Self::BuiltInFind => "built-in-find",
            Self::BuiltInRepositoryFind => "built-in-repository-find",
            Self::Queue => "queue",
            Self::Start => "start",
        }
    }
}

/// An operation, and how it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    pub operation: Operation,
    /// How many of them are under way at once.
    pub tasks: u32,
    pub durability: Durability,
}

impl Workload {
    /// All of them, in the order of the report.
    pub(crate) fn all(backend: Backend) -> Vec<Self> {
        let mut all = Vec::new();
        let durabilities: &[Durability] = match backend {
            Backend::Sqlite => &[Durability::Full, Durability::Normal],
            Backend::Postgres => &[Durability::Full],
        };
        for operation in Operation::ALL {
            for &durability in durabilities {
                if durability == Durability::Full || operation.writes() {
                    all.extend(operation.tasks().iter().map(|&tasks| Self {
                        operation,
                        tasks,
                        durability,
                    }));
                }
            }
        }
        all
    }

    /// Its name in arguments and files.
    pub(crate) fn key(self) -> String {
        let mut key = self.operation.key().to_owned();
        if self.operation.tasks().len() > 1 {
            let _ = write!(key, "-{}", self.tasks);
        }
        if self.durability == Durability::Normal {
            key.push_str("-normal");
        }
        key
    }

    /// Its name for people.
    pub(crate) fn title(self, backend: Backend) -> String {
        let mut title = self.operation.title().to_owned();
        if !matches!(self.operation, Operation::Start) {
            let plural = if self.tasks == 1 { "" } else { "s" };
            let _ = write!(title, ", {} task{plural}", self.tasks);
        }
        if backend == Backend::Sqlite && self.operation.writes() {
            title.push_str(match self.durability {
                Durability::Full => ", FULL",
                Durability::Normal => ", NORMAL",
            });
        }
        title
    }

    /// What its figures count.
    pub(crate) fn unit(self) -> Unit {
        match self.operation {
            Operation::AppendMany => Unit::Rows,
            Operation::Start => Unit::Milliseconds,
            _ => Unit::Operations,
        }
    }
}

/// What figures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// A second; more is better.
    Operations,
    /// A second; more is better.
    Rows,
    /// Less is better.
    Milliseconds,
    /// Less is better.
    Mebibytes,
}

impl Unit {
    /// How many times better `one` is than `other`.
    pub(crate) fn ratio(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Operations | Self::Rows => one / other,
            Self::Milliseconds | Self::Mebibytes => other / one,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operations => "/s",
            Self::Rows => "rows/s",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique() {
        for backend in [Backend::Sqlite, Backend::Postgres] {
            let mut keys: Vec<_> = Workload::all(backend)
                .into_iter()
                .map(Workload::key)
                .collect();
            let count = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), count);
        }
    }

    #[test]
    fn more_is_better_but_for_time_and_memory() {
        assert!((Unit::Operations.ratio(10.0, 5.0) - 2.0).abs() < 1e-9);
        assert!((Unit::Mebibytes.ratio(5.0, 10.0) - 2.0).abs() < 1e-9);
    }
}
