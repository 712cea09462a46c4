//! Runs statements on either database, in and out of transactions.
//!
//! * [`context`]: where statements go, and in which transaction; spans and statistics
//!   around each operation.
//! * [`query`], [`aggregate`], [`bulk`], [`insert_many`]: every statement is run here, after a [`check`].
//! * [`sqlite`]: the connections to SQLite; those to PostgreSQL are in
//!   [`postgres`](crate::postgres).
//! * [`acquire`], [`transaction`], [`transaction_state`], [`tx_connection`]: begin, commit,
//!   savepoints, retries.
//! * [`stats`]: what is counted.

mod acquire;
mod aggregate;
pub(crate) mod bulk;
mod check;
pub(crate) mod context;
mod insert_many;
mod logged;
pub(crate) mod query;
pub(crate) mod sqlite;
pub(crate) mod stats;
pub(crate) mod transaction;
pub(crate) mod transaction_state;
mod tx_connection;

pub use context::{Access, CommitHook, Executor, Operation, PoolSizes};
pub use transaction::OpenTransaction;
