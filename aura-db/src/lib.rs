//! The data layer of AURA on SQLite or PostgreSQL: the one crate that its
//! services depend on.
//!
//! # Quickstart
//!
//! In an empty folder this makes a database and uses it
//! (`cargo run -p aura-db --example quickstart`):
//!
//! ```no_run
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! A whole service, an HTTP API with a worker and an orderly end, is in
//! `aura-db/examples/api`.
//!
//! # Where things are
//!
//! A [`Database`] is opened once; its clones share the connections, and are
//! what handlers and tasks keep. The same repositories are there on a
//! [`Database`], in a [`Transaction`], and on the [`Restricted`] handle of a
//! user:
//!
//! | | |
//! |---|---|
//! | [`users`] | people, their passwords, roles and addresses |
//! | [`sessions`] | logging in, tokens, logging out |
//! | [`workflows`] | automations, their versions and history |
//! | [`graph`] | the nodes and connections of a workflow, and what is wrong in them |
//! | [`plugins`] | what workflows are extended with |
//! | [`executions`] | runs: a queue for any number of workers |
//! | [`logs`] | what executions tell: to search, and to follow as it is written |
//! | [`agents`] | language models with instructions |
//! | [`config_schema`] | checks the configuration of a plugin or agent |
//!
//! And around them:
//!
//! | | |
//! |---|---|
//! | [`Database::transaction`] | several operations together or not at all; run again when it collides with others |
//! | [`Database::begin`] | the same for code that can't run twice, with `commit` and `rollback` |
//! | [`Database::acting_as`] | who is noted as `created_by` and `updated_by` |
//! | [`Database::restricted_to`] | only what the [role](Role) of a user allows, asked at each operation |
//! | [`page`] | lists in parts, by cursor or number |
//! | [`Error`] | what went wrong, split by what the caller can do about it |
//! | [`Config`] | the settings; [`Database::from_env`] reads them from `DB_*` variables |
//! | [`migration`] | the schema, and the [`Runner`](migration::Runner) for migrations of your own (its command line with the feature `cli`) |
//! | [`Database::health`], [`Database::stats`] | for the endpoints that watch a service |
//! | [`password`] | hashing, for what is not a login |
//! | [`prelude`] | what code with tables of its own imports |
//! | `testing` | `#[aura_db::test]`: your own tests on both databases, with rows to begin with, a clock to set, and the count of statements (feature `testing`) |
//!
//! # Queries of your own
//!
//! [`entity`] has the tables for SeaORM, which is [re-exported](sea_orm). A
//! query goes to [`Database::fetch_all`], [`Database::fetch_one`] or
//! [`Database::fetch_optional`], a statement that writes to
//! [`Database::execute`], many rows to [`Database::insert_many`]; a [`Transaction`] has
//! them too. [`TypedStatement`] lists what they take: also joins of up to six entities, and
//! `find_with_related`. For what only SeaORM's own connections can do, there is
//! [`Database::seaorm`].
//!
//! A statement runs as it is written. What differs between the databases, and how to have
//! the same answer on both:
//!
//! * `LIKE` tells `a` from `A` on both, so `contains` and `starts_with` do; compare
//!   `lower(column)` for a search without case.
//! * NULL sorts last on PostgreSQL and first on SQLite, when it ascends. Order a column that
//!   may be NULL with `order_by_with_nulls(column, Order::Asc, NullOrdering::Last)`, which
//!   both read from an index.
//! * A text or JSON with U+0000 is refused on both, because PostgreSQL can't store it.
//!
//! Columns of these types need the feature of the same name as in SeaORM, or an error names
//! it:
//!
//! | feature | types |
//! |---|---|
//! | `with-uuid` | `Uuid` |
//! | `with-rust_decimal` | `Decimal` |
//! | `with-time` | `Date`, `Time`, `PrimitiveDateTime` and `OffsetDateTime` of the crate time |
//! | `postgres-array` | `Vec<T>` and `Option<Vec<T>>`, which SQLite refuses |
//!
//! ```
//! use aura_db::entity::{RepositoryEntity, WorkflowStatus, workflows};
//! use aura_db::sea_orm::{ColumnTrait, PaginatorTrait, QueryFilter};
//!
//! # async fn example(db: aura_db::Database) -> Result<(), Box<dyn std::error::Error>> {
//! // `not_deleted()` leaves out what is deleted; `find()` does not.
//! let active = workflows::Entity::not_deleted()
//!     .filter(workflows::COLUMN.status.eq(WorkflowStatus::Active));
//! let active: Vec<aura_db::Workflow> = db.fetch_all(active).await?;
//!
//! let all = workflows::Entity::not_deleted().count(&db.seaorm().reader().await?).await?;
//! println!("{} of {all} workflows are active", active.len());
//! # Ok(()) }
//! ```
//!
//! # In production
//!
//! * Migrate before the new version starts (`cargo run -p migration -- up`), or
//!   set `DB_SYNCHRONIZE=true`: of several processes that start at once one
//!   migrates and the others wait. A schema that is newer than the build is only
//!   a warning, so that a deploy can roll.
//! * SQLite is for one machine: a file on a local disk, any number of readers and
//!   one writer at a time. For several machines take PostgreSQL, and mind that
//!   each process may open `DB_POOL_MAX` connections, and with [`Database::seaorm`] as many
//!   again to read and to write.
//! * Retry what fails with [`Error::Busy`] or [`Error::Unavailable`]: nothing was done.
//!   Don't retry [`Error::OutcomeUnknown`]: the write was sent, its answer was lost, and
//!   it may have been done. Look for what it writes first (an execution by its workflow
//!   and time, a user by the address), or make it harmless to repeat: give each request
//!   a key of its own, write it with the rest in one transaction, and look for it before
//!   you begin again.
//! * Watch the log for `aura_db::unreadable`: a row that this build can't read was passed
//!   over by a worker or a follower, as after a step back to an older build. Lists have
//!   such rows in [`Page::unreadable`], and an [`Error::Inconsistent`] of a write says whether
//!   the write is done ([`RowError::written`](aura_orm::RowError::written)).
//! * Call [`Database::close`] at the end.

pub mod config_schema;
mod context;
mod database;
mod error;
pub mod graph;
mod health;
mod input;
pub mod page;
pub mod password;
pub mod prelude;
mod queries;
mod repositories;
mod schema;
#[cfg(feature = "testing")]
pub mod testing;
mod unicode;
mod validate;

pub use async_trait::async_trait;
#[cfg(feature = "testing")]
pub use aura_db_macros::test;
pub use aura_orm::projection;
pub use aura_orm::repository::{Conventions, Deleted, Filter, Hooks, Projection};
pub use aura_orm::{
    CachedSql, CachedStatement, Clock, DatabaseStats, Deserialized, EntityModel, Executor,
    Isolation, ModelOf, OWN_STATEMENTS, OperationStats, RepositoryEntity, RoleSource, RowDecoder,
    RowError, RowOf, RowReader, SeaOrmWriter, SystemClock, TypedQuery, TypedStatement,
};
pub use connection::{
    Config, Durability, Environment, Pool, Postgres, Source, Target, Tls, TlsMode,
};
pub use database::{Database, OwnedTransaction, Restricted, Transaction};
pub use entity::{
    self, Action, AgentId, Document, DocumentError, ExecutionAttemptId, ExecutionId,
    ExecutionLimitId, ExecutionMode, ExecutionStatus, LogId, LogLevel, PasswordHash, PluginId,
    Resource, Role, Scope, SessionId, TokenHash, UserId, WorkflowId, WorkflowStatus,
    WorkflowVersionId,
};
pub use error::{Error, FieldError};
pub use graph::{GraphEdge, GraphNode, GraphProblem, WorkflowGraph};
pub use health::{Health, PoolHealth, SchemaHealth};
pub use input::{IntoDocument, IntoText};
pub use migration::{self, Migrator};
pub use page::{Cursor, Page, PageRequest, Sort, UnreadableRow};
pub use password::NewPassword;
pub use repositories::agents::{Agent, AgentChange, AgentFilter, AgentSummary, NewAgent};
pub use repositories::executions::{
    Claim, DEFAULT_QUEUE, Enqueued, Execution, ExecutionAttempt, ExecutionFilter, ExecutionStats,
    ExecutionSummary, LimitOf, NewExecution, Outcome, Wakeups, Worker,
};
pub use repositories::logs::{Log, LogFilter, LogStats, NewLog};
pub use repositories::plugins::{NewPlugin, Plugin, PluginFilter, PluginSummary};
pub use repositories::sessions::{self, Session, SessionRequest, Token};
pub use repositories::users::{self, NewUser, User, UserChange, UserFilter, UserSort};
pub use repositories::workflows::{
    NewWorkflow, Workflow, WorkflowChange, WorkflowDetails, WorkflowFilter, WorkflowSort,
    WorkflowSummary,
};
pub use repositories::{agents, executions, logs, plugins, workflows};
pub use sea_orm;
pub use secrecy::{self, SecretString};
pub use validate::{MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_TEXT_BYTES};

/// What [`Hooks`] return; converts into [`Error`].
pub type OrmError = aura_orm::Error;

/// The rows of an entity of yours. From [`Database::repository`].
pub type Repository<E> = aura_orm::Repository<E, Error>;

/// SeaORM's own connections, for what only they can do.
pub type SeaOrm = aura_orm::SeaOrm<Error>;

/// A transaction of [`SeaOrm`].
pub type SeaOrmTransaction = aura_orm::SeaOrmTransaction<Error>;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../../docs/own-tables.md")]
struct OwnTables;

#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../../docs/typeorm.md")]
struct FromTypeOrm;
