//! Runs the statements of the repositories, and of an application, on either
//! database.
//!
//! * [`context`]: where statements go, who acts, and what the actor may do; spans and
//!   statistics around each operation.
//! * [`query`], [`bulk`]: every statement is run here, a repository's and an
//!   application's.
//! * [`sqlite`]: the connections to SQLite; those to PostgreSQL are `aura-orm`'s pool.
//! * [`acquire`], [`transaction`], [`tx_connection`]: begin, commit, savepoints,
//!   retries.
//! * [`stats`]: what is counted.

pub(crate) mod acquire;
pub(crate) mod bulk;
pub(crate) mod context;
mod logged;
pub(crate) mod query;
pub(crate) mod sqlite;
pub(crate) mod stats;
pub(crate) mod summary;
pub(crate) mod transaction;
pub(crate) mod tx_connection;

pub(crate) use context::{Executor, Op, Shared};
