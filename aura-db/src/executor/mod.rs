//! Runs the statements of the repositories, and of an application, on either
//! database.
//!
//! * [`context`]: where statements go, who acts, and what the actor may do; spans and
//!   statistics around each operation.
//! * [`query`]: every statement of this crate is run here; nothing else calls
//!   `.one(db)` or `.all(db)`.
//! * [`row`]: rows of either driver, read by position.
//! * [`statement`], [`statement_cache`], [`typed_query`], [`bulk`]: what is run.
//! * [`sqlite`] and [`postgres`]: the connections. What is in memory, and the
//!   transactions of an application on a file, run on `SeaORM`'s driver.
//! * [`acquire`], [`transaction`], [`tx_connection`]: begin, commit, savepoints,
//!   retries.
//! * [`stats`]: what is counted.

pub(crate) mod acquire;
pub(crate) mod bulk;
pub(crate) mod context;
pub(crate) mod postgres;
pub(crate) mod query;
pub(crate) mod row;
mod shapes;
pub(crate) mod sqlite;
pub(crate) mod statement;
pub(crate) mod statement_cache;
pub(crate) mod stats;
pub(crate) mod transaction;
pub(crate) mod tx_connection;
pub(crate) mod typed_query;

pub(crate) use context::{Executor, Op, Shared};
