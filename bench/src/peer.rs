//! What every peer can do. The operations are those of [`Operation`], and the
//! answers are whole rows, so that nobody is faster by reading less.
//!
//! [`Operation`]: crate::workload::Operation

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::{Entry, Shape};
use crate::deliveries::NewDelivery;
use crate::rows::{Account, Attempted, Delivery, Details, Log, Plugin, Summary, Workflow};
use crate::workload::{Backend, Durability, Operation};

/// Connections that a peer may open at the most; on SQLite, to read with.
pub(crate) const CONNECTIONS: u32 = 10;

/// How long a writer waits for another.
pub(crate) const BUSY: std::time::Duration = std::time::Duration::from_secs(30);

/// How long a worker keeps an execution.
pub(crate) const LEASE: std::time::Duration = std::time::Duration::from_mins(1);

/// What is wrong when a delivery is not found.
pub(crate) const NO_DELIVERY: &str = "no such delivery";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    AuraDb,
    #[value(name = "seaorm")]
    #[serde(rename = "seaorm")]
    SeaOrm,
    Rusqlite,
    TokioPostgres,
    Sqlx,
    Diesel,
    DieselAsync,
    #[value(name = "typeorm")]
    #[serde(rename = "typeorm")]
    TypeOrm,
    Drizzle,
    GraphileWorker,
    PgBoss,
}

impl Name {
    pub(crate) const ALL: [Self; 11] = [
        Self::AuraDb,
        Self::SeaOrm,
        Self::Rusqlite,
        Self::TokioPostgres,
        Self::Sqlx,
        Self::Diesel,
        Self::DieselAsync,
        Self::TypeOrm,
        Self::Drizzle,
        Self::GraphileWorker,
        Self::PgBoss,
    ];

    pub(crate) fn runs_on(self, backend: Backend) -> bool {
        match self {
            Self::AuraDb | Self::SeaOrm | Self::Sqlx | Self::TypeOrm | Self::Drizzle => true,
            Self::Rusqlite | Self::Diesel => backend == Backend::Sqlite,
            Self::TokioPostgres | Self::DieselAsync | Self::GraphileWorker | Self::PgBoss => {
                backend == Backend::Postgres
            }
        }
    }

    /// Returns the folder of a peer that runs on Node.js, in `node`.
    pub(crate) fn node_folder(self) -> Option<&'static str> {
        match self {
            Self::TypeOrm => Some("typeorm"),
            Self::Drizzle => Some("drizzle"),
            Self::GraphileWorker => Some("graphile-worker"),
            Self::PgBoss => Some("pg-boss"),
            _ => None,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::AuraDb => "aura-db",
            Self::SeaOrm => "SeaORM",
            Self::Rusqlite => "rusqlite",
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
            Self::Diesel => "diesel",
            Self::DieselAsync => "diesel-async",
            Self::TypeOrm => "TypeORM",
            Self::Drizzle => "Drizzle",
            Self::GraphileWorker => "graphile-worker",
            Self::PgBoss => "pg-boss",
        }
    }

    /// Returns whether it is a queue, and nothing else.
    pub(crate) fn is_queue(self) -> bool {
        matches!(self, Self::GraphileWorker | Self::PgBoss)
    }

    /// Returns whether it is measured in this. In what the repository of any entity does,
    /// and in the queue, only those that it is compared with are.
    pub(crate) fn does(self, operation: Operation) -> bool {
        let by_hand = matches!(self, Self::AuraDb | Self::Rusqlite | Self::TokioPostgres);
        match operation {
            Operation::Queue => by_hand || self.is_queue(),
            _ if self.is_queue() => false,
            Operation::RepositoryFind
            | Operation::RepositoryInsert
            | Operation::RepositoryList
            | Operation::RepositoryQuery => by_hand,
            Operation::RepositoryUpdate => by_hand || self == Self::SeaOrm,
            Operation::RepositoryRelated => by_hand || matches!(self, Self::SeaOrm | Self::TypeOrm),
            Operation::BuiltInFind | Operation::BuiltInRepositoryFind => self == Self::AuraDb,
            _ => true,
        }
    }

    /// How it is used, for the reader of the figures.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::AuraDb => {
                "the repositories of this workspace, with all that they check; an update also writes the history; the own table by `fetch_optional`, `fetch_all`, `fetch_one` and `transaction`, and by `CachedSql` where the statement is built once; what is named \"repository\" by `Repository` of the application's own entity"
            }
            Self::SeaOrm => {
                "entities, `find_also_related`, `find_related` and `ActiveModel` on its own pool, as the book shows them; documents are parsed; a transaction on SQLite begins with IMMEDIATE, without which it fails beside others"
            }
            Self::Rusqlite => {
                "the engine by hand: SQL in cached prepared statements, columns by position, called inline in the task; documents stay text; a transaction begins with IMMEDIATE; the queue is three statements, without a look at deleted workflows, limits, turns and lost workers"
            }
            Self::TokioPostgres => {
                "the engine by hand: SQL in prepared statements, columns by position, a pool of connections without a check; documents stay text; many rows are one `INSERT … VALUES`; a transaction is BEGIN, its statements and COMMIT, one after the other; the queue is three statements, without a look at deleted workflows, limits, turns and lost workers"
            }
            Self::Sqlx => {
                "SQL by hand in statements that each connection keeps prepared, columns by position, its own pool without a check; documents stay text; many rows are one `INSERT … VALUES`; a transaction on SQLite begins with IMMEDIATE"
            }
            Self::Diesel => {
                "its query builder and `r2d2` pool under `spawn_blocking`, as an asynchronous service has to use it; documents stay text; a transaction begins with IMMEDIATE"
            }
            Self::DieselAsync => {
                "diesel's query builder on tokio-postgres, with `deadpool` without a check; documents stay text"
            }
            Self::TypeOrm => {
                "`Repository` with `find`, `relations`, `insert` and `update` on Node.js, with better-sqlite3 or pg; documents are parsed; `find` asks once where `findOne` with relations asks twice, and `insert` and `update` write at once where `save` reads first; transactions on SQLite queue, because all share its one connection"
            }
            Self::Drizzle => {
                "its query builder on Node.js, with better-sqlite3 or pg, and `prepare` where the statement is built once; documents are parsed; a workflow's owner is joined and its plugins are a second query; SQLite has one connection, and a transaction on it begins with IMMEDIATE"
            }
            Self::GraphileWorker => {
                "`addJob` on Node.js, and a runner with as many workers as tasks, which is woken by NOTIFY; a call ends when its job is completed"
            }
            Self::PgBoss => "`send`, `fetch` and `complete` on Node.js, each of one job",
        }
    }
}

/// Where the database is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    Sqlite {
        path: PathBuf,
    },
    Postgres {
        host: String,
        port: u16,
        user: String,
        password: Option<String>,
        database: String,
    },
}

/// What a peer opens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub peer: Name,
    pub target: Target,
    pub durability: Durability,
    pub connections: u32,
    pub shape: Shape,
}

impl Setup {
    /// The file of a database of SQLite's.
    pub(crate) fn file(&self) -> Result<&PathBuf> {
        match &self.target {
            Target::Sqlite { path } => Ok(path),
            Target::Postgres { .. } => Err("it speaks to SQLite only".into()),
        }
    }
}

/// Somebody who can do all the operations.
pub(crate) trait Peer: Send + Sync + Sized + 'static {
    /// Nothing that it does waits for anything in the runtime.
    const INLINE: bool = false;

    /// Opens the database; connections that aren't needed yet may come later.
    fn open(setup: &Setup) -> impl Future<Output = Result<Self>> + Send;

    /// What the connection that writes says about itself: SQLite's
    /// `journal_mode` and `synchronous`, PostgreSQL's `synchronous_commit`.
    fn durability(&self) -> impl Future<Output = Result<String>> + Send;

    /// What can be made ready before any row is written.
    fn prepare(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// The session of this token, if it has not expired, and its user, who is
    /// active and not deleted.
    fn authenticate(&self, token: &str) -> impl Future<Output = Result<Option<Account>>> + Send;

    /// The workflow, its owner and its plugins by name, unless deleted.
    fn details(&self, workflow: i64) -> impl Future<Output = Result<Option<Details>>> + Send;

    /// The owner's 50 workflows that were changed last, unless deleted.
    fn summaries(&self, owner: i64) -> impl Future<Output = Result<Vec<Summary>>> + Send;

    /// The same with their documents.
    fn documents(&self, owner: i64) -> impl Future<Output = Result<Vec<Workflow>>> + Send;

    /// The 50 entries before [`Shape::before`] this place, newest first.
    fn logs(&self, place: i64) -> impl Future<Output = Result<Vec<Log>>> + Send;

    /// Writes one entry and gives its id.
    fn append(&self, entry: Entry) -> impl Future<Output = Result<i64>> + Send;

    /// Writes all entries or none, and says how many.
    fn append_many(&self, entries: Vec<Entry>) -> impl Future<Output = Result<u64>> + Send;

    /// Reads the workflow whole, gives it another name, writes name and nodes
    /// back if it is still at the version that was read, and says the new one.
    fn update(&self, workflow: i64, name: String) -> impl Future<Output = Result<i64>> + Send;

    /// Returns the delivery with this id.
    fn own_row(&self, id: i64) -> impl Future<Output = Result<Option<Delivery>>> + Send;

    /// Returns the same by a statement that is built once, from a peer that builds it each
    /// time otherwise.
    fn own_row_cached(&self, id: i64) -> impl Future<Output = Result<Option<Delivery>>> + Send {
        self.own_row(id)
    }

    /// Returns the workflow's 50 deliveries that follow this id.
    fn own_page(
        &self,
        workflow: i64,
        after: i64,
    ) -> impl Future<Output = Result<Vec<Delivery>>> + Send;

    /// Writes one delivery and returns its id.
    fn own_insert(&self, new: NewDelivery) -> impl Future<Output = Result<i64>> + Send;

    /// Reads the delivery with this id and writes two others, in one transaction, and
    /// returns the one and the ids of the others.
    fn transaction(
        &self,
        id: i64,
        new: [NewDelivery; 2],
    ) -> impl Future<Output = Result<(Delivery, [i64; 2])>> + Send;

    /// Returns the delivery with this id, by a repository where there is one.
    fn repository_find(&self, id: i64) -> impl Future<Output = Result<Option<Delivery>>> + Send {
        self.own_row(id)
    }

    /// Writes one delivery by it and returns its id.
    fn repository_insert(&self, new: NewDelivery) -> impl Future<Output = Result<i64>> + Send {
        self.own_insert(new)
    }

    /// Notes that a delivery arrived after this number of attempts, and returns it.
    fn repository_update(
        &self,
        id: i64,
        attempts: i64,
    ) -> impl Future<Output = Result<Delivery>> + Send {
        async move { Err(format!("no delivery {id} gets {attempts} attempts here").into()) }
    }

    /// Returns the workflow's 50 deliveries that follow this id.
    fn repository_list(
        &self,
        workflow: i64,
        after: i64,
    ) -> impl Future<Output = Result<Vec<Delivery>>> + Send {
        self.own_page(workflow, after)
    }

    /// Returns the same for a filter and an order that a client composed.
    fn repository_query(
        &self,
        workflow: i64,
        after: i64,
    ) -> impl Future<Output = Result<Vec<Delivery>>> + Send {
        self.own_page(workflow, after)
    }

    /// Returns the same with their attempts.
    fn repository_related(
        &self,
        workflow: i64,
        after: i64,
    ) -> impl Future<Output = Result<Vec<Attempted>>> + Send {
        async move { Err(format!("no attempts of {workflow} after {after} here").into()) }
    }

    /// Queues an execution with this number, claims the next and finishes it, and returns the
    /// number of that.
    fn queue(&self, number: i64) -> impl Future<Output = Result<i64>> + Send {
        async move { Err(format!("no queue for {number} here").into()) }
    }

    /// Returns the plugin with this id, by a repository of this workspace or of any entity.
    fn built_in_find(
        &self,
        id: i64,
        any: bool,
    ) -> impl Future<Output = Result<Option<Plugin>>> + Send {
        async move { Err(format!("no plugin {id} here ({any})").into()) }
    }
}
