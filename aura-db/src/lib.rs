//! The data layer of AURA on SQLite or PostgreSQL: the one crate that its
//! services depend on.
//!
//! ```no_run
//! use aura_db::entity::{Live, Role, users};
//! use aura_db::sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let db = aura_db::Database::from_env().await?; // DB_* variables, or .env
//! let admins = users::Entity::live()
//!     .filter(users::COLUMN.role.eq(Role::Admin))
//!     .all(db.reader())
//!     .await?;
//! println!("{} admins; {:?}", admins.len(), db.health().await?.schema);
//! db.close().await;
//! # Ok(()) }
//! ```
//!
//! * [`Database`] opens the connections, checks that the schema is the one
//!   that this build needs, and tells how it is ([`Database::health`]).
//! * [`entity`] has the tables, [`Config`] the settings, [`Migrator`] and
//!   [`migration`] the schema.
//! * [`password`] hashes passwords.

mod clock;
mod database;
mod engine;
mod error;
pub mod graph;
mod health;
pub mod page;
pub mod password;
mod repositories;
#[cfg(feature = "testing")]
pub mod testing;
mod validate;

pub use clock::{Clock, SystemClock};
pub use connection::{Config, Environment, Pool, Postgres, Source, Target, Tls, TlsMode};
pub use database::{Database, Restricted, Transaction};
pub use engine::run::Fetch;
pub use engine::stats::{DatabaseStats, OperationStats};
pub use engine::transaction::Isolation;
pub use entity::{
    self, Action, AgentId, Document, ExecutionId, ExecutionMode, ExecutionStatus, LogId, LogLevel,
    PluginId, Reach, Resource, Role, SessionId, UserId, WorkflowId, WorkflowStatus,
    WorkflowVersionId,
};
pub use error::{Error, FieldError};
pub use graph::{GraphEdge, GraphNode, GraphProblem, WorkflowGraph};
pub use health::{Health, PoolHealth, SchemaHealth};
pub use migration::{self, Migrator};
pub use page::{Cursor, Deleted, List, Page};
pub use repositories::executions::{
    Execution, ExecutionFilter, ExecutionStats, ExecutionSummary, NewExecution, Outcome,
};
pub use repositories::logs::{Log, LogFilter, LogStats, NewLog};
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

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
